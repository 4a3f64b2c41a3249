"""The study file: what to search, on what, for what, within what.

In: a YAML file (and settings of the command line). Out: a `StudyConfig`, checked without torch,
and its *resolved* form: plain values with every default filled in and the space written out,
which the store keeps and compares when the study goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field

from nas import catalog
from nas.errors import InputError, StudyError, did_you_mean
from nas.limits import Stop, parse_stop, parse_time
from nas.objectives import Objective, named_objective
from nas.records import Schedule, TaskReference
from nas.space.architecture import Architecture
from nas.space.check import check_count, check_known
from nas.space.constraints import Constraint, Count, Figure, parse_limit
from nas.space.device import DEFAULT_RESERVE, DeviceMemory
from nas.space.feasibility import Limit
from nas.space.load import find_file, space_from_mapping
from nas.space.schema import Words, validate
from nas.space.space import Space
from nas.space.values import check_value
from nas.space.yaml_lines import Lines, load_yaml, parse_value
from nas.specs import task_spec
from nas.specs.tasks import DATA_PLACES, MetricSpec, TaskSpec
from nas.specs.tasks.data import HUB_PREFIX
from nas.specs.tasks.tokenizers import SMALLEST_VOCABULARY, TRAINED_KINDS
from nas.units import BYTES, parse_bytes, parse_factor

# What may differ when a study goes on; anything else makes another study.
DEVICE_KEYS = ("device_memory", "device_reserve")
CHANGEABLE = ("trials", "stop", *DEVICE_KEYS, "memory_limit", "time_limit", "confirm")

# Below this a limit is a number whose unit was forgotten.
SMALLEST_MEMORY_LIMIT = BYTES["MiB"]

# Options of samplers and the samplers that take them.
SAMPLER_OPTIONS = {"population": ("nsga2",), "startup": ("frontier", "tpe", "gp")}

# Arguments of lightning.Trainer that a study may give.
PASSED_KEYS = (
    "accelerator",
    "benchmark",
    "callbacks",
    "detect_anomaly",
    "deterministic",
    "devices",
    "enable_model_summary",
    "enable_progress_bar",
    "log_every_n_steps",
    "logger",
    "num_nodes",
    "plugins",
    "precision",
    "profiler",
    "strategy",
    "sync_batchnorm",
)
# Beside those that are handed to lightning.Trainer, our own.
TRAINER_KEYS = ("activation_checkpointing", *PASSED_KEYS)
# Arguments of lightning.Trainer that the study sets itself, and where to say it instead.
OWN_KEYS = {
    "max_steps": "budget",
    "max_epochs": "budget",
    "max_time": "budget",
    "gradient_clip_val": "training.gradient_clip in the space",
    "enable_checkpointing": "nothing: every rung writes a checkpoint",
    "default_root_dir": "--files",
}


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# A whole number that may be written 1e6.
Whole = Annotated[int, BeforeValidator(_whole)]


class BudgetWords(Words):
    """`budget: {tokens: 200_000, rungs: 3}`."""

    tokens: Whole | None = Field(None, ge=1)
    bytes: Whole | None = Field(None, ge=1)
    flops: float | int | None = Field(None, gt=0)
    rungs: int = Field(1, ge=1, le=12)
    rung_ratio: int = Field(2, ge=2)
    tokens_per_step: int = Field(4096, ge=1)


class ObjectiveWords(Words):
    """`{name: …, direction: …, limit: …}`."""

    name: str
    direction: str | None = None
    limit: float | int | str | None = None


class SamplerWords(Words):
    """`{name: nsga2, population: 16}`."""

    name: str
    population: int | None = Field(None, ge=2)
    startup: int | None = Field(None, ge=1)


class EarlyStoppingWords(Words):
    """`early_stopping: {margin: 1.0, audit: 0.05}`."""

    margin: float | int = Field(1.0, gt=0)
    audit: float | int = Field(0.05, ge=0, le=1)


class ConfirmWords(Words):
    """`confirm: {seeds: 3, budget: 8x, dominated: 8}`."""

    seeds: int = Field(3, ge=1)
    # A plain number is refused in words: it would be taken for tokens.
    budget: str | int | float = "1x"
    dominated: int = Field(8, ge=0)

    @property
    def factor(self) -> float:
        """The budget in multiples of the study's."""
        return parse_factor(str(self.budget))

    @property
    def plain(self) -> dict[str, Any]:
        """The words that mean something, as plain values for the store."""
        return self.model_dump(exclude=set() if self.factor > 1 else {"dominated"})


