"""THR along a completion: from its start, relative to its length, towards its answer and its end.

Letters of shapes: R completions, N tokens, I some of them, S strata, K bins.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped

from thr_probe.analysis.answer_places import AnswerFinder
from thr_probe.analysis.binned import (
    BinnedSums,
    completion_table,
    interval_columns,
    latex_significant,
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

MEASURES = {"magnitude": "mass", "mean_thr": "signed", "dominant_share": "dominant"}
"""What is drawn of a bin, and the sum that it is made of, over the count of tokens."""
_UNITS = {
    "magnitude": "mean |THR|",
    "mean_thr": "mean THR",
    "dominant_share": "share of tokens with |THR| > tau",
}
_RELATIVE_BINS = 20
_STEPS = np.unique(np.round(2.0 ** (np.arange(4 * 20) / 4)).astype(np.int64))
# edges of whole numbers from 0: each its own bin while small, then about four to a doubling
_EDGES = np.concatenate([[0], _STEPS])
_NEAR = 8  # tokens before the answer, and from its first one on
_REGIONS = ("", "_first_tenth", "_last_tenth", "_before_answer", "_from_answer")


@dataclass(frozen=True, slots=True)
class _Axis:
    """Bins of one way to tell where a token is."""

    sums: BinnedSums
    """What is added up in each bin."""
    left: Shaped[np.ndarray, " K"]
    """Where each bin begins; the first token of it counts."""
    right: Shaped[np.ndarray, " K"]
    """Where it ends, the next one's beginning."""

    def add(
        self,
        batch: Batch,
        place_N: Shaped[np.ndarray, " N"],
        value_N: Mapping[str, Shaped[np.ndarray, " N"]],
        some_N: Bool[np.ndarray, " N"] | None = None,
    ) -> None:
        """Adds tokens by their places, some of the batch's or all."""
        some: Any = slice(None) if some_N is None else some_N
        bin_I = np.searchsorted(self.left, place_N[some], side="right") - 1
        bin_I = np.clip(bin_I, 0, len(self.left) - 1)
        chosen = {name: value[some] for name, value in value_N.items()}
        self.sums.add(batch.per_token(batch.stratum_R)[some], bin_I, chosen)

    def curve(
        self, splits: Mapping[str, Bool[np.ndarray, " S"]], sums: ResampledSums
    ) -> pd.DataFrame:
        """A row per split and bin with tokens."""
        bins, tables = self.sums.bins, list[pd.DataFrame]()
        for split, some_S in splits.items():
            measured = {
                name: self.sums.ratios(sums, column, "count", some_S)
                for name, column in MEASURES.items()
            }
            tokens = self.sums.table("count", len(some_S))[some_S].sum(axis=0)[bins]
            columns: dict[str, object] = {
                "split": split,
                "left": self.left[bins],
                "right": self.right[bins],
                "tokens": tokens.astype(np.int64),
            }
            for name, intervals in measured.items():
                columns |= interval_columns(name, intervals)
            tables.append(pd.DataFrame(columns).loc[tokens > 0])
        return pd.concat(tables, ignore_index=True)


