"""Mamba-2, a state space model in the form of attention (Dao & Gu 2024).

In: features of a sequence. Out: features of the same shape. The block is the published one, with
its names, so that published weights fit as they are: one projection makes gates, values, keys
(B), queries (C) and time steps; a short convolution with a swish goes over the middle three; each
head then keeps a matrix that decays by exp(−A·dt) and takes in dt·B xᵀ.

Tokens of a prefix read what comes after them, inside the prefix, from a second scan backwards
that leaves out the token itself. The convolution looks back only.

Shapes: B batch, L length, D width, H heads, P features of a head, G groups of heads that share
keys and queries, N features of those, I = H·P, T = I + 2·G·N features that are convolved.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn, split, unflatten
from torch.nn import functional

from nas.mixers.base import CAUSAL, Layout, Mixer, MixerConfig
from nas.mixers.chunks import work_dtype
from nas.mixers.convolution import ShortConvolution
from nas.mixers.decay import decayed_attention
from nas.mixers.gating import GatedRMSNorm
from nas.mixers.matrix import MatrixState, add_later_tokens, step_matrix, within

CHUNK = 32
# Of the published initialisation: rates A, and the range of time steps.
SLOWEST, FASTEST = 1.0, 16.0
SHORTEST, LONGEST, LEAST = 1e-3, 1e-1, 1e-4


class Mamba2(Mixer[MatrixState]):
    """The Mamba-2 block (Dao & Gu 2024).

    Options: expand, head_dim, state_dim, groups, conv.
    """

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        options, width = config.options, config.around.width
        self.inner = int(options["expand"]) * width
        self.head_dim = int(options["head_dim"])
        self.heads = self.inner // self.head_dim
        self.state_dim = int(options["state_dim"])
        self.groups = int(options["groups"])
        convolved = self.inner + 2 * self.groups * self.state_dim
        self.in_proj = nn.Linear(width, self.inner + convolved + self.heads, bias=False)
        self.conv1d = ShortConvolution(convolved, int(options["conv"]), bias=True)
        self.A_log = nn.Parameter(torch.empty(self.heads).uniform_(SLOWEST, FASTEST).log_())
        self.D = nn.Parameter(torch.ones(self.heads))
        steps_H = torch.empty(self.heads).uniform_(math.log(SHORTEST), math.log(LONGEST)).exp_().clamp_(min=LEAST)
        # The inverse of softplus.
        self.dt_bias = nn.Parameter(steps_H + torch.log(-torch.expm1(-steps_H)))
        self.norm = GatedRMSNorm(self.inner // self.groups, weights=self.inner, gate_first=True)
        self.out_proj = nn.Linear(self.inner, width, bias=False)

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
        """An empty state: H·P·N elements in `recurrent_dtype` and (kernel − 1)·T in `cache_dtype`."""
        shape = (batch, self.heads, self.state_dim, self.head_dim)
        memory_BHNP = torch.zeros(shape, dtype=recurrent_dtype, device=device)
        return MatrixState(memory_BHNP, (self.conv1d.new_state(batch, dtype=cache_dtype, device=device),))

    def prefill(self, x_BLD: Tensor, state: MatrixState, layout: Layout = CAUSAL) -> Tensor:
        """`forward` that also fills `state` with the tokens before the padding."""
        return self._mix(x_BLD, state, layout)

    def step(self, x_BD: Tensor, state: MatrixState, position: int | Tensor, turn: Tensor | None = None) -> Tensor:
        """The next token, (B, D) to (B, D)."""
        z_BI, unmixed_BT, logits_BH = self._split(self.in_proj(x_BD))
        v_BHP, k_BGN, q_BGN = self._heads(functional.silu(self.conv1d.step(unmixed_BT, state.convolutions[0])))
        dt_BH, g_BH = self._times(logits_BH)
        q_BHN, k_BHN = (part.repeat_interleave(self.heads // self.groups, 1) for part in (q_BGN, k_BGN))
        y_BHP = step_matrix(state, g_BH.exp()[..., None, None], q_BHN, k_BHN, v_BHP * dt_BH[..., None])
        y_BHP = y_BHP + self.D[:, None] * v_BHP
        return self._finish(y_BHP.to(x_BD.dtype), z_BI)

    def residual_projections(self) -> tuple[nn.Linear, ...]:
        """The output projection."""
        return (self.out_proj,)

    def _mix(self, x_BLD: Tensor, state: MatrixState | None, layout: Layout) -> Tensor:
        z_BLI, unmixed_BLT, logits_BLH = self._split(self.in_proj(x_BLD))
        v_BLHP, k_BLGN, q_BLGN = self._heads(functional.silu(self._mixed(unmixed_BLT, state, layout)))
        dt_BLH, g_BLH = self._times(logits_BLH)
        if state is not None and layout.lengths_B is not None:
            # In the padding no time passes, so that the last state is that before it.
            padding_BL1 = ~within(layout.lengths_B, x_BLD.shape[1])[..., None]
            dt_BLH, g_BLH = dt_BLH.masked_fill(padding_BL1, 0), g_BLH.masked_fill(padding_BL1, 0)
        y_BLHP, memory_BHNP = decayed_attention(
            q_BLGN, k_BLGN, v_BLHP, g_BLH, gain_BLH=dt_BLH, skip_H=self.D, chunk=CHUNK
        )
        if state is not None:
            state.memory_BHKV.copy_(memory_BHNP.detach())
        y_BLHP = add_later_tokens(y_BLHP, layout.prefix, _scan, v_BLHP, q_BLGN, k_BLGN, g_BLH, dt_BLH)
        return self._finish(y_BLHP, z_BLI)

    def _mixed(self, unmixed_BLT: Tensor, state: MatrixState | None, layout: Layout) -> Tensor:
        if state is None:
            return self.conv1d(unmixed_BLT)  # type: ignore[no-any-return]
        return self.conv1d.prefill(unmixed_BLT, state.convolutions[0], layout.lengths_B)

    def _split(self, projected: Tensor) -> tuple[Tensor, ...]:
        """Gates (…, I), what is to be convolved (…, T), and logits of the time steps (…, H)."""
        return split(projected, [self.inner, self.conv1d.weight.shape[0], self.heads], dim=-1)

    def _heads(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values (…, H, P), keys (…, G, N) and queries (…, G, N)."""
        shared = self.groups * self.state_dim
        v, k, q = split(mixed, [self.inner, shared, shared], dim=-1)
        k, q = (unflatten(part, -1, (self.groups, -1)) for part in (k, q))
        return unflatten(v, -1, (self.heads, -1)), k, q

    def _times(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Time steps and log decays, (…, H), in at least float32."""
        exact = work_dtype(logits)
        dt = functional.softplus(logits.to(exact) + self.dt_bias.to(exact))
        return dt, -self.A_log.to(exact).exp() * dt

    def _finish(self, y: Tensor, z: Tensor) -> Tensor:
        return self.out_proj(self.norm(y.flatten(-2), z))  # type: ignore[no-any-return]


def _scan(v_BLHP: Tensor, q_BLGN: Tensor, k_BLGN: Tensor, g_BLH: Tensor, dt_BLH: Tensor) -> Tensor:
    """What every token reads of those before it."""
    return decayed_attention(q_BLGN, k_BLGN, v_BLHP, g_BLH, gain_BLH=dt_BLH, exclusive=True, chunk=CHUNK)[0]
