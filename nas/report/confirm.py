"""What confirming a front has shown: how many members have replicates, and whether a larger budget agrees.

In: a store and a study. Out: a `Scaling` for each larger budget, a table of the confirmed candidates, and lines for
people. All of it is computed from the trials, so that it is true of whatever is in the store.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nas.pareto import non_dominated
from nas.report.ranking import kendall_tau
from nas.report.spread import (
    deviation_column,
    mean_column,
    means,
    measured_names,
    spread_of,
    spreads,
    spreads_on_test_part,
)
from nas.store import Store, StoredStudy, StoredTrial
from nas.units import format_count

# Below this tau the order at the study's budget says too little of the order at the larger one.
LEAST_TAU = 0.6


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """How candidates of a study stand at a larger budget.

    Attributes:
        budget: in multiples of the study's.
        candidates: that were trained at both.
        taus: Kendall's tau-b between both rankings by each measured objective; None where it is undefined.
        members: of the front that is recorded, how many were trained at the larger budget.
        kept: of these, the ones that none of the candidates dominates there.
    """

    budget: float
    candidates: int
    taus: Mapping[str, float | None]
    members: int
    kept: int


def scalings(store: Store, study: StoredStudy) -> list[Scaling]:
    """One for each budget above the study's at which a replicate is complete, the smallest first."""
    large: dict[float, dict[str, list[StoredTrial]]] = defaultdict(lambda: defaultdict(list))
    for replicate in store.trials(study, states=["complete"], role="confirm"):
        if replicate.budget > 1:
            large[replicate.budget][replicate.candidate.key].append(replicate)
    if not large:
        return []
    over_seeds, front = means(store, study), set(store.front(study)["trial"].tolist())
    searched = {trial.candidate.key: trial for trial in store.trials(study, states=["complete"])}
    return [
        _scaling(
            study,
            budget,
            {
                trial.number: {**trial.values, **over_seeds.get(trial.number, {})}
                for key, trial in searched.items()
                if key in groups
            },
            {
                searched[key].number: {**searched[key].values, **_mean(study, group)}
                for key, group in groups.items()
                if key in searched
            },
            front,
        )
        for budget, groups in sorted(large.items())
    ]


def confirmed_table(store: Store, study: StoredStudy) -> pd.DataFrame:
    """One row a candidate and budget at which it has replicates.

    Returns:
        trial (of the search), on_front, budget, seeds, for each measured objective its mean and standard deviation over
        the seeds; where the test part was scored, the same of it as `test_<name>_mean` and `test_<name>_sd`, at the
        study's budget; tokens and flops of the replicates.
    """
    names = measured_names(study)
    replicates = store.trials(study, states=["complete"], role="confirm")
    searched = {trial.candidate.key: trial for trial in store.trials(study, states=["complete"])}
    own, tested = spreads(store, study), spreads_on_test_part(store, study)
    front = set(store.front(study)["trial"].tolist())
    rows: list[dict[str, Any]] = []
    groups: dict[tuple[float, int], list[StoredTrial]] = defaultdict(list)
    for replicate in replicates:
        if replicate.candidate.key in searched:
            groups[replicate.budget, searched[replicate.candidate.key].number].append(replicate)
    for (budget, number), group in sorted(groups.items()):
        spread = own[number] if budget == 1 else spread_of([one.values for one in group], names)
        row: dict[str, Any] = {"trial": number, "on_front": number in front, "budget": f"{budget:g}x"}
        row["seeds"] = spread.seeds
        found = [("", spread)] + ([("test_", tested[number])] if budget == 1 and number in tested else [])
        for prefix, one in found:
            for name in names:
                row[mean_column(f"{prefix}{name}")] = one.means[name]
                row[deviation_column(f"{prefix}{name}")] = one.deviations[name]
        row["tokens"] = sum(one.tokens for one in group)
        row["flops"] = sum(one.flops for one in group)
        rows.append(row)
    columns = ["trial", "on_front", "budget", "seeds"]
    for prefix in ("", "test_") if tested else ("",):
        columns += [column(f"{prefix}{name}") for name in names for column in (mean_column, deviation_column)]
    frame = pd.DataFrame(rows, columns=[*columns, "tokens", "flops"])
    frame.attrs["notes"] = study_lines(store, study)
    return frame


