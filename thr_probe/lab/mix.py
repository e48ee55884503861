"""How hard the lab's problems are and how its texts choose between strategies."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Weights of levels and strategies; the defaults are the lab as it is used."""

    chain_levels: tuple[int, ...] = (30, 30, 25, 15)
    """Weights of chains of 2, 3, 4 and 5 operations."""
    product_levels: tuple[int, ...] = (45, 25, 30)
    """Weights of small products, large products, and products with one more operation."""
    equation_levels: tuple[int, ...] = (45, 35, 20)
    """Weights of linear equations with small and large solutions, and of quadratic ones."""
    series_terms: tuple[int, ...] = (35, 30, 20, 15)
    """Weights of 4, 5, 6 and 7 terms."""
    wide_share: float = 0.4
    """Chains of 4 or 5 operations that may hold a two-digit product."""
    short_share: float = 0.5
    """Products that are first tried in one step."""
    wide_short_share: float = 0.15
    """The same for products within a chain."""
    leap_share: float = 0.06
    """Pairs of additions and subtractions taken in one step."""
    list_share: float = 0.8
    """Series that are written out and added one by one."""
    list_words: tuple[str, ...] = (
        "the numbers are",
        "the numbers are",
        "in order:",
        "list them:",
        "we add",
    )
    """Wordings that open such a list."""
    undo_share: float = 0.35
    """Linear equations taken apart backwards instead of by guesses."""
    hit_share: float = 0.5
    """Guesses after the first that are right."""
    max_misses: int = 6
    """Wrong guesses at most."""


# What the first stage of the recipe learns from: harder, with more short cuts.
FIRST_MIX = Mix(
    chain_levels=(15, 30, 30, 25),
    product_levels=(30, 35, 35),
    equation_levels=(35, 35, 30),
    series_terms=(25, 30, 25, 20),
    wide_share=0.5,
    short_share=0.55,
    wide_short_share=0.3,
    leap_share=0.12,
    list_share=0.7,
    list_words=("the numbers are", "in order:", "list them:", "we add"),
    undo_share=0.25,
    hit_share=0.6,
    max_misses=3,
)
LAB_MIX = Mix()
