"""THR against the advantage: where its mass lies by advantage, by q, by correctness and sign.

Letters of shapes: R completions, S strata.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped

from thr_probe.analysis.binned import (
    BinnedSums,
    completion_table,
    interval_columns,
    q_bins,
    stratum_totals,
)
from thr_probe.analysis.captions import caption_of, counts_phrase, left_out_sentences
from thr_probe.analysis.histograms import dominant_tokens
from thr_probe.analysis.resampling import ResampledSums, Resampler
from thr_probe.analysis.result import (
    Analysis,
    counted,
    empty_analysis,
    latex_percent,
    summary_row,
    summary_table,
)
from thr_probe.analysis.stream import Batch, CompletionStream
from thr_probe.traces.reader import Run

CELLS = ("correct_positive", "correct_negative", "incorrect_positive", "incorrect_negative")
"""Correctness of the completion by sign of THR."""
DOMINANT = {
    "token_dominant_share": ("dominant", "tokens", "share of tokens with |THR| > tau"),
    "weight_dominant_share": (
        "weight_dominant",
        "weight",
        "share of summed |A| / (tokens of the group) on dominant tokens",
    ),
    "influence_captured": (
        "influence_dominant",
        "influence",
        "share of summed |A| |THR| on dominant tokens",
    ),
}
"""What dominant tokens hold: numerator, denominator, unit."""
_BINNED = (*CELLS, "influence", "mass", "tokens")
_CELL_UNIT = "share of summed |A| |THR|"
_WIDTHS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_MOST_BINS = 20


def thr_by_advantage(
    run: Run, *, groups: str = "mixed", seed: int = 0, score_id: str | None = None
) -> Analysis:
    """Where |THR| lies by advantage and q, and how |A| |THR| divides over correctness and sign.

    |A| |THR| is a token's share in the first-order drift of the likelihood of the correct
    completions, |A| its weight in the policy gradient.

    Args:
        run: the trace.
        groups: `mixed` (groups with correct and incorrect completions) or `has-correct`.
        seed: of the bootstrap over questions.
        score_id: which scores; the only ones by default.

    Returns:
        summary: for all completions the shares of sum |A| |THR| that the four `CELLS` hold, which
        add up to 1; by split `token_dominant_share` (dominant tokens' share of the tokens),
        `weight_dominant_share` (their share of the gradient's weight, |A| over the tokens of the
        group as in Equation 2) and `influence_captured` (their share of sum |A| |THR|). Splits
        named "..., tau > 0" leave out groups of tau <= 0.
        curves: `advantage` (bins of the completion's advantage: `mass` and `tokens`, the shares of
        sum |THR| and of the tokens in the bin, `magnitude`, the mean |THR| of its tokens),
        `q` and `matrix` (the shares of the four cells within each bin of q, or within the groups of
        num_correct correct and num_incorrect incorrect completions, `correct`, the first two
        together, and `mass`, the bin's share of sum |A| |THR|), `cells` and `dominant` (rows of
        the summary).
    """
    stream = CompletionStream(
        run,
        ["thr"],
        completion_columns=["advantage", "correct"],
        groups=groups,
        score_id=score_id,
    )
    table = completion_table(stream, _columns)
    reason = stream.empty_reason()
    if reason is None:
        reason = _nothing_weighed(table)
    if reason is not None:
        return empty_analysis("advantage", reason, stream.facts())
    table |= _weighed(table)
    bins = _bins(table)
    num_strata = len(stream.strata.question_S)
    columns = stratum_totals(table, num_strata)
    axes = {name: BinnedSums(name, len(rows)) for name, (_, rows) in bins.items()}
    for name, axis in axes.items():
        axis.add(table["stratum"], bins[name][0], {key: table[key] for key in _BINNED})
        columns |= axis.columns(num_strata)
    resampler = Resampler(stream.strata, stream.num_questions, seed=seed)
    sums = resampler.sums(columns)
    summary = summary_table(_rows(stream, columns, sums))
    everything_S = np.ones(num_strata, dtype=bool)
    curves = {
        name: bins[name][1].join(_measured(axis, sums, everything_S)) for name, axis in axes.items()
    }
    curves["cells"] = summary[summary["quantity"].isin(CELLS)].reset_index(drop=True)
    curves["dominant"] = summary[summary["quantity"].isin(DOMINANT)].reset_index(drop=True)
    facts = stream.facts() | {
        "weight": "|A| over the tokens of the group",
        "exclusions": stream.exclusion_sentence(),
        **resampler.facts,
    }
    analysis = Analysis(name="advantage", summary=summary, curves=curves, facts=facts, caption="")
    return replace(analysis, caption=_caption(analysis))


def _columns(batch: Batch) -> dict[str, Shaped[np.ndarray, " R"]]:
    """What is known of each completion."""
    thr_N = batch.tokens["thr"].astype(np.float64)
    magnitude_N, dominant_N = np.abs(thr_N), dominant_tokens(batch)
    return {
        "advantage": batch.completions["advantage"].astype(np.float64),
        "q": batch.completions["q"].astype(np.float64),
        "right": batch.completions["correct"].astype(np.float64),
        "tokens": batch.lengths.astype(np.float64),
        "dominant": batch.count(dominant_N).astype(np.float64),
        "mass": batch.sum(magnitude_N),
        "mass_dominant": batch.sum(magnitude_N * dominant_N),
        "positive": batch.sum(magnitude_N * (thr_N > 0)),
        "negative": batch.sum(magnitude_N * (thr_N < 0)),
    }


def _nothing_weighed(table: Mapping[str, np.ndarray]) -> str | None:
    """Why no token counts, in a sentence; None if one does."""
    if not table["advantage"].any():
        return "Every advantage is 0: the groups that were kept are not mixed."
    if not (np.abs(table["advantage"]) * table["mass"]).any():
        return "Every THR of a completion whose advantage is not 0 is 0."
    return None


def _weighed(table: Mapping[str, np.ndarray]) -> dict[str, Float[np.ndarray, " R"]]:
    """Sums with |A| as weights, of each completion."""
    weight_R = np.abs(table["advantage"])
    right_R = table["right"] > 0
    tokens_G = np.bincount(table["group"], weights=table["tokens"])
    share_R = weight_R / tokens_G[table["group"]]
    cells = {
        f"{label}_{sign}": weight_R * table[sign] * chosen_R
        for label, chosen_R in (("correct", right_R), ("incorrect", ~right_R))
        for sign in ("positive", "negative")
    }
    return cells | {
        "influence": weight_R * table["mass"],
        "influence_dominant": weight_R * table["mass_dominant"],
        "weight": share_R * table["tokens"],
        "weight_dominant": share_R * table["dominant"],
    }


_Bins = tuple[Int[np.ndarray, " R"], pd.DataFrame]


def _bins(table: Mapping[str, np.ndarray]) -> dict[str, _Bins]:
    """By axis: the bin of every completion, and a row for each bin."""
    return {
        "advantage": _advantage_bins(table["advantage"]),
        "q": q_bins(table["q"]),
        "matrix": _group_kinds(table),
    }


def _advantage_bins(advantage_R: Float[np.ndarray, " R"]) -> _Bins:
    """Bins of equal, round width, an edge at 0; at most 20, those that hold a completion."""
    most = float(np.abs(advantage_R).max())
    width = next((width for width in _WIDTHS if 2 * most <= _MOST_BINS * width), 2 * most / 20)
    place, bin_R = np.unique(np.floor(advantage_R / width).astype(np.int64), return_inverse=True)
    return bin_R, pd.DataFrame({"left": place * width, "right": (place + 1) * width})


def _group_kinds(table: Mapping[str, np.ndarray]) -> _Bins:
    """A row for each pair of correct and incorrect completions in a group."""
    group_R = table["group"]
    right_G = np.bincount(group_R, weights=table["right"]).astype(np.int64)
    size_G = np.bincount(group_R)
    pairs, kind_G = np.unique(
        np.column_stack([right_G, size_G - right_G]), axis=0, return_inverse=True
    )
    rows = pd.DataFrame(pairs, columns=["num_correct", "num_incorrect"])
    return kind_G.ravel()[group_R], rows.assign(num_groups=np.bincount(kind_G.ravel()))


def _measured(
    axis: BinnedSums, sums: ResampledSums, everything_S: Bool[np.ndarray, " S"]
) -> pd.DataFrame:
    """What is drawn of each bin, with bounds."""
    if axis.axis == "advantage":
        drawn = {
            "mass": axis.shares(sums, "mass", everything_S),
            "tokens": axis.shares(sums, "tokens", everything_S),
            "magnitude": axis.ratios(sums, "mass", "tokens", everything_S),
        }
    else:
        drawn = {cell: axis.ratios(sums, cell, "influence", everything_S) for cell in CELLS}
        drawn["correct"] = axis.running_ratios(sums, CELLS[:2], "influence", everything_S)
        drawn["mass"] = axis.shares(sums, "influence", everything_S)
    columns: dict[str, list[float]] = {}
    for name, intervals in drawn.items():
        columns |= interval_columns(name, intervals)
    return pd.DataFrame(columns)


def _rows(
    stream: CompletionStream, columns: Mapping[str, np.ndarray], sums: ResampledSums
) -> Iterator[dict[str, object]]:
    question_S = stream.strata.question_S
    for split, some_S in stream.strata.splits().items():
        for cell in CELLS if split.startswith("all") else ():
            if columns["influence"][some_S].any():
                number = len(np.unique(question_S[some_S & (columns["influence"] > 0)]))
                interval = sums.ratio(cell, "influence", some_S)
                yield summary_row(cell, split, _CELL_UNIT, interval, num_questions=number)
        for quantity, (above, below, unit) in DOMINANT.items():
            number = len(np.unique(question_S[some_S & (columns[below] > 0)]))
            if number:
                interval = sums.ratio(above, below, some_S)
                yield summary_row(quantity, split, unit, interval, num_questions=number)


def dominant_suffix(analysis: Analysis) -> str:
    """Which splits tell what dominant tokens hold: those without tau <= 0, where there are some."""
    rows = analysis.curves["dominant"]
    apart = rows[(rows["split"] == "all, tau > 0") & (rows["quantity"] == "influence_captured")]
    return ", tau > 0" if len(apart) else ""


def _caption(analysis: Analysis) -> str:
    cells = {cell: latex_percent(analysis.value(cell)) for cell in CELLS}
    suffix = dominant_suffix(analysis)
    held = {name: latex_percent(analysis.value(name, f"all{suffix}")) for name in DOMINANT}
    nonpositive = counted(analysis.count("num_groups_tau_nonpositive"), "group")
    without = f" (without the {nonpositive} of $\\tau \\le 0$)" if suffix else ""
    return caption_of(
        analysis,
        "Brackets and whiskers",
        rf"$|\mathrm{{THR}}|$ against the advantage $\hat{{A}}$: {counts_phrase(analysis)}",
        r"(a) Share of the summed $|\mathrm{THR}|$ (bars) and of the tokens (steps) by the "
        "completion's advantage",
        r"(b) By $q$, the share of correct completions of the group, how "
        r"$\sum |\hat{A}|\,|\mathrm{THR}|$ divides over correctness and the sign of THR; "
        "whiskers are of the share of correct completions",
        f"(c) The same over all groups: correct completions {cells['correct_positive']} on tokens "
        f"of THR $> 0$ and {cells['correct_negative']} on those of THR $< 0$, incorrect ones "
        f"{cells['incorrect_positive']} and {cells['incorrect_negative']}",
        f"(d) What dominant tokens hold{without}: {held['token_dominant_share']} of the tokens, "
        rf"{held['weight_dominant_share']} of the gradient's weight ($|\hat{{A}}|$ over the tokens "
        f"of the group), {held['influence_captured']} of "
        r"$\sum |\hat{A}|\,|\mathrm{THR}|$",
        *left_out_sentences(analysis),
    )
