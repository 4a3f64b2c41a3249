"""Softmax attention, over the whole context or over a sliding window.

In: features of a sequence. Out: features of the same shape. Heads are grouped (Ainslie et al.
2023): several query heads share one key/value head. Projections have no biases and Llama's names.

Shapes: B batch, L length, D width, H query heads, G key/value heads, F features of a head,
S slots of a cache, N = B·H or B·G sequences times heads, C queries of a block.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from nas.mixers.base import Mixer, MixerConfig, MixerState
from nas.mixers.positions import rotate


class KeyValueCache(MixerState):
    """Keys, rotated at their absolute positions, and values of the latest tokens.

    The slots are a ring: the token at position p lies in slot p mod S.

    Attributes:
        keys_BGSF: rotated keys.
        values_BGSF: values.
        position: tokens taken in so far.
    """

    def __init__(self, keys_BGSF: Tensor, values_BGSF: Tensor) -> None:
        self.keys_BGSF = keys_BGSF
        self.values_BGSF = values_BGSF
        self.position = 0

    @property
    def slots(self) -> int:
        """Tokens that the cache can hold."""
        return self.keys_BGSF.shape[2]

    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor kept."""
        return self.keys_BGSF, self.values_BGSF

    def fill(self, keys_BLGF: Tensor, values_BLGF: Tensor) -> None:
        """Takes in a whole prompt; the cache must be empty."""
        assert self.position == 0, "prefill needs an empty state"
        length = keys_BLGF.shape[1]
        kept = min(length, self.slots)
        for cache_BGSF, new_BLGF in ((self.keys_BGSF, keys_BLGF), (self.values_BGSF, values_BLGF)):
            new_BGSF = new_BLGF[:, length - kept :].transpose(1, 2).detach()
            cache_BGSF[:, :, :kept] = new_BGSF.roll(length % self.slots, 2) if length > self.slots else new_BGSF
        self.position = length

    def append(self, key_BGF: Tensor, value_BGF: Tensor) -> tuple[Tensor, Tensor]:
        """Takes in one token; returns the keys and the values now held, (B, G, S or fewer, F)."""
        slot = self.position % self.slots
        self.keys_BGSF[:, :, slot] = key_BGF.detach()
        self.values_BGSF[:, :, slot] = value_BGF.detach()
        self.position += 1
        held = min(self.position, self.slots)
        return self.keys_BGSF[:, :, :held], self.values_BGSF[:, :, :held]