class StudyFile(Words):
    """A whole study file."""

    name: str = Field(min_length=1, max_length=200)
    space: str | dict[str, Any]
    override: dict[str, Any] = {}
    task: str | dict[str, Any]
    objectives: list[str | ObjectiveWords] = Field(min_length=2)
    budget: BudgetWords
    constraints: list[str] = []
    trials: int | None = Field(None, ge=1)
    stop: dict[str, Any] | None = None
    sampler: str | SamplerWords = "frontier"
    seed: int = Field(0, ge=0)
    trainer: dict[str, Any] = {}
    device_memory: float | int | str | None = None
    device_reserve: float | int | str = DEFAULT_RESERVE
    memory_limit: float | int | str | None = None
    time_limit: float | int | str | None = None
    # Off by default: a study that was made before there was the word goes on as it began, and its file as well.
    early_stopping: bool | EarlyStoppingWords = False
    confirm: bool | int | ConfirmWords = False


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """A checked study.

    Attributes:
        name: of the study in its store.
        space: with the override applied and the study's constraints added.
        task: by name, with its options.
        objectives: two or more.
        budget: of one candidate.
        trials: distinct candidates to train in total; None where `stop` alone ends the study.
        sampler: its name and settings.
        seed: of everything that is drawn.
        trainer: arguments for lightning.Trainer.
        device: what a candidate may take of its device; a limit in bytes is among the space's constraints already.
        resolved: the same in plain values, for the store.
        memory_limit: bytes that training a candidate may take of its device, or None.
        time_limit: seconds of wall time that a candidate may take to its last rung, or None.
        stop: what ends the study besides.
        early_stopping: how candidates are paused at rungs, or None where all are trained to the end.
        confirm: how the front is confirmed when the search is over, or None where it is not.
    """

    name: str
    space: Space
    task: TaskReference
    objectives: tuple[Objective, ...]
    budget: BudgetWords
    trials: int | None
    sampler: SamplerWords
    seed: int
    trainer: tuple[tuple[str, Any], ...]
    device: DeviceMemory | None
    resolved: Mapping[str, Any]
    memory_limit: int | None = None
    time_limit: float | None = None
    stop: Stop = field(default_factory=Stop)
    early_stopping: EarlyStoppingWords | None = None
    confirm: ConfirmWords | None = None

    def schedule(self, flops_per_step: float, bytes_per_token: float = 1.0) -> Schedule:
        """How the budget of a candidate is spent.

        Args:
            flops_per_step: training FLOPs of one of its steps; matters where the budget is FLOPs.
            bytes_per_token: of the text that it is trained on; matters where the budget is bytes.

        Raises:
            StudyError: the budget is smaller than one step a rung.
        """
        steps = rung_steps(self.budget, flops_per_step=flops_per_step, bytes_per_token=bytes_per_token)
        return Schedule(tokens_per_step=self.budget.tokens_per_step, rung_steps=steps)

    def budget_limits(self, flops_per_step: Callable[[Architecture], float]) -> list[Limit]:
        """What the budget excludes: of FLOPs, candidates of which it holds too few steps for its rungs.

        Args:
            flops_per_step: training FLOPs of one step of a candidate.
        """
        if self.budget.flops is None:
            return []
        least, flops = _least_steps(self.budget), float(self.budget.flops)
        name = f"budget.flops for {least} steps"
        return [
            Limit(f"{name} <= {flops:g}", name, lambda network: least * flops_per_step(network), "<=", flops, False)
        ]


