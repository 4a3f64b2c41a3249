"""A search in simulated time: workers that take as long as the recorded trainings took.

In: a `Replay` and a `Method`. Out: an `Outcome`. A job is one rung of one candidate; a worker that
is free takes the next one that the method names. What is spent are training tokens, of every rung
of every candidate, also of those that were stopped and of those that came to nothing.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from _search_replay import Replay

WORKERS = 4


class Method(ABC):
    """A search, driven by the simulation.

    Attributes:
        paused: rows of the candidates that it has stopped for now.
    """

    paused: set[int]

    @abstractmethod
    def next(self) -> int | None:
        """The row of the candidate that is trained to its next rung, or None where there is nothing to do now."""

    @abstractmethod
    def reached(self, row: int, rung: int, score: float) -> None:
        """A rung was reached, from 0, with its score."""

    @abstractmethod
    def failed(self, row: int) -> None:
        """A training came to nothing."""

    def close(self) -> None:  # noqa: B027 - most hold nothing that must be let go
        """The run is over."""


@dataclass(frozen=True)
class Event:
    """The end of a job.

    Attributes:
        seconds: of simulated time.
        tokens: spent up to now.
        row: of the candidate.
        rung: from 0.
    """

    seconds: float
    tokens: int
    row: int
    rung: int


@dataclass
class Outcome:
    """What a search did.

    Attributes:
        events: in the order in which they ended.
        finished: rows of the candidates that were trained to the end, with the tokens spent by then.
        reached: row → rungs that were reached.
        failed: rows whose training came to nothing.
    """

    events: list[Event] = field(default_factory=list)
    finished: list[tuple[int, int]] = field(default_factory=list)
    reached: dict[int, int] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)

    def hypervolumes(self, replay: Replay) -> list[tuple[int, float]]:
        """Tokens spent and share of the best hypervolume, after each training that ended."""
        rows = [row for row, _ in self.finished]
        return [(tokens, replay.share(rows[: place + 1])) for place, (_, tokens) in enumerate(self.finished)]


def simulate(replay: Replay, method: Method, *, tokens: int, workers: int = WORKERS) -> Outcome:
    """Runs a search until so many tokens are given out; what runs by then ends.

    Args:
        replay: that it searches.
        method: that decides; told of a job's end before it is asked again.
        tokens: of all jobs together, after which none is begun.
        workers: that train at once.
    """
    outcome = Outcome()
    jobs: list[tuple[float, int, int]] = []
    training: set[int] = set()
    now, given, spent, count = 0.0, 0, 0, 0
    while True:
        while len(jobs) < workers and given < tokens and (row := method.next()) is not None:
            rung = outcome.reached.get(row, 0)
            assert row not in training and row not in outcome.failed and rung < replay.rungs, f"row {row} is no job"
            heapq.heappush(jobs, (now + replay.seconds(row, rung), count, row))
            training.add(row)
            given, count = given + replay.tokens(rung), count + 1
        if not jobs:
            return outcome
        now, _, row = heapq.heappop(jobs)
        training.remove(row)
        rung = outcome.reached.get(row, 0)
        spent += replay.tokens(rung)
        outcome.events.append(Event(now, spent, row, rung))
        score = replay.score(row, rung)
        # Reached, though to no avail: its tokens are spent.
        outcome.reached[row] = rung + 1
        if score is None:
            outcome.failed.add(row)
            method.failed(row)
            continue
        if rung == replay.rungs - 1:
            outcome.finished.append((row, spent))
        method.reached(row, rung, score)
