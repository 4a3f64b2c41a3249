"""What follows from failures: who is tried again, what samplers learn, and when a study gives up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import optuna
import pytest

from nas import Architecture, Objective, Space, Study
from nas.errors import StudyError, WorkerError
from nas.report.failures import failure_lines
from nas.report.tables import status_table
from nas.store import StoredTrial
from nas.study import faults
from nas.study import loop as study_loop
from nas.study.faults import MOST_AT_FIRST, REPEATS, RETRIES

SPACE = Space.from_mapping(
    {
        "name": "small",
        "family": "decoder",
        "width": {"choice": [8, 16, 24, 32]},
        "depth": {"range": [1, 3]},
        "max_context": {"choice": [16, 32, 64]},
        "layers": {"mixer": {"choice": ["full", "none"]}, "heads": 2, "mlp_ratio": 2},
    }
)
Evaluate = Callable[[Architecture], Mapping[str, float]]


def quality(architecture: Architecture) -> dict[str, float]:
    return {"loss": 10.0 / architecture.width + 1.0 / architecture.max_context}


def width(architecture: Architecture) -> float:
    return float(architecture.width * architecture.depth)


def make(tmp_path: Path, evaluate: Evaluate, *, sampler: str = "random", time_limit: str | None = None) -> Study:
    return Study(
        name="mine",
        space=SPACE,
        evaluate=evaluate,
        objectives=[Objective("loss", "minimize", best=0.0, worst=3.0), Objective("size", "minimize", known=width)],
        sampler=sampler,
        store=f"sqlite:///{tmp_path}/mine.db",
        time_limit=time_limit,
    )


def trials(study: Study, state: str) -> list[StoredTrial]:
    return study.store.trials(study.store.study("mine"), states=[state])  # type: ignore[list-item]


def fails_at(depth: int, error: Exception | float, calls: list[str] | None = None) -> Evaluate:
    """An evaluator that cannot evaluate networks of one depth."""

    def evaluate(architecture: Architecture) -> Mapping[str, float]:
        if calls is not None:
            calls.append(architecture.fingerprint)
        if architecture.depth != depth:
            return quality(architecture)
        if isinstance(error, Exception):
            raise error
        return {"loss": error}

    return evaluate


@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
@pytest.mark.parametrize(
    ("error", "state", "words"),
    [
        (float("nan"), "infeasible", "diverged: the evaluator returned nan for 'loss'"),
        (float("inf"), "infeasible", "diverged: the evaluator returned inf"),
        (ValueError("depth 2 is cursed"), "failed", f"ValueError: depth 2 is cursed ({REPEATS} times)"),
    ],
)
def test_a_candidates_own_fault_is_told_as_a_broken_limit(
    tmp_path: Path, sampler: str, error: Exception | float, state: str, words: str
) -> None:
    with make(tmp_path, fails_at(2, error), sampler=sampler) as study:
        study.run(trials=8)
        ended = trials(study, state)
        storage = optuna.storages.RDBStorage(study.store.url)
        theirs = {trial.number: trial for trial in storage.get_all_trials(storage.get_all_studies()[0]._study_id)}
        storage.engine.dispose()
        complete = trials(study, "complete")
    assert ended and all(trial.candidate.architecture.depth == 2 for trial in ended)
    assert all(words in trial.reason for trial in ended)
    # Infeasible ones cost no place of those that were asked for, failed ones do.
    assert len(complete) + (len(ended) if state == "failed" else 0) == 8
    for trial in ended:
        assert trial.optuna_number is not None
        twin = theirs[trial.optuna_number]
        assert twin.state.name == {"nsga2": "COMPLETE", "tpe": "PRUNED"}[sampler]
        assert twin.system_attrs["constraints"][0] > 0


def test_an_exception_is_tried_once_more_before_it_is_the_candidates_fault(tmp_path: Path) -> None:
    calls: list[str] = []
    with make(tmp_path, fails_at(2, ValueError("cursed"), calls)) as study:
        study.run(trials=6)
        failed = {trial.candidate.architecture.fingerprint for trial in trials(study, "failed")}
    assert failed and all(calls.count(key) == (REPEATS if key in failed else 1) for key in set(calls))


def test_an_exception_that_does_not_come_again_costs_nothing(tmp_path: Path) -> None:
    calls: list[str] = []

    def once(architecture: Architecture) -> Mapping[str, float]:
        calls.append(architecture.fingerprint)
        if len(calls) == 2:
            raise ValueError("a hiccup")
        return quality(architecture)

    with make(tmp_path, once) as study:
        study.run(trials=4)
        assert len(trials(study, "complete")) == 4 and len(calls) == 5 and calls[1] == calls[2]


def test_a_fault_of_the_machine_is_tried_again_and_then_set_aside_without_a_lesson(tmp_path: Path) -> None:
    calls: list[str] = []
    with make(tmp_path, fails_at(2, ConnectionResetError("the share is gone"), calls), sampler="tpe") as study:
        study.run(trials=8)
        failed = trials(study, "failed")
        storage = optuna.storages.RDBStorage(study.store.url)
        theirs = {trial.number: trial for trial in storage.get_all_trials(storage.get_all_studies()[0]._study_id)}
        storage.engine.dispose()
    assert failed and len(failed) < 8
    for trial in failed:
        assert trial.failure is not None and trial.failure.kind == "machine"
        assert "the share is gone" in trial.reason and f"({RETRIES + 1} times)" in trial.reason
        assert calls.count(trial.candidate.architecture.fingerprint) == RETRIES + 1
        assert trial.optuna_number is not None and theirs[trial.optuna_number].state.name == "FAIL"


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        ({"lss": 1.0}, "no 'loss': did you mean 'lss'"),
        ({"loss": "low"}, "'low' for 'loss': it must be a number"),
        (None, "must return a mapping of loss, not None"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
def test_a_study_whose_first_candidates_all_fail_alike_ends_with_the_reason(
    tmp_path: Path, returned: object, words: str
) -> None:
    def broken(architecture: Architecture) -> Mapping[str, float]:
        if isinstance(returned, BaseException):
            raise returned
        return returned  # type: ignore[return-value]

    with make(tmp_path, broken) as study:
        with pytest.raises(WorkerError, match=rf"the first {MOST_AT_FIRST} candidates .* \(trial 4\)") as raised:
            study.run(trials=30)
        assert words in str(raised.value)
        assert len(trials(study, "failed")) == MOST_AT_FIRST
        assert "an error: the first 5 candidates" in study.store.study("mine").resolved["ended"]


def test_a_study_in_which_everything_diverges_ends_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "MOST_IN_A_ROW", 6)
    with make(tmp_path, lambda architecture: {"loss": float("nan")}) as study:
        with pytest.raises(StudyError, match=r"the last 6 candidates all diverged.*learning_rate"):
            study.run(trials=30)
        assert len(trials(study, "infeasible")) == 6


def test_one_success_makes_later_failures_the_candidates(tmp_path: Path) -> None:
    calls: list[str] = []

    def first_alone(architecture: Architecture) -> Mapping[str, float]:
        calls.append(architecture.fingerprint)
        if len(calls) > 1:
            raise ValueError("no more")
        return quality(architecture)

    with make(tmp_path, first_alone) as study:
        study.run(trials=MOST_AT_FIRST + 3)
        assert len(trials(study, "failed")) == MOST_AT_FIRST + 2


def test_a_known_objective_that_raises_or_is_no_number_names_itself_before_anything_is_written(tmp_path: Path) -> None:
    def wrong(architecture: Architecture) -> float:
        return float("nan") if architecture.depth == 2 else 1.0

    for known, words in ((wrong, "'size' is nan"), (lambda found: 1 / 0, "'size' raised ZeroDivisionError")):
        study = Study(
            name="mine",
            space=SPACE,
            evaluate=quality,
            objectives=[Objective("loss", "minimize"), Objective("size", "minimize", known=known)],
            store=f"sqlite:///{tmp_path}/mine.db",
        )
        with pytest.raises(StudyError, match=words):
            study.run(trials=3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "right"), [("perplexity", "minimize"), ("serve_bytes", "minimize")])
def test_a_direction_that_contradicts_a_name_of_ours_is_refused(tmp_path: Path, name: str, right: str) -> None:
    with pytest.raises(StudyError, match=f"'{name}' is one to {right}.*another name"):
        Study(
            name="mine",
            space=SPACE,
            evaluate=quality,
            objectives=[Objective(name, "maximize"), Objective("size", "minimize", known=width)],
            store=f"sqlite:///{tmp_path}/mine.db",
        )


def test_an_evaluation_that_returns_too_late_is_infeasible(tmp_path: Path) -> None:
    def slow(architecture: Architecture) -> Mapping[str, float]:
        if architecture.depth == 2:
            time.sleep(0.25)
        return quality(architecture)

    with make(tmp_path, slow, time_limit="0.2s") as study:
        study.run(trials=4)
        late = trials(study, "infeasible")
        (row,) = status_table(study.store).to_dict("records")
        lines = failure_lines(study.store, study.store.study("mine"))
    assert late and all(trial.reason.startswith("took longer than time_limit 0.2 s") for trial in late)
    assert f"{len(late)}× timed out: took longer than time_limit 0.2 s" in row["failures"]
    assert lines[0] == f"mine: {len(late)} took too long (infeasible)" and "returned too late" in lines[1]


def hangs(architecture: Architecture) -> Mapping[str, float]:
    """Of a width that never comes back; importable, for workers."""
    if architecture.width == 8:
        time.sleep(3600)
    return {"loss": 10.0 / architecture.width, "worker": float(os.getpid())}


@pytest.mark.slow
def test_a_worker_that_hangs_is_stopped_and_the_study_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_loop, "GRACE_SECONDS", 1.0)
    space = Space.from_mapping({**SPACE.source, "width": {"choice": [8, 16]}, "depth": 1, "max_context": 16})
    study = Study(
        name="mine",
        space=space,
        evaluate=hangs,
        objectives=[Objective("loss", "minimize"), Objective("size", "minimize", known=width)],
        sampler="random",
        store=f"sqlite:///{tmp_path}/mine.db",
        time_limit="5s",
    )
    with study:
        study.run(trials=4, workers=2)
        late = trials(study, "infeasible")
        assert {trial.candidate.architecture.width for trial in late} == {8} and len(late) == 2
        assert all("its worker was stopped" in trial.reason for trial in late)
        assert len(trials(study, "complete")) == 2
