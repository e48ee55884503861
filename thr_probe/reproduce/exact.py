"""The exact check of THR(p) on a question of the lab: it holds whatever the training shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from thr_probe.lab import LabProblem, lab_problems, prompt_text
from thr_probe.policy import Policy, load_policy
from thr_probe.problems import load_verifier
from thr_probe.sampling import Prompt, SamplingSettings
from thr_probe.sampling.hf import TransformersSampler
from thr_probe.train.first_order import first_order_check

QUESTIONS = 3
"""Questions that are checked."""

_LOOKED_AT = 40  # problems of the lab among which they are searched
_GROUP_SIZE = 8


def exact_check(*, num_questions: int = QUESTIONS, seed: int = 0) -> pd.DataFrame:
    """Measured and predicted change of F for p in {-.5, 0, .5}, per unit of step size.

    The questions are the first held-out ones of the lab for which the policy that comes with the
    package gives right and wrong completions.

    Returns:
        question, num_correct, p, step_size, net, slope, predicted, measured, error, second_order;
        error and second_order as shares of max(|net|, |slope|).
    """
    policy = load_policy("lab", device="cpu")
    lines = []
    for problem, prompt_ids, completions, correct in _mixed(policy, num_questions, seed):
        for row in first_order_check(policy, prompt_ids, completions, correct):
            lines.append(
                {
                    "question": problem.question,
                    "num_correct": sum(correct),
                    "p": row.p,
                    "step_size": row.step_size,
                    "net": row.steering.net,
                    "slope": row.steering.slope,
                    "predicted": row.predicted,
                    "measured": row.measured,
                    "error": row.error,
                    "second_order": row.second_order,
                }
            )
    return pd.DataFrame(lines)


def _mixed(
    policy: Policy, num_questions: int, seed: int
) -> Iterator[tuple[LabProblem, Sequence[int], list[Sequence[int]], list[bool]]]:
    """The first questions that are answered rightly and wrongly, with their completions."""
    sampler = TransformersSampler(policy=policy)
    settings = SamplingSettings(group_size=_GROUP_SIZE, max_new_tokens=160, seed=seed)
    found = 0
    with load_verifier("math", num_workers=1) as verifier:
        for problem in lab_problems("test", _LOOKED_AT):
            ids = policy.encode_prompt(prompt_text(problem.question))
            prompt = Prompt(prompt_id=problem.question, token_ids=ids)
            (rollouts,) = sampler.sample([prompt], settings)
            completions = [rollout.token_ids for rollout in rollouts]
            texts = [policy.decode(tokens) for tokens in completions]
            verdicts = verifier.verify(texts, [problem.answer] * len(texts))
            correct = [bool(verdict.correct) for verdict in verdicts]
            if 1 < sum(correct) < len(correct) - 1:
                found += 1
                yield problem, ids, list(completions), correct
            if found == num_questions:
                return
