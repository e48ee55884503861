"""The report as one file: the analyses' own numbers, nothing from elsewhere, equal bytes."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from thr_probe import gallery
from thr_probe.errors import DataError, UsageError
from thr_probe.report.build import Reported, ReportOptions, write_report
from thr_probe.report.csv_view import MOST_ROWS, csv_view, shown_number
from thr_probe.report.page import TITLES, content_security_policy
from thr_probe.traces import read_run

MIXED = [{"correct": True}, {"correct": False}, {"correct": True}, {"correct": False}]
HOSTILE = '</script><script>alert(1)</script><img src=x onerror=alert(1)> & "quoted"'


def _groups(number: int, completions: list[dict[str, Any]] = MIXED) -> list[dict[str, Any]]:
    return [{"prompt_id": f"q{index}", "completions": completions} for index in range(number)]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four analyses for tests of the page, which take a second then."""
    names = ("density", "overlap", "reflection", "passk")
    monkeypatch.setattr(gallery, "ANALYSES", {name: gallery.ANALYSES[name] for name in names})


@pytest.fixture(scope="module")
def text(lab_report: Path) -> str:
    return (lab_report / "report.html").read_text(encoding="utf-8")


def _report(run: Path | list[Path], out: Path, **options: Any) -> tuple[Reported, str]:
    runs = run if isinstance(run, list) else [run]
    reported = write_report(runs, out / "report.html", ReportOptions(**options))
    return reported, (out / "report.html").read_text(encoding="utf-8")


def _shown(text: str) -> str:
    """What a reader sees: tags, styles and scripts gone, hard and thin spaces plain."""
    text = re.sub(r"<(style|script)\b.*?</\1>", " ", text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


@pytest.mark.usefixtures("few")
def test_the_same_trace_and_options_give_the_same_bytes(make_run, tmp_path):
    run = make_run(tmp_path / "run", _groups(5), tokens={1: " wait", 2: " so"})
    first, _ = _report(run, tmp_path / "a", command="thr-probe report run")
    second, _ = _report(run, tmp_path / "b", command="thr-probe report run")
    assert first.path.read_bytes() == second.path.read_bytes()
    moved, _ = _report(run, tmp_path / "c", command="thr-probe report run", seed=1)
    assert moved.path.read_bytes() != first.path.read_bytes()


def test_nothing_is_loaded_from_elsewhere(text):
    addresses = re.findall(r'\b(?:src|href|action|data|poster|srcset)="([^"]*)"', text)
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert not re.findall(r"<(?:link|iframe|object|embed|base)\b", text)
    styles = "".join(re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL))
    assert not re.search(r"@import|url\((?!#|data:)", styles)


def test_the_policy_allows_just_the_styles_and_scripts_of_the_page(text):
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        contents = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
        hashes = {
            f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'"
            for one in contents
        }
        assert hashes == set(rules[rule].split())
    assert not re.search(r"<[a-z][^>]*\s(?:style|on[a-z]+)=", text)
    assert "script-src 'none'" in content_security_policy(["a"], [])


def test_ids_are_unique_and_every_link_leads_to_one(text):
    ids = Counter(re.findall(r'<[^>]*\sid="([^"]*)"', text))
    assert [name for name, times in ids.items() if times > 1] == []
    targets = set(re.findall(r'href="#([^"]*)"', text))
    assert targets <= set(ids)


