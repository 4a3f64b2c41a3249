"""Specifications of the position-wise networks."""

from __future__ import annotations

from typing import ClassVar

from nas.specs.base import MLPSpec


class SwiGLU(MLPSpec):
    """down(silu(gate(x)) · up(x)), no bias (Shazeer 2020)."""

    implementation: ClassVar[str] = "nas.models.mlps:SwiGLU"
    has_hidden: ClassVar[bool] = True

    def parameters(self, width: int, hidden: int) -> int:
        return 3 * width * hidden

    def saved_elements(self, width: int, hidden: int) -> float:
        # The input of gate and up (shared), gate, up, silu(gate), and the input of down.
        return width + 4 * hidden


class GEGLU(MLPSpec):
    """down(gelu(gate(x)) · up(x)), no bias (Shazeer 2020)."""

    implementation: ClassVar[str] = "nas.models.mlps:GEGLU"
    has_hidden: ClassVar[bool] = True

    def parameters(self, width: int, hidden: int) -> int:
        return 3 * width * hidden

    def saved_elements(self, width: int, hidden: int) -> float:
        # The input of gate and up (shared), gate, up, gelu(gate), and the input of down.
        return width + 4 * hidden


class GELU(MLPSpec):
    """down(gelu(up(x))), no bias (Hendrycks & Gimpel 2016)."""

    implementation: ClassVar[str] = "nas.models.mlps:GELU"
    has_hidden: ClassVar[bool] = True

    def parameters(self, width: int, hidden: int) -> int:
        return 2 * width * hidden

    def saved_elements(self, width: int, hidden: int) -> float:
        # The inputs of up, of gelu and of down.
        return width + 2 * hidden


class NoMLP(MLPSpec):
    """The layer has no position-wise network."""

    implementation: ClassVar[str] = "nas.models.mlps:NoMLP"
    has_hidden: ClassVar[bool] = False

    def parameters(self, width: int, hidden: int) -> int:
        return 0

    def saved_elements(self, width: int, hidden: int) -> float:
        return 0
