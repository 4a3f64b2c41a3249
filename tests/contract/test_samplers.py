"""What every sampler must do behind its adapter: suggest in the space, and learn of limits."""

from __future__ import annotations

import math
from collections.abc import Mapping

import optuna
import pytest

from nas import catalog
from nas.search.mirror import Mirror, Mirrored
from nas.search.samplers import SamplerAdapter, SearchProblem
from nas.space import Space

SPACE = Space.from_mapping(
    {
        "name": "wall",
        "family": "decoder",
        "width": {"choice": list(range(8, 136, 8))},
        "depth": {"range": [1, 3]},
        "max_context": {"choice": [16, 32]},
        "layers": {
            "mixer": {"choice": ["full", "sliding_window"], "per": "layer"},
            "heads": 2,
            "window": {"choice": [4, 8], "when": {"mixer": "sliding_window"}},
        },
        "training": {"learning_rate": {"log_range": [1e-3, 1e-2]}},
    }
)
LEARNERS = [name for name in catalog.SAMPLERS if name != "random"]
# What takes a good part of a second for each suggestion gets fewer draws.
SLOW = ("frontier", "gp")


def mirror(name: str, seed: int = 0, storage: optuna.storages.BaseStorage | None = None) -> Mirror:
    adapter: SamplerAdapter = catalog.load("sampler", name)(seed=seed, population=None, startup=None)
    adapter.prepare(
        SearchProblem(
            space=SPACE,
            bind=lambda drawn: SPACE.bind(drawn, None),
            known={1: lambda architecture: float(architecture.width * architecture.depth)},
            axes=[None, None],
            is_allowed=lambda architecture: True,
        )
    )
    return Mirror(storage=storage, name="x", space=SPACE, directions=["minimize", "minimize"], sampler=adapter)


def told(found: Mirror, values: Mapping[str, object], number: int, *, rate_counts: bool = False) -> bool:
    """Tells a made-up quality; True where the draw was beyond the wall."""
    found.name_trial(number, number)
    architecture = SPACE.decode(values).architecture  # type: ignore[arg-type]
    assert architecture is not None
    memory = float(architecture.width * architecture.depth)
    if memory > 64:
        found.tell_infeasible(number, {"memory <= 64": memory / 64 - 1}, [3.0, memory])
        return True
    # Where the rate counts something is left to gain on this side of the wall, whatever was drawn before.
    off = abs(math.log10(float(str(values["training.learning_rate"]))) + 2.4) if rate_counts else 0.0
    found.tell_complete(number, [10.0 / architecture.width + off, memory])
    return False


@pytest.mark.parametrize("name", catalog.SAMPLERS)
def test_suggestions_are_always_the_same_flat_set_of_parameters(name: str) -> None:
    found = mirror(name)
    names = {parameter.name for parameter in SPACE.parameters}
    for _ in range(25):
        suggestion = found.ask()
        assert set(suggestion.values) == names
        assert all(parameter.domain.contains(suggestion.values[parameter.name]) for parameter in SPACE.parameters)
        told(found, suggestion.values, suggestion.number)


@pytest.mark.parametrize("name", catalog.SAMPLERS)
def test_a_seed_fixes_the_suggestions(name: str) -> None:
    runs = []
    for seed in (0, 0, 1):
        found, run = mirror(name, seed), []
        for _ in range(22):
            suggestion = found.ask()
            run.append(dict(suggestion.values))
            told(found, suggestion.values, suggestion.number)
        runs.append(run)
    assert runs[0] == runs[1] != runs[2]
    assert len({str(values) for values in runs[0]}) > 15


@pytest.mark.parametrize("name", LEARNERS)
def test_a_sampler_that_hears_of_a_wall_draws_less_beyond_it(name: str) -> None:
    """Random draws are beyond it seven times in ten."""
    found = mirror(name)
    beyond = []
    draws = 40 if name in SLOW else 160
    for _ in range(draws):
        suggestion = found.ask()
        beyond.append(told(found, suggestion.values, suggestion.number, rate_counts=name == "frontier"))
    last = beyond[-draws * 3 // 8 :]
    assert sum(last) < 0.42 * len(last)


def test_a_given_assignment_becomes_a_trial_of_its_own() -> None:
    found = mirror("random")
    values = {parameter.name: (parameter.domain.grid or (0.005,))[0] for parameter in SPACE.parameters}
    assert dict(found.ask(values).values) == values


def test_reconciling_ends_what_nobody_knows_of_and_tells_what_was_missed() -> None:
    found = mirror("random")
    orphan, finished, running = found.ask(), found.ask(), found.ask()
    made = found.reconcile(
        [
            Mirrored(ours=0, number=finished.number, parameters=finished.values, values=[1.0, 2.0], is_running=False),
            Mirrored(ours=1, number=running.number, parameters=running.values, values=None, is_running=True),
            Mirrored(ours=2, number=None, parameters=orphan.values, values=[3.0, 4.0], is_running=False),
        ]
    )
    states = {trial.number: trial.state.name for trial in found._study.get_trials()}
    assert states == {
        orphan.number: "FAIL",
        finished.number: "COMPLETE",
        running.number: "RUNNING",
        made[2]: "COMPLETE",
    }
    assert found._study.trials[finished.number].values == [1.0, 2.0]
    assert found._study.trials[made[2]].params == dict(orphan.values)


def test_infeasible_draws_are_seen_as_such_by_optuna_and_by_its_dashboard() -> None:
    found = mirror("nsga2")
    suggestion = found.ask()
    found.tell_infeasible(suggestion.number, {"memory <= 64": 0.5}, [3.0, 96.0])
    (trial,) = found._study.get_trials()
    assert trial.system_attrs["constraints"] == [0.5]
    assert trial.constraints["memory <= 64"] == 0.5
    assert not found._study.best_trials


@pytest.mark.parametrize("name", catalog.SAMPLERS)
def test_reconciling_tells_an_infeasible_draw_as_infeasible(name: str) -> None:
    found = mirror(name)
    missed = found.ask()
    found.reconcile(
        [
            Mirrored(
                ours=position,
                number=number,
                parameters=missed.values,
                values=[3.0, 96.0],
                is_running=False,
                violations={"memory <= 64": 0.5},
            )
            for position, number in enumerate((missed.number, None))
        ]
    )
    for trial in found._study.get_trials():
        assert list(trial.constraints.values()) == [0.5]
        assert trial.state.name == (
            "PRUNED" if catalog.load("sampler", name).infeasible_form == "pruned" else "COMPLETE"
        )
    assert not found._study.best_trials


def test_an_assignment_that_was_enqueued_and_never_asked_for_is_ended() -> None:
    found = mirror("random")
    found._study.enqueue_trial({"width": 8})
    found.reconcile([])
    assert [trial.state.name for trial in found._study.get_trials()] == ["FAIL"]


@pytest.mark.parametrize("name", catalog.SAMPLERS)
def test_a_trial_that_an_earlier_run_asked_for_can_turn_out_infeasible(name: str) -> None:
    storage = optuna.storages.InMemoryStorage()
    earlier = mirror(name, storage=storage).ask()
    later = mirror(name, storage=storage)
    later.tell_infeasible(earlier.number, {"out of memory": 0.5}, [3.0, 100.0])
    (trial,) = storage.get_all_trials(0)
    assert trial.state.is_finished() and trial.state.name != "FAIL"
    assert trial.system_attrs["constraints"] == [0.5]
