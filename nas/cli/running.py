"""Commands that run a study and show it: run, report, dashboard."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import InputError, StudyError
from nas.specs import family_spec
from nas.units import parse_count, parse_seconds

if TYPE_CHECKING:
    from nas.study import Study

STORE = "sqlite:///nas.db"


def run(arguments: argparse.Namespace) -> int:
    """nas run STUDY"""
    be_a_good_neighbour()
    from nas.cli.progress import Display
    from nas.study import Study

    if arguments.trials is not None and arguments.trials < 1:
        raise StudyError(f"--trials must be at least 1, not {arguments.trials}")
    seconds = run_seconds(arguments)
    with Study.load(
        arguments.study, store=arguments.store, files=arguments.files, settings=_settings(arguments)
    ) as study:
        try:
            with Display(quiet=arguments.quiet) as display:
                study.run(
                    trials=arguments.trials,
                    seconds=seconds,
                    tokens=_count(arguments.tokens, "--tokens"),
                    flops=_count(arguments.flops, "--flops"),
                    workers=arguments.workers,
                    dask=arguments.dask,
                    progress=display.show,
                )
        except KeyboardInterrupt:
            print(_stopped(study, arguments), file=sys.stderr)
            return 130
        return _summary(study, arguments)


def report(arguments: argparse.Namespace) -> int:
    """nas report STUDY --to DIR"""
    from nas.cli.inspecting import _open, _stored_name
    from nas.report.html import write_report

    with _open(arguments) as store:
        print(write_report(store, _stored_name(arguments.study), Path(arguments.to)))
    return 0


def dashboard(arguments: argparse.Namespace) -> int:
    """nas dashboard"""
    from nas.cli.inspecting import _open
    from nas.report.dashboard import serve_dashboard

    with _open(arguments) as store:
        serve_dashboard(store, host=arguments.host, port=arguments.port)
    return 0


def _count(text: str | None, option: str) -> float | None:
    try:
        return None if text is None else parse_count(text)
    except InputError as error:
        raise StudyError(f"{option}: {error}") from None


def _settings(arguments: argparse.Namespace) -> dict[str, str]:
    settings: dict[str, str] = {}
    for text in arguments.set:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise StudyError(f"--set takes key=value, not '{text}'")
        settings[key.strip()] = value
    if arguments.name is not None:
        # JSON's quoting is YAML's too, whatever the name holds.
        settings["name"] = json.dumps(arguments.name)
    if arguments.seed is not None:
        settings["seed"] = str(arguments.seed)
    return settings


def run_seconds(arguments: argparse.Namespace) -> float | None:
    """The seconds of --time, or None.

    Raises:
        StudyError: nothing and less.
    """
    seconds = None if arguments.time is None else parse_seconds(arguments.time)
    if seconds is not None and seconds <= 0:
        raise StudyError(f"--time must be above 0, not '{arguments.time}'")
    return seconds


def be_a_good_neighbour() -> None:
    """Set before torch is imported: busy waiting slows threads 10 to 20 times beside any other load."""
    import os

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")


def _summary(study: Study, arguments: argparse.Namespace) -> int:
    from nas.report.tables import render_front

    stored = study.store.study(study.name)
    if not study.store.trials(stored, states=["complete"]):
        print(f"nas: no candidate of study '{study.name}' is complete yet (see nas status)", file=sys.stderr)
        # Out of time is no failure; out of luck is one.
        return 1 if study.store.trials(stored, states=["failed"]) else 0
    print(render_front(study.store, stored))
    first = stored.objectives[0]
    best = study.best(first.name)
    if first.reference is not None and not first.known:
        sign = 1.0 if first.direction == "minimize" else -1.0
        if sign * best.values[first.name] >= sign * first.reference:
            print(f"\nNo candidate beats the trivial baseline in {first.name}: give each a larger budget.")
    name, place, folder = shlex.quote(study.name), _place(arguments), shlex.quote(f"{study.name}-{best.number}")
    commands = [
        (f"nas show {name} {best.number}{place}", "the best candidate in full"),
        (f"nas report {name} --to {shlex.quote(f'{study.name}-report')}{place}", "a page with pictures"),
        (f"nas dashboard{place}", "browse every trial"),
    ]
    if "task" in stored.resolved:
        commands.insert(1, (f"nas export {name} --trial {best.number} --to {folder}{place}", "a checkpoint of it"))
        family = best.candidate.architecture.family
        if stored.resolved["task"]["name"] == "language_modeling" and family_spec(family).decodes:
            commands.insert(2, (f'nas generate {folder} "The " --tokens 100', "text from the checkpoint"))
    width = max(len(command) for command, _ in commands) + 2
    print("\nNext:")
    for command, about in commands:
        print(f"  {command:<{width}}{about}")
    return 0


def _stopped(study: Study, arguments: argparse.Namespace) -> str:
    if not study.is_stored:
        return "nas: stopped before anything was written"
    return f"nas: stopped; finished candidates are kept, and '{_same_study(study, arguments)}' goes on"


def _same_study(study: Study, arguments: argparse.Namespace) -> str:
    """The command that goes on with a study: by its name, for the store holds the rest."""
    words = ["nas", "run", study.name]
    words += ["--trials", str(arguments.trials)] if arguments.trials is not None else []
    words += ["--tokens", arguments.tokens] if arguments.tokens is not None else []
    words += ["--flops", arguments.flops] if arguments.flops is not None else []
    words += ["--workers", str(arguments.workers)] if arguments.workers else []
    words += ["--dask", arguments.dask] if arguments.dask is not None else []
    return f"{shlex.join(words)}{_place(arguments)}"


def _place(arguments: argparse.Namespace) -> str:
    """The options that say where the store is, unless it is where it is looked for."""
    words = [] if arguments.store == STORE else ["--store", arguments.store]
    words += [] if arguments.files is None else ["--files", arguments.files]
    return f" {shlex.join(words)}" if words else ""
