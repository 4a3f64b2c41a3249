"""Peers of the mixers' benchmark that no package has whole for a CPU: published layers, composed.

Projections, convolutions, norms and gates are torch's own; the core is a naive function of
flash-linear-attention, or one of transformers. Decoding uses the naive recurrence of one token.

Shapes: B batch, L length, D width, H heads, F features of a head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from _bench_cores import HEAD_DIM, HEADS, WIDTH, fla
from _bench_measure import Run
from _bench_ours import Call, Pair, make_pair, our_mixer, stepping, transformers_shape
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, MiniMaxConfig
from transformers.models.llama import modeling_llama
from transformers.models.minimax import modeling_minimax
from transformers.models.qwen3_5 import modeling_qwen3_5


class _Composed(nn.Module):
    """Projections, perhaps convolutions, a core, a norm, perhaps a gate."""

    def __init__(
        self, *, conv: int = 0, gate: bool = False, norm: bool = False, extra: dict[str, nn.Module] | None = None
    ) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.convs = nn.ModuleList(
            nn.Conv1d(WIDTH, WIDTH, conv, groups=WIDTH, padding=conv - 1, bias=False) for _ in range(3 if conv else 0)
        )
        self.g_proj = nn.Linear(WIDTH, WIDTH, bias=False) if gate else None
        self.norm = nn.RMSNorm(HEAD_DIM, eps=1e-5) if norm else None
        self.extra = nn.ModuleDict(extra)

    def qkv(self, x_BLD: Tensor) -> list[Tensor]:
        """(B, L, H, F) each."""
        parts = [self.q_proj(x_BLD), self.k_proj(x_BLD), self.v_proj(x_BLD)]
        if len(self.convs):
            length = x_BLD.shape[1]
            parts = [
                functional.silu(conv(part.transpose(1, 2))[..., :length].transpose(1, 2))
                for conv, part in zip(self.convs, parts, strict=True)
            ]
        return [part.unflatten(-1, (HEADS, HEAD_DIM)) for part in parts]

    def finish(self, y_BLHF: Tensor, x_BLD: Tensor) -> Tensor:
        """Norm, gate and the output projection."""
        if self.norm is not None:
            y_BLHF = self.norm(y_BLHF)
        y_BLD = y_BLHF.flatten(2)
        if self.g_proj is not None:
            y_BLD = y_BLD * functional.silu(self.g_proj(x_BLD))
        return self.o_proj(y_BLD)  # type: ignore[no-any-return]


Core = Callable[[_Composed, Tensor], Tensor]
"""Reads (B, L, H, F) of features (B, L, D)."""
StepCore = Callable[[_Composed, Tensor, Any, int], tuple[Tensor, Any]]
"""Reads of one token, and the state after it; the state before the first is None."""


def _composed(
    name: str, layer: Callable[[], _Composed], core: Core, step: StepCore | None, exponent: float = 1.0
) -> Pair:
    def make(length: int) -> tuple[nn.Module, Call]:
        module = layer()
        return module, lambda x_BLD: module.finish(core(module, x_BLD), x_BLD)

    def decode(length: int) -> Run:
        module, state = layer(), None
        assert step is not None

        def call(x_11D: Tensor, place: int) -> None:
            nonlocal state
            y_11HF, state = step(module, x_11D, state, place)
            module.finish(y_11HF, x_11D)

        return stepping(call, 0)

    return make_pair(name, make, decode if step is not None else None, exponent)


def linear() -> list[Pair]:
    def positive(module: _Composed, x_BLD: Tensor) -> list[Tensor]:
        q, k, v = module.qkv(x_BLD)
        return [functional.elu(q) + 1, functional.elu(k) + 1, v]

    def core(module: _Composed, x_BLD: Tensor) -> Tensor:
        found: Tensor = fla("linear_attn/naive").naive_chunk_linear_attn(*positive(module, x_BLD), normalize=True)
        return found

    def step(module: _Composed, x_11D: Tensor, state: Any, place: int) -> tuple[Tensor, Any]:
        found: tuple[Tensor, Any] = fla("linear_attn/naive").naive_recurrent_linear_attn(
            *positive(module, x_11D), initial_state=state, output_final_state=True, normalize=True
        )
        return found

    return [_composed("projections around FLA naive_chunk_linear_attn", _Composed, core, step)]


def retention() -> list[Pair]:
    config = LlamaConfig(**transformers_shape())
    fixed_H = torch.log1p(-(2.0 ** (-5.0 - torch.arange(HEADS))))

    def turned(module: _Composed, x_BLD: Tensor, first: int) -> list[Tensor]:
        q, k, v = module.qkv(x_BLD)
        places = torch.arange(first, first + x_BLD.shape[1])[None]
        cos, sin = modeling_llama.LlamaRotaryEmbedding(config)(x_BLD, places)
        return [*modeling_llama.apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=2), v]

    def core(chunk: int, module: _Composed, x_BLD: Tensor) -> Tensor:
        decays_BLH = fixed_H.expand(1, x_BLD.shape[1], HEADS)
        simple = fla("simple_gla/naive").naive_chunk_simple_gla
        found: Tensor = simple(*turned(module, x_BLD, 0), decays_BLH, chunk_size=chunk)[0]
        return found

    def step(module: _Composed, x_11D: Tensor, state: Any, place: int) -> tuple[Tensor, Any]:
        found: tuple[Tensor, Any] = fla("simple_gla/naive").naive_recurrent_simple_gla(
            *turned(module, x_11D, place), fixed_H.expand(1, 1, HEADS), initial_state=state
        )
        return found

    layer = functools.partial(_Composed, gate=True, norm=True)
    found = [
        _composed(
            f"projections around FLA naive_chunk_simple_gla, chunks of {chunk}",
            layer,
            functools.partial(core, chunk),
            step,
        )
        for chunk in (64, 128, 256)
    ]
    minimax = MiniMaxConfig(
        **transformers_shape(layer_types=["linear_attention"]), head_dim=HEAD_DIM, hidden_act="silu", block_size=256
    )

    def lightning(length: int) -> tuple[nn.Module, Call]:
        module = modeling_minimax.MiniMaxLightningAttention(minimax, 0)
        return module, lambda x_BLD: module(x_BLD, position_embeddings=None, attention_mask=None)[0]

    return [*found, make_pair("transformers MiniMaxLightningAttention (other decays, no turns)", lightning, None)]


def gated_linear() -> list[Pair]:
    conv = len(our_mixer("gated_linear", 64)._convolutions())
    kernel = our_mixer("gated_linear", 64)._convolutions()[0].kernel if conv else 0

    def layer() -> _Composed:
        gates = nn.Sequential(nn.Linear(WIDTH, 16, bias=False), nn.Linear(16, WIDTH))
        return _Composed(conv=kernel, gate=True, norm=True, extra={"gates": gates})

    def decays(module: _Composed, x_BLD: Tensor) -> Tensor:
        return (functional.logsigmoid(module.extra["gates"](x_BLD)) / 16).unflatten(-1, (HEADS, HEAD_DIM))

    def core(module: _Composed, x_BLD: Tensor) -> Tensor:
        found: Tensor = fla("gla/naive").naive_recurrent_gla(*module.qkv(x_BLD), decays(module, x_BLD))[0]
        return found

    def step(module: _Composed, x_11D: Tensor, state: Any, place: int) -> tuple[Tensor, Any]:
        found: tuple[Tensor, Any] = fla("gla/naive").naive_recurrent_gla(
            *module.qkv(x_11D), decays(module, x_11D), initial_state=state, output_final_state=True
        )
        return found

    return [
        _composed("projections around FLA naive_recurrent_gla", layer, core, step if not conv else None, exponent=2.0)
    ]


def delta() -> list[Pair]:
    conv = our_mixer("delta", 64).conv
    kernel = 0 if conv is None else conv.kernel

    def layer() -> _Composed:
        return _Composed(conv=kernel, norm=True, extra={"strength": nn.Linear(WIDTH, HEADS, bias=False)})

    def inputs(module: _Composed, x_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q, k, v = module.qkv(x_BLD)
        return (
            functional.normalize(q, dim=-1),
            functional.normalize(k, dim=-1),
            v,
            module.extra["strength"](x_BLD).sigmoid(),
        )

    def naive(chunk: int, module: _Composed, x_BLD: Tensor) -> Tensor:
        by_heads = (part.transpose(1, 2) for part in inputs(module, x_BLD))
        found: Tensor = fla("delta_rule/naive").delta_rule_chunkwise(*by_heads, chunk_size=chunk)[0]
        return found.transpose(1, 2)

    def gated(chunk: int, module: _Composed, x_BLD: Tensor) -> Tensor:
        q, k, v, beta = inputs(module, x_BLD)
        rule: Any = modeling_qwen3_5.torch_chunk_gated_delta_rule
        found: Tensor = rule(q, k, v, g=torch.zeros_like(beta), beta=beta, chunk_size=chunk)[0]
        return found

    def step(module: _Composed, x_11D: Tensor, state: Any, place: int) -> tuple[Tensor, Any]:
        by_heads = (part.transpose(1, 2) for part in inputs(module, x_11D))
        y, state = fla("delta_rule/naive").delta_rule_recurrence(*by_heads, initial_state=state)
        return y.transpose(1, 2), state

    found = [
        _composed(
            "projections around FLA delta_rule_chunkwise, chunks of 32", layer, functools.partial(naive, 32), step
        )
    ]
    return found + [
        _composed(
            f"projections around transformers torch_chunk_gated_delta_rule without decay, chunks of {chunk}",
            layer,
            functools.partial(gated, chunk),
            None,
        )
        for chunk in (64, 128)
    ]
