"""The trace on disk: one schema, an atomic writer, a reader that streams."""

from thr_probe.traces.lists import list_values
from thr_probe.traces.manifest import Manifest, RunStatus, read_manifest
from thr_probe.traces.reader import Run, read_config, read_run
from thr_probe.traces.schema import SCHEMA_VERSION, TABLES, Column, arrow_schema, schema_markdown
from thr_probe.traces.validate import Finding, validate_run
from thr_probe.traces.writer import (
    check_room,
    completed_parts,
    create_run,
    finish_run,
    write_part,
    write_score_info,
    write_tokens,
)

__all__ = [
    "SCHEMA_VERSION",
    "TABLES",
    "Column",
    "Finding",
    "Manifest",
    "Run",
    "RunStatus",
    "arrow_schema",
    "check_room",
    "completed_parts",
    "create_run",
    "finish_run",
    "list_values",
    "read_config",
    "read_manifest",
    "read_run",
    "schema_markdown",
    "validate_run",
    "write_part",
    "write_score_info",
    "write_tokens",
]
