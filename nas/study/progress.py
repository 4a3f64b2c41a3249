"""What a run tells whoever listens: how far it is, and candidates in one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nas.records import Candidate


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is.

    Attributes:
        event: what just happened, in words; "" for a tick.
        target: candidates asked for; None where something else ends the study.
        complete, running, failed, infeasible, duplicates, paused: candidates or draws so far.
        seconds: since this run began.
        seconds_left: estimated; None before anything is known.
        hypervolume: of the front, None before there is one.
        front: for each member its trial number and values by objective.
    """

    event: str
    target: int | None
    complete: int
    running: int
    failed: int
    infeasible: int
    duplicates: int
    seconds: float
    seconds_left: float | None
    hypervolume: float | None
    front: tuple[tuple[int, Mapping[str, float]], ...]
    paused: int = 0


def describe(candidate: Candidate) -> str:
    """A candidate in one line."""
    architecture = candidate.architecture
    mixers = " ".join(
        f"{layer.mixer}({layer.values['window']})" if "window" in layer.values else layer.mixer
        for layer in architecture.all_layers
    )
    training = "".join(f", {name} {value:.3g}" for name, value in candidate.training)
    return f"width {architecture.width}, context {architecture.max_context}, {mixers}{training}"
