"""The paper's appendix D.2 as a simulation: entropy change and signed THR of one distribution.

Made distributions stand in for a policy's: probability pi* at one token, the rest spread at random
over the others. Nothing here reads a run.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from thr_probe.analysis.result import Analysis, summary_row, summary_table
from thr_probe.analysis.theory_captions import (
    cosines_caption,
    distributions_caption,
    shape_caption,
)
from thr_probe.core.stats import Interval, percentile_interval
from thr_probe.errors import UsageError

SPREADS = ("uniform", "dirichlet")
LABELS = ("argmax", "sampled")
VOCAB_SIZES = (10, 100, 1_000, 10_000, 151_936)
"""Up to the vocabulary of Qwen2.5."""
TOP_PROBABILITIES = (0.1, 0.5, 0.9, 0.99)
LARGEST_VOCAB = 2_000_000
_DRAWN = ((10, 0.3), (10, 0.9), (100, 0.3), (100, 0.9))
_SHAPE_POINTS = 400

Vector = Float[np.ndarray, " V"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """Which distributions are made, and how many."""

    vocab_sizes: Sequence[int] = VOCAB_SIZES
    """V of the grid, ascending."""
    tops: Sequence[float] = TOP_PROBABILITIES
    """pi* of the grid, ascending."""
    spread: str = "uniform"
    """How 1 - pi* falls on the other tokens: `uniform`, U(0, 1) normalised, or `dirichlet`."""
    alpha: float = 1.0
    """Of the symmetric Dirichlet distribution; the smaller, the less even."""
    label: str = "argmax"
    """The token o whose likelihood THR is about: `argmax`, or `sampled` from the distribution."""
    draws: int = 20
    """Distributions of each V and pi*."""
    seed: int = 0
    """Every V and pi* starts from it: what differs between them is not the draw."""

    def __post_init__(self) -> None:
        for name, value, known in (("spread", self.spread, SPREADS), ("label", self.label, LABELS)):
            if value not in known:
                raise UsageError(f"unknown {name} {value!r}; choose {' or '.join(known)}")
        if not 0 < self.alpha < float("inf"):
            raise UsageError(f"alpha must be positive, got {self.alpha}")
        if self.draws < 1 or self.seed < 0:
            raise UsageError(
                f"{self.draws} draws with seed {self.seed}: one draw and seed 0 are the least"
            )
        _check_grid(self.vocab_sizes, self.tops)

    @property
    def facts(self) -> dict[str, object]:
        """The options, for `Analysis.facts`."""
        return {
            "spread": self.spread,
            "alpha": self.alpha if self.spread == "dirichlet" else None,
            "label": self.label,
            "draws": self.draws,
            "interval": "central 95 % of the draws",
            "seed": self.seed,
        }

    def generator(self) -> np.random.Generator:
        """The randomness of one V and pi*."""
        return np.random.default_rng(self.seed)

    def distribution(self, rng: np.random.Generator, vocab_size: int, top: float) -> Vector:
        """One distribution: pi* at token 0, 1 - pi* spread at random over the others."""
        return spread_distribution(rng, vocab_size, top, spread=self.spread, alpha=self.alpha)

    def drawn_label(self, rng: np.random.Generator, pi_V: Vector) -> int:
        """The token o."""
        if self.label == "argmax":
            return int(pi_V.argmax())
        return min(int(np.searchsorted(pi_V.cumsum(), rng.random())), len(pi_V) - 1)


def _check_grid(vocab_sizes: Sequence[int], tops: Sequence[float]) -> None:
    if not vocab_sizes or not tops:
        raise UsageError("the simulation needs at least one vocabulary size and one pi*")
    for size in vocab_sizes:
        if not 3 <= size <= LARGEST_VOCAB:
            raise UsageError(f"a vocabulary size must lie in 3..{LARGEST_VOCAB:,}, got {size}")
    for top in tops:
        if not 0 < top < 1:
            raise UsageError(f"pi* must lie strictly between 0 and 1, got {top}")


def spread_distribution(
    rng: np.random.Generator, vocab_size: int, top: float, *, spread: str, alpha: float = 1.0
) -> Vector:
    """pi* at token 0 and 1 - pi* spread at random over the others (paper, Fig. 10).

    Where pi* is small, another token may come out more likely.

    Args:
        rng: drawn from.
        vocab_size: V.
        top: pi*.
        spread: `uniform` or `dirichlet`.
        alpha: of the Dirichlet distribution.
    """
    size = vocab_size - 1
    rest = rng.random(size) if spread == "uniform" else rng.standard_gamma(alpha, size)
    total = rest.sum()
    if total == 0:  # so small an alpha that every gamma variate underflows: one token has it all
        rest[rng.integers(size)] = total = 1.0
    return np.concatenate([[top], rest * ((1 - top) / total)])


def entropy(pi_V: Vector) -> float:
    """H = -sum pi log pi, nats."""
    return float(-_plogp(pi_V).sum())


def _plogp(pi_V: Vector) -> Vector:
    """Pi log pi, 0 where pi is 0."""
    terms_V: Vector = pi_V * np.log(np.where(pi_V > 0, pi_V, 1.0))
    return terms_V


def entropy_weights(pi_V: Vector) -> Vector:
    """Q = pi log pi / H of Equation 14: -Q is a probability vector."""
    terms_V = _plogp(pi_V)
    weights_V: Vector = terms_V / -terms_V.sum()
    return weights_V


def entropy_direction(pi_V: Vector) -> Vector:
    """Q + pi: to first order dH = -H <Q + pi, dl> for a change dl of the logits (Lemma 1).

    >>> entropy_direction(np.full(4, 0.25)).tolist()  # an even distribution is the maximum of H
    [0.0, 0.0, 0.0, 0.0]
    """
    direction_V: Vector = entropy_weights(pi_V) + pi_V
    return direction_V


def label_residual(pi_V: Vector, label: int) -> Vector:
    """e_o - pi, the factor of o in THR's alpha."""
    residual_V = -pi_V
    residual_V[label] += 1
    return residual_V


