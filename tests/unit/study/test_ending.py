"""When a study ends before its trials are used up, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests_support import write_study

from nas import Architecture, Objective, Space, Study
from nas.config import parse_confirm
from nas.errors import StudyError
from nas.limits import Stop
from nas.report.failures import ended_lines
from nas.study.ending import Ending

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


def flat(architecture: Architecture) -> Mapping[str, float]:
    """As good as any other."""
    return {"loss": 1.0}


def make(tmp_path: Path, stop: Mapping[str, Any] | None, *, has_scale: bool = True, space: Space = SPACE) -> Study:
    scale = {"best": 0.0, "worst": 3.0} if has_scale else {}
    return Study(
        name="mine",
        space=space,
        evaluate=flat,
        objectives=[
            Objective("loss", "minimize", **scale),  # type: ignore[arg-type]
            Objective("size", "minimize", known=lambda found: float(found.width)),
        ],
        sampler="random",
        store=f"sqlite:///{tmp_path}/mine.db",
        stop=stop,
    )


def complete(study: Study) -> int:
    return len(study.store.trials(study.store.study("mine"), states=["complete"]))


def test_a_hypervolume_that_has_stopped_growing_ends_the_study_and_says_so(tmp_path: Path) -> None:
    events: list[str] = []
    with make(tmp_path, {"hypervolume": {"patience": 4, "growth": 0.001}}) as study:
        study.run(progress=lambda progress: events.append(progress.event))
        stored, done = study.store.study("mine"), complete(study)
        volumes = study.store.fronts(stored)["hypervolume"].tolist()
        assert len(volumes) == done < SPACE.size
        assert volumes[-1] < volumes[-5] * 1.001
        # It ended as soon as it could.
        assert all(volumes[end] >= volumes[end - 4] * 1.001 for end in range(4, done - 1))
        assert "stop.hypervolume" in stored.resolved["ended"] and "4 more candidates" in stored.resolved["ended"]
        assert any("the run ends: stop.hypervolume" in event for event in events)
        assert "stop.hypervolume" in ended_lines(stored)[0]
        # Running it again adds nothing: the reason still holds.
        study.run()
        assert complete(study) == done
    with make(tmp_path, {"hypervolume": {"patience": done + 3, "growth": 0.001}}) as study:
        study.run()
        assert complete(study) > done


def test_all_that_was_asked_for_is_a_reason_too_and_a_used_up_space(tmp_path: Path) -> None:
    (tmp_path / "narrow").mkdir()
    with make(tmp_path, None) as study:
        study.run(trials=2)
        assert study.store.study("mine").resolved["ended"] == "all 2 candidates that were asked for have ended"
    narrow = Space.from_mapping({**SPACE.source, "width": 8, "depth": 1, "max_context": 16})
    with make(tmp_path / "narrow", None, space=narrow) as study:
        study.run(trials=100)
        assert study.store.study("mine").resolved["ended"].startswith("space exhausted")


def test_time_counts_over_all_runs(tmp_path: Path) -> None:
    with make(tmp_path, {"time": "1h"}) as study:
        study.run(trials=1)
        stored = study.store.study("mine")
        spent = float(stored.resolved["run_seconds"])
        assert spent > 0
        study.store.update_resolved(stored, {**stored.resolved, "run_seconds": 3600.0})
        study.run(trials=5)
        assert complete(study) == 1 and "stop.time is over" in study.store.study("mine").resolved["ended"]


def test_a_study_needs_something_that_ends_it(tmp_path: Path) -> None:
    with make(tmp_path, None) as study, pytest.raises(StudyError, match="how many candidates"):
        study.run()
    assert not list(tmp_path.iterdir())


def test_limits_that_can_never_be_reached_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with make(tmp_path, None) as study, pytest.raises(StudyError, match=r"evaluator of your own tells no tokens"):
        study.run(trials=3, tokens=1e6)
    with (
        make(tmp_path, {"hypervolume": {"patience": 3}}, has_scale=False) as study,
        pytest.raises(StudyError, match=r"stop.hypervolume needs a hypervolume.*worst="),
    ):
        study.run()
    assert not list(tmp_path.iterdir())


def test_growth_is_above_nothing_and_confirming_needs_another_end_than_time(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="growth"):
        make(tmp_path, {"hypervolume": {"patience": 3, "growth": 0}})
    with (
        Study(
            name="mine",
            space=SPACE,
            evaluate=lambda architecture, seed: {"loss": 1.0 + seed},
            objectives=[Objective("loss", "minimize"), Objective("size", "minimize", known=lambda found: found.width)],
            store=f"sqlite:///{tmp_path}/mine.db",
            stop={"time": "1m"},
            confirm=2,
        ) as study,
        pytest.raises(StudyError, match=r"nothing but stop\.time ends it: give trials"),
    ):
        study.run()
    for wrong in (2.0, "3"):
        with pytest.raises(StudyError, match="confirm must be a whole number"):
            parse_confirm(wrong)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_no_growth_from_nothing_ends_and_the_first_growth_goes_on() -> None:
    ending = Ending(stop=Stop(patience=2), grown=[(1, 0.0), (2, 0.0), (3, 0.5)])
    assert ending._stagnation(()) == ""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_study(tmp_path)
    return tmp_path


def load(folder: Path, **settings: str) -> Study:
    return Study.load(folder / "study.yaml", store=f"sqlite:///{folder}/nas.db", settings=settings)


def test_tokens_end_a_study_at_a_rung_and_a_later_run_takes_it_up(folder: Path) -> None:
    # A candidate takes 2,560 tokens to its first rung, and as many to its last.
    with load(folder, stop="{tokens: 7_000}") as study:
        study.run(trials=5)
        stored = study.store.study("tiny")
        first = study.store.trials(stored)
        assert sum(trial.tokens for trial in first) == 7_680
        assert [trial.state for trial in first] == ["complete", "running"]
        assert "stop.tokens is reached (7.68k of 7k)" in stored.resolved["ended"]
    with load(folder) as study:
        study.run(trials=2)
        trials = study.store.trials(study.store.study("tiny"))
    assert [trial.state for trial in trials] == ["complete", "complete"]
    assert trials[0] == first[0] and trials[1].candidate == first[1].candidate


def test_flops_end_a_study_too(folder: Path) -> None:
    with load(folder) as study:
        study.run(flops=4e8, trials=50)
        stored = study.store.study("tiny")
        trials = study.store.trials(stored)
        assert len(trials) < 50 and sum(trial.flops for trial in trials) >= 4e8
        assert sum(trial.flops for trial in trials[:-1]) < 4e8
        assert "stop.flops is reached" in stored.resolved["ended"]


@pytest.mark.parametrize(
    ("settings", "limits", "words"),
    [
        ({"stop": "{tokens: 2_000}"}, {}, r"stop.tokens 2,000 is below the first rung.*at least 2,560"),
        ({}, {"tokens": 100.0}, r"tokens 100 is below the first rung.*at least 2,560"),
        ({}, {"flops": 1e3}, r"flops 1,000 is below the first rung"),
        ({"stop": "{flops: 1e3}"}, {}, r"flops 1,000 is below the first rung"),
    ],
)
def test_less_than_one_rung_is_refused_before_anything_is_written(
    folder: Path, settings: dict[str, str], limits: dict[str, float], words: str
) -> None:
    with pytest.raises(StudyError, match=words), load(folder, **settings) as study:
        study.run(**limits)  # type: ignore[arg-type]
    assert not list(folder.glob("nas.db*"))
