"""Figure files that reproduce byte for byte, and beside them the numbers, facts and caption."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from thr_probe.analysis.result import Analysis, plain_facts
from thr_probe.errors import UsageError
from thr_probe.figures.style import paper_style
from thr_probe.traces.atomic import write_result

FORMATS = ("pdf", "svg", "png")

# What would differ from one saving to the next, or names the program's version, is left out.
_METADATA: dict[str, dict[str, None]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}


def save_figure(
    figure: Figure, stem: str | Path, *, formats: Sequence[str] = FORMATS, dpi: int = 300
) -> list[Path]:
    """Writes a figure as stem.pdf, stem.svg, stem.png at its printed size, without dates.

    Args:
        figure: what to write.
        stem: path without ending; its folder is made.
        formats: some of pdf, svg, png.
        dpi: of the png.

    Returns:
        The files, in the order of `formats`.

    Raises:
        UsageError: an unknown format.
        DataError: a file that cannot be written.
    """
    unknown = [name for name in formats if name not in _METADATA]
    if unknown:
        raise UsageError(f"unknown figure format {unknown[0]!r}; choose among {', '.join(FORMATS)}")
    stem = Path(stem)
    paths = [stem.with_name(f"{stem.name}.{name}") for name in formats]
    with paper_style():
        for name, path in zip(formats, paths, strict=True):
            content = BytesIO()
            figure.savefig(content, format=name, dpi=dpi, metadata=_METADATA[name])
            write_result(path, content.getvalue())
    return paths


def save_analysis(
    analysis: Analysis, figure: Figure, out_dir: str | Path, *, command: str = ""
) -> list[Path]:
    r"""Writes an analysis: tables, facts, caption, figure; files of the same name are replaced.

    `<name>.csv` holds the summary, `<name>-<curve>.csv` the numbers drawn, `<name>.json` the facts
    and again the summary, `<name>.tex` a `\caption` with its `\label`.

    Args:
        analysis: what to write.
        figure: its drawing.
        out_dir: a folder, made where it is missing.
        command: the command line that asked for it, kept in the facts.

    Returns:
        Every file written, the figure's last.

    Raises:
        DataError: a file that cannot be written.
    """
    folder = Path(out_dir)
    label = rf"\label{{fig:{analysis.name}}}"
    texts = {
        f"{analysis.name}.csv": analysis.summary.to_csv(index=False, lineterminator="\n"),
        **{
            f"{analysis.name}-{curve}.csv": table.to_csv(index=False, lineterminator="\n")
            for curve, table in analysis.curves.items()
        },
        f"{analysis.name}.json": _json(analysis, command),
        f"{analysis.name}.tex": f"\\caption{{{analysis.caption}}}\n{label}\n",
    }
    paths = []
    for name, text in texts.items():
        path = folder / name
        write_result(path, text.encode())
        paths.append(path)
    return paths + save_figure(figure, folder / analysis.name)


def _json(analysis: Analysis, command: str) -> str:
    content = {
        "analysis": analysis.name,
        "command": command,
        "empty_reason": analysis.empty_reason,
        "facts": analysis.facts,
        "summary": analysis.summary.to_dict("records"),
    }
    return json.dumps(plain_facts(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
