"""How THR moves along training: the same rollouts scored by several checkpoints.

Letters of shapes: N tokens of a batch, R completions, S strata.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped

from thr_probe.analysis.captions import caption_of, counts_phrase, left_out_sentences
from thr_probe.analysis.histograms import dominant_tokens
from thr_probe.analysis.resampling import Drawn, ResampledSums, Resampler
from thr_probe.analysis.result import (
    Analysis,
    counted,
    empty_analysis,
    latex_escape,
    summary_row,
    summary_table,
)
from thr_probe.analysis.stream import Batch, CompletionStream
from thr_probe.analysis.token_ranks import completion_correlations
from thr_probe.core.stats import Interval, quotient
from thr_probe.errors import UsageError
from thr_probe.traces.reader import Run

_COLUMNS = ("thr", "entropy", "logprob")
_OPTIONS = ("vocab", "beta", "reduce", "self_influence", "temperature")
_RATIOS = {
    "rank_correlation": ("rank", "ranked", "Spearman correlation of THR, mean over completions"),
    "sign_agreement": ("same_sign", "signed", "share of tokens of THR other than 0 in both"),
    "dominant_jaccard": ("both", "either", "tokens dominant in both over those dominant in one"),
    "dominant_kept": ("both", "dominant", "share of the reference's dominant tokens"),
    "mass_moved": ("moved", "massive", "share of a completion's |THR|, mean over completions"),
    "logprob_change": ("logprob", "tokens", "nats, mean over tokens"),
    "entropy_change": ("entropy", "tokens", "nats, mean over tokens"),
}
_BALANCE = "difference of sum of THR over sum of |THR|"
AT_REFERENCE = {
    "rank_correlation": 1.0,
    "sign_agreement": 1.0,
    "dominant_jaccard": 1.0,
    "dominant_kept": 1.0,
    "mass_moved": 0.0,
    "logprob_change": 0.0,
    "entropy_change": 0.0,
    "balance_change": 0.0,
}
"""Every quantity, and its value where a score set is compared with itself."""


def thr_drift(
    run: Run, *, score_ids: Sequence[str] | None = None, groups: str = "mixed", seed: int = 0
) -> Analysis:
    """Each score set of a run against the first: what becomes of THR under another policy.

    `mass_moved` is half of the summed differences between the two distributions of |THR| over the
    tokens of a completion: the share of it that lies on other tokens.

    Args:
        run: the trace, scored several times.
        score_ids: the score sets in order, the first the reference; all by name, if None.
        groups: `mixed` (groups with correct and incorrect completions) or `has-correct`.
        seed: of the bootstrap over questions.

    Returns:
        summary: the quantities of `AT_REFERENCE` with the score set as split, and "SET, correct",
        "SET, incorrect"; "..., tau > 0" leaves out groups whose tau is 0 or below in the reference
        (whatever it is in the other set) and is present where there are such groups.
        curves: `checkpoints`, every quantity of every score set, the reference included.

    Raises:
        UsageError: a score set that the run does not have, or one named twice.
    """
    chosen = _chosen(run, score_ids)
    if len(chosen) < 2:
        return empty_analysis("drift", _too_few(chosen), {"score_ids": chosen})
    rows: list[dict[str, object]] = []
    nonpositive: dict[str, int] = {}
    for other in chosen[1:]:
        stream, later = (
            CompletionStream(run, _COLUMNS, groups=groups, score_id=each)
            for each in (chosen[0], other)
        )
        column_S = _collect(stream, later)
        nonpositive |= {
            name: int((each.tau <= 0).sum()) for name, each in ((chosen[0], stream), (other, later))
        }
        reason = stream.empty_reason()
        if reason is not None:
            return empty_analysis("drift", reason, {"score_ids": chosen} | stream.facts())
        resampler = Resampler(stream.strata, stream.num_questions, seed=seed)
        rows += _rows(other, stream, column_S, resampler)
    summary = summary_table(rows)
    analysis = Analysis(
        name="drift",
        summary=summary,
        curves={"checkpoints": _checkpoints(chosen, summary)},
        facts=stream.facts()
        | _set_facts(run, chosen)
        | {
            "groups_tau_nonpositive_by_set": nonpositive,
            "exclusions": stream.exclusion_sentence(),
            **resampler.facts,
        },
        caption="",
    )
    return replace(analysis, caption=_caption(analysis))


def _chosen(run: Run, score_ids: Sequence[str] | None) -> list[str]:
    chosen = list(score_ids or run.score_ids)
    for score_id in chosen:
        run.resolve_score_id(score_id)
    if len(set(chosen)) < len(chosen):
        raise UsageError(f"a score set is named twice: {', '.join(chosen)}", "name each once")
    return chosen


def _too_few(chosen: list[str]) -> str:
    have = f"only one score set to look at ({chosen[0]})" if chosen else "no score set to look at"
    return (
        f"There is {have}, and drift compares two or more of the same rollouts: score them with "
        "another checkpoint, thr-probe score RUN --model CHECKPOINT."
    )


def _set_facts(run: Run, chosen: list[str]) -> dict[str, object]:
    infos = [run.score_info(score_id) for score_id in chosen]
    differing = [name for name in _OPTIONS if len({repr(info.get(name)) for info in infos}) > 1]
    return {
        "score_ids": chosen,
        "reference": chosen[0],
        "models": [info.get("model") for info in infos],
        "options_that_differ": differing,
    }


def beside(left: Iterable[Batch], right: Iterable[Batch]) -> Iterator[tuple[Batch, Batch]]:
    """Two streams of the same completions, cut at the same places; ends with the shorter one."""
    sources = iter(left), iter(right)
    held: list[Batch | None] = [None, None]
    while True:
        held = [
            next(source, None) if batch is None else batch
            for batch, source in zip(held, sources, strict=True)
        ]
        first, second = held
        if first is None or second is None:
            return
        number = min(len(first.lengths), len(second.lengths))
        yield _cut(first, 0, number), _cut(second, 0, number)
        held = [
            _cut(batch, number, len(batch.lengths)) if len(batch.lengths) > number else None
            for batch in (first, second)
        ]


def _cut(batch: Batch, start: int, stop: int) -> Batch:
    """Some of a batch's completions."""
    if start == 0 and stop == len(batch.lengths):
        return batch
    token = slice(batch.offsets[start], batch.offsets[stop])
    return Batch(
        group_R=batch.group_R[start:stop],
        stratum_R=batch.stratum_R[start:stop],
        tau_R=batch.tau_R[start:stop],
        offsets=batch.offsets[start : stop + 1] - batch.offsets[start],
        tokens={name: value[token] for name, value in batch.tokens.items()},
        completions={name: value[start:stop] for name, value in batch.completions.items()},
    )


