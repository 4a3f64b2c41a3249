"""Our side of the mixers' benchmark, and what all of its whole modules share.

Shapes: B batch, L length, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from _bench_cores import HEADS, WIDTH, WINDOW
from _bench_measure import Run, Subject, module_pass
from torch import Tensor, nn

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


def make_pair(
    name: str, make: Callable[[int], tuple[nn.Module, Call]], decode: Callable[[int], Run] | None, exponent: float = 1.0
) -> Pair:
    """A peer that trains by what `make` gives for a length, and decodes."""

    def train(length: int) -> Run:
        module, call = make(length)
        return module_pass(module, call, length)

    subject = None if decode is None else Subject(name=name, make=decode)
    return Pair(train=Subject(name=name, make=train, exponent=exponent), decode=subject)


def stepping(call: Callable[[Tensor, int], Any], first: int) -> Run:
    """A run that is one step; `call` gets its features (1, 1, D) and its place."""
    x_11D, place = torch.randn(1, 1, WIDTH), first

    def step() -> None:
        nonlocal place
        with torch.inference_mode():
            call(x_11D, place)
        place += 1

    return step


def transformers_shape(**words: Any) -> dict[str, Any]:
    """Words of a transformers configuration for one layer of the benchmark's size."""
    return {
        "hidden_size": WIDTH,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "num_hidden_layers": 1,
        "max_position_embeddings": 32_768,
        **words,
    }