def thr_by_position(
    run: Run, *, groups: str = "mixed", seed: int = 0, score_id: str | None = None
) -> Analysis:
    """Mean |THR|, mean THR and the dominant share of tokens by where they stand.

    Positions are 0-based, k of |y| tokens. Four axes: `start` (k), `relative` ((k + 1/2) / |y|, the
    middle of the token, so that both ends are alike), `end` (|y| - 1 - k, 0 is the last token,
    which is the end-of-sequence token where one was emitted) and `answer` (k minus the first token
    of the last occurrence of the completion's extracted answer: below 0 before it, 0 its first
    token). The answer is looked for in the bytes of the tokens and must not be part of a longer
    word or number; completions without an answer, or in which it is not found, are left out of
    that axis and counted.

    Args:
        run: the trace.
        groups: `mixed` (groups with correct and incorrect completions) or `has-correct`.
        seed: of the bootstrap over questions.
        score_id: which scores; the only ones by default.

    Returns:
        summary, by split and for each of `MEASURES`: the value over all tokens, over the first and
        the last tenth of the completions (`<measure>_first_tenth`, `<measure>_last_tenth`: tokens
        whose middle lies there, none of a completion of up to 5 tokens), and over the tokens up to
        8 before the answer and the 8 from it (`<measure>_before_answer`, `<measure>_from_answer`,
        where answers were found). Splits named "..., tau > 0" leave out groups of tau <= 0.
        curves: one of each axis, `start`, `relative`, `end`, `answer` (the last only where answers
        were found): split, left, right (half-open bins of whole numbers, or of shares), tokens, and
        each measure with its bounds.
    """
    finder, columns = _finder(run)
    stream = CompletionStream(
        run,
        [*columns, "thr"],
        completion_columns=["extracted"],
        groups=groups,
        score_id=score_id,
    )
    axes = _axes()
    table = completion_table(stream, lambda batch: _add(batch, axes, finder))
    reason = stream.empty_reason()
    if reason is not None:
        return empty_analysis("position", reason, stream.facts())
    num_strata = len(stream.strata.question_S)
    resampler = Resampler(stream.strata, stream.num_questions, seed=seed)
    binned = [axis.sums.columns(num_strata) for axis in axes.values()]
    totals = stratum_totals(table, num_strata)
    sums = resampler.sums(dict(collections.ChainMap(totals, *binned)))
    splits = stream.strata.splits().items()
    drawn = {name: some_S for name, some_S in splits if some_S.any()}
    facts = stream.facts() | {
        "num_answers_extracted": int(table["extracted"].sum()),
        "num_answers_located": int(table["located"].sum()),
        "answers_looked_for": finder is not None,
        "exclusions": stream.exclusion_sentence(),
        **resampler.facts,
    }
    analysis = Analysis(
        name="position",
        summary=summary_table(_rows(stream, table, sums)),
        curves={name: axis.curve(drawn, sums) for name, axis in axes.items() if axis.sums.bins},
        facts=facts,
        caption="",
    )
    return replace(analysis, caption=_caption(analysis))


def _finder(run: Run) -> tuple[AnswerFinder | None, list[str]]:
    """What locates answers, and the column that it needs; nothing where the run has no ids."""
    tokens = run.tokens()
    if tokens is None or not any("token_ids" in part.columns for part in run.rollout_parts):
        return None, []
    return AnswerFinder(tokens), ["token_ids"]


def _axes() -> dict[str, _Axis]:
    low, high = _EDGES[:-1], _EDGES[1:]
    share = np.arange(_RELATIVE_BINS + 1) / _RELATIVE_BINS
    # before the answer the same bins mirrored: -1 is the last of them
    left = np.concatenate([1 - high[:0:-1], low])
    right = np.concatenate([1 - low[:0:-1], high])
    return {
        "start": _Axis(BinnedSums("start", len(low)), low, high),
        "relative": _Axis(BinnedSums("relative", _RELATIVE_BINS), share[:-1], share[1:]),
        "end": _Axis(BinnedSums("end", len(low)), low, high),
        "answer": _Axis(BinnedSums("answer", len(left)), left, right),
    }


