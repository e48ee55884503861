"""The report of whatever is there: tables, figures, sentences."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from thr_probe.analysis.timing import module_timing, timing_rows
from thr_probe.errors import DataError
from thr_probe.reproduce.estimates import Results
from thr_probe.reproduce.exact import exact_check
from thr_probe.reproduce.markdown import markdown_table, plain_markdown
from thr_probe.reproduce.measure import measure
from thr_probe.reproduce.report import write_report
from thr_probe.reproduce.settings import ReproduceConfig
from thr_probe.reproduce.training import time_table


def exact_rows():
    names = ("net", "slope", "predicted", "measured", "error", "second_order")
    values = dict.fromkeys(names, 0.001) | {"question": "1 + 1?", "num_correct": 4, "p": 0.5}
    return pd.DataFrame([values])


@pytest.fixture(scope="module")
def report(fake_root, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    config = ReproduceConfig(report=str(out), train_options="--steps 6")
    path = write_report(fake_root, config, command="thr-probe reproduce -o X", check=exact_rows)
    assert path == out / "report.md"
    return path.read_text(), out


def table(out, name):
    return pd.read_csv(out / "tables" / f"{name}.csv")


def test_every_table_has_its_csv_and_its_section(report):
    text, out = report
    for name in ("greedy", "passk", "p-ablation", "reflection", "retained", "overlap", "times"):
        assert f"tables/{name}.csv" in text
        assert len(table(out, name))
    for name in ("claims", "commands", "seeds", "training", "first-order"):
        assert len(table(out, name))


def test_greedy_accuracy_is_that_of_the_runs(report, fake_root):
    _, out = report
    found = table(out, "greedy").set_index(["row", "column"])
    parts = [
        pd.read_parquet(part, columns=["correct"])["correct"].mean()
        for seed in (0, 1)
        for part in (fake_root / "greedy" / f"grpo-s{seed}" / "rollouts").glob("*.parquet")
    ]
    assert found.loc[("grpo", "all"), "value"] == pytest.approx(np.mean(parts))
    assert found.loc[("grpo", "all"), "seeds"] == "0 1"
    kinds = [found.loc[("grpo", kind), "value"] for kind in ("chain", "product", "series")]
    kinds.append(found.loc[("grpo", "equation"), "value"])
    assert np.mean(kinds) == pytest.approx(np.mean(parts))
    thr, grpo = (found.loc[(row, "all"), "value"] for row in ("thr", "grpo"))
    assert found.loc[("thr", "all"), "minus_grpo"] == pytest.approx(thr - grpo)
    assert math.isnan(found.loc[("grpo", "all"), "minus_grpo"])


def test_what_is_not_there_is_listed_as_not_run(report):
    text, _ = report
    absent = text.split("## Not run")[1]
    assert "NTHR" in absent
    assert "grpo-s2 (train, greedy, sampled, scored)" in absent
    assert "Base (0), GRPO (0, 1), THR (p = 0) (0)" in text


def test_a_sleeping_mechanism_is_marked(report):
    text, out = report
    assert "| Cov-KL † | 0 |" in text
    assert "| THR (p = 0) † |" not in text
    marked = table(out, "training").set_index("row")["inactive"]
    assert marked["kl-cov"]
    assert not marked["thr"]


def test_claims_are_sentences_with_their_numbers(report):
    text, out = report
    found = table(out, "claims")
    lifted = found[found["claim"] == "GRPO lifts greedy accuracy"].iloc[0]
    assert lifted["verdict"] == "appears"
    assert lifted["difference"] == pytest.approx(lifted["value"] - lifted["versus_value"])
    assert lifted["sentence"] in text
    assert "about one in twenty" in text


def test_times_have_the_columns_of_table_10(report):
    text, out = report
    head = "| Method | Seeds | Data Gen | Model Upd | THR | Ref | Old Prob | Total (Sec) |"
    assert head in text
    first = table(out, "times").iloc[0]
    assert first["Total (Sec)"] == 10.0
    assert first["THR share"] == 0.05


def test_times_are_those_of_the_timing_analysis_also_where_a_timer_is_missing(make_job, tmp_path):
    made = make_job(tmp_path, "thr", 0, 0.5)
    run = tmp_path / "runs" / "thr-s0"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines[0] |= {"thr": None, "total": 9.5}  # a step that had nothing to score
    lines[1] |= dict.fromkeys(("gen", "update", "thr", "ref", "old", "total"))
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (found,) = time_table(Results([measure(made, tmp_path)])).to_dict("records")
    (expected,) = timing_rows(module_timing([run]))
    assert expected["steps"] == 5
    assert {name: found[name] for name in list(expected)[2:]} == dict(list(expected.items())[2:])
    assert found["THR"] == pytest.approx(4 * 0.5 / 5)
    parts = [found[name] for name in ("Data Gen", "Model Upd", "THR", "Ref", "Old Prob")]
    assert sum(parts) == pytest.approx(found["Total (Sec)"])


def test_hours_seeds_and_commands_are_stated(report):
    text, out = report
    assert "It took 1.00 hours of processor time" in text
    assert "2.00 hours added up" in text
    trained = text.split("```sh")[1]
    assert "thr-probe train --preset lab --method thr --p -0.1 --seed 0 --steps 6 -o" in trained
    commands = table(out, "commands")
    assert set(commands.loc[commands["row"] == "grpo", "seed"]) == {0, 1, 2}


def test_figures_are_drawn_with_their_numbers(report):
    text, out = report
    for name in ("curves", "passk-rows", "p-ablation"):
        assert f"figures/{name}.png" in text
        for ending in ("png", "pdf", "json", "tex"):
            assert (out / "figures" / f"{name}.{ending}").stat().st_size > 0
    drawn = pd.read_csv(out / "figures" / "p-ablation-curve.csv")
    assert drawn.loc[drawn["column"] == "greedy", "p"].tolist() == [-0.2, -0.1, 0.0, 0.1]
    differences = pd.read_csv(out / "figures" / "passk-rows-differences.csv")
    assert "Base" not in set(differences["row"])


def test_an_empty_folder_makes_a_report_that_says_so(tmp_path):
    path = write_report(tmp_path, ReproduceConfig(), check=pd.DataFrame)
    text = path.read_text()
    assert path == tmp_path / "report" / "report.md"
    assert "Rows (seeds): none yet. 23 rows of 23 not run." in text
    assert "Nothing of this has been run." in text
    assert " nan" not in text


def test_one_row_with_one_run_makes_a_report(make_job, tmp_path):
    make_job(tmp_path, "thr", 3, 0.5)
    for stage in ("greedy", "scored"):
        (tmp_path / stage / "thr-s3" / "manifest.json").unlink()
    text = write_report(tmp_path, ReproduceConfig(), check=pd.DataFrame).read_text()
    assert "Rows (seeds): THR (p = 0) (3)." in text
    assert "thr-s3 (greedy, scored)" in text
    assert " nan" not in text


def test_rows_of_other_budgets_are_told(make_job, tmp_path):
    for name, steps in (("grpo", 6), ("thr", 7)):
        make_job(tmp_path, name, 0, 0.5)
        config = tmp_path / "runs" / f"{name}-s0" / "config.toml"
        config.write_text(f"steps = {steps}\nlr = 1e-4\n")
    text = write_report(tmp_path, ReproduceConfig(), check=pd.DataFrame).read_text()
    assert "**The rows differ in steps: 6 in grpo-s0; 7 in thr-s0.**" in text


def test_no_folder_is_told(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        write_report(tmp_path / "none", ReproduceConfig())


def test_markdown_escapes_bars_and_prints_dashes_for_nothing():
    assert markdown_table(["a"], [["1|2"]]).splitlines()[-1] == r"| 1\|2 |"
    data = pd.DataFrame({"title": ["A"], "inactive": [True], "x": [math.nan], "y": [0.5]})
    shown = plain_markdown(data, {"x": ".1f X", "y": ".0% Y"})
    assert shown.splitlines()[-1] == "| A † | - | 50% |"


@pytest.mark.slow
def test_the_exact_check_holds_on_a_question_of_the_lab():
    found = exact_check(num_questions=1)
    assert found["p"].tolist() == [-0.5, 0.0, 0.5]
    assert (found["error"] < 0.01).all()
    assert (found["second_order"] < 0.003).all()
    np.testing.assert_allclose(found["predicted"], found["net"] + found["p"] * found["slope"])


def test_the_plan_is_printed_without_running_anything(tmp_path):
    words = ["reproduce", "--dry-run", "--quick", "-o", str(tmp_path / "x")]
    ran = subprocess.run(
        [sys.executable, "-m", "thr_probe", *words], capture_output=True, text=True, check=True
    )
    lines = ran.stdout.splitlines()
    assert lines[-1] == "6 jobs, 23 stages, 0 of them done"
    assert sum(" thr-probe train --preset lab" in line for line in lines) == 5
    assert not (tmp_path / "x").exists()
