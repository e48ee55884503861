"""How intervals were made, stated the same way in the facts and captions of several analyses."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int


def interval_facts(weights_BP: Int[np.ndarray, "B P"], seed: int) -> dict[str, object]:
    """The bootstrap over questions, for `Analysis.facts`."""
    return {
        "interval": "percentile bootstrap over questions",
        "level": 0.95,
        "num_resamples": len(weights_BP),
        "seed": seed,
    }


def interval_sentence(where: str, num_resamples: int, num_questions: int) -> str:
    """The same for a caption, in LaTeX.

    Args:
        where: what shows the intervals, such as `Whiskers`.
        num_resamples: how many resamples there are.
        num_questions: of the data.
    """
    if num_questions < 2:
        return "A single question gives no interval."
    return (
        f"{where} are 95\\,\\% percentile intervals from {num_resamples:,} bootstrap resamples of "
        "the questions."
    )
