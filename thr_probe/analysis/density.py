"""How THR is distributed over tokens: density, sign, dominance and concentration (paper Fig. 2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from thr_probe.analysis.captions import density_caption
from thr_probe.analysis.concentration import gini, top_share
from thr_probe.analysis.histograms import (
    CLIP,
    MARGIN_BINS,
    NUM_LINEAR_BINS,
    Scales,
    add_tokens,
    survey,
)
from thr_probe.analysis.kernel import gaussian_weights
from thr_probe.analysis.resampling import Drawn, ResampledSums, Resampler
from thr_probe.analysis.result import (
    Analysis,
    counted,
    empty_analysis,
    summary_row,
    summary_table,
)
from thr_probe.analysis.stream import CompletionStream
from thr_probe.core.stats import Interval, quotient
from thr_probe.errors import UsageError
from thr_probe.traces.reader import Run

NORMALIZATIONS = ("none", "tau")
MAX_BINS = 10_000
STYLES = ("paper", "diagnostic")

_SMOOTHING = 0.005  # standard deviation of the kernel, as a share of the linear axis
_TOP_SHARES = {"top_1_mass": 0.01, "top_5_mass": 0.05, "top_20_mass": 0.20}
_CURVE_SHARES = np.geomspace(1e-4, 1, 81)

# each quantity: sums in the numerator and the denominator, and the unit of the ratio
_RATIOS = {
    "dominant_share": ("dominant", "tokens", "share of tokens"),
    "positive_share": ("positive", "tokens", "share of tokens"),
    "zero_share": ("zero", "tokens", "share of tokens"),
    "positive_share_of_dominant": ("positive_dominant", "dominant", "share of dominant tokens"),
    "dominant_mass": ("dominant_mass", "mass", "share of summed |THR|"),
    "positive_mass": ("positive_mass", "mass", "share of summed |THR|"),
}


@dataclass(frozen=True, slots=True)
class _Collected:
    """What both passes found, with the resamples."""

    stream: CompletionStream
    scales: Scales
    resampler: Resampler
    drawn: ResampledSums
    bins: int


def thr_density(
    run: Run,
    *,
    groups: str = "mixed",
    normalize: str = "none",
    bins: int = 80,
    seed: int = 0,
    score_id: str | None = None,
) -> Analysis:
    """The distribution of token THR in correct and incorrect completions (Fig. 2).

    The trace is read twice, once for the scales of the axes and once for histograms of each
    question; memory grows with the questions, not with the tokens.

    Args:
        run: the trace.
        groups: `mixed` (groups with correct and incorrect completions) or `has-correct`.
        normalize: `none`, or `tau`: THR / tau of its group, comparable across prompts and models;
            groups of tau <= 0 are then left out.
        bins: bins of the diagnostic histogram, an even number from 2 to 10000.
        seed: of the bootstrap over questions.
        score_id: which scores; the only ones by default.

    Returns:
        summary, by split: `dominant_share`, `positive_share`, `zero_share`,
        `positive_share_of_dominant`, `dominant_mass`, `positive_mass`, `top_1_mass`, `top_5_mass`,
        `top_20_mass` (of the sum of |THR|), `gini`; and `median_tau` over groups of tau > 0.
        curves: `paper` (density on a linear axis), `diagnostic` (fraction per bin uniform in
        asinh(THR / scale)), `concentration` (share of |THR| held by the top tokens).

    Raises:
        UsageError: an unknown option.
    """
    if normalize not in NORMALIZATIONS:
        raise UsageError(f"unknown normalize {normalize!r}; choose {' or '.join(NORMALIZATIONS)}")
    if not 2 <= bins <= MAX_BINS or bins % 2:
        raise UsageError(
            f"bins must be an even number of at least 2, at most {MAX_BINS}, got {bins}"
        )
    per_tau = normalize == "tau"
    stream = CompletionStream(run, ["thr"], groups=groups, score_id=score_id, positive_tau=per_tau)
    scales = survey(stream, per_tau=per_tau)
    reason = stream.empty_reason()
    if reason is None and scales.max_magnitude == 0:
        reason = f"The THR of all {counted(stream.num_tokens, 'token')} is exactly 0."
    if reason is not None:
        return empty_analysis("density", reason, stream.facts() | {"normalize": normalize})
    resampler = Resampler(stream.strata, stream.num_questions, seed=seed)
    sums = ResampledSums(resampler)
    add_tokens(stream, scales, sums, per_tau=per_tau, bins=bins)
    collected = _Collected(stream, scales, resampler, sums, bins)
    analysis = _assembled(collected, normalize)
    return replace(analysis, caption=density_caption(analysis, "paper"))


def _assembled(collected: _Collected, normalize: str) -> Analysis:
    concentration_rows, concentration_curve = _concentration(collected)
    order = {name: index for index, name in enumerate(collected.stream.strata.splits())}
    rows = sorted(
        [*_ratio_rows(collected), *concentration_rows], key=lambda row: order[str(row["split"])]
    )
    rows.append(_median_tau(collected))
    facts = collected.stream.facts() | _estimator_facts(collected, normalize)
    return Analysis(
        name="density",
        summary=summary_table(rows),
        curves={
            "paper": _paper_curve(collected),
            "diagnostic": _diagnostic_curve(collected),
            "concentration": concentration_curve,
        },
        facts=facts | {"exclusions": collected.stream.exclusion_sentence()},
        caption="",
    )


def _splits(collected: _Collected) -> Iterator[tuple[str, Bool[np.ndarray, " S"], int]]:
    """The splits that hold tokens: name, strata, questions."""
    strata = collected.stream.strata
    for name, chosen_S in strata.splits().items():
        if chosen_S.any():
            yield name, chosen_S, len(np.unique(strata.question_S[chosen_S]))


def _ratio_rows(collected: _Collected) -> Iterator[dict[str, object]]:
    for split, chosen_S, num_questions in _splits(collected):
        for quantity, (numerator, denominator, unit) in _RATIOS.items():
            interval = collected.drawn.ratio(numerator, denominator, chosen_S)
            yield summary_row(quantity, split, unit, interval, num_questions=num_questions)


def _concentration(collected: _Collected) -> tuple[list[dict[str, object]], pd.DataFrame]:
    """Top shares and Gini of every split, and the curves of the two that are drawn."""
    shares = np.concatenate([list(_TOP_SHARES.values()), _CURVE_SHARES])
    rows, tables = [], []

    def statistic(drawn: Drawn) -> Float[np.ndarray, "C K"]:
        held = drawn["magnitude"], drawn["magnitude_mass"]
        return np.column_stack([gini(*held), top_share(*held, shares)])

    for split, chosen_S, num_questions in _splits(collected):
        value, low, high = collected.drawn.band(statistic, chosen_S, of="tokens")
        names = {"gini": "Gini coefficient of |THR| over tokens"}
        names |= dict.fromkeys(_TOP_SHARES, "share of summed |THR|")
        for index, (quantity, unit) in enumerate(names.items()):
            interval = Interval(value=value[index], low=low[index], high=high[index])
            rows.append(summary_row(quantity, split, unit, interval, num_questions=num_questions))
        if split in ("correct", "incorrect"):
            curve = slice(len(names), None)
            tables.append(
                pd.DataFrame(
                    {
                        "split": split,
                        "token_share": _CURVE_SHARES,
                        "mass_share": value[curve],
                        "low": low[curve],
                        "high": high[curve],
                    }
                )
            )
    return rows, pd.concat(tables, ignore_index=True)


def _median_tau(collected: _Collected) -> dict[str, object]:
    stream = collected.stream
    positive = np.isfinite(stream.tau) & (stream.tau > 0)
    tau, question = stream.tau[positive], stream.question_of_group[positive]
    interval = Interval(value=float("nan"), low=float("nan"), high=float("nan"))
    if len(tau):
        (interval,) = collected.resampler.quantiles(tau, question, [0.5])
    num_questions = len(np.unique(question))
    return summary_row(
        "median_tau", "all", "THR, over groups of tau > 0", interval, num_questions=num_questions
    )


def _paper_curve(collected: _Collected) -> pd.DataFrame:
    """The density on the linear axis: fine bins smoothed by a normal kernel of 0.5 % of it.

    It is normalised over all tokens, so that it integrates to the share of them on the axis.
    """
    edges = collected.scales.linear_edges
    center = (edges[1:] + edges[:-1]) / 2
    at_X = center[MARGIN_BINS:-MARGIN_BINS]
    kernel_KX = gaussian_weights(at_X, center, bandwidth(collected.scales))
    columns = {"thr": at_X}
    return _histogram_curves(collected, "linear", kernel_KX, columns, "density")


def bandwidth(scales: Scales) -> float:
    """Standard deviation of the kernel of the linear density, in THR."""
    return _SMOOTHING * (scales.linear_high - scales.linear_low)


def _diagnostic_curve(collected: _Collected) -> pd.DataFrame:
    edges = collected.scales.asinh_edges(collected.bins)
    columns = {"left": edges[:-1], "right": edges[1:]}
    identity = np.eye(collected.bins)
    return _histogram_curves(collected, "asinh", identity, columns, "fraction")


def _histogram_curves(
    collected: _Collected,
    histogram: str,
    kernel_KX: Float[np.ndarray, "K X"],
    columns: dict[str, Float[np.ndarray, " X"]],
    value_name: str,
) -> pd.DataFrame:
    """Histograms of the correct and the incorrect tokens, per token and smoothed, with bands."""
    tables = []
    for split, chosen_S, _ in _splits(collected):
        if split not in ("correct", "incorrect"):
            continue
        value, low, high = collected.drawn.band(
            lambda drawn: quotient(drawn[histogram] @ kernel_KX, drawn["tokens"][:, None]),
            chosen_S,
            of="tokens",
        )
        tables.append(
            pd.DataFrame({"split": split, **columns, value_name: value, "low": low, "high": high})
        )
    return pd.concat(tables, ignore_index=True)


def _estimator_facts(collected: _Collected, normalize: str) -> dict[str, object]:
    scales = collected.scales
    return {
        "normalize": normalize,
        "unit": "THR / tau of its group" if normalize == "tau" else "THR",
        "max_abs_thr": scales.max_magnitude,
        "linear_axis": [scales.linear_low, scales.linear_high],
        "linear_axis_quantiles": list(CLIP),
        "linear_bins": NUM_LINEAR_BINS,
        "bandwidth": bandwidth(scales),
        "asinh_scale": scales.asinh_scale,
        "asinh_bins": collected.bins,
        "concentration": "from sums of |THR| per question in 16 logarithmic bins to an octave, "
        "exact at the bins' edges and linear between them; intervals from the resampled sums",
        **collected.resampler.facts,
    }


def density_in_style(analysis: Analysis, style: str) -> Analysis:
    """The analysis as one style of the figure shows it: only the curves drawn, the caption to fit.

    Args:
        analysis: of `thr_density`.
        style: `paper` or `diagnostic`.
    """
    check_style(style)
    if analysis.empty_reason is not None:
        return analysis
    curves = {name: analysis.curves[name] for name in (style, "concentration")}
    return replace(analysis, curves=curves, caption=density_caption(analysis, style))


def check_style(style: str) -> None:
    """Refuses a style of the figure that does not exist."""
    if style not in STYLES:
        raise UsageError(f"unknown style {style!r}; choose {' or '.join(STYLES)}")
