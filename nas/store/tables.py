"""The tables of a store, as SQLAlchemy models.

In: nothing. Out: `Base.metadata`, which the migrations must equal, and one class for each table.

All names start with `nas_`, so that Optuna's tables can lie in the same database. Instants are
UTC; sizes are bytes; a `step` counts the training steps behind the weights.

    nas_studies ─┬─ nas_trials ─┬─ nas_values, nas_measurements, nas_memory
                 │      │       └─ nas_checkpoints, nas_decisions
                 │      └─ nas_candidates ── nas_architectures
                 ├─ nas_fronts ── nas_front_members ── nas_trials
                 └─ nas_environments
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, CheckConstraint, DateTime, Dialect, Double, ForeignKey, MetaData, Text
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class UTCDateTime(TypeDecorator[datetime]):
    """An instant: aware in Python, UTC in the database, also where the database knows no zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The instant in UTC; a naive one is refused."""
        assert value is None or value.tzinfo is not None
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The instant with its zone, which SQLite does not keep."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """What all tables share."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UTCDateTime(),
        dict[str, Any]: JSON(),
        list[dict[str, Any]]: JSON(),
        float: Double(),
        str: Text(),
    }


class StudyRow(Base):
    """A study as it was resolved, with the objectives that its hypervolume is made of."""

    __tablename__ = "nas_studies"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    resolved: Mapped[dict[str, Any]]
    objectives: Mapped[list[dict[str, Any]]]
    duplicates: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]


class ArchitectureRow(Base):
    """A network; the columns beside its JSON are for those who query by hand."""

    __tablename__ = "nas_architectures"

    fingerprint: Mapped[str] = mapped_column(primary_key=True)
    json: Mapped[str]
    family: Mapped[str]
    width: Mapped[int]
    depth: Mapped[int]
    max_context: Mapped[int]


class CandidateRow(Base):
    """A network and the training hyperparameters drawn with it."""

    __tablename__ = "nas_candidates"

    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(ForeignKey("nas_architectures.fingerprint"), index=True)
    training: Mapped[dict[str, Any]]

    architecture: Mapped[ArchitectureRow] = relationship(lazy="raise")


class TrialRow(Base):
    """One training of a candidate in a study, or the record that it was never begun."""

    __tablename__ = "nas_trials"
    __table_args__ = (
        Unique("study_id", "number"),
        Unique("study_id", "candidate_key", "seed", "budget"),
        CheckConstraint("state IN ('running', 'paused', 'complete', 'failed', 'infeasible')", name="state"),
        CheckConstraint("role IN ('search', 'confirm')", name="role"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("nas_studies.id"))
    number: Mapped[int]
    candidate_key: Mapped[str] = mapped_column(ForeignKey("nas_candidates.key"), index=True)
    seed: Mapped[int] = mapped_column(BigInteger)
    role: Mapped[str] = mapped_column(default="search", server_default="search")
    budget: Mapped[float] = mapped_column(default=1.0, server_default="1")
    state: Mapped[str]
    reason: Mapped[str]
    failure_kind: Mapped[str | None]
    traceback: Mapped[str | None]
    optuna_number: Mapped[int | None]
    step: Mapped[int] = mapped_column(default=0)
    tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    flops: Mapped[float] = mapped_column(default=0.0)
    seconds: Mapped[float] = mapped_column(default=0.0)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    candidate: Mapped[CandidateRow] = relationship(lazy="raise")
    values: Mapped[list[ValueRow]] = relationship(lazy="raise", cascade="all, delete-orphan")
    checkpoints: Mapped[list[CheckpointRow]] = relationship(
        lazy="raise", cascade="all, delete-orphan", order_by="CheckpointRow.step"
    )


class ValueRow(Base):
    """The value of one objective: known ones at once, measured ones when the trial is complete."""

    __tablename__ = "nas_values"

    trial_id: Mapped[int] = mapped_column(ForeignKey("nas_trials.id"), primary_key=True)
    objective: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]


class MeasurementRow(Base):
    """One number that was measured."""

    __tablename__ = "nas_measurements"

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("nas_trials.id"), index=True)
    metric: Mapped[str]
    value: Mapped[float]
    unit: Mapped[str]
    step: Mapped[int]
    context: Mapped[int | None]
    split: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    recorded_at: Mapped[datetime]


class MemoryRow(Base):
    """One figure of memory, predicted by formula or measured on a device."""

    __tablename__ = "nas_memory"

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("nas_trials.id"), index=True)
    figure: Mapped[str]
    kind: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    batch: Mapped[int]
    context: Mapped[int | None]
    dtype: Mapped[str]
    device: Mapped[str]


class FrontRow(Base):
    """The front at one moment of a study."""

    __tablename__ = "nas_fronts"
    __table_args__ = (Unique("study_id", "sequence"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("nas_studies.id"))
    sequence: Mapped[int]
    trials_done: Mapped[int]
    tokens: Mapped[int] = mapped_column(BigInteger)
    hypervolume: Mapped[float | None]
    recorded_at: Mapped[datetime]


class FrontMemberRow(Base):
    """A trial on a front."""

    __tablename__ = "nas_front_members"

    front_id: Mapped[int] = mapped_column(ForeignKey("nas_fronts.id"), primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("nas_trials.id"), primary_key=True)


class CheckpointRow(Base):
    """Where the weights after a step lie, relative to the files folder, and what they hash to."""

    __tablename__ = "nas_checkpoints"

    trial_id: Mapped[int] = mapped_column(ForeignKey("nas_trials.id"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    path: Mapped[str]
    sha256: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)


class EnvironmentRow(Base):
    """What one run of a study ran on."""

    __tablename__ = "nas_environments"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("nas_studies.id"), index=True)
    versions: Mapped[dict[str, Any]]
    device: Mapped[str]
    git_commit: Mapped[str]
    created_at: Mapped[datetime]


class DecisionRow(Base):
    """What the search decided about a trial, and why."""

    __tablename__ = "nas_decisions"

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("nas_trials.id"), index=True)
    action: Mapped[str]
    reason: Mapped[str]
    recorded_at: Mapped[datetime]
