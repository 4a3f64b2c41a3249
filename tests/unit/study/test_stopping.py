"""Early stopping in the study loop: who is paused, who goes on after all, and what a restart finds."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from nas import Architecture, Objective, Space, Study
from nas.config import ConfirmWords, EarlyStoppingWords
from nas.files import Files
from nas.limits import Stop
from nas.records import CheckpointReference, Failure, Job, Measurement, Result, Schedule
from nas.report.stopping import stopping_lines
from nas.search.frontier.history import read_history
from nas.search.frontier.options import SpaceDescriber
from nas.specs.tasks import TaskShape
from nas.store import StoredTrial
from nas.study import loop
from nas.study import study as study_module
from nas.study.ending import Ending

SPACE = {
    "name": "small",
    "family": "decoder",
    "width": {"choice": [8, 16, 24, 32, 40, 48]},
    "depth": {"range": [1, 2]},
    "max_context": {"choice": [16, 32]},
    "layers": {"mixer": {"choice": ["full", "gru"], "per": "layer"}, "heads": 2, "mlp_ratio": 2},
    "training": {"learning_rate": {"choice": [0.001, 0.002, 0.004]}},
}
RUNGS = (1, 2, 4)
Loss = Callable[[Architecture, float, int], float]


def memory(architecture: Architecture) -> float:
    return float(architecture.width)


def calm(architecture: Architecture, rate: float, step: int) -> float:
    """Width and full attention help, and 0.004 is a bad learning rate at every rung."""
    full = sum(layer.mixer == "full" for layer in architecture.layers) / architecture.depth
    return 3.0 / step + 10.0 / architecture.width - 0.2 * full + (2.0 if rate > 0.003 else 0.0) + rate


class Rungs:
    """An evaluator with rungs: a loss by formula, a checkpoint that says how far it is, and a kill on demand."""

    def __init__(self, loss: Loss = calm) -> None:
        self.loss = loss
        self.jobs: list[tuple[str, int, int]] = []
        self.dies_at: int | None = None
        self.diverges: str | None = None

    def evaluate(self, job: Job) -> Result:
        """Does the job from its checkpoint alone."""
        if self.dies_at == len(self.jobs):
            self.dies_at = None
            raise KeyboardInterrupt
        key = job.candidate.key
        self.jobs.append((key, job.from_step, job.to_step))
        if self.diverges == key and job.to_step == RUNGS[-1]:
            return Result(failure=Failure(kind="diverged", reason="diverged: the loss is nan"))
        files = Files(job.files)
        if job.checkpoint is not None:
            assert files.exists(job.checkpoint.path) and job.checkpoint.step == job.from_step
        path = f"{job.folder}/{job.to_step}"
        digest, size = files.write_bytes(path, b"weights")
        value = self.loss(job.candidate.architecture, dict(job.candidate.training)["learning_rate"], job.to_step)
        score = Measurement(
            metric="loss", value=value, unit="", step=job.to_step, context=None, split="validation", seed=job.seed
        )
        return Result(
            measurements=(score,),
            checkpoint=CheckpointReference(path=path, sha256=digest, bytes=size, step=job.to_step),
            tokens=job.to_step - job.from_step,
        )


def unscored(architecture: Architecture) -> Mapping[str, float]:
    raise AssertionError("the evaluator of the plan takes its place")


def make(folder: Path, evaluator: Rungs, words: EarlyStoppingWords | None, *, sampler: str = "random") -> Study:
    folder.mkdir(exist_ok=True)
    study = Study(
        name="mine",
        space=Space.from_mapping(SPACE),
        evaluate=unscored,
        objectives=[
            Objective("loss", "minimize", best=0.0, worst=8.0),
            Objective("memory", "minimize", known=memory),
        ],
        sampler=sampler,
        store=f"sqlite:///{folder}/mine.db",
    )
    assert study._plan is not None
    study._plan = replace(
        study._plan,
        evaluator=evaluator,
        early_stopping=words,
        shape=TaskShape(head="causal_lm", vocabulary=16),
        schedule=lambda architecture: Schedule(tokens_per_step=1, rung_steps=RUNGS),
        resolved={**study._plan.resolved, **({} if words is None else {"early_stopping": words.model_dump()})},
    )
    return study


ON = EarlyStoppingWords(audit=0.0)


def trials(study: Study) -> list[StoredTrial]:
    return study.store.trials(study.store.study("mine"))


def decisions(study: Study) -> list[tuple[int, str, str]]:
    frame = study.store.decisions(study.store.study("mine"))
    return list(zip(frame["trial"], frame["action"], frame["reason"], strict=True))


def mirrored(study: Study) -> dict[int, str]:
    storage = optuna.storages.RDBStorage(study.store.url)
    found = storage.get_all_trials(storage.get_all_studies()[0]._study_id)
    storage.engine.dispose()
    return {trial.number: trial.state.name for trial in found}


def test_candidates_that_cannot_reach_the_front_are_paused_with_reasons_and_the_front_is_kept(tmp_path: Path) -> None:
    with make(tmp_path / "off", Rungs(), None) as study:
        whole = study.run(trials=40)
        assert Counter(trial.state for trial in trials(study)) == {"complete": 40}
        assert {action for _, action, _ in decisions(study)} == {"continue"}
    with make(tmp_path / "on", Rungs(), ON) as study:
        front = study.run(trials=40)
        found = trials(study)
        paused = [trial for trial in found if trial.state == "paused"]
        assert len(paused) >= 10 and len(found) == 40
        assert {trial.state for trial in found} == {"paused", "complete"}
        reasons = {(number, reason) for number, action, reason in decisions(study) if action == "pause"}
        assert {(trial.number, trial.reason) for trial in paused} <= reasons
        assert all("leads by" in trial.reason and "margin" in trial.reason for trial in paused)
        # The checkpoint is kept, and what the rule compares is what the store holds.
        assert all(Files(study.store.files).exists(trial.checkpoints[-1].path) for trial in paused)
        assert all(trial.tokens < RUNGS[-1] for trial in paused)
        states = mirrored(study)
        assert {states[int(str(trial.optuna_number))] for trial in paused} == {"PRUNED"}
        assert any("40 candidates are paused" in line for line in stopping_lines(study.store))
    assert set(front["fingerprint"]) == set(whole["fingerprint"])


def rungs_told(study: Study) -> dict[int, list[list[float]]]:
    """Our trial → what Optuna's tables hold of its curve."""
    storage = optuna.storages.RDBStorage(study.store.url)
    found = storage.get_all_trials(storage.get_all_studies()[0]._study_id)
    storage.engine.dispose()
    return {trial.user_attrs["trial"]: trial.user_attrs["rungs"] for trial in found if "rungs" in trial.user_attrs}