def test_headings_are_in_order(text):
    levels = [int(level) for level in re.findall(r"<h([1-6])\b", text)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_analysis_is_there_with_caption_tables_and_facts(text, lab_report):
    names = sorted(path.stem for path in (lab_report / "files").glob("*.json"))
    assert len(names) >= 6
    for name in names:
        article = re.search(rf'<article id="{name}">.*?</article>', text, flags=re.DOTALL)[0]
        content = json.loads((lab_report / "files" / f"{name}.json").read_text())
        assert content["empty_reason"] is None
        assert "<svg" in article
        assert re.search(r'<svg [^>]*aria-label="Figure \d+\. [^" ]', article)
        assert "<figcaption>" in article
        for fact in content["facts"]:
            assert f"<dt>{fact.replace('_', ' ')}</dt>" in article
        assert html.escape(content["command"], quote=False) in article


def test_a_table_of_the_page_is_the_file(text, lab_report):
    found = re.findall(r'<a download="([^"]*)" href="data:text/csv;base64,([^"]*)"', text)
    saved = {name: content for name, content in found if not name.startswith("paper-")}
    files = {path.name: path for path in (lab_report / "files").glob("*.csv")}
    assert set(saved) == {
        name for name, path in files.items() if len(path.read_text().splitlines()) > 1
    }
    for name, content in saved.items():
        assert base64.b64decode(content) == files[name].read_bytes()


def test_the_rows_shown_are_the_rows_of_the_file(lab_report):
    path = lab_report / "files" / "overlap.csv"
    rows = list(csv.reader(path.read_text().splitlines()))
    view = csv_view(path)
    assert [cell.text for cell in view.columns] == [name.replace("_", " ") for name in rows[0]]
    assert view.num_rows == len(rows) - 1
    assert len(view.rows) == min(MOST_ROWS, view.num_rows)
    value = rows[0].index("value")
    for cells, row in zip(view.rows, rows[1:], strict=False):
        assert cells[0].text == row[0]
        assert cells[value].exact in {"", row[value]}
        assert float(cells[value].text.replace("−", "-")) == pytest.approx(
            float(row[value]), rel=1e-3
        )


def test_the_summary_states_numbers_of_the_tables(text, lab_report):
    summary = _shown(re.search(r'<section id="summary">.*?</section>', text, re.DOTALL)[0])
    rows = json.loads((lab_report / "files" / "density.json").read_text())["summary"]
    (row,) = (r for r in rows if r["quantity"] == "top_5_mass" and r["split"] == "all")
    value, low, high = (100 * row[key] for key in ("value", "low", "high"))
    assert f"hold {value:.1f} % [{low:.1f}, {high:.1f}] of the summed |THR|" in summary


def test_what_a_run_was_made_with_is_told(text):
    shown = _shown(text)
    assert "manifest.json" in shown
    assert "vocab = " in shown
    assert "thr-probe report reports/lab/run" in shown


@pytest.mark.usefixtures("few")
def test_text_of_the_run_stays_text(make_run, tmp_path):
    run = make_run(
        tmp_path / "run",
        _groups(3),
        tokens={1: HOSTILE, 2: "wait"},
        manifest={"model": HOSTILE, "dataset": "a & b"},
    )
    _, text = _report(run, tmp_path, command=HOSTILE)
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "a &amp; b" in text


@pytest.mark.usefixtures("few")
def test_a_run_without_scores_says_what_it_lacks_and_how_to_get_it(make_run, tmp_path):
    run = make_run(tmp_path / "run", _groups(4), scored=False, tokens={1: " wait"})
    reported, text = _report(run, tmp_path)
    shown = _shown(text)
    for name in ("passk", "reflection"):
        assert f'<article id="{name}">' in text
    assert "Pass@1 is" in shown
    missing = re.search(r'<article id="missing">.*?</article>', text, re.DOTALL)[0]
    for name in ("density", "overlap"):
        assert html.escape(TITLES[name]) in missing
        assert f'<article id="{name}">' not in text
    assert "has no scores" in missing
    assert f"To have it: thr-probe score {run} --model" in _shown(missing)
    assert any("density" in note for note in reported.notes)


@pytest.mark.usefixtures("few")
def test_a_run_without_token_ids_is_told_to_get_them_before_scores(make_run, tmp_path):
    absent = {"token_ids": None, "sampler_logprobs": None, "ids_source": "absent"}
    groups = [{"completions": [{"correct": True, **absent}, {"correct": False, **absent}]}]
    run = make_run(tmp_path / "run", groups, scored=False)
    _, text = _report(run, tmp_path)
    missing = re.search(r'<article id="missing">.*?</article>', text, re.DOTALL)[0]
    assert "To have it: import it with the policy's tokenizer" in _shown(missing)
    with pytest.raises(DataError, match="has no scores") as caught:
        read_run(run).resolve_score_id()
    assert "import it with the policy's tokenizer" in (caught.value.hint or "")


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("completions", "sentence"),
    [
        ([{"correct": True}] * 4, "only correct"),
        ([{"correct": False}] * 4, "is correct"),
    ],
    ids=["all correct", "none correct"],
)
def test_groups_of_one_outcome_give_a_sentence_and_no_empty_figure(
    make_run, tmp_path, completions, sentence
):
    run = make_run(tmp_path / "run", _groups(3, completions), tokens={1: " wait"})
    _, text = _report(run, tmp_path)
    assert '<article id="density">' not in text
    listed = re.search(r'<article id="missing">.*?</article>', text, re.DOTALL)[0]
    assert html.escape(TITLES["density"]) in listed
    assert sentence in listed
    assert "nan" not in _shown(text).lower().split()
    assert "dominant (|THR|" not in _shown(text)


@pytest.mark.usefixtures("few")
def test_a_single_question_gives_numbers_without_intervals(make_run, tmp_path):
    run = make_run(tmp_path / "run", _groups(1), tokens={1: " wait"})
    _, text = _report(run, tmp_path)
    summary = _shown(re.search(r'<section id="summary">.*?</section>', text, re.DOTALL)[0])
    assert "Pass@1 is 50.0 %" in summary
    assert "cannot be judged" in summary
    assert not re.search(r"\bnan\b", summary)
    assert "[" not in summary


