"""The committed figures, tables and report are what the committed trace gives."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from thr_probe.gallery import ANALYSES
from thr_probe.report.captions_html import caption_html, caption_of_file, first_sentence
from thr_probe.report.inline_svg import inline_svg
from thr_probe.traces import read_run, validate_run

COMMAND = "thr-probe report reports/lab/run -o reports/lab/report.html --keep reports/lab/figures"
LAB = Path(__file__).parents[1] / "reports" / "lab"


def test_the_committed_trace_is_whole():
    assert not validate_run(LAB / "run")
    assert read_run(LAB / "run").is_complete


@pytest.mark.parametrize("name", list(ANALYSES))
def test_tables_recomputed_from_the_committed_trace_are_the_committed_tables(name):
    analysis, _ = ANALYSES[name](read_run(LAB / "run"), venue="neurips")
    assert analysis.empty_reason is None
    tables = {name: analysis.summary}
    tables |= {f"{name}-{curve}": table for curve, table in analysis.curves.items()}
    for stem, table in tables.items():
        committed = pd.read_csv(
            LAB / "figures" / f"{stem}.csv", keep_default_na=False, na_values=[""]
        )
        recomputed = table.reset_index(drop=True)
        assert list(committed.columns) == list(recomputed.columns)
        for column in committed.columns:
            if pd.api.types.is_numeric_dtype(committed[column]):
                pd.testing.assert_series_equal(
                    committed[column],
                    pd.to_numeric(recomputed[column]),
                    check_dtype=False,
                    rtol=1e-5,
                    atol=1e-9,
                )
            else:
                assert (
                    committed[column].fillna("").tolist() == recomputed[column].fillna("").tolist()
                )


@pytest.mark.parametrize("name", list(ANALYSES))
def test_every_figure_stands_beside_its_facts_and_caption(name):
    figures = LAB / "figures"
    for suffix in ("pdf", "svg", "png", "tex"):
        assert (figures / f"{name}.{suffix}").stat().st_size > 0
    facts = json.loads((figures / f"{name}.json").read_text())
    assert facts["command"] == COMMAND


@pytest.fixture(scope="module")
def page() -> str:
    return (LAB / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", list(ANALYSES))
def test_the_page_holds_the_committed_files(page, name):
    figures = LAB / "figures"
    article = re.search(rf'<article id="{name}">.*?</article>', page, flags=re.DOTALL)[0]
    saved = dict(re.findall(r'<a download="([^"]*)" href="data:text/csv;base64,([^"]*)"', article))
    assert f"{name}.csv" in saved
    for file_name, content in saved.items():
        assert base64.b64decode(content) == (figures / file_name).read_bytes()
    number = re.search(r"<b>Figure (\d+)\.</b>", article)[1]
    caption = caption_of_file((figures / f"{name}.tex").read_text())
    assert str(caption_html(caption)) in article
    label = f"Figure {number}. {first_sentence(caption)}"
    svg = (figures / f"{name}.svg").read_text(encoding="utf-8")
    assert str(inline_svg(svg, prefix=f"f{number}", label=label)) in article


def test_the_page_leaves_nothing_out_and_says_how_it_was_made(page):
    assert re.findall(r'<article id="([^"]*)">', page) != []
    assert 'id="missing"' not in page
    assert COMMAND in page
    for anchor in ("summary", "analyses", "paper", "tokens", "configuration"):
        assert f'<section id="{anchor}"' in page


def test_the_committed_report_is_small():
    assert (LAB / "report.html").stat().st_size < 5e6
