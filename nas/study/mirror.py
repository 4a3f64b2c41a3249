"""Opens Optuna's mirror of a study and makes it agree with our tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nas import catalog
from nas.errors import StudyError
from nas.objectives import known_values
from nas.report.stopping import curves_of, rung_values
from nas.search.mirror import Mirror, Mirrored, open_storage
from nas.search.samplers import SamplerAdapter, SearchProblem
from nas.space.architecture import Architecture
from nas.space.invert import assignments
from nas.specs.base import Value
from nas.store import Store, StoredStudy, StoredTrial
from nas.study.faults import lesson
from nas.study.plan import Plan, axis, violations
from nas.study.standing import placeholder
from nas.study.vocabularies import draws_of


def open_mirror(plan: Plan, store: Store, study: StoredStudy) -> Mirror:
    """The mirror of a study, reconciled."""
    adapter = adapter_of(plan)
    adapter.prepare(_problem(plan, study))
    mirror = Mirror(
        storage=open_storage(store.url, store.engine_kwargs),
        name=plan.name,
        space=plan.space,
        directions=[objective.direction for objective in plan.objectives],
        sampler=adapter,
    )
    trials = store.trials(study)
    curves = {} if plan.early_stopping is None else {curve.number: curve for curve in curves_of(store, study)}
    made = mirror.reconcile(
        [
            replace(
                _mirrored(trial, plan, placeholder(trial.values, study, trials)),
                rungs=rung_values(curves[trial.number], study) if trial.number in curves else [],
            )
            for trial in trials
        ]
    )
    for position, number in made.items():
        store.set_optuna_number(trials[position], number)
    return mirror


def adapter_of(plan: Plan) -> SamplerAdapter:
    """The adapter of a plan's sampler.

    Raises:
        StudyError: there is none of that name.
        MissingExtraError: it needs a package that is not installed.
    """
    words = plan.sampler
    return _sampler_class(words.name)(seed=plan.seed, population=words.population, startup=words.startup)


def _problem(plan: Plan, study: StoredStudy) -> SearchProblem:
    def is_allowed(architecture: Architecture) -> bool:
        if violations(plan, architecture, known_values(plan.objectives, architecture)):
            return False
        return all(limit.keeps(limit.measure(architecture)) for limit in plan.budget_limits)

    known = {place: found.known for place, found in enumerate(plan.objectives) if found.known is not None}
    return SearchProblem(
        space=plan.space,
        bind=plan.bind,
        known=known,
        axes=[axis(found) for found in study.objectives],
        is_allowed=is_allowed,
    )


def _sampler_class(name: str) -> type[SamplerAdapter]:
    """The class of a sampler of catalog.SAMPLERS, or the user's own "module:Class"."""
    found = catalog.load("sampler", name)
    if not (isinstance(found, type) and issubclass(found, SamplerAdapter)):
        raise StudyError(f"sampler '{name}' must name a class derived from nas.search.samplers.SamplerAdapter")
    return found


def _mirrored(trial: StoredTrial, plan: Plan, worst: Sequence[float]) -> Mirrored:
    """
    Args:
        trial: of ours.
        plan: of its study.
        worst: values that stand in for those of an infeasible trial.
    """
    values = [trial.values.get(objective.name) for objective in plan.objectives]
    complete = trial.state == "complete" and None not in values
    violations = lesson(trial)
    return Mirrored(
        ours=trial.number,
        number=trial.optuna_number,
        parameters=_parameters(trial, plan),
        values=[float(value) for value in values if value is not None] if complete else (worst if violations else None),
        violations=violations,
        is_running=trial.state in ("running", "paused"),
    )


def _parameters(trial: StoredTrial, plan: Plan) -> Mapping[str, Value]:
    """An assignment of the space's parameters that decodes to the trial's candidate."""
    training: dict[str, Value] = {f"training.{name}": value for name, value in trial.candidate.training}
    for unbound, vocabulary in draws_of(plan.space, trial.candidate.architecture, plan.cuts):
        known = training if vocabulary is None else {**training, "vocabulary": vocabulary}
        for values in assignments(plan.space, unbound):
            drawn = plan.space.decode({**values, **known})
            if drawn.architecture is not None and plan.bind(drawn) == trial.candidate.architecture:
                return {**values, **known}
    return training
