"""What replicates say of a candidate: mean and standard deviation over seeds.

In: a store and a study. Out: a `Spread` for each trial of the search that was trained with further seeds, and the front
with its uncertainty. All seeds count, the search's own among them; and where a trial has a mean, the front is made of
that, because the one value by which it was chosen is the luckiest of many.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nas.report.stopping import is_own_context
from nas.store import Store, StoredStudy, StoredTrial


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Scores of one candidate over several seeds.

    Attributes:
        seeds: trainings behind it, the search's own among them.
        means: by objective or metric.
        deviations: sample standard deviations (n - 1), of the same names; NaN for a single training.
    """

    seeds: int
    means: Mapping[str, float]
    deviations: Mapping[str, float]


def spreads(store: Store, study: StoredStudy) -> dict[int, Spread]:
    """Number of a complete trial of the search → its measured objectives over seeds, where it has replicates."""
    replicates = _by_key(store.trials(study, states=["complete"], role="confirm"), budget=1.0)
    if not replicates:
        return {}
    names = measured_names(study)
    return {
        trial.number: spread_of([one.values for one in (trial, *replicates[trial.candidate.key])], names)
        for trial in store.trials(study, states=["complete"])
        if trial.candidate.key in replicates
    }


def spreads_on_test_part(store: Store, study: StoredStudy) -> dict[int, Spread]:
    """The same of the scores on the test part, over the trainings that were scored there."""
    groups = _by_key(store.trials(study, states=["complete"], role=None), budget=1.0)
    found = store.measurements(study)
    found = found[found["split"] == "test"]
    names = measured_names(study)
    scores: dict[int, dict[str, float]] = defaultdict(dict)
    trials = {trial.number: trial for group in groups.values() for trial in group}
    for number, metric, value, context in zip(
        *(found[name].tolist() for name in ("trial", "metric", "value", "context")), strict=True
    ):
        if number in trials and metric in names and is_own_context(trials[number], context):
            scores[number][metric] = value
    spread: dict[int, Spread] = {}
    for group in groups.values():
        whole = [scores[trial.number] for trial in group if len(scores[trial.number]) == len(names)]
        if len(group) > 1 and whole:
            spread |= {trial.number: spread_of(whole, names) for trial in group if trial.role == "search"}
    return spread


def means(store: Store, study: StoredStudy) -> dict[int, Mapping[str, float]]:
    """What stands in for the values of a trial where it has replicates."""
    return {number: spread.means for number, spread in spreads(store, study).items()}


def measured_names(study: StoredStudy) -> list[str]:
    """The objectives that a seed can change."""
    return [objective.name for objective in study.objectives if not objective.known]


def spread_of(rows: Sequence[Mapping[str, float]], names: Iterable[str]) -> Spread:
    """The spread of at least one row of scores."""
    columns = {name: np.array([row[name] for row in rows]) for name in names}
    return Spread(
        seeds=len(rows),
        means={name: float(column.mean()) for name, column in columns.items()},
        deviations={
            name: float(column.std(ddof=1)) if len(rows) > 1 else float("nan") for name, column in columns.items()
        },
    )


def front_with_spread(store: Store, study: StoredStudy) -> pd.DataFrame:
    """The front recorded last, best in the first objective first.

    Returns:
        trial, fingerprint, one column per objective: the values of that trial. Where a member has replicates also, for
        each measured objective, `<name>_mean` and `<name>_sd` over all seeds, and `seeds`, how many those are; for
        members without, the mean is the value and the deviation is missing.
    """
    front, found = store.front(study), spreads(store, study)
    if not any(number in found for number in front["trial"]):
        return front
    for name in measured_names(study):
        own = zip(front["trial"], front[name], strict=True)
        front[mean_column(name)] = [found[number].means[name] if number in found else value for number, value in own]
        front[deviation_column(name)] = [
            found[number].deviations[name] if number in found else float("nan") for number in front["trial"]
        ]
    front["seeds"] = [found[number].seeds if number in found else 1 for number in front["trial"]]
    first = study.objectives[0]
    by = first.name if first.known else mean_column(first.name)
    return front.sort_values(by, ascending=first.direction == "minimize", kind="stable", ignore_index=True)


def mean_column(name: str) -> str:
    """The column of an objective's mean over seeds."""
    return f"{name}_mean"


def deviation_column(name: str) -> str:
    """The column of an objective's standard deviation over seeds."""
    return f"{name}_sd"


def _by_key(trials: Iterable[StoredTrial], *, budget: float) -> dict[str, list[StoredTrial]]:
    groups: dict[str, list[StoredTrial]] = defaultdict(list)
    for trial in trials:
        if trial.budget == budget:
            groups[trial.candidate.key].append(trial)
    return groups
