"""Where candidates stand: the front, the worst values there are, and what a formula says of their memory."""

from __future__ import annotations

from collections.abc import Mapping

from nas.cost.estimate import estimate
from nas.pareto import non_dominated
from nas.records import Candidate
from nas.search.mirror import UNKNOWN_WORST
from nas.specs import family_spec
from nas.store import MemoryFigure, StoredStudy, StoredTrial


def front_members(
    trials: list[StoredTrial], study: StoredStudy, means: Mapping[int, Mapping[str, float]] | None = None
) -> list[StoredTrial]:
    """The non-dominated complete trials, one for each network, sorted by the last objective.

    A network is as good as its best candidate, so equal networks never share a front.

    Args:
        trials: of the search.
        study: theirs.
        means: number of a trial → what stands in for its values, where it has replicates.
    """
    complete = [trial for trial in trials if trial.state == "complete"]
    if not complete:
        return []
    signs = [1.0 if found.direction == "minimize" else -1.0 for found in study.objectives]
    points = [
        [sign * values[found.name] for sign, found in zip(signs, study.objectives, strict=True)]
        for values in ({**trial.values, **(means or {}).get(trial.number, {})} for trial in complete)
    ]
    mask = non_dominated(points)
    members = sorted(
        (tuple(reversed(point)), trial.number, trial)
        for point, trial, kept in zip(points, complete, mask, strict=True)
        if kept
    )
    by_network: dict[str, StoredTrial] = {}
    for _, _, trial in members:
        by_network.setdefault(trial.candidate.architecture.fingerprint, trial)
    return list(by_network.values())


def placeholder(known: Mapping[str, float], study: StoredStudy, trials: list[StoredTrial]) -> list[float]:
    """Values for a sampler that learns from complete trials alone: the known ones, else the worst there is.

    The worst is the reference, else the worst seen so far, else a number that nothing is worse than.
    """
    found = []
    for objective in study.objectives:
        seen = [trial.values[objective.name] for trial in trials if trial.state == "complete"]
        sign = 1.0 if objective.direction == "minimize" else -1.0
        worst = objective.reference
        if worst is None:
            worst = sign * max((sign * value for value in seen), default=UNKNOWN_WORST)
        found.append(float(known.get(objective.name, worst)))
    return found


def predicted_memory(candidate: Candidate) -> list[MemoryFigure]:
    """The formulas' figures at the candidate's own max_context and batch 1: bf16, and fp32 for training."""
    cost = estimate(candidate.architecture)
    decodes = family_spec(candidate.architecture.family).decodes
    return [
        MemoryFigure(
            figure=name,
            kind="predicted",
            bytes=int(getattr(cost, name)),
            batch=cost.batch,
            context=cost.context,
            dtype="fp32" if name == "train_peak_bytes" else cost.dtype,
        )
        for name in ("param_bytes", "state_bytes", "serve_bytes", "prefill_peak_bytes", "train_peak_bytes")
        if decodes or name not in ("state_bytes", "serve_bytes")
    ]