def _collect(
    stream: CompletionStream, other: CompletionStream
) -> dict[str, Float[np.ndarray, " S"]]:
    """The sums of each stratum of the reference."""
    parts: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
    for before, after in beside(stream, other):
        strata, local_R = np.unique(before.stratum_R, return_inverse=True)
        found = {
            name: np.bincount(local_R, value_R, minlength=len(strata))
            for name, value_R in _numbers(before, after).items()
        }
        parts.append((strata, found))
    column_S: dict[str, np.ndarray] = {}
    for strata, found in parts:
        for name, value in found.items():
            total_S = column_S.setdefault(name, np.zeros(len(stream.strata.question_S)))
            np.add.at(total_S, strata, value)
    return column_S


def _numbers(before: Batch, after: Batch) -> dict[str, Shaped[np.ndarray, " R"]]:
    """What is added up of each completion."""
    old_N, new_N = (batch.tokens["thr"].astype(np.float64) for batch in (before, after))
    dominant_N, still_N = dominant_tokens(before), dominant_tokens(after)
    signed_N = (old_N != 0) & (new_N != 0)
    rank_R = completion_correlations(before, [old_N, new_N])[0, 1]
    mass_R, new_mass_R = before.sum(np.abs(old_N)), before.sum(np.abs(new_N))
    massive_R = (mass_R > 0) & (new_mass_R > 0)
    shift_N = np.abs(_share(before, old_N, mass_R) - _share(before, new_N, new_mass_R))
    return {
        "tokens": before.lengths,
        "rank": np.nan_to_num(rank_R),
        "ranked": ~np.isnan(rank_R),
        "same_sign": before.count(signed_N & ((old_N > 0) == (new_N > 0))),
        "signed": before.count(signed_N),
        "both": before.count(dominant_N & still_N),
        "either": before.count(dominant_N | still_N),
        "dominant": before.count(dominant_N),
        "moved": np.where(massive_R, before.sum(shift_N) / 2, 0),
        "massive": massive_R,
        "thr": before.sum(old_N),
        "mass": mass_R,
        "new_thr": before.sum(new_N),
        "new_mass": new_mass_R,
        **{
            name: before.sum(after.tokens[name].astype(np.float64) - before.tokens[name])
            for name in ("logprob", "entropy")
        },
    }


def _share(
    batch: Batch, thr_N: Float[np.ndarray, " N"], mass_R: Float[np.ndarray, " R"]
) -> Float[np.ndarray, " N"]:
    share_N: np.ndarray = np.abs(thr_N) / batch.per_token(np.where(mass_R > 0, mass_R, 1))
    return share_N


