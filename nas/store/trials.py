"""Trials between rows and entries: the steps that the store's transactions are made of.

In: a session inside a transaction. Out: rows written, or `StoredTrial` entries. Nothing here
begins or ends a transaction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, joinedload, selectinload

from nas.errors import StoreError, did_you_mean
from nas.records import Candidate, CheckpointReference, Failure, FailureKind, Measurement
from nas.space.architecture import Architecture
from nas.store.entries import MemoryFigure, Role, State, StoredTrial
from nas.store.tables import (
    ArchitectureRow,
    Base,
    CandidateRow,
    CheckpointRow,
    MeasurementRow,
    MemoryRow,
    StudyRow,
    TrialRow,
    ValueRow,
)

WHOLE_TRIAL = (
    joinedload(TrialRow.candidate).joinedload(CandidateRow.architecture),
    selectinload(TrialRow.values),
    selectinload(TrialRow.checkpoints),
)

OPEN_STATES = ("running", "paused")


def now() -> datetime:
    """The instant, in UTC."""
    return datetime.now(UTC)


def finite(name: str, value: float) -> float:
    """The value as a plain float.

    Raises:
        StoreError: it is not finite.
    """
    number = float(value)
    if not math.isfinite(number):
        raise StoreError(f"'{name}' must be a finite number, not {number}")
    return number


def insert_trial(
    session: Session,
    study: StudyRow,
    candidate: Candidate,
    *,
    seed: int,
    optuna_number: int | None,
    known: Mapping[str, float],
    state: State,
    reason: str,
    role: Role = "search",
    budget: float = 1.0,
) -> TrialRow:
    """A new row with the next number, its candidate and its known values.

    Raises:
        StoreError: the study has tried this candidate with this seed and budget, or a value is not of an objective.
    """
    check_untried(session, study, candidate, seed, budget)
    insert_candidate(session, candidate)
    last = session.scalar(select(func.max(TrialRow.number)).where(TrialRow.study_id == study.id))
    begun = state == "running"
    row = TrialRow(
        study_id=study.id,
        number=0 if last is None else last + 1,
        candidate_key=candidate.key,
        seed=int(seed),
        role=role,
        budget=finite("budget", budget),
        state=state,
        reason=reason,
        optuna_number=optuna_number,
        created_at=now(),
        started_at=now() if begun else None,
        finished_at=None if begun else now(),
        values=[],
        checkpoints=[],
    )
    session.add(row)
    set_values(study, row, known)
    session.flush()
    return row


def check_untried(session: Session, study: StudyRow, candidate: Candidate, seed: int, budget: float) -> None:
    """Refuses a candidate that the study has tried with this seed at this budget.

    Raises:
        StoreError: with the number of the earlier trial.
    """
    earlier = session.scalar(
        select(TrialRow.number).where(
            TrialRow.study_id == study.id,
            TrialRow.candidate_key == candidate.key,
            TrialRow.seed == seed,
            TrialRow.budget == budget,
        )
    )
    if earlier is not None:
        raise StoreError(
            f"study '{study.name}' has tried candidate {candidate.key} with seed {seed}: it is trial {earlier}"
        )


def insert_candidate(session: Session, candidate: Candidate) -> None:
    """Rows of the candidate and its architecture, unless they are there."""
    architecture = candidate.architecture
    _insert_once(
        session,
        ArchitectureRow,
        {
            "fingerprint": architecture.fingerprint,
            "json": architecture.to_json(),
            "family": architecture.family,
            "width": architecture.width,
            "depth": architecture.depth,
            "max_context": architecture.max_context,
        },
    )
    _insert_once(
        session,
        CandidateRow,
        {
            "key": candidate.key,
            "fingerprint": architecture.fingerprint,
            "training": dict(candidate.training),
        },
    )


def set_values(study: StudyRow, row: TrialRow, values: Mapping[str, float]) -> None:
    """Adds or replaces values of objectives.

    Raises:
        StoreError: the study has no such objective, or a value is not finite.
    """
    objectives = [objective["name"] for objective in study.objectives]
    there = {value.objective: value for value in row.values}
    for name, number in values.items():
        if name not in objectives:
            raise StoreError(f"study '{study.name}' has no objective '{name}': {did_you_mean(name, objectives)}")
        value = finite(name, number)
        if name in there:
            there[name].value = value
        else:
            row.values.append(ValueRow(objective=name, value=value))


def check_complete(study: StudyRow, row: TrialRow) -> None:
    """Refuses a trial that lacks the value of an objective.

    Raises:
        StoreError: with the objectives that have no value.
    """
    there = {value.objective for value in row.values}
    missing = [objective["name"] for objective in study.objectives if objective["name"] not in there]
    if missing:
        raise StoreError(f"trial {row.number} of '{study.name}' cannot be complete without {', '.join(missing)}")


def open_trial(session: Session, trial: StoredTrial, *, states: Iterable[str] = OPEN_STATES) -> TrialRow:
    """The row of a trial that may still change, locked where the database locks rows.

    Raises:
        StoreError: it has come to its end.
    """
    row = trial_row(session, trial)
    if row.state not in states:
        raise StoreError(f"trial {row.number} is {row.state} already; is another run of this study going on?")
    return row


def trial_row(session: Session, trial: StoredTrial) -> TrialRow:
    """The row of an entry, locked where the database locks rows."""
    statement = select(TrialRow).where(TrialRow.id == trial.id).options(*WHOLE_TRIAL)
    return session.scalars(statement.with_for_update(of=TrialRow)).unique().one()


def put_checkpoint(row: TrialRow, reference: CheckpointReference) -> None:
    """Adds the checkpoint, or replaces the one after the same step."""
    there = {checkpoint.step: checkpoint for checkpoint in row.checkpoints}
    target = there.get(reference.step)
    if target is None:
        target = CheckpointRow(step=reference.step)
        row.checkpoints.append(target)
    target.path, target.sha256, target.bytes = reference.path, reference.sha256, reference.bytes


def put_measurements(session: Session, row: TrialRow, measurements: Iterable[Measurement]) -> None:
    """Adds measurements; one that answers the same question replaces the earlier answer."""
    recorded_at = now()
    for one in measurements:
        question: dict[str, Any] = {
            "trial_id": row.id,
            "metric": one.metric,
            "step": one.step,
            "context": one.context,
            "split": one.split,
            "seed": int(one.seed),
        }
        session.execute(delete(MeasurementRow).filter_by(**question))
        answer = {"value": finite(one.metric, one.value), "unit": one.unit, "recorded_at": recorded_at}
        session.add(MeasurementRow(**question, **answer))
        session.flush()


def put_memory(session: Session, row: TrialRow, figures: Iterable[MemoryFigure]) -> None:
    """Adds figures of memory; one of the same circumstances replaces the earlier one."""
    for one in figures:
        circumstances: dict[str, Any] = {
            "trial_id": row.id,
            "figure": one.figure,
            "kind": one.kind,
            "batch": one.batch,
            "context": one.context,
            "dtype": one.dtype,
            "device": one.device,
        }
        session.execute(delete(MemoryRow).filter_by(**circumstances))
        session.add(MemoryRow(**circumstances, bytes=int(finite(one.figure, one.bytes))))
        session.flush()


def to_entry(row: TrialRow) -> StoredTrial:
    """The snapshot of a row."""
    failure = None
    if row.failure_kind is not None:
        kind = cast(FailureKind, row.failure_kind)
        failure = Failure(kind=kind, reason=row.reason, traceback=row.traceback or "")
    return StoredTrial(
        id=row.id,
        study_id=row.study_id,
        number=row.number,
        candidate=_candidate(row.candidate.architecture.json, tuple(row.candidate.training.items())),
        seed=row.seed,
        state=cast(State, row.state),
        reason=row.reason,
        failure=failure,
        optuna_number=row.optuna_number,
        step=row.step,
        tokens=row.tokens,
        flops=row.flops,
        seconds=row.seconds,
        values={value.objective: value.value for value in row.values},
        role=cast(Role, row.role),
        budget=row.budget,
        checkpoints=tuple(
            CheckpointReference(path=one.path, sha256=one.sha256, bytes=one.bytes, step=one.step)
            for one in sorted(row.checkpoints, key=lambda checkpoint: checkpoint.step)
        ),
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


# A study reads all its trials again and again, and checking an architecture takes a while.
@lru_cache(maxsize=4096)
def _candidate(architecture: str, training: tuple[tuple[str, float], ...]) -> Candidate:
    return Candidate(Architecture.from_json(architecture), training)


def _insert_once(session: Session, table: type[Base], values: Mapping[str, Any]) -> None:
    # Two studies may meet the same network at the same moment; looking first would not be enough.
    if session.get_bind().dialect.name == "postgresql":
        session.execute(postgresql.insert(table).values(**values).on_conflict_do_nothing())
    else:
        session.execute(sqlite.insert(table).values(**values).on_conflict_do_nothing())
