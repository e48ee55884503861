"""Saved groups as the trainer holds them after its no-grad pass, a step at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from thr_probe import score
from thr_probe.analysis.stream import Batch, CompletionStream
from thr_probe.errors import DataError
from thr_probe.policy import Policy
from thr_probe.preview.options import PreviewOptions
from thr_probe.probe import GroupScores
from thr_probe.problems import Problem, Verdict, VerifyStatus
from thr_probe.processes import World
from thr_probe.prompts import TokenizedProblem
from thr_probe.sampling import Completion, FinishReason
from thr_probe.traces import Run
from thr_probe.train.clock import Clock
from thr_probe.train.rollouts import Group
from thr_probe.train.rules import completion_advantage
from thr_probe.train.scoring import ScoredGroup, score_group


@dataclass(slots=True, kw_only=True)
class SavedSteps:
    """The mixed groups of a run whose completions have an advantage, step by step.

    A step is what training stored as one, else the next `prompts` groups: thresholds over a step
    (entropy, covariance) then mean what they mean in training, and memory holds one step.
    """

    run: Run
    """The trace."""
    options: PreviewOptions
    """Method and step size."""
    stream: CompletionStream
    """The kept completions."""
    policy: Policy | None
    """Replays the groups for NTHR's score; None: no NTHR."""
    num_without_advantage: int = 0
    """Mixed groups whose advantages are all 0 under the rule, as Pass@K's with few wrong ones."""
    logprob_gaps: list[float] = field(default_factory=list)
    """Of the groups replayed: mean distance of log pi from what the trace holds, nats."""

    @classmethod
    def of(cls, run: Run, options: PreviewOptions) -> SavedSteps:
        """Open a run; loads the policy where NTHR is asked for."""
        columns = ["thr", "entropy", "logprob"]
        columns += ["token_ids"] if options.needs_nthr else []
        stream = CompletionStream(
            run, columns, completion_columns=["correct"], score_id=options.score_id
        )
        policy = None
        if options.needs_nthr and run.score_ids:
            policy = score.policy_of(options.config, World.from_environment())
            score.check_tokenizer(run, policy)
        return cls(run=run, options=options, stream=stream, policy=policy)

    def __iter__(self) -> Iterator[list[tuple[int, ScoredGroup]]]:
        """Each step's groups with their index in the stream."""
        waiting: list[tuple[int, ScoredGroup]] = []
        current: int | None = None
        for index, step, scored in self._groups():
            is_over = len(waiting) == self.options.config.prompts if step is None else False
            if waiting and (step != current or is_over):
                yield waiting
                waiting = []
            current = step
            scored.group.order = len(waiting)
            waiting.append((index, scored))
        if waiting:
            yield waiting

    def _groups(self) -> Iterator[tuple[int, int | None, ScoredGroup]]:
        rule = completion_advantage(self.options.config)
        tasks = _tasks(self.run)
        for batch in self.stream:
            starts = np.flatnonzero(np.diff(batch.group_R, prepend=-1)).tolist()
            questions, of_group = self.stream.questions, self.stream.question_of_group
            steps = self.stream.step_of_group
            for start, stop in zip(starts, [*starts[1:], len(batch.group_R)], strict=True):
                index = int(batch.group_R[start])
                task = tasks[questions[of_group[index]]]
                group = _group(batch, slice(start, stop), task)
                group.advantage_G = rule(torch.tensor(group.correct))
                if not bool((group.advantage_G != 0).any()):
                    self.num_without_advantage += 1
                    continue
                yield index, steps[index], self._scored(batch, slice(start, stop), group)

    def _scored(self, batch: Batch, rows: slice, group: Group) -> ScoredGroup:
        """The group as `train.scoring.score_group` leaves it, from the trace."""
        lengths_G = torch.tensor(batch.lengths[rows])
        index_N = torch.arange(len(lengths_G)).repeat_interleave(lengths_G)
        first, last = int(batch.offsets[rows.start]), int(batch.offsets[rows.stop])
        thr_N, entropy_N, logprob_N = (
            torch.tensor(batch.tokens[name][first:last]) for name in ("thr", "entropy", "logprob")
        )
        config = self.options.config
        stored = float(batch.tau_R[rows.start])
        scores = GroupScores(
            logprob_N=logprob_N,
            entropy_N=entropy_N,
            thr_N=thr_N,
            thr_error_N=None,
            thr_self_N=None,
            thr_within_N=None,
            tau=stored if config.tau == "auto" else float(config.tau),
            q=float(np.mean(group.correct)),
            num_correct=sum(group.correct),
            advantage_G=group.advantage_G,
            retained_G=torch.zeros(len(lengths_G)),
            lengths_G=lengths_G,
            num_recomputed=0,
            num_undecided=0,
        )
        scored = ScoredGroup(
            group=group,
            lengths_G=lengths_G,
            old_logprob_N=logprob_N,
            entropy_N=entropy_N,
            base_N=group.advantage_G[index_N],
            incorrect_N=~torch.tensor(group.correct)[index_N],
            scores=scores,
        )
        if self.policy is not None:
            self._add_nthr(scored, self.policy)
        return scored

    def _add_nthr(self, scored: ScoredGroup, policy: Policy) -> None:
        """NTHR's score and threshold by the trainer's own pass."""
        config = replace(self.options.config, method="nthr", p=0.0, keep_entropy=0.0)
        replayed = score_group(policy, scored.group, config, Clock(policy.device), traced=False)
        scored.nthr_score_N, scored.nthr_tau = replayed.nthr_score_N, replayed.nthr_tau
        gap_N = (replayed.old_logprob_N - scored.old_logprob_N).abs()
        self.logprob_gaps.append(float(gap_N.mean()))