def rung_steps(budget: BudgetWords, *, flops_per_step: float, bytes_per_token: float = 1.0) -> tuple[int, ...]:
    """Training steps at each rung, the last being the whole budget.

    Raises:
        StudyError: the budget is too small for its rungs to differ.
    """
    if budget.flops is not None:
        steps = int(float(budget.flops) // flops_per_step)
    elif budget.bytes is not None:
        steps = int(budget.bytes / (budget.tokens_per_step * bytes_per_token))
    else:
        steps = int(budget.tokens or 0) // budget.tokens_per_step
    rungs = _rungs(steps, budget)
    if len(rungs) < budget.rungs or rungs[0] < 1:
        least = _least_steps(budget)
        raise StudyError(
            f"the budget holds {steps} steps of {budget.tokens_per_step} tokens, too few for {budget.rungs} rungs: "
            f"it needs {least} steps, {least * budget.tokens_per_step:,} tokens"
        )
    return tuple(rungs)


def _rungs(steps: int, budget: BudgetWords) -> list[int]:
    return sorted({-(-steps // budget.rung_ratio**rung) for rung in range(budget.rungs)})


def _least_steps(budget: BudgetWords) -> int:
    """The fewest steps at which all rungs differ; more steps never merge them again."""
    low, high = 1, budget.rung_ratio**budget.rungs
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_rungs(middle, budget)) == budget.rungs else (middle + 1, high)
    return low


def load_study_config(path: str | Path, settings: Mapping[str, str] | None = None) -> StudyConfig:
    """The checked study of a YAML file; shipped studies are found by name too.

    Args:
        path: of the file, or the name of a shipped study.
        settings: dotted keys and YAML values that take the place of the file's.

    Raises:
        InputError: naming file, line, key, rule and the nearest valid choice.
    """
    found = find_file(path, kind="studies", beside=[Path()], error=StudyError)
    values, lines = load_yaml(found, StudyError)
    for key, text in (settings or {}).items():
        _set(values, key, text)
        lines = lines.replaced(tuple(key.split(".")), f"--set {key}={text}")
    return _config(values, lines, found.resolve().parent)


def parse_memory_limit(text: str | float) -> int:
    """The bytes of "2 GiB" or of a plain number.

    Raises:
        StudyError: no quantity of bytes, or one so small that its unit was forgotten.
    """
    try:
        size = parse_bytes(text)
    except InputError as error:
        raise StudyError(f"memory_limit: {error}") from None
    if not SMALLEST_MEMORY_LIMIT <= size < float("inf"):
        raise StudyError(f"memory_limit must be at least 1 MiB, not {text!r}: write a unit, such as '2 GiB'")
    return int(size)


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Dotted keys at which two resolved studies differ, the changeable ones left out."""
    old, new = _flat(before), _flat(after)
    differing = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    return sorted(key for key in differing if key.split(".")[0] not in CHANGEABLE)


def _config(values: Mapping[str, Any], lines: Lines, folder: Path) -> StudyConfig:
    file: StudyFile = validate(StudyFile, values, lines, StudyError)
    space_values, space = _space(file, lines, folder)
    spec, task = _task(file, space.family, lines, folder)
    families = spec.families_for(dict(task.options))
    if space.family not in families:
        # Other options than these may serve the family; where none do, whom the task serves at all is said.
        served = ", ".join(sorted(families if space.family in spec.families else spec.families))
        raise StudyError(f"{lines.at(('task',))}: task '{task.name}' does not serve family '{space.family}': {served}")
    objectives = _objectives(file, spec.metrics_for(dict(task.options)), space, lines)
    if space.vocabularies:
        _check_vocabularies(file, spec, task, space, lines)
    sampler = file.sampler if isinstance(file.sampler, SamplerWords) else SamplerWords(name=file.sampler)
    if sampler.name not in catalog.SAMPLERS and ":" not in sampler.name:
        hint = did_you_mean(sampler.name, catalog.SAMPLERS)
        raise StudyError(f"{lines.at(('sampler',))}: unknown sampler '{sampler.name}': {hint}")
    for option, owners in SAMPLER_OPTIONS.items():
        if getattr(sampler, option) is not None and sampler.name in catalog.SAMPLERS and sampler.name not in owners:
            where = lines.at(("sampler", option))
            raise StudyError(
                f"{where}: sampler '{sampler.name}' takes no '{option}': it is an option of {', '.join(owners)}"
            )
    _check_budget(file.budget, space, lines)
    _check_trainer(file.trainer, lines)
    device = _device(file, lines)
    if device is not None and device.bytes is not None:
        rule = device.constraint(file.budget.tokens_per_step, checkpointing=checkpoints(file.trainer))
        space = replace(space, constraints=(*space.constraints, rule))
    memory_limit = _memory_limit(file, lines)
    time_limit, stop = _time_limit(file, lines), _stop(file, lines)
    early_stopping = _early_stopping(file, lines)
    confirm = _confirm(file, lines)
    resolved: dict[str, Any] = {
        "name": file.name,
        "space": space_values,
        "constraints": file.constraints,
        "task": {"name": task.name, **dict(task.options)},
        "objectives": [
            words.model_dump(exclude_none=True) if isinstance(words, ObjectiveWords) else {"name": words}
            for words in file.objectives
        ],
        "budget": file.budget.model_dump(exclude_none=True),
        "sampler": sampler.model_dump(exclude_none=True),
        "seed": file.seed,
        "trainer": file.trainer,
    }
    if device is not None:
        # Studies from before there was the word stay as they are.
        resolved |= {key: getattr(file, key) for key in DEVICE_KEYS}
    if memory_limit is not None:
        # Left out where there is none, so that studies of before the word go on.
        resolved["memory_limit"] = memory_limit
    if file.trials is not None:
        resolved["trials"] = file.trials
    if time_limit is not None:
        resolved["time_limit"] = time_limit
    if stop.is_set:
        resolved["stop"] = stop.to_mapping()
    if early_stopping is not None:
        resolved["early_stopping"] = early_stopping.model_dump()
    if confirm is not None:
        resolved["confirm"] = confirm.plain
    return StudyConfig(
        name=file.name,
        space=space,
        task=task,
        objectives=objectives,
        budget=file.budget,
        trials=file.trials,
        sampler=sampler,
        seed=file.seed,
        trainer=tuple(sorted(file.trainer.items())),
        device=device,
        resolved=resolved,
        memory_limit=memory_limit,
        time_limit=time_limit,
        stop=stop,
        early_stopping=early_stopping,
        confirm=confirm,
    )


def config_from_resolved(resolved: Mapping[str, Any]) -> StudyConfig:
    """The study that a store keeps.

    Raises:
        InputError: it was written by a version whose words this one does not know.
    """
    return _config(resolved, Lines(f"study '{resolved.get('name')}'", {}), Path.cwd())


def _space_path(name: str, beside: list[Path], lines: Lines) -> Path:
    try:
        return find_file(name, kind="search_spaces", beside=beside, error=StudyError)
    except StudyError as error:
        raise StudyError(f"{lines.at(('space',))}: space: {error}") from None


def _space(file: StudyFile, lines: Lines, folder: Path) -> tuple[dict[str, Any], Space]:
    if isinstance(file.space, str):
        values, space_lines = load_yaml(_space_path(file.space, [folder, folder.parent, Path()], lines), StudyError)
        if "objectives" in values and not Path(file.space).suffix:
            # A study may bear the name of the shipped space that it searches; a space it is not.
            values, space_lines = load_yaml(_space_path(file.space, [], lines), StudyError)
    else:
        values, space_lines = file.space, lines.below("space")
    if file.override:
        values, space_lines = _merged(values, file.override), lines.below("override").over(space_lines)
    space = space_from_mapping(values, space_lines)
    for index, text in enumerate(file.constraints):
        where = lines.at(("constraints", index))
        try:
            rule = Constraint.parse(text)
            if isinstance(rule.measure, Count):
                check_count(space, rule.measure, where)
        except InputError as error:
            raise StudyError(_with_place(error, where)) from None
        _check_known(space, rule.measure, where)
        space = replace(space, constraints=(*space.constraints, rule))
    return values, space


def _check_known(space: Space, known: Callable[[Architecture], float], where: str) -> None:
    try:
        check_known(space, known, where)
    except InputError as error:
        raise StudyError(str(error)) from None


def _with_place(error: InputError, where: str) -> str:
    text = str(error)
    return text if text.startswith(where) else f"{where}: {text}"


def _task(file: StudyFile, family: str, lines: Lines, folder: Path) -> tuple[TaskSpec, TaskReference]:
    words: dict[str, Any] = {"name": file.task} if isinstance(file.task, str) else dict(file.task)
    place = lines.at(("task",))
    if "name" not in words:
        raise StudyError(f"{place}: task: 'name' is missing: {did_you_mean('', catalog.TASKS)}")
    name = str(words.pop("name"))
    try:
        spec = task_spec(name)
    except InputError as error:
        raise StudyError(f"{lines.at(('task', 'name'))}: {error}") from None
    options: dict[str, Any] = {}
    for key, value in words.items():
        where = lines.at(("task", key))
        if key not in spec.keys:
            raise StudyError(f"{where}: task '{name}' takes no '{key}': {did_you_mean(key, spec.keys)}")
        try:
            check_value(key, value, spec.keys[key], where)
        except InputError as error:
            raise StudyError(str(error)) from None
        options[key] = _placed(key, value, folder)
    for key, known in spec.keys.items():
        if key not in options and known.default is None and not known.derived:
            raise StudyError(f"{place}: task '{name}' needs '{key}' ({known.doc})")
    options = spec.objective_for(family, options)
    for broken in spec.broken_rules(options):
        raise StudyError(f"{lines.at(('task', broken.key))}: {broken.text}")
    options = spec.complete(options)
    return spec, TaskReference(name=name, options=tuple(sorted(options.items())))


def _placed(key: str, value: Any, folder: Path) -> Any:
    """A task's option with the paths in it made absolute."""
    if key in DATA_PLACES:
        return [_absolute(one, folder) for one in value] if isinstance(value, list) else _absolute(value, folder)
    if key == "tokenizer" and isinstance(value, dict) and "path" in value:
        return {**value, "path": _absolute(value["path"], folder)}
    return value


def _absolute(name: Any, folder: Path) -> Any:
    """A path or glob relative to the study file, then to the working directory; names of data stay."""
    if not isinstance(name, str) or not name or name.startswith(HUB_PREFIX):
        return name
    for base in (folder, Path.cwd()):
        if _is_there(base / name):
            return str((base / name).resolve())
        if any(mark in name for mark in "*?[") and not Path(name).is_absolute() and any(base.glob(name)):
            return str(base.resolve() / name)
    return name


def _is_there(path: Path) -> bool:
    """Whether there is such a file, or something that may not be looked at: who reads it says so."""
    try:
        return path.exists()
    except PermissionError:
        return True


def _objectives(
    file: StudyFile, metrics: Mapping[str, MetricSpec], space: Space, lines: Lines
) -> tuple[Objective, ...]:
    found: list[Objective] = []
    for index, given in enumerate(file.objectives):
        words = given if isinstance(given, ObjectiveWords) else ObjectiveWords(name=given)
        where = lines.at(("objectives", index))
        try:
            found.append(named_objective(words.name, metrics, direction=words.direction, limit=_limit(words)))
        except InputError as error:
            raise StudyError(f"{where}: {error}") from None
        known = found[-1].known
        if known is not None:
            _check_known(space, known, where)
        if any(other.name == words.name for other in found[:-1]):
            raise StudyError(f"{where}: objective '{words.name}' is given twice")
    if all(objective.known for objective in found):
        names = ", ".join(metrics)
        raise StudyError(f"{lines.at(('objectives',))}: at least one objective must be measured: {names}")
    return tuple(found)


def _limit(words: ObjectiveWords) -> float | None:
    if words.limit is None:
        return None
    try:
        return parse_limit(Figure(words.name.partition("@")[0]), words.limit)
    except InputError as error:
        raise StudyError(f"limit of '{words.name}': {error}") from None


def _check_vocabularies(file: StudyFile, spec: TaskSpec, task: TaskReference, space: Space, lines: Lines) -> None:
    """The rules of a study whose space searches the vocabulary: nothing may count tokens, which hold unequal text."""
    options = dict(task.options)
    named: Any = options.get("tokenizer")
    kind = named.get("kind") if isinstance(named, Mapping) else named
    if kind not in TRAINED_KINDS or (isinstance(named, Mapping) and "vocabulary" in named):
        raise StudyError(
            f"{lines.at(('task', 'tokenizer'))}: the space searches the vocabulary: the tokenizer must be one that is "
            f"trained, without a vocabulary of its own: {{kind: {' or '.join(TRAINED_KINDS)}}}"
        )
    smallest = min(space.vocabularies)
    if smallest < SMALLEST_VOCABULARY:
        raise StudyError(
            f"{lines.at(('space',))}: a tokenizer's vocabulary must be at least {SMALLEST_VOCABULARY}, not {smallest}"
        )
    if file.budget.tokens is not None:
        raise StudyError(
            f"{lines.at(('budget',))}: budget: tokens of different vocabularies hold unequal text: give bytes or flops"
        )
    if "contexts" in options:
        raise StudyError(
            f"{lines.at(('task', 'contexts'))}: contexts count tokens, which hold unequal text where the vocabulary is "
            "searched: leave them out, and each candidate is scored at parts of its own max_context"
        )
    metrics = spec.metrics_for(options)
    for index, words in enumerate(file.objectives):
        name = words if isinstance(words, str) else words.name
        where = lines.at(("objectives", index))
        if name in metrics and metrics[name].counts_tokens:
            others = ", ".join(other for other, known in metrics.items() if not known.counts_tokens)
            raise StudyError(f"{where}: '{name}' counts tokens, which hold unequal text here: take one of {others}")
        if "context=" in name:
            raise StudyError(f"{where}: '{name}' names a context in tokens, which hold unequal text here: leave it out")
    for rule in space.constraints:
        if "context=" in rule.text:
            raise StudyError(
                f"{lines.at(('constraints',))}: '{rule.text}' names a context in tokens, which hold unequal text where "
                "the vocabulary is searched: leave it out"
            )


def _check_budget(budget: BudgetWords, space: Space, lines: Lines) -> None:
    given = [name for name in ("tokens", "bytes", "flops") if getattr(budget, name) is not None]
    if len(given) != 1:
        raise StudyError(f"{lines.at(('budget',))}: budget: give exactly one of tokens, bytes, flops")
    longest = max(int(context) for context in space.globals["max_context"].domain.grid or ())
    if longest > budget.tokens_per_step:
        raise StudyError(
            f"{lines.at(('budget',))}: tokens_per_step must hold a whole context: "
            f"{budget.tokens_per_step} is below the max_context of {longest}"
        )
    if budget.flops is None:
        try:
            rung_steps(budget, flops_per_step=1.0)
        except StudyError as error:
            raise StudyError(f"{lines.at(('budget',))}: {error}") from None


def checkpoints(trainer: Mapping[str, Any]) -> bool:
    """Whether layers keep their input alone and run again on the way back."""
    return bool(trainer.get("activation_checkpointing", False))


def _device(file: StudyFile, lines: Lines) -> DeviceMemory | None:
    if file.device_memory is None:
        if "device_reserve" in file.model_fields_set:
            raise StudyError(f"{lines.at(('device_reserve',))}: device_reserve is of device_memory: give auto or bytes")
        return None
    try:
        return DeviceMemory.parse(file.device_memory, file.device_reserve)
    except InputError as error:
        key = "device_reserve" if str(error).startswith("device_reserve") else "device_memory"
        raise StudyError(f"{lines.at((key,))}: {error}") from None


def _memory_limit(file: StudyFile, lines: Lines) -> int | None:
    try:
        return None if file.memory_limit is None else parse_memory_limit(file.memory_limit)
    except StudyError as error:
        raise StudyError(f"{lines.at(('memory_limit',))}: {error}") from None


def _time_limit(file: StudyFile, lines: Lines) -> float | None:
    try:
        return None if file.time_limit is None else parse_time(file.time_limit)
    except StudyError as error:
        raise StudyError(f"{lines.at(('time_limit',))}: {error}") from None


def _stop(file: StudyFile, lines: Lines) -> Stop:
    stop = parse_stop(file.stop, lines.below("stop"))
    if file.trials is None and not stop.is_set:
        raise StudyError(f"{lines.at(())}: 'trials' is missing: how many candidates, or 'stop', which ends the study")
    if stop.tokens is not None and file.budget.tokens is not None:
        # Of other budgets the first rung depends on the candidate.
        first = rung_steps(file.budget, flops_per_step=1.0)[0] * file.budget.tokens_per_step
        if stop.tokens < first:
            raise StudyError(
                f"{lines.at(('stop', 'tokens'))}: stop.tokens {stop.tokens:,.0f} is below the first rung of one "
                f"candidate: give at least {first:,}"
            )
    return stop


def _early_stopping(file: StudyFile, lines: Lines) -> EarlyStoppingWords | None:
    words = file.early_stopping
    if words is False:
        return None
    if file.budget.rungs < 2:
        raise StudyError(
            f"{lines.at(('early_stopping',))}: early_stopping compares candidates at rungs before the last: "
            f"budget.rungs must be at least 2, not {file.budget.rungs}"
        )
    return EarlyStoppingWords() if words is True else words


def parse_confirm(value: bool | int | Mapping[str, Any] | ConfirmWords | None) -> ConfirmWords | None:
    """What `confirm: 3`, `confirm: {seeds: 3, budget: 8x}` or the like asks for; None for false.

    Raises:
        StudyError: seeds or a budget that mean nothing.
    """
    if value is None or value is False:
        return None
    if value is True:
        return ConfirmWords()
    if not isinstance(value, int | Mapping | ConfirmWords):
        raise StudyError(f"confirm must be a whole number of further seeds or a mapping, not {value!r}: confirm: 3")
    if isinstance(value, Mapping):
        words: ConfirmWords = validate(ConfirmWords, value, Lines("confirm", {}), StudyError)
    else:
        words = ConfirmWords.model_construct(seeds=value) if isinstance(value, int) else value
    if words.seeds < 1:
        raise StudyError(f"confirm must be at least 1 further seed, not {words.seeds}: false confirms nothing")
    try:
        factor = words.factor
    except InputError as error:
        raise StudyError(f"confirm.budget: {error}") from None
    if factor == 1 and "dominated" in words.model_fields_set:
        raise StudyError("confirm.dominated: dominated candidates are trained at a budget above 1x alone: give one")
    return words


def _confirm(file: StudyFile, lines: Lines) -> ConfirmWords | None:
    try:
        return parse_confirm(file.confirm)
    except StudyError as error:
        raise StudyError(f"{lines.at(('confirm',))}: {error}") from None


def _check_trainer(trainer: Mapping[str, Any], lines: Lines) -> None:
    for key in trainer:
        where = lines.at(("trainer", key))
        if key in OWN_KEYS:
            raise StudyError(f"{where}: trainer.{key} is set by the study; say it in {OWN_KEYS[key]}")
        if key not in TRAINER_KEYS:
            hint = did_you_mean(key, TRAINER_KEYS)
            raise StudyError(f"{where}: trainer passes no '{key}' to lightning.Trainer: {hint}")
    if str(trainer.get("precision")).startswith("16"):
        raise StudyError(
            f"{lines.at(('trainer', 'precision'))}: fp16 needs a loss scaler, which checkpoints do not keep: "
            "give bf16-mixed or bf16-true"
        )
    checkpointing = trainer.get("activation_checkpointing", False)
    if not isinstance(checkpointing, bool):
        where = lines.at(("trainer", "activation_checkpointing"))
        raise StudyError(f"{where}: activation_checkpointing must be true or false, not {checkpointing!r}")
    devices = trainer.get("devices", 1)
    is_one_index = isinstance(devices, list) and len(devices) == 1
    if not (is_one_index or devices == "auto" or (devices == 1 and not isinstance(devices, bool))):
        raise StudyError(
            f"{lines.at(('trainer', 'devices'))}: trainer.devices must be 1, auto or the list of one index, not "
            f"{devices!r}: a candidate trains on one device, and --workers trains several candidates at once"
        )


def _set(values: dict[str, Any], key: str, text: str) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        below = values.setdefault(parent, {})
        if not isinstance(below, dict):
            raise StudyError(f"--set {key}: '{parent}' holds no keys")
        values = below
    try:
        values[last] = parse_value(text)
    except yaml.YAMLError:
        raise StudyError(f"--set {key}: '{text}' is not a YAML value") from None


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Deep merge: a mapping is merged key by key, except that a draw replaces a draw whole."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        is_draw = isinstance(value, Mapping) and bool({"choice", "range", "log_range"} & set(value))
        both = isinstance(value, Mapping) and isinstance(old, Mapping) and not is_draw
        merged[key] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(values, Mapping) and values:
        found: dict[str, Any] = {}
        for key, value in values.items():
            found |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
        return found
    if values == {}:
        return {}
    return {prefix: list(values) if isinstance(values, tuple) else values}
