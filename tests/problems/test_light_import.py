"""Importing the room loads nothing heavy, and judging numbers neither."""

from __future__ import annotations

import subprocess
import sys


def test_importing_and_judging_numbers_loads_neither_torch_nor_sympy() -> None:
    code = (
        "import sys; from thr_probe.problems import MathVerifier, load_problems;"
        "load_problems('lab', max_prompts=2);"
        "verdict = MathVerifier().verify(['\\\\boxed{3/6}'], ['0.5'])[0]; assert verdict.correct;"
        "heavy = {'torch', 'transformers', 'math_verify', 'sympy', 'pandas'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
