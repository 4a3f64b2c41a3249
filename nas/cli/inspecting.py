"""Commands that look and change nothing: check, estimate, status, front, show."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from nas.config import StudyConfig, load_study_config
from nas.cost.estimate import Estimate
from nas.cost.estimate import estimate as cost_of
from nas.errors import InputError, SpaceError, StudyError, did_you_mean
from nas.mixers.kernels import describe as kernel_of
from nas.space.architecture import Architecture
from nas.space.load import find_file
from nas.space.space import Space
from nas.space.yaml_lines import load_yaml
from nas.specs.base import Value
from nas.specs.tasks.data import DATA_PLACES, HUB_PREFIX, PREPARED
from nas.units import format_bytes, format_count

if TYPE_CHECKING:
    from nas.store import Store, StoredTrial

SAMPLES = 500


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


def estimate(arguments: argparse.Namespace) -> int:
    """nas estimate FILE"""
    path = Path(arguments.file)
    if path.suffix == ".json":
        architecture = _architecture_of(path)
        for context in arguments.context or [None]:
            _print_estimate(cost_of(architecture, context=context, batch=arguments.batch, dtype=arguments.dtype))
        return 0
    space = _space_of(arguments.file)
    draws = list(islice(space.samples(0), 1 if space.size == 1 else SAMPLES))
    print(f"{space.name}: {_size(space)}; " + ("one network" if len(draws) == 1 else f"{len(draws)} feasible draws"))
    for context in arguments.context or [None]:
        _print_range(draws, context, arguments.batch, arguments.dtype)
    return 0


def status(arguments: argparse.Namespace) -> int:
    """nas status, nas list"""
    from nas.report.memory import correction_lines
    from nas.report.tables import render_table, status_table

    with _open(arguments) as store:
        print(render_table(status_table(store)))
        for study in store.studies():
            for trial in store.trials(study, states=["failed"]):
                print(f"{study.name}: trial {trial.number} failed: {trial.reason}")
            for trial in store.trials(study, states=["infeasible"]):
                if trial.failure is not None:
                    print(f"{study.name}: trial {trial.number} ran {trial.reason}")
        for line in correction_lines(store):
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
    """nas show STUDY TRIAL"""
    from nas.report.memory import corrected_lines
    from nas.report.tables import render_table

    with _open(arguments) as store:
        study = store.study(_stored_name(arguments.study))
        trial = store.trial(study, arguments.trial)
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
    return 0


_MEASUREMENT = ["metric", "value", "unit", "step", "context", "split", "seed"]
_MEMORY = ["figure", "kind", "bytes", "batch", "context", "dtype", "device"]


def _checked(name: str) -> str:
    found = _file(name)
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
    sample = config.space.sample(config.seed)
    schedule = config.schedule(cost_of(sample).flops_per_token * config.budget.tokens_per_step)
    objectives = ", ".join(
        f"{found.name} ({found.direction}{', known' if found.known else ''})" for found in config.objectives
    )
    return (
        f"{path}: study '{config.name}' is valid\n"
        f"  space       {config.space.name}, {_size(config.space)}\n"
        f"  task        {config.task.name} ({', '.join(f'{key} {value}' for key, value in config.task.options)})\n"
        f"  objectives  {objectives}\n"
        f"  budget      {config.trials} candidates, rungs at steps {', '.join(map(str, schedule.rung_steps))} "
        f"of {schedule.tokens_per_step} tokens\n"
        f"  sampler     {config.sampler.name}, seed {config.seed}"
    )


def _describe_space(space: Space, path: Path) -> str:
    sample = space.sample(0)
    lines = [f"{path}: space '{space.name}' is valid", f"  size        {_size(space)}"]
    lines += [f"  constraint  {rule.text}" for rule in space.constraints]
    lines.append(f"  a sample    {sample.to_json()}")
    return "\n".join(lines)


def _size(space: Space) -> str:
    names = [parameter.name for parameter in space.parameters if parameter.name.startswith("training.")]
    networks = "continuous" if space.size == float("inf") else f"{space.size:,.0f} architectures"
    return f"{networks} in {len(space.parameters)} parameters" + (f" ({', '.join(names)} included)" if names else "")


def _print_estimate(cost: Estimate) -> None:
    print(f"context {cost.context:,}, batch {cost.batch}, weights and cache {cost.dtype}, recurrent state fp32")
    print(f"  parameters          {cost.parameters:,}")
    for name in ("param_bytes", "state_bytes", "serve_bytes", "prefill_peak_bytes", "train_peak_bytes"):
        value = getattr(cost, name)
        note = " (estimate)" if "peak" in name else ""
        print(f"  {name:<19} {value:,} ({format_bytes(value)}){note}")
    print(f"  flops_per_token     {format_count(cost.flops_per_token)} (training)")


def _print_range(draws: list[Architecture], context: int | None, batch: int, dtype: str) -> None:
    costs = [cost_of(found, context=context, batch=batch, dtype=dtype) for found in draws]
    print(f"context {'max_context' if context is None else context}, batch {batch}, {dtype}: smallest, median, largest")
    for name in ("param_bytes", "state_bytes", "serve_bytes", "prefill_peak_bytes", "train_peak_bytes"):
        values = [float(getattr(cost, name)) for cost in costs]
        print(f"  {name:<19} " + "  ".join(f"{format_bytes(value):>9}" for value in _three(values)))
    flops = [cost.flops_per_token for cost in costs]
    print(f"  {'flops_per_token':<19} " + "  ".join(f"{format_count(value):>9}" for value in _three(flops)))


def _three(values: list[float]) -> Iterator[float]:
    yield from (min(values), statistics.median(values), max(values))


def _print_trial(trial: StoredTrial) -> None:
    architecture = trial.candidate.architecture
    print(f"trial {trial.number}: {trial.state} ({trial.reason})")
    print(f"  fingerprint  {architecture.fingerprint}, candidate {trial.candidate.key}, seed {trial.seed}")
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


def _architecture_of(path: Path) -> Architecture:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpaceError(f"no file '{path}'") from None
    except UnicodeDecodeError as broken:
        raise SpaceError(f"{path}: not UTF-8 text (byte {broken.start})") from None
    except OSError as broken:
        raise SpaceError(f"{path}: cannot be read: {broken.strerror}") from None
    return Architecture.from_json(text)


def _space_of(name: str) -> Space:
    found = _file(name)
    values, _ = load_yaml(found, StudyError)
    return load_study_config(found).space if "objectives" in values else Space.load(found)


def _file(name: str) -> Path:
    try:
        return find_file(name, kind="studies", beside=[Path()], error=StudyError)
    except StudyError:
        return find_file(name, kind="search_spaces", beside=[Path()], error=StudyError)


def _stored_name(study: str) -> str:
    """The name under which a study is stored: the file's, where a file is given."""
    return load_study_config(study).name if Path(study).is_file() else study


def _open(arguments: argparse.Namespace) -> Store:
    from nas.store import Store

    return Store.open(arguments.store, files=arguments.files)


def _complain(error: InputError) -> None:
    import sys

    print(f"nas: {error}", file=sys.stderr)
