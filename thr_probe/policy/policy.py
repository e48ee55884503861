"""A Hugging Face causal language model as policy: its head and the states it predicts from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import (
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from thr_probe.core.head import Head
from thr_probe.errors import DataError
from thr_probe.policy.batches import TokenBudget, run_batches
from thr_probe.policy.families import (
    LogitRule,
    capture_states,
    check_logits,
    logit_rule,
    unembedding,
)
from thr_probe.policy.tokens import (
    TokenRow,
    decode,
    encode_prompt,
    token_rows,
    tokenizer_digest,
)


@dataclass(slots=True, kw_only=True)
class Policy:
    """A causal language model, its tokenizer, and how its logits come from W h.

    Build one with `load_policy` or, around a model in memory, with `as_policy`.
    """

    model: PreTrainedModel
    """In evaluation mode, all on one device."""
    tokenizer: PreTrainedTokenizerBase
    """Of the same vocabulary."""
    name: str
    """What the user called it: "lab", a directory, a hub id."""
    revision: str | None = None
    """Commit on the hub, where known."""
    rule: LogitRule = field(default_factory=LogitRule)
    """The family's scale and soft-cap."""
    ceiling: int | None = None
    """Tokens per batch that were left when the GPU's memory last ran out."""

    @property
    def family(self) -> str:
        """The model type of its config, `qwen2` for instance."""
        return str(self.model.config.get_text_config().model_type)

    @property
    def device(self) -> torch.device:
        """Where the unembedding lies."""
        return unembedding(self.model).weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the unembedding."""
        return unembedding(self.model).weight.dtype

    @property
    def tokenizer_digest(self) -> str:
        """sha256 of the tokenizer's serialised state."""
        return tokenizer_digest(self.tokenizer)

    @property
    def weights_digest(self) -> str:
        """sha256 over the ends of every weight: another checkpoint has another one.

        512 numbers of each, so that it costs nothing beside loading; not a check of every bit.
        """
        digest = hashlib.sha256()
        for name, weight in sorted(self.model.named_parameters()):
            digest.update(f"{name} {tuple(weight.shape)}".encode())
            digest.update(ends_of(weight.detach()).float().cpu().numpy().tobytes())
        return digest.hexdigest()

    @property
    def max_length(self) -> int | None:
        """Most tokens, prompt and completion together, that the model takes; None: no limit."""
        return context_limit(self.model.config)

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end a completion: the generation config's and the tokenizer's own."""
        return ending_ids(getattr(self.model, "generation_config", None), self.tokenizer)

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a prompt, with the tokenizer's own beginning-of-sequence token if it has one."""
        return encode_prompt(self.tokenizer, text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a completion, without special tokens."""
        return decode(self.tokenizer, ids)

    def token_rows(self, ids: Iterable[int]) -> list[TokenRow]:
        """(token_id, bytes, text) of each id."""
        return token_rows(self.tokenizer, ids)

    def head(self, temperature: float = 1.0) -> Head:
        """The map from states to the distribution at a temperature; shares the model's weight."""
        weight, bias = self.rule.weight_and_bias(unembedding(self.model))
        fixed = None if bias is None else bias.detach()
        return Head(weight.detach(), fixed, self.rule.scale, self.rule.softcap, temperature)

    @torch.no_grad()
    def states(self, input_ids: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """What enters the unembedding at every position of a batch padded on the right.

        Without an attention mask: behind a causal model's real tokens nothing can reach them, and a
        row of the mask that hides everything has no softmax.
        """
        with capture_states(self.model) as captured:
            self.model(input_ids=input_ids, use_cache=False)
        return captured[0]

    def hidden(
        self,
        prompt_ids: Sequence[int],
        completions: Sequence[Sequence[int]],
        *,
        batch_tokens: int = 16384,
    ) -> Float[Tensor, "N D"]:
        """The state that predicts each completion token, of all completions one after another.

        It is the input of the unembedding (after the final norm) one position before the token;
        of the same prompt's completions, which are padded on the right and share batches.

        Args:
            prompt_ids: the prompt all completions answer, at least one token.
            completions: their ids, an emitted end-of-sequence included, none empty.
            batch_tokens: tokens per forward pass, padding included; halved with a warning when
                the GPU's memory runs out.

        Raises:
            DataError: an empty prompt or completion, more tokens than the model takes, or ids
                outside its vocabulary.
        """
        self._check(prompt_ids, completions)
        first = len(prompt_ids) - 1
        # the last token predicts nothing that was sampled: it need not be read
        rows = [[*prompt_ids, *completion[:-1]] for completion in completions]
        states: list[Tensor] = [torch.empty(0)] * len(rows)

        def run(batch: list[int]) -> None:
            hidden_BLD = self.states(self._right_padded([rows[row] for row in batch]))
            for place, row in enumerate(batch):
                # a copy, so that the padded batch can go
                states[row] = hidden_BLD[place, first : len(rows[row])].clone()

        budget = TokenBudget(min(batch_tokens, self.ceiling or batch_tokens))
        allowed = budget.tokens
        run_batches([len(row) for row in rows], budget, run)
        if budget.tokens < allowed:
            self.ceiling = budget.tokens
        return torch.cat(states)

    def _right_padded(self, rows: Sequence[Sequence[int]]) -> Int[Tensor, "B L"]:
        length = max(len(row) for row in rows)
        # any id does behind the last token; 0 exists in every vocabulary
        padded = [[*row, *[0] * (length - len(row))] for row in rows]
        return torch.tensor(padded, device=self.device)

    def _check(self, prompt_ids: Sequence[int], completions: Sequence[Sequence[int]]) -> None:
        if not prompt_ids:
            raise DataError("an empty prompt: nothing predicts the first completion token")
        if not completions:
            raise DataError("no completions to score")
        for place, completion in enumerate(completions):
            if len(completion) == 0:
                raise DataError(f"completion {place} is empty: it has no token to score")
        longest = len(prompt_ids) + max(len(completion) for completion in completions)
        if self.max_length is not None and longest > self.max_length:
            raise DataError(
                f"prompt and completion have {longest} tokens; {self.name} takes {self.max_length}",
                hint="score with the model that sampled them",
            )
        top = max(*prompt_ids, *(max(completion) for completion in completions))
        if top >= len(self.head().weight_VD):
            raise DataError(f"token id {top} is outside the vocabulary of {self.name}")


def context_limit(config: PreTrainedConfig) -> int | None:
    """Most tokens that a model of this config takes; None: no limit."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def ending_ids(
    generation: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, ...]:
    """Ids that end a completion: the generation config's and the tokenizer's own."""
    listed = getattr(generation, "eos_token_id", None)
    ids = [listed] if isinstance(listed, int) else list(listed or [])
    own = tokenizer.eos_token_id
    return tuple(sorted({*ids, *([own] if isinstance(own, int) else [])}))


def ends_of(weight: Tensor) -> Tensor:
    """The first and the last 256 numbers of a weight."""
    flat = weight.flatten()
    return torch.cat([flat[:256], flat[-256:]])


def as_policy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    name: str,
    revision: str | None = None,
) -> Policy:
    """A policy around a model in memory, once its logits were compared with its family's rule.

    Raises:
        PrerequisiteError: the family is refused, with the reason.
        DataError: the tokenizer does not belong to the model, or no end-of-sequence token exists.
    """
    model.eval()
    rule = logit_rule(model.config)
    check_logits(model, rule)
    policy = Policy(model=model, tokenizer=tokenizer, name=name, revision=revision, rule=rule)
    if not policy.eos_ids:
        raise DataError(
            f"{name} has no end-of-sequence token: its completions would never stop",
            hint="set eos_token in the tokenizer, or eos_token_id in generation_config.json",
        )
    vocab_size = len(policy.head().weight_VD)
    added = tokenizer.added_tokens_decoder
    # added tokens aside: Gemma 3's image token has no row in its text models
    largest = max((row for row in tokenizer.get_vocab().values() if row not in added), default=0)
    if largest >= vocab_size:
        raise DataError(
            f"the tokenizer of {name} has ids up to {largest}, the model {vocab_size} rows",
            hint="model and tokenizer do not belong together",
        )
    return policy
