"""Draws the distribution of THR in correct and incorrect completions (paper Fig. 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)

from thr_probe.analysis.density import check_style
from thr_probe.analysis.result import Analysis
from thr_probe.figures.notice import plot_notice
from thr_probe.figures.style import (
    BLACK,
    CORRECT,
    EXPLOITATION,
    EXPLORATION,
    EXPLORATION_HATCH,
    GREY,
    INCORRECT,
    label_panel,
    panel_row,
    paper_style,
    venue_width,
)

_MARKED_SHARES = (0.01, 0.05, 0.20)


def plot_density(analysis: Analysis, *, style: str = "paper", venue: str = "neurips") -> Figure:
    """Panels (a) correct, (b) incorrect, (c) concentration of |THR|.

    Args:
        analysis: of `thr_density`.
        style: `paper` (density on a linear axis) or `diagnostic` (fraction of tokens per bin,
            bins uniform in asinh, on a logarithmic axis).
        venue: gives the printed width.
    """
    check_style(style)
    if analysis.empty_reason is not None:
        return plot_notice(analysis, venue=venue)
    width = venue_width(venue)
    curve = analysis.curves[style]
    with paper_style():
        figure, panels = panel_row(width, 3, height=1.8)
        for letter, split, axes in zip("ab", ("correct", "incorrect"), panels, strict=False):
            label_panel(axes, letter, split)
            rows = curve[curve["split"] == split]
            if rows.empty:
                _say_absent(axes, split)
                continue
            if style == "paper":
                _draw_linear(axes, rows)
            else:
                scale = float(str(analysis.facts["asinh_scale"]))
                _draw_asinh(axes, rows, scale, floor=_floor(curve), narrow=width > 4)
            _mark_tau(axes, analysis)
            axes.set_xlabel(r"THR / $\tau$" if analysis.facts["normalize"] == "tau" else "THR")
            if split == "correct" or width < 4:
                axes.set_ylabel("density" if style == "paper" else "fraction of tokens")
        _share_limits([axes for axes in panels[:2] if axes.lines])
        label_panel(panels[2], "c", "concentration")
        _draw_concentration(panels[2], analysis.curves["concentration"])
        figure.legend(
            handles=_legend_handles(analysis),
            loc="outside lower center",
            ncols=3 if width > 4 else 1,
            borderaxespad=0.2,
        )
    return figure


def _draw_linear(axes: Axes, rows: pd.DataFrame) -> None:
    thr, density = rows["thr"].to_numpy(), rows["density"].to_numpy()
    for positive in (False, True):
        side = thr >= 0 if positive else thr <= 0
        axes.fill_between(thr, density, where=side, linewidth=0, **_fill(positive=positive))
        color = EXPLOITATION if positive else EXPLORATION
        axes.plot(thr[side], density[side], color=color, linewidth=0.8)
    axes.fill_between(
        thr, rows["low"], rows["high"], color=BLACK, alpha=0.3, linewidth=0, label="interval"
    )
    axes.set_xlim(float(thr[0]), float(thr[-1]))
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(_number))


def _floor(curve: pd.DataFrame) -> float:
    """Where the logarithmic axis of both panels begins: a decade below the least bin."""
    fraction = curve["fraction"]
    return float(10 ** np.floor(np.log10(fraction[fraction > 0].min()) - 0.3))


def _draw_asinh(
    axes: Axes, rows: pd.DataFrame, scale: float, *, floor: float, narrow: bool
) -> None:
    edges = np.append(rows["left"].to_numpy(), rows["right"].iloc[-1])
    fraction = rows["fraction"].to_numpy()
    axes.set_xscale("asinh", linear_width=scale)
    axes.set_yscale("log")
    half = len(fraction) // 2
    for positive, part in ((False, slice(None, half)), (True, slice(half, None))):
        part_edges = edges[: half + 1] if not positive else edges[half:]
        axes.stairs(
            fraction[part],
            part_edges,
            baseline=floor,
            fill=True,
            linewidth=0,
            **_fill(positive=positive),
        )
        color = EXPLOITATION if positive else EXPLORATION
        axes.stairs(fraction[part], part_edges, baseline=floor, color=color, linewidth=0.7)
    low, high = (np.maximum(rows[name].to_numpy(), floor) for name in ("low", "high"))
    axes.stairs(high, edges, baseline=low, fill=True, color=BLACK, alpha=0.18, linewidth=0)
    axes.set_xlim(float(edges[0]), float(edges[-1]))
    axes.set_ylim(bottom=floor)
    largest = float(edges[-1])
    axes.xaxis.set_major_locator(FixedLocator(_labelled_ticks(largest, scale, narrow=narrow)))
    decades = _decades(largest, scale)
    axes.xaxis.set_minor_locator(FixedLocator([sign * at for at in decades for sign in (-1, 1)]))
    axes.xaxis.set_major_formatter(FuncFormatter(_number))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())


def _decades(largest: float, scale: float) -> list[float]:
    """The powers of ten between the scale and the largest |THR|."""
    top = int(np.floor(np.log10(largest)))
    return [10.0**exponent for exponent in range(int(np.ceil(np.log10(scale))), top + 1)]


def _labelled_ticks(largest: float, scale: float, *, narrow: bool) -> list[float]:
    """0 and one or two round numbers on either side, where they have room beside the 0."""
    top = 10 ** np.floor(np.log10(largest))
    rounds = [top, *(digit * top for digit in (2.0, 5.0) if digit * top <= largest)]
    reach = np.arcsinh(largest / scale)
    outer = next((at for at in rounds if np.arcsinh(at / scale) > 0.6 * reach), rounds[-1])
    decades = _decades(largest, scale)
    sides = [outer] if narrow or len(decades) < 4 else [decades[len(decades) // 2], outer]
    return [0.0, *sides, *(-at for at in sides)]


def _number(value: float, _position: int | None = None) -> str:
    """A tick label without the exponent that matplotlib would put outside the axis."""
    if value == 0 or 1e-3 < abs(value) < 1e4:
        return f"{value:g}".replace("-", "\N{MINUS SIGN}")
    mantissa, exponent = f"{value:.0e}".split("e")
    factor = {"1": "", "-1": "-"}.get(mantissa, rf"{mantissa}\!\times\!")
    return f"${factor}10^{{{int(exponent)}}}$"


def _fill(*, positive: bool) -> dict[str, Any]:
    """Blue and plain above 0, vermilion and hatched below."""
    if positive:
        return {"facecolor": to_rgba(EXPLOITATION, 0.45), "edgecolor": "none"}
    color = to_rgba(EXPLORATION, 0.25)
    return {"facecolor": color, "edgecolor": EXPLORATION, "hatch": EXPLORATION_HATCH}


def _tau(analysis: Analysis) -> float:
    if analysis.facts["normalize"] == "tau":
        return 1.0
    return analysis.value("median_tau").value


def _mark_tau(axes: Axes, analysis: Analysis) -> None:
    tau = _tau(analysis)
    if np.isfinite(tau):
        for at in (-tau, tau):
            axes.axvline(at, color=BLACK, linestyle=":", linewidth=0.7, zorder=1)


def _say_absent(axes: Axes, split: str) -> None:
    """A split without completions: a sentence, no axis."""
    axes.text(0.5, 0.5, f"no {split} completions", ha="center", transform=axes.transAxes)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _share_limits(panels: list[Axes]) -> None:
    """The same vertical limits in all panels, so that they can be compared."""
    limits = np.array([axes.get_ylim() for axes in panels])
    for axes in panels:
        axes.set_ylim(limits[:, 0].min(), limits[:, 1].max())


def _draw_concentration(axes: Axes, curve: pd.DataFrame) -> None:
    for split, look in (("correct", CORRECT), ("incorrect", INCORRECT)):
        rows = curve[curve["split"] == split]
        if rows.empty:
            continue
        share, held = rows["token_share"].to_numpy(), rows["mass_share"].to_numpy()
        marks = [int(np.argmin(np.abs(share - marked))) for marked in _MARKED_SHARES]
        axes.fill_between(
            share, rows["low"], rows["high"], color=look["color"], alpha=0.25, linewidth=0
        )
        axes.plot(share, held, label=split, markevery=marks, **look)
    equal = np.geomspace(1e-4, 1, 50)
    axes.plot(equal, equal, color=GREY, linestyle=":", linewidth=0.8)
    axes.set_xscale("log")
    axes.set(xlim=(1e-4, 1), ylim=(0, 1.02), xlabel="top tokens by |THR|", ylabel="share of |THR|")
    axes.xaxis.set_major_locator(FixedLocator([1e-4, 1e-2, 1]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    # white behind the text: a steep curve may leave no corner free
    axes.legend(
        loc="best",
        borderaxespad=0.1,
        handlelength=2.2,
        frameon=True,
        framealpha=0.9,
        edgecolor="none",
    )


def _legend_handles(analysis: Analysis) -> list[Patch | Line2D]:
    unit = r"THR / $\tau$" if analysis.facts["normalize"] == "tau" else "THR"
    handles: list[Patch | Line2D] = [
        Patch(label=f"{unit} > 0 (exploitation)", linewidth=0, **_fill(positive=True)),
        Patch(label=f"{unit} < 0 (exploration)", linewidth=0, **_fill(positive=False)),
    ]
    if np.isfinite(_tau(analysis)):
        label = r"$\pm\tau$" if analysis.facts["normalize"] == "tau" else r"$\pm$ median $\tau$"
        handles.append(Line2D([], [], color=BLACK, linestyle=":", linewidth=0.8, label=label))
    return handles
