"""Sampler against policy: how far an engine's distribution is from the one that is scored.

Letters of shapes: R completions, P questions, B resamples, C of them, M numbers, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from thr_probe.analysis.distributions import Distributions, distributions
from thr_probe.analysis.health_counts import GAP_NATS
from thr_probe.analysis.intervals import interval_facts
from thr_probe.analysis.mismatch_caption import mismatch_caption
from thr_probe.analysis.mismatch_curves import MEANS, MismatchData, mismatch_curves
from thr_probe.analysis.mismatch_sums import KINDS, VALUES, MismatchSums
from thr_probe.analysis.quantiles import resampled_quantiles
from thr_probe.analysis.result import Analysis, empty_analysis, summary_row, summary_table
from thr_probe.core.stats import (
    Interval,
    bootstrap_ratios,
    percentile_interval,
    question_weights,
    quotient,
    resampled_sums,
)
from thr_probe.errors import UsageError
from thr_probe.traces.reader import Run

_UNITS = {
    "kl_k1": "nats per token, mean of log mu - log pi",
    "kl_k3": "nats per token, mean of pi / mu - 1 - log(pi / mu)",
    "mean_gap": "nats, mean of |log pi - log mu|",
    "mean_ratio": "mean of pi / mu",
}
_QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}


def sampler_mismatch(
    run: Run,
    *,
    bound: float = GAP_NATS,
    cap: float = 2.0,
    seed: int = 0,
    score_id: str | None = None,
) -> Analysis:
    """The sampler's log-probabilities (log mu) against the policy's own (log pi), token by token.

    Every completion with both lists counts, also those of groups without THR. Where temperatures
    differ nothing is compared; top-p, greedy sampling and unrecorded temperatures are told in
    `facts["caution"]`.

    Args:
        run: the trace.
        bound: differences beyond it are counted, nats.
        cap: C of truncated importance sampling.
        seed: of the bootstrap over questions.
        score_id: which scores; the only ones by default.

    Returns:
        summary, by split (`all`, `correct`, `incorrect`, and the kinds of tokens in groups with a
        positive tau): `kl_k1`, `kl_k3` (both unbiased for KL(mu || pi) per token, the second never
        negative), `mean_gap`, `beyond_share`, `mean_ratio`, `truncated_share`, `ess_share` (the
        effective sample size (sum w)^2 / sum w^2 of the ratios over the tokens), `largest_ratio`,
        `largest_gap`; of completions `sequence_kl_k1` (mean of the sum of log mu - log pi, unbiased
        for the divergence of whole completions), `sequence_ess_share` and quantiles
        `sequence_log_ratio_...` of the sum of log pi - log mu. curves: `tails`, `positions`,
        `sequences`, `worst`, and of a run of several training steps `steps`.

    Raises:
        UsageError: a bound or a cap that is none.
        DataError: the run has no column sampler_logprobs, or it holds no log-probabilities.
    """
    _check(bound, cap)
    facts: dict[str, object] = {"score_id": None, "bound": bound, "cap": cap}
    if not run.score_ids:
        reason = "This run has no scores: the policy's own log-probabilities are not known yet."
        return empty_analysis("mismatch", reason, facts)
    chosen = run.resolve_score_id(score_id)
    known = distributions(run, chosen)
    facts |= {"score_id": chosen, "caution": _caution(known)}
    if known.different is not None:
        return empty_analysis("mismatch", _different(known.different), facts)
    sums = MismatchSums(bound=bound, cap=cap)
    sums.read(run, chosen)
    of_R = sums.completions()
    num_tokens = int(of_R["tokens"].sum()) if of_R else 0
    facts |= {
        "num_questions": sums.num_questions,
        "num_completions": len(of_R["tokens"]) if of_R else 0,
        "num_tokens": num_tokens,
        **{f"excluded_completions_{name}": number for name, number in sums.left_out.items()},
        "exclusions": sums.exclusion_sentence(),
    }
    if not num_tokens:
        reason = f"No token could be compared. {sums.exclusion_sentence()}".strip()
        return empty_analysis("mismatch", reason, facts)
    weights_BP = question_weights(sums.num_questions, seed=seed, dtype=np.int16)
    data = MismatchData(sums, of_R, weights_BP)
    analysis = Analysis(
        name="mismatch",
        summary=summary_table(_rows(data)),
        curves=mismatch_curves(data, run),
        facts=facts | interval_facts(weights_BP, seed),
        caption="",
    )
    return replace(analysis, caption=mismatch_caption(analysis))


def _check(bound: float, cap: float) -> None:
    if not 0 < bound < np.inf:
        raise UsageError(f"bound must be a positive number of nats, got {bound}")
    if not 1 <= cap < np.inf:
        raise UsageError(f"cap must be a number of at least 1, got {cap}")


def _different(difference: str) -> str:
    return (
        f"The rollouts were {difference}: sampler and policy are different distributions whatever "
        "the engine. Score the run at the temperature that it was sampled at to compare them."
    )


def _caution(known: Distributions) -> str:
    """What to keep in mind, in a sentence; empty where nothing is."""
    if known.unknown is not None:
        return (
            f"{known.unknown[0].upper()}{known.unknown[1:]}: where they differ, so do the "
            "distributions, whatever the engine."
        )
    if known.cut is not None:
        return (
            "The rollouts were drawn with top-p or top-k: the sampler's log-probabilities are "
            "renormalised over the tokens kept, so they differ by design, by the logarithm of the "
            "policy's mass inside; k3 falls short of the divergence by the mass outside."
        )
    if known.is_greedy:
        return (
            "The rollouts are greedy, with the sampler's log-probabilities at temperature 1: "
            "nothing was drawn, so means over tokens are no estimates of a divergence."
        )
    return ""


def _rows(data: MismatchData) -> Iterator[dict[str, object]]:
    """The summary: completions by correctness, then kinds of tokens."""
    correct_R = data.of_R["correct"].astype(bool)
    every_R = np.ones_like(correct_R)
    splits = {"all": every_R, "correct": correct_R, "incorrect": ~correct_R}
    for split, some_R in splits.items():
        if not data.of_R["tokens"][some_R].any():
            continue
        sum_P = {name: data.per_question(name, some_R) for name in ("tokens", *VALUES)}
        largest = [
            float(data.of_R[name][some_R].max()) for name in ("largest_ratio", "largest_gap")
        ]
        yield from _token_rows(split, sum_P, largest, data)
        yield from _sequence_rows(split, some_R, data)
    kinds, number = data.sums.kinds, data.sums.num_questions
    for place, kind in enumerate(KINDS):
        sum_P = {name: kinds.table(name, number)[:, place] for name in VALUES}
        sum_P["tokens"] = kinds.table("count", number)[:, place]
        if sum_P["tokens"].any():
            largest = data.sums.largest_of_kind[place].tolist()
            yield from _token_rows(kind, sum_P, largest, data)


def _token_rows(
    split: str,
    sum_P: Mapping[str, Float[np.ndarray, " P"]],
    largest: Sequence[float],
    data: MismatchData,
) -> Iterator[dict[str, object]]:
    questions = int(np.count_nonzero(sum_P["tokens"]))
    numerator_PM = np.column_stack([sum_P[value] for value in MEANS.values()])
    found = bootstrap_ratios(numerator_PM, sum_P["tokens"][:, None], data.weights_BP)
    units = _UNITS | {
        "beyond_share": f"share of tokens with |log pi - log mu| > {data.sums.bound:g}",
        "truncated_share": f"share of tokens with pi / mu > {data.sums.cap:g}",
    }
    for quantity, interval in zip(MEANS, found, strict=True):
        yield summary_row(quantity, split, units[quantity], interval, num_questions=questions)
    size = _effective_share(sum_P["tokens"], sum_P["ratio"], sum_P["ratio_squared"], data)
    unit = "effective sample size of the tokens' ratios over their number"
    yield summary_row("ess_share", split, unit, size, num_questions=questions)
    for quantity, unit, value in (
        ("largest_ratio", "pi / mu", largest[0]),
        ("largest_gap", "nats, |log pi - log mu|", largest[1]),
    ):
        alone = Interval(value=value, low=np.nan, high=np.nan)
        yield summary_row(quantity, split, unit, alone, num_questions=questions)


def _effective_share(
    count_P: Float[np.ndarray, " P"],
    ratio_P: Float[np.ndarray, " P"],
    squared_P: Float[np.ndarray, " P"],
    data: MismatchData,
) -> Interval:
    """(sum w)^2 / sum w^2 over the number of weights (Kish), 1 where all are equal."""

    def share(sums_C3: Float[np.ndarray, "C 3"]) -> Float[np.ndarray, " C"]:
        return quotient(sums_C3[:, 1] ** 2, sums_C3[:, 2] * sums_C3[:, 0])

    sums_P3 = np.column_stack([count_P, ratio_P, squared_P])
    value = float(share(sums_P3.sum(axis=0)[None])[0])
    if np.count_nonzero(count_P) < 2:
        return Interval(value=value, low=np.nan, high=np.nan)
    low, high = percentile_interval(share(resampled_sums(data.weights_BP, sums_P3)))
    return Interval(value=value, low=low, high=high)


def _sequence_rows(
    split: str, some_R: Bool[np.ndarray, " R"], data: MismatchData
) -> Iterator[dict[str, object]]:
    """Of whole completions: the sum of log pi - log mu over their tokens."""
    question_R, log_ratio_R = data.of_R["question"][some_R], -data.of_R["k1"][some_R]
    number = data.sums.num_questions
    count_P = np.bincount(question_R, minlength=number).astype(np.float64)
    questions = int(np.count_nonzero(count_P))
    k1_P = data.per_question("k1", some_R)
    (mean,) = bootstrap_ratios(k1_P[:, None], count_P[:, None], data.weights_BP)
    unit = "nats per completion, mean of the sum of log mu - log pi"
    yield summary_row("sequence_kl_k1", split, unit, mean, num_questions=questions)
    # relative to the largest: only shares are asked for, and no sum overflows
    ratio_R = np.exp(log_ratio_R - log_ratio_R.max())
    ratio_P, squared_P = (
        np.bincount(question_R, weights=value, minlength=number) for value in (ratio_R, ratio_R**2)
    )
    size = _effective_share(count_P, ratio_P, squared_P, data)
    unit = "effective sample size of the completions' ratios over their number"
    yield summary_row("sequence_ess_share", split, unit, size, num_questions=questions)
    shares = list(_QUANTILES.values())
    values = np.quantile(log_ratio_R, shares)
    draws_BQ = np.full((1, len(shares)), np.nan)
    if questions > 1:
        draws_BQ = resampled_quantiles(data.weights_BP, log_ratio_R, question_R, shares)
    unit = "nats, sum of log pi - log mu over a completion"
    for name, value, draws_B in zip(_QUANTILES, values, draws_BQ.T, strict=True):
        low, high = percentile_interval(draws_B)
        interval = Interval(value=float(value), low=low, high=high)
        quantity = f"sequence_log_ratio_{name}"
        yield summary_row(quantity, split, unit, interval, num_questions=questions)
