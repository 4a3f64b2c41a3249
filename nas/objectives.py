"""What a study optimises: known objectives and measured ones.

*Known* ones are exact functions of the architecture, computed in microseconds before training;
*measured* ones need training. A name says the direction wherever the name is one of ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

from nas import catalog
from nas.errors import InputError, StudyError, did_you_mean
from nas.space.architecture import Architecture
from nas.space.constraints import FIELDS, Figure
from nas.space.feasibility import Limit
from nas.specs.tasks import MetricSpec

Direction = Literal["minimize", "maximize"]
DIRECTIONS: tuple[Direction, ...] = ("minimize", "maximize")


@dataclass(frozen=True)
class Objective:
    """One objective of a study.

    Attributes:
        name: a metric of the task, a figure, or a name of the user's own.
        direction: which way is better.
        known: the exact function of an architecture, or None if it must be measured.
        limit: what a candidate must not exceed (or fall below, when maximised); checked before
            training, so of a known objective alone.
        unit: of its values, "" for none.
        best: the value that nothing can beat, where there is one; scales the hypervolume.
        worst: what the trivial baseline reaches, where it is known; the reference point.

    Raises:
        StudyError: a direction that is neither, a limit that is no number, or one of a measured objective.
    """

    name: str
    direction: Direction
    known: Callable[[Architecture], float] | None = None
    limit: float | None = None
    unit: str = ""
    best: float | None = None
    worst: float | None = None

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            hint = did_you_mean(self.direction, DIRECTIONS)
            raise StudyError(f"objective '{self.name}': unknown direction '{self.direction}': {hint}")
        if self.limit is not None and not math.isfinite(self.limit):
            raise StudyError(f"objective '{self.name}': the limit must be a finite number, not {self.limit!r}")
        if self.limit is not None and self.known is None:
            raise StudyError(
                f"a limit is checked before training, so it needs a known objective; '{self.name}' is measured"
            )

    @property
    def is_bytes(self) -> bool:
        """Whether its axis is scaled in powers of two and shown in bytes."""
        return self.name.partition("@")[0].endswith("_bytes")

    def violation(self, value: float) -> float:
        """How far a value is beyond the limit, as a share of it; 0 or less where it is kept."""
        if self.limit is None:
            return 0.0
        excess = value - self.limit if self.direction == "minimize" else self.limit - value
        return excess / max(abs(self.limit), 1e-12)


def named_objective(
    name: str, metrics: Mapping[str, MetricSpec], *, direction: str | None = None, limit: float | None = None
) -> Objective:
    """The objective that a study file names.

    Args:
        name: a metric of the task, a figure ("serve_bytes@context=4096"), or "module:function".
        metrics: of the study's task, as its options have it (`TaskSpec.metrics_for`).
        direction: as given; must agree with the name where the name is ours.
        limit: in the objective's unit.

    Raises:
        StudyError: no such metric or figure, a direction that contradicts the name, or a limit of a metric.
    """
    metric = metrics.get(name)
    if metric is not None:
        _agree(name, direction, metric.direction)
        return Objective(name, metric.direction, limit=limit, unit=metric.unit, best=metric.best)
    plain, natural = name.partition("@")[0], _natural(name)
    if natural is not None:
        _agree(name, direction, natural)
        return Objective(name, natural, known=Figure.parse(name), limit=limit, unit="B" if "bytes" in plain else "")
    if ":" in name:
        if direction is None:
            raise StudyError(f"objective '{name}' is your own: give its direction, minimize or maximize")
        # Whether it is one of the two is checked by Objective itself.
        return Objective(name, cast("Direction", direction), known=Figure.parse(name), limit=limit)
    raise StudyError(f"unknown objective '{name}': {did_you_mean(name, [*metrics, *catalog.FIGURES])}")


def known_values(objectives: tuple[Objective, ...], architecture: Architecture) -> Mapping[str, float]:
    """The values of the known objectives of an architecture.

    Raises:
        StudyError: a function raises, or gives no finite number.
    """
    return {objective.name: known_value(objective, architecture) for objective in objectives if objective.known}


def known_value(objective: Objective, architecture: Architecture) -> float:
    """The value of a known objective.

    Raises:
        StudyError: its function raises, or gives no finite number: known objectives are exact, for every architecture.
    """
    assert objective.known is not None
    try:
        value = float(objective.known(architecture))
    except InputError:
        raise
    except Exception as error:
        raise StudyError(
            f"known objective '{objective.name}' raised {type(error).__name__}: {error}, of {architecture.to_json()}"
        ) from error
    if not math.isfinite(value):
        raise StudyError(
            f"known objective '{objective.name}' is {value}, of {architecture.to_json()}: it must be a finite number"
        )
    return value


def check_direction(objective: Objective, metrics: Mapping[str, MetricSpec]) -> None:
    """Refuses a direction that contradicts a name of ours.

    Args:
        objective: of a study with an evaluator of its own.
        metrics: of all tasks.

    Raises:
        StudyError: the name is one to be taken the other way round.
    """
    natural = metrics[objective.name].direction if objective.name in metrics else _natural(objective.name)
    if natural is not None and natural != objective.direction:
        raise StudyError(
            f"objective '{objective.name}' is one to {natural}, not to {objective.direction}: give "
            f"'{natural}', or another name if it means something else"
        )


def objective_limits(objectives: Iterable[Objective]) -> list[Limit]:
    """The limits that objectives set to candidates before they are trained."""
    found = []
    for objective in objectives:
        if objective.known is not None and objective.limit is not None:
            op = "<=" if objective.direction == "minimize" else ">="
            shown = f"{objective.limit:.0f} B" if objective.is_bytes else f"{objective.limit:.10g}"
            text = f"{objective.name} {op} {shown}"
            known = partial(known_value, objective)
            found.append(Limit(text, objective.name, known, op, objective.limit, objective.is_bytes))
    return found


def _natural(name: str) -> Direction | None:
    """Which way a figure of ours is better; None of another name."""
    plain = name.partition("@")[0]
    if plain not in catalog.FIGURES and plain not in FIELDS:
        return None
    return "maximize" if plain == "max_context" else "minimize"


def _agree(name: str, given: str | None, natural: str) -> None:
    if given is not None and given not in DIRECTIONS:
        raise StudyError(f"objective '{name}': unknown direction '{given}': {did_you_mean(given, DIRECTIONS)}")
    if given is not None and given != natural:
        raise StudyError(f"objective '{name}' is one to {natural}, not to {given}: leave the direction out")
