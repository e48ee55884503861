"""What THRTrainer needs of TRL's batches and of the model, besides the trainer itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from thr_probe.errors import PrerequisiteError
from thr_probe.policy import Policy
from thr_probe.policy.families import capture_states, check_logits, logit_rule, relative_error
from thr_probe.probe import GroupScores

LEFT = ("prompt_ids", "prompt_mask")
"""Tensors that TRL pads on the left."""

RIGHT = (
    "completion_ids",
    "completion_mask",
    "advantages",
    "old_per_token_logps",
    "ref_per_token_logps",
    "sampling_per_token_logps",
    "importance_sampling_ratio",
)
"""Tensors that TRL pads on the right; a ratio of whole completions has one column."""

SCALARS = ("num_items_in_batch",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some whole groups of a batch."""

    output: dict[str, Any]
    """What TRL's updates read, its advantages per token."""
    scores: Sequence[GroupScores | None]
    """THR of each group; None where it teaches nothing."""
    group_size: int
    """Completions of a group."""

    @property
    def num_groups(self) -> int:
        """How many."""
        return len(self.scores)

    def useful(self) -> Part:
        """Without the groups that teach nothing."""
        return self.chosen([place for place, found in enumerate(self.scores) if found is not None])

    def first(self, count: int) -> Part:
        """The first groups."""
        return self.chosen(list(range(min(count, self.num_groups))))

    def chosen(self, places: list[int]) -> Part:
        """Some of the groups.

        Raises:
            PrerequisiteError: TRL's batch holds something that is not known.
        """
        unknown = sorted(set(self.output) - {*LEFT, *RIGHT, *SCALARS})
        if unknown:
            raise PrerequisiteError(f"TRL's batch holds what THRTrainer does not know: {unknown}")
        rows = [place * self.group_size + row for place in places for row in range(self.group_size)]
        return Part(
            output={
                name: value if name in SCALARS else value[rows]
                for name, value in self.output.items()
            },
            scores=[self.scores[place] for place in places],
            group_size=self.group_size,
        )


def joined(first: Part, second: Part, pad_id: int) -> Part:
    """The groups of two parts, padded to one width."""
    output: dict[str, Any] = {}
    for name, value in first.output.items():
        if name in SCALARS:
            output[name] = value
            continue
        pair = value, second.output[name]
        width = max(part.shape[1] for part in pair)
        fill = pad_id if name.endswith("_ids") else 0
        output[name] = torch.cat(
            [_widened(part, width, fill, on_the_left=name in LEFT) for part in pair]
        )
    return Part(output=output, scores=[*first.scores, *second.scores], group_size=first.group_size)


def _widened(
    value: Shaped[Tensor, "B L"], width: int, fill: int, *, on_the_left: bool
) -> Shaped[Tensor, "B W"]:
    missing = width - value.shape[1]
    padding = (missing, 0) if on_the_left else (0, missing)
    return torch.nn.functional.pad(value, padding, value=fill)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """The model without dropout and without checkpoints of activations, for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@dataclass(slots=True, kw_only=True)
class TrainedPolicy(Policy):
    """The model as TRL trains it."""

    precision: Callable[[], AbstractContextManager[Any]] = nullcontext
    """What its forward passes run in: mixed precision, where TRL was asked for it."""

    def states(self, input_ids: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """As `Policy.states`."""
        with self.precision():
            return Policy.states(self, input_ids)


def policy_of(
    model: Any, tokenizer: Any, precision: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> TrainedPolicy:
    """TRL's model, an adapter on it included, as a policy; its logits are checked.

    Args:
        model: a transformers model, or one of PEFT around it.
        tokenizer: its tokenizer.
        precision: what forward passes run in.

    Raises:
        PrerequisiteError: a family that is refused, an adapter on the unembedding, or one that
            puts tokens of its own before the prompt.
    """
    adapters = getattr(model, "peft_config", {})
    if any(getattr(adapter, "is_prompt_learning", False) for adapter in adapters.values()):
        raise PrerequisiteError(
            "an adapter that learns a prompt puts states of its own before the text",
            hint="use LoRA",
        )
    # an adapter of this kind changes the layers within: the model inside runs with it
    inner = model.get_base_model() if adapters else model
    head = inner.get_output_embeddings()
    if type(head).__module__.startswith("peft."):
        raise PrerequisiteError(
            "the adapter changes the unembedding itself",
            hint="leave lm_head out of target_modules and modules_to_save: THR is about a fixed W",
        )
    rule = logit_rule(inner.config)
    with evaluating(inner):
        check_logits(inner, rule)
    return TrainedPolicy(
        model=inner,
        tokenizer=tokenizer,
        name=type(inner).__name__,
        rule=rule,
        precision=precision,
    )


@torch.no_grad()
def check_fused_head(policy: Policy, temperature: float) -> None:
    """Compare TRL's own log-probabilities, which do not come from the model's logits, with these.

    Raises:
        PrerequisiteError: they differ, as for families whose logits TRL does not know.
    """
    model: Any = policy.model
    head = policy.head()
    # logits of a small model are too small to bend: what TRL reads is compared as well
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    if head.softcap is not None and cap != head.softcap:
        raise _unlike(policy, f"do not soft-cap at {head.softcap:g}")
    ids = torch.linspace(0, len(head.weight_VD) - 1, 8, device=policy.device).long()[None]
    with evaluating(model):
        with capture_states(model, keep_logits=True):
            logits = model(input_ids=ids, use_cache=False).logits.float()
        fused = model(input_ids=ids, labels=ids, fused_lm_head=True).log_probs.float()
    expected = torch.log_softmax(logits / temperature, dim=-1)[:, :-1]
    expected = expected.gather(2, ids[:, 1:, None])[..., 0]
    error = relative_error(fused, expected)
    if not error <= (1e-3 if policy.dtype == torch.float32 else 5e-2):
        raise _unlike(policy, f"differ from the model's by {error:.2%}")


def _unlike(policy: Policy, difference: str) -> PrerequisiteError:
    return PrerequisiteError(
        f"TRL's log-probabilities of family {policy.family!r} {difference}",
        hint="TRL computes them from its own list of families; train with thr-probe train",
    )
