"""docs/memory.md: how memory is predicted, and how far the predictions are off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from _memory_device import DEVICE_DRAWS, HeldRows
from _memory_draws import CONTEXTS, Compared, spread
from _memory_models import table
from _memory_speed import TRACED

LIMITS = {"attention": (0.01, 0.03), "all mixers": (0.02, 0.05)}
"""Median and worst error that are allowed, by kind of network."""

HEAD = """<!-- Made by scripts/check_memory --write; do not edit. -->
# Memory

Memory is known before anything is trained. Three ways tell it, and each is held against the next:

| | what it takes | what it is for |
|---|---|---|
| **formula** (`nas.cost`, no torch) | well under a millisecond | every draw of a search, limits, `nas estimate` |
| **trace** (`nas.measure.trace`) | about a second, no memory | checks the formula: the network runs on fake tensors |
| **device** (`nas.measure.probe`) | a fresh process | what the allocator, or the operating system, says |

## What is counted

| figure | exact? | what it is |
|---|---|---|
| `param_bytes` | yes | weights (bf16 by default) |
| `state_bytes` | yes | what decoding keeps: keys and values, convolution inputs (bf16), recurrent state (fp32) |
| `serve_bytes` | yes | both |
| `prefill_peak_bytes` | tensor by tensor | the fullest moment while a prompt is taken in, weights and state included |
| `train_peak_bytes` | tensor by tensor | the fullest moment of a training step (fp32, AdamW, running average) |

Each takes `@context=…,batch=…,dtype=…,cache_dtype=…,recurrent_dtype=…,cache_window=…`, and the last one
`train_dtype=…,optimizer=adamw|momentum|sgd,checkpointing=true|false`, in limits and objectives of studies and spaces:
`serve_bytes@context=65536 <= 8 MiB`, `train_peak_bytes@batch=8 <= 20 GiB`. MiB is 2^20 bytes, MB is 10^6.

A peak counts every tensor that is alive at once as eager PyTorch has it: weights, what the optimizer keeps, tokens
and targets, what autograd keeps, gradients as they come, and what an operation makes and lets go. It does not count
what a kernel takes for itself and gives back, what an allocator rounds up or keeps, nor the process with its
libraries. Of a batch, all sequences have the full context and every token is scored; an encoder–decoder reads as many
tokens as it writes; half of a prefix language model's sequence is its prefix. `train_peak_bytes` of bf16-mixed
training is not predicted (its weights and most activations have other dtypes): fp32 is an upper bound of it. The table
below is of fp32; tests hold every mixer in bf16 and with checkpointing to .2 %.

## How the formula works

