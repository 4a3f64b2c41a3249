"""Mixers with a memory that each token corrects: DeltaNet and gated DeltaNet.

In: features of a sequence. Out: features of the same shape. A head's memory answers keys with
values; a token reads what its own key is answered so far and corrects it, so a key that comes again
replaces its value instead of adding to it (Yang et al. 2024; with decay, Yang et al. 2025, as in
Qwen3-Next).

Inside a prefix a second scan goes from its end to its start, and a token reads the sum of both.

Shapes: B batch, L length, D width, H heads, G key heads, K features of a key, V features of a
value, C = 2·G·K + H·V channels of queries, keys and values side by side, P tokens of a prefix.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from nas.mixers.base import CAUSAL, Layout, Mixer, MixerConfig, MixerState
from nas.mixers.convolution import ConvolutionState, ShortConvolution
from nas.mixers.delta_core import UNIT_EPSILON, delta_rule

NORM_EPSILON = 1e-6
SLOWEST_STEP, FASTEST_STEP = 1e-3, 0.1


class DeltaState(MixerState):
    """The memories, and the last inputs of the short convolution.

    Attributes:
        memory_BHKV: what each head answers.
        convolution: absent where there is none.
    """

    def __init__(self, memory_BHKV: Tensor, convolution: ConvolutionState | None) -> None:
        self.memory_BHKV = memory_BHKV
        self.convolution = convolution

    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor kept."""
        return (self.memory_BHKV, *(self.convolution.tensors() if self.convolution is not None else ()))


class _Tokens(NamedTuple):
    """What the memory takes of each token."""

    qkv_BLC: Tensor
    log_decay_BLH: Tensor | None
    beta_BLH: Tensor

    def before_padding(self, lengths_B: Tensor) -> _Tokens:
        """Tokens of the padding neither write nor let anything fade."""
        padding_BL1 = (torch.arange(self.beta_BLH.shape[1], device=lengths_B.device) >= lengths_B[:, None])[..., None]
        decay_BLH = None if self.log_decay_BLH is None else self.log_decay_BLH.masked_fill(padding_BL1, 0)
        return _Tokens(self.qkv_BLC, decay_BLH, self.beta_BLH.masked_fill(padding_BL1, 0))

    def stacked(self, other: _Tokens) -> _Tokens:
        """Both as one batch."""
        return _Tokens(*(None if a is None else torch.cat([a, b]) for a, b in zip(self, other, strict=True)))  # type: ignore[arg-type, list-item]

    def backwards(self, tokens: int, prefix: int | Tensor) -> _Tokens:
        """The prefixes among the first `tokens`, each from its end to its start, then nothing."""
        return _Tokens(*(None if x is None else _reversed(x[:, :tokens], prefix) for x in self))  # type: ignore[arg-type]


def _reversed(x_BPF: Tensor, prefix: int | Tensor) -> Tensor:
    """The first `prefix` tokens in the opposite order, zeros behind them."""
    if isinstance(prefix, int):
        return x_BPF.flip(1)
    return _Reversed.apply(x_BPF, prefix)  # type: ignore[no-any-return, no-untyped-call]


class _Reversed(torch.autograd.Function):
    """Reversal of prefixes of unequal length; it is its own gradient."""

    @staticmethod
    def forward(ctx: Any, x_BPF: Tensor, prefix_B: Tensor) -> Tensor:
        ctx.save_for_backward(prefix_B)
        return _Reversed.reverse(x_BPF, prefix_B)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y_BPF: Tensor) -> tuple[Tensor, None]:
        (prefix_B,) = ctx.saved_tensors
        return _Reversed.reverse(d_y_BPF, prefix_B), None

    @staticmethod
    def reverse(x_BPF: Tensor, prefix_B: Tensor) -> Tensor:
        places_BP1 = (prefix_B[:, None] - 1 - torch.arange(x_BPF.shape[1], device=x_BPF.device))[..., None]
        y_BPF = x_BPF.flatten(2).take_along_dim(places_BP1.clamp(min=0), 1)
        return y_BPF.masked_fill_(places_BP1 < 0, 0).view(x_BPF.shape)


