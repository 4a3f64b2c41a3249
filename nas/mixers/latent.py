"""Multi-head latent attention (DeepSeek-AI 2024, DeepSeek-V2).

In: features of a sequence. Out: features of the same shape. Each token is compressed to one
normalised latent, from which the keys and values of all heads are expanded, and one rotated key
that all heads share and that alone knows positions. Weights have DeepSeek's names; rotation is
in the half-split layout of Llama.

Training expands; decoding does not. A score is q·(W_k c) = (W_kᵀ q)·c, and a mix of values is
W_v (Σ w c): queries go into the space of the latents and the mix comes out of it, so that a step
reads the cache as one key/value head and never makes it larger.

Shapes: B batch, L length, D width, H heads, N features of a head's key without position, R of
the shared key, V of a value, C of a latent, F what the fused kernel takes, P prefix, S slots of a
cache.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from nas.mixers.base import CAUSAL, Layout, Mixer, MixerConfig, MixerState
from nas.mixers.positions import rotate

_NORM_EPSILON = 1e-6


class LatentCache(MixerState):
    """What keys and values of all heads are expanded from; the token at position p lies in slot p.

    Attributes:
        latents_BSC: normalised latents and, behind them, the rotated shared keys: (B, S, C + R).
    """

    def __init__(self, latents_BSC: Tensor) -> None:
        self.latents_BSC = latents_BSC

    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor kept."""
        return (self.latents_BSC,)

    def fill(self, latents_BLC: Tensor) -> None:
        """Takes in a whole prompt; what stands in its padding is written over before it is read."""
        self.latents_BSC[:, : latents_BLC.shape[1]] = latents_BLC.detach()

    def append(self, latent_BC: Tensor, position: int | Tensor) -> tuple[Tensor, Tensor | None]:
        """Takes in one token.

        Returns:
            The slots to look at, (B, S or fewer, C + R), and which of them are held, (B, S), or
            None for all.
        """
        if isinstance(position, int):
            self.latents_BSC[:, position] = latent_BC.detach()
            return self.latents_BSC[:, : position + 1], None
        rows_B = torch.arange(len(position), device=position.device)
        self.latents_BSC[rows_B, position] = latent_BC.detach().to(self.latents_BSC.dtype)
        # Elsewhere the longest of the positions is not known without waiting for the device.
        slots = int(position.max()) + 1 if position.device.type == "cpu" else self.latents_BSC.shape[1]
        held_BS = torch.arange(slots, device=position.device) <= position[:, None]
        return self.latents_BSC[:, :slots], held_BS


