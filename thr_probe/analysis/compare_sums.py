"""What a source did, question by question: the sums that every compared quantity is made of.

A question is known by its set and its text: `prompt_id` also hashes the prompt, so that the same
question in another template has another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float

from thr_probe.analysis.histograms import dominant_tokens
from thr_probe.analysis.overlap import completion_overlaps
from thr_probe.analysis.passk import count_correct
from thr_probe.analysis.reflection import REFLECTION_WORDS
from thr_probe.analysis.sources import GREEDY, SAMPLED, Source
from thr_probe.analysis.stream import Batch, CompletionStream
from thr_probe.analysis.word_counts import count_words
from thr_probe.core.pass_at_k import pass_at_k
from thr_probe.traces.lists import list_values
from thr_probe.traces.reader import Run

KEY = ["dataset", "question"]
"""What a question is known by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A quantity of completions, a ratio of sums over them."""

    name: str
    """As in the tables."""
    numerator: str
    """Column of the sums."""
    denominator: str
    """Likewise; a question without any does not count."""
    unit: str
    """Of the quantity."""


RATIOS = (
    Ratio(
        name="reflection_ratio", numerator="matches", denominator="tokens", unit="matches per token"
    ),
    Ratio(
        name="retained_share",
        numerator="dominant",
        denominator="thr_tokens",
        unit="share of tokens",
    ),
    Ratio(
        name="mean_overlap",
        numerator="overlap",
        denominator="overlap_completions",
        unit="share of the completion's dominant tokens",
    ),
    Ratio(name="mean_entropy", numerator="entropy", denominator="entropy_tokens", unit="nats"),
    Ratio(name="mean_length", numerator="tokens", denominator="completions", unit="tokens"),
    Ratio(name="thr_balance", numerator="signed_mass", denominator="mass", unit="share of |THR|"),
)
"""Besides accuracy: reflection words per token; of mixed groups the share of tokens with
|THR| > tau, the overlap of these with as many of highest entropy (groups of tau > 0), and the
balance (mass of THR > 0 minus mass of THR < 0, over the mass of |THR|); mean entropy, mean length.
"""

_THR_COLUMNS = (
    "thr_tokens",
    "dominant",
    "signed_mass",
    "mass",
    "overlap",
    "overlap_completions",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """One way of answering of a source: greedy, or sampled."""

    groups: pd.DataFrame
    """One row per group: dataset, question, n completions, c correct ones."""
    problems: pd.DataFrame
    """By (dataset, question): prompt_text, answer."""

    @property
    def questions(self) -> pd.MultiIndex:
        """The questions with completions, as (dataset, question)."""
        return pd.MultiIndex.from_frame(self.groups[KEY].drop_duplicates())

    def of(self, questions: pd.MultiIndex) -> pd.DataFrame:
        """The groups of some questions."""
        return self.groups[pd.MultiIndex.from_frame(self.groups[KEY]).isin(questions)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """The sums of `RATIOS`, and which of them the runs do not give."""

    table: pd.DataFrame
    """By (dataset, question): the columns that `RATIOS` names, 0 where there is nothing."""
    lacking: Mapping[str, str] = field(default_factory=dict)
    """Why a ratio is not there, by its name."""


def read_answers(source: Source) -> dict[str, Answers]:
    """The labels of a source, by `greedy` and `sampled`; only what it has."""
    both = {GREEDY: source.greedy, SAMPLED: source.sampled}
    return {measure: _answers(runs) for measure, runs in both.items() if _has_some(runs)}


def _has_some(runs: Sequence[Run]) -> bool:
    return any(run.num_completions for run in runs)


def _answers(runs: Sequence[Run]) -> Answers:
    groups, problems = [], []
    for run in runs:
        table = run.problems()
        problems.append(table[[*KEY, "prompt_text", "answer"]])
        counts = count_correct(run)
        named = counts.merge(table[["prompt_id", *KEY]], on="prompt_id", how="left")
        groups.append(named[[*KEY, "n", "c"]])
    every = pd.concat(problems, ignore_index=True).drop_duplicates(KEY)
    return Answers(groups=pd.concat(groups, ignore_index=True), problems=every.set_index(KEY))


def question_pass_at_k(groups: pd.DataFrame, k: int) -> pd.Series[float]:
    """Unbiased Pass@K of each question, the mean over its groups; by (dataset, question)."""
    estimate = pass_at_k(groups["n"].to_numpy(), groups["c"].to_numpy(), k)
    return groups[KEY].assign(estimate=estimate).groupby(KEY, sort=False)["estimate"].mean()


def read_sums(runs: Sequence[Run], *, score_id: str | None = None) -> Sums:
    """The sums of some runs, streamed; memory grows with the questions.

    Args:
        runs: of one source, all greedy or all sampled.
        score_id: which scores; the only ones by default.
    """
    lacking: dict[str, str] = {}
    tables = []
    for run in runs:
        key = run.problems().set_index("prompt_id")[KEY]
        for part in _parts(run, score_id, lacking):
            named = part.join(key, how="left")
            tables.append(named.groupby(KEY, sort=False).sum())
    table = pd.concat(tables).groupby(level=KEY, sort=False).sum()
    columns = dict.fromkeys(
        name for ratio in RATIOS for name in (ratio.numerator, ratio.denominator)
    )
    return Sums(
        table=table.reindex(columns=list(columns), fill_value=0.0).fillna(0.0), lacking=lacking
    )


def _parts(run: Run, score_id: str | None, lacking: dict[str, str]) -> Iterator[pd.DataFrame]:
    """By prompt_id; notes what is not there."""
    yield _words(run, lacking)
    if not run.score_ids:
        _note(
            lacking, ("retained_share", "mean_overlap", "thr_balance", "mean_entropy"), "no scores"
        )
        return
    yield _entropy(run, score_id)
    stream = CompletionStream(run, ["thr", "entropy"], score_id=score_id)
    yield _thr(stream)
    reason = stream.empty_reason()
    if reason is not None:
        _note(lacking, ("retained_share", "mean_overlap", "thr_balance"), reason.rstrip("."))


def _note(lacking: dict[str, str], names: Iterable[str], reason: str) -> None:
    for name in names:
        lacking.setdefault(name, reason)


def _words(run: Run, lacking: dict[str, str]) -> pd.DataFrame:
    counts = count_words(run, REFLECTION_WORDS)
    if counts.empty:
        return pd.DataFrame(index=pd.Index([], name="prompt_id"))
    if counts["without_ids"].sum():
        _note(lacking, ("reflection_ratio", "mean_length"), "completions without token ids")
    columns = ["matches", "tokens", "completions"]
    return counts[columns].groupby(level="prompt_id", sort=False).sum()


def _entropy(run: Run, score_id: str | None) -> pd.DataFrame:
    parts = []
    for table in run.iter_completions(["prompt_id", "entropy"], score_id=score_id):
        value_N, offsets = list_values(table["entropy"])
        # the sum up to each bound: a completion without tokens adds nothing
        total = np.concatenate([[0.0], np.cumsum(value_N, dtype=np.float64)])
        parts.append(
            pd.DataFrame(
                {"entropy": np.diff(total[offsets]), "entropy_tokens": np.diff(offsets)},
                index=table["prompt_id"].to_pandas(),
            )
            .groupby(level=0, sort=False)
            .sum()
        )
    return pd.concat(parts) if parts else pd.DataFrame(index=pd.Index([], name="prompt_id"))


def _thr(stream: CompletionStream) -> pd.DataFrame:
    sums_PC: dict[str, list[np.ndarray]] = {name: [] for name in _THR_COLUMNS}
    group: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
    for batch in stream:
        group.append(batch.group_R)
        for name, value_R in _thr_sums(batch).items():
            sums_PC[name].append(value_R)
    question_R = stream.question_of_group[np.concatenate(group)]
    return pd.DataFrame(
        {
            name: np.bincount(
                question_R, np.concatenate([np.empty(0), *values]), len(stream.questions)
            )
            for name, values in sums_PC.items()
        },
        index=pd.Index(stream.questions, name="prompt_id", dtype=object),
    )


def _thr_sums(batch: Batch) -> dict[str, Float[np.ndarray, " R"]]:
    thr_N = batch.tokens["thr"]
    overlap_R, _ = completion_overlaps(batch)
    # where tau <= 0 every token is dominant, and the overlap is 1 by definition
    compared_R = ~np.isnan(overlap_R) & (batch.tau_R > 0)
    return {
        "thr_tokens": batch.lengths.astype(float),
        "dominant": batch.count(dominant_tokens(batch)).astype(float),
        "signed_mass": batch.sum(thr_N),
        "mass": batch.sum(np.abs(thr_N)),
        "overlap": np.where(compared_R, overlap_R, 0.0),
        "overlap_completions": compared_R.astype(float),
    }
