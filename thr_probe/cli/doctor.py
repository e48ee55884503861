"""`thr-probe doctor`: what is installed, and what works here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from thr_probe.cli.output import Format, FormatOption, print_rows
from thr_probe.errors import PrerequisiteError

_REINSTALL = 'pip install --force-reinstall --no-deps "thr_probe"'


def doctor_command(
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Versions and settings only; import and run nothing."),
    ] = False,
    format: FormatOption = Format.HUMAN,
) -> None:
    """What is installed, what works here, and how to get what is missing.

    Exit code 0 if the base works, with or without extras; 4 if something that it needs does not.
    """
    from thr_probe.doctor import Status, Trial, examine

    trials = [
        Trial(check="lab policy", function=f"{__name__}:run_lab", advice=_REINSTALL),
        Trial(
            check="verifier",
            function=f"{__name__}:run_verifier",
            advice="pip install --force-reinstall math-verify sympy latex2sympy2-extended",
        ),
        Trial(
            check="fonts",
            function=f"{__name__}:find_font",
            advice="pip install --force-reinstall matplotlib: the font comes with it",
        ),
    ]
    checks = examine(trials, quick=quick)
    print_rows([{**asdict(check), "status": str(check.status)} for check in checks], format)
    broken = [check.check for check in checks if check.status is Status.BROKEN]
    if broken:
        raise PrerequisiteError(
            f"the base does not work: {', '.join(broken)}", "the advice is in the rows above"
        )


def run_lab() -> str:
    """Load the policy in the package and let it answer a problem."""
    from thr_probe.lab import lab_problems, prompt_text
    from thr_probe.policy import load_policy
    from thr_probe.sampling import Prompt, SamplingSettings
    from thr_probe.sampling.hf import TransformersSampler

    policy = load_policy("lab", device="cpu")
    ids = policy.encode_prompt(prompt_text(lab_problems("train", 1)[0].question))
    settings = SamplingSettings(group_size=1, temperature=0.0, max_new_tokens=256)
    prompt = Prompt(prompt_id="doctor", token_ids=ids)
    ((completion,),) = TransformersSampler(policy=policy).sample([prompt], settings)
    if "\\boxed" not in policy.decode(completion.token_ids):
        raise PrerequisiteError("the lab's policy does not write answers: its files are damaged")
    return f"loads and writes an answer of {len(completion.token_ids)} tokens"


def run_verifier() -> str:
    """An easy comparison, and one that math-verify has to make."""
    from thr_probe.problems import MathVerifier

    with MathVerifier(num_workers=1, limit_s=20.0) as verifier:
        right, wrong = verifier.verify(
            [r"\boxed{(x-1)(x+1)}", r"\boxed{x^2+1}"], [r"x^2-1", r"x^2-1"]
        )
    if not right.correct or wrong.correct:
        raise PrerequisiteError("math-verify misjudges x^2 - 1")
    return "math-verify compares in its own process"


def find_font() -> str:
    """The font of the figures, which matplotlib brings along."""
    from matplotlib.font_manager import findfont

    return f"DejaVu Sans at {findfont('DejaVu Sans', fallback_to_default=False)}"
