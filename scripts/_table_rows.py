"""What of a table is done, on disk: a line for each training while it is made, and the table itself.

In: finished trainings. Out: `trainings.jsonl` in the folder of the runs, to which one process appends a line for each
training, synced before the next one counts; and from it (`write_table`) the compressed CSV of the repository with the
file beside it that states what it holds. A line that was cut short by a kill is no training, and is done again.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from _table_plan import FRONT_SEEDS, MEMORY, SEEDS, TablePlan, Training, mean_front
from _table_read import (
    FIRST_COLUMNS,
    FORMAT,
    LAST_COLUMNS,
    RUNG_COLUMNS,
    header_path,
    read_header,
    read_rows,
)


@dataclass(frozen=True, kw_only=True)
class Rung:
    """What a training scored at a rung, and what it cost up to there.

    Attributes:
        tokens: trained on.
        scores: metric -> value on the validation part, at the candidate's own context.
        train_seconds: of the steps alone, all rungs so far.
        evaluate_seconds: of scoring, this rung alone.
        job_seconds: of whole jobs with making the model and the checkpoint, all rungs so far.
        flops: of training, all rungs so far.
    """

    tokens: int
    scores: Mapping[str, float]
    train_seconds: float
    evaluate_seconds: float
    job_seconds: float
    flops: float


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A training that is over.

    Attributes:
        training: which.
        rungs: those with a score.
        failure: why there are no more of them, or "".
        blames_candidate: whether training it again would fail again.
        environment: versions and machine, in words.
    """

    training: Training
    rungs: tuple[Rung, ...]
    failure: str = ""
    blames_candidate: bool = True
    environment: str = ""


Done = dict[Training, Trained]


def append(path: Path, trained: Trained) -> None:
    """Adds a training to a file; when this returns it outlives a kill."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(trained)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def mend(path: Path) -> None:
    """Cuts off what a kill left of a last line; for the one process that appends."""
    if path.is_file():
        data = path.read_bytes()
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def read_done(path: Path) -> Done:
    """The trainings of a file; a last line that was cut short, or is being written, is none."""
    if not path.is_file():
        return {}
    data = path.read_bytes()
    lines = data[: data.rfind(b"\n") + 1].decode().splitlines()
    return {found.training: found for found in map(_trained, lines)}


def final_scores(done: Done, measured: Mapping[str, str]) -> dict[Training, float]:
    """The measured objective at the last rung, of trainings of the tables in `measured`; NaN where one failed."""
    return {
        training: float("nan") if found.failure else found.rungs[-1].scores[measured[training.table]]
        for training, found in done.items()
        if training.table in measured
    }


def write_table(plan: TablePlan, done: Done, path: Path) -> dict[str, Any]:
    """Writes a table and the file beside it; returns what the latter states."""
    mine = sorted((found for training, found in done.items() if training.table == plan.name), key=_order)
    names = [parameter.name for parameter in plan.space.parameters]
    metrics = sorted({metric for found in mine for rung in found.rungs for metric in rung.scores})
    columns = (*FIRST_COLUMNS, *names, *RUNG_COLUMNS, *metrics, *LAST_COLUMNS)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    environments = _environments(mine)
    for found in mine:
        writer.writerows(_rows(plan, found, environments.index(found.environment)))
    header = _header(plan, mine)
    path.parent.mkdir(parents=True, exist_ok=True)
    # No time of writing inside: equal tables are equal files.
    _replace(path, gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0))
    _replace(header_path(path), (json.dumps(header, indent=1) + "\n").encode())
    return header


def read_recorded(plan: TablePlan, path: Path) -> Done:
    """The trainings of a table that was written, as far as they are of the plan's candidates and rungs."""
    if not path.is_file():
        return {}
    header = read_header(path)
    same = header["rung_tokens"] == list(plan.rung_tokens) and header["task"] == _task(plan)
    if not same:
        return {}
    by_training: dict[Training, list[Mapping[str, str]]] = {}
    for row in read_rows(path):
        if row["key"] in plan.candidates:
            by_training.setdefault(Training(plan.name, row["key"], int(row["seed"])), []).append(row)
    return {
        training: _recorded(training, rows, header["metrics"], header["environments"])
        for training, rows in by_training.items()
    }


