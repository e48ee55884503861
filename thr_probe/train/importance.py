"""The sampler's log-probabilities beside the trainer's: weights for the loss, counts for the log.

The sampler may be another engine than the trainer, of other kernels and another precision: what it
drew from is then not the policy that is trained (Yao et al. 2025).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from thr_probe.core.losses import truncated_importance_weights
from thr_probe.core.mismatch import TokenMismatch, token_mismatch
from thr_probe.errors import PrerequisiteError
from thr_probe.sampling import Completion
from thr_probe.sampling.protocol import IdsSource

Tokens = Float[Tensor, " N"]


def sampler_logprobs(completions: Sequence[Completion]) -> Float[np.ndarray, " N"]:
    """log mu of the tokens of some completions, end to end; NaN where the sampler told none.

    Ids of a text that was tokenized again are not those that were drawn: they have none.
    """
    parts = [
        np.asarray(item.logprobs, dtype=np.float64)
        if item.logprobs is not None and item.ids_source is IdsSource.SAMPLED
        else np.full(len(item.token_ids), np.nan)
        for item in completions
    ]
    return np.concatenate(parts)


def importance_weights(
    old_logprob_N: Tokens, completions: Sequence[Completion], *, cap: float, prompt_id: str
) -> Tokens:
    """The weights of truncated importance sampling for a group's tokens.

    Args:
        old_logprob_N: log pi at the start of the step, recomputed by the trainer.
        completions: the group's, with the sampler's log-probabilities.
        cap: C.
        prompt_id: named in the error.

    Raises:
        PrerequisiteError: a token without a log-probability of the sampler.
    """
    sampled_N = torch.from_numpy(sampler_logprobs(completions)).to(old_logprob_N)
    missing = int(sampled_N.isnan().sum())
    if missing:
        raise PrerequisiteError(
            f"--importance-correction tis needs the sampler's log-probability of every token: it "
            f"gave none for {missing} of {len(sampled_N)} tokens of prompt {prompt_id}",
            "choose an --engine that returns token ids with log-probabilities, or "
            "--importance-correction none",
        )
    return truncated_importance_weights(old_logprob_N, sampled_N, cap=cap)


def group_mismatch(old_logprob_N: Tokens, completions: Sequence[Completion]) -> TokenMismatch:
    """The mismatch at those tokens of a group whose log-probability the sampler told."""
    sampled_N = sampler_logprobs(completions)
    known_N = ~np.isnan(sampled_N)
    return token_mismatch(old_logprob_N.double().numpy()[known_N], sampled_N[known_N])
