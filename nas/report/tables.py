"""Tables: the front and the studies of a store.

In: a store. Out: pandas frames with raw numbers, and the same as text for terminals, CSV and HTML.
What stands below a table (the trivial baseline, the legend of the mixers) travels in the frame's
`attrs`: "notes" (lines), "baselines" (objective → value), "units" (column → unit) and "hidden"
(columns for programs alone).
"""

from __future__ import annotations

import io
from collections import Counter
from html import escape
from typing import Any

import pandas as pd
from rich.box import Box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nas.cost.figures import parameters
from nas.report.confirm import study_lines
from nas.report.failures import failures_in_words
from nas.report.series import trials_of
from nas.report.spread import (
    Spread,
    deviation_column,
    front_with_spread,
    mean_column,
    measured_names,
    spreads,
    spreads_on_test_part,
)
from nas.report.wording import Grid, grid, mixer_legend, mixer_letters, mixers_in_short, value_text
from nas.store import Store, StoredStudy, StoredTrial
from nas.units import format_count

# Prose wraps at this width; names and numbers never do.
PROSE_COLUMNS = 44
HEADER_COLUMNS = 8
# Headers much wider than what stands below them.
HYPHENATED = {"fingerprint": "finger-\nprint", "parameters": "param-\neters"}

_STATES = ("complete", "running", "paused", "failed", "infeasible")
_LINE_BELOW_HEADER = Box("    \n    \n ── \n    \n    \n    \n    \n    \n")


def front_table(store: Store, study: StoredStudy) -> pd.DataFrame:
    """The front recorded last, best in the first objective first.

    Returns:
        trial, fingerprint, one column per objective (that trial's own values), where members have replicates
        `<name>_mean` and `<name>_sd` of each measured one and `seeds`, width, depth, mixers (in short), max_context,
        parameters (missing without a task), one column per training hyperparameter, tokens and flops
        (both of training).
        `attrs["baselines"]` holds the trivial baseline of each measured objective that has one.
    """
    front = front_with_spread(store, study)
    members = {number: store.trial(study, number) for number in map(int, front["trial"])}
    architectures = [trial.candidate.architecture for trial in members.values()]
    letters = mixer_letters(architectures)
    hyperparameters = sorted({name for trial in members.values() for name, _ in trial.candidate.training})
    names = [objective.name for objective in study.objectives]
    spread = [column for column in front if column not in ("trial", "fingerprint", *names)]
    columns = ["trial", "fingerprint", *names, *spread, "width", "depth", "mixers", "max_context", "parameters"]
    columns += [*hyperparameters, "tokens", "flops"]
    rows = [
        {"trial": number, "fingerprint": row["fingerprint"], **_described(members[number], letters)}
        | {name: row[name] for name in [*names, *spread]}
        for number, row in zip(members, front.to_dict("records"), strict=True)
    ]
    # An objective may be a field of the architecture too: one column then says both.
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys(columns)))
    whole = ("trial", "width", "depth", "max_context", "tokens")
    dtypes = dict.fromkeys(whole, "int64") | {"parameters": "Int64"}
    frame = frame.astype(dtypes | dict.fromkeys([*names, "flops"], "float64"))
    frame.attrs["units"] = {objective.name: objective.unit for objective in study.objectives}
    for name in measured_names(study):
        unit = frame.attrs["units"][name]
        frame.attrs["units"] |= {mean_column(name): unit, deviation_column(name): unit}
    frame.attrs["baselines"] = _baselines(study)
    frame.attrs["notes"] = [
        *_front_notes(study, frame, mixer_legend(letters, architectures) if members else ""),
        *study_lines(store, study),
    ]
    return frame


def front_records(store: Store, study: StoredStudy) -> list[dict[str, Any]]:
    """The front for programs: objects of trial, fingerprint, values, architecture and training.

    `values` are those of the trial, whose checkpoint `nas export` writes. A member with replicates also has `seeds`,
    and `mean` and `sd` of each measured objective over all of them; where the test part was scored, `test` holds the
    same of it.
    """
    found, over_seeds, tested = [], spreads(store, study), spreads_on_test_part(store, study)
    for row in front_with_spread(store, study).to_dict("records"):
        number = int(row["trial"])
        candidate = store.trial(study, number).candidate
        found.append(
            {
                "trial": number,
                "fingerprint": str(row["fingerprint"]),
                "values": {objective.name: float(row[objective.name]) for objective in study.objectives},
                "architecture": candidate.architecture.to_mapping(),
                "training": dict(candidate.training),
            }
        )
        if number in over_seeds:
            found[-1] |= _spread(over_seeds[number])
        if number in tested:
            found[-1]["test"] = _spread(tested[number])
    return found


def _spread(found: Spread) -> dict[str, Any]:
    # JSON knows no NaN: a single seed has no deviation.
    deviations = {} if found.seeds < 2 else {"sd": dict(found.deviations)}
    return {"seeds": found.seeds, "mean": dict(found.means), **deviations}


