"""What travels between the rooms: frozen, with units in the names, and no NaN.

    Candidate ─► Job ─► Evaluator ─► Result(Measurement…, CheckpointReference) ─► Trial in the store

A `Job` holds all that its evaluation depends on and talks to nobody while it runs, so that it can
be carried by any executor and run again when its worker dies.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from nas.space.architecture import Architecture

Split = Literal["validation", "test"]
FailureKind = Literal["diverged", "out_of_memory", "timed_out", "crashed", "machine"]


@dataclass(frozen=True)
class Candidate:
    """An architecture and the training hyperparameters drawn with it.

    Attributes:
        architecture: the network, bound to its task.
        training: hyperparameters by name, sorted.
    """

    architecture: Architecture
    training: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        # As floats, so that 1 and 1.0 have one key.
        object.__setattr__(self, "training", tuple(sorted((name, float(value)) for name, value in self.training)))
        for name, value in self.training:
            _refuse_nan(name, value)

    @property
    def key(self) -> str:
        """16 hexadecimal digits: equal for equal networks trained in the same way."""
        text = json.dumps([self.architecture.to_json(), self.training])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number that was measured.

    Attributes:
        metric: its name; a task's specification gives direction and meaning.
        value: finite.
        unit: "" for a share.
        step: training steps behind the weights that were measured.
        context: context length in tokens, or None where it plays no part.
        split: which part of the data; search sees "validation" alone.
        seed: seed of the training.
    """

    metric: str
    value: float
    unit: str
    step: int
    context: int | None
    split: Split
    seed: int

    def __post_init__(self) -> None:
        _refuse_nan(self.metric, self.value)


@dataclass(frozen=True, kw_only=True)
class CheckpointReference:
    """Where a checkpoint lies and what it must hash to.

    Attributes:
        path: relative to the study's files folder.
        sha256: of the file at `path`, in hexadecimal.
        bytes: its size.
        step: training steps behind it.
    """

    path: str
    sha256: str
    bytes: int
    step: int


@dataclass(frozen=True, kw_only=True)
class TaskReference:
    """A task by name, its options, and the version of the data that they meant.

    Attributes:
        name: a name of catalog.TASKS or "module:Class".
        options: as in the study file, with defaults, paths absolute.
        data_version: hash of the data, or "" until it has been read.
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    data_version: str = ""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the budget of a candidate is spent.

    Attributes:
        tokens_per_step: the same for all candidates.
        rung_steps: training steps at which a candidate is scored; the last is its whole budget.
    """

    tokens_per_step: int
    rung_steps: tuple[int, ...]

    def __post_init__(self) -> None:
        assert self.rung_steps and list(self.rung_steps) == sorted(set(self.rung_steps))
        assert self.tokens_per_step > 0 and self.rung_steps[0] > 0

    @property
    def total_steps(self) -> int:
        """Steps of a candidate that is trained to the end."""
        return self.rung_steps[-1]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One piece of work: train a candidate from one step to another, or score a checkpoint.

    Attributes:
        kind: "train", or "test" to score a checkpoint on the test part without training.
        candidate: what to train.
        task: what to train it on.
        seed: of the initial weights and the order of the data.
        schedule: the whole budget, of which this job is a part.
        from_step: steps already taken; above 0 a checkpoint is needed.
        to_step: steps behind the weights when the job is done.
        checkpoint: what to continue from or to score.
        files: folder or fsspec URL under which checkpoints lie.
        folder: of this training, relative to `files`.
        trainer: arguments for lightning.Trainer, sorted.
        contexts: context lengths to score at; the candidate's own max_context where empty.
        memory_limit: bytes that the job may take beyond what its process held before it, or None.
        time_limit: seconds of wall time that are left to the candidate, or None.
    """

    kind: Literal["train", "test"]
    candidate: Candidate
    task: TaskReference
    seed: int
    schedule: Schedule
    from_step: int
    to_step: int
    checkpoint: CheckpointReference | None = None
    files: str = ""
    folder: str = ""
    trainer: tuple[tuple[str, Any], ...] = ()
    contexts: tuple[int, ...] = ()
    memory_limit: int | None = None
    time_limit: float | None = None

    def __post_init__(self) -> None:
        assert 0 <= self.from_step <= self.to_step
        assert self.checkpoint is not None or (self.kind == "train" and self.from_step == 0)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a job gave no measurements.

    Attributes:
        kind: "machine" is nobody's fault: a worker died, a disk or a connection failed. The others are the candidate's;
            "crashed" is an exception of its evaluation.
        reason: one line for tables.
        traceback: for whoever looks for the cause.
        error: class of the exception, to tell whether it is the same as before; "" where there was none.
    """

    kind: FailureKind
    reason: str
    traceback: str = ""
    error: str = ""

    @property
    def blames_candidate(self) -> bool:
        """Whether training it again would fail again."""
        return self.kind != "machine"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a job.

    Attributes:
        measurements: empty if and only if the job failed.
        checkpoint: the weights after `to_step`, if any were written.
        seconds: wall time of the job.
        tokens: tokens trained on by this job.
        flops: training floating-point operations of this job, by formula.
        failure: what went wrong, if anything did.
        device: where it ran, in words.
        precision: that training computed in: "fp32", "bf16", or Lightning's own word; "" where nothing was trained.
        peak_bytes: most memory that training held at once, beyond what the process held before; of a job
            that failed, until then; None where it is not known.
    """

    measurements: tuple[Measurement, ...] = ()
    checkpoint: CheckpointReference | None = None
    seconds: float = 0.0
    tokens: int = 0
    flops: float = 0.0
    failure: Failure | None = None
    device: str = ""
    precision: str = ""
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Decision:
    """What the search made of a candidate, and why.

    Attributes:
        action: what follows; "audit" is a "continue" against the stopping rule, "resume" ends a "pause".
        reason: one line, kept in the store.
    """

    action: Literal["start", "continue", "audit", "pause", "resume", "finish", "infeasible", "fail"]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a study ran on.

    Attributes:
        versions: of Python and of the packages that the numbers depend on.
        device: in words.
        git_commit: of the user's working tree, "+changes" appended when it is dirty; "" outside git.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    git_commit: str = ""


class Evaluator(Protocol):
    """Anything that turns a job into a result; raises nothing, for a failure is a result too."""

    def evaluate(self, job: Job) -> Result:
        """Does the job in this process."""
        ...


def _refuse_nan(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"'{name}' must be a finite number, not {value!r}")
