"""When a run of a study ends, and why.

In: what the study was asked for, and what its trials came to. Out: a reason as soon as there is one. All but the
time is in the store, so that a study that is continued ends where it would have ended.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from nas.errors import StudyError
from nas.limits import Stop
from nas.space.architecture import Architecture
from nas.store import Store, StoredStudy, StoredTrial
from nas.study.plan import Plan
from nas.units import format_count, format_seconds

# Draws that the smallest first rung is looked for in, where it depends on the candidate.
_DRAWS = 64


@dataclass
class Ending:
    """The end of one run.

    Attributes:
        stop: the study's limits.
        seconds: of this run, after which nothing is begun; None for no such limit.
        spent: seconds that earlier runs took.
        grown: candidates started and hypervolume, at each front that was recorded.
    """

    stop: Stop = field(default_factory=Stop)
    seconds: float | None = None
    spent: float = 0.0
    grown: list[tuple[int, float]] = field(default_factory=list)
    _begun: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, store: Store, study: StoredStudy, stop: Stop, seconds: float | None) -> Ending:
        """The end of a run that begins now."""
        fronts = store.fronts(study)
        rows = zip(fronts["trials_done"].tolist(), fronts["hypervolume"].tolist(), strict=True)
        grown = [(int(started), float(volume)) for started, volume in rows if volume == volume]
        return cls(stop=stop, seconds=seconds, spent=float(study.resolved.get("run_seconds", 0.0)), grown=grown)

    @property
    def elapsed(self) -> float:
        """Seconds of wall time since this run began."""
        return time.monotonic() - self._begun

    @property
    def deadline(self) -> float | None:
        """Of time.monotonic(), after which nothing is begun; None where time has no limit."""
        left = [] if self.seconds is None else [self.seconds]
        left += [] if self.stop.seconds is None else [self.stop.seconds - self.spent]
        return self._begun + min(left) if left else None

    @property
    def is_late(self) -> bool:
        """Whether it is the time that ends the run."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def of_time(self) -> Ending:
        """The limits of time alone, for what follows the search."""
        return Ending(stop=Stop(seconds=self.stop.seconds), seconds=self.seconds, spent=self.spent, _begun=self._begun)

    def recorded(self, started: int, hypervolume: float | None) -> None:
        """A front was recorded."""
        if hypervolume is not None:
            self.grown.append((started, hypervolume))

    def reason(self, trials: Collection[StoredTrial]) -> str:
        """Why nothing more is begun; "" while there is no reason.

        Args:
            trials: of the study, as they are now.
        """
        if self.seconds is not None and self.elapsed >= self.seconds:
            return f"the time of this run is over ({format_seconds(self.seconds)})"
        stop = self.stop
        if stop.seconds is not None and self.spent + self.elapsed >= stop.seconds:
            return f"stop.time is over ({format_seconds(stop.seconds)}, all runs together)"
        for name, limit in (("tokens", stop.tokens), ("flops", stop.flops)):
            if limit is not None and (spent := sum(float(getattr(trial, name)) for trial in trials)) >= limit:
                return f"stop.{name} is reached ({format_count(spent)} of {format_count(limit)})"
        return self._stagnation(trials)

    def _stagnation(self, trials: Collection[StoredTrial]) -> str:
        patience, growth = self.stop.patience, self.stop.growth
        if patience is None or not self.grown:
            return ""
        # One that still runs has had no chance to add to it.
        ended = sum(trial.state in ("paused", "complete", "failed") for trial in trials)
        before = [volume for started, volume in self.grown if started <= ended - patience]
        if not before:
            return ""
        now = self.grown[-1][1]
        if before[-1] > 0 and now - before[-1] >= growth * before[-1]:
            return ""
        if before[-1] <= 0 < now:
            return ""
        return (
            f"stop.hypervolume: it was {before[-1]:.4f} and is {now:.4f} after {patience} more candidates, "
            f"a growth of less than {growth:.3g}"
        )


def check_stop(plan: Plan, stop: Stop, *, has_scale: bool) -> None:
    """Refuses limits that could never be reached, or before anything was scored.

    Args:
        plan: of the study.
        stop: its limits.
        has_scale: whether all its objectives have one, so that there is a hypervolume.

    Raises:
        StudyError: with the nearest limit that works.
    """
    if stop.patience is not None and not has_scale:
        raise StudyError(
            "stop.hypervolume needs a hypervolume: give each measured objective worst= and best=, or leave it out"
        )
    counted = [name for name in ("tokens", "flops") if getattr(stop, name) is not None]
    if not counted:
        return
    if plan.step_flops is None:
        raise StudyError(f"an evaluator of your own tells no {' and no '.join(counted)}: give trials, or stop.time")
    firsts = list(_first_rungs(plan))
    for place, name in enumerate(("tokens", "flops")):
        limit = getattr(stop, name)
        if limit is None or not firsts:
            continue
        least = min(first[place] for first in firsts)
        if limit < least:
            raise StudyError(
                f"{name} {limit:,.10g} is below the first rung of one candidate: give at least {math.ceil(least):,}"
            )


def _first_rungs(plan: Plan) -> Iterator[tuple[float, float]]:
    """Tokens and FLOPs of the first rung of some random candidates."""
    assert plan.step_flops is not None
    rng, seen = random.Random(plan.seed), set[Architecture]()
    for _ in range(_DRAWS):
        drawn = plan.space.decode(plan.space.draw(rng))
        architecture = None if drawn.architecture is None else plan.bind(drawn)
        if architecture is None or architecture in seen:
            continue
        seen.add(architecture)
        try:
            schedule = plan.schedule(architecture)
        except StudyError:
            # A budget of FLOPs may hold too few of its steps: then it is no candidate.
            continue
        steps = schedule.rung_steps[0]
        yield steps * schedule.tokens_per_step, steps * plan.step_flops(architecture)
