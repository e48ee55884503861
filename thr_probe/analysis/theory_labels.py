"""For which tokens raising the likelihood lowers the entropy: the label of appendix D.2 varied."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from thr_probe.analysis.result import Analysis, summary_row, summary_table
from thr_probe.analysis.theory import (
    Simulation,
    Vector,
    cell_name,
    described_spread,
    entropy,
    entropy_direction,
    over_draws,
)
from thr_probe.analysis.theory_captions import labels_caption
from thr_probe.core.stats import quotient

_MOST_POINTS = 200


def cosines_of_labels(pi_V: Vector) -> Vector:
    """cos(Q + pi, e_o - pi) for every token o, in closed form.

    With g = Q + pi it is (g_o - <g, pi>) / (|g| sqrt(1 - 2 pi_o + |pi|^2)).
    """
    direction_V = entropy_direction(pi_V)
    length_V = np.sqrt(np.maximum(1 - 2 * pi_V + pi_V @ pi_V, 0))
    product_V = direction_V - direction_V @ pi_V
    scale_V = np.linalg.norm(direction_V) * length_V
    return quotient(product_V, np.asarray(scale_V))


def label_sweep(simulation: Simulation | None = None) -> Analysis:
    """The cosine for the likeliest token, for labels drawn from pi, and for every token.

    Args:
        simulation: grid, spread, draws, seed; its label plays no part, as all are looked at.

    Returns:
        summary, by V and pi*, means over the draws with the central 95 % of them:
        `argmax_cosine`; `sampled_cosine`, its mean over labels drawn from pi, exactly;
        `opposite_share`, the probability of a label with a negative cosine. curves: `sampled`, the
        same as a table, and `tokens`, the cosine against the probability of the token in one
        distribution for each pi*.
    """
    simulation = simulation or Simulation()
    rows, table = [], []
    for vocab_size in simulation.vocab_sizes:
        for top in simulation.tops:
            found = pd.DataFrame(_cells(simulation, vocab_size, top))
            means = {str(name): over_draws(found[name].to_numpy()) for name in found}
            units = {"opposite_share": "probability"}
            rows += [
                summary_row(
                    name,
                    cell_name(vocab_size, top),
                    units.get(name, "cosine"),
                    interval,
                    num_questions=0,
                )
                for name, interval in means.items()
            ]
            values = {name: interval.value for name, interval in means.items()}
            table.append({"vocab_size": vocab_size, "top": top, **values})
    sampled = pd.DataFrame(table)
    shown = _shown_size(simulation)
    return Analysis(
        name="theory-labels",
        summary=summary_table(rows),
        curves={"sampled": sampled, "tokens": _tokens(simulation, shown)},
        facts={**simulation.facts, "label": "all", "vocab_size_of_tokens": shown},
        caption=labels_caption(sampled, described_spread(simulation), simulation.draws, shown),
    )


def _cells(simulation: Simulation, vocab_size: int, top: float) -> Iterator[dict[str, float]]:
    rng = simulation.generator()
    for _ in range(simulation.draws):
        pi_V = simulation.distribution(rng, vocab_size, top)
        cosine_V = cosines_of_labels(pi_V)
        yield {
            "argmax_cosine": float(cosine_V[pi_V.argmax()]),
            "sampled_cosine": float(pi_V @ np.nan_to_num(cosine_V)),
            "opposite_share": float(pi_V[cosine_V < 0].sum()),
        }


def _shown_size(simulation: Simulation) -> int:
    """The vocabulary size whose tokens are shown: the one nearest to a thousand."""
    return min(simulation.vocab_sizes, key=lambda size: abs(np.log(size / 1_000)))


def _tokens(simulation: Simulation, vocab_size: int) -> pd.DataFrame:
    tables = []
    for top in simulation.tops:
        pi_V = simulation.distribution(simulation.generator(), vocab_size, top)
        kept = np.unique(np.linspace(0, vocab_size - 1, _MOST_POINTS).astype(np.int64))
        order = np.argsort(-pi_V)[kept]
        table = {
            "top": top,
            "probability": pi_V[order],
            "surprisal_over_entropy": -np.log(np.maximum(pi_V[order], 1e-300)) / entropy(pi_V),
            "cosine": cosines_of_labels(pi_V)[order],
        }
        tables.append(pd.DataFrame(table))
    return pd.concat(tables, ignore_index=True)
