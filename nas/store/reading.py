"""What can be asked of a store.

In: questions about studies and trials. Out: frozen entries, and pandas frames for people, reports
and exports. Nothing here changes a row, so that any number of readers may read while a study runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import pandas as pd
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from nas.errors import StoreError, did_you_mean
from nas.store import frames
from nas.store.corrections import corrections
from nas.store.engine import engine_kwargs, translated
from nas.store.entries import Correction, Role, State, StoredObjective, StoredStudy, StoredTrial
from nas.store.tables import StudyRow, TrialRow
from nas.store.trials import WHOLE_TRIAL, to_entry

# Of a trial: the column is an INTEGER.
LARGEST_NUMBER = 2**31 - 1


class StoreReading:
    """The half of a `Store` that reads.

    Attributes:
        url: as Optuna takes it, password included; use `label` for people.
        label: the same without the password.
        files: folder or fsspec URL of the checkpoints; their stored paths are relative to it.
        engine_kwargs: arguments with which any other user of `url` must open it.
    """

    def __init__(self, engine: Engine, files: str) -> None:
        self._engine = engine
        self.url = engine.url.render_as_string(hide_password=False)
        self.label = engine.url.render_as_string(hide_password=True)
        self.files = files
        self.engine_kwargs = engine_kwargs(engine.url)

    def close(self) -> None:
        """Gives the connections back; the store is not used afterwards."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.label!r})"

    def studies(self) -> list[StoredStudy]:
        """All studies, the oldest first."""
        with self._reading() as session:
            return [to_study(row) for row in session.scalars(select(StudyRow).order_by(StudyRow.id))]

    def study(self, name: str) -> StoredStudy:
        """The study of that name.

        Raises:
            StoreError: there is none; the message names the nearest.
        """
        with self._reading() as session:
            row = session.scalar(select(StudyRow).where(StudyRow.name == name))
            if row is None:
                names = list(session.scalars(select(StudyRow.name)))
                hint = did_you_mean(name, names) if names else "it holds no study yet"
                raise StoreError(f"no study '{name}' in '{self.label}': {hint}")
            return to_study(row)

    def trials(
        self, study: StoredStudy, *, states: Iterable[State] | None = None, role: Role | None = "search"
    ) -> list[StoredTrial]:
        """The study's trials by number, of all states or of some.

        Args:
            study: whose trials they are.
            states: that they may be in; all by default.
            role: those of the search by default; the replicates that confirm them, or with None both.
        """
        statement = select(TrialRow).where(TrialRow.study_id == study.id).order_by(TrialRow.number)
        if states is not None:
            statement = statement.where(TrialRow.state.in_(list(states)))
        if role is not None:
            statement = statement.where(TrialRow.role == role)
        with self._reading() as session:
            return [to_entry(row) for row in session.scalars(statement.options(*WHOLE_TRIAL)).unique()]

    def trial(self, study: StoredStudy, number: int) -> StoredTrial:
        """The trial of that number.

        Raises:
            StoreError: there is none; the message names the range that exists.
        """
        with self._reading() as session:
            return to_entry(numbered(session, study, number))

    def find(self, study: StoredStudy, key: str, seed: int, *, budget: float = 1.0) -> StoredTrial | None:
        """The trial of a candidate's key with a seed at a budget, or None when the study has not tried it."""
        statement = select(TrialRow).where(
            TrialRow.study_id == study.id,
            TrialRow.candidate_key == key,
            TrialRow.seed == seed,
            TrialRow.budget == budget,
        )
        with self._reading() as session:
            row = session.scalars(statement.options(*WHOLE_TRIAL)).unique().one_or_none()
            return None if row is None else to_entry(row)

    def front(self, study: StoredStudy) -> pd.DataFrame:
        """The front recorded last: trial, fingerprint, one column per objective; best in the first one first."""
        with self._reading() as session:
            return frames.last_front(session, study)

    def fronts(self, study: StoredStudy) -> pd.DataFrame:
        """All fronts recorded: sequence, trials_done, tokens, hypervolume, recorded_at, trials (numbers)."""
        with self._reading() as session:
            return frames.front_history(session, study)

    def trials_frame(self, study: StoredStudy, *, role: Role | None = "search") -> pd.DataFrame:
        """One row a trial, with its architecture, one column per objective and `training.<name>`.

        Args:
            study: whose trials they are.
            role: those of the search by default; the replicates that confirm them, or with None both.
        """
        with self._reading() as session:
            return frames.trials(session, study, role)

    def measurements(self, study: StoredStudy, trial: int | None = None) -> pd.DataFrame:
        """All measurements, or one trial's: trial, metric, value, unit, step, context, split, seed, recorded_at.

        Raises:
            StoreError: there is no trial of that number.
        """
        with self._reading(study, trial) as session:
            return frames.measurements(session, study, trial)

    def memory(self, study: StoredStudy, trial: int | None = None) -> pd.DataFrame:
        """All figures of memory, or one trial's: trial, figure, kind, bytes, batch, context, dtype, device.

        Raises:
            StoreError: there is no trial of that number.
        """
        with self._reading(study, trial) as session:
            return frames.memory(session, study, trial)

    def corrections(self) -> list[Correction]:
        """How measured peaks of training compare with predicted ones, for each device and precision."""
        with self._reading() as session:
            return corrections(session)

    def checkpoints(self, study: StoredStudy, trial: int | None = None) -> pd.DataFrame:
        """All checkpoints, or one trial's: trial, step, path, sha256, bytes.

        Raises:
            StoreError: there is no trial of that number.
        """
        with self._reading(study, trial) as session:
            return frames.checkpoints(session, study, trial)

    def decisions(self, study: StoredStudy, trial: int | None = None) -> pd.DataFrame:
        """All decisions, or one trial's: trial, action, reason, recorded_at.

        Raises:
            StoreError: there is no trial of that number.
        """
        with self._reading(study, trial) as session:
            return frames.decisions(session, study, trial)

    def environments(self, study: StoredStudy) -> pd.DataFrame:
        """One row a run: created_at, device, git_commit, versions (a mapping)."""
        with self._reading() as session:
            return frames.environments(session, study)

    @contextmanager
    def _reading(self, study: StoredStudy | None = None, trial: int | None = None) -> Iterator[Session]:
        with translated(self._engine), Session(self._engine) as session:
            if study is not None and trial is not None:
                numbered(session, study, trial)
            yield session


def numbered(session: Session, study: StoredStudy, number: int) -> TrialRow:
    """The row of the trial of that number.

    Raises:
        StoreError: there is none; the message names the range that exists.
    """
    statement = select(TrialRow).where(TrialRow.study_id == study.id, TrialRow.number == number)
    # Databases raise errors of their own at what no column can hold.
    fits = 0 <= number <= LARGEST_NUMBER
    row = session.scalars(statement.options(*WHOLE_TRIAL)).unique().one_or_none() if fits else None
    if row is None:
        last = session.scalar(select(func.max(TrialRow.number)).where(TrialRow.study_id == study.id))
        there = "it has none yet" if last is None else f"it has 0 to {last}"
        raise StoreError(f"study '{study.name}' has no trial {number}: {there}")
    return row


def to_study(row: StudyRow) -> StoredStudy:
    """The snapshot of a row."""
    return StoredStudy(
        id=row.id,
        name=row.name,
        resolved=row.resolved,
        objectives=tuple(StoredObjective(**objective) for objective in row.objectives),
        duplicates=row.duplicates,
        created_at=row.created_at,
    )