class SoftmaxAttention(Mixer[KeyValueCache]):
    """What full and windowed attention share: projections, rotation, the cache and its step."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        width = config.around.width
        self.heads = int(config.options["heads"])
        self.kv_heads = int(config.options["kv_heads"])
        self.head_dim = int(config.options["head_dim"])
        self.theta = config.rope_theta if config.around.positions == "rope" else None
        self.q_proj = nn.Linear(width, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(width, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(width, self.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, width, bias=False)

    @abstractmethod
    def slots(self, context: int) -> int:
        """Tokens that a cache for `context` tokens has to hold."""

    @abstractmethod
    def attend(self, x_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The mixed features, (B, L, D), and the keys and values, (B, L, G, F), behind them."""

    def forward(self, x_BLD: Tensor) -> Tensor:
        """All positions at once, (B, L, D) to (B, L, D)."""
        return self.attend(x_BLD)[0]

    def new_state(
        self,
        batch: int,
        context: int,
        *,
        cache_dtype: torch.dtype,
        recurrent_dtype: torch.dtype,
        device: torch.device,
    ) -> KeyValueCache:
        """An empty cache; all of it is in `cache_dtype`."""
        shape = (batch, self.kv_heads, self.slots(context), self.head_dim)
        keys, values = (torch.zeros(shape, dtype=cache_dtype, device=device) for _ in range(2))
        return KeyValueCache(keys, values)

    def prefill(self, x_BLD: Tensor, state: KeyValueCache) -> Tensor:
        """`forward` that also fills `state`, which must be empty."""
        y_BLD, keys_BLGF, values_BLGF = self.attend(x_BLD)
        state.fill(keys_BLGF, values_BLGF)
        return y_BLD

    def step(self, x_BD: Tensor, state: KeyValueCache) -> Tensor:
        """The next position, (B, D) to (B, D); takes the token into `state`."""
        q_B1HF, k_B1GF, v_B1GF = self._project(x_BD[:, None], start=state.position, time_axis=1)
        keys_BGSF, values_BGSF = state.append(k_B1GF[:, 0], v_B1GF[:, 0])
        y_BH1F = scaled_dot_product_attention(
            q_B1HF.transpose(1, 2), keys_BGSF.to(q_B1HF.dtype), values_BGSF.to(q_B1HF.dtype), enable_gqa=True
        )
        return self.o_proj(y_BH1F.flatten(1))  # type: ignore[no-any-return]

    def residual_projections(self) -> tuple[nn.Linear, ...]:
        """The output projection."""
        return (self.o_proj,)

    def _project(self, x: Tensor, *, start: int, time_axis: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries, rotated keys, and values, with heads split off the last axis."""
        q = self.q_proj(x).unflatten(-1, (self.heads, self.head_dim))
        k = self.k_proj(x).unflatten(-1, (self.kv_heads, self.head_dim))
        v = self.v_proj(x).unflatten(-1, (self.kv_heads, self.head_dim))
        if self.theta is None:
            return q, k, v
        q, k = (rotate(part, start=start, theta=self.theta, time_axis=time_axis) for part in (q, k))
        return q, k, v

    def _attend_causally(self, x_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q_BLHF, k_BLGF, v_BLGF = self._project(x_BLD, start=0, time_axis=1)
        q_BHLF, k_BGLF, v_BGLF = (part.transpose(1, 2) for part in (q_BLHF, k_BLGF, v_BLGF))
        y_BHLF = scaled_dot_product_attention(q_BHLF, k_BGLF, v_BGLF, is_causal=True, enable_gqa=True)
        return self.o_proj(y_BHLF.transpose(1, 2).flatten(2)), k_BLGF, v_BLGF


class FullAttention(SoftmaxAttention):
    """Causal attention over the whole context (Vaswani et al. 2017)."""

    def slots(self, context: int) -> int:
        """One for every token."""
        return context

    def attend(self, x_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The mixed features, (B, L, D), and the keys and values, (B, L, G, F), behind them."""
        return self._attend_causally(x_BLD)


class SlidingWindow(SoftmaxAttention):
    """Causal attention to oneself and the window − 1 tokens before (Beltagy et al. 2020)."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__(config)
        self.window = int(config.options["window"])

    def slots(self, context: int) -> int:
        """One for every token of a window, older ones are overwritten."""
        return min(context, self.window)

    def attend(self, x_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The mixed features, (B, L, D), and the keys and values, (B, L, G, F), behind them."""
        batch, length, _ = x_BLD.shape
        if length <= self.window:
            return self._attend_causally(x_BLD)
        # With time first, sequences and heads are one axis and the overlapping windows of keys
        # are views; with the batch first, each block would need a copy of its window.
        x_LBD = x_BLD.transpose(0, 1).contiguous()
        q_LBHF, k_LBGF, v_LBGF = self._project(x_LBD, start=0, time_axis=0)
        parts = windowed_attention(q_LBHF.flatten(1, 2), k_LBGF.flatten(1, 2), v_LBGF.flatten(1, 2), self.window)
        # Joining after the output projection spares a second copy of the heads for backward.
        y_LBD = torch.cat([self.o_proj(part.reshape(part.shape[0], batch, -1)) for part in parts])
        return y_LBD.transpose(0, 1), k_LBGF.transpose(0, 1), v_LBGF.transpose(0, 1)


def windowed_attention(q_LNF: Tensor, k_LNF: Tensor, v_LNF: Tensor, window: int) -> list[Tensor]:
    """Attention of each query to its own and the window − 1 earlier keys, in blocks.

    The first `window` queries see all that is before them. The others go in blocks of C queries
    and C + window − 1 keys, all under the same band mask; work and memory grow with L, not L².

    Args:
        q_LNF: queries; N counts sequences times query heads.
        k_LNF: keys; N counts sequences times key/value heads, which divide the former.
        v_LNF: values, shaped as the keys.
        window: tokens seen, oneself included; less than L.

    Returns:
        The output in consecutive parts along time, each (part, N, F).
    """
    length = q_LNF.shape[0]
    block = _block(window)
    blocks, rest = divmod(length - window, block)
    band_CS = _band(block, window, q_LNF.device)
    parts = [_attend_block(q_LNF[:window], k_LNF[:window], v_LNF[:window], None)]
    if blocks:
        inner = slice(1, window + blocks * block)
        q_XNCF = q_LNF[window : inner.stop].view(blocks, block, *q_LNF.shape[1:]).transpose(1, 2)
        k_XNSF, v_XNSF = (part[inner].unfold(0, block + window - 1, block).mT for part in (k_LNF, v_LNF))
        y_XNCF = scaled_dot_product_attention(q_XNCF, k_XNSF, v_XNSF, attn_mask=band_CS, enable_gqa=True)
        parts.append(y_XNCF.transpose(1, 2).flatten(0, 1))
    if rest:
        seen = rest + window - 1
        parts.append(_attend_block(q_LNF[-rest:], k_LNF[-seen:], v_LNF[-seen:], band_CS[:rest, :seen]))
    return parts


def _attend_block(q_LNF: Tensor, k_SNF: Tensor, v_SNF: Tensor, mask_LS: Tensor | None) -> Tensor:
    q_1NLF, k_1NSF, v_1NSF = (part.transpose(0, 1)[None] for part in (q_LNF, k_SNF, v_SNF))
    y_1NLF = scaled_dot_product_attention(
        q_1NLF, k_1NSF, v_1NSF, attn_mask=mask_LS, is_causal=mask_LS is None, enable_gqa=True
    )
    return y_1NLF[0].transpose(0, 1)


def _block(window: int) -> int:
    # Half a window wastes little on masked keys; under 32 or over 128 queries a kernel call is slow.
    return min(128, max(32, window // 64 * 32))


def _band(block: int, window: int, device: torch.device) -> Tensor:
    """Which of the block + window − 1 keys each query of a block sees."""
    query_C1 = torch.arange(block, device=device)[:, None]
    key_S = torch.arange(block + window - 1, device=device)
    return (query_C1 <= key_S) & (key_S < query_C1 + window)
