"""Core functions of the mixers' benchmark: ours and their peers in pure PyTorch, on equal tensors.

A core is what lies between a mixer's projections: queries, keys, values and decays in, reads out.
Peers are called at several chunk sizes, of which the benchmark takes the fastest.

Shapes: B batch, L length, H heads, G key heads, K features of a key, V of a value.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers
from _bench_measure import WIDTH, Run, Subject, core_pass
from torch import Tensor
from torch.nn import functional
from transformers.models.kimi_linear import modeling_kimi_linear
from transformers.models.mamba2 import modeling_mamba2
from transformers.models.qwen3_5 import modeling_qwen3_5

from nas.mixers import attention, channel_decay, decay, delta_core, normalised

# They say once per process that faster kernels exist for GPUs.
transformers.logging.set_verbosity_error()

HEADS, HEAD_DIM, WINDOW = 4, WIDTH // 4, 256
INEQUAL = "corrects values too"
UNCUT = "over everything before"
"""In the names of peers that compute something else than ours."""
CHUNKS = (32, 64, 128)
CORES = ("sliding_window", "linear", "retention", "gated_linear", "delta", "gated_delta", "mamba2")


def core_subjects(mixer: str) -> tuple[Subject, list[Subject]]:
    """Our core function of a mixer, and its peers."""
    return _MAKERS[mixer]()


@functools.cache
def fla(name: str) -> ModuleType:
    """A file of plain PyTorch of flash-linear-attention, whose package itself needs Triton to be imported."""
    found = importlib.util.find_spec("fla")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("the peers need flash-linear-attention: pip install --no-deps flash-linear-attention fla-core")
    path = Path(next(iter(found.submodule_search_locations))) / "ops" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"fla_{name.replace('/', '_')}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # One of its files uses this name without importing it.
    module.__dict__.setdefault("F", functional)
    return module


def _subject(
    name: str, call: Callable[..., Tensor], inputs: Callable[[int], dict[str, Tensor]], exponent: float = 1.0
) -> Subject:
    def make(length: int) -> Run:
        return core_pass(
            call, {key: value.requires_grad_(value.is_floating_point()) for key, value in inputs(length).items()}
        )

    def read(length: int) -> Tensor:
        out = call(**inputs(length)).detach()
        out = out[None] if out.dim() == 3 else out
        return out.transpose(1, 2) if out.shape[1] == HEADS else out

    return Subject(name=name, make=make, exponent=exponent, read=None if INEQUAL in name or UNCUT in name else read)


def _qkv(length: int, groups: int = HEADS) -> dict[str, Tensor]:
    """Tensors (B, L, H, F) as projections leave them."""
    q, k = (torch.randn(1, length, groups, HEAD_DIM) for _ in range(2))
    return {"q": q, "k": k, "v": torch.randn(1, length, HEADS, HEAD_DIM)}


def _decays(length: int, *features: int) -> Tensor:
    return functional.logsigmoid(torch.randn(1, length, HEADS, *features) + 3)


def _by_heads(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """(B, L, H, …) as (B, H, L, …), contiguous: the layout that some peers are written for."""
    return {key: value.transpose(1, 2).contiguous() for key, value in inputs.items()}


def _window() -> tuple[Subject, list[Subject]]:
    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.cat(attention.windowed_attention(q, k, v, WINDOW))

    def our_inputs(length: int) -> dict[str, Tensor]:
        return {key: value[0] for key, value in _qkv(length).items()}

    # Made once for each length, as a model makes it once for all its layers.
    @functools.cache
    def mask(length: int) -> Tensor:
        places = torch.arange(length)
        return (places <= places[:, None]) & (places > places[:, None] - WINDOW)

    def masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask(q.shape[2]))

    def full(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    def inputs(length: int) -> dict[str, Tensor]:
        return _by_heads(_qkv(length))

    peers = [
        _subject("SDPA with a mask", masked, inputs, exponent=2.0),
        _subject(f"SDPA {UNCUT}", full, inputs, exponent=2.0),
    ]
    return _subject("nas", ours, our_inputs), peers


def _linear() -> tuple[Subject, list[Subject]]:
    def inputs(length: int) -> dict[str, Tensor]:
        tensors = _qkv(length)
        return {key: value if key == "v" else functional.elu(value) + 1 for key, value in tensors.items()}

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return normalised.normalised_attention(q, k, v, taylor=False)[0]

    def peer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return fla("linear_attn/naive").naive_chunk_linear_attn(q, k, v, normalize=True)  # type: ignore[no-any-return]

    return _subject("nas", ours, inputs), [_subject("FLA naive_chunk_linear_attn, chunks of 64", peer, inputs)]


def _retention() -> tuple[Subject, list[Subject]]:
    fixed_H = torch.log1p(-(2.0 ** (-5.0 - torch.arange(HEADS))))

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return decay.decayed_attention(q * HEAD_DIM**-0.5, k, v, fixed_H)[0]

    def chunked(chunk: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        decays_BLH = fixed_H.expand(1, q.shape[1], HEADS)
        return fla("simple_gla/naive").naive_chunk_simple_gla(q, k, v, decays_BLH, chunk_size=chunk)[0]  # type: ignore[no-any-return]

    def quadratic(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return fla("retention/naive").naive_retention(q, k, v)  # type: ignore[no-any-return]

    peers = [
        _subject(f"FLA naive_chunk_simple_gla, chunks of {chunk}", functools.partial(chunked, chunk), _qkv)
        for chunk in (*CHUNKS, 256)
    ]
    peers.append(_subject("FLA naive_retention", quadratic, lambda length: _by_heads(_qkv(length)), exponent=2.0))
    return _subject("nas", ours, _qkv), peers


def _gated_linear() -> tuple[Subject, list[Subject]]:
    def inputs(length: int) -> dict[str, Tensor]:
        return {**_qkv(length), "g": _decays(length, HEAD_DIM)}

    def ours(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        return channel_decay.channel_decayed_attention(q * HEAD_DIM**-0.5, k, v, g)[0]

    def recurrent(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        return fla("gla/naive").naive_recurrent_gla(q, k, v, g)[0]  # type: ignore[no-any-return]

    def with_delta_rule(chunk: int, q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        beta = torch.ones(1, q.shape[1], HEADS)
        found: Any = modeling_kimi_linear.chunk_kimi_delta_attention(q, k, v, g, beta, chunk_size=chunk)
        return found[0]  # type: ignore[no-any-return]

    # None of the chunked forms for PyTorch alone has a backward pass, but that of a sibling that corrects values too.
    peers = [_subject("FLA naive_recurrent_gla", recurrent, inputs, exponent=2.0)]
    peers += [
        _subject(
            f"transformers chunk_kimi_delta_attention ({INEQUAL}), chunks of {chunk}",
            functools.partial(with_delta_rule, chunk),
            lambda length: {**inputs(length), "k": functional.normalize(inputs(length)["k"], dim=-1)},
        )
        for chunk in (32, 64)
    ]
    return _subject("nas", ours, inputs), peers


def _delta_inputs(length: int) -> dict[str, Tensor]:
    tensors = _qkv(length)
    tensors["k"] = functional.normalize(tensors["k"], dim=-1)
    return {**tensors, "beta": torch.rand(1, length, HEADS)}


def _delta() -> tuple[Subject, list[Subject]]:
    def ours(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
        return delta_core.delta_rule(q, k, v, None, beta, unit=False)[0]

    def by_heads(chunk: int, q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
        return fla("delta_rule/naive").delta_rule_chunkwise(q, k, v, beta, chunk_size=chunk)[0]  # type: ignore[no-any-return]

    def gated(chunk: int, q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
        return _transformers_delta(q, k, v, torch.zeros_like(beta), beta, chunk)

    peers = [
        _subject(
            f"FLA delta_rule_chunkwise, chunks of {chunk}",
            functools.partial(by_heads, chunk),
            lambda length: _by_heads(_delta_inputs(length)),
        )
        for chunk in CHUNKS
    ]
    peers += [
        _subject(
            f"transformers torch_chunk_gated_delta_rule without decay, chunks of {chunk}",
            functools.partial(gated, chunk),
            _delta_inputs,
        )
        for chunk in CHUNKS
    ]
    return _subject("nas", ours, _delta_inputs), peers


def _gated_delta() -> tuple[Subject, list[Subject]]:
    def inputs(length: int) -> dict[str, Tensor]:
        return {**_delta_inputs(length), "g": _decays(length)}

    def ours(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor) -> Tensor:
        return delta_core.delta_rule(q, k, v, g, beta, unit=False)[0]

    def gated(chunk: int, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor) -> Tensor:
        return _transformers_delta(q, k, v, g, beta, chunk)

    def naive(chunk: int, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor) -> Tensor:
        return fla("gated_delta_rule/naive").naive_chunk_gated_delta_rule(q, k, v, g, beta, chunk_size=chunk)[0]  # type: ignore[no-any-return]

    peers = [
        _subject(
            f"transformers torch_chunk_gated_delta_rule, chunks of {chunk}", functools.partial(gated, chunk), inputs
        )
        for chunk in CHUNKS
    ]
    peers += [
        _subject(f"FLA naive_chunk_gated_delta_rule, chunks of {chunk}", functools.partial(naive, chunk), inputs)
        for chunk in (32, 64)
    ]
    return _subject("nas", ours, inputs), peers


def _transformers_delta(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, chunk: int) -> Tensor:
    found: Any = modeling_qwen3_5.torch_chunk_gated_delta_rule(q, k, v, g=g, beta=beta, chunk_size=chunk)
    return found[0]  # type: ignore[no-any-return]


def _mamba2() -> tuple[Subject, list[Subject]]:
    decay_H = torch.arange(1.0, HEADS + 1)

    def inputs(length: int) -> dict[str, Tensor]:
        return {**_qkv(length, groups=1), "dt": functional.softplus(torch.randn(1, length, HEADS) - 3)}

    def ours(q: Tensor, k: Tensor, v: Tensor, dt: Tensor) -> Tensor:
        return decay.decayed_attention(q, k, v, -decay_H * dt, gain_BLH=dt, skip_H=torch.ones(HEADS))[0]

    def scanned(chunk: int, q: Tensor, k: Tensor, v: Tensor, dt: Tensor) -> Tensor:
        found: Any = modeling_mamba2.mamba2_chunk_scan(v, dt, -decay_H, k, q, chunk_size=chunk, D=torch.ones(HEADS))
        return found  # type: ignore[no-any-return]

    def simple(chunk: int, q: Tensor, k: Tensor, v: Tensor, dt: Tensor) -> Tensor:
        q, k = q.expand(-1, -1, HEADS, -1), k.expand(-1, -1, HEADS, -1) * dt[..., None]
        read = fla("simple_gla/naive").naive_chunk_simple_gla(q, k, v, -decay_H * dt, chunk_size=chunk, scale=1.0)[0]
        return read + v  # type: ignore[no-any-return]

    peers = [
        _subject(f"transformers mamba2_chunk_scan, chunks of {chunk}", functools.partial(scanned, chunk), inputs)
        for chunk in (32, 64, 128, 256)
    ]
    peers += [
        _subject(f"FLA naive_chunk_simple_gla, chunks of {chunk}", functools.partial(simple, chunk), inputs)
        for chunk in (64, 128)
    ]
    return _subject("nas", ours, inputs), peers


_MAKERS: dict[str, Callable[[], tuple[Subject, list[Subject]]]] = {
    "sliding_window": _window,
    "linear": _linear,
    "retention": _retention,
    "gated_linear": _gated_linear,
    "delta": _delta,
    "gated_delta": _gated_delta,
    "mamba2": _mamba2,
}
