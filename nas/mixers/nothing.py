"""No mixer: a layer that is an MLP alone.

In: features. Out: zeros, so that the residual stream passes unchanged. A layer of this kind
leaves out its first half, norm included; the class is here for whoever calls a mixer directly.

Shapes: B batch, L length, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nas.mixers.base import CAUSAL, Layout, Mixer, MixerConfig, NoState


class NoMixer(Mixer[NoState]):
    """Moves nothing between positions and keeps nothing."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()

    def forward(self, x_BLD: Tensor, layout: Layout = CAUSAL) -> Tensor:
        """Zeros, (B, L, D) to (B, L, D)."""
        return torch.zeros_like(x_BLD)

    def new_state(
        self,
        batch: int,
        context: int,
        *,
        cache_dtype: torch.dtype,
        recurrent_dtype: torch.dtype,
        device: torch.device,
    ) -> NoState:
        """A state without tensors."""
        return NoState()

    def prefill(self, x_BLD: Tensor, state: NoState, layout: Layout = CAUSAL) -> Tensor:
        """Zeros, (B, L, D) to (B, L, D)."""
        return torch.zeros_like(x_BLD)

    def step(self, x_BD: Tensor, state: NoState, position: int | Tensor, turn: Tensor | None = None) -> Tensor:
        """Zeros, (B, D) to (B, D)."""
        return torch.zeros_like(x_BD)
