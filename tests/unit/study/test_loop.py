"""The study loop: what is trained, what is not, and what a restart finds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import optuna
import pytest

from nas import Architecture, Objective, Space, Study
from nas.errors import KilledForMemoryError, StoreError, StudyError, WorkerError
from nas.executors.inline import InlineExecutor
from nas.records import Job, Result
from nas.study.faults import RETRIES
from nas.study.progress import Progress

SPACE = {
    "name": "small",
    "family": "decoder",
    "width": {"choice": [8, 16, 32]},
    "depth": {"range": [1, 3]},
    "max_context": {"choice": [16, 32]},
    "layers": {
        "mixer": {"choice": ["full", "sliding_window"], "per": "layer"},
        "heads": 2,
        "window": {"choice": [4, 8], "when": {"mixer": "sliding_window"}},
        "mlp_ratio": 2,
    },
}


def quality(architecture: Architecture) -> dict[str, float]:
    full = sum(layer.mixer == "full" for layer in architecture.layers)
    return {"loss": 10.0 / architecture.width + 1.0 / (1 + full) + 1.0 / architecture.max_context}


def memory(architecture: Architecture) -> float:
    return float(architecture.width * architecture.depth)


def make(
    tmp_path: Path,
    evaluate: Callable[[Architecture], Mapping[str, float]] = quality,
    *,
    sampler: str = "nsga2",
    space: Mapping[str, Any] = SPACE,
    limit: float | None = None,
    seed: int = 0,
) -> Study:
    return Study(
        name="mine",
        space=Space.from_mapping(space),
        evaluate=evaluate,
        objectives=[
            Objective("loss", "minimize", best=0.0, worst=3.0),
            Objective("memory", "minimize", known=memory, limit=limit),
        ],
        sampler=sampler,
        store=f"sqlite:///{tmp_path}/mine.db",
        seed=seed,
    )


def keys(study: Study, *states: str) -> list[str]:
    trials = study.store.trials(study.store.study("mine"), states=list(states) or None)
    return [trial.candidate.key for trial in trials]


@pytest.mark.parametrize("sampler", ["nsga2", "tpe", "random"])
def test_the_asked_number_of_distinct_candidates_is_trained(tmp_path: Path, sampler: str) -> None:
    calls: list[str] = []

    def counted(architecture: Architecture) -> dict[str, float]:
        calls.append(architecture.fingerprint)
        return quality(architecture)

    with make(tmp_path, counted, sampler=sampler) as study:
        front = study.run(trials=12)
        assert len(calls) == 12 == len(set(calls)) == len(keys(study, "complete"))
    assert {"trial", "fingerprint", "loss", "memory"} <= set(front.columns)


def test_the_front_holds_no_dominated_candidate_and_no_other_is_missing(tmp_path: Path) -> None:
    with make(tmp_path) as study:
        front = study.run(trials=16)
        trials = study.store.trials(study.store.study("mine"), states=["complete"])
    points = [(trial.values["loss"], trial.values["memory"]) for trial in trials]
    best = {
        point
        for point in points
        if not any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points)
    }
    assert set(zip(front["loss"], front["memory"], strict=True)) == best


def test_a_second_run_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    calls: list[str] = []

    def counted(architecture: Architecture) -> dict[str, float]:
        calls.append(architecture.fingerprint)
        return quality(architecture)

    for target in (4, 4, 9):
        with make(tmp_path, counted) as study:
            study.run(trials=target)
            assert len(keys(study, "complete")) == target
    assert len(calls) == 9 == len(set(calls))


def test_a_candidate_over_the_limit_costs_no_evaluation_and_is_recorded(tmp_path: Path) -> None:
    seen: list[Architecture] = []

    def counted(architecture: Architecture) -> dict[str, float]:
        seen.append(architecture)
        return quality(architecture)

    with make(tmp_path, counted, limit=32.0, sampler="random") as study:
        study.run(trials=8)
        infeasible = study.store.trials(study.store.study("mine"), states=["infeasible"])
    assert all(memory(architecture) <= 32 for architecture in seen)
    assert infeasible
    assert all(trial.values["memory"] > 32 and "memory <= 32" in trial.reason for trial in infeasible)
    assert all(not trial.tokens and trial.started_at is None for trial in infeasible)


def test_a_space_that_is_used_up_ends_the_study(tmp_path: Path) -> None:
    space = {**SPACE, "width": 8, "depth": 1, "max_context": {"choice": [16, 32]}}
    events: list[str] = []
    with make(tmp_path, space=space) as study:
        study.run(trials=100, progress=lambda progress: events.append(progress.event))
        # full and two windows at each of two contexts.
        assert len(set(keys(study, "complete"))) == len(keys(study, "complete")) == 6
    assert any("space exhausted" in event for event in events)


def test_a_failing_evaluator_fails_its_trials_and_the_study_goes_on(tmp_path: Path) -> None:
    def sometimes(architecture: Architecture) -> dict[str, float]:
        if architecture.depth == 2:
            raise ValueError("depth 2 is cursed")
        return quality(architecture)

    with make(tmp_path, sometimes, sampler="random") as study:
        study.run(trials=10)
        failed = study.store.trials(study.store.study("mine"), states=["failed"])
        assert len(failed) + len(keys(study, "complete")) == 10
    assert failed
    assert all("depth 2 is cursed" in trial.reason for trial in failed)


def test_a_candidate_that_runs_out_of_memory_is_infeasible_and_the_study_goes_on(tmp_path: Path) -> None:
    def sometimes(architecture: Architecture) -> dict[str, float]:
        if architecture.depth == 2:
            raise MemoryError("no room for depth 2")
        return quality(architecture)

    with make(tmp_path, sometimes, sampler="random") as study:
        study.run(trials=10)
        stored = study.store.study("mine")
        infeasible = study.store.trials(stored, states=["infeasible"])
        # It was begun, and takes no place of those that were asked for.
        assert len(keys(study, "complete")) == 10 and not keys(study, "failed")
        reasons = [study.store.decisions(stored, trial.number)["reason"].tolist() for trial in infeasible]
    assert infeasible and all(trial.candidate.architecture.depth == 2 for trial in infeasible)
    for trial, told in zip(infeasible, reasons, strict=True):
        assert trial.reason == "out of memory: no room for depth 2" and told == [trial.reason]
        assert trial.failure is not None and trial.failure.kind == "out_of_memory" and trial.failure.traceback


@pytest.mark.parametrize(("sampler", "state"), [("nsga2", "COMPLETE"), ("tpe", "PRUNED")])
def test_a_sampler_learns_of_it_as_of_a_broken_limit(tmp_path: Path, sampler: str, state: str) -> None:
    def none(architecture: Architecture) -> dict[str, float]:
        if architecture.width == 32:
            raise MemoryError("no room")
        return quality(architecture)

    with make(tmp_path, none, sampler=sampler) as study:
        study.run(trials=8)
        out = {trial.optuna_number for trial in study.store.trials(study.store.study("mine"), states=["infeasible"])}
        storage = optuna.storages.RDBStorage(study.store.url)
        theirs = {
            trial.number: trial
            for trial in storage.get_all_trials(storage.get_all_studies()[0]._study_id)
            if trial.number in out
        }
        storage.engine.dispose()
    assert theirs and {trial.state.name for trial in theirs.values()} == {state}
    assert all(trial.system_attrs["constraints"][0] > 0 for trial in theirs.values())


def test_a_study_in_which_everything_runs_out_of_memory_ends_with_what_to_do(tmp_path: Path) -> None:
    def never(architecture: Architecture) -> dict[str, float]:
        raise MemoryError("no room")

    with make(tmp_path, never, sampler="random") as study:
        with pytest.raises(StudyError, match=r"the last 20 candidates all ran out of memory.*memory_limit"):
            study.run(trials=10)
        assert len(keys(study, "infeasible")) == 20


@pytest.mark.parametrize(
    ("error", "state"), [(KilledForMemoryError("memory ran out"), "infeasible"), (WorkerError("died"), "failed")]
)
def test_a_worker_that_is_killed_for_memory_every_time_makes_its_candidate_infeasible(
    error: Exception, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[str] = []

    def killed(self: InlineExecutor, job: Job) -> Future[Result]:
        future: Future[Result] = Future()
        jobs.append(job.candidate.key)
        if jobs[0] == job.candidate.key:
            future.set_exception(error)
        else:
            future.set_result(self._evaluator.evaluate(job))
        return future

    monkeypatch.setattr(InlineExecutor, "submit", killed)
    with make(tmp_path) as study:
        study.run(trials=3)
        assert keys(study, state) == [jobs[0]] and jobs.count(jobs[0]) == RETRIES + 1
        (ended,) = study.store.trials(study.store.study("mine"), states=[state])  # type: ignore[list-item]
    assert str(error) in ended.reason and "3 times" in ended.reason


def test_ctrl_c_keeps_what_is_finished_and_takes_up_what_was_running(tmp_path: Path) -> None:
    calls: list[str] = []

    def stopped(architecture: Architecture) -> dict[str, float]:
        calls.append(architecture.fingerprint)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return quality(architecture)

    with make(tmp_path, stopped) as study, pytest.raises(KeyboardInterrupt):
        study.run(trials=10)
    with make(tmp_path, stopped) as study:
        assert len(keys(study, "complete")) == 5 and len(keys(study, "running")) == 1
        study.run(trials=10)
        assert len(keys(study, "complete")) == 10 and not keys(study, "running")
    # The interrupted candidate alone was begun twice.
    assert len(calls) == 11 and len(set(calls)) == 10 and calls[5] == calls[6]


def test_a_study_that_was_interrupted_draws_as_if_it_had_run_through(tmp_path: Path) -> None:
    with make(tmp_path / "whole") as study:
        (tmp_path / "whole").mkdir()
        study.run(trials=12)
        whole = keys(study)
    (tmp_path / "parts").mkdir()
    for target in (4, 9, 12):
        with make(tmp_path / "parts") as study:
            study.run(trials=target)
            parts = keys(study)
    assert parts == whole


def test_the_hypervolume_never_falls_and_is_recorded_with_the_front(tmp_path: Path) -> None:
    with make(tmp_path) as study:
        study.run(trials=8)
        history = study.store.fronts(study.store.study("mine"))
    assert len(history) == 8
    assert history["hypervolume"].is_monotonic_increasing
    assert 0 < history["hypervolume"].iloc[-1] <= 1


def test_progress_tells_how_far_the_run_is(tmp_path: Path) -> None:
    heard: list[Progress] = []
    with make(tmp_path) as study:
        study.run(trials=5, progress=heard.append)
    assert heard[-1].complete == 5 and heard[-1].target == 5
    assert heard[-1].front and heard[-1].hypervolume is not None
    assert any("complete" in progress.event for progress in heard)


def test_another_seed_is_another_study(tmp_path: Path) -> None:
    with make(tmp_path) as study:
        study.run(trials=3)
    with make(tmp_path, seed=1) as study, pytest.raises(StudyError, match=r"seed.*--name"):
        study.run(trials=3)


def test_best_names_the_nearest_limit_that_can_be_met(tmp_path: Path) -> None:
    with make(tmp_path) as study:
        study.run(trials=10)
        assert study.best("loss", {"memory": 1e9}).values["loss"] == study.front()["loss"].min()
        smallest = min(study.front()["memory"])
        with pytest.raises(StudyError, match=f"memory={smallest:g}"):
            study.best("loss", {"memory": smallest - 1})
        with pytest.raises(StudyError, match="did you mean 'memory'"):
            study.best("loss", {"memry": 1})


def test_the_nearest_limit_is_exact_enough_to_be_typed_in(tmp_path: Path) -> None:
    space = {**SPACE, "width": 32, "depth": 1}
    study = Study(
        name="mine",
        space=Space.from_mapping(space),
        evaluate=quality,
        objectives=[
            Objective("loss", "minimize"),
            Objective("memory", "minimize", known=lambda found: 1_234_567.0 + found.max_context),
        ],
        store=f"sqlite:///{tmp_path}/mine.db",
    )
    with study:
        study.run(trials=3)
        with pytest.raises(StudyError, match="memory=1234583"):
            study.best("loss", {"memory": 1_000_000})
        assert study.best("loss", {"memory": 1_234_583})


def test_a_front_that_a_kill_left_behind_is_mended_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("nas.study.loop.Loop.record_front", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with make(tmp_path) as study, pytest.raises(KeyboardInterrupt):
            study.run(trials=1)
    with make(tmp_path) as study:
        assert len(study.front()) == 0 and len(keys(study, "complete")) == 1
        assert len(study.run(trials=1)) == 1


def test_two_runs_of_one_study_at_once_are_refused(tmp_path: Path) -> None:
    with make(tmp_path) as study:
        study.run(trials=1)
        before = study.store.study("mine")
        environments = len(study.store.environments(before))
        with study.store.driving(before), make(tmp_path) as other:
            with pytest.raises(StoreError, match="is being run by process"):
                other.run(trials=3)
            # Also not the number of trials, nor the reason why the last run ended.
            assert study.store.study("mine").resolved == before.resolved
            assert len(study.store.environments(before)) == environments
        study.run(trials=2)


def test_an_evaluator_that_workers_cannot_import_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with make(tmp_path, lambda found: quality(found)) as study, pytest.raises(StudyError, match="importable function"):
        study.run(trials=2, workers=2)
    assert not list(tmp_path.iterdir())


def test_workers_and_dask_exclude_each_other(tmp_path: Path) -> None:
    with make(tmp_path) as study, pytest.raises(StudyError, match="not both"):
        study.run(trials=1, workers=1, dask="tcp://127.0.0.1:1")


def test_a_partial_is_an_evaluator_too(tmp_path: Path) -> None:
    with make(tmp_path, functools.partial(quality)) as study:
        assert len(study.run(trials=2)) >= 1


def test_a_measured_objective_without_a_scale_records_fronts_without_hypervolume(tmp_path: Path) -> None:
    study = Study(
        name="mine",
        space=Space.from_mapping(SPACE),
        evaluate=quality,
        objectives=[Objective("loss", "minimize"), Objective("memory", "minimize", known=memory, limit=64.0)],
        store=f"sqlite:///{tmp_path}/mine.db",
    )
    with study:
        study.run(trials=4)
        history = study.store.fronts(study.store.study("mine"))
    assert len(history) == 4 and history["hypervolume"].isna().all()
