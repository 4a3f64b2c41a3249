"""The next candidate once there is something to learn from: the one expected to add most hypervolume.

In: a history and a pool. Out: an option. One surrogate for each measured objective; unfinished
candidates count as their curves let expect, and before the first rung as if they had come out as
predicted, so that others running beside them differ; the front is of predictions, not of values as
measured, or one lucky measurement would hide what is better. The pool is bred from the front, then
twice and more from its own best: a search for the maximum of the expected improvement that costs no
training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nas.pareto import Axis
from nas.search.frontier.axes import Direction, front_rows, known_axis, measured_axis
from nas.search.frontier.history import History, Rungs
from nas.search.frontier.improvement import Boxes, expected_improvement, free_boxes
from nas.search.frontier.options import Option
from nas.search.frontier.partial import expected_ends
from nas.search.frontier.pool import Pool
from nas.search.frontier.surrogate import Array, GaussianProcess, Inputs, Standard

# Values farther than this many interquartile ranges on the bad side are pulled in: a training that all
# but diverged says "bad", and must not flatten the differences between the others.
_FAR = 3.0
# However often its like has failed, a candidate keeps this chance.
_LEAST_CHANCE = 0.02


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is tried for one suggestion.

    Attributes:
        draws: random options.
        bred: options from the front.
        rounds: of breeding from the best options.
        parents: of a round.
        children: of a round.
    """

    draws: int = 150
    bred: int = 250
    rounds: int = 5
    parents: int = 12
    children: int = 100


