"""THR inside TRL: GRPOTrainer with the token advantages of Equations 4 and 5.

How it differs from `thr-probe train`, besides TRL's own machinery: the advantage of a completion is
TRL's (`scale_rewards`: sample deviation + 1e-4 by default, where Equation 1 has the population's),
the loss is summed over tokens as `loss_type` says (none of TRL's is the mean over each group's
tokens), and prompts that take the place of dropped groups are drawn process by process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thr_probe.core.advantages import thr_advantages
from thr_probe.core.thr import dominant_mask
from thr_probe.errors import DataError, IncompleteError, PrerequisiteError
from thr_probe.integrations.trl_options import (
    SUPPORTED_TRL,
    TRL_HINT,
    THROptions,
    check_arguments,
    check_groups,
    check_trainer,
    check_version,
)
from thr_probe.integrations.trl_parts import Part, check_fused_head, evaluating, joined, policy_of
from thr_probe.policy import Policy
from thr_probe.probe import GroupScores, score_group

try:
    import trl
    from accelerate.utils import gather_object
    from trl import GRPOConfig, GRPOTrainer
except ImportError as error:
    raise PrerequisiteError(
        f"thr_probe.integrations.trl needs TRL {SUPPORTED_TRL}.x: {error}", hint=TRL_HINT
    ) from error

__all__ = ["THROptions", "THRTrainer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weighed:
    """The rows of one group, weighed."""

    advantage: Sequence[Tensor]
    """Of each completion's tokens; 0 throughout in a group that teaches nothing."""
    scores: GroupScores | None
    """THR; None in a group that teaches nothing."""


