"""Lemma 1 (Cui et al. 2025; the paper's Equation 13) checked: the first-order entropy change."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float

from thr_probe.analysis.result import Analysis, summary_row, summary_table
from thr_probe.analysis.theory import (
    Simulation,
    Vector,
    described_spread,
    entropy,
    entropy_direction,
    label_residual,
)
from thr_probe.analysis.theory_captions import lemma_caption
from thr_probe.core.stats import Interval

_VOCAB_SIZE, _TOP = 1_000, 0.5
# below 1e-3 the second-order error of H drowns in rounding, above 1e-1 the third order shows
_SIZES = np.logspace(-3, -1, 9)


def first_order_entropy_change(pi_V: Vector, change_V: Vector) -> float:
    """-H <Q + pi, dl>, which is -Cov_pi(log pi, dl) (Equations 13 and 14), nats.

    One line of Equation 14 prints the sum of the old and new logits for their difference; its c
    stands for H.

    Args:
        pi_V: the distribution.
        change_V: dl, of its logits.
    """
    return -entropy(pi_V) * float(entropy_direction(pi_V) @ change_V)


def entropy_change(pi_V: Vector, change_V: Vector) -> float:
    """H of softmax(l + dl) minus H of pi = softmax(l), exact, nats."""
    tilted_V = pi_V * np.exp(change_V - change_V.max())
    return entropy(tilted_V / tilted_V.sum()) - entropy(pi_V)


def lemma_check(simulation: Simulation | None = None) -> Analysis:
    """Exact entropy change beside that of Lemma 1, along three directions of the logits.

    Args:
        simulation: spread, alpha and seed; its grid and label play no part.

    Returns:
        summary, by direction: `slope` of log error against log |dl| (2 for an error of second
        order) and `relative_error` at the smallest |dl|. curves: `changes`, one row per direction
        and |dl|.
    """
    simulation = simulation or Simulation()
    rng = simulation.generator()
    pi_V = simulation.distribution(rng, _VOCAB_SIZE, _TOP)
    tables = [
        _along(name, pi_V, direction_V) for name, direction_V in _directions(rng, pi_V).items()
    ]
    slopes = {str(table["direction"].iloc[0]): _slope(table) for table in tables}
    rows = []
    for name, table in zip(slopes, tables, strict=True):
        first = table.iloc[0]
        relative = float(first["error"] / abs(first["exact"]))
        rows.append(summary_row("slope", name, "log error per log |dl|", slopes[name], **_NONE))
        rows.append(summary_row("relative_error", name, "share", _known(relative), **_NONE))
    return Analysis(
        name="theory-lemma",
        summary=summary_table(rows),
        curves={"changes": pd.concat(tables, ignore_index=True)},
        facts={
            **simulation.facts,
            "vocab_size": _VOCAB_SIZE,
            "top": _TOP,
            "draws": 1,
            "interval": None,
        },
        caption=lemma_caption(slopes, _VOCAB_SIZE, _TOP, described_spread(simulation)),
    )


_NONE = {"num_questions": 0}


def _known(value: float) -> Interval:
    return Interval(value=value, low=float("nan"), high=float("nan"))


def _directions(rng: np.random.Generator, pi_V: Vector) -> dict[str, Vector]:
    """Unit vectors: e_o - pi of the likeliest token, that of a sampled one, and noise."""
    likeliest = int(pi_V.argmax())
    other = int(rng.choice(np.flatnonzero(np.arange(len(pi_V)) != likeliest)))
    found = {
        "likeliest token": label_residual(pi_V, likeliest),
        "unlikely token": label_residual(pi_V, other),
        "noise": rng.standard_normal(len(pi_V)),
    }
    return {name: vector_V / np.linalg.norm(vector_V) for name, vector_V in found.items()}


def _along(name: str, pi_V: Vector, direction_V: Vector) -> pd.DataFrame:
    exact = [entropy_change(pi_V, size * direction_V) for size in _SIZES]
    first = [first_order_entropy_change(pi_V, size * direction_V) for size in _SIZES]
    table = pd.DataFrame({"direction": name, "size": _SIZES, "exact": exact, "first_order": first})
    return table.assign(error=(table["exact"] - table["first_order"]).abs())


def _slope(table: pd.DataFrame) -> Interval:
    """Least-squares slope of the error on logarithmic axes."""
    size: Float[np.ndarray, " K"] = np.log(table["size"].to_numpy())
    error: Float[np.ndarray, " K"] = np.log(table["error"].to_numpy())
    return _known(float(np.polyfit(size, error, 1)[0]))
