"""Whole modules of the mixers' benchmark: ours, and the same layer in transformers, x-transformers or torch.

Where no package has a layer that runs on a CPU, the peer is the published layer composed of torch's
own parts around the naive core of flash-linear-attention. What a peer's model makes once for all
its layers, rotary tables and masks, is made beforehand and not counted; ours makes its own tables
in every pass, which is counted.

Shapes: B batch, L length, D width, H heads, F features of a head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from _bench_cores import HEAD_DIM, HEADS, WIDTH, WINDOW, fla
from _bench_measure import Run, Subject, module_pass
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    DeepseekV3Config,
    DynamicCache,
    Lfm2Config,
    LlamaConfig,
    Mamba2Config,
    MiniMaxConfig,
    MistralConfig,
    StaticCache,
)
from transformers.models.deepseek_v3 import modeling_deepseek_v3
from transformers.models.lfm2 import modeling_lfm2
from transformers.models.llama import modeling_llama
from transformers.models.mamba2 import modeling_mamba2
from transformers.models.minimax import modeling_minimax
from transformers.models.mistral import modeling_mistral
from transformers.models.qwen3_5 import Qwen3_5TextConfig, modeling_qwen3_5
from x_transformers.x_transformers import Attention as XAttention
from x_transformers.x_transformers import RotaryEmbedding as XRotary

from nas import catalog
from nas.mixers.base import Mixer, MixerConfig
from nas.space.layers import make_layer
from nas.specs import mixer_spec
from nas.specs.base import Surroundings, Value

STEPS = 2_048
"""Room in a cache behind the context, for the steps that are timed."""

CONSTANT = 64
"""Tokens that a peer reads before it decodes, where its state does not grow: more would change nothing."""

OPTIONS: dict[str, dict[str, Value]] = {"sliding_window": {"window": WINDOW}}
MIXERS = [name for name in catalog.MIXERS if name != "none"]
GROWING = ("full", "latent")
"""Mixers whose time per token grows with the context."""
SAME_KERNEL = ("full", "latent", "lstm")
"""Mixers that spend their time in the same kernel of torch as their peers."""

Call = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A module: how it trains, and how it decodes; None where it does not, or another entry says it already."""

    train: Subject | None
    decode: Subject | None


def our_mixer(mixer: str, length: int) -> Mixer[Any]:
    """Our module with its usual options."""
    around = Surroundings(width=WIDTH, max_context=length + STEPS, positions="rope")
    entry = {"mixer": mixer, "heads": HEADS, **OPTIONS.get(mixer, {})}
    spec = mixer_spec(mixer)
    layer = make_layer(
        {key: value for key, value in entry.items() if key == "mixer" or key in spec.keys},
        around,
        family="decoder",
        where="benchmark",
    )
    config = MixerConfig(options={key: layer.values[key] for key in spec.keys if key in layer.values}, around=around)
    module: Mixer[Any] = catalog.load_target(spec.implementation, what="mixer")(config)
    return module


def ours(mixer: str) -> Pair:
    """Our module of that name."""

    def train(length: int) -> Run:
        module = our_mixer(mixer, length)
        return module_pass(module, module, length)

    def decode(length: int) -> Run:
        module, dtype = our_mixer(mixer, length), torch.float32
        state = module.new_state(
            1, length + STEPS, cache_dtype=dtype, recurrent_dtype=dtype, device=torch.device("cpu")
        )
        x_BD, place = torch.randn(1, WIDTH), length

        def step() -> None:
            nonlocal place
            with torch.inference_mode():
                module.step(x_BD, state, place)
            place += 1

        with torch.inference_mode():
            module.prefill(torch.randn(1, length, WIDTH), state)
        return step

    return Pair(train=Subject(name="nas", make=train), decode=Subject(name="nas", make=decode))


def peers(mixer: str) -> list[Pair]:
    """The same layer of others."""
    return _PEERS[mixer]()


def _pair(
    name: str, make: Callable[[int], tuple[nn.Module, Call]], decode: Callable[[int], Run] | None, exponent: float = 1.0
) -> Pair:
    def train(length: int) -> Run:
        module, call = make(length)
        return module_pass(module, call, length)

    subject = None if decode is None else Subject(name=name, make=decode)
    return Pair(train=Subject(name=name, make=train, exponent=exponent), decode=subject)


def _stepping(call: Callable[[Tensor, int], Any], first: int) -> Run:
    """A run that is one step; `call` gets its features (1, 1, D) and its place."""
    x_11D, place = torch.randn(1, 1, WIDTH), first

    def step() -> None:
        nonlocal place
        with torch.inference_mode():
            call(x_11D, place)
        place += 1

    return step


# Attention


