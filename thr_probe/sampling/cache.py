"""A key-value cache that does not copy the past at every token."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from thr_probe.errors import PrerequisiteError


class RoomyLayer(DynamicLayer):
    """A cache layer with room set aside for the tokens to come.

    transformers concatenates past and new states at every step; on a CPU that took four fifths
    of the sampling time of a small policy.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.room: tuple[Tensor, Tensor] | None = None

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *_args: Any,
        **_kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Append the new states; returns all."""
        if self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return key_states, value_states
        length, end = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        if self.room is None:
            self.room = (self._moved(self.keys), self._moved(self.values))
        for room, new in zip(self.room, (key_states, value_states), strict=True):
            room[:, :, length:end] = new
        self.keys, self.values = (room[:, :, :end] for room in self.room)
        return self.keys, self.values

    def _moved(self, states: Tensor) -> Tensor:
        batch, heads, length, size = states.shape
        room = states.new_empty((batch, heads, self.capacity, size))
        room[:, :, :length] = states
        return room

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep (or repeat) these rows of the batch."""
        super().batch_select_indices(indices)
        self.room = None


def roomy_cache(model: PreTrainedModel, capacity: int) -> DynamicCache:
    """An empty cache for a model whose layers all keep keys and values.

    Raises:
        PrerequisiteError: a family with recurrent or other state.
    """
    cache = DynamicCache(config=model.config)
    kinds = {type(layer) for layer in cache.layers}
    if not kinds <= {DynamicLayer, DynamicSlidingWindowLayer} or model._is_stateful:
        family = model.config.get_text_config().model_type
        raise PrerequisiteError(
            f"the transformers sampler cannot sample from {family!r}: it keeps state other than "
            "keys and values",
            hint="sample with another engine and score the rollouts",
        )
    cache.layers = [
        RoomyLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache
