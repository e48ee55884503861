"""The report in a browser: everything shows, nothing is fetched, nothing that was text acts."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from thr_probe import gallery
from thr_probe.report.build import ReportOptions, write_report
from thr_probe.report.inline_svg import inline_svg

HOSTILE = "</script><script>document.title='acted'</script><img src=x onerror=alert(1)>"


class Visit:
    """A page that was opened, with what it said and asked for."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self._context = browser.new_context(**context)
        self.page = self._context.new_page()
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def close(self) -> None:
        self._context.close()


@pytest.fixture(scope="module")
def visit(browser: Any, lab_report: Path) -> Iterator[Visit]:
    opened = Visit(browser, lab_report / "report.html", viewport={"width": 1280, "height": 900})
    yield opened
    opened.close()


def test_nothing_is_fetched_and_nothing_complains(visit, lab_report):
    visit.page.wait_for_timeout(300)
    assert visit.messages == []
    assert [url for url in visit.requests if not url.startswith("data:")] == [
        (lab_report / "report.html").as_uri()
    ]


def test_every_figure_is_visible_and_fits(visit, lab_report):
    boxes = visit.page.eval_on_selector_all(
        "figure svg", "all => all.map(one => one.getBoundingClientRect().toJSON())"
    )
    assert len(boxes) == len(list((lab_report / "files").glob("*.svg")))
    for box in boxes:
        assert box["width"] > 200
        assert box["height"] > 80
        assert box["right"] <= 1280
    drawn = visit.page.eval_on_selector_all(
        "figure svg", "all => all.map(one => one.getBBox().width > 0 && one.checkVisibility())"
    )
    assert all(drawn)


def test_the_page_is_as_wide_as_its_window_on_a_desk_and_on_a_phone(browser, lab_report):
    for width in (1280, 800, 390):
        opened = Visit(
            browser, lab_report / "report.html", viewport={"width": width, "height": 800}
        )
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        opened.close()


def test_links_of_the_contents_lead_to_their_sections(visit):
    links = visit.page.eval_on_selector_all(
        "nav.side a", "all => all.map(one => one.getAttribute('href'))"
    )
    assert len(links) > 8
    for link in (links[2], links[-1]):
        visit.page.click(f'nav.side a[href="{link}"]')
        top = visit.page.evaluate(
            "id => document.getElementById(id).getBoundingClientRect().top", link[1:]
        )
        assert -2 <= top <= 900


def test_a_table_opens_and_its_file_is_saved_whole(visit, lab_report):
    details = visit.page.locator("article#overlap details.table").first
    details.locator("summary").click()
    assert details.locator("tbody tr").first.is_visible()
    with visit.page.expect_download() as started:
        details.locator("a[download]").click()
    assert started.value.suggested_filename == "overlap.csv"
    saved = Path(started.value.path()).read_bytes()
    assert saved == (lab_report / "files" / "overlap.csv").read_bytes()


def test_the_tokens_are_there_and_coloured(visit):
    viewer = visit.page.locator("#tokens")
    viewer.scroll_into_view_if_needed()
    assert "Colour by" in viewer.inner_text()
    assert visit.messages == []


def _luminance(browser: Any, path: Path, scheme: str) -> float:
    opened = Visit(browser, path, color_scheme=scheme)
    text, page = opened.page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    opened.close()
    return sum(_channels(text)) - sum(_channels(page))


def _channels(color: str) -> list[float]:
    return [float(part) for part in color.partition("(")[2].rstrip(")").split(",")[:3]]


def test_dark_is_dark_and_light_is_light(browser, lab_report):
    assert _luminance(browser, lab_report / "report.html", "light") < -500
    assert _luminance(browser, lab_report / "report.html", "dark") > 500


def test_on_paper_the_figures_stay_and_what_only_works_on_a_screen_goes(browser, lab_report):
    opened = Visit(browser, lab_report / "report.html", viewport={"width": 760, "height": 900})
    opened.page.emulate_media(media="print")
    assert not opened.page.locator("nav.side").is_visible()
    assert not opened.page.locator("details.table").first.is_visible()
    assert opened.page.locator("figure svg").first.is_visible()
    inside = opened.page.eval_on_selector_all(
        "figure", "all => all.map(one => getComputedStyle(one).breakInside)"
    )
    assert set(inside) == {"avoid"}
    opened.close()


def test_text_of_a_completion_stays_text(browser, make_run, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "ANALYSES", {"passk": gallery.ANALYSES["passk"]})
    groups = [
        {"prompt_id": f"q{index}", "completions": [{"correct": True}, {"correct": False}]}
        for index in range(3)
    ]
    run = make_run(
        tmp_path / "run", groups, tokens={1: HOSTILE, 2: "b"}, manifest={"model": HOSTILE}
    )
    write_report([run], tmp_path / "report.html", ReportOptions(command=HOSTILE))
    opened = Visit(browser, tmp_path / "report.html")
    opened.page.wait_for_timeout(300)
    assert opened.page.title() == "THR report: run"
    assert opened.page.locator("img").count() == 0
    assert opened.messages == []
    assert HOSTILE in opened.page.locator("footer").inner_text()
    opened.close()


@pytest.mark.parametrize("name", ["density", "reflection", "wordcloud"])
def test_a_figure_in_the_page_looks_as_its_file(browser, lab_report, name):
    """Two drawings of the same figure differ in the smoothing of edges at most."""
    svg = (lab_report / "files" / f"{name}.svg").read_text()
    pictures = []
    for body in (svg[svg.index("<svg") :], inline_svg(svg, prefix="f1", label="x")):
        page = browser.new_page(viewport={"width": 800, "height": 700})
        page.set_content(f"<style>svg {{width: 780px; height: auto}}</style>{body}")
        pictures.append(np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"), float))
        page.close()
    assert pictures[0].std() > 5
    difference = np.abs(pictures[0] - pictures[1])
    assert difference.mean() < 0.2
    assert (difference > 100).mean() < 1e-4
