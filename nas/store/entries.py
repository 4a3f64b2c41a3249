"""What the store hands out and takes in: frozen copies of rows, free of SQLAlchemy.

An entry is a snapshot: a call that changes a study or a trial returns the new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from nas.records import Candidate, CheckpointReference, Failure
from nas.specs.tasks import Direction

State = Literal["running", "paused", "complete", "failed", "infeasible"]
Role = Literal["search", "confirm"]


@dataclass(frozen=True, kw_only=True)
class StoredObjective:
    """One objective of a study, fixed when the study is made.

    Attributes:
        name: a metric, a figure, or the user's own name.
        direction: which way is better.
        unit: of its values, "" for a share.
        known: whether it is an exact function of the architecture.
        reference: its worst value in the hypervolume, or None where none could be told.
        ideal: the value that nothing can beat, or None.
        log2: whether the hypervolume sees its logarithm.
    """

    name: str
    direction: Direction
    unit: str = ""
    known: bool = False
    reference: float | None = None
    ideal: float | None = None
    log2: bool = False


@dataclass(frozen=True, kw_only=True)
class StoredStudy:
    """A study.

    Attributes:
        id: of its row.
        name: unique in the store.
        resolved: the study file with all defaults, as plain values.
        objectives: in the order of the study file.
        duplicates: draws that named a candidate already tried.
        created_at: UTC.
    """

    id: int
    name: str
    resolved: Mapping[str, Any]
    objectives: tuple[StoredObjective, ...]
    duplicates: int
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class StoredTrial:
    """One training of a candidate.

    Attributes:
        id: of its row.
        study_id: of its study's row.
        number: from 0, without gaps in a study.
        candidate: what is trained.
        seed: of the training.
        role: "search" for a trial of the search; "confirm" for a replicate of one, with another seed.
        budget: of the training, in multiples of the study's.
        state: "infeasible" ones were never begun, or broke a limit that only training shows; "paused" ones may go on.
        reason: why it is in this state, one line.
        failure: what went wrong, for a failed one, and for an infeasible one whose training was begun.
        optuna_number: of its mirror, if it has one.
        step: training steps recorded so far.
        tokens: trained on so far.
        flops: training floating-point operations so far.
        seconds: wall time of its jobs so far.
        values: by objective; before it is complete, the known ones alone.
        checkpoints: by ascending step.
        created_at, started_at, finished_at: UTC; None where it has not come to that.
    """

    id: int
    study_id: int
    number: int
    candidate: Candidate
    seed: int
    state: State
    reason: str
    failure: Failure | None = None
    optuna_number: int | None = None
    step: int = 0
    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    values: Mapping[str, float] = field(default_factory=dict)
    role: Role = "search"
    budget: float = 1.0
    checkpoints: tuple[CheckpointReference, ...] = ()
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class MemoryFigure:
    """One figure of memory.

    Attributes:
        figure: "param_bytes", "state_bytes", "serve_bytes", "prefill_peak_bytes", "train_peak_bytes";
            "trained_peak_bytes", what the training of a trial held at most; or a name of a measurement.
        kind: whether a formula or a device said so.
        bytes: its size.
        batch: sequences at once.
        context: tokens of each, or None where it plays no part.
        dtype: of weights and cache.
        device: in words; "" for a prediction that holds everywhere.
    """

    figure: str
    kind: Literal["predicted", "measured"]
    bytes: int
    batch: int
    context: int | None
    dtype: str
    device: str = ""


@dataclass(frozen=True, kw_only=True)
class Correction:
    """How the measured peaks of training on a device compare with the predicted ones.

    Attributes:
        device: in words.
        dtype: the precision of training.
        ratio: of measured to predicted peak, the median of the trials.
        lowest, highest: of the trials' ratios.
        trials: complete ones that were measured there, of all studies.
    """

    device: str
    dtype: str
    ratio: float
    lowest: float
    highest: float
    trials: int
