"""The store read as tables: pandas frames for people, reports and exports.

In: a session and a study. Out: frames whose columns and dtypes are the same with and without rows;
`trial` is a trial's number in its study, instants are UTC. Architectures are not rebuilt, so that a
store can be read where a user's own mixers cannot be imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from nas.store.entries import Role, StoredStudy
from nas.store.tables import (
    ArchitectureRow,
    CandidateRow,
    CheckpointRow,
    DecisionRow,
    EnvironmentRow,
    FrontMemberRow,
    FrontRow,
    MeasurementRow,
    MemoryRow,
    TrialRow,
    ValueRow,
)

INSTANT = "datetime64[us, UTC]"


def trials(session: Session, study: StoredStudy, role: Role | None) -> pd.DataFrame:
    """One row a trial of a role (None: of any): a column for each objective, `training.<name>` for hyperparameters."""
    values = _values(session, study)
    statement = (
        select(TrialRow, CandidateRow.training, ArchitectureRow)
        .join(CandidateRow, CandidateRow.key == TrialRow.candidate_key)
        .join(ArchitectureRow, ArchitectureRow.fingerprint == CandidateRow.fingerprint)
        .where(TrialRow.study_id == study.id)
        .order_by(TrialRow.number)
    )
    if role is not None:
        statement = statement.where(TrialRow.role == role)
    found = session.execute(statement).all()
    hyperparameters = sorted({name for _, training, _ in found for name in training})
    rows = [
        {
            **_described(trial, architecture),
            **values.get(trial.number, {}),
            **{f"training.{name}": value for name, value in training.items()},
        }
        for trial, training, architecture in found
    ]
    names = [objective.name for objective in study.objectives]
    dtypes = {**TRIAL_DTYPES, **dict.fromkeys(names, "float64")}
    return _frame(rows, [*TRIAL_COLUMNS, *names, *(f"training.{name}" for name in hyperparameters)], dtypes)


def last_front(session: Session, study: StoredStudy) -> pd.DataFrame:
    """The front recorded last, best in the first objective first."""
    names = [objective.name for objective in study.objectives]
    values = _values(session, study)
    newest = session.scalar(
        select(FrontRow.id).where(FrontRow.study_id == study.id).order_by(FrontRow.sequence.desc()).limit(1)
    )
    statement = (
        select(TrialRow.number, CandidateRow.fingerprint)
        .join(FrontMemberRow, FrontMemberRow.trial_id == TrialRow.id)
        .join(CandidateRow, CandidateRow.key == TrialRow.candidate_key)
        .where(FrontMemberRow.front_id == newest)
        .order_by(TrialRow.number)
    )
    rows = [
        {"trial": number, "fingerprint": fingerprint, **values.get(number, {})}
        for number, fingerprint in session.execute(statement)
    ]
    dtypes = {"trial": "int64"} | dict.fromkeys(names, "float64")
    frame = _frame(rows, ["trial", "fingerprint", *names], dtypes)
    rising = study.objectives[0].direction == "minimize"
    return frame.sort_values(names[0], ascending=rising, kind="stable", ignore_index=True)


def front_history(session: Session, study: StoredStudy) -> pd.DataFrame:
    """One row for each front recorded; `trials` lists its members' numbers."""
    members: dict[int, list[int]] = {}
    statement = (
        select(FrontMemberRow.front_id, TrialRow.number)
        .join(TrialRow, TrialRow.id == FrontMemberRow.trial_id)
        .where(TrialRow.study_id == study.id)
        .order_by(TrialRow.number)
    )
    for front, number in session.execute(statement):
        members.setdefault(front, []).append(number)
    fronts = session.scalars(select(FrontRow).where(FrontRow.study_id == study.id).order_by(FrontRow.sequence))
    rows = [
        {
            "sequence": front.sequence,
            "trials_done": front.trials_done,
            "tokens": front.tokens,
            "hypervolume": front.hypervolume,
            "recorded_at": front.recorded_at,
            "trials": members.get(front.id, []),
        }
        for front in fronts
    ]
    dtypes = {"sequence": "int64", "trials_done": "int64", "tokens": "int64"}
    dtypes |= {"hypervolume": "float64", "recorded_at": INSTANT}
    return _frame(rows, ["sequence", "trials_done", "tokens", "hypervolume", "recorded_at", "trials"], dtypes)


def measurements(session: Session, study: StoredStudy, trial: int | None) -> pd.DataFrame:
    """One row a measurement, in the order in which they were recorded."""
    names = ["metric", "value", "unit", "step", "context", "split", "seed", "recorded_at"]
    dtypes = {"value": "float64", "step": "int64", "context": "Int64", "seed": "int64", "recorded_at": INSTANT}
    return _of_trials(session, study, trial, MeasurementRow, names, dtypes, order="id")


