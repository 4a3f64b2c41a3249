"""Specifications of the position-wise networks."""

from __future__ import annotations

from typing import ClassVar

from nas.specs.base import MLPSpec
from nas.specs.tape import Shadow, Tape


class _Gated(MLPSpec):
    """down(f(gate(x)) · up(x)), no bias."""

    def parameters(self, width: int, hidden: int) -> int:
        return 3 * width * hidden

    def sketch(self, tape: Tape, x: Shadow, width: int, hidden: int) -> Shadow:
        gate = tape.linear(x, width, hidden)
        active = tape.pointwise(gate)
        del gate
        up = tape.linear(x, width, hidden)
        hidden_x = tape.mul(active, up)
        del active, up
        return tape.linear(hidden_x, hidden, width)


class SwiGLU(_Gated):
    """down(silu(gate(x)) · up(x)), no bias (Shazeer 2020)."""

    implementation: ClassVar[str] = "nas.models.mlps:SwiGLU"
    has_hidden: ClassVar[bool] = True


class GEGLU(_Gated):
    """down(gelu(gate(x)) · up(x)), no bias (Shazeer 2020)."""

    implementation: ClassVar[str] = "nas.models.mlps:GEGLU"
    has_hidden: ClassVar[bool] = True


class GELU(MLPSpec):
    """down(gelu(up(x))), no bias (Hendrycks & Gimpel 2016)."""

    implementation: ClassVar[str] = "nas.models.mlps:GELU"
    has_hidden: ClassVar[bool] = True

    def parameters(self, width: int, hidden: int) -> int:
        return 2 * width * hidden

    def sketch(self, tape: Tape, x: Shadow, width: int, hidden: int) -> Shadow:
        up = tape.linear(x, width, hidden)
        active = tape.pointwise(up)
        del up
        return tape.linear(active, hidden, width)


class NoMLP(MLPSpec):
    """The layer has no position-wise network."""

    implementation: ClassVar[str] = "nas.models.mlps:NoMLP"
    has_hidden: ClassVar[bool] = False

    def parameters(self, width: int, hidden: int) -> int:
        return 0

    def sketch(self, tape: Tape, x: Shadow, width: int, hidden: int) -> Shadow:
        return tape.new(x.elements)
