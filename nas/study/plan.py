"""A study ready to run: what it searches, how a candidate is evaluated, and how fronts are scaled.

In: a study file's `StudyConfig`, or a user's own evaluator. Out: a `Plan`, the same for both, so
that there is one loop. Making one loads the task, and so torch.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nas import catalog
from nas.config import ConfirmWords, EarlyStoppingWords, SamplerWords, StudyConfig
from nas.errors import StudyError
from nas.limits import Stop
from nas.measure.function import EvaluationFunction, FunctionEvaluator
from nas.objectives import Objective, check_direction, known_value, objective_limits
from nas.pareto import Axis
from nas.records import Evaluator, Schedule, TaskReference
from nas.space.architecture import Architecture
from nas.space.constraints import Constraint, Figure
from nas.space.feasibility import Limit, Survey, limits_of, survey
from nas.space.space import Drawn, Space
from nas.specs import task_spec
from nas.specs.tasks import EFFECTIVE_CONTEXT, TaskShape
from nas.store import StoredObjective
from nas.study.vocabularies import Cut, bind, joint_version, reference_with

if TYPE_CHECKING:
    from nas.tasks.base import StepShape, Task


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study ready to run.

    Attributes:
        name: of the study in its store.
        space: that candidates are drawn from.
        objectives: two or more.
        sampler: its name and settings.
        seed: of the search and of every training.
        resolved: plain values for the store.
        evaluator: does the jobs.
        task: with the version of its data.
        shape: what the task fixes of a model, or None for a user's own evaluator.
        schedule: how the budget of an architecture is spent.
        contexts: tokens at which an architecture is scored besides its own max_context when it is finished.
        scores_curve: whether it is scored at them at every rung, since an objective needs them.
        trainer: arguments for lightning.Trainer.
        trials: asked for by the study file, or None.
        stop: what ends the study besides.
        step_flops: training FLOPs of one step of a candidate, or None for a user's own evaluator.
        cuts: the task with each vocabulary of a space that searches them; else none.
        budget_limits: what the budget excludes, for whoever asks how much is feasible; `schedule` refuses the same.
        memory_limit: bytes that training a candidate may take of its device, or None.
        time_limit: seconds of wall time that a candidate may take to its last rung, or None.
        early_stopping: how candidates are paused at rungs, or None where all are trained to the end.
        confirm: how the front is confirmed when the search is over, or None where it is not.
        training_step: the sizes of the largest training step of an architecture, or None for a user's own evaluator.
    """

    name: str
    space: Space
    objectives: tuple[Objective, ...]
    sampler: SamplerWords
    seed: int
    resolved: Mapping[str, Any]
    evaluator: Evaluator
    task: TaskReference
    shape: TaskShape | None
    schedule: Callable[[Architecture], Schedule]
    contexts: Callable[[Architecture], tuple[int, ...]] = lambda architecture: ()
    scores_curve: bool = False
    trainer: tuple[tuple[str, Any], ...] = ()
    trials: int | None = None
    stop: Stop = field(default_factory=Stop)
    step_flops: Callable[[Architecture], float] | None = None
    cuts: tuple[Cut, ...] = ()
    budget_limits: tuple[Limit, ...] = ()
    memory_limit: int | None = None
    time_limit: float | None = None
    early_stopping: EarlyStoppingWords | None = None
    confirm: ConfirmWords | None = None
    training_step: Callable[[Architecture], StepShape] | None = None

    def bind(self, drawn: Drawn) -> Architecture:
        """The network of a draw, bound to the task."""
        return bind(self.space, drawn, self.shape, self.cuts)

    def task_of(self, architecture: Architecture) -> TaskReference:
        """The task that a bound architecture is trained on."""
        found = (cut.reference for cut in self.cuts if cut.shape.vocabulary == architecture.vocabulary)
        return next(found, self.task)


