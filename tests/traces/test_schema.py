from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

import thr_probe
from thr_probe.errors import UsageError
from thr_probe.traces import SCHEMA_VERSION, TABLES, arrow_schema, schema_markdown


def test_every_column_says_its_unit_and_meaning():
    for table, columns in TABLES.items():
        for name, column in columns.items():
            assert column.name == name
            assert column.unit, (table, name)
            assert len(column.meaning) > 10, (table, name)
            assert column.required or (column.nullable and column.source), (table, name)


def test_the_schema_page_is_what_the_schema_says():
    page = Path(thr_probe.__file__).parent / "traces" / "SCHEMA.md"
    assert page.read_text(encoding="utf-8") == "# The trace on disk\n\n" + schema_markdown(), (
        "write it again from thr_probe.traces.schema_markdown()"
    )


def test_the_page_has_one_row_for_every_column():
    rows = [line for line in schema_markdown().splitlines() if line.startswith("| `")]
    assert len(rows) == sum(len(columns) for columns in TABLES.values())
    assert all(line.count(" | ") == 3 for line in rows)


def test_the_arrow_schema_carries_version_table_types_and_units():
    schema = arrow_schema("scores", ["thr", "tau"])
    assert schema.metadata == {b"thr_probe.schema_version": b"1", b"thr_probe.table": b"scores"}
    assert SCHEMA_VERSION == 1
    assert schema.names == ["tau", "thr"]
    assert schema.field("thr").type == pa.list_(pa.float32())
    assert schema.field("thr").metadata[b"unit"].startswith(b"raw")
    assert arrow_schema("rollouts").names == list(TABLES["rollouts"])


def test_an_undeclared_column_has_no_schema():
    with pytest.raises(UsageError, match="table tokens has no column thr"):
        arrow_schema("tokens", ["thr"])


def test_reading_a_trace_loads_no_model_library_and_no_plotting(golden_path):
    code = (
        "import sys; from thr_probe.traces import read_run, validate_run;"
        f"run = read_run({str(golden_path)!r}); list(run.iter_completions(['thr', 'text']));"
        "run.problems(); run.tokens(); assert validate_run(run.path) == [];"
        "print(sorted({'torch', 'transformers', 'matplotlib', 'scipy', 'typer'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
