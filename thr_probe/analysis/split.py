"""Where THR comes from: the token itself, its own completion, other completions (section 6.3).

Letters of shapes: R completions, N tokens, S strata.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from thr_probe.analysis.binned import (
    BinnedSums,
    completion_table,
    interval_columns,
    stratum_totals,
)
from thr_probe.analysis.captions import caption_of, counts_phrase, left_out_sentences
from thr_probe.analysis.histograms import dominant_tokens
from thr_probe.analysis.resampling import Drawn, ResampledSums, Resampler
from thr_probe.analysis.result import (
    Analysis,
    empty_analysis,
    latex_percent,
    summary_row,
    summary_table,
)
from thr_probe.analysis.stream import Batch, CompletionStream
from thr_probe.core.stats import Interval
from thr_probe.traces.reader import Run

PARTS = ("self", "own", "other_correct", "incorrect")
"""The parts of THR, in the order of the sum."""
_CROSS = {"cross_token": PARTS[1:], "cross_completion": PARTS[2:]}
_ABSOLUTE = "share of the summed absolute parts"
_ALIGNED = "share of summed |THR|, parts against its sign negative"
_NET = "share of summed THR"
_OPPOSED = "share of summed |THR| on tokens of THR < 0, whose self part is not"
_TOKENS = {"": "every", ", dominant": "dominant", ", not dominant": "rest"}
_DECILES = 10
_Row = dict[str, object]


def influence_shares(
    run: Run, *, groups: str = "mixed", seed: int = 0, score_id: str | None = None
) -> Analysis:
    """Which part of THR comes from the token itself, its completion, and other completions.

    THR sums influence over the correct completions of the group. A token of a correct one has
    three parts: `self` (column thr_self), `own` (the other tokens of its completion,
    thr_within - thr_self), `other_correct` (the other correct completions, thr - thr_within). A
    token of an incorrect completion is in none of the completions summed over: thr_self and
    thr_within are 0 by definition, all of its THR comes from correct completions across the group
    and is the part `incorrect` (what incorrect completions receive).

    Parts have signs and cancel, so there are two decompositions. `..._share` is
    sum |part| / sum of all parts' sum |part|: how large the parts are. `..._aligned` is
    sum sign(THR) part / sum |THR|: the parts that |THR| = sign(THR) (self + own + other) is made
    of, negative where a part works against the sum. Each adds up to 1 over the four parts.

    Args:
        run: the trace, scored with --split.
        groups: `mixed` (groups with correct and incorrect completions) or `has-correct`.
        seed: of the bootstrap over questions.
        score_id: which scores; the only ones by default.

    Returns:
        summary, by split: for each of `PARTS` `<part>_share` and `<part>_aligned`;
        `cross_token_share` (all but self) and `cross_completion_share` (all but self and own), and
        both as `..._aligned`; of correct completions also `<part>_net` (sum part / sum THR, where
        that sum is above 0) and `opposed_mass`, the share of |THR| on tokens of THR < 0: self is
        never negative, so that these owe their sign to other tokens. Splits are those by
        correctness, each again with ", dominant" and ", not dominant"; those named "..., tau > 0"
        leave out groups of tau <= 0.
        curves: `shares` (split, part, share with bounds, and the running sum over parts with
        bounds), `deciles` (of correct completions by decile of |THR| among the tokens of the
        group's correct completions, 1 = smallest: part, share and running sum, with bounds, and
        `mass`, the share of their |THR| in the decile).

    Raises:
        DataError: a run scored without --split.
    """
    columns = ["thr_self", "thr_within", "thr"]
    stream = CompletionStream(
        run, columns, completion_columns=["correct"], groups=groups, score_id=score_id
    )
    deciles = BinnedSums("decile", _DECILES)
    table = completion_table(stream, lambda batch: _columns(batch, deciles))
    reason = stream.empty_reason()
    if reason is None and not table["every.mass"].any():
        reason = "Every THR of this run is 0: it has no parts."
    if reason is not None:
        return empty_analysis("split", reason, stream.facts())
    num_strata = len(stream.strata.question_S)
    resampler = Resampler(stream.strata, stream.num_questions, seed=seed)
    sums = resampler.sums(stratum_totals(table, num_strata) | deciles.columns(num_strata))
    rows, shares = [], []
    for name, some_S in stream.strata.splits().items():
        for suffix, tokens in _TOKENS.items():
            question_S = stream.strata.question_S[some_S]
            mass_S = stratum_totals(table, num_strata)[f"{tokens}.mass"][some_S]
            if mass_S.any():
                number = len(np.unique(question_S[mass_S > 0]))
                rows += list(_rows(name + suffix, tokens, some_S, sums, number))
                shares.append(_shares(name + suffix, tokens, some_S, sums))
    curves = {
        "shares": pd.concat(shares, ignore_index=True),
        "deciles": _deciles(deciles, sums, stream.strata.correct_S),
    }
    facts = stream.facts() | {
        "decomposition": "sum of |part| over the sum of all parts' sums of |part|",
        "exclusions": stream.exclusion_sentence(),
        **resampler.facts,
    }
    analysis = Analysis(
        name="split", summary=summary_table(rows), curves=curves, facts=facts, caption=""
    )
    return replace(analysis, caption=_caption(analysis))


def _columns(batch: Batch, deciles: BinnedSums) -> dict[str, Float[np.ndarray, " R"]]:
    """Sums of each completion over every token, the dominant ones and the rest."""
    thr_N, self_N, within_N = (
        batch.tokens[name].astype(np.float64) for name in ("thr", "thr_self", "thr_within")
    )
    correct_R = batch.completions["correct"].astype(bool)
    correct_N, dominant_N = batch.per_token(correct_R), dominant_tokens(batch)
    part_N = {
        "self": self_N * correct_N,
        "own": (within_N - self_N) * correct_N,
        "other_correct": (thr_N - within_N) * correct_N,
        "incorrect": thr_N * ~correct_N,
    }
    found = {}
    for tokens, chosen_N in (("every", 1.0), ("dominant", dominant_N), ("rest", ~dominant_N)):
        for part, value_N in part_N.items():
            chosen_value_N = value_N * chosen_N
            found[f"{tokens}.{part}"] = batch.sum(np.abs(chosen_value_N))
            found[f"{tokens}.{part}_aligned"] = batch.sum(np.sign(thr_N) * chosen_value_N)
            found[f"{tokens}.{part}_net"] = batch.sum(chosen_value_N)
        found[f"{tokens}.mass"] = batch.sum(np.abs(thr_N) * chosen_N)
        found[f"{tokens}.net"] = batch.sum(thr_N * chosen_N)
        found[f"{tokens}.opposed"] = batch.sum(np.abs(thr_N) * chosen_N * (thr_N < 0))
    # a stream's table never cuts a group, so that ranks within the batch are those of the group
    magnitude_I = np.abs(thr_N[correct_N])
    part_I = {part: np.abs(part_N[part][correct_N]) for part in PARTS[:3]}
    deciles.add(
        batch.per_token(batch.stratum_R)[correct_N],
        _decile(magnitude_I, batch.per_token(batch.group_R)[correct_N]),
        {**part_I, "parts": sum(part_I.values()), "mass": magnitude_I},
    )
    return found


def _decile(
    value_N: Float[np.ndarray, " N"], group_N: Int[np.ndarray, " N"]
) -> Int[np.ndarray, " N"]:
    """The decile of each value within its group, 0 the smallest; ties by position."""
    order = np.lexsort((value_N, group_N))
    _, start, size = np.unique(group_N[order], return_index=True, return_counts=True)
    rank_N = np.arange(len(order)) - np.repeat(start, size)
    decile_N = np.empty(len(order), dtype=np.int64)
    decile_N[order] = rank_N * _DECILES // np.repeat(size, size)
    return decile_N


def _rows(
    split: str, tokens: str, some_S: Bool[np.ndarray, " S"], sums: ResampledSums, number: int
) -> Iterator[_Row]:
    """The rows of a split; `tokens` names the columns."""

    def row(quantity: str, unit: str, names: tuple[str, ...], of: tuple[str, ...]) -> _Row:
        interval = _ratio(sums, tokens, names, of, some_S)
        return summary_row(quantity, split, unit, interval, num_questions=number)

    combined = {part: (part,) for part in PARTS} | _CROSS
    for quantity, names in combined.items():
        yield row(f"{quantity}_share", _ABSOLUTE, names, PARTS)
    for quantity, names in combined.items():
        aligned = tuple(f"{name}_aligned" for name in names)
        yield row(f"{quantity}_aligned", _ALIGNED, aligned, ("mass",))
    if split.startswith("correct"):
        yield row("opposed_mass", _OPPOSED, ("opposed",), ("mass",))
        nets = [row(f"{part}_net", _NET, (f"{part}_net",), ("net",)) for part in PARTS[:3]]
        if _ratio(sums, tokens, ("net",), ("mass",), some_S).value > 0:
            yield from nets


def _ratio(
    sums: ResampledSums,
    tokens: str,
    names: tuple[str, ...],
    of: tuple[str, ...],
    some_S: Bool[np.ndarray, " S"],
) -> Interval:
    """Some sums together over others together."""

    def ratio(drawn: Drawn) -> Float[np.ndarray, " C"]:
        above, below = (
            np.sum([drawn[f"{tokens}.{name}"] for name in some], axis=0) for some in (names, of)
        )
        quotient: np.ndarray = above / below
        return quotient

    return sums.interval(ratio, some_S, of=f"{tokens}.mass")


def _shares(
    split: str, tokens: str, some_S: Bool[np.ndarray, " S"], sums: ResampledSums
) -> pd.DataFrame:
    """The shares of a split, and their running sums, whose bounds are drawn on stacked bars."""
    own = [_ratio(sums, tokens, (part,), PARTS, some_S) for part in PARTS]
    running = [
        _ratio(sums, tokens, PARTS[: place + 1], PARTS, some_S) for place in range(len(PARTS))
    ]
    return pd.DataFrame(
        {
            "split": split,
            "part": list(PARTS),
            **interval_columns("share", own),
            **interval_columns("running", running),
        }
    )


def _deciles(
    deciles: BinnedSums, sums: ResampledSums, correct_S: Bool[np.ndarray, " S"]
) -> pd.DataFrame:
    parts = PARTS[:3]
    mass = deciles.table("mass", len(correct_S)).sum(axis=0)
    total = [place for place in deciles.bins if mass[place] > 0]
    tables = []
    for index, part in enumerate(parts):
        own = deciles.ratios(sums, part, "parts", correct_S)
        running = deciles.running_ratios(sums, parts[: index + 1], "parts", correct_S)
        table = pd.DataFrame(
            {
                "decile": [place + 1 for place in deciles.bins],
                "part": part,
                **interval_columns("share", own),
                **interval_columns("running", running),
                "mass": mass[deciles.bins] / mass.sum(),
            }
        )
        tables.append(table[np.isin(table["decile"] - 1, total)])
    return pd.concat(tables).sort_values("decile", kind="stable", ignore_index=True)


def _caption(analysis: Analysis) -> str:
    present = set(zip(analysis.summary["quantity"], analysis.summary["split"], strict=True))

    def told(quantity: str, split: str) -> str:
        if (quantity, split) not in present:
            return "undefined"
        return latex_percent(analysis.value(quantity, split))

    every = ", ".join(
        f"{told(f'{part}_share', 'all')} {words}"
        for part, words in zip(
            PARTS,
            (
                "from the token itself",
                "from the other tokens of its completion",
                "from other correct completions",
                "received by incorrect completions, all of it from correct ones",
            ),
            strict=True,
        )
    )
    cross = analysis.value("cross_token_share", "correct")
    sharing = (
        f"In correct completions {latex_percent(cross)} comes from other tokens "
        f"(dominant tokens alone: {told('cross_token_share', 'correct, dominant')})"
    )
    return caption_of(
        analysis,
        "Brackets and whiskers",
        r"Where THR comes from, as shares of the summed absolute parts $\sum |\mathrm{part}|$: "
        f"{counts_phrase(analysis)}",
        f"(a) By correctness and dominance; of all tokens {every}",
        sharing,
        r"As parts of $|\mathrm{THR}|$ with their sign, where what works against it counts "
        f"negative, the token itself gives {told('self_aligned', 'correct')}, its completion "
        f"{told('own_aligned', 'correct')} and other correct completions "
        f"{told('other_correct_aligned', 'correct')} in correct completions; "
        f"{told('opposed_mass', 'correct')} of their summed $|\\mathrm{{THR}}|$ is on tokens of "
        r"THR $< 0$, although the token's own part is never negative"
        + (
            "; the signed sum of their THR, in which the parts from other tokens cancel, is "
            f"{told('self_net', 'correct')} self"
            if ("self_net", "correct") in present
            else ""
        ),
        r"(b) Tokens of correct completions by decile of $|\mathrm{THR}|$ within their group, "
        "10 the largest; whiskers belong to the boundaries of the bars",
        *left_out_sentences(analysis),
    )