def _attention(
    name: str, config: Any, layer: Callable[[Any], nn.Module], rotary: Callable[[Any], nn.Module], window: int = 0
) -> list[Pair]:
    """A layer of transformers with the cache that grows and with the one of fixed size."""
    config._attn_implementation = "sdpa"

    def tables(length: int) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = rotary(config)(torch.zeros(1), torch.arange(length)[None])
        return found

    def make(length: int) -> tuple[nn.Module, Call]:
        module, table = layer(config), tables(length)
        mask = None
        if window:
            places = torch.arange(length)
            mask = ((places <= places[:, None]) & (places > places[:, None] - window))[None, None]

        def call(x_BLD: Tensor) -> Tensor:
            out: Tensor = module(x_BLD, position_embeddings=table, attention_mask=mask)[0]
            return out

        return module, call

    def decode(static: bool, length: int) -> Run:
        module, (cos, sin) = layer(config).eval(), tables(length + STEPS)
        room = length + STEPS
        cache: Any = StaticCache(config=config, max_cache_len=room) if static else DynamicCache(config=config)
        with torch.inference_mode():
            # The prompt's features play no part, only that the cache holds them: without attention that is quick.
            x_BLD = torch.randn(1, length, WIDTH)
            _fill(module, x_BLD, (cos[:, :length], sin[:, :length]), cache)
        seen = torch.arange(room)

        def call(x_11D: Tensor, place: int) -> None:
            mask = (seen <= place)[None, None, None] if static else None
            table = (cos[:, place : place + 1], sin[:, place : place + 1])
            module(x_11D, position_embeddings=table, attention_mask=mask, past_key_values=cache)

        return _stepping(call, length)

    growing = Subject(name=f"{name} with DynamicCache", make=functools.partial(decode, False))
    static = Subject(name=f"{name} with StaticCache", make=functools.partial(decode, True))
    pairs = [_pair(name, make, None, 2.0), Pair(train=None, decode=growing)]
    return pairs if window else [*pairs, Pair(train=None, decode=static)]


def _fill(module: Any, x_BLD: Tensor, table: tuple[Tensor, Tensor], cache: Any) -> None:
    module(x_BLD, position_embeddings=table, attention_mask=None, past_key_values=cache)


def _shape(**words: Any) -> dict[str, Any]:
    return {
        "hidden_size": WIDTH,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "num_hidden_layers": 1,
        "max_position_embeddings": 32_768,
        **words,
    }


def _full() -> list[Pair]:
    def make(length: int) -> tuple[nn.Module, Call]:
        module = XAttention(dim=WIDTH, heads=HEADS, dim_head=HEAD_DIM, causal=True, flash=True)
        turns = XRotary(HEAD_DIM).forward_from_seq_len(length)
        return module, lambda x_BLD: module(x_BLD, rotary_pos_emb=turns)

    found = _attention(
        "transformers LlamaAttention",
        LlamaConfig(**_shape()),
        lambda config: modeling_llama.LlamaAttention(config, 0),
        modeling_llama.LlamaRotaryEmbedding,
    )
    return [*found, _pair("x-transformers Attention", make, None, 2.0)]


def _window() -> list[Pair]:
    return _attention(
        "transformers MistralAttention",
        MistralConfig(**_shape(sliding_window=WINDOW)),
        lambda config: modeling_mistral.MistralAttention(config, 0),
        modeling_mistral.MistralRotaryEmbedding,
        window=WINDOW,
    )


def _latent() -> list[Pair]:
    options = our_mixer("latent", 64)
    config = DeepseekV3Config(
        **_shape(
            q_lora_rank=None,
            kv_lora_rank=options.latent_dim,
            qk_nope_head_dim=options.plain_dim,
            qk_rope_head_dim=options.rope_dim,
            v_head_dim=options.value_dim,
            rope_interleave=False,
        )
    )
    return _attention(
        "transformers DeepseekV3Attention",
        config,
        lambda config: modeling_deepseek_v3.DeepseekV3Attention(config, 0),
        modeling_deepseek_v3.DeepseekV3RotaryEmbedding,
    )


# Layers of transformers whose state does not grow


def _constant(name: str, config: Any, layer: Callable[[], nn.Module], cache_word: str) -> Pair:
    def decode(length: int) -> Run:
        module, cache = layer().eval(), DynamicCache(config=config)
        with torch.inference_mode():
            module(torch.randn(1, CONSTANT, WIDTH), **{cache_word: cache})
        return _stepping(lambda x_11D, place: module(x_11D, **{cache_word: cache}), CONSTANT)

    def make(length: int) -> tuple[nn.Module, Call]:
        module = layer()
        return module, module

    return _pair(name, make, decode)


