"""What the figure of sampler against policy draws, with intervals from resampling questions.

Letters of shapes: R completions, P questions, B resamples, K bins, T steps or sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped

from thr_probe.analysis.binned import interval_columns
from thr_probe.analysis.mismatch_sums import KINDS, POSITION_EDGES, TAIL_EDGES, MismatchSums
from thr_probe.core.stats import bootstrap_ratios
from thr_probe.traces.reader import Run

MEANS = {
    "kl_k1": "k1",
    "kl_k3": "k3",
    "mean_gap": "gap",
    "beyond_share": "beyond",
    "mean_ratio": "ratio",
    "truncated_share": "truncated",
}
"""Quantities that are means over tokens, and the value that is averaged."""
_SEQUENCE_BINS = 30
_ENDS = (0.01, 0.99)  # quantiles between which the histogram of completions lies


@dataclass(frozen=True, slots=True)
class MismatchData:
    """The completions that were compared, and the resamples."""

    sums: MismatchSums
    """Sums by question and bin."""
    of_R: Mapping[str, Shaped[np.ndarray, " R"]]
    """Columns of one value per completion."""
    weights_BP: Int[np.ndarray, "B P"]
    """How often each question is drawn."""

    def per_question(self, name: str, some_R: Bool[np.ndarray, " R"]) -> Float[np.ndarray, " P"]:
        """Sums over some completions of each question."""
        return np.bincount(
            self.of_R["question"][some_R],
            weights=self.of_R[name][some_R],
            minlength=self.sums.num_questions,
        )


def mismatch_curves(data: MismatchData, run: Run) -> dict[str, pd.DataFrame]:
    """The curves of the analysis, by name; `steps` only of a run of several training steps."""
    curves = {
        "tails": _tails(data),
        "positions": _positions(data),
        "sequences": _sequences(data),
    }
    if len(np.unique(data.of_R["step"])) > 1:
        curves["steps"] = _steps(data)
    return curves | {"worst": _worst(data, run)}


def _tails(data: MismatchData) -> pd.DataFrame:
    """For each kind of token the share whose difference is beyond each size."""
    number = data.sums.num_questions
    count_PKT = data.sums.tails.table("count", number).reshape(number, len(KINDS) + 1, -1)
    tables = []
    places = {"all": slice(None)} | {kind: slice(i, i + 1) for i, kind in enumerate(KINDS)}
    for split, some in places.items():
        count_PT = count_PKT[:, some].sum(axis=1)
        total_P = count_PT.sum(axis=1)
        if not total_P.any():
            continue
        beyond_PT = count_PT[:, ::-1].cumsum(axis=1)[:, -2::-1]
        found = bootstrap_ratios(beyond_PT, total_P[:, None], data.weights_BP)
        columns = {"split": split, "difference": TAIL_EDGES, **interval_columns("share", found)}
        table = pd.DataFrame(columns)
        tables.append(table[table["share"] > 0])
    return pd.concat(tables, ignore_index=True)


def _positions(data: MismatchData) -> pd.DataFrame:
    positions, number = data.sums.positions, data.sums.num_questions
    count_PK = positions.table("count", number)[:, positions.bins]
    columns: dict[str, object] = {
        "left": POSITION_EDGES[positions.bins].astype(np.int64),
        "right": np.append(POSITION_EDGES[1:], np.inf)[positions.bins],
        "tokens": count_PK.sum(axis=0).astype(np.int64),
    }
    for quantity in ("kl_k1", "kl_k3", "mean_gap"):
        value_PK = positions.table(MEANS[quantity], number)[:, positions.bins]
        columns |= interval_columns(quantity, bootstrap_ratios(value_PK, count_PK, data.weights_BP))
    return pd.DataFrame(columns)


def _sequences(data: MismatchData) -> pd.DataFrame:
    """Histogram of the completions' log-ratios; the end bins hold what lies beyond them."""
    log_ratio_R, number = -data.of_R["k1"], data.sums.num_questions
    low, high = np.quantile(log_ratio_R, _ENDS)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _SEQUENCE_BINS + 1)
    bin_R = np.clip(np.searchsorted(edges, log_ratio_R, side="right") - 1, 0, _SEQUENCE_BINS - 1)
    cell_R = data.of_R["question"] * _SEQUENCE_BINS + bin_R
    count_PK = np.bincount(cell_R, minlength=number * _SEQUENCE_BINS).reshape(number, -1)
    found = bootstrap_ratios(
        count_PK.astype(np.float64),
        count_PK.sum(axis=1, keepdims=True).astype(np.float64),
        data.weights_BP,
    )
    columns = {"left": edges[:-1], "right": edges[1:], **interval_columns("share", found)}
    return pd.DataFrame(columns)


def _steps(data: MismatchData) -> pd.DataFrame:
    """The same means in each step of training."""
    steps, step_R = np.unique(data.of_R["step"], return_inverse=True)
    number = data.sums.num_questions
    cell_R = data.of_R["question"] * len(steps) + step_R

    def table(name: str) -> Float[np.ndarray, "P steps"]:
        total = np.bincount(cell_R, weights=data.of_R[name], minlength=number * len(steps))
        return total.reshape(number, len(steps))

    tokens_PT = table("tokens")
    largest_T = np.zeros(len(steps))
    np.maximum.at(largest_T, step_R, data.of_R["largest_ratio"])
    columns: dict[str, object] = {"step": steps, "tokens": tokens_PT.sum(axis=0).astype(np.int64)}
    for quantity, value in MEANS.items():
        found = bootstrap_ratios(table(value), tokens_PT, data.weights_BP)
        columns |= interval_columns(quantity, found)
    return pd.DataFrame(columns | {"largest_ratio": largest_T})


def _worst(data: MismatchData, run: Run) -> pd.DataFrame:
    """The tokens of largest difference with their texts."""
    rows = data.sums.worst()
    tokens = run.tokens()
    texts: dict[int, str] = {}
    if tokens is not None:
        texts = dict(zip(tokens["token_id"].tolist(), tokens["text"].tolist(), strict=True))
    rows.insert(4, "token", [texts.get(token) for token in rows["token_id"].tolist()])
    # outside training there are no steps, in a run without ids no tokens
    unknown = [name for name in ("step", "token_id") if (rows[name] < 0).all()]
    return rows.drop(columns=[*unknown, *(["token"] if "token_id" in unknown else [])])
