"""Which classes of tokens carry THR: share of the tokens against share of the |THR| mass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from thr_probe.analysis.captions import caption_of, counts_phrase, left_out_sentences
from thr_probe.analysis.histograms import dominant_tokens
from thr_probe.analysis.intervals import interval_facts
from thr_probe.analysis.result import (
    Analysis,
    empty_analysis,
    latex_escape,
    latex_percent,
    summary_row,
    summary_table,
)
from thr_probe.analysis.stream import Batch, CompletionStream
from thr_probe.analysis.token_classes import Scheme, read_scheme, token_classes
from thr_probe.analysis.token_types import TOKENS_FILE, TokenTypes, has_token_ids
from thr_probe.core.stats import (
    Interval,
    bootstrap_ratios,
    percentile_interval,
    question_weights,
    quotient,
    resampled_sums,
)
from thr_probe.errors import DataError
from thr_probe.traces.reader import Run

QUANTITIES = {
    "token_share": "share of tokens",
    "mass_share": "share of |THR|",
    "mass_ratio": "mean |THR| of the class over that of all tokens",
    "mean_thr": "THR",
    "dominant_share": "share of the class's tokens",
    "signed_share": "sum of THR over sum of |THR|",
}
"""What is told of each class, and its unit."""
SPLITS = ("all", "correct", "incorrect")
_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums over the tokens of each question and class, incorrect and correct completions apart."""

    tokens_P2C: Float[np.ndarray, "P 2 C"]
    thr_P2C: Float[np.ndarray, "P 2 C"]
    mass_P2C: Float[np.ndarray, "P 2 C"]
    dominant_P2C: Float[np.ndarray, "P 2 C"]
    count_V: Int[np.ndarray, " V"]


def thr_by_class(
    run: Run,
    *,
    scheme: str | Path = "lexical",
    groups: str = "mixed",
    seed: int = 0,
    score_id: str | None = None,
) -> Analysis:
    """Share of the tokens and of the |THR| mass that each class of tokens has.

    Args:
        run: the trace; token ids and THR of its completions are read.
        scheme: `lexical`, `paper` (the categories of Appendix C.4), or a TOML file of classes.
        groups: `mixed` (groups with correct and incorrect completions) or `has-correct`.
        seed: of the bootstrap over questions.
        score_id: which scores; the only ones by default.

    Returns:
        summary: the `QUANTITIES` with the class as split, and "CLASS, correct",
        "CLASS, incorrect", whose shares are of these completions' tokens. A class met in one
        question has no interval. curves: `classes`, a row for each class that occurs, by falling
        share of the mass, with its tokens and most frequent texts.
    """
    rules = read_scheme(scheme)
    stream = CompletionStream(run, ["token_ids", "thr"], groups=groups, score_id=score_id)
    tokens = run.tokens()
    facts: dict[str, object] = {"scheme": rules.name, "groups": groups, "seed": seed}
    if tokens is None:
        nothing = (
            f"{TOKENS_FILE} is missing from this run, although its completions have token ids: "
            "without the texts of the tokens there are no classes of tokens."
            if has_token_ids(run)
            else "This run has no token ids: there are no tokens to put into classes."
        )
        return empty_analysis("classes", nothing, facts)
    classes = token_classes(tokens, rules)
    sums = _collect(stream, classes)
    reason = stream.empty_reason()
    if reason is None and not stream.num_tokens:
        reason = "The completions that were kept have no tokens."
    if reason is None and not sums.mass_P2C.any():
        reason = "Every THR of this run is 0: no class has a share of it."
    if reason is not None:
        return empty_analysis("classes", reason, facts | stream.facts())
    weights_BP = question_weights(stream.num_questions, seed=seed, dtype=np.int16)
    summary = summary_table(
        row for split in SPLITS for row in _rows(split, rules, sums, weights_BP)
    )
    total_C = sums.tokens_P2C.sum(axis=(0, 1))
    analysis = Analysis(
        name="classes",
        summary=summary,
        curves={"classes": _table(summary, rules, total_C, _examples(tokens, classes, sums))},
        facts=facts
        | stream.facts()
        | {
            "rest": rules.rest,
            "classes_absent": [
                name for name, total in zip(rules.names, total_C, strict=True) if not total
            ],
            "exclusions": stream.exclusion_sentence(),
        }
        | interval_facts(weights_BP, seed),
        caption="",
    )
    return replace(analysis, caption=_caption(analysis))