class HeadNorm(nn.Module):
    """RMS norm of each head's output (Zhang & Sennrich 2019), then scaled by SiLU of its gate, if any."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor, gate: Tensor | None) -> Tensor:
        """(…, V) to (…, V)."""
        return _GatedNorm.apply(x, gate, self.weight)  # type: ignore[no-any-return, no-untyped-call]


class _GatedNorm(torch.autograd.Function):
    """Keeps its inputs only; plain operations would keep three tensors more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor | None, weight_V: Tensor) -> Tensor:
        ctx.save_for_backward(x, gate, weight_V)
        dtype = torch.promote_types(x.dtype, torch.float32)
        y = _normed(x.to(dtype))[0].mul_(weight_V)
        if gate is not None:
            y.mul_(functional.silu(gate.to(dtype)))
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        x, gate, weight_V = ctx.saved_tensors
        dtype = torch.promote_types(x.dtype, torch.float32)
        normed, inverse = _normed(x.to(dtype))
        d_scaled, d_gate = d_y.to(dtype), None
        if gate is not None:
            gate_ = gate.to(dtype)
            silu = functional.silu(gate_)
            d_gate = torch.ops.aten.silu_backward(d_scaled * normed * weight_V, gate_).to(gate.dtype)
            d_scaled = d_scaled * silu
        along = d_scaled * normed
        d_weight_V = along.flatten(0, -2).sum(0).to(weight_V.dtype)
        mean = (along @ weight_V.to(dtype)).unsqueeze(-1) / x.shape[-1]
        d_x = (d_scaled * weight_V).addcmul_(normed, mean, value=-1).mul_(inverse)
        return d_x.to(x.dtype), d_gate, d_weight_V


def _normed(x: Tensor) -> tuple[Tensor, Tensor]:
    """x over the root of its mean square, and one over that root."""
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    inverse = length.square_().div_(x.shape[-1]).add_(NORM_EPSILON).rsqrt_()
    return x * inverse, inverse


