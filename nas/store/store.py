"""The store: the one place where a study is kept.

In: what the study's driver learns (trials, results, fronts). Out: the same as frozen entries and as
pandas frames; everything that a report or an export needs, together with the files beside it.

Each write is one transaction: it is stored as a whole or not at all, so a study can be stopped at
any moment and continued from what is here. Only the driver of a study writes; any number of
readers may read meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import URL, func, select
from sqlalchemy.orm import Session

from nas.errors import StoreError
from nas.records import Candidate, Decision, Environment, Failure, Measurement, Result
from nas.store.engine import normalize_url, translated, writing
from nas.store.entries import MemoryFigure, Role, State, StoredObjective, StoredStudy, StoredTrial
from nas.store.lease import lease
from nas.store.reading import StoreReading, numbered, to_study
from nas.store.revisions import open_engine
from nas.store.tables import DecisionRow, EnvironmentRow, FrontMemberRow, FrontRow, StudyRow
from nas.store.trials import (
    check_complete,
    finite,
    insert_trial,
    now,
    open_trial,
    put_checkpoint,
    put_measurements,
    put_memory,
    set_values,
    to_entry,
    trial_row,
)


class Store(StoreReading):
    """A database of studies; make one with `Store.open`."""

    @staticmethod
    def open(url: str, *, create: bool = False, files: str | None = None) -> Store:
        """Opens a store, and upgrades one of an older version.

        Args:
            url: a path ("nas.db") or a URL ("sqlite:///nas.db", "postgresql://user@host/database").
            create: whether to make it where there is none.
            files: where checkpoints lie; by default a folder beside the SQLite file, named
                after it ("nas_files"), else "nas_files" in the working directory.

        Raises:
            StoreError: there is no store, it is of a newer version, or the database says no.
            MissingExtraError: the driver of PostgreSQL is not installed.
        """
        checked = normalize_url(url)
        return Store(open_engine(checked, create=create), files or _default_files(checked))

    # Studies

    def add_study(
        self, name: str, *, resolved: Mapping[str, Any], objectives: Sequence[StoredObjective]
    ) -> StoredStudy:
        """Makes a study.

        Args:
            name: new in this store.
            resolved: the study with all defaults, as plain values.
            objectives: at least one, of different names.

        Raises:
            StoreError: the name is taken, or `resolved` holds something that JSON cannot say.
        """
        names = [objective.name for objective in objectives]
        assert names and len(set(names)) == len(names)
        with self._writing() as session:
            if session.scalar(select(StudyRow.id).where(StudyRow.name == name)) is not None:
                raise StoreError(f"'{self.label}' has a study '{name}' already: continue it, or give another --name")
            row = StudyRow(
                name=name,
                resolved=_plain(resolved, f"study '{name}'"),
                objectives=[_plain(asdict(one), f"objective '{one.name}'") for one in objectives],
                created_at=now(),
            )
            session.add(row)
            session.flush()
            return to_study(row)

    def update_resolved(self, study: StoredStudy, resolved: Mapping[str, Any]) -> StoredStudy:
        """Replaces the resolved study; which changes are allowed is the caller's rule.

        Raises:
            StoreError: `resolved` holds something that JSON cannot say.
        """
        with self._writing() as session:
            row = _study_row(session, study)
            row.resolved = _plain(resolved, f"study '{study.name}'")
            return to_study(row)

    def count_duplicate(self, study: StoredStudy) -> int:
        """Counts one more draw that named a candidate already tried; returns how many there were."""
        with self._writing() as session:
            row = _study_row(session, study)
            row.duplicates += 1
            return row.duplicates

    # Trials

    def add_trial(
        self,
        study: StoredStudy,
        candidate: Candidate,
        *,
        seed: int,
        known: Mapping[str, float],
        reason: str,
        optuna_number: int | None = None,
    ) -> StoredTrial:
        """Begins a trial, in state "running".

        Args:
            study: whose trial it is.
            candidate: not yet tried in the study with this seed (see `find`).
            seed: of the training.
            known: values of the known objectives.
            reason: why it is begun, one line.
            optuna_number: of its mirror, if there is one yet.

        Raises:
            StoreError: the candidate was tried, or a value is not finite or not of an objective.
        """
        return self._add(
            study, candidate, seed=seed, known=known, reason=reason, optuna_number=optuna_number, state="running"
        )

    def add_replicate(
        self,
        study: StoredStudy,
        candidate: Candidate,
        *,
        seed: int,
        budget: float,
        known: Mapping[str, float],
        reason: str,
    ) -> StoredTrial:
        """Begins a trial that confirms another one, in state "running"; no sampler hears of it.

        Args:
            study: whose trial it is.
            candidate: not yet tried in the study with this seed and budget (see `find`).
            seed: of the training.
            budget: of the training, in multiples of the study's.
            known: values of the known objectives.
            reason: why it is begun, one line.

        Raises:
            StoreError: the candidate was tried, or a value is not finite or not of an objective.
        """
        return self._add(
            study,
            candidate,
            seed=seed,
            known=known,
            reason=reason,
            optuna_number=None,
            state="running",
            role="confirm",
            budget=budget,
        )

    def add_infeasible(
        self,
        study: StoredStudy,
        candidate: Candidate,
        *,
        seed: int,
        known: Mapping[str, float],
        reason: str,
        optuna_number: int | None = None,
    ) -> StoredTrial:
        """Records a candidate that breaks a constraint and is never trained.

        Args:
            study: whose draw it is.
            candidate: not yet tried in the study with this seed.
            seed: that it would have had.
            known: values of the known objectives.
            reason: the constraint that it breaks, one line.
            optuna_number: of its mirror, if there is one yet.

        Raises:
            StoreError: the candidate was tried, or a value is not finite or not of an objective.
        """
        return self._add(
            study, candidate, seed=seed, known=known, reason=reason, optuna_number=optuna_number, state="infeasible"
        )

    def set_optuna_number(self, trial: StoredTrial, number: int) -> StoredTrial:
        """Says which of Optuna's trials mirrors this one."""
        with self._writing() as session:
            row = trial_row(session, trial)
            row.optuna_number = number
            return to_entry(row)

    def record_result(self, trial: StoredTrial, result: Result, *, step: int) -> StoredTrial:
        """Stores what a job brought: measurements, checkpoint, tokens, FLOPs and seconds.

        A job whose result was stored may be run again after a crash: the second result of a step
        takes the place of the first, and the totals count it once.

        Args:
            trial: running or paused.
            result: of a job that succeeded.
            step: training steps behind it.

        Raises:
            StoreError: the trial has come to its end, or a number is not finite.
        """
        assert result.failure is None and step > 0
        with self._writing() as session:
            row = open_trial(session, trial)
            put_measurements(session, row, result.measurements)
            if result.checkpoint is not None:
                put_checkpoint(row, result.checkpoint)
            if step > row.step:
                row.step = step
                row.tokens += int(result.tokens)
                row.flops += finite("flops", result.flops)
                row.seconds += finite("seconds", result.seconds)
            return to_entry(row)

    def pause(self, trial: StoredTrial, reason: str) -> StoredTrial:
        """Stops a running trial for now; it may be resumed.

        Raises:
            StoreError: the trial has come to its end.
        """
        return self._move(trial, "paused", reason, states=("running", "paused"))

    def resume(self, trial: StoredTrial, reason: str) -> StoredTrial:
        """Lets a paused or failed trial run on from its last checkpoint, its failure forgotten.

        Raises:
            StoreError: the trial is complete or infeasible.
        """
        return self._move(trial, "running", reason, states=("running", "paused", "failed"))

    def complete(self, trial: StoredTrial, values: Mapping[str, float], reason: str) -> StoredTrial:
        """Ends a trial with its values.

        Args:
            trial: running or paused.
            values: of the measured objectives; the known ones are there already.
            reason: one line.

        Raises:
            StoreError: an objective has no value, a value is not finite or not of an objective,
                or the trial has come to its end.
        """
        with self._writing() as session:
            row = open_trial(session, trial)
            study = session.get_one(StudyRow, row.study_id)
            set_values(study, row, values)
            check_complete(study, row)
            row.state, row.reason, row.finished_at = "complete", reason, now()
            return to_entry(row)

    def fail(self, trial: StoredTrial, failure: Failure) -> StoredTrial:
        """Ends a trial with what went wrong; its measurements and checkpoints stay.

        Raises:
            StoreError: the trial has come to its end.
        """
        return self._end(trial, "failed", failure)

    def exclude(self, trial: StoredTrial, failure: Failure) -> StoredTrial:
        """Ends a trial that turned out to break a limit as infeasible; its measurements and checkpoints stay.

        Raises:
            StoreError: the trial has come to its end.
        """
        return self._end(trial, "infeasible", failure)

    def add_measurements(self, trial: StoredTrial, measurements: Iterable[Measurement]) -> None:
        """Adds measurements to a trial in any state; the same question asked again replaces its answer.

        The question is (metric, step, context, split, seed).
        """
        with self._writing() as session:
            put_measurements(session, trial_row(session, trial), measurements)

    def add_memory(self, trial: StoredTrial, figures: Iterable[MemoryFigure]) -> None:
        """Adds figures of memory; one of the same circumstances replaces the earlier one."""
        with self._writing() as session:
            put_memory(session, trial_row(session, trial), figures)

    def add_decision(self, trial: StoredTrial, decision: Decision) -> None:
        """Records what the search decided about a trial, and why."""
        with self._writing() as session:
            session.add(
                DecisionRow(trial_id=trial.id, action=decision.action, reason=decision.reason, recorded_at=now())
            )

    # The study as it goes

    def driving(self, study: StoredStudy) -> AbstractContextManager[None]:
        """The lease that a run of a study holds: it alone writes.

        Raises:
            StoreError: on entering, when another process holds it.
        """
        return lease(self._engine, study.name)

    def add_front(
        self, study: StoredStudy, *, members: Iterable[int], hypervolume: float | None, trials_done: int, tokens: int
    ) -> int:
        """Records the front of this moment.

        Args:
            study: whose front it is.
            members: numbers of its trials.
            hypervolume: in [0, 1], against the study's fixed reference; None where an objective has none.
            trials_done: trials begun so far.
            tokens: trained on so far, by all trials.

        Returns:
            Its place in the study's history, from 0.

        Raises:
            StoreError: a member does not exist, or the hypervolume is not finite.
        """
        with self._writing() as session:
            _study_row(session, study)
            last = session.scalar(select(func.max(FrontRow.sequence)).where(FrontRow.study_id == study.id))
            row = FrontRow(
                study_id=study.id,
                sequence=0 if last is None else last + 1,
                trials_done=trials_done,
                tokens=int(tokens),
                hypervolume=None if hypervolume is None else finite("hypervolume", hypervolume),
                recorded_at=now(),
            )
            session.add(row)
            session.flush()
            trials = [numbered(session, study, number).id for number in sorted(set(members))]
            session.add_all(FrontMemberRow(front_id=row.id, trial_id=trial) for trial in trials)
            return row.sequence

    def add_environment(self, study: StoredStudy, environment: Environment) -> None:
        """Records what a run of the study runs on."""
        with self._writing() as session:
            session.add(
                EnvironmentRow(
                    study_id=study.id,
                    versions=dict(environment.versions),
                    device=environment.device,
                    git_commit=environment.git_commit,
                    created_at=now(),
                )
            )

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with translated(self._engine), Session(writing(self._engine)) as session, session.begin():
            yield session

    def _add(
        self,
        study: StoredStudy,
        candidate: Candidate,
        *,
        seed: int,
        known: Mapping[str, float],
        reason: str,
        optuna_number: int | None,
        state: State,
        role: Role = "search",
        budget: float = 1.0,
    ) -> StoredTrial:
        with self._writing() as session:
            row = insert_trial(
                session,
                _study_row(session, study),
                candidate,
                seed=seed,
                optuna_number=optuna_number,
                known=known,
                state=state,
                reason=reason,
                role=role,
                budget=budget,
            )
            number = row.number
            session.expire_all()
            return to_entry(numbered(session, study, number))

    def _end(self, trial: StoredTrial, state: State, failure: Failure) -> StoredTrial:
        with self._writing() as session:
            row = open_trial(session, trial)
            row.state, row.reason, row.finished_at = state, failure.reason, now()
            row.failure_kind, row.traceback = failure.kind, failure.traceback
            return to_entry(row)

    def _move(self, trial: StoredTrial, state: State, reason: str, *, states: Sequence[State]) -> StoredTrial:
        with self._writing() as session:
            row = open_trial(session, trial, states=states)
            row.state, row.reason = state, reason
            row.failure_kind = row.traceback = row.finished_at = None
            return to_entry(row)


def _study_row(session: Session, study: StoredStudy) -> StudyRow:
    # The lock keeps numbers consecutive where a database lets several transactions write at once.
    return session.get_one(StudyRow, study.id, with_for_update=True)


def _plain(mapping: Mapping[str, Any], what: str) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(mapping), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise StoreError(f"{what} cannot be stored as JSON: {error}") from None
    return plain


def _default_files(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        database = Path(str(url.database)).resolve()
        return str(database.with_name(f"{database.stem}_files"))
    return str(Path("nas_files").resolve())
