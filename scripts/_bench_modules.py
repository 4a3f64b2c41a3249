"""Whole modules of others in the mixers' benchmark: the same layers in transformers, x-transformers and torch.

What a peer's model makes once for all its layers, rotary tables and masks, is made beforehand and
not counted; ours makes its own tables in every pass, which is counted.

Shapes: B batch, L length, D width, H heads, F features of a head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import _bench_composed
import torch
from _bench_cores import HEAD_DIM, HEADS, WIDTH, WINDOW
from _bench_measure import Run, Subject
from _bench_ours import CONSTANT, STEPS, Call, Pair, make_pair, our_mixer, stepping, transformers_shape
from torch import Tensor, nn
from transformers import (
    DeepseekV3Config,
    DynamicCache,
    Lfm2Config,
    LlamaConfig,
    Mamba2Config,
    MistralConfig,
    StaticCache,
)
from transformers.models.deepseek_v3 import modeling_deepseek_v3
from transformers.models.lfm2 import modeling_lfm2
from transformers.models.llama import modeling_llama
from transformers.models.mamba2 import modeling_mamba2
from transformers.models.mistral import modeling_mistral
from transformers.models.qwen3_5 import Qwen3_5TextConfig, modeling_qwen3_5
from x_transformers.x_transformers import Attention as XAttention
from x_transformers.x_transformers import RotaryEmbedding as XRotary


def peers(mixer: str) -> list[Pair]:
    """The same layer of others."""
    return _PEERS[mixer]()


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

        return stepping(call, length)

    growing = Subject(name=f"{name} with DynamicCache", make=functools.partial(decode, False))
    static = Subject(name=f"{name} with StaticCache", make=functools.partial(decode, True))
    pairs = [make_pair(name, make, None, 2.0), Pair(train=None, decode=growing)]
    return pairs if window else [*pairs, Pair(train=None, decode=static)]


def _fill(module: Any, x_BLD: Tensor, table: tuple[Tensor, Tensor], cache: Any) -> None:
    module(x_BLD, position_embeddings=table, attention_mask=None, past_key_values=cache)


def _full() -> list[Pair]:
    def make(length: int) -> tuple[nn.Module, Call]:
        module = XAttention(dim=WIDTH, heads=HEADS, dim_head=HEAD_DIM, causal=True, flash=True)
        turns = XRotary(HEAD_DIM).forward_from_seq_len(length)
        return module, lambda x_BLD: module(x_BLD, rotary_pos_emb=turns)

    found = _attention(
        "transformers LlamaAttention",
        LlamaConfig(**transformers_shape()),
        lambda config: modeling_llama.LlamaAttention(config, 0),
        modeling_llama.LlamaRotaryEmbedding,
    )
    return [*found, make_pair("x-transformers Attention", make, None, 2.0)]


def _window() -> list[Pair]:
    return _attention(
        "transformers MistralAttention",
        MistralConfig(**transformers_shape(sliding_window=WINDOW)),
        lambda config: modeling_mistral.MistralAttention(config, 0),
        modeling_mistral.MistralRotaryEmbedding,
        window=WINDOW,
    )


def _latent() -> list[Pair]:
    options = our_mixer("latent", 64)
    config = DeepseekV3Config(
        **transformers_shape(
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
        return stepping(lambda x_11D, place: module(x_11D, **{cache_word: cache}), CONSTANT)

    def make(length: int) -> tuple[nn.Module, Call]:
        module = layer()
        return module, module

    return make_pair(name, make, decode)


def _gated_conv() -> list[Pair]:
    kernel = our_mixer("gated_conv", 64).conv.kernel
    config = Lfm2Config(**transformers_shape(conv_L_cache=kernel, layer_types=["conv"]))
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
        **transformers_shape(
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

        return stepping(call, 0)

    return [make_pair(f"torch nn.{kind.__name__} and a projection", make, decode)]


_PEERS: dict[str, Callable[[], list[Pair]]] = {
    "full": _full,
    "sliding_window": _window,
    "latent": _latent,
    "linear": _bench_composed.linear,
    "retention": _bench_composed.retention,
    "gated_linear": _bench_composed.gated_linear,
    "delta": _bench_composed.delta,
    "gated_delta": _gated_delta,
    "mamba2": _mamba2,
    "lstm": functools.partial(_recurrent, nn.LSTM, "lstm"),
    "gru": functools.partial(_recurrent, nn.GRU, "gru"),
    "rnn": functools.partial(_recurrent, nn.RNN, "rnn"),
    "gated_conv": _gated_conv,
}