def _add(
    batch: Batch, axes: Mapping[str, _Axis], finder: AnswerFinder | None
) -> dict[str, Float[np.ndarray, " R"]]:
    """Adds a batch's tokens to the axes; sums of each completion over its regions."""
    thr_N = batch.tokens["thr"].astype(np.float64)
    value_N = {"mass": np.abs(thr_N), "signed": thr_N, "dominant": dominant_tokens(batch)}
    start_N = np.arange(len(thr_N)) - batch.per_token(batch.offsets[:-1])
    length_N = batch.per_token(batch.lengths)
    found_R = np.full(len(batch.lengths), -1) if finder is None else finder.places(batch)
    located_N = batch.per_token(found_R >= 0)
    answer_N = start_N - batch.per_token(found_R)
    axes["start"].add(batch, start_N, value_N)
    axes["relative"].add(batch, (start_N + 0.5) / length_N, value_N)
    axes["end"].add(batch, length_N - 1 - start_N, value_N)
    axes["answer"].add(batch, answer_N, value_N, located_N)
    chosen_N = {
        "": np.ones(len(thr_N), dtype=bool),
        # by the middles of the tokens: as many at either end, of the same completions
        "_first_tenth": 10 * start_N + 5 < length_N,
        "_last_tenth": 10 * start_N + 5 > 9 * length_N,
        "_before_answer": located_N & (answer_N < 0) & (answer_N >= -_NEAR),
        "_from_answer": located_N & (answer_N >= 0) & (answer_N < _NEAR),
    }
    found = {"located": (found_R >= 0).astype(np.float64)}
    answers = batch.completions["extracted"]
    found["extracted"] = np.array([bool((answer or "").strip()) for answer in answers], float)
    for region, some_N in chosen_N.items():
        found[f"count{region}"] = batch.count(some_N).astype(np.float64)
        for name, value in value_N.items():
            found[f"{name}{region}"] = batch.sum(value * some_N)
    return found


def _rows(
    stream: CompletionStream, table: Mapping[str, np.ndarray], sums: ResampledSums
) -> Iterator[dict[str, object]]:
    strata = stream.strata
    number_S = stratum_totals(table, len(strata.question_S))
    for split, some_S in strata.splits().items():
        for region in _REGIONS:
            counted_S = some_S & (number_S[f"count{region}"] > 0)
            number = len(np.unique(strata.question_S[counted_S]))
            for measure, column in MEASURES.items() if number else ():
                interval = sums.ratio(f"{column}{region}", f"count{region}", some_S)
                unit = _UNITS[measure]
                yield summary_row(f"{measure}{region}", split, unit, interval, num_questions=number)


def shares_suffix(analysis: Analysis) -> str:
    """Which splits the shares of dominant tokens are told of: without tau <= 0, where some are."""
    return ", tau > 0" if "all, tau > 0" in set(analysis.summary["split"]) else ""


def _caption(analysis: Analysis) -> str:
    located, suffix = analysis.count("num_answers_located"), shares_suffix(analysis)
    where = "no answer being located, (c) by tokens to the end of the completion (0 is the last)"
    if located:
        having = counted(analysis.count("num_answers_extracted"), "completion")
        where = (
            "(c) by tokens from the first one of the last occurrence of the extracted answer, "
            f"located in {located:,} of the {having} that have one"
        )
    return caption_of(
        analysis,
        "Brackets and bands",
        f"THR along the completions: {counts_phrase(analysis)}",
        "(a) By tokens from the start (0 is the first); (b) by position relative to the length; "
        rf"{where}. Above (left), mean $|\mathrm{{THR}}|$ and "
        "mean THR over all tokens; below (right), the dominant share by correctness"
        + (
            ", without the "
            f"{counted(analysis.count('num_groups_tau_nonpositive'), 'group')} of $\\tau \\le 0$, "
            "where every token is dominant"
            if suffix
            else ""
        ),
        _regions_told(analysis, suffix),
        *left_out_sentences(analysis),
    )


def _regions_told(analysis: Analysis, suffix: str) -> str:
    """The mean |THR| and the dominant share of each region, in one sentence."""
    words = {
        "": "Of all tokens",
        "_first_tenth": "of the first tenth of the completions",
        "_last_tenth": "of their last tenth",
        "_before_answer": f"of the {_NEAR} tokens before the answer",
        "_from_answer": f"of the {_NEAR} from it",
    }
    rows = analysis.summary[["quantity", "split"]].itertuples(index=False)
    present = {(row.quantity, row.split) for row in rows}
    told = []
    for region, phrase in words.items():
        if (f"dominant_share{region}", f"all{suffix}") in present:
            share = latex_percent(analysis.value(f"dominant_share{region}", f"all{suffix}"))
            magnitude = latex_significant(analysis.value(f"magnitude{region}"))
            told.append(
                rf"{phrase} the mean $|\mathrm{{THR}}|$ is {magnitude} and {share} are dominant"
            )
    return "; ".join(told)