def test_samplers_hear_the_curve_of_each_trial(tmp_path: Path) -> None:
    evaluator = Rungs()
    with make(tmp_path, evaluator, ON) as study:
        study.run(trials=12)
        told = rungs_told(study)
        for trial in trials(study):
            rate, network = dict(trial.candidate.training)["learning_rate"], trial.candidate.architecture
            reached = [step for step in RUNGS if step <= trial.step]
            assert told[trial.number] == [[calm(network, rate, step), memory(network)] for step in reached]


@pytest.mark.parametrize("sampler", ["nsga2", "frontier"])
def test_a_run_that_is_killed_decides_as_one_that_ran_through(tmp_path: Path, sampler: str) -> None:
    with make(tmp_path / "whole", Rungs(), ON, sampler=sampler) as study:
        study.run(trials=18)
        curves = rungs_told(study)
        whole = decisions(study), [(trial.candidate.key, trial.state, trial.tokens) for trial in trials(study)]
    for at in (9, 31):
        evaluator = Rungs()
        evaluator.dies_at = at
        folder = tmp_path / f"killed{at}"
        with make(folder, evaluator, ON, sampler=sampler) as study, pytest.raises(KeyboardInterrupt):
            study.run(trials=18)
        with make(folder, evaluator, ON, sampler=sampler) as study:
            study.run(trials=18)
            assert rungs_told(study) == curves
            killed = decisions(study), [(trial.candidate.key, trial.state, trial.tokens) for trial in trials(study)]
        assert killed == whole and "paused" in {state for _, state, _ in whole[1]}
        assert len(evaluator.jobs) == len(set(evaluator.jobs))


