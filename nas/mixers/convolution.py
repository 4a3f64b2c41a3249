"""Short causal convolutions: each feature mixes its own last few values.

In: the features that a mixer would see. Out: features of the same shape. A kernel of 3 or 4
before the mixer gives a token sight of its predecessor, which decides whether associative recall
is learnt quickly (Poli et al. 2023, Hyena; Arora et al. 2023, Zoology). Between two gates it is a
mixer of its own, cheap and with a state of a few tokens (Liquid AI 2025, LFM2).

A convolution looks back only, so it is causal inside a prefix too.

Shapes: B batch, L length, D width, K kernel size, S = K − 1 earlier inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.mixers.base import CAUSAL, Layout, Mixer, MixerConfig, MixerState


class ConvolutionState(MixerState):
    """The last K − 1 inputs of a convolution, oldest first, zeros where there were none."""

    def __init__(self, earlier_BSD: Tensor) -> None:
        self.earlier_BSD = earlier_BSD

    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor kept."""
        return (self.earlier_BSD,)


class ShortConvolution(nn.Module):
    """Depthwise causal convolution.

    Args:
        width: features.
        kernel: positions seen: oneself and kernel − 1 earlier ones; at least 1.
        bias: whether a learned vector, at first zero, is added.
        starts_as_identity: whether the token itself is added to the random start.
    """

    def __init__(self, width: int, kernel: int, *, bias: bool = False, starts_as_identity: bool = True) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.empty(width, 1, 1, kernel))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        # The token itself plus a uniform share in ±1/√K of each tap: recall was learnt in about
        # two thirds of the steps that the uniform share alone took, and latest by the identity
        # with a tenth of that share.
        nn.init.uniform_(self.weight, -(kernel**-0.5), kernel**-0.5)
        if starts_as_identity:
            with torch.no_grad():
                self.weight[..., -1] += 1

    def forward(self, x_BLD: Tensor) -> Tensor:
        """All positions at once, (B, L, D) to (B, L, D)."""
        padded_B1LD = functional.pad(x_BLD, (0, 0, self.kernel - 1, 0)).unsqueeze(1)
        # Features last is the layout in which a depthwise convolution is fast on a CPU.
        y_BD1L = functional.conv2d(padded_B1LD.permute(0, 3, 1, 2), self.weight, self.bias, groups=x_BLD.shape[-1])
        return y_BD1L.permute(0, 2, 3, 1).squeeze(1)

    def new_state(self, batch: int, *, dtype: torch.dtype, device: torch.device) -> ConvolutionState:
        """An empty state: (K − 1) × D elements per sequence."""
        shape = (batch, self.kernel - 1, self.weight.shape[0])
        return ConvolutionState(torch.zeros(shape, dtype=dtype, device=device))

    def prefill(self, x_BLD: Tensor, state: ConvolutionState, lengths_B: Tensor | None = None) -> Tensor:
        """`forward` that also fills `state`, which must be empty.

        Args:
            x_BLD: features.
            state: afterwards it holds the last K − 1 inputs of each sequence before its padding.
            lengths_B: int64 tokens of each sequence before the padding; None: all L.
        """
        earlier, length = self.kernel - 1, x_BLD.shape[1]
        if lengths_B is not None and earlier:
            places_BS = lengths_B[:, None] + torch.arange(-earlier, 0, device=x_BLD.device)
            last_BSD = x_BLD.take_along_dim(places_BS.clamp(min=0)[..., None], 1)
            state.earlier_BSD.copy_(last_BSD.detach().masked_fill(places_BS[..., None] < 0, 0))
        elif earlier:
            kept = min(length, earlier)
            state.earlier_BSD[:, -kept:] = x_BLD[:, -kept:].detach()
        return self(x_BLD)  # type: ignore[no-any-return]

    def step(self, x_BD: Tensor, state: ConvolutionState) -> Tensor:
        """The next position, (B, D) to (B, D); takes the token into `state`."""
        seen_BKD = torch.cat([state.earlier_BSD.to(x_BD.dtype), x_BD[:, None]], dim=1)
        state.earlier_BSD.copy_(seen_BKD[:, 1:].detach())
        y_BD = torch.einsum("bkd,dk->bd", seen_BKD, self.weight[:, 0, 0])
        return y_BD if self.bias is None else y_BD + self.bias


class GatedConvolution(Mixer[ConvolutionState]):
    """A short convolution between two gates, which are linear in the token (Liquid AI 2025, LFM2).

        b, c, u = W_in x        y_t = W_out (c_t ⊙ Σ_{i<K} w_i ⊙ b_{t−i} ⊙ u_{t−i})

    It looks at the last K tokens only, whatever the layout.

    Options: kernel.
    """

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        width = config.around.width
        self.in_proj = nn.Linear(width, 3 * width, bias=False)
        # Between gates the identity is no help: recall was learnt by three of four networks without
        # it in the steps in which one of four learnt it with it.
        self.conv = ShortConvolution(width, int(config.options["kernel"]), starts_as_identity=False)
        self.out_proj = nn.Linear(width, width, bias=False)

    def forward(self, x_BLD: Tensor, layout: Layout = CAUSAL) -> Tensor:
        """All positions at once, (B, L, D) to (B, L, D); causal in every layout."""
        b_BLD, c_BLD, u_BLD = self.in_proj(x_BLD).chunk(3, dim=-1)
        return self.out_proj(c_BLD * self.conv(b_BLD * u_BLD))  # type: ignore[no-any-return]

    def new_state(
        self,
        batch: int,
        context: int,
        *,
        cache_dtype: torch.dtype,
        recurrent_dtype: torch.dtype,
        device: torch.device,
    ) -> ConvolutionState:
        """An empty state: (K − 1) × D elements per sequence in the cache dtype."""
        return self.conv.new_state(batch, dtype=cache_dtype, device=device)

    def prefill(self, x_BLD: Tensor, state: ConvolutionState, layout: Layout = CAUSAL) -> Tensor:
        """`forward` that also fills `state` with the last gated inputs before the padding."""
        b_BLD, c_BLD, u_BLD = self.in_proj(x_BLD).chunk(3, dim=-1)
        return self.out_proj(c_BLD * self.conv.prefill(b_BLD * u_BLD, state, layout.lengths_B))  # type: ignore[no-any-return]

    def step(self, x_BD: Tensor, state: ConvolutionState, position: int | Tensor, turn: Tensor | None = None) -> Tensor:
        """The next token, (B, D) to (B, D)."""
        b_BD, c_BD, u_BD = self.in_proj(x_BD).chunk(3, dim=-1)
        return self.out_proj(c_BD * self.conv.step(b_BD * u_BD, state))  # type: ignore[no-any-return]

    def residual_projections(self) -> tuple[nn.Linear, ...]:
        """The output projection."""
        return (self.out_proj,)
