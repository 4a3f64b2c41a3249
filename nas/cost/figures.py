"""The figures that spaces and studies name, each a function of an architecture.

Families that do not decode have no state: `state_bytes` and `serve_bytes` there are errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from nas.cost.estimate import estimate
from nas.errors import SpaceError
from nas.space.architecture import Architecture
from nas.specs import family_spec


@dataclass(frozen=True)
class CostFigure:
    """One number of an `Estimate`, as a function.

    Attributes:
        name: of the number.
        has_state: whether it is of decoding, with its state.
        instead: what a family that does not decode has in its place.
    """

    name: str
    has_state: bool = False
    instead: str = "prefill_peak_bytes"

    def __call__(self, architecture: Architecture, **settings: Any) -> float:
        """The number at some settings of `estimate`.

        Raises:
            SpaceError: a setting that no model allows, or a state of a family that does not decode.
        """
        if self.has_state and not family_spec(architecture.family).decodes:
            raise SpaceError(
                f"family '{architecture.family}' does not decode and has no {self.name}: use {self.instead}"
            )
        cost = estimate(architecture, **settings)
        return float(getattr(cost, self.name))


param_bytes: Final = CostFigure("param_bytes")
state_bytes: Final = CostFigure("state_bytes", has_state=True)
serve_bytes: Final = CostFigure("serve_bytes", has_state=True)
prefill_peak_bytes: Final = CostFigure("prefill_peak_bytes")
train_peak_bytes: Final = CostFigure("train_peak_bytes")
flops_per_token: Final = CostFigure("flops_per_token")
prefill_flops_per_token: Final = CostFigure("prefill_flops_per_token")
decode_flops_per_token: Final = CostFigure("decode_flops_per_token", has_state=True, instead="prefill_flops_per_token")
parameters: Final = CostFigure("parameters")