def crossing(architecture: Architecture, rate: float, step: int) -> float:
    """As `calm`, but the high learning rate overtakes all others at the last rung."""
    return calm(architecture, rate, step) - (6.0 if step == RUNGS[-1] and rate > 0.003 else 0.0)


def test_paused_candidates_go_on_from_their_checkpoints_when_the_audit_finds_the_rule_wrong(tmp_path: Path) -> None:
    evaluator, words = Rungs(), EarlyStoppingWords(audit=0.5)
    with make(tmp_path, evaluator, words) as study:
        study.run(trials=24)
        paused = {trial.candidate.key: trial for trial in trials(study) if trial.state == "paused"}
        before, done = mirrored(study), len(evaluator.jobs)
    assert paused
    evaluator.loss = crossing
    with make(tmp_path, evaluator, words) as study:
        study.run(trials=40)
        resumed = {number for number, action, _ in decisions(study) if action == "resume"}
        again = {trial.candidate.key: trial for trial in trials(study)}
        after = mirrored(study)
        assert any("the rule stops nobody at all" in line for line in stopping_lines(study.store))
    assert {trial.number for trial in paused.values()} <= resumed
    later = evaluator.jobs[done:]
    for key, trial in paused.items():
        assert again[key].state == "complete"
        # From where it was paused, to the end; Optuna keeps what it was told, and hears of the end as another trial.
        assert next(job[1] for job in later if job[0] == key) == trial.step
        old, new = trial.optuna_number, again[key].optuna_number
        assert old is not None and new is not None and old != new
        assert before[old] == after[old] == "PRUNED" and after[new] == "COMPLETE"
    assert len(evaluator.jobs) == len(set(evaluator.jobs))


def test_an_audited_candidate_runs_to_the_end_and_is_counted(tmp_path: Path) -> None:
    with make(tmp_path, Rungs(), EarlyStoppingWords(audit=1.0)) as study:
        study.run(trials=30)
        assert {trial.state for trial in trials(study)} == {"complete"}
        audited = {number for number, action, _ in decisions(study) if action == "audit"}
        assert audited
        lines = stopping_lines(study.store)
        assert any(f"false stops 0% (0 of {len(audited)} audited)" in line for line in lines)
        assert any("learning rate" in line for line in lines)


def test_who_stays_paused_is_told_when_a_limit_ends_the_study_too(tmp_path: Path) -> None:
    with make(tmp_path, Rungs(), ON) as study:
        assert study._plan is not None
        study._plan = replace(study._plan, stop=Stop(tokens=110), step_flops=lambda architecture: 1.0)
        study.run(trials=100)
        assert "stop.tokens is reached" in study.store.study("mine").resolved["ended"]
        states = mirrored(study)
        paused = [trial for trial in trials(study) if trial.state == "paused"]
        assert paused and {states[int(str(trial.optuna_number))] for trial in paused} == {"PRUNED"}


def test_a_candidate_that_went_on_after_all_is_one_candidate_to_the_sampler(tmp_path: Path) -> None:
    evaluator, words = Rungs(), EarlyStoppingWords(audit=0.5)
    with make(tmp_path, evaluator, words) as study:
        study.run(trials=24)
        assert any(trial.state == "paused" for trial in trials(study))
    evaluator.loss = crossing
    with make(tmp_path, evaluator, words) as study:
        study.run(trials=40)
        storage = optuna.storages.RDBStorage(study.store.url)
        theirs = storage.get_all_trials(storage.get_all_studies()[0]._study_id)
        storage.engine.dispose()
    describe = SpaceDescriber(Space.from_mapping(SPACE), {1: memory})
    found = read_history(
        theirs, describe, {}, without=-1, counts=lambda trial: "trial" in trial.user_attrs, learns_of_failed=False
    )
    assert found.count == 40 and len({option.key for option in found.options}) == 40


