"""Sampling with transformers: whole groups in left-padded batches, reproducible draws."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from thr_probe.errors import DataError
from thr_probe.policy.batches import TokenBudget, run_batches
from thr_probe.policy.policy import Policy
from thr_probe.sampling.cache import roomy_cache
from thr_probe.sampling.draws import draw, uniforms
from thr_probe.sampling.protocol import Completion, FinishReason, Prompt, SamplingSettings

DRAW_ELEMENTS = 2**24
"""Logits that are turned into float64 probabilities at once: 128 MiB per copy."""

COMPACT_BELOW = 0.8
"""Finished rows leave the batch once fewer than this share of it still runs; leaving costs a copy
of the cache."""


@dataclass(slots=True, kw_only=True)
class TransformersSampler:
    """Samples with the policy's own model.

    Each draw is the inverse CDF at a uniform number keyed by seed, prompt, rollout and position, so
    completions do not depend on what else is in the batch beyond the rounding of the logits. The
    same prompts in one call, on the same machine with the same number of threads, give bitwise the
    same completions on a CPU.
    """

    policy: Policy
    """What is sampled."""
    batch_tokens: int = 65536
    """Tokens of one batch, prompts, padding and completions at full length; halved with a warning
    when the GPU's memory runs out."""
    name: str = field(default="transformers", init=False)
    """Recorded in the manifest."""

    def sample(
        self, prompts: Sequence[Prompt], settings: SamplingSettings
    ) -> list[list[Completion]]:
        """A group per prompt, in the order given.

        Raises:
            DataError: an empty prompt, or one that leaves no room in the model's context.
            PrerequisiteError: a family with other state than keys and values.
        """
        for prompt in prompts:
            self._check(prompt)
        size = settings.group_size
        done: dict[int, Completion] = {}

        def run(batch: list[int]) -> None:
            rows = [(prompts[row // size], row % size) for row in batch]
            done.update(zip(batch, _Decoding(self.policy, rows, settings).run(), strict=True))

        budget = TokenBudget(self.batch_tokens)
        lengths = [
            len(prompt.token_ids) + settings.max_new_tokens
            for prompt in prompts
            for _ in range(size)
        ]
        run_batches(lengths, budget, run, together=size)
        self.batch_tokens = budget.tokens
        return [[done[place * size + row] for row in range(size)] for place in range(len(prompts))]

    def _check(self, prompt: Prompt) -> None:
        length, limit = len(prompt.token_ids), self.policy.max_length
        if length == 0:
            raise DataError(f"prompt {prompt.prompt_id} has no token")
        if limit is not None and length >= limit:
            raise DataError(
                f"prompt {prompt.prompt_id} has {length} tokens; {self.policy.name} takes {limit}, "
                "completion included",
                hint="leave such problems out, or use a model with a longer context",
            )


class _Decoding:
    """One batch on its way from prompts to completions.

    B counts the rows still in the batch, R all rows it began with.
    """

    @torch.no_grad()
    def __init__(
        self, policy: Policy, rows: Sequence[tuple[Prompt, int]], settings: SamplingSettings
    ) -> None:
        self.policy, self.settings = policy, settings
        self.known = inspect.signature(policy.model.forward).parameters
        device = policy.device
        lengths = torch.tensor([len(prompt.token_ids) for prompt, _ in rows], device=device)
        self.limit_R = torch.full_like(lengths, settings.max_new_tokens)
        if policy.max_length is not None:
            self.limit_R = self.limit_R.clamp(max=policy.max_length - lengths)
        self.steps = int(self.limit_R.max())
        self.width = int(lengths.max())
        self.uniforms_RT = self._uniforms(rows).to(device)
        self.eos_ids = torch.tensor(policy.eos_ids, device=device)
        self.ids_RT = torch.zeros(len(rows), self.steps, dtype=torch.long, device=device)
        self.logprobs_RT = torch.zeros(len(rows), self.steps, dtype=torch.float64, device=device)
        self.lengths_R = torch.zeros_like(lengths)
        # of the rows in the batch: which of R, whether still running, next position
        self.active_B = torch.arange(len(rows), device=device)
        self.running_B = torch.ones_like(self.active_B, dtype=torch.bool)
        self.position_B = lengths
        self.cache = roomy_cache(policy.model, self.width + self.steps)
        self.logits_BV = self._read_prompts([prompt for prompt, _ in rows])

    def _uniforms(self, rows: Sequence[tuple[Prompt, int]]) -> Float64[Tensor, "R T"]:
        seed, steps = self.settings.seed, self.steps
        return torch.from_numpy(
            np.stack([uniforms(seed, prompt.prompt_id, rollout, steps) for prompt, rollout in rows])
        )

    def _read_prompts(self, prompts: Sequence[Prompt]) -> Float[Tensor, "B V"]:
        """Read each prompt once, padded on the left; its rollouts share what was read."""
        places = {id(prompt): place for place, prompt in enumerate(prompts)}
        first = sorted(places.values())
        unique = [list(prompts[place].token_ids) for place in first]
        padding = [self.width - len(ids) for ids in unique]
        ids_PL = torch.tensor([[0] * pad + ids for pad, ids in zip(padding, unique, strict=True)])
        mask_PL = torch.arange(self.width) >= torch.tensor(padding)[:, None]
        mask_PL = mask_PL.long().to(self.policy.device)
        position_PL = (mask_PL.cumsum(dim=1) - 1).clamp(min=0)
        logits_PV = self._forward(ids_PL.to(self.policy.device), mask_PL, position_PL)
        place_B = torch.tensor(
            [first.index(places[id(prompt)]) for prompt in prompts], device=self.policy.device
        )
        self.cache.batch_select_indices(place_B)
        to_come = mask_PL.new_ones(len(prompts), self.steps)
        self.mask_BL = torch.cat([mask_PL[place_B], to_come], dim=1)
        return logits_PV[place_B]

    def _forward(
        self, ids: Int64[Tensor, "B L"], mask: Tensor, position: Int64[Tensor, "B L"]
    ) -> Float[Tensor, "B V"]:
        options = {"position_ids": position, "logits_to_keep": 1}
        options = {name: value for name, value in options.items() if name in self.known}
        logits: Tensor = self.policy.model(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            **options,
        ).logits
        return logits[:, -1]

    @torch.no_grad()
    def run(self) -> list[Completion]:
        """Draw until every row has ended."""
        for step in range(self.steps):
            ids_B = self._draw(step)
            if not bool(self.running_B.any()):
                break
            ids_B = self._compact(ids_B)
            read = self.mask_BL[:, : self.width + step + 1]
            self.logits_BV = self._forward(ids_B[:, None], read, self.position_B[:, None])
            # a row that has ended may still be in the batch: its position must stay a valid one
            limit = self.policy.max_length
            self.position_B = (self.position_B + 1).clamp(max=None if limit is None else limit - 1)
        return self._completions()

    def _draw(self, step: int) -> Int64[Tensor, " B"]:
        """One more token for every row; those that end with it stop running."""
        uniform_B = self.uniforms_RT[self.active_B, step].contiguous()
        rows = max(1, DRAW_ELEMENTS // self.logits_BV.shape[1])
        drawn = [
            draw(
                logits,
                uniform,
                temperature=self.settings.temperature,
                top_p=self.settings.top_p,
            )
            for logits, uniform in zip(
                self.logits_BV.split(rows), uniform_B.split(rows), strict=True
            )
        ]
        ids_B = torch.cat([ids for ids, _ in drawn])
        running, active = self.running_B, self.active_B[self.running_B]
        self.ids_RT[active, step] = ids_B[running]
        self.logprobs_RT[active, step] = torch.cat([logprob for _, logprob in drawn])[running]
        self.lengths_R[active] = step + 1
        ended_B = torch.isin(ids_B, self.eos_ids) | (step + 1 >= self.limit_R[self.active_B])
        self.running_B = running & ~ended_B
        return ids_B

    def _compact(self, ids_B: Int64[Tensor, " B"]) -> Int64[Tensor, " left"]:
        """Drop the rows that have ended, once enough have."""
        left = self.running_B.nonzero()[:, 0]
        if len(left) >= COMPACT_BELOW * len(ids_B):
            return ids_B
        self.cache.batch_select_indices(left)
        self.active_B, self.running_B = self.active_B[left], self.running_B[left]
        self.position_B, self.mask_BL = self.position_B[left], self.mask_BL[left]
        return ids_B[left]

    def _completions(self) -> list[Completion]:
        eos = set(self.policy.eos_ids)
        completions = []
        for ids, logprobs, length in zip(
            self.ids_RT.tolist(), self.logprobs_RT.tolist(), self.lengths_R.tolist(), strict=True
        ):
            stopped = ids[length - 1] in eos
            completions.append(
                Completion(
                    token_ids=tuple(ids[:length]),
                    logprobs=tuple(logprobs[:length]),
                    finish_reason=FinishReason.STOP if stopped else FinishReason.LENGTH,
                )
            )
        return completions