def plan_from_config(config: StudyConfig, data_version: str = "") -> Plan:
    """The plan of a study file; reads the task's data.

    Args:
        config: checked.
        data_version: the version that the data must have, if the study was made before.

    Raises:
        DataError: the data cannot be used, or is not what it was when the study was made.
    """
    from nas.measure.limit import check_memory_limit
    from nas.measure.train import TrainingEvaluator, flops_per_step, largest_step
    from nas.measure.trainer import device_of, make_trainer, quiet
    from nas.tasks.load import load_task

    check_memory_limit(config.memory_limit, device_of(dict(config.trainer)))
    cuts, tasks = _cuts(config)
    task = tasks[0] if tasks else load_task(replace(config.task, data_version=data_version))
    version = joint_version(cuts, data_version) if cuts else task.data_version
    contexts = [int(context) for context in config.space.globals["max_context"].domain.grid or (1,)]
    for context in (max(contexts), min(contexts)):
        for place, each in enumerate(tasks or [task]):
            size = cuts[place].tokens(context) if cuts else context
            each.check(tokens=config.budget.tokens_per_step, max_context=size)
    # The trivial guesser uses no context at all.
    baseline = {**task.baseline("validation"), EFFECTIVE_CONTEXT: 0.0}
    with quiet():
        # A setting that Lightning refuses must be found before anything is written.
        make_trainer(dict(config.trainer), steps=0, gradient_clip=0.0, folder=tempfile.gettempdir())
    reference = replace(config.task, data_version=version)
    by_vocabulary: dict[int, Task] = {each.shape.vocabulary: each for each in tasks}

    def own_task(architecture: Architecture) -> Task:
        return by_vocabulary.get(architecture.vocabulary or 0) or task

    def step_flops(architecture: Architecture) -> float:
        return flops_per_step(architecture, own_task(architecture), config.budget.tokens_per_step, config.seed)

    def training_step(architecture: Architecture) -> StepShape:
        return largest_step(architecture, own_task(architecture), config.budget.tokens_per_step, config.seed)

    def schedule(architecture: Architecture) -> Schedule:
        return config.schedule(step_flops(architecture), bytes_per_token=own_task(architecture).bytes_per_token)

    def others(architecture: Architecture) -> tuple[int, ...]:
        named = dict(config.task.options).get("contexts")
        return tuple(named) if named else task.curve_contexts(architecture.max_context)

    return Plan(
        name=config.name,
        space=config.space,
        objectives=tuple(replace(found, worst=baseline.get(found.name)) for found in config.objectives),
        sampler=config.sampler,
        seed=config.seed,
        resolved={**config.resolved, "data_version": version},
        evaluator=TrainingEvaluator(),
        task=reference,
        shape=task.shape,
        schedule=schedule,
        contexts=others,
        scores_curve=any(objective.name == EFFECTIVE_CONTEXT for objective in config.objectives),
        trainer=config.trainer,
        trials=config.trials,
        stop=config.stop,
        step_flops=step_flops,
        cuts=cuts,
        budget_limits=tuple(config.budget_limits(step_flops)),
        memory_limit=config.memory_limit,
        time_limit=config.time_limit,
        early_stopping=config.early_stopping,
        confirm=config.confirm,
        training_step=training_step,
    )


def _cuts(config: StudyConfig) -> tuple[tuple[Cut, ...], list[Task]]:
    """The task with each vocabulary that is searched."""
    from nas.tasks.load import load_task

    cuts, tasks = [], []
    for vocabulary in config.space.vocabularies:
        reference = reference_with(config.task, vocabulary)
        task = load_task(reference)
        tasks.append(task)
        named = replace(reference, data_version=task.data_version)
        cuts.append(Cut(vocabulary, named, task.shape, task.bytes_per_token))
    return tuple(cuts), tasks


def plan_from_function(
    *,
    name: str,
    space: Space,
    evaluate: EvaluationFunction,
    objectives: Sequence[Objective],
    sampler: str,
    seed: int,
    memory_limit: int | None = None,
    time_limit: float | None = None,
    stop: Stop | None = None,
    confirm: ConfirmWords | None = None,
) -> Plan:
    """The plan of a user's own evaluator: any function of an architecture, with one rung.

    Raises:
        StudyError: fewer than two objectives, none of them measured, or one given twice.
    """
    from nas.measure.limit import check_memory_limit
    from nas.measure.trainer import device_of

    check_memory_limit(memory_limit, device_of({}))
    names = [objective.name for objective in objectives]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise StudyError(f"a study needs two or more objectives of different names, not {names}")
    measured = tuple(objective.name for objective in objectives if objective.known is None)
    if not measured:
        raise StudyError("at least one objective must be measured: leave out its 'known'")
    metrics = {name: metric for task in catalog.TASKS for name, metric in task_spec(task).metrics.items()}
    for objective in objectives:
        check_direction(objective, metrics)
    resolved = {
        "name": name,
        "space": dict(space.source),
        "evaluate": _name(evaluate),
        "objectives": [
            {"name": objective.name, "direction": objective.direction, "limit": objective.limit}
            for objective in objectives
        ],
        "sampler": {"name": sampler},
        "seed": seed,
    }
    if memory_limit is not None:
        resolved["memory_limit"] = memory_limit
    if time_limit is not None:
        resolved["time_limit"] = time_limit
    if stop is not None and stop.is_set:
        resolved["stop"] = stop.to_mapping()
    if confirm is not None:
        resolved["confirm"] = confirm.plain
    return Plan(
        name=name,
        space=space,
        objectives=tuple(objectives),
        sampler=SamplerWords(name=sampler),
        seed=seed,
        resolved=resolved,
        evaluator=FunctionEvaluator(evaluate, measured),
        task=TaskReference(name="function"),
        shape=None,
        schedule=lambda architecture: Schedule(tokens_per_step=1, rung_steps=(1,)),
        memory_limit=memory_limit,
        time_limit=time_limit,
        stop=stop or Stop(),
        confirm=confirm,
    )