class Hiccups(Rungs):
    """Every job fails once for a fault of the machine."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[str, int]] = set()

    def evaluate(self, job: Job) -> Result:
        """Fails at first."""
        place = (job.candidate.key, job.to_step)
        if place not in self.seen:
            self.seen.add(place)
            return Result(failure=Failure(kind="machine", reason="OSError: reset", error="OSError"))
        return super().evaluate(job)


def test_what_befell_one_job_does_not_count_against_the_next(tmp_path: Path) -> None:
    with make(tmp_path, Hiccups(), None) as study:
        study.run(trials=2)
        assert {trial.state for trial in trials(study)} == {"complete"}


def test_ctrl_c_in_a_confirmation_is_said_to_be_that(tmp_path: Path) -> None:
    evaluator = Rungs()
    evaluator.dies_at = 10
    with make(tmp_path, evaluator, None) as study:
        assert study._plan is not None
        study._plan = replace(study._plan, confirm=ConfirmWords(seeds=2))
        with pytest.raises(KeyboardInterrupt):
            study.run(trials=3)
        ended = study.store.study("mine").resolved["ended"]
        assert ended == "all 3 candidates that were asked for have ended; the confirmation of the front was stopped"


class Limits(Rungs):
    """Notes the time limit of each job."""

    def __init__(self) -> None:
        super().__init__()
        self.limits: list[tuple[int, float | None]] = []

    def evaluate(self, job: Job) -> Result:
        """Does it; scoring the test part has no limit."""
        if job.kind != "train":
            return Result()
        self.limits.append((job.seed, job.time_limit))
        return super().evaluate(job)


def test_more_budget_has_more_time(tmp_path: Path) -> None:
    evaluator = Limits()
    with make(tmp_path, evaluator, None) as study:
        assert study._plan is not None
        study._plan = replace(study._plan, time_limit=10.0)
        study.run(trials=3)
        assert {limit for _, limit in evaluator.limits} == {10.0}
        evaluator.limits = []
        study.confirm(seeds=1, budget=8.0, dominated=0)
        assert {limit for seed, limit in evaluator.limits if seed == 1} == {80.0}


def test_a_trial_that_waits_at_a_rung_goes_on_when_the_reason_to_end_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hypervolume may grow after all while others still train: then who waits goes first."""
    wait, start, chance = loop.wait, loop.Loop._start_one, random.Random(0)
    slots, went_on = Slots(Rungs()), []

    def none_waits(self: loop.Loop) -> bool:
        assert not self._waiting
        return start(self)

    def one_of(active: Mapping[Future[Result], object], **_: object) -> object:
        future, job = slots.left.pop(chance.randrange(len(slots.left)))
        future.set_result(slots.evaluator.evaluate(job))
        return wait(active, timeout=0, return_when="FIRST_COMPLETED")

    monkeypatch.setattr(loop.Loop, "_start_one", none_waits)
    monkeypatch.setattr(loop, "wait", one_of)
    monkeypatch.setattr(study_module, "_executor", lambda plan, workers, dask: slots)
    monkeypatch.setattr(Ending, "reason", lambda self, trials: "it does not grow" if chance.random() < 0.3 else "")
    with make(tmp_path, slots.evaluator, None) as study:
        study.run(
            trials=12,
            progress=lambda progress: went_on.append(progress.event) if " goes on: " in progress.event else None,
        )
        assert went_on and len(trials(study)) > 1


class Slots:
    """An executor of three slots whose jobs end when they are told to."""

    slots = 3

    def __init__(self, evaluator: Rungs) -> None:
        self.evaluator = evaluator
        self.left: list[tuple[Future[Result], Job]] = []

    def submit(self, job: Job) -> Future[Result]:
        """Keeps it."""
        future: Future[Result] = Future()
        self.left.append((future, job))
        return future

    def stop_overdue(self, future: Future[Result], seconds: float) -> None:
        """Nothing here hangs."""

    def close(self) -> None:
        """Nothing to close."""