def _recorded(
    training: Training, rows: Sequence[Mapping[str, str]], metrics: Sequence[str], environments: Sequence[str]
) -> Trained:
    rungs = tuple(
        Rung(
            tokens=int(row["tokens"]),
            scores={metric: float(row[metric]) for metric in metrics if row[metric]},
            train_seconds=float(row["train_seconds"]),
            evaluate_seconds=float(row["evaluate_seconds"]),
            job_seconds=float(row["job_seconds"]),
            flops=float(row["flops"]),
        )
        for row in rows
        if not row["failure"]
    )
    return Trained(
        training=training,
        rungs=rungs,
        failure=rows[-1]["failure"],
        environment=environments[int(rows[-1]["environment"])],
    )


def _rows(plan: TablePlan, found: Trained, environment: int) -> Iterator[dict[str, Any]]:
    key, seed = found.training.key, found.training.seed
    params = {name: str(value) for name, value in plan.candidates[key][1].items()}
    same = {"key": key, **params, "memory_bytes": f"{plan.memory(key):.0f}", "seed": seed, "environment": environment}
    for place, rung in enumerate(found.rungs):
        values = {name: value for name, value in asdict(rung).items() if name != "scores"}
        yield {**same, "rung": place + 1, **values, **rung.scores, "flops": f"{rung.flops:.6g}"}
    if found.failure:
        place = len(found.rungs)
        yield {**same, "rung": place + 1, "tokens": plan.rung_tokens[place], "failure": found.failure}


def _header(plan: TablePlan, mine: Sequence[Trained]) -> dict[str, Any]:
    per_seed = Counter(found.training.seed for found in mine)
    scores = final_scores({found.training: found for found in mine}, {plan.name: plan.measured})
    is_grid = all(per_seed[seed] == len(plan.candidates) for seed in SEEDS)
    keys = mean_front(plan, scores) if is_grid else []
    is_complete = is_grid and all(Training(plan.name, key, seed) in scores for key in keys for seed in FRONT_SEEDS)
    return {
        "format": FORMAT,
        "name": plan.name,
        "is_complete": is_complete,
        "candidates": len(plan.candidates),
        "trainings_by_seed": {str(seed): per_seed[seed] for seed in sorted(per_seed)},
        "failures": sum(bool(found.failure) for found in mine),
        "seeds": list(SEEDS),
        "front_seeds": list(FRONT_SEEDS),
        "front": keys,
        "measured": plan.measured,
        "memory": MEMORY,
        "metrics": sorted({metric for found in mine for rung in found.rungs for metric in rung.scores}),
        "axes": [asdict(axis) for axis in plan.axes],
        "rung_tokens": list(plan.rung_tokens),
        "budget": plan.words["budget"],
        "task": _task(plan),
        "shape": asdict(plan.shape),
        "space": dict(plan.space.source),
        "environments": _environments(mine),
        "seconds": "of the processor, one thread",
        "job_seconds_total": round(sum(found.rungs[-1].job_seconds for found in mine if found.rungs), 1),
    }


def _environments(mine: Sequence[Trained]) -> list[str]:
    """Each once; a row of the table names one by its place."""
    return sorted({found.environment for found in mine})


def _task(plan: TablePlan) -> dict[str, Any]:
    return {"name": plan.task.name, "options": dict(plan.task.options), "data_version": plan.task.data_version}


def _order(found: Trained) -> tuple[str, int]:
    return found.training.key, found.training.seed


def _trained(line: str) -> Trained:
    values = json.loads(line)
    training, rungs = Training(**values.pop("training")), tuple(Rung(**rung) for rung in values.pop("rungs"))
    return Trained(training=training, rungs=rungs, **values)


def _replace(path: Path, data: bytes) -> None:
    beside = path.with_name(path.name + ".part")
    beside.write_bytes(data)
    beside.replace(path)
