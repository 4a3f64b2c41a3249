"""What a token mixer is: three equal ways to compute one function of a sequence.

In: features of a sequence. Out: features of the same shape. `forward` computes all positions at
once, for training; `prefill` does the same and leaves a state behind; `step` continues from a
state, one token at a time. The contract tests hold the three equal to a plain recurrence, and a
state to the size that the mixer's specification predicts.

A mixer is causal, but for a prefix: the first tokens of a sequence may see each other in both
directions. A prefix of nothing is a decoder, of the whole sequence an encoder, and of a part a
prefix language model; so one form serves every family.

Sequences of unequal length are padded on the right. What stands there changes nothing before it:
causal tokens do not look ahead, a prefix ends before it, and a state does not take it in.

Shapes: B batch, L length, D width of the residual stream.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from nas.specs.base import Options, Rope, Surroundings


@dataclass(frozen=True, kw_only=True)
class MixerConfig:
    """All that a mixer is made from.

    Attributes:
        options: the mixer's own keys, complete (`MixerSpec.complete`).
        around: width, max_context, positions and direction of the model.
        rope: of rotary positions; plays no part where `around.positions` is not "rope".
        relative: the bucketed biases that all layers of a stack share, where `around.positions`
            is "relative". It belongs to the stack: a mixer must not register it as its own module.
    """

    options: Options
    around: Surroundings
    rope: Rope = field(default_factory=Rope)
    relative: nn.Module | None = None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the tokens of a batch lie, where they do not simply follow each other causally.

    Attributes:
        prefix: how many leading tokens of each sequence see each other in both directions: one
            number for all, or int64 (B,), from 0 to L and at most the sequence's length. Only for
            mixers that were made to look ahead (`Surroundings.looks_ahead`).
        lengths_B: int64 tokens of each sequence before the padding, at least 1; None: all L.
        positions: int64 (B, L) or (B, L, dimensions of the rope), what rotary positions turn by;
            None: 0, 1, 2, …
    """

    prefix: int | Tensor = 0
    lengths_B: Tensor | None = None
    positions: Tensor | None = None

    @property
    def is_causal(self) -> bool:
        """Whether no token sees a later one (a prefix of one token looks nowhere)."""
        return isinstance(self.prefix, int) and self.prefix <= 1


CAUSAL = Layout()


class MixerState(ABC):
    """What decoding keeps of one layer's mixer."""

    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor kept, the batch first, so that bytes are counted and not claimed."""

    def select(self, rows_B: Tensor) -> None:
        """Goes on with other sequences of the batch: row b becomes what row rows_B[b] was."""
        for tensor in self.tensors():
            tensor.copy_(tensor.index_select(0, rows_B))


class NoState(MixerState):
    """A mixer that keeps nothing."""

    def tensors(self) -> tuple[Tensor, ...]:
        """None."""
        return ()


State = TypeVar("State", bound=MixerState)


class Mixer(nn.Module, ABC, Generic[State]):
    """Moves information between positions; `State` is the class of its states."""

    @abstractmethod
    def forward(self, x_BLD: Tensor, layout: Layout = CAUSAL) -> Tensor:
        """All positions at once, (B, L, D) to (B, L, D).

        Outputs at padded positions are finite and mean nothing.
        """

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
    def prefill(self, x_BLD: Tensor, state: State, layout: Layout = CAUSAL) -> Tensor:
        """`forward` that also fills `state`, which must be empty, with the tokens before the padding."""

    @abstractmethod
    def step(self, x_BD: Tensor, state: State, position: int | Tensor, turn: Tensor | None = None) -> Tensor:
        """The next token, (B, D) to (B, D), causally; takes it into `state`.

        Args:
            x_BD: features.
            state: of the tokens before.
            position: how many tokens the state has taken in: one number for all, or int64 (B,)
                where prompts were of unequal length.
            turn: int64 (B,) or (B, dimensions of the rope), what rotary positions turn by; None:
                `position`.
        """

    def residual_projections(self) -> tuple[nn.Linear, ...]:
        """The linear maps whose output is added to the residual stream.

        A model scales their initial weights down with its depth (Radford et al. 2019).
        """
        return ()
