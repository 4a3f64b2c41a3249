"""What a token mixer is: three equal ways to compute one function of a causal sequence.

In: features of a sequence. Out: features of the same shape, in which each position has seen only
itself and earlier ones. `forward` computes all positions at once, for training; `prefill` does the
same and leaves a state behind; `step` continues from a state, one token at a time. The contract
tests hold the three equal to a plain recurrence, and a state to the size that the mixer's
specification predicts.

Shapes: B batch, L length, D width of the residual stream.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from nas.specs.base import Options, Surroundings


@dataclass(frozen=True, kw_only=True)
class MixerConfig:
    """All that a mixer is made from.

    Attributes:
        options: the mixer's own keys, complete (`MixerSpec.complete`).
        around: width, max_context and positions of the model.
        rope_theta: base of the rotary frequencies; plays no part without rotary positions.
    """

    options: Options
    around: Surroundings
    rope_theta: float = 10_000.0


class MixerState(ABC):
    """What decoding keeps of one layer's mixer."""

    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor kept, so that bytes are counted and not claimed."""


State = TypeVar("State", bound=MixerState)


class Mixer(nn.Module, ABC, Generic[State]):
    """Moves information between positions; `State` is the class of its states."""

    @abstractmethod
    def forward(self, x_BLD: Tensor) -> Tensor:
        """All positions at once, (B, L, D) to (B, L, D)."""

    @abstractmethod
    def new_state(
        self,
        batch: int,
        context: int,
        *,
        cache_dtype: torch.dtype,
        recurrent_dtype: torch.dtype,
        device: torch.device,
    ) -> State:
        """An empty state with room for `context` tokens of `batch` sequences.

        Its tensors hold exactly `MixerSpec.cache_elements` elements per sequence in `cache_dtype`
        and `MixerSpec.recurrent_elements` in `recurrent_dtype`.
        """

    @abstractmethod
    def prefill(self, x_BLD: Tensor, state: State) -> Tensor:
        """`forward` that also fills `state`, which must be empty."""

    @abstractmethod
    def step(self, x_BD: Tensor, state: State) -> Tensor:
        """The next position, (B, D) to (B, D); takes the token into `state`."""

    def residual_projections(self) -> tuple[nn.Linear, ...]:
        """The linear maps whose output is added to the residual stream.

        A model scales their initial weights down with its depth (Radford et al. 2019).
        """
        return ()
