"""The rows of the replication: every method of the paper's tables, as options of `train`."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import StrEnum

from thr_probe.errors import UsageError


class Activity(StrEnum):
    """By which metric the mechanism of a row is seen at work; `activity.py` reads it."""

    NONE = "no training"
    ALWAYS = "by construction in every update"
    MASKED = "steps in which some token lost its advantage"
    KEPT_ENTROPY = "steps in which a token was kept for its entropy"
    CLIPPED = "updates in which a token was clipped"
    PENALISED = "steps in which a token was penalised at a ratio other than 1"
    UPPER_CLIP = "steps with a ratio above the bound of GRPO, 1.2"
    RATIO = "steps with a ratio other than 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the tables: a method, and how it differs from the lab preset."""

    name: str
    """Also the name of its folders."""
    title: str
    """As the tables print it, in the paper's words."""
    options: tuple[tuple[str, str], ...]
    """Flags of `thr-probe train` beside the preset, each with its value."""
    activity: Activity
    """What tells that its mechanism acted at all."""
    is_core: bool = False
    """Whether it is one of the six rows of the quick replication."""
    p: float | None = None
    """The steering of a plain THR row: the p ablation is made of these."""

    @property
    def is_trained(self) -> bool:
        """Whether there is something to train: Base is the policy as it comes."""
        return self.activity is not Activity.NONE

    @property
    def flags(self) -> list[str]:
        """The options as words of a command line."""
        return [word for flag, value in self.options for word in (flag, value)]


def _row(
    name: str,
    title: str,
    options: str,
    activity: Activity,
    *,
    is_core: bool = False,
    p: float | None = None,
) -> Row:
    words = options.split()
    pairs = tuple(zip(words[::2], words[1::2], strict=True))
    return Row(name=name, title=title, options=pairs, activity=activity, is_core=is_core, p=p)


def _thr(p: float, *, is_core: bool = False) -> Row:
    name, title = (f"thr-p{p:+g}", f"THR (p = {p:+g})") if p else ("thr", "THR (p = 0)")
    options = f"--method thr --p {p:g}"
    return _row(name, title, options, Activity.MASKED, is_core=is_core, p=p)


_STEERED = "--method thr --p -0.1"
_GSPO = "--objective gspo-token"

ROWS: tuple[Row, ...] = (
    _row("base", "Base", "", Activity.NONE, is_core=True),
    _row("grpo", "GRPO", "--method grpo", Activity.ALWAYS, is_core=True),
    _thr(0.0, is_core=True),
    _thr(0.05),
    _thr(0.1, is_core=True),
    _thr(0.2),
    _thr(-0.05),
    _thr(-0.1, is_core=True),
    _thr(-0.2),
    _row(
        "thr-entropy",
        "THR (p = 0) + top 20 % entropy",
        "--method thr --p 0 --keep-entropy 0.2",
        Activity.KEPT_ENTROPY,
    ),
    _row(
        "passk-mixed",
        "Pass@K-mixed",
        "--method grpo --pass-at-k mixed --mix paper",
        Activity.ALWAYS,
        is_core=True,
    ),
    _row(
        "passk-mixed-chen",
        "Pass@K-mixed (Chen et al.)",
        "--method grpo --pass-at-k mixed --mix chen",
        Activity.ALWAYS,
    ),
    _row(
        "thr-passk-mixed",
        "THR (p = -0.1) + Pass@K-mixed",
        f"{_STEERED} --pass-at-k mixed --mix paper",
        Activity.MASKED,
    ),
    _row(
        "thr-passk-static",
        "THR (p = -0.1) + χ Pass@K + (1 - χ) GRPO",
        f"{_STEERED} --pass-at-k static --chi 0.2",
        Activity.MASKED,
    ),
    _row("kl-cov", "Cov-KL", "--method grpo --cov kl-cov", Activity.PENALISED),
    _row("clip-high", "Clip-High", "--method grpo --clip-high 0.28", Activity.UPPER_CLIP),
    _row("pos-only", "Pos Only", "--method pos-only", Activity.MASKED),
    _row("neg-only", "Neg Only", "--method neg-only", Activity.MASKED),
    _row("gspo", "GSPO", f"--method grpo {_GSPO}", Activity.RATIO),
    _row("gspo-thr", "GSPO + THR (p = 0)", f"--method thr --p 0 {_GSPO}", Activity.MASKED),
    _row("gspo-thr-p-0.1", "GSPO + THR (p = -0.1)", f"{_STEERED} {_GSPO}", Activity.MASKED),
    _row(
        "gspo-own-clip",
        "GSPO, its own clip, no KL",
        f"--method grpo {_GSPO} --clip-low 3e-4 --clip-high 4e-4 --kl-coef 0",
        Activity.CLIPPED,
    ),
    _row("nthr", "NTHR", "--method nthr", Activity.MASKED),
)
"""In the order of the tables."""

BASE, GRPO = "base", "grpo"
"""The rows that every other is compared with."""


def row_named(name: str) -> Row:
    """A row by its name.

    Raises:
        UsageError: no such row, with the closest one.
    """
    found = next((row for row in ROWS if row.name == name), None)
    if found is None:
        known = [row.name for row in ROWS]
        close = difflib.get_close_matches(name, known, n=1)
        raise UsageError(
            f"the replication has no row {name!r}",
            f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}",
        )
    return found