class LatentAttention(Mixer[LatentCache]):
    """Softmax attention over keys and values that are expanded from small latents."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        width, options = config.around.width, config.options
        self.heads = int(options["heads"])
        self.plain_dim = int(options["head_dim"])
        self.rope_dim = int(options["rope_dim"])
        self.value_dim = int(options["value_dim"])
        self.latent_dim = int(options["latent_dim"])
        self.rope = config.rope
        self.scale = (self.plain_dim + self.rope_dim) ** -0.5
        self.q_proj = nn.Linear(width, self.heads * (self.plain_dim + self.rope_dim), bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(width, self.latent_dim + self.rope_dim, bias=False)
        self.kv_a_layernorm = nn.RMSNorm(self.latent_dim, eps=_NORM_EPSILON)
        self.kv_b_proj = nn.Linear(self.latent_dim, self.heads * (self.plain_dim + self.value_dim), bias=False)
        self.o_proj = nn.Linear(self.heads * self.value_dim, width, bias=False)

    def forward(self, x_BLD: Tensor, layout: Layout = CAUSAL) -> Tensor:
        """All positions at once, (B, L, D) to (B, L, D)."""
        return self._attend(x_BLD, layout)[0]

    def new_state(
        self,
        batch: int,
        context: int,
        *,
        cache_dtype: torch.dtype,
        recurrent_dtype: torch.dtype,
        device: torch.device,
    ) -> LatentCache:
        """An empty cache; all of it is in `cache_dtype`."""
        shape = (batch, context, self.latent_dim + self.rope_dim)
        return LatentCache(torch.zeros(shape, dtype=cache_dtype, device=device))

    def prefill(self, x_BLD: Tensor, state: LatentCache, layout: Layout = CAUSAL) -> Tensor:
        """`forward` that also fills `state`, which must be empty."""
        y_BLD, latent_BLC, shared_BLR = self._attend(x_BLD, layout)
        state.fill(torch.cat([latent_BLC, shared_BLR], -1))
        return y_BLD

    def step(self, x_BD: Tensor, state: LatentCache, position: int | Tensor, turn: Tensor | None = None) -> Tensor:
        """The next token, (B, D) to (B, D), against the latents as they are."""
        turns = position if turn is None else turn
        q_B1HN, q_B1HR, latent_B1C, shared_B1R = self._project(
            x_BD[:, None], turns[:, None] if isinstance(turns, Tensor) else turns
        )
        cache_BSC, held_BS = state.append(torch.cat([latent_B1C, shared_B1R], -1)[:, 0], position)
        weight_HXC = self.kv_b_proj.weight.view(self.heads, -1, self.latent_dim)
        key_HNC, value_HVC = weight_HXC[:, : self.plain_dim], weight_HXC[:, self.plain_dim :]
        q_BHC = torch.einsum("bhn,hnc->bhc", q_B1HN[:, 0], key_HNC)
        # The heads are queries of one key/value head. The shared keys are mixed along with the
        # latents, and then left out: cheaper than a copy of the cache without them.
        q_B1HC = torch.cat([q_BHC, q_B1HR[:, 0]], -1)[:, None]
        cache_B1SC = cache_BSC.to(q_B1HC.dtype)[:, None]
        mask = None if held_BS is None else held_BS[:, None, None]
        mixed_B1HC = scaled_dot_product_attention(q_B1HC, cache_B1SC, cache_B1SC, attn_mask=mask, scale=self.scale)
        mixed_BHC = mixed_B1HC[:, 0, :, : self.latent_dim]
        return self.o_proj(torch.einsum("bhc,hvc->bhv", mixed_BHC, value_HVC).flatten(1))  # type: ignore[no-any-return]

    def residual_projections(self) -> tuple[nn.Linear, ...]:
        """The output projection."""
        return (self.o_proj,)

    def _project(self, x_BLD: Tensor, positions: int | Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries without position and with it, the latent, and the shared key, (B, L, R)."""
        q_BLHX = self.q_proj(x_BLD).unflatten(-1, (self.heads, -1))
        q_BLHN, q_BLHR = q_BLHX.split([self.plain_dim, self.rope_dim], -1)
        latent_BLC, shared_BLR = self.kv_a_proj_with_mqa(x_BLD).split([self.latent_dim, self.rope_dim], -1)
        if self.rope_dim:
            q_BLHR = rotate(q_BLHR, positions, self.rope, time_axis=1)
            shared_BLR = rotate(shared_BLR[:, :, None], positions, self.rope, time_axis=1)[:, :, 0]
        return q_BLHN, q_BLHR, self.kv_a_layernorm(latent_BLC), shared_BLR

    def _attend(self, x_BLD: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """The mixed features, (B, L, D), and the latents and shared keys behind them."""
        positions = 0 if layout.positions is None else layout.positions
        q_BLHN, q_BLHR, latent_BLC, shared_BLR = self._project(x_BLD, positions)
        expanded_BLHX = self.kv_b_proj(latent_BLC).unflatten(-1, (self.heads, -1))
        k_BLHN, v_BLHV = expanded_BLHX.split([self.plain_dim, self.value_dim], -1)
        k_BLHR = shared_BLR[:, :, None].expand(-1, -1, self.heads, -1)
        # The fused kernels take queries, keys and values of one size: the smaller get zeros.
        size = max(self.plain_dim + self.rope_dim, self.value_dim)
        q_BHLF, k_BHLF, v_BHLF = (
            _joined(parts, size).transpose(1, 2) for parts in ((q_BLHN, q_BLHR), (k_BLHN, k_BLHR), (v_BLHV,))
        )
        y_BHLF = attend(q_BHLF, k_BHLF, v_BHLF, layout, scale=self.scale)
        y_BLD = self.o_proj(y_BHLF[..., : self.value_dim].transpose(1, 2).flatten(2))
        return y_BLD, latent_BLC, shared_BLR


def attend(q_BHLF: Tensor, k_BHLF: Tensor, v_BHLF: Tensor, layout: Layout, *, scale: float) -> Tensor:
    """Softmax attention of a layout in the fused kernels, without an L × L mask, (B, H, L, F).

    Args:
        q_BHLF: queries.
        k_BHLF: keys.
        v_BHLF: values.
        layout: prefixes; positions play no part here, nor does padding, which no token looks at.
        scale: of the scores.
    """
    length, prefix = q_BHLF.shape[2], layout.prefix
    if isinstance(prefix, Tensor) and prefix is layout.lengths_B:
        return _both_ways(q_BHLF, k_BHLF, v_BHLF, prefix, scale=scale)
    if isinstance(prefix, int) and prefix == length:
        return _both_ways(q_BHLF, k_BHLF, v_BHLF, None, scale=scale)
    causal_BHLF = scaled_dot_product_attention(q_BHLF, k_BHLF, v_BHLF, is_causal=True, scale=scale)
    if layout.is_causal:
        return causal_BHLF
    # Elsewhere the longest of the prefixes is not known without waiting for the device.
    is_known = isinstance(prefix, int) or prefix.device.type == "cpu"
    longest = max(int(torch.as_tensor(prefix).max()), 1) if is_known else length
    q_BHPF, k_BHPF, v_BHPF = (part[:, :, :longest] for part in (q_BHLF, k_BHLF, v_BHLF))
    if isinstance(prefix, int):
        inside_BHPF = _both_ways(q_BHPF, k_BHPF, v_BHPF, None, scale=scale)
    else:
        both_BHPF = _both_ways(q_BHPF, k_BHPF, v_BHPF, prefix, scale=scale)
        within_BP = torch.arange(longest, device=prefix.device) < prefix[:, None]
        inside_BHPF = torch.where(within_BP[:, None, :, None], both_BHPF, causal_BHLF[:, :, :longest])
    return torch.cat([inside_BHPF, causal_BHLF[:, :, longest:]], 2) if longest < length else inside_BHPF


def _both_ways(q_BHPF: Tensor, k_BHPF: Tensor, v_BHPF: Tensor, lengths_B: Tensor | None, *, scale: float) -> Tensor:
    """Every query sees the first lengths_B[b] keys, or all."""
    if lengths_B is None:
        return scaled_dot_product_attention(q_BHPF, k_BHPF, v_BHPF, scale=scale)
    # Where there is no prefix one key is looked at in vain: a softmax of nothing has no gradient.
    seen_BP = torch.arange(k_BHPF.shape[2], device=lengths_B.device) < lengths_B.clamp(min=1)[:, None]
    return scaled_dot_product_attention(q_BHPF, k_BHPF, v_BHPF, attn_mask=seen_BP[:, None, None], scale=scale)


def _joined(parts: tuple[Tensor, ...], size: int) -> Tensor:
    """Features one behind the other, and zeros up to `size`."""
    joined = torch.cat(parts, -1) if len(parts) > 1 else parts[0]
    return pad(joined, (0, size - joined.shape[-1])) if joined.shape[-1] < size else joined
