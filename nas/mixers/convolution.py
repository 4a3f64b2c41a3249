"""Short causal convolution: each feature mixes its own last few values.

In: the features that a mixer would see. Out: features of the same shape. A kernel of 3 or 4
before the mixer gives a token sight of its predecessor, which decides whether associative recall
is learnt quickly (Poli et al. 2023, Hyena; Arora et al. 2023, Zoology).

Shapes: B batch, L length, D width, K kernel size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvolutionState:
    """The last K − 1 inputs of a convolution, oldest first, zeros where there were none."""

    def __init__(self, earlier_BKD: Tensor) -> None:
        self.earlier_BKD = earlier_BKD

    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor kept."""
        return (self.earlier_BKD,)


class ShortConvolution(nn.Module):
    """Depthwise causal convolution without bias.

    Args:
        width: features.
        kernel: positions seen: oneself and kernel − 1 earlier ones; at least 1.
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.empty(width, 1, 1, kernel))
        # The token itself plus a uniform share in ±1/√K of each tap: recall was learnt in about
        # two thirds of the steps that the uniform share alone took, and latest by the identity
        # with a tenth of that share.
        nn.init.uniform_(self.weight, -(kernel**-0.5), kernel**-0.5)
        with torch.no_grad():
            self.weight[..., -1] += 1

    def forward(self, x_BLD: Tensor) -> Tensor:
        """All positions at once, (B, L, D) to (B, L, D)."""
        padded_B1LD = functional.pad(x_BLD, (0, 0, self.kernel - 1, 0)).unsqueeze(1)
        # Features last is the layout in which a depthwise convolution is fast on a CPU.
        y_BD1L = functional.conv2d(padded_B1LD.permute(0, 3, 1, 2), self.weight, groups=x_BLD.shape[-1])
        return y_BD1L.permute(0, 2, 3, 1).squeeze(1)

    def new_state(self, batch: int, *, dtype: torch.dtype, device: torch.device) -> ConvolutionState:
        """An empty state: (K − 1) × D elements per sequence."""
        shape = (batch, self.kernel - 1, self.weight.shape[0])
        return ConvolutionState(torch.zeros(shape, dtype=dtype, device=device))

    def prefill(self, x_BLD: Tensor, state: ConvolutionState) -> Tensor:
        """`forward` that also fills `state`, which must be empty."""
        kept = min(x_BLD.shape[1], self.kernel - 1)
        if kept:
            state.earlier_BKD[:, -kept:] = x_BLD[:, -kept:].detach()
        return self(x_BLD)  # type: ignore[no-any-return]

    def step(self, x_BD: Tensor, state: ConvolutionState) -> Tensor:
        """The next position, (B, D) to (B, D); takes the token into `state`."""
        seen_BKD = torch.cat([state.earlier_BKD.to(x_BD.dtype), x_BD[:, None]], dim=1)
        state.earlier_BKD.copy_(seen_BKD[:, 1:].detach())
        return torch.einsum("bkd,dk->bd", seen_BKD, self.weight[:, 0, 0])
