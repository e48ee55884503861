"""A table in files: Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from thr_probe.errors import UsageError
from thr_probe.report.tables.latex import table_latex
from thr_probe.report.tables.record import Table
from thr_probe.report.tables.text import table_csv, table_json, table_markdown
from thr_probe.traces.atomic import write_result

WRITERS: Mapping[str, Callable[[Table], str]] = {
    ".md": table_markdown,
    ".tex": table_latex,
    ".csv": table_csv,
    ".json": table_json,
}
"""By the ending of the file."""


def write_table(table: Table, out: Path) -> list[Path]:
    """Write a table to a file in the format of its ending, or in every format into a folder.

    Args:
        table: what to write.
        out: the file, or the folder, made where it is missing; files there are replaced.

    Returns:
        The files.

    Raises:
        UsageError: an ending of no format.
        DataError: a file that cannot be written.
    """
    if out.suffix and not out.is_dir():
        if out.suffix not in WRITERS:
            raise UsageError(
                f"-o {out}: unknown ending {out.suffix}",
                f"choose {', '.join(WRITERS)}, or a folder",
            )
        paths = [out]
    else:
        paths = [out / f"{table.name}{ending}" for ending in WRITERS]
    for path in paths:
        write_result(path, WRITERS[path.suffix](table).encode())
    return paths
