"""One small adapter for each sampler, because they learn from different things.

What a sampler is told of an infeasible draw decides whether it stops drawing more of them. Seen
on a toy with an out-of-memory wall, infeasible share of the last 100 of 300 trials: TPE 1.00 when
they failed and .01 when pruned with a violated constraint; NSGA-II .55 when failed or pruned (it
ignores pruned trials) and .10 when completed with placeholder values and the constraint.

A seeded sampler repeats its draws after a resume, so each suggestion gets a sampler of its own,
seeded with (study seed, trials so far): a study that is continued draws as if it had run through.
"""

from __future__ import annotations

import hashlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import optuna

from nas.errors import MissingExtraError
from nas.pareto import Axis
from nas.space.architecture import Architecture
from nas.space.space import Drawn, Space

# "constrained" is complete with one constraint, which every other trial has too, and keeps.
InfeasibleForm = Literal["pruned", "complete", "constrained"]


@dataclass(frozen=True, kw_only=True)
class SearchProblem:
    """What is known of a study before anything is trained.

    Attributes:
        space: whose parameters are suggested.
        bind: the network of a draw, bound to the task.
        known: position of an objective → its exact function of a bound architecture.
        axes: of the objectives, in order; None for one without a scale.
        is_allowed: whether a bound architecture keeps every limit that is known before training.
    """

    space: Space
    bind: Callable[[Drawn], Architecture]
    known: Mapping[int, Callable[[Architecture], float]]
    axes: Sequence[Axis | None]
    is_allowed: Callable[[Architecture], bool]


class SamplerAdapter(ABC):
    """Makes a sampler for each suggestion, and says how it is told of infeasible draws."""

    infeasible_form: ClassVar[InfeasibleForm]

    def __init__(self, *, seed: int, population: int | None, startup: int | None) -> None:
        self.seed = seed
        self.population = population
        self.startup = startup

    def prepare(self, problem: SearchProblem) -> None:  # noqa: B027 - most samplers have no use for it
        """Hears, once and before the first suggestion, what is searched."""

    @property
    def found_nothing(self) -> bool:
        """Whether the sampler said of its last suggestion that it knows nothing new."""
        return False

    @abstractmethod
    def make(self, trials_so_far: int) -> optuna.samplers.BaseSampler:
        """The sampler of the next suggestion."""

    def derived_seed(self, trials_so_far: int) -> int:
        """A seed that differs for each suggestion and is the same after a resume."""
        text = f"{self.seed}/{trials_so_far}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


class NSGA2(SamplerAdapter):
    """NSGA-II (Deb et al. 2002): evolution, guided by dominance and crowding."""

    infeasible_form: ClassVar[InfeasibleForm] = "complete"

    def make(self, trials_so_far: int) -> optuna.samplers.BaseSampler:
        """See `SamplerAdapter.make`; the population is kept in Optuna's tables."""
        return optuna.samplers.NSGAIISampler(
            seed=self.derived_seed(trials_so_far), population_size=self.population or 16
        )


class TPE(SamplerAdapter):
    """Multi-objective tree-structured Parzen estimators (Ozaki et al. 2022)."""

    infeasible_form: ClassVar[InfeasibleForm] = "pruned"

    def make(self, trials_so_far: int) -> optuna.samplers.BaseSampler:
        """See `SamplerAdapter.make`."""
        # Independent estimators: on a toy with a memory wall they drew .07 infeasible after 240 trials,
        # the multivariate one .34.
        return optuna.samplers.TPESampler(
            seed=self.derived_seed(trials_so_far), n_startup_trials=self.startup or 10, multivariate=False
        )


class GP(SamplerAdapter):
    """Optuna's Gaussian process with expected hypervolume improvement; needs scipy."""

    # It ignores pruned trials, and wants equally many constraints of all.
    infeasible_form: ClassVar[InfeasibleForm] = "constrained"

    def __init__(self, *, seed: int, population: int | None, startup: int | None) -> None:
        super().__init__(seed=seed, population=population, startup=startup)
        if importlib.util.find_spec("scipy") is None:
            raise MissingExtraError("sampler 'gp'", "gp")

    def make(self, trials_so_far: int) -> optuna.samplers.BaseSampler:
        """See `SamplerAdapter.make`."""
        return optuna.samplers.GPSampler(
            seed=self.derived_seed(trials_so_far),
            n_startup_trials=self.startup or 10,
            warn_independent_sampling=False,
        )


class Random(SamplerAdapter):
    """Uniform draws: the baseline that a search must beat."""

    infeasible_form: ClassVar[InfeasibleForm] = "pruned"

    def make(self, trials_so_far: int) -> optuna.samplers.BaseSampler:
        """See `SamplerAdapter.make`."""
        return optuna.samplers.RandomSampler(seed=self.derived_seed(trials_so_far))
