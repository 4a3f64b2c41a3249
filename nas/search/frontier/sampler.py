"""The `frontier` sampler: for studies in which an objective is known before anything is measured.

In: an Optuna study of one or more objectives. Out: suggestions. A surrogate learns the measured
objectives; the known ones are computed. The first candidates spread over the known objectives, both
ends included; each later one is that of which the largest gain of hypervolume is expected. Between
them, candidates are drawn at random for as long as all that were measured do little better than a
trivial guess: the differences between guesses teach a surrogate nothing.

Each suggestion depends on the seed and on what the study holds, and on nothing else: a study that
was stopped and continued goes on as if it had run through.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from nas.pareto import Axis
from nas.search.frontier.axes import Direction, known_axis
from nas.search.frontier.choose import Effort, next_best
from nas.search.frontier.history import History, read_history
from nas.search.frontier.options import Describer, Known, Option, ParameterDescriber, Params, SpaceDescriber
from nas.search.frontier.pool import Pool
from nas.search.frontier.spread import next_spread
from nas.space.architecture import Architecture
from nas.space.space import Drawn, Space

STARTUP = 8
# Fewer observed candidates than these say too little to choose by.
LEAST_OBSERVED = 3
_STARTUP_DRAWS = 300
# Who has gone less of the way from the trivial score to the ideal one still guesses, and after so many times the
# startup the surrogate is asked all the same.
_LEAST_WAY = 0.15
_MOST_BLIND = 4


class FrontierSampler(optuna.samplers.BaseSampler):
    """An Optuna sampler for one or more objectives of which some are known.

    With a `space`, the study asks for the space's parameters (`study.ask(sampler.distributions)`), and
    candidates are told apart, limited and described as architectures. Without one, it takes the
    parameters that all trials share, as Optuna's own relative samplers do.

        space = Space.load("hybrid_decoder")
        sampler = FrontierSampler(space, known={1: lambda architecture: estimate(architecture).serve_bytes}, seed=0)
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
        trial = study.ask(sampler.distributions)
        architecture = space.decode(trial.params).architecture

    Args:
        space: whose parameters are suggested.
        known: position of an objective → its exact function, of a bound architecture where there is a space,
            else of the parameters; the others are measured.
        features: what the surrogate sees of an assignment of parameters, numbers of a fixed count, in a study
            without a space; by default numbers on their scale and indicators of words.
        is_allowed: whether an architecture (without a space: an assignment) keeps every limit; by default
            whether it keeps the space's constraints. What does not is never suggested.
        axes: of the objectives, None for one that is to be inferred.
        bind: the network of a draw, bound to its task.
        counts: whether a trial is a candidate that was started; all are by default.
        learns_of_failed: whether a failed trial without a violated constraint says something of its candidate; not
            where the machine's faults are told so, and the candidate's own as violations.
        startup: candidates that are spread before the surrogate is asked.
        effort: how much is tried for one suggestion.
        seed: None for one that differs each time.
    """

    def __init__(
        self,
        space: Space | None = None,
        *,
        known: Known | None = None,
        features: Callable[[Params], Sequence[float]] | None = None,
        is_allowed: Callable[[Any], bool] | None = None,
        axes: Sequence[Axis | None] | None = None,
        bind: Callable[[Drawn], Architecture] | None = None,
        counts: Callable[[FrozenTrial], bool] | None = None,
        learns_of_failed: bool = True,
        startup: int = STARTUP,
        effort: Effort | None = None,
        seed: int | None = None,
    ) -> None:
        self._known: Known = dict(known or {})
        self._features, self._is_allowed, self._counts = features, is_allowed, counts
        self._learns_of_failed = learns_of_failed
        self._axes, self._startup, self._effort = axes, startup, effort or Effort()
        self._describer: Describer | None = None
        if space is not None:
            self._describer = SpaceDescriber(space, self._known, bind=bind, is_allowed=is_allowed)
        self._seed = int(np.random.SeedSequence(seed).generate_state(1)[0]) if seed is None else seed
        self._shared = IntersectionSearchSpace()
        # Whether the last search for something new and allowed was in vain; it would be so again.
        self.found_nothing = False
        self._described: dict[int, Option | None] = {}
        self._described_of: tuple[str, tuple[str, ...]] = ("", ())

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Of the space's parameters; none without a space."""
        return dict(self._describer.distributions) if self._describer else {}

    def reseed_rng(self) -> None:
        """See `optuna.samplers.BaseSampler`; workers of one process each must differ."""
        self._seed = int(np.random.SeedSequence().generate_state(1)[0])

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """See `optuna.samplers.BaseSampler`."""
        if self._describer is not None:
            return self.distributions
        shared = self._shared.calculate(study)
        return {name: domain for name, domain in shared.items() if not domain.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See `optuna.samplers.BaseSampler`; nothing where every allowed candidate that is found was tried."""
        if not search_space:
            return {}
        describe = self._describer or ParameterDescriber(
            search_space, self._known, features=self._features, is_allowed=self._is_allowed
        )
        history = self._history(study, trial, describe)
        rng = np.random.default_rng(derived_seed(self._seed, history.count))
        option = self._next(Pool(describe, history.seen, rng), history, study.directions, rng)
        self.found_nothing = option is None
        return {} if option is None else dict(option.params)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """See `optuna.samplers.BaseSampler`: a random value, the same after a resume."""
        seed = derived_seed(self._seed, f"{trial.number}/{param_name}")
        once = optuna.samplers.RandomSampler(seed=seed % 2**32)
        return once.sample_independent(study, trial, param_name, param_distribution)

    def _history(self, study: Study, trial: FrozenTrial, describe: Describer) -> History:
        described_of = (study.study_name, tuple(describe.distributions))
        if described_of != self._described_of:
            self._described, self._described_of = {}, described_of
        trials = study.get_trials(deepcopy=False)
        return read_history(
            trials,
            describe,
            self._described,
            without=trial.number,
            counts=self._counts,
            learns_of_failed=self._learns_of_failed,
        )

    def _next(
        self, pool: Pool, history: History, directions: Sequence[StudyDirection], rng: np.random.Generator
    ) -> Option | None:
        ways: list[Direction] = ["maximize" if way == StudyDirection.MAXIMIZE else "minimize" for way in directions]
        axes = list(self._axes) if self._axes is not None else [None] * len(ways)
        known = sorted(self._known)
        if len(axes) != len(ways) or any(not 0 <= place < len(ways) for place in known):
            raise ValueError(f"axes ({len(axes)}) and known ({known}) do not fit {len(ways)} objectives")
        if history.count >= self._startup and len(history.observed) >= LEAST_OBSERVED:
            if history.count < _MOST_BLIND * self._startup and _all_guess(history, axes, known):
                pool.draw(1)
                return pool.options[0] if pool.options else None
            return next_best(pool, history, axes, known, ways, rng, self._effort)
        pool.draw(_STARTUP_DRAWS)
        before = [*history.options, *history.failed]
        scale: Mapping[int, Axis] = {
            place: axes[place] or known_axis(ways[place], [option.known[place] for option in [*before, *pool.options]])
            for place in known
            if pool.options
        }
        return next_spread(pool, before, scale)


def _all_guess(history: History, axes: Sequence[Axis | None], known: Sequence[int]) -> bool:
    """Whether nothing that was measured, whole or in part, is well beyond the trivial score of its axis."""
    measured = [(place, axis) for place, axis in enumerate(axes) if place not in known]
    rows = [values for _, values in history.observed] + [row for _, rungs in history.partial for row in rungs]
    return all(
        axis is not None and bool((axis.scale([row[place] for row in rows]) > 1.0 - _LEAST_WAY).all())
        for place, axis in measured
    )


def derived_seed(seed: int, place: int | str) -> int:
    """A seed for one place of a study, such as the suggestion after so many candidates; the same after a resume."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{place}".encode()).digest()[:8], "big")