def _name(evaluate: EvaluationFunction) -> str:
    """ "module:name" of a function; of the class, for an object that is called like one."""
    named = evaluate if inspect.isroutine(evaluate) else type(evaluate)
    return f"{named.__module__}:{named.__qualname__}"


def stored_objectives(plan: Plan, draws: Sequence[Architecture]) -> tuple[StoredObjective, ...]:
    """The objectives with the scale of their axes, fixed for the study's life.

    Args:
        plan: whose objectives they are.
        draws: feasible networks: what no candidate may be must not set the scale, for an ideal beyond a limit would
            turn the axis round.

    Measured ones run from the trivial baseline to the best value that there is; known ones from
    their limit, else the largest of the draws, to the smallest of them; bytes in powers of two.
    """
    found = []
    for objective in plan.objectives:
        if objective.known is None:
            ideal, reference = objective.best, objective.worst
        else:
            values = [known_value(objective, architecture) for architecture in draws]
            ends = (min(values), max(values)) if objective.direction == "minimize" else (max(values), min(values))
            limit = _limit(objective, plan.space)
            ideal, reference = ends[0], ends[1] if limit is None else limit
        found.append(
            StoredObjective(
                name=objective.name,
                direction=objective.direction,
                unit=objective.unit,
                known=objective.known is not None,
                reference=reference,
                ideal=ideal,
                log2=objective.is_bytes,
            )
        )
    return tuple(found)


def axes(objectives: Sequence[StoredObjective]) -> tuple[Axis, ...] | None:
    """The axes of the hypervolume, or None where an objective has no scale."""
    found = [axis(objective) for objective in objectives]
    known = tuple(one for one in found if one is not None)
    return known if len(known) == len(found) else None


def axis(objective: StoredObjective) -> Axis | None:
    """The axis of an objective, or None where it has no scale."""
    if objective.ideal is None or objective.reference is None:
        return None
    return Axis(
        direction=objective.direction,
        ideal=objective.ideal,
        reference=objective.reference,
        log2=objective.log2,
    )


def surveyed(plan: Plan) -> Survey:
    """Random draws of a plan's space, bound to its task, and what the limits of candidates make of them."""
    limits = [*limits_of(plan.space), *objective_limits(plan.objectives), *plan.budget_limits]
    return survey(plan.space, limits, bind=plan.bind)


def violations(plan: Plan, architecture: Architecture, known: Mapping[str, float]) -> dict[str, float]:
    """The limits that a bound architecture breaks, in words, and how far, above 0.

    Args:
        plan: with the constraints of its space and the limits of its objectives.
        architecture: bound to the task.
        known: the values of the known objectives.
    """
    broken = {
        rule.explain(architecture): rule.violation(architecture) for rule in plan.space.broken_constraints(architecture)
    }
    for objective in plan.objectives:
        if objective.known is not None and objective.violation(known[objective.name]) > 0:
            sign = "<=" if objective.direction == "minimize" else ">="
            form = ",.0f" if objective.is_bytes else ",.6g"
            text = f"{objective.name} {sign} {objective.limit:{form}} (it is {known[objective.name]:{form}})"
            broken[text] = objective.violation(known[objective.name])
    return broken


def _limit(objective: Objective, space: Space) -> float | None:
    """The tightest limit on an objective: its own, or a constraint of the space on the same figure."""
    limits = [] if objective.limit is None else [objective.limit]
    strictest = min if objective.direction == "minimize" else max
    operators = ("<=", "<") if objective.direction == "minimize" else (">=", ">")
    limits += [rule.limit for rule in space.constraints if _is_on(rule, objective) and rule.op in operators]
    return strictest(limits) if limits else None


def _is_on(rule: Constraint, objective: Objective) -> bool:
    return isinstance(rule.measure, Figure) and rule.measure == objective.known