class THRTrainer(GRPOTrainer):
    """GRPOTrainer whose tokens are weighed by THR(p): 1[|THR| > tau] (1 + sign(THR) p) A.

    After each generation one more forward pass without gradients reads, group by group, the states
    before the unembedding; THR, tau and weights come from them and stay fixed for all updates that
    use the batch. Groups whose rewards all agree, and those without a correct completion, teach
    nothing; with dynamic sampling other prompts are generated in their place until every process
    has its number of groups. Evaluation is TRL's: rewards are logged, no THR is computed.

    Args:
        model, reward_funcs, args, others: as GRPOTrainer.
        thr: the options of THR; those of the paper by default.

    Raises:
        PrerequisiteError: a TRL that is not known, or a model family that is refused.
        UsageError: options of TRL that do not go with THR, by name.
    """

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: GRPOConfig | None = None,
        *,
        thr: THROptions | None = None,
        **others: Any,
    ) -> None:
        check_version(trl.__version__)
        if args is not None:
            check_arguments(args)
        super().__init__(model=model, reward_funcs=reward_funcs, args=args, **others)
        self.thr = thr or THROptions()
        check_arguments(self.args)
        check_trainer(self, self.thr, self.reward_func_names)
        rows = self.args.per_device_train_batch_size * self.args.steps_per_generation
        check_groups(rows, self.num_generations, self.accelerator.num_processes)
        self._probe = replace(self.thr.probe, temperature=self.temperature)
        self._policy: Policy = policy_of(self.model, self._tokenizer, self.accelerator.autocast)
        check_fused_head(self._policy, self.temperature)

    def _generate(self, prompts: list[Any]) -> Any:
        made = super()._generate(prompts)
        self._sampled: tuple[list[list[int]], list[list[int]]] = made[0], made[1]
        return made

    def _calculate_rewards(self, *given: Any, **named: Any) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(*given, **named)
        self._rewards = rewards
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if not self.model.training:
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
            self._log_columns([None] * len(inputs), [None] * len(inputs))
            return output
        wanted = len(inputs) // self.num_generations
        kept, generated = self._part(inputs), wanted
        rounds = 1
        if self.thr.dynamic_sampling:
            kept = kept.useful()
            prompts = [row["prompt"] for row in inputs[:: self.num_generations]]
            used = {repr(prompt) for prompt in gather_object(prompts)}
            while missing := self._largest(wanted - kept.num_groups):
                if rounds == self.thr.max_rounds:
                    raise self._exhausted(kept.num_groups, wanted, generated)
                rows = self._other_rows(missing, used, rounds)
                kept = joined(kept, self._part(rows).useful(), self._tokenizer.pad_token_id)
                generated, rounds = generated + missing, rounds + 1
            kept = kept.first(wanted)
        self._count(kept, generated, rounds)
        counted = self.accelerator.gather(kept.output["completion_mask"].sum()).sum()
        return kept.output | {"num_items_in_batch": counted}

    def _part(self, inputs: list[dict[str, Any]]) -> Part:
        """Generate and score some whole groups, and weigh their tokens."""
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        first = self.accelerator.process_index * len(inputs)
        rewards = self._rewards[first : first + len(inputs)]
        base = output["advantages"]
        size = self.num_generations
        with evaluating(self.model):
            groups = [
                self._weighed(slice(start, start + size), rewards, base)
                for start in range(0, len(inputs), size)
            ]
        advantage = torch.zeros_like(output["completion_mask"], dtype=torch.float32)
        for row, tokens in enumerate(part for group in groups for part in group.advantage):
            advantage[row, : len(tokens)] = tokens.to(advantage)
        scores = [group.scores for group in groups]
        self._log_columns(
            [None if found is None else found.tau for found in scores for _ in range(size)],
            [
                share
                for found in scores
                for share in ([None] * size if found is None else found.retained_G.tolist())
            ],
        )
        return Part(output=output | {"advantages": advantage}, scores=scores, group_size=size)

    def _weighed(self, rows: slice, rewards: Tensor, base: Tensor) -> _Weighed:
        """THR(p) of one group."""
        prompts, completions = (ids[rows] for ids in self._sampled)
        if any(prompt != prompts[0] for prompt in prompts):
            raise DataError("the completions of a group answer different prompts")
        correct = self._correct(rewards[rows])
        total = (rewards[rows] * self.reward_weights.to(rewards)).nansum(dim=1)
        spread = total.max() - total.min()
        # as TRL tells groups of one reward: what is left of rounding is no difference
        if spread <= 1e-6 or not any(correct):
            return _Weighed(
                advantage=[torch.zeros(len(completion)) for completion in completions], scores=None
            )
        scores = score_group(self._policy, prompts[0], completions, correct, options=self._probe)
        base_N = base[rows].cpu().double().repeat_interleave(scores.lengths_G)
        weighed_N = thr_advantages(base_N, scores.thr_N.double(), scores.tau, self.thr.p)
        return _Weighed(advantage=list(weighed_N.split(scores.lengths_G.tolist())), scores=scores)

    def _correct(self, rewards: Tensor) -> list[bool]:
        """Which completions of a group are correct; one that no function could judge is not."""
        if self.thr.correct_by is None:
            value = (rewards * self.reward_weights.to(rewards)).nansum(dim=1)
        else:
            value = rewards[:, self.reward_func_names.index(self.thr.correct_by)]
        judged = ~torch.isnan(rewards).all(dim=1)
        found: list[bool] = (judged & (value > self.thr.correct_above)).tolist()
        return found

    def _largest(self, number: int) -> int:
        """The largest of the processes' numbers: all take part in every round."""
        mine = torch.tensor([number], device=self.accelerator.device)
        return int(self.accelerator.gather(mine).max())

    def _other_rows(self, count: int, used: set[str], rounds: int) -> list[dict[str, Any]]:
        """This process's share of prompts that were not generated for this batch, repeated.

        The draw depends on the seed, the step and the round alone.
        """
        key = (self.args.seed, self.state.global_step, self._step, rounds)
        order = np.random.default_rng(key).permutation(len(self.train_dataset))
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        taken: list[dict[str, Any]] = []
        for place in order.tolist():
            row = self.train_dataset[place]
            if repr(row["prompt"]) not in used:
                used.add(repr(row["prompt"]))
                taken.append(row)
            if len(taken) == count * world:
                return [
                    dict(row) for row in taken[rank::world] for _ in range(self.num_generations)
                ]
        raise IncompleteError(
            f"{count * world} other prompts are needed in place of groups that teach nothing, and "
            f"the dataset has {len(taken)} that were not yet tried for this batch",
            "take problems that the policy solves sometimes, more of them, or a smaller batch",
        )

    def _exhausted(self, kept: int, wanted: int, generated: int) -> IncompleteError:
        return IncompleteError(
            f"{kept} of {wanted} groups have completions that differ in reward, one of them "
            f"correct, after {self.thr.max_rounds} rounds and {generated} groups on this process",
            "take problems that the policy solves sometimes, more generations, or raise max_rounds",
        )

    def _log_columns(self, tau: Sequence[float | None], retained: Sequence[float | None]) -> None:
        """Columns of TRL's table of completions, row by row beside its own."""
        for name, values in (("thr_tau", tau), ("thr_retained", retained)):
            self._logs["extra"][name].extend(gather_object(list(values)))

    def _count(self, kept: Part, generated: int, rounds: int) -> None:
        """THR's metrics of a batch, over all processes."""
        scores = [found for found in kept.scores if found is not None]
        dominant = [dominant_mask(found.thr_N, found.tau) for found in scores]
        exploiting = [
            (found.thr_N > 0) & mask for found, mask in zip(scores, dominant, strict=True)
        ]
        finite = [found.tau for found in scores if math.isfinite(found.tau)]
        own = torch.tensor(
            [
                sum(int(mask.sum()) for mask in dominant),
                sum(int(mask.sum()) for mask in exploiting),
                sum(len(mask) for mask in dominant),
                sum(finite),
                len(finite),
                sum(found.tau <= 0 for found in scores),
                len(scores),
                generated,
            ],
            dtype=torch.float64 if self.accelerator.device.type != "mps" else torch.float32,
            device=self.accelerator.device,
        )
        total = self.accelerator.gather(own[None]).sum(dim=0).tolist()
        kept_tokens, up, tokens, tau, with_tau, nonpositive, groups, made = total
        shares = {
            "thr/retained": (kept_tokens, tokens),
            "thr/positive": (up, kept_tokens),
            "thr/tau": (tau, with_tau),
            "thr/tau_nonpositive": (nonpositive, groups),
            "thr/groups_useful": (groups, made),
            "thr/rounds": (rounds, 1),
        }
        for name, (part, whole) in shares.items():
            self._metrics["train"][name].append(part / whole if whole else float("nan"))