def study_lines(store: Store, study: StoredStudy) -> list[str]:
    """What there is to say of the replicates of a study; nothing where it has none."""
    replicates = store.trials(study, role="confirm")
    if not replicates:
        return []
    return [
        *_front_lines(store, study, replicates),
        *(line for found in scalings(store, study) for line in _scaling_lines(found)),
        *_failure_lines(store, study, replicates),
    ]


def confirm_lines(store: Store) -> list[str]:
    """The same of each study of a store, by name."""
    return [f"{study.name}: {line}" for study in store.studies() for line in study_lines(store, study)]


def _scaling(
    study: StoredStudy,
    budget: float,
    small: Mapping[int, Mapping[str, float]],
    large: Mapping[int, Mapping[str, float]],
    front: set[int],
) -> Scaling:
    numbers = sorted(large)
    signs = [1.0 if found.direction == "minimize" else -1.0 for found in study.objectives]
    points = [
        [sign * large[number][found.name] for sign, found in zip(signs, study.objectives, strict=True)]
        for number in numbers
    ]
    best = {number for number, is_best in zip(numbers, non_dominated(np.array(points)), strict=True) if is_best}
    members = front & set(numbers)
    return Scaling(
        budget=budget,
        candidates=len(numbers),
        taus={
            name: kendall_tau([small[number][name] for number in numbers], [large[number][name] for number in numbers])
            for name in measured_names(study)
        },
        members=len(members),
        kept=len(members & best),
    )


def _mean(study: StoredStudy, group: list[StoredTrial]) -> Mapping[str, float]:
    return spread_of([one.values for one in group], measured_names(study)).means


def _front_lines(store: Store, study: StoredStudy, replicates: list[StoredTrial]) -> list[str]:
    front = store.front(study)["trial"].tolist()
    found = spreads(store, study)
    seeds = sorted({found[number].seeds for number in front if number in found})
    lines = []
    if seeds:
        several = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
        lines.append(
            f"{sum(number in found for number in front)} of {len(front)} on the front have replicates: means and "
            f"standard deviations are over {several} seeds, and the front is that of the means"
        )
    running = sum(trial.state in ("running", "paused") for trial in replicates)
    if running:
        lines.append(f"{running} replicate{'s are' if running > 1 else ' is'} not finished: run the study again")
    flops, tokens = sum(trial.flops for trial in replicates), sum(trial.tokens for trial in replicates)
    if tokens:
        lines.append(
            f"replicates took {format_count(tokens)} tokens and {format_count(flops)} FLOPs, which the search's own "
            "figures leave out"
        )
    return lines


def _scaling_lines(found: Scaling) -> list[str]:
    place = f"at {found.budget:g}x the budget"
    taus = ", ".join(
        f"{name} {'is undefined (too few differ)' if tau is None else f'{tau:.2f}'}" for name, tau in found.taus.items()
    )
    lines = [
        f"{place}, {found.candidates} candidates: {found.kept} of {found.members} of the front are still on it; "
        f"Kendall's tau with the ranking at the study's budget: {taus}"
    ]
    lines += [
        f"warning: {place} the ranking by {name} is another one (tau {tau:.2f}, below {LEAST_TAU:g}): "
        "what is best at the study's budget says little of what is best at a larger one"
        for name, tau in found.taus.items()
        if tau is not None and tau < LEAST_TAU
    ]
    return lines


def _failure_lines(store: Store, study: StoredStudy, replicates: list[StoredTrial]) -> list[str]:
    numbers = {trial.candidate.key: trial.number for trial in store.trials(study)}
    lost = [trial for trial in replicates if trial.state in ("failed", "infeasible")]
    return [
        f"replicate {trial.number} of trial {numbers.get(trial.candidate.key)} (seed {trial.seed}) {trial.state}: "
        f"{trial.reason}"
        for trial in lost
    ]
