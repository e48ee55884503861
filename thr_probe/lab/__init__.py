"""The desk-scale world: seeded problems and a small policy that ships with the package.

Nothing here loads torch; `thr_probe.lab.recipe` (which made the policy) does.
"""

from __future__ import annotations

from pathlib import Path

from thr_probe.lab.problems import LabProblem, lab_problems, prompt_text

__all__ = ["LabProblem", "lab_problems", "policy_directory", "prompt_text"]


def policy_directory() -> Path:
    """The shipped policy: a Hugging Face model directory (Qwen2 architecture, tokenizer, card)."""
    return Path(__file__).resolve().parent / "policy"
