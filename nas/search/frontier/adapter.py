"""The `frontier` sampler in a study of ours: what it is told, and how.

In: a `SearchProblem`. Out: a `FrontierSampler`, one for the whole run, since each of its suggestions
depends on its seed and the candidates so far alone, and it keeps what it has described.
"""

from __future__ import annotations

from typing import ClassVar

import optuna
from optuna.trial import FrozenTrial

from nas.search.frontier.sampler import STARTUP, FrontierSampler
from nas.search.samplers import InfeasibleForm, SamplerAdapter, SearchProblem


class Frontier(SamplerAdapter):
    """A surrogate for what is measured, exact values for what is known."""

    infeasible_form: ClassVar[InfeasibleForm] = "pruned"

    _sampler: FrontierSampler | None = None

    def prepare(self, problem: SearchProblem) -> None:
        """See `SamplerAdapter.prepare`."""
        self._sampler = FrontierSampler(
            problem.space,
            known=problem.known,
            is_allowed=problem.is_allowed,
            axes=problem.axes,
            bind=problem.bind,
            counts=_is_candidate,
            # The mirror tells a candidate's own failure as a violation.
            learns_of_failed=False,
            startup=self.startup or STARTUP,
            seed=self.seed,
        )

    @property
    def found_nothing(self) -> bool:
        """See `SamplerAdapter.found_nothing`."""
        return self._sampler is not None and self._sampler.found_nothing

    def make(self, trials_so_far: int) -> optuna.samplers.BaseSampler:
        """See `SamplerAdapter.make`."""
        assert self._sampler is not None
        return self._sampler


def _is_candidate(trial: FrozenTrial) -> bool:
    # Repeated draws have trials of their own in Optuna's tables, and none in ours.
    return "trial" in trial.user_attrs