def _collect(stream: CompletionStream, classes: TokenTypes) -> _Sums:
    num_classes = len(classes.words_T)
    count_V = np.zeros(classes.num_ids, dtype=np.int64)
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for batch in stream:
        if len(batch.tokens["token_ids"]) != len(batch.tokens["thr"]):
            raise DataError(
                f"{stream.run.path}: column token_ids is null for a completion that has THR",
                "restore the rollouts from a copy of the run",
            )
        id_N = batch.tokens["token_ids"].astype(np.int64)
        count_V += classes.counted(id_N)
        parts.append(_batch_sums(batch, classes.of_id_V.take(id_N), num_classes))
    strata = stream.strata
    row_S = strata.question_S * 2 + strata.correct_S
    total = np.zeros((stream.num_questions * 2, 4, num_classes))
    for stratum, value in parts:
        np.add.at(total, row_S[stratum], value)
    tokens, thr, mass, dominant = (
        total[:, place].reshape(stream.num_questions, 2, num_classes) for place in range(4)
    )
    return _Sums(tokens, thr, mass, dominant, count_V)


def _batch_sums(
    batch: Batch, class_N: Int[np.ndarray, " N"], num_classes: int
) -> tuple[Int[np.ndarray, " s"], Float[np.ndarray, "s 4 C"]]:
    """The strata of a batch, and of each the tokens, THR, |THR| and dominant tokens by class."""
    strata, local_R = np.unique(batch.stratum_R, return_inverse=True)
    cell_N = batch.per_token(local_R * num_classes) + class_N
    thr_N, size = batch.tokens["thr"], len(strata) * num_classes
    found = [
        np.bincount(cell_N, weight_N, minlength=size)
        for weight_N in (None, thr_N, np.abs(thr_N), dominant_tokens(batch))
    ]
    tables = [one.astype(np.float64).reshape(len(strata), num_classes) for one in found]
    return strata, np.stack(tables, axis=1)


def _rows(
    split: str, scheme: Scheme, sums: _Sums, weights_BP: Int[np.ndarray, "B P"]
) -> Iterator[dict[str, object]]:
    side = {"all": slice(None), "incorrect": slice(0, 1), "correct": slice(1, 2)}[split]
    tokens, thr, mass, dominant = (
        table[:, side].sum(axis=1)
        for table in (sums.tokens_P2C, sums.thr_P2C, sums.mass_P2C, sums.dominant_P2C)
    )
    if not tokens.any():
        return
    ratios = (
        (tokens, tokens.sum(axis=1, keepdims=True)),
        (mass, mass.sum(axis=1, keepdims=True)),
        None,
        (thr, tokens),
        (dominant, tokens),
        (thr, mass),
    )
    found = [
        _mass_ratios(mass, tokens, weights_BP)
        if pair is None
        else bootstrap_ratios(*pair, weights_BP)
        for pair in ratios
    ]
    number_C = np.count_nonzero(tokens, axis=0)
    suffix = "" if split == "all" else f", {split}"
    for place, name in enumerate(scheme.names):
        if not number_C[place]:
            continue
        for (quantity, unit), intervals in zip(QUANTITIES.items(), found, strict=True):
            number = int(number_C[place])
            interval = intervals[place]
            if number < 2:
                interval = Interval(value=interval.value, low=np.nan, high=np.nan)
            yield summary_row(quantity, name + suffix, unit, interval, num_questions=number)