def status_table(store: Store) -> pd.DataFrame:
    """One row a study: how many trials are in which state, and why the failed ones failed.

    Returns:
        study, planned (trials asked for), complete, running, paused, failed, infeasible, duplicates,
        hypervolume (of the latest front), failures (reasons and how often; not shown in terminals).
    """
    columns = ["study", "planned", *_STATES, "duplicates", "hypervolume", "failures"]
    rows = []
    for study in store.studies():
        trials = trials_of(store, study)
        counts = Counter(trials["state"])
        fronts = store.fronts(study)["hypervolume"]
        rows.append(
            {"study": study.name, "planned": study.resolved.get("trials"), "duplicates": study.duplicates}
            | {state: counts[state] for state in _STATES}
            | {"hypervolume": fronts.iloc[-1] if len(fronts) else None, "failures": failures_in_words(trials)}
        )
    whole = dict.fromkeys([*_STATES, "duplicates"], "int64") | {"planned": "Int64", "hypervolume": "float64"}
    frame = pd.DataFrame(rows, columns=columns).astype(whole)
    frame.attrs["hidden"] = ("failures",)
    frame.attrs["notes"] = [] if rows else ["the store holds no study yet"]
    return frame


def render_table(frame: pd.DataFrame) -> str:
    """The frame as plain text for terminals, files and pipes; the notes follow it."""
    lines = _aligned(grid(frame)) if len(frame) else []
    notes = frame.attrs.get("notes", [])
    return "\n".join([*lines, *([""] if lines and notes else []), *notes])


def render_front(store: Store, study: StoredStudy) -> str:
    """The front as plain text, with the trivial baseline and the legend of the mixers."""
    return render_table(front_table(store, study))


def front_csv(frame: pd.DataFrame) -> str:
    """The frame as CSV: raw numbers (bytes, FLOPs), whole fingerprints."""
    return str(frame.to_csv(index=False, lineterminator="\n"))


def front_html(frame: pd.DataFrame) -> str:
    """The frame as an HTML table, escaped, with its notes below; a fragment for any page."""
    cells = grid(frame)
    head = "".join(f"<th>{escape(name)}</th>" for name in cells.headers)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in cells.rows)
    notes = "\n".join(f"<p>{escape(note)}</p>" for note in frame.attrs.get("notes", []))
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n{notes}"


def _described(trial: StoredTrial, letters: dict[str, str]) -> dict[str, Any]:
    architecture = trial.candidate.architecture
    return {
        "width": architecture.width,
        "depth": architecture.depth,
        "mixers": mixers_in_short(architecture, letters),
        "max_context": architecture.max_context,
        # Without a task there is no vocabulary, and without one no number of parameters.
        "parameters": None if architecture.vocabulary is None else int(parameters(architecture)),
        **dict(trial.candidate.training),
        "tokens": trial.tokens,
        "flops": trial.flops,
    }


def _baselines(study: StoredStudy) -> dict[str, float]:
    return {
        objective.name: objective.reference
        for objective in study.objectives
        if not objective.known and objective.reference is not None
    }


def _front_notes(study: StoredStudy, frame: pd.DataFrame, legend: str) -> list[str]:
    if not len(frame):
        return [f"no trial of study '{study.name}' is complete yet"]
    baselines = _baselines(study)
    shown = (
        f"{objective.name} {value_text(objective, baselines[objective.name])}"
        for objective in study.objectives
        if objective.name in baselines
    )
    notes = [f"trivial baseline: {', '.join(shown)}"] if baselines else []
    notes.append(legend)
    # A user's own evaluator counts neither.
    if flops := float(frame["flops"].sum()):
        notes.append(f"tokens and flops: spent on training each; the front took {format_count(flops)} FLOPs")
    return notes


def _aligned(cells: Grid) -> list[str]:
    table = Table(box=_LINE_BELOW_HEADER, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="")
    headers = [_folded(header) for header in cells.headers]
    tallest = max(header.count("\n") for header in headers)
    for index, (header, numeric) in enumerate(zip(headers, cells.numeric, strict=True)):
        texts = [row[index] for row in cells.rows]
        prose = not numeric and any(" " in text for text in texts)
        table.add_column(
            Text("\n" * (tallest - header.count("\n")) + header),
            justify="right" if numeric else "left",
            vertical="top",
            no_wrap=not prose,
            overflow="fold",
            max_width=PROSE_COLUMNS if prose else None,
        )
    for row in cells.rows:
        table.add_row(*(Text(text) for text in row))
    # As wide as it must be: a table that a terminal wraps is still whole, a cropped one is not.
    stream = io.StringIO()
    Console(file=stream, width=10_000, color_system=None, force_terminal=False, legacy_windows=False).print(table)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def _folded(header: str) -> str:
    """A long name on several lines, broken where its words end."""
    if header in HYPHENATED:
        return HYPHENATED[header]
    lines = [""]
    for word in header.replace("_", "_\0").replace("@", "\0@").replace(",", ",\0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(word) > HEADER_COLUMNS:
            lines.append("")
        lines[-1] += word
    return "\n".join(lines)
