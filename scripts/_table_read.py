"""Reads a table of trainings: every candidate of a small space, at every rung.

In: `studies/tables/NAME.csv.gz` and `NAME.json` beside it, as scripts/build_table writes them. Out: a
`Table`, checked: each candidate's network is made again from its parameters, and must have the key and
the memory that stand in the table.

A search can be replayed on it in milliseconds (Ying et al. 2019, NAS-Bench-101): the space is the one that
the candidates were drawn from, so a sampler suggests as it would in a study, and the table answers with what
the training scored. A table that is still being built holds what was trained so far, and reads as well.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.errors import DataError
from nas.pareto import Axis
from nas.records import Candidate
from nas.space import Space
from nas.space.architecture import Architecture
from nas.space.constraints import Figure
from nas.specs.base import Value
from nas.specs.tasks import TaskShape

FORMAT = 1
# Columns behind those of the parameters and before those of the scores, and the ones that follow.
FIRST_COLUMNS = ("key",)
RUNG_COLUMNS = ("memory_bytes", "seed", "rung", "tokens")
LAST_COLUMNS = ("train_seconds", "evaluate_seconds", "job_seconds", "flops", "failure")

Row = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class TableCandidate:
    """A candidate and what its trainings scored.

    Attributes:
        key: of the candidate, as in a store.
        params: an assignment of the space's parameters, those of layers that it lacks left out.
        memory: the known objective.
        architecture: bound to the task.
        curves: seed -> the measured objective at each rung; shorter where the training failed.
        seconds: seed -> seconds of training up to each rung, of the processor; one thread.
        failure: seed -> why the training failed, of those that did.
    """

    key: str
    params: Mapping[str, Value]
    memory: float
    architecture: Architecture
    curves: Mapping[int, tuple[float, ...]]
    seconds: Mapping[int, tuple[float, ...]]
    failure: Mapping[int, str]


@dataclass(frozen=True, kw_only=True)
class Table:
    """All trainings of a space that were made.

    Attributes:
        name: of the table.
        space: that the candidates were drawn from.
        axes: of the measured objective, then of the known one, as a study of the same words scales them.
        rung_tokens: tokens trained on at each rung.
        candidates: those with at least one training.
        seeds: that trainings were made with; the later ones of the best candidates alone.
        header: what else the file beside the table states (versions, machine, task, budget, what is complete).
    """

    name: str
    space: Space
    axes: tuple[Axis, Axis]
    rung_tokens: tuple[int, ...]
    candidates: tuple[TableCandidate, ...]
    seeds: tuple[int, ...]
    header: Mapping[str, Any]


def header_path(path: Path) -> Path:
    """The file beside a table that states what it holds."""
    return path.with_name(path.name.removesuffix(".csv.gz") + ".json")


def read_rows(path: Path) -> list[dict[str, str]]:
    """The lines of a table as they stand there."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_header(path: Path) -> dict[str, Any]:
    """What the file beside a table states.

    Raises:
        DataError: it is missing, or of another format.
    """
    beside = header_path(path)
    try:
        found: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"table {path}: {beside.name} must lie beside it: {error.strerror}") from None
    if found.get("format") != FORMAT:
        raise DataError(f"table {path}: format {found.get('format')!r} where {FORMAT} can be read")
    return found


def read_table(path: Path) -> Table:
    """The table of a file.

    Raises:
        DataError: a row breaks a rule of the table, or the space makes other networks of its parameters.
    """
    header = read_header(path)
    space = Space.from_mapping(header["space"])
    by_key: dict[str, list[Row]] = {}
    for row in read_rows(path):
        by_key.setdefault(row["key"], []).append(row)
    candidates = tuple(_candidate(key, rows, space, header, path) for key, rows in by_key.items())
    measured, memory = (Axis(**axis) for axis in header["axes"])
    return Table(
        name=header["name"],
        space=space,
        axes=(measured, memory),
        rung_tokens=tuple(header["rung_tokens"]),
        candidates=candidates,
        seeds=tuple(sorted({seed for found in candidates for seed in (*found.curves, *found.failure)})),
        header=header,
    )


def bound(space: Space, params: Mapping[str, Value], shape: TaskShape) -> Candidate:
    """The candidate of an assignment of a space's parameters."""
    drawn = space.decode(params)
    if drawn.architecture is None:
        raise DataError(f"no network can be built of {dict(params)}: {drawn.excluded}")
    return Candidate(space.bind(drawn, shape), drawn.training)


def _candidate(key: str, rows: Sequence[Row], space: Space, header: Mapping[str, Any], path: Path) -> TableCandidate:
    where = f"table {path}, candidate {key}"
    params = _params(rows[0], space, where)
    found = bound(space, params, TaskShape(**header["shape"]))
    memory = float(Figure.parse(header["memory"])(found.architecture))
    if found.key != key or memory != float(rows[0]["memory_bytes"]):
        raise DataError(f"{where}: its parameters make {found.key} of {memory:.0f} B here: the code is another one")
    by_seed: dict[int, list[Row]] = {}
    for row in rows:
        by_seed.setdefault(int(row["seed"]), []).append(row)
    scored = {seed: _scored(found, header, f"{where}, seed {seed}") for seed, found in by_seed.items()}
    return TableCandidate(
        key=key,
        params=params,
        memory=memory,
        architecture=found.architecture,
        curves={seed: tuple(float(row[header["measured"]]) for row in found) for seed, found in scored.items()},
        seconds={seed: tuple(float(row["train_seconds"]) for row in found) for seed, found in scored.items()},
        failure={seed: found[-1]["failure"] for seed, found in by_seed.items() if found[-1]["failure"]},
    )


def _params(row: Row, space: Space, where: str) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for parameter in space.parameters:
        named = {str(value): value for value in parameter.domain.grid or ()}
        text = row[parameter.name]
        if text and text not in named:
            raise DataError(f"{where}: {parameter.name} is {text}, and the space has {', '.join(named)}")
        if text:
            found[parameter.name] = named[text]
    return found


def _scored(rows: Sequence[Row], header: Mapping[str, Any], where: str) -> list[Row]:
    """The rows with a score, which must be those of the first rungs, or of all where nothing failed."""
    scored = [row for row in rows if not row["failure"]]
    tokens = [int(row["tokens"]) for row in scored]
    expected = list(header["rung_tokens"])
    if tokens != expected[: len(tokens)] or (len(scored) == len(rows) and tokens != expected):
        raise DataError(f"{where}: rungs at {tokens} tokens, which must be at {expected}")
    return scored
