"""A matrix per head: the state of linear recurrences, and what mixers that keep one share.

In: features of a sequence, projected. Out: the state with its three uses: made, continued by one
token, and read backwards inside a prefix.

Tokens of a prefix read what comes after them from a second scan that goes backwards over the
prefix and leaves out the token itself, which the causal scan has counted. Later tokens and the
state are those of the causal scan.

Shapes: B batch, L length, D width, H heads, K features of a query or key, V of a value.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn, unflatten

from nas.mixers.base import CAUSAL, Layout, Mixer, MixerConfig, MixerState
from nas.mixers.convolution import ConvolutionState, ShortConvolution

Scan = Callable[..., Tensor]


class MatrixState(MixerState):
    """A matrix per head, and what convolutions before it keep."""

    def __init__(self, memory_BHKV: Tensor, convolutions: tuple[ConvolutionState, ...] = ()) -> None:
        self.memory_BHKV = memory_BHKV
        self.convolutions = convolutions

    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor kept."""
        return self.memory_BHKV, *(tensor for state in self.convolutions for tensor in state.tensors())

    def memory(self) -> Tensor:
        """The matrix, in a dtype that products may be added up in."""
        return self.memory_BHKV.to(torch.promote_types(self.memory_BHKV.dtype, torch.float32))


def within(lengths_B: Tensor, length: int) -> Tensor:
    """bool (B, L): which tokens are among the first of each sequence."""
    return torch.arange(length, device=lengths_B.device) < lengths_B[:, None]


def add_later_tokens(y_BLHV: Tensor, prefix: int | Tensor, scan: Scan, v_BLHV: Tensor, *others: Tensor) -> Tensor:
    """Adds what tokens of a prefix read of those after them, inside the prefix.

    Args:
        y_BLHV: what every token reads of itself and those before it.
        prefix: as in `Layout`.
        scan: of values and others, what every token reads of those before it alone.
        v_BLHV: values.
        others: what else depends on the token, each (B, L, …).
    """
    length = y_BLHV.shape[1]
    if isinstance(prefix, int):
        if prefix <= 1:
            return y_BLHV
        later_BLHV = scan(*(part[:, :prefix].flip(1) for part in (v_BLHV, *others))).flip(1)
        if prefix == length:
            return y_BLHV + later_BLHV
        return torch.cat([y_BLHV[:, :prefix] + later_BLHV, y_BLHV[:, prefix:]], 1)
    outside_BL11 = ~within(prefix, length)[..., None, None]
    inside = (v_BLHV.masked_fill(outside_BL11, 0), *others)
    later_BLHV = scan(*(part.flip(1) for part in inside)).flip(1)
    return y_BLHV + later_BLHV.masked_fill(outside_BL11, 0)


def step_matrix(state: MatrixState, decay: Tensor, q_BHK: Tensor, k_BHK: Tensor, v_BHV: Tensor) -> Tensor:
    """Takes one token into a state that first decays, and reads it, (B, H, V) in the state's precision.

    Args:
        state: of the tokens before.
        decay: what is left of the state, broadcast against (B, H, K, V).
        q_BHK: query, scaled.
        k_BHK: key.
        v_BHV: value, with its gain.
    """
    memory_BHKV = state.memory()
    q_BHK, k_BHK, v_BHV = (part.to(memory_BHKV.dtype) for part in (q_BHK, k_BHK, v_BHV))
    memory_BHKV = torch.addcmul(memory_BHKV * decay.to(memory_BHKV.dtype), k_BHK[..., None], v_BHV[..., None, :])
    state.memory_BHKV.copy_(memory_BHKV.detach())
    return (q_BHK[..., None, :] @ memory_BHKV).squeeze(-2)


class MatrixMixer(Mixer[MatrixState]):
    """What the three share: projections with their heads, and the shape of the state."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        options, width = config.options, config.around.width
        self.heads = int(options["heads"])
        self.key_dim = int(options["key_dim"])
        self.value_dim = int(options["value_dim"])
        self.q_proj = nn.Linear(width, self.heads * self.key_dim, bias=False)
        self.k_proj = nn.Linear(width, self.heads * self.key_dim, bias=False)
        self.v_proj = nn.Linear(width, self.heads * self.value_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.value_dim, width, bias=False)

    def forward(self, x_BLD: Tensor, layout: Layout = CAUSAL) -> Tensor:
        """All positions at once, (B, L, D) to (B, L, D)."""
        return self._mix(x_BLD, None, layout)

    def new_state(
        self,
        batch: int,
        context: int,
        *,
        cache_dtype: torch.dtype,
        recurrent_dtype: torch.dtype,
        device: torch.device,
    ) -> MatrixState:
        """An empty state: a matrix per head in `recurrent_dtype`, whatever the context."""
        shape = (batch, self.heads, *self._memory_shape())
        memory_BHKV = torch.zeros(shape, dtype=recurrent_dtype, device=device)
        convolutions = (conv.new_state(batch, dtype=cache_dtype, device=device) for conv in self._convolutions())
        return MatrixState(memory_BHKV, tuple(convolutions))

    def prefill(self, x_BLD: Tensor, state: MatrixState, layout: Layout = CAUSAL) -> Tensor:
        """`forward` that also fills `state` with the tokens before the padding."""
        return self._mix(x_BLD, state, layout)

    def residual_projections(self) -> tuple[nn.Linear, ...]:
        """The output projection."""
        return (self.o_proj,)

    @abstractmethod
    def _mix(self, x_BLD: Tensor, state: MatrixState | None, layout: Layout) -> Tensor:
        """`forward`, and `prefill` where a state is given."""

    def _memory_shape(self) -> tuple[int, int]:
        return self.key_dim, self.value_dim

    def _convolutions(self) -> tuple[ShortConvolution, ...]:
        return ()

    def _by_head(self, x: Tensor) -> Tensor:
        return unflatten(x, -1, (self.heads, -1))
