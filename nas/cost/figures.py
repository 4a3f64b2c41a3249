"""The figures that spaces and studies name, each a function of an architecture.

Families that do not decode have no state: `state_bytes` and `serve_bytes` there are errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nas.cost.estimate import OPTIMIZER, TRAIN_DTYPE, estimate
from nas.cost.state import CACHE_WINDOW, RECURRENT_DTYPE
from nas.errors import SpaceError
from nas.space.architecture import Architecture
from nas.specs import family_spec


@dataclass(frozen=True)
class CostFigure:
    """One number of an `Estimate`, as a function.

    Attributes:
        name: of the number.
        has_state: whether a state is part of it.
    """

    name: str
    has_state: bool = False

    def __call__(
        self,
        architecture: Architecture,
        *,
        context: int | None = None,
        batch: int = 1,
        dtype: str = "bf16",
        cache_dtype: str | None = None,
        recurrent_dtype: str = RECURRENT_DTYPE,
        cache_window: int = CACHE_WINDOW,
        train_dtype: str = TRAIN_DTYPE,
        optimizer: str = OPTIMIZER,
        checkpointing: bool = False,
    ) -> float:
        """The number at these settings (see `estimate`).

        Raises:
            SpaceError: a setting that no model allows, or a state of a family that does not decode.
        """
        if self.has_state and not family_spec(architecture.family).decodes:
            raise SpaceError(
                f"family '{architecture.family}' does not decode and has no {self.name}: use prefill_peak_bytes"
            )
        cost = estimate(
            architecture,
            context=context,
            batch=batch,
            dtype=dtype,
            cache_dtype=cache_dtype,
            recurrent_dtype=recurrent_dtype,
            cache_window=cache_window,
            train_dtype=train_dtype,
            optimizer=optimizer,
            checkpointing=checkpointing,
        )
        return float(getattr(cost, self.name))


param_bytes: Final = CostFigure("param_bytes")
state_bytes: Final = CostFigure("state_bytes", has_state=True)
serve_bytes: Final = CostFigure("serve_bytes", has_state=True)
prefill_peak_bytes: Final = CostFigure("prefill_peak_bytes")
train_peak_bytes: Final = CostFigure("train_peak_bytes")
flops_per_token: Final = CostFigure("flops_per_token")
parameters: Final = CostFigure("parameters")
