"""How much is retained as the threshold moves: tokens and |THR| with |THR| > c tau.

Letters of shapes: R completions, N tokens, S strata, E edges (values of c), C resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from thr_probe.analysis.binned import BinnedSums, completion_table, stratum_totals
from thr_probe.analysis.captions import caption_of, counts_phrase, left_out_sentences
from thr_probe.analysis.resampling import Drawn, ResampledSums, Resampler
from thr_probe.analysis.result import (
    Analysis,
    empty_analysis,
    latex_percent,
    summary_row,
    summary_table,
)
from thr_probe.analysis.stream import Batch, CompletionStream
from thr_probe.traces.reader import Run

FACTORS = (0.1, 0.5, 1.0, 2.0, 10.0)
"""The c of the summary."""
_LOW, _HIGH, _PER_DECADE = -2, 2, 20
_MEASURES = {"retained_share": "count", "retained_mass": "mass"}
_UNITS = {
    "retained_share": "share of tokens with |THR| > c tau",
    "retained_mass": "share of summed |THR| on tokens with |THR| > c tau",
}


def threshold_sensitivity(
    run: Run, *, groups: str = "mixed", seed: int = 0, score_id: str | None = None
) -> Analysis:
    """What the rule |THR| > c tau retains for c from 0.01 to 100; the paper's rule is c = 1.

    Scaling tau by c is what the option beta of the threshold does. A tau of 0 or below cannot be
    scaled: its groups retain (nearly) every token whatever c is; they are left out and counted.

    Args:
        run: the trace.
        groups: `mixed` (groups with correct and incorrect completions) or `has-correct`.
        seed: of the bootstrap over questions.
        score_id: which scores; the only ones by default.

    Returns:
        summary, by correctness, for c in `FACTORS`: `retained_share_at_<c>` (of the tokens),
        `retained_mass_at_<c>` (of the summed |THR|), from exact counts of |THR| > c tau.
        curves: `curve`, columns split, c, and for `retained_share` and `retained_mass` the value
        and its bounds; exact at each of the 81 values of c, 20 to a decade.
    """
    stream = CompletionStream(run, ["thr"], groups=groups, score_id=score_id, positive_tau=True)
    edges_E = factor_grid()
    histogram = BinnedSums("ratio", len(edges_E) + 1)
    table = completion_table(stream, lambda batch: _columns(batch, histogram, edges_E))
    reason = stream.empty_reason()
    if reason is None and not table["mass"].any():
        reason = "Every THR of this run is 0: no threshold retains anything."
    if reason is not None:
        return empty_analysis("tau", reason, stream.facts())
    num_strata = len(stream.strata.question_S)
    resampler = Resampler(stream.strata, stream.num_questions, seed=seed)
    sums = resampler.sums(
        stratum_totals(table, num_strata)
        | {f"{name}_by_ratio": histogram.table(name, num_strata) for name in _MEASURES.values()}
    )
    splits = {name: some_S for name, some_S in stream.strata.splits().items() if some_S.any()}
    questions = {
        name: len(np.unique(stream.strata.question_S[some_S])) for name, some_S in splits.items()
    }
    summary = summary_table(_rows(splits, questions, sums))
    curve = pd.concat(
        [_curve(name, some_S, sums, edges_E) for name, some_S in splits.items()], ignore_index=True
    )
    facts = stream.facts() | {
        "rule": "|THR| > c tau, strict",
        "exclusions": stream.exclusion_sentence(),
        **resampler.facts,
    }
    analysis = Analysis(
        name="tau", summary=summary, curves={"curve": curve}, facts=facts, caption=""
    )
    return replace(analysis, caption=_caption(analysis))


def factor_grid() -> Float[np.ndarray, " E"]:
    """The c of the curve, 0.01 to 100; 0.01, 0.1, 1, 10, 100 are among them exactly."""
    steps = np.arange(_LOW * _PER_DECADE, _HIGH * _PER_DECADE + 1)
    decade, part = np.divmod(steps, _PER_DECADE)
    whole = np.array([float(f"1e{power}") for power in decade.tolist()])
    factor_E: np.ndarray = whole * 10.0 ** (part / _PER_DECADE)
    return factor_E


def _columns(
    batch: Batch, histogram: BinnedSums, edges_E: Float[np.ndarray, " E"]
) -> dict[str, Float[np.ndarray, " R"]]:
    """Counts and sums of each completion, in all and at each c of the summary."""
    magnitude_N = np.abs(batch.tokens["thr"].astype(np.float64))
    tau_N = batch.per_token(batch.tau_R.astype(np.float64))
    # bin i holds edges[i - 1] < |THR| / tau <= edges[i]: retained at edge e are the bins after e
    bin_N = np.searchsorted(edges_E, magnitude_N / tau_N)
    histogram.add(batch.per_token(batch.stratum_R), bin_N, {"mass": magnitude_N})
    found = {"count": batch.lengths.astype(np.float64), "mass": batch.sum(magnitude_N)}
    for factor in FACTORS:
        kept_N = magnitude_N > factor * tau_N
        found[f"count_at_{factor:g}"] = batch.count(kept_N).astype(np.float64)
        found[f"mass_at_{factor:g}"] = batch.sum(magnitude_N * kept_N)
    return found


def _rows(
    splits: Mapping[str, Bool[np.ndarray, " S"]], questions: Mapping[str, int], sums: ResampledSums
) -> Iterator[dict[str, object]]:
    for split, some_S in splits.items():
        for quantity, name in _MEASURES.items():
            for factor in FACTORS:
                yield summary_row(
                    f"{quantity}_at_{factor:g}",
                    split,
                    _UNITS[quantity],
                    sums.ratio(f"{name}_at_{factor:g}", name, some_S),
                    num_questions=questions[split],
                )


def _curve(
    split: str,
    some_S: Bool[np.ndarray, " S"],
    sums: ResampledSums,
    edges_E: Float[np.ndarray, " E"],
) -> pd.DataFrame:
    columns: dict[str, object] = {"split": split, "c": edges_E}
    for quantity, name in _MEASURES.items():

        def retained(drawn: Drawn, name: str = name) -> Float[np.ndarray, "C E"]:
            above = np.cumsum(drawn[f"{name}_by_ratio"][:, :0:-1], axis=1)[:, ::-1]
            share: np.ndarray = above / drawn[name][:, None]
            return share

        value, low, high = sums.band(retained, some_S, of=name)
        columns |= {quantity: value, f"{quantity}_low": low, f"{quantity}_high": high}
    return pd.DataFrame(columns)


def _caption(analysis: Analysis) -> str:
    def told(quantity: str, factor: float) -> str:
        return latex_percent(analysis.value(f"{quantity}_at_{factor:g}"))

    def listed(quantity: str) -> str:
        return ", ".join(
            f"{told(quantity, factor)} at $c = {factor:g}$" for factor in (0.1, 0.5, 2.0, 10.0)
        )

    return caption_of(
        analysis,
        "Brackets and bands",
        r"What the threshold $|\mathrm{THR}| > c\,\tau$ retains as it is scaled by $c$: "
        f"{counts_phrase(analysis)}; $c = 1$ (dotted) is the adaptive threshold",
        f"(a) Share of tokens: {told('retained_share', 1.0)} at $c = 1$, "
        f"{listed('retained_share')}",
        rf"(b) Share of the summed $|\mathrm{{THR}}|$ on them: {told('retained_mass', 1.0)} at "
        f"$c = 1$, {listed('retained_mass')}",
        *left_out_sentences(analysis),
    )
