"""What the pictures show, as plain numbers.

In: a store. Out: pandas frames and points, so that what a picture says can be tested without
looking at it. Only the validation part is shown, except against the context length, where scores
on the test part stand beside and are named so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nas.pareto import non_dominated
from nas.report.spread import deviation_column, spreads
from nas.store import Store, StoredObjective, StoredStudy

MOST_PAIRS = 2

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """Two objectives drawn against each other.

    Attributes:
        x: the known one.
        y: the measured one.
    """

    x: StoredObjective
    y: StoredObjective


def trials_of(store: Store, study: StoredStudy) -> pd.DataFrame:
    """The store's frame of trials, in which an objective may bear the name of a field ("max_context")."""
    trials = store.trials_frame(study)
    return trials.loc[:, ~trials.columns.duplicated()]


def pairs(objectives: Sequence[StoredObjective]) -> list[Pair]:
    """The first pairs of a known and a measured objective; of whatever there is where one kind is missing."""
    known = [objective for objective in objectives if objective.known]
    measured = [objective for objective in objectives if not objective.known]
    if known and measured:
        return [Pair(x, y) for y in measured for x in known][:MOST_PAIRS]
    return [Pair(x, objectives[0]) for x in objectives[1 : 1 + MOST_PAIRS]]


def complete_points(store: Store, study: StoredStudy) -> pd.DataFrame:
    """One row a complete trial: trial, on_front, one column per objective.

    Where a trial has replicates its measured objectives are means over seeds, for which the front is made, and
    `<name>_sd` holds their standard deviation; it is missing elsewhere.
    """
    trials = trials_of(store, study)
    names = [objective.name for objective in study.objectives]
    points = trials.loc[trials["state"] == "complete", list(dict.fromkeys(["trial", *names]))].reset_index(drop=True)
    points.insert(1, "on_front", points["trial"].isin(store.front(study)["trial"]))
    over_seeds = spreads(store, study)
    for name in names if over_seeds else []:
        own = list(zip(points["trial"], points[name], strict=True))
        found = [over_seeds.get(trial) for trial, _ in own]
        points[name] = [
            value if spread is None else spread.means.get(name, value)
            for spread, (_, value) in zip(found, own, strict=True)
        ]
        points[deviation_column(name)] = [
            float("nan") if spread is None else spread.deviations.get(name, float("nan")) for spread in found
        ]
    return points


def staircase(points: pd.DataFrame, pair: Pair) -> tuple[Numbers, Numbers]:
    """The corners that bound what the front dominates in two objectives, by ascending x.

    Args:
        points: rows of the front.
        pair: which columns are seen; with more objectives the front's shadow is bounded.

    Returns:
        The non-dominated points of the two columns.
    """
    x, y = (points[one.name].to_numpy(dtype=float) for one in (pair.x, pair.y))
    signs = [1.0 if one.direction == "minimize" else -1.0 for one in (pair.x, pair.y)]
    best = non_dominated(np.column_stack([x * signs[0], y * signs[1]]))
    order = np.lexsort((y[best], x[best]))
    return x[best][order], y[best][order]


def headline(study: StoredStudy) -> StoredObjective | None:
    """The objective that curves show: the first that is measured."""
    return next((objective for objective in study.objectives if not objective.known), None)


def learning_curves(store: Store, study: StoredStudy) -> pd.DataFrame:
    """The headline objective by training step, each trial at its own context: trial, step, value, on_front."""
    found = _headline_measurements(store, study)
    found = found[found["split"] == "validation"]
    own = found["context"].isna() | (found["context"] == found["max_context"]).fillna(False)
    curves = found[own.astype(bool)].sort_values(["trial", "step"], ignore_index=True)
    return curves[["trial", "step", "value", "on_front"]]


def context_curves(store: Store, study: StoredStudy) -> pd.DataFrame:
    """The headline objective of the front's members by context length: trial, split, context, value.

    Only the last step counts, and only members measured at several context lengths.
    """
    found = _headline_measurements(store, study)
    found = found[found["on_front"] & found["context"].notna()]
    last = found.groupby(["trial", "split"])["step"].transform("max")
    found = found[found["step"] == last]
    several = found.groupby(["trial", "split"])["context"].transform("nunique") > 1
    curves = found[several].sort_values(["trial", "split", "context"], ignore_index=True)
    return curves[["trial", "split", "context", "value"]].astype({"context": "int64"})


def _headline_measurements(store: Store, study: StoredStudy) -> pd.DataFrame:
    """Measurements of the headline objective with the trial's own seed, beside its max_context."""
    objective = headline(study)
    trials = trials_of(store, study)[["trial", "max_context", "seed"]]
    found = store.measurements(study).merge(trials, on=["trial", "seed"])
    found = found[found["metric"] == (objective.name if objective is not None else None)]
    return found.assign(on_front=found["trial"].isin(store.front(study)["trial"]))
