"""A page about a study: static, self-contained, for a browser, a mail or an archive.

In: a store, the name of a study, a new folder. Out: `index.html` with its pictures inline, and
beside it the same pictures as PNG, the front as CSV and JSON. The page loads nothing from
anywhere and holds no script; what users wrote (names, paths, reasons) is escaped.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from nas.errors import MissingExtraError, StudyError
from nas.files import refuse_taken
from nas.report.canvas import to_png, to_svg
from nas.report.confirm import confirmed_table, study_lines
from nas.report.failures import failures_in_words
from nas.report.plots import plot_context, plot_front, plot_hypervolume, plot_learning_curves
from nas.report.series import context_curves, learning_curves, trials_of
from nas.report.tables import front_csv, front_records, front_table
from nas.report.wording import Grid, axis_label, grid, value_text
from nas.store import Store, StoredStudy
from nas.units import format_count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULT_STORE = "sqlite:///nas.db"
STATES = ("complete", "running", "paused", "failed", "infeasible")


def write_report(store: Store, study_name: str, folder: Path) -> Path:
    """Writes the page and its files.

    Args:
        store: that holds the study.
        study_name: of the study.
        folder: new or empty.

    Returns:
        The path of `index.html`.

    Raises:
        StoreError: there is no study of that name.
        StudyError: the folder holds something, or cannot be written.
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    refuse_taken(folder)
    study = store.study(study_name)
    pictures = _pictures(store, study)
    files = {f"{name}.png": to_png(figure) for name, figure in pictures.items()}
    files["front.csv"] = front_csv(front_table(store, study)).encode()
    files["front.json"] = json.dumps(front_records(store, study), indent=2).encode()
    files["index.html"] = _page(store, study, pictures).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise StudyError(f"the report cannot be written to '{folder}': {error.strerror or error}") from error
    return folder / "index.html"


def _pictures(store: Store, study: StoredStudy) -> dict[str, Figure]:
    """The pictures that have something to show."""
    found: dict[str, Figure] = {}
    if len(store.front(study)):
        found["front"] = plot_front(store, study)
    if store.fronts(study)["hypervolume"].notna().any():
        found["hypervolume"] = plot_hypervolume(store, study)
    # A single rung makes points, not curves.
    if learning_curves(store, study)["step"].nunique() > 1:
        found["learning_curves"] = plot_learning_curves(store, study)
    if len(context_curves(store, study)):
        found["context"] = plot_context(store, study)
    return found


