"""Linear attention, retention and gated linear attention: mixers whose state is a matrix per head.

In: features of a sequence. Out: features of the same shape. Each token writes the product of its
key and value into the state, and its query reads it; they differ in how the state forgets:
not at all, by a fixed share per head, or by a share per key feature that depends on the token.

Shapes: B batch, L length, D width, H heads, K features of a query or key, V of a value, P features
of a feature map, U = V + 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from nas.mixers.base import Layout, MixerConfig
from nas.mixers.channel_decay import LOWEST, channel_decayed_attention
from nas.mixers.chunks import work_dtype
from nas.mixers.convolution import ShortConvolution
from nas.mixers.decay import decayed_attention
from nas.mixers.gating import GatedRMSNorm
from nas.mixers.matrix import MatrixMixer, MatrixState, add_later_tokens, step_matrix, within
from nas.mixers.normalised import (
    EPSILON,
    normalised_attention,
    normalised_attention_to_all,
    taylor_feature_count,
    taylor_features_of_token,
)
from nas.mixers.positions import rotate

GATE_RANK = 16
GATE_SHARE = 1 / 16
"""Gated linear attention's decay is the 16th root of a sigmoid: it forgets slowly at first."""


class LinearAttention(MatrixMixer):
    """Linear attention with weights that sum to 1.

    The feature map of queries and keys is elu + 1 (Katharopoulos et al. 2020), or the Taylor series
    of the exponential up to the square (Arora et al. 2024, "Based").

    Options: heads, key_dim, value_dim, feature_map.
    """

    def __init__(self, config: MixerConfig) -> None:
        super().__init__(config)
        self.taylor = config.options["feature_map"] == "taylor"

    def step(self, x_BD: Tensor, state: MatrixState, position: int | Tensor, turn: Tensor | None = None) -> Tensor:
        """The next token, (B, D) to (B, D)."""
        q_BHK, k_BHK, v_BHV = self._project(x_BD)
        memory_BHPU = state.memory()
        q_BHP, k_BHP = (
            taylor_features_of_token(x.to(memory_BHPU.dtype)) if self.taylor else x.to(memory_BHPU.dtype)
            for x in (q_BHK, k_BHK)
        )
        v_BHU = functional.pad(v_BHV.to(memory_BHPU.dtype), (0, 1), value=1.0)
        memory_BHPU = memory_BHPU + k_BHP[..., None] * v_BHU[..., None, :]
        state.memory_BHKV.copy_(memory_BHPU.detach())
        read_BHU = (q_BHP[..., None, :] @ memory_BHPU).squeeze(-2)
        y_BHV = read_BHU[..., :-1] / (read_BHU[..., -1:] + EPSILON)
        return self.o_proj(y_BHV.flatten(1).to(x_BD.dtype))  # type: ignore[no-any-return]

    def _mix(self, x_BLD: Tensor, state: MatrixState | None, layout: Layout) -> Tensor:
        parts, prefix, length = self._project(x_BLD), layout.prefix, x_BLD.shape[1]
        sees_all = prefix is layout.lengths_B or (isinstance(prefix, int) and prefix == length > 1)
        y_BLHV = None
        if state is not None or not sees_all:
            valid_BL = None if layout.lengths_B is None or state is None else within(layout.lengths_B, length)
            y_BLHV, sums_BHPU = normalised_attention(*parts, taylor=self.taylor, valid_BL=valid_BL)
            if state is not None:
                state.memory_BHKV.copy_(sums_BHPU.detach())
        if isinstance(prefix, int):
            if prefix > 1:
                inside = normalised_attention_to_all(*(part[:, :prefix] for part in parts), taylor=self.taylor)
                y_BLHV = inside if y_BLHV is None else torch.cat([inside, y_BLHV[:, prefix:]], 1)
        else:
            inside_BL = within(prefix, length)
            inside = normalised_attention_to_all(*parts, taylor=self.taylor, valid_BL=inside_BL)
            y_BLHV = inside if y_BLHV is None else torch.where(inside_BL[..., None, None], inside, y_BLHV)
        assert y_BLHV is not None
        return self.o_proj(y_BLHV.flatten(2))  # type: ignore[no-any-return]

    def _memory_shape(self) -> tuple[int, int]:
        return taylor_feature_count(self.key_dim) if self.taylor else self.key_dim, self.value_dim + 1

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values; the former as the kernel takes them."""
        q, k, v = self._by_head(self.q_proj(x)), self._by_head(self.k_proj(x)), self._by_head(self.v_proj(x))
        return (q, k, v) if self.taylor else (_Positive.apply(q), _Positive.apply(k), v)  # type: ignore[no-untyped-call]


class Retention(MatrixMixer):
    """Retention: head h forgets the share 2^(−5−h) of its state at each token (Sun et al. 2023).

    Queries and keys are turned where the model's positions are rotary. What a head reads is normed
    and gated.

    Options: heads, key_dim, value_dim, output_gate.
    """

    def __init__(self, config: MixerConfig) -> None:
        super().__init__(config)
        self.rope = config.rope if config.around.positions == "rope" else None
        has_gate = bool(config.options["output_gate"])
        self.g_proj = nn.Linear(config.around.width, self.heads * self.value_dim, bias=False) if has_gate else None
        self.g_norm = GatedRMSNorm(self.value_dim, weights=0)

    def step(self, x_BD: Tensor, state: MatrixState, position: int | Tensor, turn: Tensor | None = None) -> Tensor:
        """The next token, (B, D) to (B, D)."""
        place = position if turn is None else turn
        q_B1HK, k_B1HK, v_B1HV = self._project(x_BD[:, None], place[:, None] if isinstance(place, Tensor) else place)
        decay_H11 = self._log_decay(x_BD).exp()[:, None, None]
        y_BHV = step_matrix(state, decay_H11, q_B1HK[:, 0], k_B1HK[:, 0], v_B1HV[:, 0])
        return self._finish(y_BHV.to(x_BD.dtype), x_BD)

    def _mix(self, x_BLD: Tensor, state: MatrixState | None, layout: Layout) -> Tensor:
        q_BLHK, k_BLHK, v_BLHV = self._project(x_BLD, 0 if layout.positions is None else layout.positions)
        log_decay_H = self._log_decay(x_BLD)
        y_BLHV, memory_BHKV = decayed_attention(q_BLHK, k_BLHK, v_BLHV, log_decay_H)
        if state is not None:
            if layout.lengths_B is not None:
                memory_BHKV = self._memory_after(k_BLHK, v_BLHV, log_decay_H, layout.lengths_B)
            state.memory_BHKV.copy_(memory_BHKV.detach())

        def scan(v_BLHV: Tensor, q_BLHK: Tensor, k_BLHK: Tensor) -> Tensor:
            return decayed_attention(q_BLHK, k_BLHK, v_BLHV, log_decay_H, exclusive=True)[0]

        y_BLHV = add_later_tokens(y_BLHV, layout.prefix, scan, v_BLHV, q_BLHK, k_BLHK)
        return self._finish(y_BLHV, x_BLD)

    @staticmethod
    def _memory_after(k_BLHK: Tensor, v_BLHV: Tensor, log_decay_H: Tensor, lengths_B: Tensor) -> Tensor:
        """The state after the last token before the padding: what each token of it still weighs."""
        age_BL = lengths_B[:, None] - 1 - torch.arange(k_BLHK.shape[1], device=k_BLHK.device)
        shares_BLH = (age_BL[..., None] * log_decay_H).exp().masked_fill((age_BL < 0)[..., None], 0)
        kept_BLHV = (v_BLHV * shares_BLH[..., None]).masked_fill((age_BL < 0)[..., None, None], 0)
        return torch.einsum("blhk,blhv->bhkv", k_BLHK.to(kept_BLHV.dtype), kept_BLHV)

    def _log_decay(self, x: Tensor) -> Tensor:
        heads_H = torch.arange(self.heads, dtype=torch.float64, device=x.device)
        return torch.log1p(-torch.exp2(-5 - heads_H)).to(work_dtype(x))

    def _project(self, x_BLD: Tensor, positions: int | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q_BLHK, k_BLHK = self._by_head(self.q_proj(x_BLD)), self._by_head(self.k_proj(x_BLD))
        if self.rope is not None:
            q_BLHK, k_BLHK = (rotate(part, positions, self.rope, time_axis=1) for part in (q_BLHK, k_BLHK))
        return q_BLHK * self.key_dim**-0.5, k_BLHK, self._by_head(self.v_proj(x_BLD))

    def _finish(self, y: Tensor, x: Tensor) -> Tensor:
        gate = None if self.g_proj is None else self.g_proj(x)
        return self.o_proj(self.g_norm(y.flatten(-2), gate))  # type: ignore[no-any-return]


class GatedLinearAttention(MatrixMixer):
    """Gated linear attention: each key feature forgets at its own rate (Yang et al. 2024).

    The log decay is a sixteenth of the log-sigmoid of a low-rank map of the token, and at least −5,
    which a gate reaches at −80. What a head reads is normed and gated. With a kernel, queries, keys
    and values go through a short convolution and a swish first.

    Options: heads, key_dim, value_dim, output_gate, conv.
    """

    def __init__(self, config: MixerConfig) -> None:
        super().__init__(config)
        width, kernel = config.around.width, int(config.options["conv"])
        keys, values = self.heads * self.key_dim, self.heads * self.value_dim
        last = nn.Linear(GATE_RANK, keys)
        nn.init.zeros_(last.bias)
        self.gk_proj = nn.Sequential(nn.Linear(width, GATE_RANK, bias=False), last)
        self.g_proj = nn.Linear(width, values, bias=False) if config.options["output_gate"] else None
        self.g_norm = GatedRMSNorm(self.value_dim, weights=self.value_dim)
        self.q_conv1d = ShortConvolution(keys, kernel) if kernel else None
        self.k_conv1d = ShortConvolution(keys, kernel) if kernel else None
        self.v_conv1d = ShortConvolution(values, kernel) if kernel else None

    def step(self, x_BD: Tensor, state: MatrixState, position: int | Tensor, turn: Tensor | None = None) -> Tensor:
        """The next token, (B, D) to (B, D)."""
        parts = [self.q_proj(x_BD), self.k_proj(x_BD), self.v_proj(x_BD)]
        for i, (conv, kept) in enumerate(zip(self._convolutions(), state.convolutions, strict=True)):
            parts[i] = functional.silu(conv.step(parts[i], kept))
        q_BHK, k_BHK, v_BHV = (self._by_head(part) for part in parts)
        decay_BHK1 = self._log_decay(x_BD).exp()[..., None]
        y_BHV = step_matrix(state, decay_BHK1, q_BHK * self.key_dim**-0.5, k_BHK, v_BHV)
        return self._finish(y_BHV.to(x_BD.dtype), x_BD)

    def _mix(self, x_BLD: Tensor, state: MatrixState | None, layout: Layout) -> Tensor:
        q_BLHK, k_BLHK, v_BLHV = self._project(x_BLD, state, layout.lengths_B)
        g_BLHK = self._log_decay(x_BLD)
        if state is not None and layout.lengths_B is not None:
            # The padding neither writes nor forgets, so that the last state is that before it.
            padding_BL11 = ~within(layout.lengths_B, x_BLD.shape[1])[..., None, None]
            v_BLHV, g_BLHK = v_BLHV.masked_fill(padding_BL11, 0), g_BLHK.masked_fill(padding_BL11, 0)
        y_BLHV, memory_BHKV = channel_decayed_attention(q_BLHK, k_BLHK, v_BLHV, g_BLHK)
        if state is not None:
            state.memory_BHKV.copy_(memory_BHKV.detach())

        def scan(v_BLHV: Tensor, q_BLHK: Tensor, k_BLHK: Tensor, g_BLHK: Tensor) -> Tensor:
            return channel_decayed_attention(q_BLHK, k_BLHK, v_BLHV, g_BLHK, exclusive=True)[0]

        y_BLHV = add_later_tokens(y_BLHV, layout.prefix, scan, v_BLHV, q_BLHK, k_BLHK, g_BLHK)
        return self._finish(y_BLHV, x_BLD)

    def _project(self, x_BLD: Tensor, state: MatrixState | None, lengths_B: Tensor | None) -> tuple[Tensor, ...]:
        parts = [self.q_proj(x_BLD), self.k_proj(x_BLD), self.v_proj(x_BLD)]
        for i, conv in enumerate(self._convolutions()):
            convolved = conv(parts[i]) if state is None else conv.prefill(parts[i], state.convolutions[i], lengths_B)
            parts[i] = functional.silu(convolved)
        q_BLHK, k_BLHK, v_BLHV = (self._by_head(part) for part in parts)
        return q_BLHK * self.key_dim**-0.5, k_BLHK, v_BLHV

    def _convolutions(self) -> tuple[ShortConvolution, ...]:
        return tuple(conv for conv in (self.q_conv1d, self.k_conv1d, self.v_conv1d) if conv is not None)

    def _log_decay(self, x: Tensor) -> Tensor:
        g: Tensor = _LogDecay.apply(self.gk_proj(x))  # type: ignore[no-untyped-call]
        return self._by_head(g)

    def _finish(self, y: Tensor, x: Tensor) -> Tensor:
        gate = None if self.g_proj is None else self.g_proj(x)
        return self.o_proj(self.g_norm(y.flatten(-2), gate))  # type: ignore[no-any-return]


class _Positive(torch.autograd.Function):
    """elu(x) + 1, of which only the output is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = functional.elu(x).add_(1)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        slope: Tensor = y.clamp(max=1)
        return slope.mul_(dy)


class _LogDecay(torch.autograd.Function):
    """Gate logits to log decays, in at least float32; of it all only the logits are kept."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        ctx.save_for_backward(logits)
        return functional.logsigmoid(logits.to(work_dtype(logits))).mul_(GATE_SHARE).clamp_(min=LOWEST)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dg: Tensor) -> Tensor:
        (logits,) = ctx.saved_tensors
        exact = logits.to(dg.dtype)
        slope: Tensor = torch.sigmoid(-exact).mul_(GATE_SHARE).masked_fill_(exact < LOWEST / GATE_SHARE, 0)
        dlogits: Tensor = slope.mul_(dg).to(logits.dtype)
        return dlogits
