"""Specifications of the mixers whose state is the inputs of a short convolution, or nothing.

Formulas, per layer and sequence, d width, k kernel:

    gated_conv    parameters 4·d² + k·d    cache (k − 1)·d    (Liquid AI 2025, LFM2)
    none          nothing
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from nas.specs.base import Key, MixerSpec, Options, Surroundings
from nas.specs.tape import Extent, Shadow, Tape


class GatedConvolution(MixerSpec):
    """A short causal convolution between two gates; it looks back only, in every family."""

    implementation: ClassVar[str] = "nas.mixers.convolution:GatedConvolution"
    keys: ClassVar[Mapping[str, Key]] = {
        "kernel": Key(type=int, minimum=1, default=3, doc="positions seen: oneself and kernel - 1 earlier ones"),
    }

    def parameters(self, options: Options, around: Surroundings) -> int:
        return around.width * (4 * around.width + int(options["kernel"]))

    def cache_elements(self, options: Options, around: Surroundings, context: int) -> int:
        return (int(options["kernel"]) - 1) * around.width

    def forward_flops(self, options: Options, around: Surroundings, length: int) -> float:
        # Two gates and the convolution's taps beside the projections.
        return 2.0 * self.parameters(options, around) + 2.0 * around.width

    def decode_flops(self, options: Options, around: Surroundings, context: int) -> float:
        return 2.0 * self.parameters(options, around) + 2.0 * around.width

    def sketch(self, tape: Tape, x: Shadow, options: Options, around: Surroundings, extent: Extent) -> Shadow:
        width = around.width
        b, c, u = tape.split(tape.linear(x, width, 3 * width), *3 * [x.elements])
        y = short_convolution(tape, tape.mul(b, u), width, int(options["kernel"]), extent)
        gated = tape.mul(c, y)
        del y
        return tape.linear(gated, width, width)


class NoMixer(MixerSpec):
    """No mixer: the layer is an MLP alone."""

    implementation: ClassVar[str] = "nas.mixers.nothing:NoMixer"
    keys: ClassVar[Mapping[str, Key]] = {}

    def parameters(self, options: Options, around: Surroundings) -> int:
        return 0

    def cache_elements(self, options: Options, around: Surroundings, context: int) -> int:
        return 0

    def forward_flops(self, options: Options, around: Surroundings, length: int) -> float:
        return 0.0

    def decode_flops(self, options: Options, around: Surroundings, context: int) -> float:
        return 0.0

    def sketch(self, tape: Tape, x: Shadow, options: Options, around: Surroundings, extent: Extent) -> Shadow:
        return tape.new(x.elements)


def short_convolution(tape: Tape, x: Shadow, width: int, kernel: int, extent: Extent, *, bias: bool = False) -> Shadow:
    """`nas.mixers.convolution.ShortConvolution.forward`: padding in front, then a depthwise convolution."""
    padded = tape.op([x], x.elements + (kernel - 1) * width * extent.batch)
    weights = tape.weights(width * kernel, *([width] if bias else []))
    return tape.op([padded], x.elements, saves=[padded], weights=weights)