def memory(session: Session, study: StoredStudy, trial: int | None) -> pd.DataFrame:
    """One row a figure of memory, predicted and measured ones side by side."""
    names = ["figure", "kind", "bytes", "batch", "context", "dtype", "device"]
    dtypes = {"bytes": "int64", "batch": "int64", "context": "Int64"}
    return _of_trials(session, study, trial, MemoryRow, names, dtypes, order="id")


def checkpoints(session: Session, study: StoredStudy, trial: int | None) -> pd.DataFrame:
    """One row a checkpoint; `path` is relative to the files folder."""
    names = ["step", "path", "sha256", "bytes"]
    return _of_trials(session, study, trial, CheckpointRow, names, {"step": "int64", "bytes": "int64"}, order="step")


def decisions(session: Session, study: StoredStudy, trial: int | None) -> pd.DataFrame:
    """One row a decision, with its reason."""
    names = ["action", "reason", "recorded_at"]
    return _of_trials(session, study, trial, DecisionRow, names, {"recorded_at": INSTANT}, order="id")


def environments(session: Session, study: StoredStudy) -> pd.DataFrame:
    """One row a run of the study; `versions` maps packages to versions."""
    names = ["created_at", "device", "git_commit", "versions"]
    columns = [getattr(EnvironmentRow, name) for name in names]
    statement = select(*columns).where(EnvironmentRow.study_id == study.id).order_by(EnvironmentRow.id)
    return _frame(_mappings(session, statement), names, {"created_at": INSTANT})


TRIAL_DTYPES: Mapping[str, str] = {
    "trial": "int64",
    "width": "int64",
    "depth": "int64",
    "max_context": "int64",
    "seed": "int64",
    "budget": "float64",
    "step": "int64",
    "tokens": "int64",
    "flops": "float64",
    "seconds": "float64",
    "created_at": INSTANT,
    "started_at": INSTANT,
    "finished_at": INSTANT,
}

TRIAL_COLUMNS = (
    *("trial", "state", "reason", "failure", "fingerprint", "key", "family", "width", "depth", "max_context", "seed"),
    *("role", "budget"),
    *("step", "tokens", "flops", "seconds", "created_at", "started_at", "finished_at"),
)


def _described(trial: TrialRow, architecture: ArchitectureRow) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "state": trial.state,
        "reason": trial.reason,
        "failure": trial.failure_kind,
        "fingerprint": architecture.fingerprint,
        "key": trial.candidate_key,
        "family": architecture.family,
        "width": architecture.width,
        "depth": architecture.depth,
        "max_context": architecture.max_context,
        "seed": trial.seed,
        "role": trial.role,
        "budget": trial.budget,
        "step": trial.step,
        "tokens": trial.tokens,
        "flops": trial.flops,
        "seconds": trial.seconds,
        "created_at": trial.created_at,
        "started_at": trial.started_at,
        "finished_at": trial.finished_at,
    }


def _values(session: Session, study: StoredStudy) -> dict[int, dict[str, float]]:
    statement = (
        select(TrialRow.number, ValueRow.objective, ValueRow.value)
        .join(ValueRow, ValueRow.trial_id == TrialRow.id)
        .where(TrialRow.study_id == study.id)
    )
    values: dict[int, dict[str, float]] = {}
    for number, objective, value in session.execute(statement):
        values.setdefault(number, {})[objective] = value
    return values


def _of_trials(
    session: Session,
    study: StoredStudy,
    trial: int | None,
    table: type[MeasurementRow] | type[MemoryRow] | type[CheckpointRow] | type[DecisionRow],
    names: Sequence[str],
    dtypes: Mapping[str, str],
    *,
    order: str,
) -> pd.DataFrame:
    columns = [getattr(table, name) for name in names]
    statement = (
        select(TrialRow.number.label("trial"), *columns)
        .join(table, table.trial_id == TrialRow.id)
        .where(TrialRow.study_id == study.id)
        .order_by(TrialRow.number, getattr(table, order))
    )
    if trial is not None:
        statement = statement.where(TrialRow.number == trial)
    return _frame(_mappings(session, statement), ["trial", *names], {"trial": "int64", **dtypes})


def _mappings(session: Session, statement: Select[Any]) -> list[dict[str, Any]]:
    return [dict(row) for row in session.execute(statement).mappings()]


def _frame(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], dtypes: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(columns)).astype(dict(dtypes))
