"""Confirming a front with a cheap evaluator that depends on the seed: what is trained, and what the front says."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from nas import Architecture, Objective, Space, Store, Study
from nas.cli import main
from nas.errors import StudyError
from nas.report.html import write_report
from nas.report.series import complete_points
from nas.report.stopping import curves_of
from nas.report.tables import front_records, render_front, status_table
from nas.search.rungs import noise_at
from nas.store import StoredTrial
from nas.study.progress import Progress

SPACE = {
    "name": "small",
    "family": "decoder",
    "width": {"choice": [8, 16, 24, 32]},
    "depth": {"range": [1, 3]},
    "max_context": {"choice": [16, 32]},
    "layers": {
        "mixer": {"choice": ["full", "sliding_window"], "per": "layer"},
        "heads": 2,
        "window": 4,
        "mlp_ratio": 2,
    },
}
NOISE = 0.2


def noisy(architecture: Architecture, seed: int) -> dict[str, float]:
    chance = random.Random(f"{architecture.fingerprint}/{seed}")
    return {"loss": 10.0 / architecture.width + 1.0 / architecture.depth + NOISE * chance.gauss(0.0, 1.0)}


def memory(architecture: Architecture) -> float:
    return float(architecture.width * architecture.depth)


class Noted:
    """The evaluator, which notes what it is called with and can be interrupted at a call."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.calls: list[tuple[str, int]] = []
        self.stop_at = stop_at

    def __call__(self, architecture: Architecture, seed: int) -> dict[str, float]:
        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append((architecture.fingerprint, seed))
        return noisy(architecture, seed)


def make(
    tmp_path: Path,
    evaluate: Callable[..., Mapping[str, float]],
    *,
    confirm: Any = None,
    name: str = "mine",
) -> Study:
    return Study(
        name=name,
        space=Space.from_mapping(SPACE),
        evaluate=evaluate,
        objectives=[
            Objective("loss", "minimize", best=0.0, worst=5.0),
            Objective("memory", "minimize", known=memory),
        ],
        sampler="random",
        store=f"sqlite:///{tmp_path}/mine.db",
        confirm=confirm,
    )


def replicates(study: Study) -> list[StoredTrial]:
    return study.store.trials(study.store.study("mine"), role="confirm")


def searched(study: Study) -> list[StoredTrial]:
    return study.store.trials(study.store.study("mine"))


def test_each_member_of_the_front_is_trained_with_the_seeds_that_follow_and_nothing_twice(tmp_path: Path) -> None:
    evaluate = Noted()
    with make(tmp_path, evaluate, confirm=2) as study:
        front = study.run(trials=12)
        made = replicates(study)
        assert len(searched(study)) == 12
    assert len(evaluate.calls) == len(set(evaluate.calls)) == 12 + len(made)
    assert {seed for _, seed in evaluate.calls[:12]} == {0} and {trial.seed for trial in made} == {1, 2}
    # Every member has both; who fell off the front may have them too.
    for fingerprint in front["fingerprint"]:
        assert sorted(seed for name, seed in evaluate.calls if name == fingerprint) == [0, 1, 2]
    assert all(trial.state == "complete" and trial.optuna_number is None for trial in made)
    assert not {trial.number for trial in made} & set(front["trial"])


