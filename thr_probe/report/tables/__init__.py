"""The result tables of the paper, filled from a user's runs (`thr-probe table`)."""

from thr_probe.report.tables.latex import table_latex
from thr_probe.report.tables.paper import TABLES, paper_table, paper_tables
from thr_probe.report.tables.record import Cell, Table, TableRow
from thr_probe.report.tables.text import table_csv, table_json, table_markdown, table_rows

__all__ = [
    "TABLES",
    "Cell",
    "Table",
    "TableRow",
    "paper_table",
    "paper_tables",
    "table_csv",
    "table_json",
    "table_latex",
    "table_markdown",
    "table_rows",
]
