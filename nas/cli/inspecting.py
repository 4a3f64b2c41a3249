"""Commands that look and change nothing: check, status, front, show."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.inputs import find, size_in_words
from nas.config import StudyConfig, load_study_config
from nas.cost.estimate import estimate as cost_of
from nas.errors import InputError, SpaceError, StudyError, did_you_mean
from nas.mixers.kernels import describe as kernel_of
from nas.objectives import objective_limits
from nas.space.architecture import Architecture
from nas.space.feasibility import Limit, limits_of, survey
from nas.space.space import Space
from nas.space.yaml_lines import load_yaml
from nas.specs.base import Value
from nas.specs.tasks.data import DATA_PLACES, HUB_PREFIX, PREPARED
from nas.units import format_bytes, format_count

if TYPE_CHECKING:
    from nas.store import Store, StoredStudy, StoredTrial


def check(arguments: argparse.Namespace) -> int:
    """nas check FILE…"""
    failed = 0
    for name in arguments.files:
        try:
            print(_checked(name))
        except InputError as error:
            failed = error.exit_status
            # Errors of several files are all of interest; each is one line.
            _complain(error)
    return failed


def status(arguments: argparse.Namespace) -> int:
    """nas status, nas list"""
    from nas.report.confirm import confirm_lines
    from nas.report.failures import ended_lines, failure_lines
    from nas.report.memory import correction_lines
    from nas.report.stopping import stopping_lines
    from nas.report.tables import render_table, status_table

    with _open(arguments) as store:
        print(render_table(status_table(store)))
        for study in store.studies():
            for line in (*ended_lines(study), *failure_lines(store, study)):
                print(line)
        for line in (*stopping_lines(store), *confirm_lines(store), *correction_lines(store)):
            print(line)
    return 0


def front(arguments: argparse.Namespace) -> int:
    """nas front STUDY"""
    from nas.report.tables import front_csv, front_html, front_records, front_table, render_front

    with _open(arguments) as store:
        study = store.study(_stored_name(arguments.study))
        if arguments.format == "json":
            print(json.dumps(front_records(store, study), indent=2))
        elif arguments.format == "csv":
            print(front_csv(front_table(store, study)), end="")
        elif arguments.format == "html":
            print(front_html(front_table(store, study)))
        else:
            print(render_front(store, study))
    return 0


def show(arguments: argparse.Namespace) -> int:
    """nas show STUDY TRIAL…"""
    with _open(arguments) as store:
        study = store.study(_stored_name(arguments.study))
        trials = [store.trial(study, number) for number in dict.fromkeys(arguments.trials)]
        for place, trial in enumerate(trials):
            print("" if place == 0 else "\n", end="")
            _show_trial(store, study, trial)
        networks = {f"trial {trial.number}": trial.candidate.architecture for trial in trials}
        if arguments.plot is not None:
            _plot(networks, Path(arguments.plot))
        from nas.report.memory_curves import memory_chart

        print("\n".join(memory_chart(networks)))
    return 0


def _show_trial(store: Store, study: StoredStudy, trial: StoredTrial) -> None:
    from nas.report.memory import corrected_lines
    from nas.report.tables import render_table

    _print_trial(trial)
    memory = store.memory(study, trial.number)
    memory.attrs["notes"] = corrected_lines(store, study, trial)
    for title, frame, columns in (
        ("Measurements", store.measurements(study, trial.number), _MEASUREMENT),
        ("Memory", memory, _MEMORY),
        ("Checkpoints", store.checkpoints(study, trial.number), ["step", "bytes", "path"]),
        ("Decisions", store.decisions(study, trial.number), ["action", "reason"]),
    ):
        if len(frame):
            print(f"\n{title}\n{render_table(frame[columns])}")


def _plot(networks: Mapping[str, Architecture], path: Path) -> None:
    from nas.report.canvas import to_png
    from nas.report.memory_curves import plot_memory

    if path.suffix != ".png":
        raise InputError(f"--plot writes PNG: a name that ends in .png, such as '{path.with_suffix('.png')}'")
    if not path.parent.is_dir():
        raise InputError(f"--plot: there is no folder '{path.parent}' to write to")
    path.write_bytes(to_png(plot_memory(networks)))


_MEASUREMENT = ["metric", "value", "unit", "step", "context", "split", "seed"]
_MEMORY = ["figure", "kind", "bytes", "batch", "context", "dtype", "device"]


def _checked(name: str) -> str:
    found = find(name)
    values, _ = load_yaml(found, StudyError)
    if "objectives" in values or "task" in values:
        config = load_study_config(found)
        _check_data(config, found)
        return _describe_study(config, found)
    return _describe_space(Space.load(found), found)


def _check_data(config: StudyConfig, path: Path) -> None:
    """Whether the files are there; what they hold is read when the study is run."""
    options = dict(config.task.options)
    for key in DATA_PLACES:
        wanted = options.get(key, [])
        for name in wanted if isinstance(wanted, list) else [wanted]:
            _check_place(f"{path}: task.{key}", str(name), path)
    tokenizer = options.get("tokenizer")
    if isinstance(tokenizer, dict) and "path" in tokenizer:
        _check_place(f"{path}: task.tokenizer.path", str(tokenizer["path"]), path, prepared=())


def _check_place(where: str, name: str, path: Path, prepared: Sequence[str] = PREPARED) -> None:
    # Names of the hub are looked up when the study is run.
    if name.startswith(HUB_PREFIX) or name in prepared:
        return
    try:
        if Path(name).expanduser().exists():
            return
    except PermissionError as error:
        raise StudyError(f"{where}: cannot read '{name}': {error.strerror}") from None
    if any(mark in name for mark in "*?["):
        # One that fits something is absolute by now, or was from the start.
        found = Path(name).expanduser()
        if found.is_absolute() and any(Path(found.anchor).glob(str(found.relative_to(found.anchor)))):
            return
        raise StudyError(f"{where}: no file is named like '{name}'")
    folder = path.resolve().parent / Path(name).parent
    names = [found.name for found in folder.glob("*")] if folder.is_dir() else []
    hint = did_you_mean(Path(name).name, [*names, *prepared])
    raise StudyError(f"{where}: there is nothing at '{name}': {hint}")


def _describe_study(config: StudyConfig, path: Path) -> str:
    # The vocabulary is the task's, which needs its data: a byte-level one stands in for it here.
    _refuse_infeasible(config.space, [*limits_of(config.space), *objective_limits(config.objectives)], path)
    sample = config.space.sample(config.seed)
    schedule = config.schedule(cost_of(sample).flops_per_token * config.budget.tokens_per_step)
    ends = " or ".join(
        [*([] if config.trials is None else [f"{config.trials} candidates"]), *filter(None, [config.stop.in_words()])]
    )
    objectives = ", ".join(
        f"{found.name} ({found.direction}{', known' if found.known else ''})" for found in config.objectives
    )
    return (
        f"{path}: study '{config.name}' is valid\n"
        f"  space       {config.space.name}, {size_in_words(config.space)}\n"
        f"  task        {config.task.name} ({', '.join(f'{key} {value}' for key, value in config.task.options)})\n"
        f"  objectives  {objectives}\n"
        f"  budget      {ends}, rungs at steps {', '.join(map(str, schedule.rung_steps))} "
        f"of {schedule.tokens_per_step} tokens\n"
        f"  sampler     {config.sampler.name}, seed {config.seed}{_describe_confirm(config)}"
    )


def _describe_confirm(config: StudyConfig) -> str:
    words = config.confirm
    if words is None:
        return ""
    seeds = f"{words.seeds} further seed{'s' if words.seeds > 1 else ''}"
    return f"\n  confirm     the front, with {seeds} at {words.factor:g}x the budget"


def _refuse_infeasible(space: Space, limits: list[Limit], path: Path) -> None:
    # Without limits there is nothing to weigh, and a check is to answer at once.
    if not limits:
        return
    try:
        survey(space, limits).refuse_infeasible()
    except SpaceError as error:
        raise SpaceError(f"{path}: {error}") from None


def _describe_space(space: Space, path: Path) -> str:
    _refuse_infeasible(space, limits_of(space), path)
    sample = space.sample(0)
    lines = [f"{path}: space '{space.name}' is valid", f"  size        {size_in_words(space)}"]
    lines += [f"  constraint  {rule.text}" for rule in space.constraints]
    lines.append(f"  a sample    {sample.to_json()}")
    return "\n".join(lines)


def _print_trial(trial: StoredTrial) -> None:
    architecture = trial.candidate.architecture
    print(f"trial {trial.number}: {trial.state} ({trial.reason})")
    print(f"  fingerprint  {architecture.fingerprint}, candidate {trial.candidate.key}, seed {trial.seed}")
    if trial.role == "confirm":
        print(f"  replicate    of the search's candidate, at {trial.budget:g}x the study's budget")
    for name, value in trial.values.items():
        shown = format_bytes(value) if name.partition("@")[0].endswith("_bytes") else f"{value:.5g}"
        print(f"  {name:<12} {shown}")
    print(f"  trained      {trial.tokens:,} tokens, {format_count(trial.flops)} FLOPs, {trial.seconds:.1f} s")
    for name, setting in trial.candidate.training:
        print(f"  {name:<12} {setting:.4g}")
    print(f"  width {architecture.width}, depth {architecture.depth}, max_context {architecture.max_context}")
    for name, layers in (("encoder ", architecture.encoder_layers), ("", architecture.layers)):
        for index, layer in enumerate(layers):
            options = (f"{key} {_plain(value)}" for key, value in layer.options)
            print(f"  {name}layer {index:<3} {layer.mixer} ({', '.join(options)})")
    for mixer in sorted({layer.mixer for layer in architecture.all_layers}):
        print(f"  kernel       {mixer}: {kernel_of(mixer, 'cpu')} on a CPU, {kernel_of(mixer, 'cuda')} on CUDA")
    if trial.failure is not None and trial.failure.traceback:
        print(trial.failure.traceback)


def _plain(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _stored_name(study: str) -> str:
    """The name under which a study is stored: the file's, where a file is given."""
    return load_study_config(study).name if Path(study).is_file() else study


def _open(arguments: argparse.Namespace) -> Store:
    from nas.store import Store

    return Store.open(arguments.store, files=arguments.files)


def _complain(error: InputError) -> None:
    import sys

    print(f"nas: {error}", file=sys.stderr)