def test_the_front_is_that_of_the_means_and_says_how_far_seeds_differ(tmp_path: Path) -> None:
    with make(tmp_path, noisy, confirm=3) as study:
        front = study.run(trials=14)
        stored = study.store.study("mine")
        points = {}
        for trial in searched(study):
            others = [one for one in replicates(study) if one.candidate.key == trial.candidate.key]
            values = [one.values["loss"] for one in (trial, *others)]
            points[trial.number] = (statistics.fmean(values), trial.values["memory"], values)
        best = {
            number
            for number, (loss, size, _) in points.items()
            if not any(
                other != (loss, size) and other[0] <= loss and other[1] <= size
                for other in [point[:2] for point in points.values()]
            )
        }
        assert set(front["trial"]) == best
        for row in front.to_dict("records"):
            mean, _, values = points[row["trial"]]
            assert row["seeds"] == len(values) == 4
            assert row["loss"] == values[0] and row["loss_mean"] == pytest.approx(mean)
            assert row["loss_sd"] == pytest.approx(statistics.stdev(values))
        assert list(front["loss_mean"]) == sorted(front["loss_mean"])
        assert study.best("loss").number == front["trial"].iloc[0] == min(points, key=lambda number: points[number][0])
        records = json.loads(json.dumps(front_records(study.store, stored)))
        assert [record["values"]["loss"] for record in records] == front["loss"].tolist()
        assert [record["mean"]["loss"] for record in records] == front["loss_mean"].tolist()
        assert all(record["seeds"] == 4 and record["sd"]["loss"] > 0 for record in records)
        shown = complete_points(study.store, stored).set_index("trial")
        assert all(shown["loss"][number] == pytest.approx(points[number][0]) for number in points)
        assert shown["loss_sd"].notna().sum() == len({one.candidate.key for one in replicates(study)})


def test_hypervolume_is_that_of_the_search_whether_or_not_its_front_is_confirmed(tmp_path: Path) -> None:
    histories = []
    for folder, confirm in (("plain", None), ("confirmed", 3)):
        (tmp_path / folder).mkdir()
        with make(tmp_path / folder, noisy, confirm=confirm) as study:
            study.run(trials=6)
            study.run(trials=12)
            fronts = study.store.fronts(study.store.study("mine"))
            assert fronts["hypervolume"].is_monotonic_increasing
            histories.append(fronts.groupby("trials_done")["hypervolume"].last().to_dict())
            numbers = [trial.number for trial in searched(study)]
            assert len(numbers) == 12
    assert histories[0] == histories[1]


def test_a_confirmation_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = Noted()
    with make(tmp_path / "whole", whole, confirm=2) as study:
        expected = study.run(trials=10)
    stopped = Noted(stop_at=13)
    with make(tmp_path, stopped, confirm=2) as study, pytest.raises(KeyboardInterrupt):
        study.run(trials=10)
    assert len(stopped.calls) == 13
    rest = Noted()
    with make(tmp_path, rest, confirm=2) as study:
        front = study.run(trials=10)
    assert stopped.calls + rest.calls == whole.calls
    assert front.drop(columns="trial").equals(expected.drop(columns="trial"))


def test_more_trials_confirm_what_is_new_on_the_front_alone(tmp_path: Path) -> None:
    evaluate = Noted()
    with make(tmp_path, evaluate, confirm=2) as study:
        study.run(trials=6)
        first = len(evaluate.calls)
        study.run(trials=6)
        assert len(evaluate.calls) == first
        front = study.run(trials=16)
        assert set(front["seeds"]) == {3}
        # More seeds may be asked for later; the ones there are count.
        again = study.confirm(seeds=4)
        assert set(again["seeds"]) == {5}
    assert len(evaluate.calls) == len(set(evaluate.calls))


def test_confirm_may_change_when_a_study_goes_on(tmp_path: Path) -> None:
    with make(tmp_path, noisy) as study:
        assert "seeds" not in study.run(trials=5)
    with make(tmp_path, noisy, confirm=1) as study:
        assert set(study.run(trials=5)["seeds"]) == {2}
        assert study.store.study("mine").resolved["confirm"] == {"seeds": 1, "budget": "1x"}
    with make(tmp_path, noisy) as study:
        assert len(study.run(trials=6)) and "confirm" not in study.store.study("mine").resolved


def test_a_run_that_is_out_of_time_confirms_nothing_until_it_goes_on(tmp_path: Path) -> None:
    with make(tmp_path, noisy) as study:
        study.run(trials=4)
        assert "seeds" not in study.confirm(seconds=0.0)
        assert set(study.confirm(seeds=1)["seeds"]) == {2}


