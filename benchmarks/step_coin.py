"""Rewards for what random weights write; the verifier's processes import it, and need no torch."""

from __future__ import annotations

import zlib


def coin(completion: str, answer: str) -> float:
    """A verifier that has an opinion on any text, right or wrong about as often."""
    del answer
    return float(zlib.crc32(completion.encode()) % 2)