def _rows(
    score_id: str,
    stream: CompletionStream,
    column_S: dict[str, Float[np.ndarray, " S"]],
    resampler: Resampler,
) -> Iterator[dict[str, object]]:
    sums = resampler.sums(column_S)
    for split, chosen_S in stream.strata.splits().items():
        if not chosen_S.any():
            continue
        name = f"{score_id}{split.removeprefix('all')}" if split.startswith("all") else ""
        name = name or f"{score_id}, {split}"
        for quantity, (numerator, denominator, unit) in _RATIOS.items():
            some_S = chosen_S & (column_S[denominator] > 0)
            if some_S.any():
                found = sums.ratio(numerator, denominator, chosen_S)
                number = _num_questions(stream, some_S)
                yield summary_row(quantity, name, unit, found, num_questions=number)
        some_S = chosen_S & (column_S["mass"] > 0)
        found = _balance_change(sums, chosen_S)
        if np.isfinite(found.value):
            number = _num_questions(stream, some_S)
            yield summary_row("balance_change", name, _BALANCE, found, num_questions=number)


def _balance_change(sums: ResampledSums, chosen_S: Bool[np.ndarray, " S"]) -> Interval:
    def change(drawn: Drawn) -> Float[np.ndarray, " C"]:
        before = quotient(drawn["thr"], drawn["mass"])
        change_C: np.ndarray = quotient(drawn["new_thr"], drawn["new_mass"]) - before
        return change_C

    return sums.interval(change, chosen_S, of="mass")


def _num_questions(stream: CompletionStream, some_S: Bool[np.ndarray, " S"]) -> int:
    return len(np.unique(stream.strata.question_S[some_S]))


def _checkpoints(chosen: list[str], summary: pd.DataFrame) -> pd.DataFrame:
    reference = {"quantity": list(AT_REFERENCE), "value": list(AT_REFERENCE.values())}
    nothing = [np.nan] * len(AT_REFERENCE)
    tables = [pd.DataFrame({"score_id": chosen[0], **reference, "low": nothing, "high": nothing})]
    columns = ["split", "quantity", "value", "low", "high"]
    for score_id in chosen[1:]:
        part = summary.loc[summary["split"] == score_id, columns]
        tables.append(part.rename(columns={"split": "score_id"}))
    return pd.concat(tables, ignore_index=True)


def _caption(analysis: Analysis) -> str:
    chosen = [str(name) for name in np.atleast_1d(np.asarray(analysis.facts["score_ids"]))]
    last = chosen[-1]
    known = set(analysis.summary.loc[analysis.summary["split"] == last, "quantity"])

    def told(quantity: str, digits: int = 2) -> str:
        if quantity not in known:
            return "undefined"
        found = analysis.value(quantity, last)
        bounds = f" [{found.low:.{digits}f}, {found.high:.{digits}f}]"
        text = f"{found.value:.{digits}f}" + (bounds if np.isfinite(found.low) else "")
        return text.replace("-", "$-$")

    sentences = [
        f"The same rollouts scored by {counted(len(chosen), 'policy', 'policies')}, each against "
        f"the first, {latex_escape(chosen[0])}: {counts_phrase(analysis)}",
        f"For {latex_escape(last)}, Spearman's correlation of THR within completions is "
        f"{told('rank_correlation')}; the sign agrees for a share of {told('sign_agreement')} of "
        f"the tokens; the dominant tokens overlap by {told('dominant_jaccard')} (Jaccard); a share "
        rf"of {told('mass_moved')} of a completion's $|\mathrm{{THR}}|$ lies on other tokens",
        f"Its log-probability of the tokens changes by {told('logprob_change', 3)} nats, its "
        f"entropy by {told('entropy_change', 3)} nats, and the balance "
        rf"$\sum\mathrm{{THR}}/\sum|\mathrm{{THR}}|$ by {told('balance_change', 3)}",
    ]
    sentences += _nonpositive_told(analysis, chosen[0], last)
    differing = analysis.facts["options_that_differ"]
    if isinstance(differing, list) and differing:
        listed = latex_escape(", ".join(str(name) for name in differing))
        sentences.append(f"The score sets differ in options too: {listed}")
    return caption_of(analysis, "Brackets and bars", *sentences, *left_out_sentences(analysis))


def _nonpositive_told(analysis: Analysis, first: str, last: str) -> list[str]:
    """In how many groups a threshold that is not positive makes every token dominant."""
    found = analysis.facts["groups_tau_nonpositive_by_set"]
    number = found if isinstance(found, dict) else {}
    if not number.get(first) and not number.get(last):
        return []
    told = (
        rf"$\tau \le 0$ makes every token dominant in {counted(number[first], 'group')} of "
        f"{latex_escape(first)} and {number[last]:,} of {latex_escape(last)}"
    )
    split = f"{last}, tau > 0"
    rows = analysis.summary[analysis.summary["split"] == split]
    if "dominant_jaccard" in set(rows["quantity"]):
        without = analysis.value("dominant_jaccard", split)
        told += (
            f"; without the groups of {latex_escape(first)} the overlap is {without.value:.2f}"
            + (f" [{without.low:.2f}, {without.high:.2f}]" if np.isfinite(without.low) else "")
        )
    return [told]