def _tasks(run: Run) -> dict[str, TokenizedProblem]:
    """The run's problems with their prompts, by prompt_id; no token ids where there are none."""
    tasks = {}
    for row in run.problems().to_dict("records"):
        ids = row.get("prompt_token_ids")
        problem = Problem(
            prompt_id=row["prompt_id"],
            dataset=row["dataset"],
            level=None,  # of no use here
            question=row["question"],
            prompt_text=row["prompt_text"],
            answer=row["answer"],
        )
        token_ids = ids.tolist() if isinstance(ids, np.ndarray) else []
        tasks[problem.prompt_id] = TokenizedProblem(problem=problem, token_ids=token_ids)
    return tasks


def _group(batch: Batch, rows: slice, task: TokenizedProblem) -> Group:
    """Some completions of a batch as the trainer's group."""
    verdicts = [
        Verdict(
            reward=float(correct), correct=bool(correct), extracted=None, status=VerifyStatus.OK
        )
        for correct in batch.completions["correct"][rows]
    ]
    completions = []
    if "token_ids" in batch.tokens:
        _check_replayable(batch, task)
        completions = [
            Completion(
                token_ids=batch.tokens["token_ids"][start:stop].tolist(),
                logprobs=[],
                finish_reason=FinishReason.STOP,
            )
            for start, stop in zip(
                batch.offsets[rows.start : rows.stop],
                batch.offsets[rows.start + 1 : rows.stop + 1],
                strict=True,
            )
        ]
    return Group(
        task=task,
        completions=completions,
        texts=[],
        verdicts=verdicts,
        seed=0,
        order=-1,
        advantage_G=torch.zeros(len(verdicts)),
    )


def _check_replayable(batch: Batch, task: TokenizedProblem) -> None:
    if not task.token_ids or len(batch.tokens["token_ids"]) != len(batch.tokens["thr"]):
        raise DataError(
            f"prompt {task.problem.prompt_id}: its token ids were not stored, so that NTHR's "
            "score, which a policy has to compute, cannot be had",
            "leave --nthr out, or collect the run with thr-probe",
        )
