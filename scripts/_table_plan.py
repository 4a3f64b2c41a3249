"""The tables that scripts/build_table makes: their space, tasks and budgets, and the order of the trainings.

In: nothing. Out: a `TablePlan` for each table: the grid of its space, the rungs and the scales of its axes, as a study
of the same words has them, and the trainings in the order in which they are done.

The space is made so that its front is hard to guess: nothing but a gated convolution shifts a token by itself, so that
attention and the delta rule need one below them, the learning rates are a factor of about three apart, and at the
context of `MEMORY` a cache weighs about as much as the weights.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _table_read import bound

from nas.pareto import Axis, front
from nas.records import Candidate, Schedule, TaskReference
from nas.space import Space
from nas.space.constraints import Figure
from nas.specs.base import Value
from nas.specs.tasks import TaskShape

if TYPE_CHECKING:
    from nas.study.plan import Plan

MEMORY = "serve_bytes@context=1024"
SEEDS, FRONT_SEEDS = (0, 1), (0, 1, 2, 3, 4)
ORDER_SEED = 20_240_501
RUNGS, STEPS, TOKENS_PER_STEP = 6, 384, 1024

SPACE: Mapping[str, Any] = {
    "name": "table",
    "family": "decoder",
    "width": {"choice": [24, 48]},
    "depth": {"choice": [1, 2, 3]},
    "max_context": 64,
    "layers": {
        "mixer": {"choice": ["full", "sliding_window", "delta", "gated_conv"], "per": "layer"},
        "heads": 2,
        "kv_heads": 1,
        "window": 16,
        "conv": 0,
        "mlp_ratio": 2,
    },
    "training": {"learning_rate": {"choice": [3e-3, 1e-2, 3e-2]}},
}
TASKS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "recall": ({"name": "recall", "vocabulary": 32, "length": 64, "pairs": 8}, "recall_accuracy"),
    "sotu": ({"name": "language_modeling", "corpus": "sotu", "evaluation_bytes": 32_768}, "bits_per_byte"),
}


@dataclass(frozen=True, kw_only=True)
class TablePlan:
    """One table to be made.

    Attributes:
        name: of the table.
        words: of the study whose trainings it holds.
        space: whose grid is trained.
        task: with the version of its data.
        shape: what the task fixes of a model.
        measured: the objective that training measures.
        axes: of the measured objective and of memory, as the study scales them.
        schedule: of every training.
        candidates: the whole grid: candidate -> its parameters, in an order shuffled once and for all.
    """

    name: str
    words: Mapping[str, Any]
    space: Space
    task: TaskReference
    shape: TaskShape
    measured: str
    axes: tuple[Axis, Axis]
    schedule: Schedule
    candidates: Mapping[str, tuple[Candidate, Mapping[str, Value]]]

    def memory(self, key: str) -> float:
        """The known objective of a candidate."""
        return float(Figure.parse(MEMORY)(self.candidates[key][0].architecture))

    @property
    def rung_tokens(self) -> tuple[int, ...]:
        """Tokens trained on at each rung."""
        return tuple(step * self.schedule.tokens_per_step for step in self.schedule.rung_steps)


@dataclass(frozen=True, order=True)
class Training:
    """One training of a table: which, of whom, with which seed."""

    table: str
    key: str
    seed: int


def study_words(name: str) -> dict[str, Any]:
    """The study of a table, as its file would say it."""
    task, measured = TASKS[name]
    return {
        "name": f"table_{name}",
        "space": dict(SPACE),
        "task": dict(task),
        "objectives": [measured, MEMORY],
        "budget": {"tokens": STEPS * TOKENS_PER_STEP, "rungs": RUNGS, "tokens_per_step": TOKENS_PER_STEP},
        "trials": 1,
        "sampler": "random",
    }


def table_plan(name: str, folder: Path) -> TablePlan:
    """The plan of a table; reads the task's data, and leaves its study in a folder."""
    from nas.config import load_study_config
    from nas.study.plan import plan_from_config

    words = study_words(name)
    path = folder / f"{name}.yaml"
    # Plain JSON is YAML too.
    path.write_text(json.dumps(words, indent=1), encoding="utf-8")
    plan = plan_from_config(load_study_config(path))
    assert plan.shape is not None
    grid = grid_of(plan.space, plan.shape)
    first = next(iter(grid.values()))[0].architecture
    return TablePlan(
        name=name,
        words=words,
        space=plan.space,
        task=plan.task,
        shape=plan.shape,
        measured=plan.objectives[0].name,
        axes=_axes(plan),
        schedule=plan.schedule(first),
        candidates=grid,
    )


def grid_of(space: Space, shape: TaskShape) -> dict[str, tuple[Candidate, Mapping[str, Value]]]:
    """Key -> every candidate of a finite space and its parameters, shuffled so that any part is a fair sample."""
    found: dict[str, tuple[Candidate, Mapping[str, Value]]] = {}
    for params in space.enumerate():
        candidate = bound(space, params, shape)
        if not space.broken_constraints(candidate.architecture):
            # Of draws that make one network the first stands for all.
            found.setdefault(candidate.key, (candidate, params))
    keys = sorted(found)
    random.Random(ORDER_SEED).shuffle(keys)
    return {key: found[key] for key in keys}


def wanted(plans: Sequence[TablePlan], scores: Mapping[Training, float]) -> Iterator[Training]:
    """The trainings that are still missing, in order: seed by seed, the tables in turn; then more seeds of the front.

    Args:
        plans: of the tables.
        scores: of what is done: the measured objective at the last rung; NaN where the training failed.
    """
    grid = [Training(plan.name, key, seed) for seed in SEEDS for plan in plans for key in plan.candidates]
    missing = [training for training in grid if training not in scores]
    yield from missing
    if missing:
        # Who is on the front is not known before all are trained.
        return
    for plan in plans:
        keys = mean_front(plan, scores)
        for seed in FRONT_SEEDS:
            yield from (t for t in (Training(plan.name, key, seed) for key in keys) if t not in scores)


def mean_front(plan: TablePlan, scores: Mapping[Training, float]) -> list[str]:
    """Keys of the candidates on the front of the mean score over `SEEDS`, the smallest memory first.

    Those alone count that were trained with all of `SEEDS` without a failure; more seeds change nothing.
    """
    points, keys = [], []
    for key in plan.candidates:
        found = [scores.get(Training(plan.name, key, seed), float("nan")) for seed in SEEDS]
        mean = sum(found) / len(found)
        if mean == mean:
            keys.append(key)
            points.append((mean, plan.memory(key)))
    return [keys[row] for row in front(points, plan.axes)] if points else []


def _axes(plan: Plan) -> tuple[Axis, Axis]:
    from nas.study.plan import axes, stored_objectives, surveyed

    found = axes(stored_objectives(plan, surveyed(plan).feasible))
    assert found is not None, "the task knows what the trivial guesser scores"
    measured, memory = found
    return measured, memory
