"""Samplers of Optuna as methods of the simulation, with or without our early stopping.

In: a `Replay`, a sampler and how parameters are told to it. Out: a `Method`. Drawing, rejecting and
telling follow the study loop (nas/study/loop.py): a draw that the table lacks, or that was begun
before, costs nothing, and the sampler is told of it in the form that it learns from; after many
fruitless draws a candidate that is new is drawn straight from the space.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import optuna
from _search_replay import Replay
from _search_simulate import Method
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import TrialState

from nas.search.audit import FalseStops, false_stops
from nas.search.mirror import DIRECTIONS, RUNGS, distribution, silent
from nas.search.rungs import Curve, CurveState
from nas.search.samplers import InfeasibleForm
from nas.search.stopping import StoppingRule
from nas.space.domains import Choice
from nas.space.space import Space

FRUITLESS_DRAWS = 50
"""Of a sampler, one after the other; then one is drawn from the space. (A study allows 200.)"""
AUDIT = 0.05
"""Share of the candidates that audit the stopping rule, as `early_stopping: true` has it."""

EncodingName = Literal["choices", "ordered"]
SamplerMaker = Callable[[Replay, int], optuna.samplers.BaseSampler]


@dataclass(frozen=True)
class Encoding:
    """How a space's parameters are told to a sampler.

    Attributes:
        distributions: of the parameters.
        values: parameter → what the whole numbers that stand for it mean.
    """

    distributions: Mapping[str, BaseDistribution]
    values: Mapping[str, tuple[Any, ...]]

    @staticmethod
    def of(space: Space, name: EncodingName) -> Encoding:
        """Choices as such ("choices"), or choices among numbers as their places in order ("ordered")."""
        distributions, values = {}, {}
        for parameter in space.parameters:
            domain = parameter.domain
            if name == "ordered" and isinstance(domain, Choice) and _are_numbers(domain.values):
                values[parameter.name] = tuple(sorted(domain.values))
                distributions[parameter.name] = IntDistribution(0, len(domain.values) - 1)
            else:
                distributions[parameter.name] = distribution(domain)
        return Encoding(distributions, values)

    def decode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """An assignment of the space's parameters."""
        return {name: self.values[name][value] if name in self.values else value for name, value in params.items()}


