"""The sampler in plain Optuna studies, over a space and without one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from nas.pareto import Axis, hypervolume
from nas.search.frontier import FrontierSampler
from nas.search.frontier.choose import Effort, next_best
from nas.search.frontier.features import ArchitectureFeatures
from nas.search.frontier.history import History, read_history
from nas.search.frontier.options import Option
from nas.search.frontier.pool import Pool
from nas.space import Space
from nas.space.architecture import Architecture

QUICK = Effort(draws=40, bred=40, rounds=2, parents=5, children=20)
SPACE = Space.from_mapping(
    {
        "name": "small",
        "family": "decoder",
        "width": {"choice": [16, 32, 64, 128]},
        "depth": {"range": [1, 6]},
        "max_context": {"choice": [32, 64]},
        "layers": {
            "mixer": {"choice": ["full", "gated_delta"], "per": "layer"},
            "heads": {"choice": [1, 2], "per": "layer"},
        },
        "training": {"learning_rate": {"log_range": [1e-3, 1e-2]}},
        "constraints": ["count(mixer=full) <= 3"],
    }
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def memory(architecture: Architecture) -> float:
    return float(architecture.width * architecture.depth)


def quality(architecture: Architecture) -> float:
    """Later full layers help more; width saturates."""
    full = sum(place for place, layer in enumerate(architecture.layers, 1) if layer.mixer == "full")
    return 2.0 - architecture.width / (architecture.width + 32) - full / (full + 6.0)


def sampler(seed: int = 0, space: Space = SPACE, **settings: object) -> FrontierSampler:
    return FrontierSampler(space, known={1: memory}, seed=seed, effort=QUICK, **settings)  # type: ignore[arg-type]


DISTRIBUTIONS = sampler().distributions


def architecture_of(trial: optuna.Trial | optuna.trial.FrozenTrial) -> Architecture:
    found = SPACE.decode(trial.params).architecture
    assert found is not None
    return found


def searched(found: optuna.samplers.BaseSampler, trials: int, study: optuna.Study | None = None) -> optuna.Study:
    study = study or optuna.create_study(directions=["minimize", "minimize"])
    study.sampler = found
    for _ in range(trials):
        trial = study.ask(DISTRIBUTIONS)
        architecture = architecture_of(trial)
        study.tell(trial, [quality(architecture), memory(architecture)])
    return study


def volume(study: optuna.Study) -> float:
    axes = [
        Axis(direction="minimize", ideal=0.0, reference=2.0),
        Axis(direction="minimize", ideal=16, reference=768, log2=True),
    ]
    return hypervolume([trial.values for trial in study.trials], axes)


def test_it_starts_at_both_ends_of_what_is_known_and_then_between_them() -> None:
    memories = [trial.values[1] for trial in searched(sampler(), 8).trials]
    assert memories[:2] == [16, 128 * 6]
    assert all(16 < found < 768 for found in memories[2:])
    assert len(set(memories)) >= 6


def test_while_all_guess_it_draws_at_random_and_then_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(pool: Pool, history: History, *rest: Any) -> Option | None:
        asked.append(history.count)
        return next_best(pool, history, *rest)

    monkeypatch.setattr("nas.search.frontier.sampler.next_best", counted)
    axes = [
        Axis(direction="minimize", ideal=0.0, reference=2.0),
        Axis(direction="minimize", ideal=16, reference=768, log2=True),
    ]

    def guessed(scores: list[float], axes: list[Axis] | None) -> list[int]:
        asked.clear()
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler(startup=4, axes=axes))
        for score in scores:
            trial = study.ask(DISTRIBUTIONS)
            study.tell(trial, [score, memory(architecture_of(trial))])
        return list(asked)

    # 1.7 is 15 % of the way from 2 to 0.
    assert guessed([1.95] * 6 + [1.5] + [1.95] * 3, axes) == [7, 8, 9]
    assert guessed([1.95] * 18, axes) == [16, 17]
    assert guessed([1.95] * 6, None) == [4, 5]


def test_what_stands_below_what_is_told_apart() -> None:
    layers = {"mixer": {"choice": ["full", "gated_delta"], "per": "layer"}, "heads": 2}
    space = Space.from_mapping(
        {"name": "pair", "family": "decoder", "width": 16, "depth": 3, "max_context": 32, "layers": layers}
    )
    found = {}
    for values in space.enumerate():
        architecture = space.decode(values).architecture
        assert architecture is not None
        found["".join(layer.mixer[0] for layer in architecture.layers)] = architecture
    features = ArchitectureFeatures(list(found.values()), 3)
    # In the order full-full, full-delta, delta-full, delta-delta.
    assert features(found["ffg"], ())[1][-4:].tolist() == [1, 1, 0, 0]
    assert features(found["gfg"], ())[1][-4:].tolist() == [0, 1, 1, 0]
    # Of one mixer there is nothing to tell: blocks of three layers, and no more.
    assert len(ArchitectureFeatures([found["fff"]], 3)(found["fff"], ())[1]) % 3 == 0


def test_it_is_ahead_of_random_and_repeats_nothing() -> None:
    ours = searched(sampler(), 22)
    chance = searched(optuna.samplers.RandomSampler(seed=0), 22)
    assert volume(ours) > volume(chance)
    assert len({str(trial.params) for trial in ours.trials}) == 22
    assert all(not SPACE.broken_constraints(architecture_of(trial)) for trial in ours.trials)


def test_a_stopped_and_continued_study_suggests_as_one_that_ran_through() -> None:
    whole = searched(sampler(3), 14)
    parts = searched(sampler(3), 6)
    parts = searched(sampler(3), 3, parts)
    parts = searched(sampler(3), 5, parts)
    assert [trial.params for trial in parts.trials] == [trial.params for trial in whole.trials]
    assert searched(sampler(4), 14).trials[13].params != whole.trials[13].params


def test_candidates_that_run_beside_each_other_differ() -> None:
    study = searched(sampler(), 10)
    running = [study.ask(DISTRIBUTIONS) for _ in range(6)]
    networks = {(architecture_of(trial).fingerprint, trial.params["training.learning_rate"]) for trial in running}
    assert len(networks) == 6
    tried = {architecture_of(trial).fingerprint for trial in study.trials[:10]}
    assert len({name for name, _ in networks} - tried) >= 4


def test_it_turns_away_from_where_candidates_fail() -> None:
    """Networks of six layers diverge; without failing they are on the front."""
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler())
    deep = []
    for _ in range(30):
        trial = study.ask(DISTRIBUTIONS)
        architecture = architecture_of(trial)
        deep.append(architecture.depth == 6)
        if deep[-1]:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, [quality(architecture), memory(architecture)])
    healthy = [architecture_of(trial).depth == 6 for trial in searched(sampler(), 30).trials]
    assert sum(deep) < sum(healthy)


def test_what_breaks_a_limit_is_never_suggested() -> None:
    found = sampler(is_allowed=lambda architecture: memory(architecture) <= 96)
    assert max(trial.values[1] for trial in searched(found, 14).trials) <= 96


def test_in_a_space_that_is_exhausted_it_falls_back_to_chance() -> None:
    tiny = Space.from_mapping(
        {"name": "tiny", "family": "decoder", "width": {"choice": [16, 32]}, "depth": 1, "max_context": 32}
        | {"layers": {"mixer": "full", "heads": {"choice": [1, 2]}}}
    )
    found = FrontierSampler(tiny, known={1: memory}, seed=0, effort=QUICK)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=found)
    seen = []
    for count in range(5):
        trial = study.ask(found.distributions)
        seen.append(str(trial.params))
        study.tell(trial, [float(count), 1.0])
    assert len(set(seen[:4])) == 4


def test_without_a_space_it_takes_any_parameters_and_three_objectives() -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float, float]:
        x, layers = trial.suggest_float("x", 1e-3, 1.0, log=True), trial.suggest_int("layers", 1, 8)
        kind = trial.suggest_categorical("kind", ["a", "b"])
        return abs(x - 0.1) + (kind == "a"), float(layers), 1.0 / layers + x

    known = {1: lambda params: float(params["layers"])}
    study = optuna.create_study(
        directions=["minimize", "maximize", "minimize"], sampler=FrontierSampler(known=known, seed=0, effort=QUICK)
    )
    study.optimize(objective, n_trials=25)
    assert {trial.params["layers"] for trial in study.best_trials} >= {8}
    assert sum(trial.params["kind"] == "b" for trial in study.trials[10:]) > 8


def test_features_of_ones_own_take_the_place_of_the_parameters() -> None:
    seen: list[object] = []

    def features(params: object) -> list[float]:
        seen.append(params)
        return [float(params["x"]) ** 2]  # type: ignore[index]

    study = optuna.create_study(direction="minimize", sampler=FrontierSampler(features=features, seed=0, effort=QUICK))
    study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=14)
    assert seen
    assert study.best_value < 0.01


def test_a_position_beyond_the_objectives_is_refused() -> None:
    study = optuna.create_study(directions=["minimize"], sampler=sampler())
    with pytest.raises(ValueError, match=r"known \(\[1\]\) do not fit 1 objectives"):
        study.ask(DISTRIBUTIONS)


def with_rungs(trial: optuna.Trial, rows: list[list[float]]) -> None:
    trial.set_user_attr("rungs", rows)


def test_unfinished_curves_move_the_prediction_as_finished_ones_would() -> None:
    """Paused ones whose curves say "bad" keep the sampler away from their like, though they never end."""

    def share_like_them(*, told: bool) -> float:
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler(startup=6))
        alike = 0
        for number in range(26):
            trial = study.ask(DISTRIBUTIONS)
            architecture = architecture_of(trial)
            is_bad = architecture.layers[0].mixer == "full"
            end = quality(architecture) + 1.0 * is_bad
            size = memory(architecture)
            rows = [[end + 0.5, size], [end + 0.2, size]]
            if is_bad:
                if told:
                    with_rungs(trial, rows)
                alike += number >= 14
                continue
            with_rungs(trial, [*rows, [end, size]])
            study.tell(trial, [end, size])
        return alike / 12

    told, untold = share_like_them(told=True), share_like_them(told=False)
    assert told <= 0.5 * untold, (told, untold)


def test_history_sorts_unfinished_curves_apart() -> None:
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler())
    describe = sampler()._describer
    assert describe is not None
    trials = [study.ask(DISTRIBUTIONS) for _ in range(4)]
    with_rungs(trials[1], [[1.0, 2.0]])
    with_rungs(trials[2], [[1.0, 2.0]])
    study.tell(trials[2], state=TrialState.PRUNED)
    with_rungs(trials[3], [[1.0, 2.0], [0.5, 2.0]])
    study.tell(trials[3], [0.5, 2.0])
    found = read_history(study.get_trials(deepcopy=False), describe, {}, without=99)
    assert (len(found.pending), len(found.partial), len(found.observed), found.count) == (1, 2, 1, 4)
    study.tell(trials[0], state=TrialState.FAIL)
    for learns, failed in ((True, 1), (False, 0)):
        found = read_history(study.get_trials(deepcopy=False), describe, {}, without=99, learns_of_failed=learns)
        assert (len(found.failed), len(found.pending)) == (failed, 0) and len(found.seen) == 4
    assert [list(row) for row in found.curves[0]] == [[1.0, 2.0], [0.5, 2.0]]
