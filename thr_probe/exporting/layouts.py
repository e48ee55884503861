"""The columns under the names of other trainers: verl's rollout dumps and batches, TRL's inputs.

Nothing is padded: lists are as long as the prompt or the completion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from thr_probe.exporting.record import ExportedColumn

_FLOATS = pa.list_(pa.field("element", pa.float32()))
_IDS = pa.list_(pa.field("element", pa.int32()))
_MASK = pa.list_(pa.field("element", pa.int8()))

_ADVANTAGE = (
    "1[|thr| > tau] (1 + sign(thr) p) A per completion token (equation 5, THR(p); "
    "the file's metadata holds p), A being the stored GRPO advantage (equation 1, population "
    "standard deviation); 0 where THR is undefined, as no completion of the group is correct"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a column of a layout is made from."""

    type: pa.DataType
    """Arrow type."""
    unit: str
    """Unit of the values."""
    meaning: str
    """What a value says."""
    needs: tuple[str, ...] = ()
    """Columns of the trace that not every run has; without them the column is left out."""


SOURCES: Mapping[str, Source] = {
    "step": Source(
        type=pa.int32(), unit="rollout batches", meaning="step of training; null outside training"
    ),
    "group": Source(
        type=pa.string(),
        unit="id",
        meaning="the completion's group: prompt_id, in a training run STEP/prompt_id",
    ),
    "prompt_id": Source(
        type=pa.string(), unit="id", meaning="joins problems.parquet, rollouts and scores"
    ),
    "rollout_id": Source(
        type=pa.int32(), unit="index", meaning="0-based index of the completion within its group"
    ),
    "prompt_text": Source(
        type=pa.string(), unit="text", meaning="what the policy continued, template applied"
    ),
    "text": Source(type=pa.string(), unit="text", meaning="the decoded completion"),
    "answer": Source(type=pa.string(), unit="text", meaning="the gold answer"),
    "reward": Source(type=pa.float64(), unit="reward", meaning="what the verifier gave"),
    "correct": Source(
        type=pa.bool_(), unit="true or false", meaning="whether the completion counts as right"
    ),
    "advantage": Source(
        type=pa.float32(),
        unit="group standard deviations",
        meaning="GRPO advantage of the completion (equation 1), no THR in it",
    ),
    "prompt_ids": Source(
        type=_IDS,
        unit="token ids",
        meaning="the prompt as the policy read it",
        needs=("prompt_token_ids",),
    ),
    "prompt_mask": Source(
        type=_MASK,
        unit="0 or 1",
        meaning="1 for each token of the prompt; pad left with 0",
        needs=("prompt_token_ids",),
    ),
    "input_ids": Source(
        type=_IDS,
        unit="token ids",
        meaning="prompt and completion end to end",
        needs=("prompt_token_ids",),
    ),
    "token_ids": Source(
        type=_IDS,
        unit="token ids",
        meaning="the completion, the end-of-sequence token included where it was emitted",
    ),
    "mask": Source(
        type=_MASK,
        unit="0 or 1",
        meaning="1 for each token of the completion; pad right with 0",
    ),
    "advantages": Source(type=_FLOATS, unit="group standard deviations", meaning=_ADVANTAGE),
    "last_score": Source(
        type=_FLOATS, unit="reward", meaning="the reward at the last token, 0 at the others"
    ),
    "logprob": Source(
        type=_FLOATS,
        unit="nats",
        meaning="log-probability of each token under the scoring policy, at the temperature that "
        "the file's metadata holds",
    ),
    "sampler_logprobs": Source(
        type=_FLOATS,
        unit="nats",
        meaning="log-probability of each token under the distribution it was sampled from",
        needs=("sampler_logprobs",),
    ),
    "ref_logprobs": Source(
        type=_FLOATS,
        unit="nats",
        meaning="log-probability of each token under the reference policy",
        needs=("ref_logprobs",),
    ),
}
"""What the columns of every layout are made from."""

LAYOUTS: Mapping[str, Mapping[str, str]] = {
    "verl": {
        # its rollout dump has these six
        "input": "prompt_text",
        "output": "text",
        "gts": "answer",
        "score": "reward",
        "step": "step",
        "uid": "group",
        "acc": "correct",
        "prompt_id": "prompt_id",
        "rollout_id": "rollout_id",
        # its DataProto has these
        "prompts": "prompt_ids",
        "responses": "token_ids",
        "input_ids": "input_ids",
        "response_mask": "mask",
        "advantages": "advantages",
        "token_level_scores": "last_score",
        "old_log_probs": "logprob",
        "rollout_log_probs": "sampler_logprobs",
        "ref_log_prob": "ref_logprobs",
    },
    "trl": {
        # the completions that GRPOTrainer logs have these, and a column for each reward
        "step": "step",
        "prompt": "prompt_text",
        "completion": "text",
        "reward": "reward",
        "advantage": "advantage",
        "answer": "answer",
        "correct": "correct",
        "prompt_id": "prompt_id",
        "rollout_id": "rollout_id",
        # its loss takes these
        "prompt_ids": "prompt_ids",
        "prompt_mask": "prompt_mask",
        "completion_ids": "token_ids",
        "completion_mask": "mask",
        "advantages": "advantages",
        "old_per_token_logps": "logprob",
        "sampling_per_token_logps": "sampler_logprobs",
        "ref_per_token_logps": "ref_logprobs",
    },
}
"""For each trainer: its name of a column -> what it is made from."""

STEP_FILES: Mapping[str, str] = {"verl": "{step}.jsonl", "trl": "completions_{step:05d}.parquet"}
"""The names under which each trainer saves the rollouts of a step; 0 outside training."""


def layout_columns(layout: str) -> list[ExportedColumn]:
    """All columns of a layout, those included that not every run can fill."""
    return [
        ExportedColumn(
            name=name,
            type=SOURCES[source].type,
            unit=SOURCES[source].unit,
            meaning=SOURCES[source].meaning,
        )
        for name, source in LAYOUTS[layout].items()
    ]