def _are_numbers(values: tuple[Any, ...]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


class Stops:
    """Our early stopping in the simulation: who goes on, who is paused, who goes on after all.

    Args:
        replay: that is searched.
        seed: of the run.
        caution: what the rule's margin is multiplied by.
    """

    def __init__(self, replay: Replay, seed: int, caution: float = 1.0) -> None:
        self._replay = replay
        self._rule = StoppingRule(seed=seed, audit=AUDIT, caution=caution)
        self._reached: dict[int, int] = {}
        self._is_settled = True
        self.paused: set[int] = set()

    def goes_on(self, row: int, rung: int) -> bool:
        """Whether a candidate goes on at a rung, from 0; remembers that it is paused where not."""
        self._reached[row] = rung + 1
        last = rung == self._replay.rungs - 1
        self._rule.put(self._curve(row, "complete" if last else "running"))
        self._is_settled = False
        if last:
            return False
        if self._decides(row) != "pause":
            return True
        self.paused.add(row)
        self._rule.put(self._curve(row, "paused"))
        return False

    def began(self, row: int) -> None:
        """A candidate was begun."""
        self._rule.put(self._curve(row, "running"))
        self._is_settled = False

    def failed(self, row: int) -> None:
        """A training came to nothing."""
        self._rule.put(self._curve(row, "failed"))
        self._is_settled = False

    def resumed(self) -> int | None:
        """The first paused candidate that the rule would let go on by now."""
        if self._is_settled:
            return None
        # In the order in which they came to a first rung.
        for row in [row for row in self._reached if row in self.paused]:
            if self._decides(row) != "pause":
                self.paused.remove(row)
                self._rule.put(self._curve(row, "running"))
                return row
        self._is_settled = True
        return None

    def audit(self) -> FalseStops:
        """What the audit estimates, overall."""
        return false_stops(self._rule.curves)[0]

    def _decides(self, row: int) -> str:
        curve = self._rule.get(row)
        assert curve is not None
        return self._rule.decide(curve, self._replay.rungs).action

    def _curve(self, row: int, state: CurveState) -> Curve:
        old = self._rule.get(row)
        curve = self._replay.curve(row, self._reached.get(row, 0), state)
        return replace(curve, audited=old is not None and old.audited)


class Asked(Method):
    """A sampler of Optuna, asked whenever a worker has nothing else to do.

    Args:
        replay: that is searched.
        sampler: asked through the whole run.
        encoding: of the parameters.
        form: in which it is told of a draw that comes to nothing.
        stops: our early stopping, or None where everything is trained to the end.
        seed: of what is drawn straight from the space.
        draws: in a row that may bring nothing new.
    """

    def __init__(
        self,
        replay: Replay,
        sampler: optuna.samplers.BaseSampler,
        encoding: Encoding,
        *,
        form: InfeasibleForm,
        stops: Stops | None,
        seed: int,
        draws: int = FRUITLESS_DRAWS,
    ) -> None:
        self._draws = draws
        self._replay, self._encoding, self._form, self.stops = replay, encoding, form, stops
        self._rng = random.Random(f"unseen/{seed}")
        self._axes = replay.table.axes
        with silent():
            self._study = optuna.create_study(
                directions=[DIRECTIONS[axis.direction] for axis in self._axes], sampler=sampler
            )
        self._trials: dict[int, optuna.Trial] = {}
        self._states: dict[int, Literal["running", "complete", "failed"]] = {}
        self._going: deque[int] = deque()
        self.asked = 0

    @property
    def paused(self) -> set[int]:
        """Rows that our early stopping has paused."""
        return set() if self.stops is None else self.stops.paused

    def next(self) -> int | None:
        """See `Method.next`: who goes on, who was paused too early, who is new."""
        if self._going:
            return self._going.popleft()
        if self.stops is not None and (row := self.stops.resumed()) is not None:
            return row
        with silent():
            return self._start()

    def reached(self, row: int, rung: int, score: float) -> None:
        """See `Method.reached`."""
        last = rung == self._replay.rungs - 1
        if self.stops is not None:
            # As a study tells it: the sampler may learn of curves that do not end.
            told = [self._replay.score(row, place) for place in range(rung + 1)]
            self._trials[row].set_user_attr(RUNGS, [[score, self._replay.rows[row].memory] for score in told])
        goes_on = not last if self.stops is None else self.stops.goes_on(row, rung)
        if goes_on:
            self._going.append(row)
        elif last:
            self._states[row] = "complete"
            with silent():
                self._study.tell(self._trials[row], self._values(row))

    def failed(self, row: int) -> None:
        """See `Method.failed`."""
        self._states[row] = "failed"
        if self.stops is not None:
            self.stops.failed(row)
        with silent():
            self._tell_in_vain(self._trials[row], "the training came to nothing", self._replay.rows[row].memory)

    def _start(self) -> int | None:
        for _ in range(self._draws):
            self.asked += 1
            trial = self._study.ask(dict(self._encoding.distributions))
            row = self._replay.place(self._encoding.decode(trial.params))
            if row is None:
                self._tell_in_vain(trial, "the space excludes it", self._axes[1].reference)
            elif row in self._states:
                self._tell_again(trial, row)
            else:
                return self._begin(row, trial)
        unseen = [row for row in range(len(self._replay.rows)) if row not in self._states]
        return self._begin(self._rng.choice(unseen), None) if unseen else None

    def _begin(self, row: int, trial: optuna.Trial | None) -> int:
        if trial is None:
            self._study.enqueue_trial(self._encode(row))
            trial = self._study.ask(dict(self._encoding.distributions))
        self._trials[row], self._states[row] = trial, "running"
        if self.stops is not None:
            self.stops.began(row)
        return row

    def _encode(self, row: int) -> dict[str, Any]:
        """What stands for a candidate; a parameter that plays no part is left to the sampler."""
        return {
            name: self._encoding.values[name].index(value) if name in self._encoding.values else value
            for name, value in self._replay.rows[row].params.items()
            if name in self._encoding.distributions
        }

    def _values(self, row: int) -> list[float]:
        score = self._replay.score(row, self._replay.rungs - 1)
        assert score is not None
        return [score, self._replay.rows[row].memory]

    def _tell_again(self, trial: optuna.Trial, row: int) -> None:
        """A repeated draw costs nothing; the sampler learns what is known of it."""
        if self._states[row] == "complete":
            self._study.tell(trial, self._values(row))
        elif self._states[row] == "failed":
            self._tell_in_vain(trial, "the training came to nothing", self._replay.rows[row].memory)
        else:
            self._study.tell(trial, state=TrialState.FAIL)

    def _tell_in_vain(self, trial: optuna.Trial, rule: str, memory: float) -> None:
        trial.set_constraint(rule, 1.0)
        if self._form == "pruned":
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, [self._axes[0].reference, memory])
