"""What a store has to say of early stopping: curves, how many are paused, and the audit of false stops.

In: a store and a study. Out: the curves that the stopping rule compares, and lines for people.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import cast

from nas.search.audit import OVERALL, FalseStops, false_stops
from nas.search.rungs import TOLERATED, Curve, CurveState
from nas.store import Store, StoredStudy, StoredTrial


def curves_of(store: Store, study: StoredStudy) -> list[Curve]:
    """The curve of each trial that was begun and is not infeasible, replicates at the same budget too, by number."""
    decisions = store.decisions(study)
    audited = set(decisions.loc[decisions["action"] == "audit", "trial"].tolist())
    found = store.measurements(study)
    found = found[found["split"] == "validation"]
    measured: dict[int, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    trials = {
        trial.number: trial
        for trial in store.trials(study, role=None)
        if trial.state != "infeasible" and trial.budget == 1
    }
    for number, metric, value, step, context in zip(
        *(found[name].tolist() for name in ("trial", "metric", "value", "step", "context")), strict=True
    ):
        trial = trials.get(number)
        if trial is not None and is_own_context(trial, context):
            measured[number][step][metric] = value
    return [
        curve_of(trial, study, _rows(measured[number]), audited=number in audited) for number, trial in trials.items()
    ]


def curve_of(
    trial: StoredTrial, study: StoredStudy, rungs: Iterable[Mapping[str, float]], *, audited: bool = False
) -> Curve:
    """The curve of a trial.

    Args:
        trial: begun, and not infeasible.
        study: whose trial it is.
        rungs: metric → value at each rung, the first rung first; what follows one that lacks an objective is left out.
        audited: whether it goes on against the rule.
    """
    scores: list[tuple[float, ...]] = []
    for measured in rungs:
        row = scores_of(study, measured)
        if row is None:
            break
        scores.append(row)
    architecture = trial.candidate.architecture
    return Curve(
        number=trial.number,
        key=trial.candidate.key,
        known=tuple(
            _smaller_is_better(found.direction) * trial.values[found.name] for found in study.objectives if found.known
        ),
        scores=tuple(scores),
        state=cast(CurveState, trial.state),
        audited=audited,
        replicate=trial.role == "confirm",
        mixers=tuple(sorted({layer.mixer for layer in architecture.all_layers})),
        context=float(architecture.max_context),
        learning_rate=dict(trial.candidate.training).get("learning_rate"),
    )


def scores_of(study: StoredStudy, measured: Mapping[str, float]) -> tuple[float, ...] | None:
    """The measured objectives, smaller being better, or None where one is missing."""
    objectives = [found for found in study.objectives if not found.known]
    if any(found.name not in measured for found in objectives):
        return None
    return tuple(_smaller_is_better(found.direction) * measured[found.name] for found in objectives)


def rung_values(curve: Curve, study: StoredStudy) -> list[list[float]]:
    """The values of all objectives, in their order and own directions, at each rung that a trial reached."""
    rows = []
    for scores in curve.scores:
        known, measured = iter(curve.known), iter(scores)
        rows.append(
            [
                _smaller_is_better(found.direction) * next(known if found.known else measured)
                for found in study.objectives
            ]
        )
    return rows


def is_own_context(trial: StoredTrial, context: object) -> bool:
    """Whether a score was taken at the candidate's own context, or at none at all."""
    return not isinstance(context, int) or context == trial.candidate.architecture.max_context


def stopping_lines(store: Store) -> list[str]:
    """What there is to say of each study that stops early: who is paused, and the audited false-stop rates."""
    return [line for study in store.studies() if "early_stopping" in study.resolved for line in _lines(store, study)]


def _lines(store: Store, study: StoredStudy) -> list[str]:
    curves = [curve for curve in curves_of(store, study) if not curve.replicate]
    paused = sum(curve.state == "paused" for curve in curves)
    actions = store.decisions(study)["action"].value_counts()
    overall, *rest = false_stops(curves)
    lines = [
        f"{study.name}: {paused} of {len(curves)} candidates are paused; decisions: "
        f"{actions.get('continue', 0)} to go on, {actions.get('pause', 0)} to pause, "
        f"{actions.get('resume', 0)} to resume, {actions.get('audit', 0)} to go on as an audit",
        f"{study.name}: false stops {_audit(overall)}",
    ]
    return lines + [f"{study.name}: false stops, {one.group}: {_audit(one)}" for one in rest]


def _audit(found: FalseStops) -> str:
    if found.rate is None:
        return "are not known yet: no audited candidate that the rule would have stopped is complete"
    text = f"{found.rate:.0%} ({found.wrong} of {found.audited} audited)"
    where = "at all" if found.group == OVERALL else "here"
    return f"{text}, above {TOLERATED:.0%}: the rule stops nobody {where}" if found.is_too_high else text


def _rows(by_step: Mapping[int, Mapping[str, float]]) -> list[Mapping[str, float]]:
    return [by_step[step] for step in sorted(by_step)]


def _smaller_is_better(direction: str) -> float:
    return 1.0 if direction == "minimize" else -1.0
