"""Which replicates a front still needs: pure functions of what is in the store.

In: trials of the search, replicates that there are, and the words of `confirm`. Out: candidates and seeds to train, in
a fixed order, so that a confirmation that was stopped goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nas.records import Schedule
from nas.store import StoredStudy, StoredTrial


@dataclass
class Replicates:
    """Replicates that a run of the loop trains in place of new candidates.

    Attributes:
        budget: of each training, in multiples of the study's.
        wanted: the trial that is confirmed, and the seed, the next one first.
        front: of the study, for whoever watches.
    """

    budget: float
    wanted: list[tuple[StoredTrial, int]]
    front: list[StoredTrial] = field(default_factory=list)


def wanted(
    members: Sequence[StoredTrial], made: Sequence[StoredTrial], *, seeds: int, seed: int
) -> list[tuple[StoredTrial, int]]:
    """What is to be trained: each member with the seeds that follow the study's, less what was begun before.

    Args:
        members: trials of the search to confirm.
        made: replicates at the same budget, in any state.
        seeds: further ones for each member.
        seed: of the study.
    """
    begun = {(trial.candidate.key, trial.seed) for trial in made}
    return [
        (member, seed + further)
        for member in sorted(members, key=lambda trial: trial.number)
        for further in range(1, seeds + 1)
        if (member.candidate.key, seed + further) not in begun
    ]


def dominated(
    trials: Sequence[StoredTrial],
    front: Sequence[StoredTrial],
    study: StoredStudy,
    made: Sequence[StoredTrial],
    *,
    count: int,
) -> list[StoredTrial]:
    """Complete trials off the front, spread evenly over the ranking by the first measured objective.

    One for each network. Those that were begun before count, so that a study that goes on does not choose others.

    Args:
        trials: of the search.
        front: members of it.
        study: theirs.
        made: replicates at the same budget, in any state.
        count: how many, if there are as many.
    """
    objective = next(found for found in study.objectives if not found.known)
    sign = 1.0 if objective.direction == "minimize" else -1.0
    taken = {trial.candidate.architecture.fingerprint for trial in front}
    ranked: list[StoredTrial] = []
    for trial in sorted(
        (trial for trial in trials if trial.state == "complete"),
        key=lambda trial: (sign * trial.values[objective.name], trial.number),
    ):
        if trial.candidate.architecture.fingerprint not in taken:
            taken.add(trial.candidate.architecture.fingerprint)
            ranked.append(trial)
    begun = {trial.candidate.key for trial in made}
    kept = [trial for trial in ranked if trial.candidate.key in begun]
    others = [trial for trial in spread_evenly(ranked, count) if trial not in kept]
    return [*kept, *others[: max(count - len(kept), 0)]]


def spread_evenly(ranked: Sequence[StoredTrial], count: int) -> list[StoredTrial]:
    """At most so many of a ranking, its first and its last among them."""
    if count >= len(ranked):
        return list(ranked)
    if count < 2:
        return list(ranked[len(ranked) // 2 :][:count])
    return [ranked[round(place * (len(ranked) - 1) / (count - 1))] for place in range(count)]


def scaled(schedule: Schedule, factor: float) -> Schedule:
    """The schedule of a budget that is a multiple of another, with as many rungs."""
    # At a factor of 1 or more, rounding up never merges two rungs.
    return replace(schedule, rung_steps=tuple(math.ceil(step * factor) for step in schedule.rung_steps))