def test_replicates_are_no_candidates_and_tell_the_noise(tmp_path: Path) -> None:
    with make(tmp_path, noisy, confirm=3) as study:
        study.run(trials=12)
        stored = study.store.study("mine")
        curves = curves_of(study.store, stored)
        made = replicates(study)
        (noise,), is_prior = noise_at([curve for curve in curves if curve.scores], 0)
        table = status_table(study.store)
    assert {curve.number for curve in curves if curve.replicate} == {trial.number for trial in made}
    groups: dict[str, list[float]] = {}
    for curve in curves:
        groups.setdefault(curve.key, []).append(curve.scores[0][0])
    several = [rows for rows in groups.values() if len(rows) > 1]
    pooled = sum(statistics.variance(rows) * (len(rows) - 1) for rows in several) / sum(
        len(rows) - 1 for rows in several
    )
    assert not is_prior and noise == pytest.approx(math.sqrt(pooled))
    assert table["complete"].tolist() == [12] and table["planned"].tolist() == [12]


def test_a_replicate_that_fails_is_told_of_and_not_tried_again(tmp_path: Path) -> None:
    calls: list[int] = []

    def fragile(architecture: Architecture, *, seed: int) -> dict[str, float]:
        calls.append(seed)
        if seed == 2:
            raise RuntimeError("no luck")
        return noisy(architecture, seed)

    with make(tmp_path, fragile, confirm=2) as study:
        front = study.run(trials=5)
        assert set(front["seeds"]) == {2}
        told = render_front(study.store, study.store.study("mine"))
        before = len(calls)
        study.run(trials=5)
        assert len(calls) == before
    assert "(seed 2) failed: RuntimeError: no luck" in told


def test_what_cannot_be_replicated_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    def fixed(architecture: Architecture) -> dict[str, float]:
        return {"loss": 1.0 / architecture.width}

    with pytest.raises(StudyError, match=r"takes no seed.*parameter 'seed'"):
        make(tmp_path, fixed, confirm=3)
    with pytest.raises(StudyError, match="no budget that 8x could multiply"):
        make(tmp_path, noisy, confirm={"budget": "8x"})
    with pytest.raises(StudyError, match="confirm must be at least 1 further seed, not 0"):
        make(tmp_path, noisy, confirm=0)
    with make(tmp_path, fixed) as study:
        with pytest.raises(StudyError, match="no front to confirm yet"):
            study.confirm()
        study.run(trials=3)
        with pytest.raises(StudyError, match="takes no seed"):
            study.confirm()
        with pytest.raises(StudyError, match=r"at least 1x and finite, not '0\.5x'"):
            study.confirm(budget=0.5)
        assert replicates(study) == []


def test_whoever_watches_hears_of_replicates(tmp_path: Path) -> None:
    told: list[Progress] = []
    with make(tmp_path, noisy) as study:
        study.run(trials=4)
        study.confirm(seeds=2, progress=told.append)
        made = replicates(study)
    events = [progress.event for progress in told]
    assert sum(" started, trial " in event and " with seed " in event for event in events) == len(made)
    assert told[-1].complete == told[-1].target == len(made) and told[-1].front


def test_pages_and_commands_show_the_uncertainty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with make(tmp_path, noisy, confirm=2) as study:
        front = study.run(trials=8)
        made = replicates(study)
    with Store.open("mine.db") as store:
        page = write_report(store, "mine", tmp_path / "page").read_text()
    assert "Confirmation" in page and "loss_sd" in (tmp_path / "page" / "front.csv").read_text()
    assert "sd over seeds" in page
    assert main(["status", "--store", "mine.db"]) == 0
    assert f"mine: {len(front)} of {len(front)} on the front have replicates" in capsys.readouterr().out
    assert main(["front", "mine", "--store", "mine.db"]) == 0
    assert "over 3 seeds" in capsys.readouterr().out
    assert main(["show", "mine", str(made[0].number), "--store", "mine.db"]) == 0
    assert "replicate" in capsys.readouterr().out
