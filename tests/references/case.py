"""One variant of a mixer that the contract is tried on."""

from __future__ import annotations

from dataclasses import dataclass, field

from nas.specs.base import Rope, Value


@dataclass(frozen=True, kw_only=True)
class Case:
    """A mixer and its complete options.

    Attributes:
        mixer: its name in the catalog.
        options: complete, for width 32.
        positions: of the model.
        rope: where positions are rotary; a theta far from the default finds out who ignores it.
        saved_tolerance: how far, relatively, the specification's saved elements may be off.
    """

    mixer: str
    options: dict[str, Value] = field(default_factory=dict)
    positions: str = "none"
    rope: Rope = field(default_factory=lambda: Rope(theta=500.0))
    saved_tolerance: float = 0.15

    @property
    def label(self) -> str:
        """For test ids."""
        words = [f"{key}{value}" for key, value in self.options.items()]
        scaling = [] if self.rope.scaling == "none" else [self.rope.scaling]
        return "-".join([self.mixer, *words, self.positions, *scaling])
