"""Groups of completions: sampled, decoded, verified, and their rows in the trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from thr_probe.policy import AnyPolicy
from thr_probe.problems import Verdict, Verifier
from thr_probe.prompts import TokenizedProblem
from thr_probe.sampling import Completion, FinishReason, Sampler, SamplingSettings
from thr_probe.traces.token_table import write_occurring_tokens


@dataclass(slots=True, kw_only=True)
class SampledGroup:
    """The G rollouts of one prompt."""

    task: TokenizedProblem
    """The problem."""
    completions: list[Completion]
    """G of them."""
    texts: list[str]
    """Each decoded."""
    verdicts: list[Verdict]
    """The verifier's."""
    seed: int
    """That the completions were drawn with."""

    @property
    def correct(self) -> list[bool]:
        """Which completions are correct."""
        return [verdict.correct for verdict in self.verdicts]

    @property
    def token_ids(self) -> list[Sequence[int]]:
        """The ids of each completion."""
        return [completion.token_ids for completion in self.completions]

    @property
    def num_tokens(self) -> int:
        """Completion tokens."""
        return sum(len(completion.token_ids) for completion in self.completions)

    def rows(self, *, verifier: str, step: int | None = None) -> list[dict[str, object]]:
        """The rows of the rollouts table.

        Args:
            verifier: its name.
            step: of training; None outside.
        """
        judged = zip(self.completions, self.texts, self.verdicts, strict=True)
        return [
            {
                "step": step,
                "prompt_id": self.task.problem.prompt_id,
                "rollout_id": rollout,
                "text": text,
                "token_ids": completion.token_ids,
                "sampler_logprobs": completion.logprobs,
                "finish_reason": completion.finish_reason,
                "reward": verdict.reward,
                "correct": verdict.correct,
                "extracted": verdict.extracted,
                "verifier": verifier,
                "verify_status": verdict.status,
                "ids_source": completion.ids_source,
                "seed": self.seed,
            }
            for rollout, (completion, text, verdict) in enumerate(judged)
        ]


def sample_groups(
    policy: AnyPolicy,
    sampler: Sampler,
    verifier: Verifier,
    tasks: Sequence[TokenizedProblem],
    settings: SamplingSettings,
    *,
    truncated_wrong: bool = False,
) -> list[SampledGroup]:
    """Sample a group for every problem and have all completions judged.

    Args:
        policy: decodes what the sampler drew.
        sampler: of the same policy.
        verifier: judges.
        tasks: the problems; none yields no group.
        settings: group size, temperature, limit, seed.
        truncated_wrong: a completion that the limit cut off is wrong, whatever it says (METHOD 8).
    """
    if not tasks:
        return []
    sampled = sampler.sample([task.prompt for task in tasks], settings)
    texts = [
        [policy.decode(item.token_ids) if item.text is None else item.text for item in completions]
        for completions in sampled
    ]
    answers = [
        task.problem.accepted_answers
        for task, completions in zip(tasks, sampled, strict=True)
        for _ in completions
    ]
    verdicts = iter(verifier.verify([text for group in texts for text in group], answers))
    return [
        SampledGroup(
            task=task,
            completions=completions,
            texts=decoded,
            verdicts=[
                _judged(completion, next(verdicts), truncated_wrong=truncated_wrong)
                for completion in completions
            ],
            seed=settings.seed,
        )
        for task, completions, decoded in zip(tasks, sampled, texts, strict=True)
    ]


def _judged(completion: Completion, verdict: Verdict, *, truncated_wrong: bool) -> Verdict:
    if truncated_wrong and completion.finish_reason is FinishReason.LENGTH:
        return replace(verdict, reward=0.0, correct=False)
    return verdict


def write_token_table(run_path: Path, policy: AnyPolicy) -> None:
    """`tokens.parquet`: bytes and text of every id that occurs in a run's completions."""
    write_occurring_tokens(run_path, policy.token_rows)