def _page(store: Store, study: StoredStudy, pictures: Mapping[str, Figure]) -> str:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError:
        raise MissingExtraError("a report", "report") from None
    environment = Environment(
        loader=PackageLoader("nas.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    front, trials, history = front_table(store, study), trials_of(store, study), store.fronts(study)
    return environment.get_template("page.html.jinja").render(
        name=study.name,
        created=f"{study.created_at:%Y-%m-%d %H:%M} UTC",
        facts=_facts(study, front, trials, history),
        failures=failures_in_words(trials),
        # Made by matplotlib from numbers and escaped names.
        pictures={name: Markup(to_svg(figure, name=name)) for name, figure in pictures.items()},
        front=grid(front),
        baseline=_baseline_row(study, front),
        notes=_front_notes(store, study, front),
        objectives=[_objective_in_words(study, index) for index in range(len(study.objectives))],
        searched=_searched(study.resolved),
        confirmed=_confirmed(store, study),
        confirm_notes=study_lines(store, study),
        trials=grid(_shown_trials(study, trials)),
        memory=_memory(store, study, front),
        environments=_environments(store, study),
        commands=_commands(store, study, front),
    )


def _facts(study: StoredStudy, front: pd.DataFrame, trials: pd.DataFrame, history: pd.DataFrame) -> list[list[str]]:
    """Big numbers and what they are."""
    counts = {state: int((trials["state"] == state).sum()) for state in STATES}
    planned = study.resolved.get("trials")
    states = [f"{count} {state}" for state, count in counts.items() if count and state != "complete"]
    if study.duplicates:
        states.append(f"{study.duplicates} duplicate draw{'s' if study.duplicates > 1 else ''}")
    facts = [
        [str(len(front)), "on the front", ""],
        [str(counts["complete"]), f"complete{f' of {planned} planned' if planned else ''}", ", ".join(states)],
    ]
    if len(history) and pd.notna(history["hypervolume"].iloc[-1]):
        facts.append([f"{history['hypervolume'].iloc[-1]:.3f}", "hypervolume", "share of 1, higher is better"])
    # A user's own evaluator counts neither.
    if trials["tokens"].any():
        facts.append([format_count(trials["tokens"].sum()), "training tokens", "all trials"])
    if trials["flops"].any():
        facts.append([format_count(trials["flops"].sum()), "training FLOPs", "all trials, by formula"])
    return facts


def _front_notes(store: Store, study: StoredStudy, front: pd.DataFrame) -> list[str]:
    """What stands below the front; the baseline is a row of its own, and confirmation a section."""
    elsewhere = study_lines(store, study)
    notes = front.attrs["notes"]
    return [note for note in notes if note not in elsewhere and not note.startswith("trivial baseline")]


def _confirmed(store: Store, study: StoredStudy) -> Grid | None:
    """The candidates with replicates, or None where there are none."""
    found = confirmed_table(store, study)
    return grid(found) if len(found) else None


def _baseline_row(study: StoredStudy, front: pd.DataFrame) -> list[str] | None:
    """The trivial baseline as a row below the front, or None where no objective has one."""
    baselines: Mapping[str, float] = front.attrs["baselines"]
    if not baselines:
        return None
    values = {one.name: value_text(one, baselines[one.name]) for one in study.objectives if one.name in baselines}
    return [values.get(str(name), "") for name in front.columns]


def _objective_in_words(study: StoredStudy, index: int) -> dict[str, str]:
    objective = study.objectives[index]
    kind = "known before training" if objective.known else "measured on the validation part"
    scale = ""
    if objective.reference is not None and objective.ideal is not None:
        worst, best = value_text(objective, objective.reference), value_text(objective, objective.ideal)
        scale = f"hypervolume from {worst} to {best}"
    return {"label": axis_label(objective), "kind": kind, "scale": scale}


def _searched(resolved: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The study file in sections of dotted keys and values."""
    scalars = [(key, _flow(value)) for key, value in resolved.items() if not isinstance(value, dict)]
    sections = [(key, _lines(value)) for key, value in resolved.items() if isinstance(value, dict) and value]
    return [("study", [(key, text) for key, text in scalars if text]), *sections]


def _lines(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        # A draw ("choice", "range") is read as one; all else is opened.
        is_draw = isinstance(value, dict) and bool({"choice", "range", "log_range"} & set(value))
        if isinstance(value, dict) and value and not is_draw:
            found += _lines(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", _flow(value)))
    return found


def _flow(value: object, *, nested: bool = False) -> str:
    """A value on one line, without the quotes and the outermost brackets."""
    if isinstance(value, dict):
        text = ", ".join(f"{key}: {_flow(below, nested=True)}" for key, below in value.items())
        return f"{{{text}}}" if nested else text
    if isinstance(value, list):
        text = ", ".join(_flow(below, nested=True) for below in value)
        return f"[{text}]" if nested else text
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)


def _shown_trials(study: StoredStudy, trials: pd.DataFrame) -> pd.DataFrame:
    names = [objective.name for objective in study.objectives]
    hyperparameters = {
        name: str(name).removeprefix("training.") for name in trials if str(name).startswith("training.")
    }
    columns = ["trial", "state", "reason", *names, "fingerprint", "width", "depth", "max_context", *hyperparameters]
    shown = trials[list(dict.fromkeys([*columns, "step", "tokens", "flops", "seconds"]))]
    shown = shown.rename(columns=hyperparameters)
    shown.attrs["units"] = {objective.name: objective.unit for objective in study.objectives}
    return shown


def _memory(store: Store, study: StoredStudy, front: pd.DataFrame) -> Grid | None:
    """Predicted and measured memory of the front side by side, or None where there is none."""
    found = store.memory(study)
    found = found[found["trial"].isin(front["trial"])]
    if not len(found):
        return None
    keys = ["trial", "figure", "context", "batch", "dtype"]
    columns = [found[found["kind"] == kind][[*keys, "bytes", "device"]] for kind in ("predicted", "measured")]
    both = columns[0].drop(columns="device").merge(columns[1], on=keys, how="outer", suffixes=("_p", "_m"))
    both = both.rename(columns={"bytes_p": "predicted", "bytes_m": "measured"})
    if not both["measured"].notna().any():
        both = both.drop(columns=["measured", "device"])
    both.attrs["units"] = {"predicted": "B", "measured": "B"}
    return grid(both)


def _environments(store: Store, study: StoredStudy) -> list[dict[str, Any]]:
    """The runs of the study, the latest first."""
    return [
        {
            "at": f"{run['created_at']:%Y-%m-%d %H:%M} UTC",
            "device": run["device"],
            "commit": run["git_commit"] or "outside git",
            "versions": ", ".join(f"{name} {version}" for name, version in run["versions"].items()),
        }
        for run in reversed(store.environments(study).to_dict("records"))
    ]


def _commands(store: Store, study: StoredStudy, front: pd.DataFrame) -> list[tuple[str, str]]:
    """What to type next, and what it does."""
    name = shlex.quote(study.name)
    where = "" if store.label == DEFAULT_STORE else f" --store {shlex.quote(store.label)}"
    if not len(front):
        return [(f"nas run {name}{where}", "goes on with the study"), (f"nas status{where}", "how far it is")]
    best = int(front["trial"].iloc[0])
    commands = [(f"nas show {name} {best}{where}", f"one candidate in full: the best in {study.objectives[0].name}")]
    if len(store.checkpoints(study, best)):
        commands.append((f"nas export {name} --trial {best} --to out{where}", "a checkpoint of it"))
    commands.append((f"nas front {name} --format json{where}", "the front for programs"))
    commands.append((f"nas dashboard{where}", "browse every trial"))
    return commands
