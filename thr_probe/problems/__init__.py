"""From a data set to prompts, and from completions to verdicts."""

from __future__ import annotations

from thr_probe.problems.datasets import load_problems
from thr_probe.problems.extract import extract_answer
from thr_probe.problems.problem import Problem, ProblemSet
from thr_probe.problems.templates import TEMPLATES, render_prompt
from thr_probe.problems.verifier import (
    MathVerifier,
    PluginVerifier,
    Verdict,
    Verifier,
    VerifyStatus,
    load_verifier,
)

__all__ = [
    "TEMPLATES",
    "MathVerifier",
    "PluginVerifier",
    "Problem",
    "ProblemSet",
    "Verdict",
    "Verifier",
    "VerifyStatus",
    "extract_answer",
    "load_problems",
    "load_verifier",
    "render_prompt",
]