def cosine(left_V: Vector, right_V: Vector) -> float:
    """Cosine of the angle between two vectors; NaN where one is 0."""
    lengths = float(np.linalg.norm(left_V) * np.linalg.norm(right_V))
    return float(left_V @ right_V) / lengths if lengths else float("nan")


def label_cosines(pi_V: Vector, label: int) -> tuple[float, float]:
    """c1 = cos(-Q, e_o), of the paper's prose, and c2 = cos(Q + pi, e_o - pi), of its figures.

    Args:
        pi_V: the distribution.
        label: o.
    """
    weights_V = entropy_weights(pi_V)
    prose = -float(weights_V[label]) / float(np.linalg.norm(weights_V))
    return prose, cosine(weights_V + pi_V, label_residual(pi_V, label))


def entropy_shape() -> Analysis:
    """The function -x log x (paper, Fig. 8): a term of the entropy, largest at x = 1/e.

    Returns:
        summary: `largest` and `at`. curves: `linear` and `log`, x evenly on either axis.
    """

    def curve(x: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame({"x": x, "value": -x * np.log(x)})

    inner = np.linspace(0, 1, _SHAPE_POINTS + 1)[1:]
    rows = [
        summary_row(name, "all", unit, _exact(np.exp(-1.0)), num_questions=0)
        for name, unit in (("largest", "nats"), ("at", "probability"))
    ]
    return Analysis(
        name="theory-entropy-shape",
        summary=summary_table(rows),
        curves={"linear": curve(inner), "log": curve(np.logspace(-6, 0, _SHAPE_POINTS))},
        facts={"estimator": "closed form"},
        caption=shape_caption(),
    )


def _exact(value: float) -> Interval:
    return Interval(value=float(value), low=float("nan"), high=float("nan"))


def example_distributions(simulation: Simulation | None = None) -> Analysis:
    """Four distributions with e_o - pi and Q + pi (paper, Fig. 9), tokens by falling probability.

    Args:
        simulation: spread, label and seed; its grid plays no part.

    Returns:
        summary, by distribution: `entropy`, `cos_weights_label` (c1), `cos_direction_residual`
        (c2). curves: `bars`, one row per distribution and token.
    """
    simulation = simulation or Simulation()
    rows, bars = [], []
    for vocab_size, top in _DRAWN:
        rng = simulation.generator()
        pi_V = simulation.distribution(rng, vocab_size, top)
        pi_V = np.sort(pi_V)[::-1]
        label = simulation.drawn_label(rng, pi_V)
        prose, figure = label_cosines(pi_V, label)
        split = cell_name(vocab_size, top)
        values = {
            "entropy": (entropy(pi_V), "nats"),
            "cos_weights_label": (prose, "cosine"),
            "cos_direction_residual": (figure, "cosine"),
        }
        rows += [
            summary_row(name, split, unit, _exact(value), num_questions=0)
            for name, (value, unit) in values.items()
        ]
        table = {
            "vocab_size": vocab_size,
            "top": top,
            "rank": np.arange(1, vocab_size + 1),
            "is_label": np.arange(vocab_size) == label,
            "pi": pi_V,
            "residual": label_residual(pi_V, label),
            "direction": entropy_direction(pi_V),
        }
        bars.append(pd.DataFrame(table))
    return Analysis(
        name="theory-distributions",
        summary=summary_table(rows),
        curves={"bars": pd.concat(bars, ignore_index=True)},
        facts={**simulation.facts, "draws": 1, "interval": None},
        caption=distributions_caption(simulation.label, described_spread(simulation)),
    )


def alignment_grid(simulation: Simulation | None = None) -> Analysis:
    """Cosines between what changes the entropy and what THR weighs, over V and pi* (Fig. 10).

    c1 = cos(-Q, e_o) is what the paper's prose argues with, c2 = cos(Q + pi, e_o - pi) what its
    figure shows. As dH = -H <Q + pi, dl>, the entropy goes with -c2: where c2 is near 1, a change
    of the logits that raises signed THR lowers the entropy. The change is dl = eta (e_u - pi_u)
    <h_u, h_o> for an update at u, the same in Equations 15 and 16; the sum that the latter prints
    over u is over the observed tokens o.

    Args:
        simulation: grid, spread, label, draws, seed.

    Returns:
        summary, by V and pi*: `cos_weights_label` (c1), `cos_direction_residual` (c2),
        `cos_entropy_residual` (-c2, the cosine of dH's direction), means over the draws with the
        central 95 % of them. curves: `cosines`, the same as one row per V and pi*.
    """
    simulation = simulation or Simulation()
    cells = [(size, top) for size in simulation.vocab_sizes for top in simulation.tops]
    rows, table = [], []
    for vocab_size, top in cells:
        prose_B, figure_B = _cell(simulation, vocab_size, top)
        found = {
            "cos_weights_label": prose_B,
            "cos_direction_residual": figure_B,
            "cos_entropy_residual": -figure_B,
        }
        means = {name: over_draws(values_B) for name, values_B in found.items()}
        rows += [
            summary_row(name, cell_name(vocab_size, top), "cosine", interval, num_questions=0)
            for name, interval in means.items()
        ]
        values = {name: interval.value for name, interval in means.items()}
        table.append({"vocab_size": vocab_size, "top": top, **values})
    cosines = pd.DataFrame(table)
    return Analysis(
        name="theory-cosines",
        summary=summary_table(rows),
        curves={"cosines": cosines},
        facts=simulation.facts,
        caption=cosines_caption(
            cosines, simulation.label, described_spread(simulation), simulation.draws
        ),
    )


def _cell(
    simulation: Simulation, vocab_size: int, top: float
) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, " B"]]:
    """Both cosines of every draw of one V and pi*."""
    rng = simulation.generator()
    found = []
    for _ in range(simulation.draws):
        pi_V = simulation.distribution(rng, vocab_size, top)
        found.append(label_cosines(pi_V, simulation.drawn_label(rng, pi_V)))
    prose_B, figure_B = np.array(found).T
    return prose_B, figure_B


def over_draws(value_B: Float[np.ndarray, " B"]) -> Interval:
    """Mean and central 95 % of the draws; draws without a value are left out."""
    defined_B = value_B[~np.isnan(value_B)]
    if not len(defined_B):
        return _exact(float("nan"))
    low, high = percentile_interval(defined_B)
    return Interval(value=float(defined_B.mean()), low=low, high=high)


def cell_name(vocab_size: int, top: float) -> str:
    """The split of one V and pi* in a summary."""
    return f"V = {vocab_size}, pi* = {top:g}"


def described_spread(simulation: Simulation) -> str:
    """How 1 - pi* was spread, in LaTeX."""
    if simulation.spread == "uniform":
        return "in proportion to uniform draws"
    return rf"by a Dirichlet distribution of $\alpha = {simulation.alpha:g}$"