@pytest.mark.slow
@pytest.mark.parametrize(
    "groups",
    [
        _groups(1),
        _groups(4),
        _groups(3, [{"correct": True}] * 4),
        _groups(3, [{"correct": False}] * 4),
        _groups(3, [{"correct": True, "token_ids": None}, {"correct": False, "token_ids": None}]),
    ],
    ids=["one question", "equal questions", "all correct", "none correct", "no token ids"],
)
@pytest.mark.parametrize("scored", [True, False], ids=["scored", "not scored"])
def test_every_analysis_copes_with_runs_that_have_little(make_run, tmp_path, groups, scored):
    run = make_run(tmp_path / "run", groups, tokens={1: " wait"}, scored=scored)
    reported, text = _report(run, tmp_path)
    shown = re.findall(r'<article id="([^"]*)">', text)
    listed = [one.name for one in reported.outcomes[0] if one.note]
    assert len(set(shown) - {"missing"}) >= 1
    assert len(listed) + len(shown) >= len(reported.outcomes[0])
    assert not re.search(r"\bnan\b|\binf\b", _shown(text).lower())


@pytest.mark.usefixtures("few")
def test_several_runs_have_a_section_each_with_ids_of_their_own(make_run, tmp_path):
    first = make_run(tmp_path / "a/run", _groups(3), tokens={1: " wait"})
    other = [{"prompt_id": "x", "completions": MIXED}, {"prompt_id": "y", "completions": MIXED}]
    second = make_run(tmp_path / "b/run", other, tokens={1: " wait"})
    latex = tmp_path / "latex"
    reported = write_report([first, second], tmp_path / "report.html", ReportOptions(), latex=latex)
    text = reported.path.read_text()
    ids = Counter(re.findall(r'<[^>]*\sid="([^"]*)"', text))
    assert [name for name, times in ids.items() if times > 1] == []
    assert {"run-1-a-run-density", "run-2-b-run-density"} <= set(ids)
    assert "Run a/run" in text
    assert "Run b/run" in text
    assert (latex / "run-2-b-run-density.tex").exists()
    assert r"\label{fig:run-2-b-run-density}" in (latex / "run-2-b-run-density.tex").read_text()


@pytest.mark.usefixtures("few")
def test_a_run_of_another_schema_is_told_and_the_others_are_shown(make_run, tmp_path):
    good = make_run(tmp_path / "good", _groups(3), tokens={1: " wait"})
    bad = make_run(tmp_path / "bad", _groups(3))
    manifest = json.loads((bad / "manifest.json").read_text()) | {"schema_version": 999}
    (bad / "manifest.json").write_text(json.dumps(manifest))
    reported, text = _report([good, bad], tmp_path)
    assert len(reported.unreadable) == 1
    assert "999" in reported.unreadable[0]
    assert "999" in _shown(text)
    assert '<article id="run-1-good-passk">' in text
    with pytest.raises(DataError, match="999"):
        write_report([bad], tmp_path / "other.html", ReportOptions())


@pytest.mark.usefixtures("few")
def test_an_interrupted_run_is_called_one(make_run, tmp_path):
    run = make_run(tmp_path / "run", _groups(3), tokens={1: " wait"}, complete=False)
    _, text = _report(run, tmp_path)
    assert "The run is not complete" in _shown(text)


@pytest.mark.usefixtures("few")
def test_one_run_twice_is_an_error(make_run: Callable[..., Path], tmp_path):
    run = make_run(tmp_path / "run", _groups(2))
    with pytest.raises(UsageError, match="different"):
        write_report([run, run], tmp_path / "report.html", ReportOptions())


@pytest.mark.usefixtures("few")
def test_a_file_that_cannot_be_written_is_a_sentence(make_run, tmp_path):
    run = make_run(tmp_path / "run", _groups(2), scored=False)
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match="taken"):
        write_report([run], tmp_path / "taken" / "report.html", ReportOptions())


def test_the_files_of_the_analyses_can_be_kept(lab_report):
    for suffix in ("csv", "json", "tex", "svg", "pdf", "png"):
        assert (lab_report / "files" / f"density.{suffix}").exists()


def test_numbers_are_short_and_have_a_minus_sign():
    assert shown_number(0.0) == "0"
    assert shown_number(-0.5) == "−0.5"
    assert shown_number(1234567.0) == "1,234,567"
    assert shown_number(4320.0, whole=True) == "4,320"
    assert shown_number(0.000012345) == "1.234e−05"