def _mass_ratios(
    mass_PC: Float[np.ndarray, "P C"],
    tokens_PC: Float[np.ndarray, "P C"],
    weights_BP: Int[np.ndarray, "B P"],
) -> list[Interval]:
    """Share of the mass over share of the tokens, of each class."""

    def ratio(mass_RC: np.ndarray, tokens_RC: np.ndarray) -> np.ndarray:
        overall = quotient(mass_RC.sum(axis=1), tokens_RC.sum(axis=1))
        return quotient(quotient(mass_RC, tokens_RC), overall[:, None])

    value_C = ratio(mass_PC.sum(axis=0)[None], tokens_PC.sum(axis=0)[None])[0]
    drawn = np.split(resampled_sums(weights_BP, np.hstack([mass_PC, tokens_PC])), 2, axis=1)
    bounds = [percentile_interval(draws_B) for draws_B in ratio(*drawn).T]
    return [
        Interval(value=float(value), low=low, high=high)
        for value, (low, high) in zip(value_C, bounds, strict=True)
    ]


def _examples(tokens: pd.DataFrame, classes: TokenTypes, sums: _Sums) -> list[str]:
    """The most frequent texts of each class, as Python writes them, joined by spaces."""
    text_of = dict(zip(tokens["token_id"].tolist(), tokens["text"], strict=True))
    lines = []
    for place in range(len(classes.words_T)):
        ids = np.flatnonzero((classes.of_id_V == place) & (sums.count_V > 0))
        ids = ids[np.argsort(-sums.count_V[ids], kind="stable")][:_EXAMPLES]
        lines.append(" ".join(repr(text_of[index]) for index in ids.tolist()))
    return lines


def _table(
    summary: pd.DataFrame, scheme: Scheme, total_C: Float[np.ndarray, " C"], examples: list[str]
) -> pd.DataFrame:
    rows = []
    for place, name in enumerate(scheme.names):
        part = summary[summary["split"] == name].set_index("quantity")
        if part.empty:
            continue
        row: dict[str, object] = {"class": name, "tokens": int(total_C[place])}
        for quantity in QUANTITIES:
            row[quantity] = part.loc[quantity, "value"]
            row |= {f"{quantity}_{end}": part.loc[quantity, end] for end in ("low", "high")}
        rows.append(
            row | {"num_questions": part["num_questions"].iloc[0], "examples": examples[place]}
        )
    table = pd.DataFrame(rows).sort_values("mass_share", ascending=False, kind="stable")
    return table.reset_index(drop=True)


def _caption(analysis: Analysis) -> str:
    table = analysis.curves["classes"]
    named = table[table["class"] != analysis.facts["rest"]]
    first = (named if len(named) else table).iloc[0]
    name = str(first["class"])
    tokens, mass = (
        latex_percent(analysis.value(quantity, name)) for quantity in ("token_share", "mass_share")
    )
    above = table.sort_values("mass_ratio", ascending=False, kind="stable").iloc[0]
    sentences = [
        "Share of the tokens and share of the summed $|\\mathrm{THR}|$ by class of token "
        f"({latex_escape(str(analysis.facts['scheme']))} scheme): {counts_phrase(analysis)}",
        f"(a) The class {latex_escape(name)} has {tokens} of the tokens and {mass} of the mass; "
        "numbers give the second share over the first, which is largest, "
        f"{above['mass_ratio']:.2f}, for {latex_escape(str(above['class']))}",
        "(b) The sum of THR over the sum of $|\\mathrm{THR}|$ of each class: 1 where all its "
        "influence is exploitation, $-1$ where all is exploration",
    ]
    rest = str(analysis.facts["rest"])
    if analysis.facts["scheme"] == "paper" and (table["class"] == rest).any():
        share = latex_percent(analysis.value("token_share", rest))
        sentences.append(f"No category of Appendix C.4 lists {share} of the tokens")
    return caption_of(analysis, "Brackets and bars", *sentences, *left_out_sentences(analysis))
