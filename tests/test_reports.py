"""The committed report is what the committed trace gives."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from thr_probe.gallery import ANALYSES
from thr_probe.traces import read_run, validate_run

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
    assert facts["command"] == "thr-probe analyze all reports/lab/run -o reports/lab/figures"