def next_best(
    pool: Pool,
    history: History,
    axes: Sequence[Axis | None],
    known: Sequence[int],
    directions: Sequence[Direction],
    rng: np.random.Generator,
    effort: Effort,
) -> Option | None:
    """The option with the largest expected improvement.

    Args:
        pool: empty.
        history: with two or more observed candidates.
        axes: of the objectives, None where it is to be inferred.
        known: positions of the known objectives.
        directions: of the objectives.
        rng: of the fit.
        effort: how much is tried.

    Returns:
        None where the pool finds nothing new.
    """
    members = [history.observed[row][0] for row in front_rows([values for _, values in history.observed], directions)]
    pool.draw(effort.draws)
    pool.changed(members, effort.bred // 2)
    pool.crossed(members, effort.bred - effort.bred // 2)
    if not pool.options:
        return None
    judge = Judge.of(pool, history, axes, known, directions, rng)
    scores = judge(pool.options)
    for _ in range(effort.rounds):
        best = [pool.options[int(row)] for row in np.argsort(-scores, kind="stable")[: effort.parents]]
        new = [*pool.changed(best, effort.children * 3 // 4), *pool.crossed(best, effort.children // 4)]
        if new:
            scores = np.concatenate([scores, judge(new)])
    return pool.options[int(scores.argmax())]


@dataclass(frozen=True)
class Judge:
    """Scores options.

    Attributes:
        axes: of all objectives.
        known: positions of the known ones.
        models: position → surrogate of a measured objective's cost.
        standard: scale of the features.
        boxes: that no member of the predicted front dominates.
        outcomes: surrogate of 0 for what came to nothing and 1 for what came to something; None where nothing failed.
    """

    axes: Sequence[Axis]
    known: Sequence[int]
    models: Mapping[int, GaussianProcess]
    standard: Standard
    boxes: Boxes
    outcomes: GaussianProcess | None

    @staticmethod
    def of(
        pool: Pool,
        history: History,
        axes: Sequence[Axis | None],
        known: Sequence[int],
        directions: Sequence[Direction],
        rng: np.random.Generator,
    ) -> Judge:
        """A judge that has learned from a history."""
        observed = [option for option, _ in history.observed]
        values = np.array([found for _, found in history.observed])
        full = infer_axes([*history.options, *pool.options], values, axes, known, directions)
        standard = Standard.of(raw_inputs([*history.options, *pool.options]))
        measured = [place for place in range(len(axes)) if place not in known]
        models = {place: _model(history, place, values[:, place], full[place], standard, rng) for place in measured}
        outcomes = None
        if history.failed:
            inputs, failed = (standard.apply(raw_inputs(found)) for found in (observed, history.failed))
            both = Inputs(*(np.concatenate(pair) for pair in zip(inputs, failed, strict=True)))
            labels = np.repeat([1.0, 0.0], [len(observed), len(history.failed)])
            outcomes = GaussianProcess.fit(both, labels, rng)
        judge = Judge(full, known, models, standard, free_boxes(np.ones((0, len(axes)))), outcomes)
        means, _ = judge.predict(history.options)
        return replace(judge, boxes=free_boxes(means))

    def __call__(self, options: Sequence[Option]) -> Array:
        """Expected improvement times the chance that the candidate comes to anything: (options,)."""
        means, deviations = self.predict(options)
        return expected_improvement(self.boxes, means, deviations) * self._chance(options)

    def predict(self, options: Sequence[Option]) -> tuple[Array, Array]:
        """Means and deviations of all objectives on their scaled axes, (options, objectives) each."""
        means, deviations = np.zeros((len(options), len(self.axes))), np.zeros((len(options), len(self.axes)))
        inputs = self.standard.apply(raw_inputs(options))
        for place, axis in enumerate(self.axes):
            if place in self.known:
                means[:, place] = axis.scale([option.known[place] for option in options])
                continue
            ideal, reference = float(axis.cost(axis.ideal)), float(axis.cost(axis.reference))
            mean, deviation = self.models[place].predict(inputs)
            means[:, place] = (mean - ideal) / (reference - ideal)
            deviations[:, place] = deviation / abs(reference - ideal)
        return means, deviations

    def _chance(self, options: Sequence[Option]) -> Array:
        if self.outcomes is None:
            return np.ones(len(options))
        mean, _ = self.outcomes.predict(self.standard.apply(raw_inputs(options)))
        # Squared: between the two it is the failures that are worth keeping away from.
        return np.clip(mean, _LEAST_CHANCE, 1.0) ** 2


def _model(
    history: History, place: int, values: Array, axis: Axis, standard: Standard, rng: np.random.Generator
) -> GaussianProcess:
    """The surrogate of a measured objective's cost, of finished and unfinished trainings."""

    def costs(rungs: Rungs) -> list[float]:
        return [float(axis.cost(row[place])) for row in rungs]

    ends = axis.cost(values)
    found = expected_ends([costs(rungs) for _, rungs in history.partial], [costs(row) for row in history.curves], ends)
    told = [(option, end) for (option, _), end in zip(history.partial, found, strict=True) if end is not None]
    untold = [option for (option, _), end in zip(history.partial, found, strict=True) if end is None]
    options = [*(option for option, _ in history.observed), *(option for option, _ in told)]
    targets = pulled_in(np.concatenate([ends, [end.cost for _, end in told]]))
    noise = np.concatenate([np.zeros(len(ends)), [end.variance for _, end in told]])
    inputs, pending = (
        standard.apply(raw_inputs(some, like=options)) for some in (options, [*untold, *history.pending])
    )
    return GaussianProcess.fit(inputs, targets, rng, noise=noise).with_pending(pending)


def infer_axes(
    options: Sequence[Option],
    values: Array,
    axes: Sequence[Axis | None],
    known: Sequence[int],
    directions: Sequence[Direction],
) -> list[Axis]:
    """The axes that are given, and others for those that are not."""
    members = values[front_rows(values.tolist(), directions)]
    found = []
    for place, axis in enumerate(axes):
        if axis is not None:
            found.append(axis)
        elif place in known:
            found.append(known_axis(directions[place], [option.known[place] for option in options]))
        else:
            found.append(measured_axis(directions[place], values[:, place].tolist(), members[:, place].tolist()))
    return found


def raw_inputs(options: Sequence[Option], like: Sequence[Option] = ()) -> Inputs:
    """The features of options as they are.

    Args:
        options: may be none.
        like: gives the number of features where there are none.
    """
    some = options or like
    summary, layers = np.stack([found.summary for found in some]), np.stack([found.layers for found in some])
    return Inputs(summary[: len(options)], layers[: len(options)])


def pulled_in(costs: Array) -> Array:
    """Costs with those that are far on the bad side pulled in."""
    low, high = np.quantile(costs, [0.25, 0.75])
    return np.minimum(costs, high + _FAR * max(high - low, 1e-12)) if len(costs) >= 4 else costs
