"""The figures that spaces and studies name, each a function of an architecture.

Families that do not decode have no state: `state_bytes` and `serve_bytes` there are errors.
"""

from __future__ import annotations

from collections.abc import Callable

from nas.cost.estimate import Estimate, estimate
from nas.errors import SpaceError
from nas.space.architecture import Architecture
from nas.specs import family_spec

FigureFunction = Callable[..., float]


def param_bytes(
    architecture: Architecture, *, context: int | None = None, batch: int = 1, dtype: str = "bf16"
) -> float:
    """Bytes of the weights."""
    return _at(architecture, context, batch, dtype).param_bytes


def state_bytes(
    architecture: Architecture, *, context: int | None = None, batch: int = 1, dtype: str = "bf16"
) -> float:
    """Bytes that decoding keeps: cache and recurrent state."""
    _must_decode(architecture, "state_bytes")
    return _at(architecture, context, batch, dtype).state_bytes


def serve_bytes(
    architecture: Architecture, *, context: int | None = None, batch: int = 1, dtype: str = "bf16"
) -> float:
    """Bytes of weights and state."""
    _must_decode(architecture, "serve_bytes")
    return _at(architecture, context, batch, dtype).serve_bytes


def prefill_peak_bytes(
    architecture: Architecture, *, context: int | None = None, batch: int = 1, dtype: str = "bf16"
) -> float:
    """Estimated peak bytes of one forward pass over a prompt."""
    return _at(architecture, context, batch, dtype).prefill_peak_bytes


def train_peak_bytes(
    architecture: Architecture, *, context: int | None = None, batch: int = 1, dtype: str = "bf16"
) -> float:
    """Estimated peak bytes of one training step in fp32 with AdamW."""
    return _at(architecture, context, batch, dtype).train_peak_bytes


def flops_per_token(
    architecture: Architecture, *, context: int | None = None, batch: int = 1, dtype: str = "bf16"
) -> float:
    """Training FLOPs of one token in a sequence of `context`."""
    return _at(architecture, context, batch, dtype).flops_per_token


def parameters(architecture: Architecture, *, context: int | None = None, batch: int = 1, dtype: str = "bf16") -> float:
    """Trainable elements."""
    return _at(architecture, context, batch, dtype).parameters


def _at(architecture: Architecture, context: int | None, batch: int, dtype: str) -> Estimate:
    return estimate(architecture, context=context, batch=batch, dtype=dtype)


def _must_decode(architecture: Architecture, figure: str) -> None:
    if not family_spec(architecture.family).decodes:
        raise SpaceError(f"family '{architecture.family}' does not decode and has no {figure}: use prefill_peak_bytes")