class DeltaNet(Mixer[DeltaState]):
    """A memory per head that each token corrects at its own key (Yang et al. 2024).

        q, k, v = silu(conv(W x))     q, k of unit length, q/√K     β = sigmoid(W_β x)
        S_t = S_{t−1}·(I − β_t k_t k_tᵀ) + β_t v_t k_tᵀ             y_t = W_o (norm(S_t q_t) ⊙ silu(W_g x_t))

    Options: heads, key_heads (each serves heads / key_heads consecutive heads), key_dim, value_dim,
    conv (taps, 0: none), output_gate.
    """

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        width, options = config.around.width, config.options
        self.heads, self.key_heads = int(options["heads"]), int(options["key_heads"])
        self.key_dim, self.value_dim = int(options["key_dim"]), int(options["value_dim"])
        keys, values = self.key_heads * self.key_dim, self.heads * self.value_dim
        self.q_proj = nn.Linear(width, keys, bias=False)
        self.k_proj = nn.Linear(width, keys, bias=False)
        self.v_proj = nn.Linear(width, values, bias=False)
        self.b_proj = nn.Linear(width, self.heads, bias=False)
        kernel = int(options["conv"])
        self.conv = ShortConvolution(2 * keys + values, kernel) if kernel else None
        self.g_proj = nn.Linear(width, values, bias=False) if options["output_gate"] else None
        self.o_norm = HeadNorm(self.value_dim)
        self.o_proj = nn.Linear(values, width, bias=False)

    def forward(self, x_BLD: Tensor, layout: Layout = CAUSAL) -> Tensor:
        """All positions at once, (B, L, D) to (B, L, D)."""
        # No variable holds what the next step alone needs: it is let go at once.
        out_BLHV = self._read(self._tokens(x_BLD, self._mixed(x_BLD)), layout)[0]
        return self._finish(x_BLD, out_BLHV)

    def new_state(
        self,
        batch: int,
        context: int,
        *,
        cache_dtype: torch.dtype,
        recurrent_dtype: torch.dtype,
        device: torch.device,
    ) -> DeltaState:
        """An empty state; the memories are of the recurrent dtype, the convolution's inputs of the cache's."""
        shape = (batch, self.heads, self.key_dim, self.value_dim)
        convolution = None if self.conv is None else self.conv.new_state(batch, dtype=cache_dtype, device=device)
        return DeltaState(torch.zeros(shape, dtype=recurrent_dtype, device=device), convolution)

    def prefill(self, x_BLD: Tensor, state: DeltaState, layout: Layout = CAUSAL) -> Tensor:
        """`forward` that also fills `state`, with the causal scan's memories alone."""
        out_BLHV, memory_BHKV = self._read(self._prefilled(x_BLD, state, layout), layout)
        state.memory_BHKV.copy_(memory_BHKV.detach())
        del memory_BHKV
        return self._finish(x_BLD, out_BLHV)

    def step(self, x_BD: Tensor, state: DeltaState, position: int | Tensor, turn: Tensor | None = None) -> Tensor:
        """The next token, (B, D) to (B, D)."""
        qkv_BC = self._project(x_BD)
        if self.conv is not None:
            assert state.convolution is not None
            qkv_BC = self.conv.step(qkv_BC, state.convolution)
        tokens = self._tokens(x_BD, qkv_BC)
        dtype = torch.promote_types(x_BD.dtype, torch.float32)
        q_BHK, k_BHK, v_BHV = (x.to(dtype) for x in self._heads(tokens.qkv_BLC))
        q_BHK, k_BHK = (
            (x * (x.square().sum(-1, keepdim=True) + UNIT_EPSILON).rsqrt()).repeat_interleave(
                self.heads // self.key_heads, 1
            )
            for x in (q_BHK, k_BHK)
        )
        memory_BHKV = state.memory_BHKV.to(dtype)
        if tokens.log_decay_BLH is not None:
            memory_BHKV = memory_BHKV * tokens.log_decay_BLH.exp()[..., None, None]
        error_BHV = v_BHV - (k_BHK.unsqueeze(2) @ memory_BHKV).squeeze(2)
        memory_BHKV = memory_BHKV + k_BHK.unsqueeze(3) * (error_BHV * tokens.beta_BLH[..., None]).unsqueeze(2)
        out_BHV = (q_BHK.unsqueeze(2) @ memory_BHKV).squeeze(2) * self.key_dim**-0.5
        state.memory_BHKV.copy_(memory_BHKV.detach())
        return self._finish(x_BD, out_BHV.to(x_BD.dtype))

    def residual_projections(self) -> tuple[nn.Linear, ...]:
        """The output projection."""
        return (self.o_proj,)

    def _mixed(self, x_BLD: Tensor) -> Tensor:
        qkv_BLC = self._project(x_BLD)
        return qkv_BLC if self.conv is None else self.conv(qkv_BLC)

    def _prefilled(self, x_BLD: Tensor, state: DeltaState, layout: Layout) -> _Tokens:
        """Tokens before the padding, whose last go into the convolution's state."""
        qkv_BLC = self._project(x_BLD)
        if self.conv is not None:
            assert state.convolution is not None
            qkv_BLC = self.conv.prefill(qkv_BLC, state.convolution, layout.lengths_B)
        tokens = self._tokens(x_BLD, qkv_BLC)
        return tokens if layout.lengths_B is None else tokens.before_padding(layout.lengths_B)

    def _project(self, x: Tensor) -> Tensor:
        # One product of the joined weights spares joining the results, which the convolution wants side by side.
        weight_CD = torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight])
        return functional.linear(x, weight_CD)

    def _tokens(self, x: Tensor, convolved: Tensor) -> _Tokens:
        """Of (B, L, ·), or of one token (B, ·)."""
        beta = self.b_proj(x).to(torch.promote_types(x.dtype, torch.float32)).sigmoid()
        return _Tokens(functional.silu(convolved), self._log_decay(x), beta)

    def _log_decay(self, x: Tensor) -> Tensor | None:
        """How much the memories fade, at most 0; None: not at all."""
        return None

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (…, heads, features)."""
        keys = self.key_heads * self.key_dim
        q, k, v = torch.split(qkv, [keys, keys, self.heads * self.value_dim], dim=-1)
        lead = qkv.shape[:-1]
        q, k = (x.reshape(*lead, self.key_heads, self.key_dim) for x in (q, k))
        return q, k, v.reshape(*lead, self.heads, self.value_dim)

    def _scan(self, tokens: _Tokens) -> tuple[Tensor, Tensor]:
        return delta_rule(*self._heads(tokens.qkv_BLC), tokens.log_decay_BLH, tokens.beta_BLH, unit=True)

    def _read(self, tokens: _Tokens, layout: Layout) -> tuple[Tensor, Tensor]:
        """What tokens read, (B, L, H, V), and the memories that the causal scan leaves, (B, H, K, V)."""
        if layout.is_causal:
            return self._scan(tokens)
        prefix, (batch, length) = layout.prefix, tokens.beta_BLH.shape[:2]
        if isinstance(prefix, int):
            seen = prefix
        else:
            prefix = prefix.masked_fill(prefix == 1, 0)  # one token is read once, as where all prefixes are 1
            # To know the longest prefix a GPU would have to be waited for.
            seen = length if prefix.is_cuda else int(prefix.max())
        if not seen:
            return self._scan(tokens)
        if seen == length:
            both_XLHV, memory_XHKV = self._scan(tokens.stacked(tokens.backwards(seen, prefix)))
            return both_XLHV[:batch] + _reversed(both_XLHV[batch:], prefix), memory_XHKV[:batch]
        out_BLHV, memory_BHKV = self._scan(tokens)
        back_BPHV = _reversed(self._scan(tokens.backwards(seen, prefix))[0], prefix)
        return out_BLHV + functional.pad(back_BPHV, (0, 0, 0, 0, 0, length - seen)), memory_BHKV

    def _finish(self, x: Tensor, out: Tensor) -> Tensor:
        gate = None if self.g_proj is None else self.g_proj(x).view(out.shape)
        return self.o_proj(self.o_norm(out, gate).flatten(-2))  # type: ignore[no-any-return]


class GatedDeltaNet(DeltaNet):
    """DeltaNet whose memories also fade (Yang et al. 2025; Qwen3-Next's linear attention).

        S_t = exp(g_t)·S_{t−1}·(I − β_t k_t k_tᵀ) + β_t v_t k_tᵀ        g = −exp(A_log)·softplus(W_a x + dt_bias)

    Options: those of `DeltaNet`.
    """

    def __init__(self, config: MixerConfig) -> None:
        super().__init__(config)
        self.a_proj = nn.Linear(config.around.width, self.heads, bias=False)
        # As in Mamba 2 (Dao & Gu 2024): rates from 1 to 16, times steps that softplus(dt_bias) spreads evenly in log.
        self.A_log = nn.Parameter(torch.empty(self.heads).uniform_(1, 16).log())
        steps_H = torch.empty(self.heads).uniform_(math.log(SLOWEST_STEP), math.log(FASTEST_STEP)).exp()
        self.dt_bias = nn.Parameter(steps_H + torch.log(-torch.expm1(-steps_H)))

    def _log_decay(self, x: Tensor) -> Tensor | None:
        dtype = torch.promote_types(x.dtype, torch.float32)
        step = functional.softplus(self.a_proj(x).to(dtype) + self.dt_bias.to(dtype))
        return -self.A_log.to(dtype).exp() * step