Every layer's specification follows the layer's own operations on sizes alone (`nas/specs/tape.py`): a tensor is
counted from the operation that makes it until the last variable, view or autograd node lets go of it, and the way
back runs the nodes in autograd's order, with gradients that add up where they meet. Nothing is fitted. Layers of one
kind are followed once; a model's peak is put together from theirs, forward and back, so thousands of networks a
second can be screened. With `checkpointing` each layer keeps its input alone and runs again on the way back
(`trainer: {activation_checkpointing: true}` in a study).
"""


def kinds_of(rows: Sequence[Compared]) -> list[tuple[str, list[Compared]]]:
    """Networks of softmax attention alone, and all of them."""
    return [("attention", [row for row in rows if row.is_attention]), ("all mixers", list(rows))]


def page(rows: Sequence[Compared], devices: Mapping[str, HeldRows | None], speed: Mapping[str, Any]) -> str:
    """The whole page."""
    parts = [HEAD, "\n".join(_against_traces(rows)), "\n".join(_against_devices(devices)), "\n".join(_speeds(speed))]
    parts.append(f"## Published models\n\n{table().strip()}\n")
    return "\n".join(parts)


def _against_traces(rows: Sequence[Compared]) -> Iterator[str]:
    yield "## Formula against trace\n"
    if not rows:
        yield "Not run yet: `scripts/check_memory`.\n"
        return
    differing = sum(bool(row.parameters_differ) for row in rows)
    yield (
        f"{len(rows)} networks drawn from the shipped spaces, with contexts from {min(CONTEXTS):,} to "
        f"{max(CONTEXTS):,} tokens and up to four sequences: `scripts/check_memory`. "
        f"Networks whose built weights differ in number from the formula: {differing}.\n"
    )
    yield "| networks | draws | training, median | worst | prefill, median | worst | allowed |"
    yield "|---|---:|---:|---:|---:|---:|---|"
    for kind, some in kinds_of(rows):
        if some:
            median, worst = LIMITS[kind]
            yield f"| {kind} | {_cells(some)} | {median:.0%} and {worst:.0%} |"
    yield from _grouped(rows, "context", CONTEXTS, lambda row, context: row.context == context)
    spaces = sorted({row.space for row in rows})
    yield from _grouped(rows, "space", spaces, lambda row, space: row.space == space)
    mixers = sorted({mixer for row in rows for mixer in row.mixers})
    yield from _grouped(rows, "has a layer of", mixers, lambda row, mixer: mixer in row.mixers)
    yield (
        "\nWhat is off are encoder–decoders with relative positions alone, whose biases all layers of a stack share: "
        "when their gradients meet is counted for whole layers.\n"
    )


def _grouped(
    rows: Sequence[Compared], title: str, keys: Sequence[Any], belongs: Callable[[Compared, Any], bool]
) -> Iterator[str]:
    yield f"\n| {title} | draws | training, median | worst | prefill, median | worst |"
    yield "|---|---:|---:|---:|---:|---:|"
    for key in keys:
        some = [row for row in rows if belongs(row, key)]
        if some:
            yield f"| {f'{key:,}' if isinstance(key, int) else key} | {_cells(some)} |"


def _cells(rows: Sequence[Compared]) -> str:
    train, prefill = spread(rows, "train"), spread(rows, "prefill")
    return f"{len(rows)} | {train[0]:.3%} | {train[1]:.3%} | {prefill[0]:.3%} | {prefill[1]:.3%}"


def _against_devices(devices: Mapping[str, HeldRows | None]) -> Iterator[str]:
    yield "## Trace against device\n"
    yield (
        f"The training step of {DEVICE_DRAWS} of these networks, traced and on the device: "
        "`scripts/check_memory --device cpu` and `--device cuda`. On a CPU the tensors' own peak is taken; what the "
        "process takes besides is not seen by it.\n"
    )
    yield "| device | networks | median error | worst |"
    yield "|---|---:|---:|---:|"
    for kind, found in devices.items():
        if found is None:
            yield f"| {kind} | none yet | | |"
        else:
            median, worst = found.spread()
            yield f"| {found.device} | {len(found.rows)} | {median:.3%} | {worst:.3%} |"
    if devices.get("cuda") is None:
        yield "\nNo CUDA device was at hand: `scripts/check_memory --device cuda` fills its row."
    yield ""


def _speeds(speed: Mapping[str, Any]) -> Iterator[str]:
    yield "## Speed\n"
    if not speed:
        yield "Not measured yet: `scripts/check_memory --speed`.\n"
        return
    yield (
        "Of one core (processor time), every figure of a network together, FLOPs of training, prefill and decoding "
        "included. In the first column networks are drawn too, and their layers met for the first time; in the second "
        "both are known: `scripts/check_memory --speed`.\n"
    )
    yield "| space | drawn and predicted, a second | predicted again, a second |"
    yield "|---|---:|---:|"
    for name, (together, again) in speed["spaces"].items():
        yield f"| {name} | {together:,.0f} | {again:,.0f} |"
    yield f"\n| four layers at {TRACED:,} tokens, width 128 | training step, s | prefill, s |"
    yield "|---|---:|---:|"
    for name, (trained, filled) in speed["traces"].items():
        yield f"| {name} | {trained:.1f} | {filled:.1f} |"
    yield ""