def _gated_conv() -> list[Pair]:
    kernel = our_mixer("gated_conv", 64).conv.kernel
    config = Lfm2Config(**_shape(conv_L_cache=kernel, layer_types=["conv"]))
    return [
        _constant(
            "transformers Lfm2ShortConv", config, lambda: modeling_lfm2.Lfm2ShortConv(config, 0), "past_key_values"
        )
    ]


def _mamba2() -> list[Pair]:
    mixer = our_mixer("mamba2", 64)

    def config(chunk: int) -> Mamba2Config:
        return Mamba2Config(
            hidden_size=WIDTH,
            num_hidden_layers=1,
            expand=mixer.inner // WIDTH,
            num_heads=mixer.heads,
            head_dim=mixer.head_dim,
            state_size=mixer.state_dim,
            n_groups=mixer.groups,
            conv_kernel=mixer.conv1d.kernel,
            chunk_size=chunk,
        )

    def layer(chunk: int) -> nn.Module:
        return modeling_mamba2.Mamba2Mixer(config(chunk), 0)

    return [
        _constant(
            f"transformers Mamba2Mixer, chunks of {chunk}",
            config(chunk),
            functools.partial(layer, chunk),
            "cache_params",
        )
        for chunk in (32, 64, 128, 256)
    ]


def _gated_delta() -> list[Pair]:
    mixer = our_mixer("gated_delta", 64)
    config = Qwen3_5TextConfig(
        **_shape(
            linear_conv_kernel_dim=mixer.conv.kernel,
            linear_num_key_heads=mixer.key_heads,
            linear_num_value_heads=mixer.heads,
            linear_key_head_dim=mixer.key_dim,
            linear_value_head_dim=mixer.value_dim,
            layer_types=["linear_attention"],
        )
    )

    def layer(chunk: int) -> nn.Module:
        # The layer leaves the chunk size at its default; this process is its own, so another can be put in.
        whole = modeling_qwen3_5.torch_chunk_gated_delta_rule
        modeling_qwen3_5.torch_chunk_gated_delta_rule = functools.partial(whole, chunk_size=chunk)
        return modeling_qwen3_5.Qwen3_5GatedDeltaNet(config, 0)

    return [
        _constant(
            f"transformers Qwen3_5GatedDeltaNet, chunks of {chunk}",
            config,
            functools.partial(layer, chunk),
            "cache_params",
        )
        for chunk in (32, 64, 128)
    ]


# Recurrent networks of torch


def _recurrent(kind: type[nn.RNNBase], mixer: str) -> list[Pair]:
    hidden = our_mixer(mixer, 64).hidden

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = kind(WIDTH, hidden, batch_first=True)
            self.out = nn.Linear(hidden, WIDTH, bias=False)

        def forward(self, x_BLD: Tensor) -> Tensor:
            return self.out(self.network(x_BLD)[0])  # type: ignore[no-any-return]

    def make(length: int) -> tuple[nn.Module, Call]:
        module = Network()
        return module, module

    def decode(length: int) -> Run:
        module, state = Network(), None

        def call(x_11D: Tensor, place: int) -> None:
            nonlocal state
            y_11H, state = module.network(x_11D, state)
            module.out(y_11H)

        return _stepping(call, 0)

    return [_pair(f"torch nn.{kind.__name__} and a projection", make, decode)]


# Layers composed around the cores of flash-linear-attention


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

        return _stepping(call, 0)

    return _pair(name, make, decode if step is not None else None, exponent)


def _linear() -> list[Pair]:
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


def _retention() -> list[Pair]:
    config = LlamaConfig(**_shape())
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
        **_shape(layer_types=["linear_attention"]), head_dim=HEAD_DIM, hidden_act="silu", block_size=256
    )

    def lightning(length: int) -> tuple[nn.Module, Call]:
        module = modeling_minimax.MiniMaxLightningAttention(minimax, 0)
        return module, lambda x_BLD: module(x_BLD, position_embeddings=None, attention_mask=None)[0]

    return [*found, _pair("transformers MiniMaxLightningAttention (other decays, no turns)", lightning, None)]


def _gated_linear() -> list[Pair]:
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


def _delta() -> list[Pair]:
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


_PEERS: dict[str, Callable[[], list[Pair]]] = {
    "full": _full,
    "sliding_window": _window,
    "latent": _latent,
    "linear": _linear,
    "retention": _retention,
    "gated_linear": _gated_linear,
    "delta": _delta,
    "gated_delta": _gated_delta,
    "mamba2": _mamba2,
    "lstm": functools.partial(_recurrent, nn.LSTM, "lstm"),
    "gru": functools.partial(_recurrent, nn.GRU, "gru"),
    "rnn": functools.partial(_recurrent, nn.RNN, "rnn"),
    "gated_conv": _gated_conv,
}
