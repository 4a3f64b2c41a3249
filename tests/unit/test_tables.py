"""Tables of trainings: the grid, the order of work, what is on disk, and reading it again."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from _table_plan import FRONT_SEEDS, MEMORY, SEEDS, SPACE, TablePlan, Training, grid_of, mean_front, wanted
from _table_read import TableCandidate, header_path, read_table
from _table_rows import Done, Rung, Trained, append, final_scores, mend, read_done, read_recorded, write_table

from nas.errors import DataError
from nas.pareto import Axis
from nas.records import Schedule, TaskReference
from nas.space import Space
from nas.specs.tasks import TaskShape

WORDS = {**SPACE, "max_context": 32}
SHAPE = TaskShape(vocabulary=64, head="causal_lm")


@pytest.fixture(scope="module")
def plan() -> TablePlan:
    space = Space.from_mapping({**WORDS, "depth": {"choice": [1, 2]}, "width": 24})
    return TablePlan(
        name="small",
        words={"budget": {"tokens": 4096, "rungs": 3, "tokens_per_step": 1024}},
        space=space,
        task=TaskReference(name="recall", options=(("length", 64),), data_version="1"),
        shape=SHAPE,
        measured="recall_accuracy",
        axes=(
            Axis(direction="maximize", ideal=1.0, reference=0.125),
            Axis(direction="minimize", ideal=1e4, reference=1e6, log2=True),
        ),
        schedule=Schedule(tokens_per_step=1024, rung_steps=(1, 2, 4)),
        candidates=grid_of(space, SHAPE),
    )


def trained(plan: TablePlan, key: str, seed: int, score: float) -> Trained:
    rungs = tuple(
        Rung(
            tokens=tokens,
            scores={"recall_accuracy": score / (3 - place), "recall_loss": 1.0 - score},
            train_seconds=1.0 + place,
            evaluate_seconds=0.25,
            job_seconds=1.5 + place,
            flops=1e9 * (1 + place),
        )
        for place, tokens in enumerate(plan.rung_tokens)
    )
    return Trained(training=Training(plan.name, key, seed), rungs=rungs, environment="here")


def whole_grid(plan: TablePlan) -> Done:
    """All of the grid; who needs more memory scores better, so that every memory is on the front."""
    found = [trained(plan, key, seed, plan.memory(key) / 1e6) for key in plan.candidates for seed in SEEDS]
    return {one.training: one for one in found}


def test_the_grid_of_the_shipped_space_has_every_draw_once() -> None:
    space = Space.from_mapping(WORDS)
    grid = grid_of(space, SHAPE)
    widths, rates = len(SPACE["width"]["choice"]), len(SPACE["training"]["learning_rate"]["choice"])
    assert len(grid) == (4 + 4**2 + 4**3) * widths * rates >= 400
    assert all(key == candidate.key for key, (candidate, _) in grid.items())


def test_the_order_is_shuffled_and_always_the_same(plan: TablePlan) -> None:
    again = grid_of(plan.space, SHAPE)
    assert list(again) == list(plan.candidates) != sorted(plan.candidates)


def test_the_first_seed_of_all_tables_comes_before_the_second_of_any(plan: TablePlan) -> None:
    other = replace(plan, name="other")
    order = list(wanted([plan, other], {}))
    seeds = [training.seed for training in order]
    assert seeds == sorted(seeds)
    assert len(set(order)) == len(order) == 2 * len(plan.candidates) * len(SEEDS)
    assert [training.table for training in order[:4]] == ["small", "other", "small", "other"]


def test_what_is_done_is_not_wanted_again(plan: TablePlan) -> None:
    first, *others = wanted([plan], {})
    assert list(wanted([plan], {first: 0.5})) == others


def test_a_failed_training_is_not_wanted_again(plan: TablePlan) -> None:
    first, *others = wanted([plan], {})
    assert list(wanted([plan], {first: math.nan})) == others


def test_the_front_gets_more_seeds_when_the_grid_is_done(plan: TablePlan) -> None:
    scores = final_scores(whole_grid(plan), {plan.name: plan.measured})
    best = set(mean_front(plan, scores))
    more = set(wanted([plan], scores))
    assert more == {Training(plan.name, key, seed) for key in best for seed in FRONT_SEEDS if seed not in SEEDS}
    assert not list(wanted([plan], {**scores, **dict.fromkeys(more, 0.0)}))


def test_trainings_of_a_table_that_is_not_built_now_lie_in_the_folder_untouched(plan: TablePlan) -> None:
    key = next(iter(plan.candidates))
    here, there = trained(plan, key, 0, 0.5), trained(replace(plan, name="other"), key, 0, 0.5)
    scores = final_scores({one.training: one for one in (here, there)}, {plan.name: plan.measured})
    assert list(scores) == [here.training]


def test_a_candidate_of_which_a_seed_failed_is_on_no_front(plan: TablePlan) -> None:
    scores = final_scores(whole_grid(plan), {plan.name: plan.measured})
    key = mean_front(plan, scores)[0]
    assert key not in mean_front(plan, {**scores, Training(plan.name, key, 1): math.nan})


def test_a_line_that_a_kill_cut_short_is_trained_again(plan: TablePlan, tmp_path: Path) -> None:
    path, keys = tmp_path / "trainings.jsonl", list(plan.candidates)
    append(path, trained(plan, keys[0], 0, 0.5))
    whole = path.read_bytes()
    append(path, trained(plan, keys[1], 0, 0.5))
    path.write_bytes(path.read_bytes()[: len(whole) + 40])
    assert set(read_done(path)) == {Training(plan.name, keys[0], 0)}
    mend(path)
    append(path, trained(plan, keys[2], 1, 0.5))
    assert read_done(path) == {
        one.training: one for one in (trained(plan, keys[0], 0, 0.5), trained(plan, keys[2], 1, 0.5))
    }


def by_key(path: Path) -> dict[str, TableCandidate]:
    return {found.key: found for found in read_table(path).candidates}


def test_a_table_reads_as_it_was_written(plan: TablePlan, tmp_path: Path) -> None:
    path = tmp_path / "small.csv.gz"
    write_table(plan, whole_grid(plan), path)
    table = read_table(path)
    assert table.axes == plan.axes
    assert table.rung_tokens == plan.rung_tokens == (1024, 2048, 4096)
    assert table.seeds == SEEDS
    assert table.space.parameters == plan.space.parameters
    assert {found.key for found in table.candidates} == set(plan.candidates)
    for found in table.candidates:
        candidate, params = plan.candidates[found.key]
        score = plan.memory(found.key) / 1e6
        assert found.architecture == candidate.architecture
        assert found.params == params
        assert found.memory == plan.memory(found.key)
        assert found.curves == dict.fromkeys(SEEDS, (score / 3, score / 2, score))
        assert found.seconds == dict.fromkeys(SEEDS, (1.0, 2.0, 3.0))
        assert found.failure == {}


def test_equal_trainings_make_equal_files(plan: TablePlan, tmp_path: Path) -> None:
    done = whole_grid(plan)
    write_table(plan, done, tmp_path / "a.csv.gz")
    write_table(plan, dict(reversed(done.items())), tmp_path / "b.csv.gz")
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()


def test_a_part_of_a_table_is_valid_and_says_so(plan: TablePlan, tmp_path: Path) -> None:
    path, key = tmp_path / "small.csv.gz", next(iter(plan.candidates))
    one = trained(plan, key, 0, 0.5)
    header = write_table(plan, {one.training: one}, path)
    assert not header["is_complete"]
    assert header["trainings_by_seed"] == {"0": 1}
    assert list(by_key(path)) == [key]


def test_a_table_is_complete_when_its_front_has_all_seeds(plan: TablePlan, tmp_path: Path) -> None:
    done = whole_grid(plan)
    assert not write_table(plan, done, tmp_path / "small.csv.gz")["is_complete"]
    for training in list(wanted([plan], final_scores(done, {plan.name: plan.measured}))):
        done[training] = trained(plan, training.key, training.seed, 0.5)
    assert write_table(plan, done, tmp_path / "small.csv.gz")["is_complete"]


def test_a_training_that_diverged_is_a_short_curve_with_its_reason(plan: TablePlan, tmp_path: Path) -> None:
    path, key = tmp_path / "small.csv.gz", next(iter(plan.candidates))
    whole = trained(plan, key, 0, 0.6)
    diverged = replace(trained(plan, key, 1, 0.6), rungs=whole.rungs[:1], failure="diverged: the loss was nan, twice")
    write_table(plan, {whole.training: whole, diverged.training: diverged}, path)
    found = by_key(path)[key]
    assert found.failure == {1: "diverged: the loss was nan, twice"}
    assert found.curves[1] == found.curves[0][:1]


def test_recorded_trainings_count_as_done(plan: TablePlan, tmp_path: Path) -> None:
    path, done = tmp_path / "small.csv.gz", whole_grid(plan)
    first = next(iter(done))
    done[first] = replace(done[first], environment="elsewhere")
    write_table(plan, done, path)
    recorded = read_recorded(plan, path)
    assert recorded == done
    other = replace(plan, schedule=Schedule(tokens_per_step=1024, rung_steps=(1, 2, 8)))
    assert read_recorded(other, path) == {}


def change(path: Path, **values: Any) -> None:
    beside = header_path(path)
    beside.write_text(json.dumps({**json.loads(beside.read_text()), **values}))


def test_a_table_whose_space_makes_other_networks_is_refused(plan: TablePlan, tmp_path: Path) -> None:
    path = tmp_path / "small.csv.gz"
    write_table(plan, whole_grid(plan), path)
    source = json.loads(json.dumps(dict(plan.space.source)))
    source["layers"]["mlp_ratio"] = 3
    change(path, space=source)
    with pytest.raises(DataError, match="the code is another one"):
        read_table(path)


def test_a_table_with_a_missing_rung_is_refused(plan: TablePlan, tmp_path: Path) -> None:
    path, key = tmp_path / "small.csv.gz", next(iter(plan.candidates))
    whole = trained(plan, key, 0, 0.6)
    write_table(plan, {whole.training: replace(whole, rungs=whole.rungs[1:])}, path)
    with pytest.raises(DataError, match="must be at"):
        read_table(path)


def test_a_table_of_another_format_is_refused(plan: TablePlan, tmp_path: Path) -> None:
    path = tmp_path / "small.csv.gz"
    write_table(plan, whole_grid(plan), path)
    change(path, format=99)
    with pytest.raises(DataError, match="format 99"):
        read_table(path)


def test_the_memory_of_the_shipped_space_tells_its_networks_apart() -> None:
    from nas.space.constraints import Figure

    grid = grid_of(Space.from_mapping(WORDS), SHAPE)
    memory = Figure.parse(MEMORY)
    assert len({float(memory(candidate.architecture)) for candidate, _ in grid.values()}) >= 50
