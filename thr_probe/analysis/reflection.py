"""How often completions reflect: reflection words per generated token (Tables 14, 15)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Int

from thr_probe.analysis.intervals import interval_facts, interval_sentence
from thr_probe.analysis.result import (
    Analysis,
    counted,
    empty_analysis,
    latex_escape,
    latex_percent,
    summary_row,
    summary_table,
)
from thr_probe.analysis.word_counts import MATCHING, count_words, unique_words
from thr_probe.core.stats import Interval, bootstrap_ratios, question_weights
from thr_probe.errors import UsageError
from thr_probe.traces.reader import Run

# fmt: off
REFLECTION_WORDS = (
    "actually", "although", "alternating", "but", "correct", "despite", "error", "fix", "however",
    "incorrect", "instead", "mistake", "nevertheless", "nonetheless", "note", "realize",
    "realized", "rethink", "reconsider", "still", "thinking", "think", "though", "wait",
    "whereas", "otherwise", "wrong", "yet", "unless",
)
# fmt: on
"""Table 14 as printed, 29 words ("alternating" is probably meant to be "alternatively")."""

SPLITS = ("all", "correct", "incorrect")


@dataclass(frozen=True, slots=True)
class _Rates:
    """Sums per question (rows, the same questions in every split), and how to divide them."""

    by_split: dict[str, pd.DataFrame]
    weights_BP: Int[np.ndarray, "B P"]
    length: str
    scale: float
    unit: str

    def of(self, numerators: Sequence[str | int], denominator: str, split: str) -> list[Interval]:
        """Ratios of sums over questions, each with its interval."""
        part = self.by_split[split]
        scale = self.scale if denominator == self.length else 1.0
        return bootstrap_ratios(
            part[list(numerators)].to_numpy(dtype=np.float64) * scale,
            part[[denominator]].to_numpy(dtype=np.float64),
            self.weights_BP,
        )

    def num_questions(self, split: str) -> int:
        """Questions with a completion in the split."""
        return int((self.by_split[split]["completions"] > 0).sum())


def reflection_ratio(
    run: Run, *, words: Sequence[str] | None = None, unit: str = "match", seed: int = 0
) -> Analysis:
    """Reflection words per generated token, by split and by word (Tables 14, 15).

    All completions count, whatever their group. A run that lacks token ids is counted per 1,000
    words (pieces of text between white space) instead, and says so.

    Args:
        run: the trace; no scores are read.
        words: the list; the paper's 29 words by default.
        unit: `match`: whole words in the decoded text, in any case, each match counted once;
            `token`: tokens that are, stripped and in lower case, a word of the list.
        seed: of the bootstrap over questions.

    Returns:
        curves `splits` and `words`, both in the unit of the summary's `reflection_ratio`.

    Raises:
        UsageError: an unknown unit, or an empty list.
        DataError: unit `token` for a run without token ids.
    """
    if unit not in MATCHING:
        raise UsageError(f"unknown unit {unit!r}", f"choose {' or '.join(MATCHING)}")
    listed = unique_words(REFLECTION_WORDS if words is None else words)
    facts: dict[str, object] = {
        "matching": MATCHING[unit],
        "words": list(listed),
    }
    counts = count_words(run, listed, unit=unit)
    if counts.empty:
        return empty_analysis("reflection", "The run has no completions yet.", facts)
    rates = _rates(counts, seed)
    facts |= _facts(counts, listed) | interval_facts(rates.weights_BP, seed)
    if rates.length == "text_words":
        facts["num_text_words"] = int(counts["text_words"].sum())
    summary = summary_table(
        summary_row(
            quantity,
            split,
            unit_name,
            rates.of([numerator], denominator, split)[0],
            num_questions=rates.num_questions(split),
        )
        for quantity, numerator, denominator, unit_name in (
            ("reflection_ratio", "matches", rates.length, rates.unit),
            ("reflecting_completions", "reflecting", "completions", "share of completions"),
            ("matches_per_completion", "matches", "completions", "matches per completion"),
        )
        for split in SPLITS
    )
    analysis = Analysis(
        name="reflection",
        summary=summary,
        curves={"splits": _split_curve(summary), "words": _word_curve(rates, listed)},
        facts=facts,
        caption="",
    )
    return replace(analysis, caption=_caption(analysis, rates, listed))


def _rates(counts: pd.DataFrame, seed: int) -> _Rates:
    questions = counts.index.get_level_values("prompt_id").unique()
    is_correct = counts.index.get_level_values("correct").to_numpy(dtype=bool)
    correct, incorrect = (
        counts[chosen].droplevel("correct").reindex(questions, fill_value=0)
        for chosen in (is_correct, ~is_correct)
    )
    by_split = {"all": correct + incorrect, "correct": correct, "incorrect": incorrect}
    weights_BP = question_weights(len(questions), seed=seed, dtype=np.int16)
    if counts["without_ids"].sum():
        return _Rates(by_split, weights_BP, "text_words", 1000.0, "matches per 1,000 words")
    return _Rates(by_split, weights_BP, "tokens", 1.0, "matches per token")


def _split_curve(summary: pd.DataFrame) -> pd.DataFrame:
    ratios = summary[summary["quantity"] == "reflection_ratio"]
    columns = ["split", "unit", "value", "low", "high", "num_questions"]
    return ratios[columns].reset_index(drop=True)


def _word_curve(rates: _Rates, words: Sequence[str]) -> pd.DataFrame:
    """Every word's rate in every split; the most frequent word first, ties in the list's order."""
    total = {place: int(rates.by_split["all"][place].sum()) for place in range(len(words))}
    rows = []
    of_split = {split: rates.of(list(total), rates.length, split) for split in SPLITS}
    for place in sorted(total, key=lambda place: -total[place]):
        for split in SPLITS:
            rate = of_split[split][place]
            count = int(rates.by_split[split][place].sum())
            rows.append((words[place], split, count, rate.value, rate.low, rate.high))
    return pd.DataFrame(rows, columns=["word", "split", "count", "value", "low", "high"])


def _facts(counts: pd.DataFrame, words: Sequence[str]) -> dict[str, object]:
    never = [word for place, word in enumerate(words) if counts[place].sum() == 0]
    return {
        "estimator": "ratio of sums over all completions",
        "num_questions": int(counts.index.get_level_values("prompt_id").nunique()),
        "num_completions": int(counts["completions"].sum()),
        "num_completions_without_ids": int(counts["without_ids"].sum()),
        "num_completions_reflecting": int(counts["reflecting"].sum()),
        "num_matches": int(counts["matches"].sum()),
        "num_tokens": int(counts["tokens"].sum()),
        "words_never_met": never,
    }


def _caption(analysis: Analysis, rates: _Rates, words: Sequence[str]) -> str:
    parts = {split: _stated(analysis.value("reflection_ratio", split), rates) for split in SPLITS}
    length = "generated token" if rates.length == "tokens" else "word of text"
    share = latex_percent(analysis.value("reflecting_completions"))
    num_completions = int(rates.by_split["all"]["completions"].sum())
    return (
        f"Reflection words per {length}: (a) all {len(words)} words of the list, (b) each word "
        "that occurs, in correct and incorrect completions (log scale; open markers: no match). "
        f"The ratio is {parts['all']} over all completions, {parts['correct']} over correct and "
        f"{parts['incorrect']} over incorrect ones; {share} of the completions hold at least one. "
        f"Counted are {latex_escape(str(analysis.facts['matching']))}, in "
        f"{counted(num_completions, 'completion')} of "
        f"{counted(rates.num_questions('all'), 'question')}. "
        + interval_sentence("Whiskers", *rates.weights_BP.shape)
    )


def _stated(ratio: Interval, rates: _Rates) -> str:
    if not np.isfinite(ratio.value):
        return "undefined"
    if rates.length == "tokens":
        return latex_percent(ratio, digits=2)
    bounds = f" [{ratio.low:.2f}, {ratio.high:.2f}]" if np.isfinite(ratio.low) else ""
    return f"{ratio.value:.2f}{bounds} per 1,000 words"
