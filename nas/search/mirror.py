"""Optuna's tables as a mirror of ours, for samplers and the dashboard.

In: draws that Optuna suggests, and what became of them. Out: suggestions. Our tables are the
truth: `reconcile` makes Optuna's agree with them at the start of each run, whatever a kill left
behind.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.errors import StoreError
from nas.search.samplers import SamplerAdapter
from nas.space.domains import Choice, Domain, Range
from nas.space.space import Space
from nas.specs.base import Value

# The dashboard reads constraints from this older attribute alone; samplers read both.
_OLD_CONSTRAINTS = "constraints"
# User attribute of a trial: rows of the values of all objectives at each rung that it reached. Optuna
# keeps no intermediate values where there are several objectives.
RUNGS = "rungs"


# Stands in for the worst value of an objective of which nothing is known yet.
UNKNOWN_WORST = 1e12

DIRECTIONS = {"minimize": StudyDirection.MINIMIZE, "maximize": StudyDirection.MAXIMIZE}


@dataclass(frozen=True)
class Suggestion:
    """What Optuna suggests.

    Attributes:
        number: of the Optuna trial.
        values: an assignment of the space's parameters.
    """

    number: int
    values: Mapping[str, Value]


@dataclass(frozen=True, kw_only=True)
class Mirrored:
    """One trial of ours as the mirror must show it.

    Attributes:
        ours: its number in our tables.
        number: of its Optuna trial, or None if it has none yet.
        parameters: an assignment that decodes to its candidate.
        values: of all objectives in order; placeholders for an infeasible one; None while it is not complete.
        is_running: whether it goes on.
        violations: rule → how far it is broken, for an infeasible one or one that failed by its own fault.
        rungs: values of all objectives at each rung that it reached.
    """

    ours: int
    number: int | None
    parameters: Mapping[str, Value]
    values: Sequence[float] | None
    is_running: bool
    violations: Mapping[str, float] = field(default_factory=dict)
    rungs: Sequence[Sequence[float]] = ()


class Mirror:
    """The Optuna study beside a study of ours.

    Args:
        storage: URL of the database and the options of its engine, or None for memory.
        name: of the study.
        space: whose parameters are suggested.
        directions: of the objectives, in order.
        sampler: the adapter.
    """

    def __init__(
        self,
        *,
        storage: BaseStorage | None,
        name: str,
        space: Space,
        directions: Sequence[str],
        sampler: SamplerAdapter,
    ) -> None:
        self._sampler = sampler
        self._distributions = {parameter.name: distribution(parameter.domain) for parameter in space.parameters}
        with silent():
            self._study = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=[DIRECTIONS[direction] for direction in directions],
                load_if_exists=True,
            )
        self._storage = self._study._storage
        self._asked: dict[int, optuna.Trial] = {}

    @property
    def count(self) -> int:
        """Optuna trials so far."""
        return len(self._study.get_trials(deepcopy=False))

    def ask(self, fixed: Mapping[str, Value] | None = None) -> Suggestion:
        """The next suggestion, or a given assignment as a trial of its own."""
        with silent():
            self._study.sampler = self._sampler.make(self.count)
            if fixed is not None:
                self._study.enqueue_trial(dict(fixed))
            trial = self._study.ask(self._distributions)
        self._asked[trial.number] = trial
        return Suggestion(trial.number, dict(trial.params))

    @property
    def found_nothing(self) -> bool:
        """Whether the sampler said of its last suggestion that it knows nothing new."""
        return self._sampler.found_nothing

    def name_trial(self, number: int, ours: int) -> None:
        """Says in Optuna's tables which trial of ours this is: the numbers drift apart after duplicates."""
        self._asked[number].set_user_attr("trial", ours)

    def tell_rungs(self, number: int, rungs: Sequence[Sequence[float]]) -> None:
        """The values of all objectives at each rung that a running trial has reached."""
        self._storage.set_trial_user_attr(self._twin(number)._trial_id, RUNGS, [list(row) for row in rungs])

    def tell_complete(self, number: int, values: Sequence[float]) -> None:
        """The values of all objectives of a finished trial."""
        if self._sampler.infeasible_form == "constrained":
            self._storage.set_trial_system_attr(self._twin(number)._trial_id, _OLD_CONSTRAINTS, [0.0])
        self._tell(number, values=list(values))

    def tell_failed(self, number: int) -> None:
        """A trial that gave no values and says nothing of its neighbours."""
        self._tell(number, state=TrialState.FAIL)

    def tell_infeasible(self, number: int, violations: Mapping[str, float], placeholder: Sequence[float]) -> None:
        """A draw that breaks a limit, told in the form that the sampler learns from.

        Args:
            number: of a trial that is not told yet, of this run or an earlier one.
            violations: rule → how far it is broken, above 0.
            placeholder: values for samplers that learn from complete trials alone; never on a front.
        """
        trial = self._asked.get(number)
        if trial is not None and self._sampler.infeasible_form != "constrained":
            for rule, violation in violations.items():
                trial.set_constraint(rule[:400], violation)
        self._end_infeasible(self._twin(number)._trial_id, number, violations, placeholder)

    def tell_paused(self, number: int) -> None:
        """A trial that was paused when the study ended; until then it is a running one.

        Optuna accepts no change to it afterwards: see `running_twin`.
        """
        if not self._twin(number).state.is_finished():
            self._tell(number, state=TrialState.PRUNED)

    def running_twin(self, number: int) -> int:
        """The number of the running trial that mirrors one that goes on: its own, or a copy's if that has ended."""
        twin = self._twin(number)
        if not twin.state.is_finished():
            return number
        return self._put(twin.params, twin.distributions, twin.user_attrs).number

    def reconcile(self, trials: Sequence[Mirrored]) -> dict[int, int]:
        """Makes Optuna's trials agree with ours.

        Returns:
            Position in `trials` → number of the Optuna trial that was made for it anew.
        """
        known = {trial.number: trial for trial in self._study.get_trials(deepcopy=False)}
        ours = {trial.number for trial in trials if trial.number is not None}
        for number, theirs in known.items():
            # Asked for, and then the run was killed before our tables heard of it.
            if number not in ours and theirs.state == TrialState.RUNNING:
                self._tell(number, state=TrialState.FAIL)
            elif theirs.state == TrialState.WAITING:
                # Enqueued and never asked for; `tell` would refuse it.
                self._storage.set_trial_state_values(theirs._trial_id, TrialState.FAIL)
        made: dict[int, int] = {}
        for position, trial in enumerate(trials):
            twin = None if trial.number is None else known.get(trial.number)
            if twin is not None and not twin.state.is_finished() and "trial" not in twin.user_attrs:
                self._storage.set_trial_user_attr(twin._trial_id, "trial", trial.ours)
            if twin is None:
                made[position] = self._add(trial)
                continue
            if twin.state == TrialState.RUNNING and list(trial.rungs) != twin.user_attrs.get(RUNGS, []):
                self.tell_rungs(twin.number, trial.rungs)
            if twin.state == TrialState.RUNNING and not trial.is_running:
                self._finish(twin, trial)
        return made

    def close(self) -> None:
        """Releases the connections to the database."""
        backend = getattr(self._storage, "_backend", self._storage)
        if isinstance(backend, RDBStorage):
            backend.engine.dispose()

    def _finish(self, twin: FrozenTrial, trial: Mirrored) -> None:
        if trial.violations:
            self._end_infeasible(twin._trial_id, twin.number, trial.violations, trial.values or ())
        elif trial.values is None:
            self._tell(twin.number, state=TrialState.FAIL)
        else:
            self.tell_complete(twin.number, trial.values)

    def _end_infeasible(
        self, trial_id: int, number: int, violations: Mapping[str, float], placeholder: Sequence[float]
    ) -> None:
        # A public method for this attribute no longer exists; the dashboard still looks for it.
        how_far = list(violations.values())
        if self._sampler.infeasible_form == "constrained":
            how_far = [max(how_far)]
        self._storage.set_trial_system_attr(trial_id, _OLD_CONSTRAINTS, how_far)
        if self._sampler.infeasible_form == "pruned":
            self._tell(number, state=TrialState.PRUNED)
        elif self._sampler.infeasible_form == "constrained" and UNKNOWN_WORST in map(abs, placeholder):
            # A surrogate of the values would see no other differences beside so large a one, for good.
            self._tell(number, state=TrialState.FAIL)
        else:
            self._tell(number, values=list(placeholder))

    def _add(self, trial: Mirrored) -> int:
        parameters = {name: value for name, value in trial.parameters.items() if name in self._distributions}
        distributions = {name: self._distributions[name] for name in parameters}
        rungs = {RUNGS: [list(row) for row in trial.rungs]} if trial.rungs else {}
        made = self._put(parameters, distributions, {"trial": trial.ours, **rungs})
        if not trial.is_running:
            self._finish(made, trial)
        return made.number

    def _put(
        self,
        parameters: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        attributes: Mapping[str, Any],
    ) -> FrozenTrial:
        """A running trial of given parameters."""
        frozen = create_trial(
            state=TrialState.RUNNING,
            params=dict(parameters),
            distributions=dict(distributions),
            user_attrs=dict(attributes),
        )
        with silent():
            self._study.add_trial(frozen)
        return self._study.get_trials(deepcopy=False)[-1]

    def _twin(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(
            self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
        )

    def _tell(self, number: int, values: list[float] | None = None, state: TrialState | None = None) -> None:
        with silent():
            self._study.tell(number, values=values, state=state)
        self._asked.pop(number, None)


def distribution(domain: Domain) -> BaseDistribution:
    """Optuna's word for a domain; fixed for the life of a study."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.values)
    assert isinstance(domain, Range)
    if domain.is_integer:
        step = 1 if domain.log else int(domain.step or 1)
        # Optuna moves a high end that no step reaches, and warns; so it is moved here.
        high = int(domain.low) + (int(domain.high) - int(domain.low)) // step * step
        return IntDistribution(int(domain.low), high, log=domain.log, step=step)
    if domain.step is not None and not domain.log:
        last = domain.grid[-1] if domain.grid else domain.high
        return FloatDistribution(float(domain.low), float(last), step=domain.step)
    return FloatDistribution(float(domain.low), float(domain.high), log=domain.log, step=domain.step)


def open_storage(url: str, engine_options: Mapping[str, Any]) -> BaseStorage:
    """Optuna's tables in the database of a store, made if they are missing."""
    with silent():
        return RDBStorage(url, engine_kwargs=dict(engine_options))


@contextmanager
def silent() -> Iterator[None]:
    """Keeps Optuna's log lines and its notices of experimental features off the screen."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    except optuna.exceptions.StorageInternalError as error:
        raise StoreError(f"Optuna's tables cannot be used: {str(error).splitlines()[0]}") from error
    finally:
        optuna.logging.set_verbosity(level)
