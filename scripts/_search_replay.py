"""One table of trained curves as one seed of a search sees it.

In: a `Table` and the seed of a run. Out: a `Replay`: which candidates there are, what a training of
each would score, cost and take, and the scale of the hypervolume. A search sees the scores of one
training seed; what it trains is scored on the mean of the others, so that luck with one seed earns
nothing.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from _table_read import Table, TableCandidate

from nas.pareto import front, hypervolume
from nas.search.rungs import Curve, CurveState
from nas.space.space import Drawn

LEAST_SHARE = 0.5
"""A training seed counts as one of the whole table where it has so much of the candidates of the fullest one."""


@dataclass(frozen=True)
class Replay:
    """A table, seen with one training seed.

    Attributes:
        table: of it.
        seen: the training seed whose scores the search is told.
        rows: the candidates that can be trained.
    """

    table: Table
    seen: int
    rows: tuple[TableCandidate, ...]

    @staticmethod
    def of(table: Table, seed: int) -> Replay:
        """What the run with a seed sees.

        Raises:
            ValueError: no candidate has all training seeds that most have.
        """
        common = common_seeds(table)
        rows = tuple(row for row in table.candidates if all(is_known(row, one, table) for one in common))
        if not rows:
            raise ValueError(f"table {table.name}: no candidate was trained with all of the seeds {common}")
        return Replay(table, common[seed % len(common)], rows)

    @property
    def rungs(self) -> int:
        """Of a whole training."""
        return len(self.table.rung_tokens)

    @property
    def whole(self) -> int:
        """Tokens of one whole training."""
        return self.table.rung_tokens[-1]

    def tokens(self, rung: int) -> int:
        """That training from the rung before to this one takes."""
        return self.table.rung_tokens[rung] - (self.table.rung_tokens[rung - 1] if rung else 0)

    def seconds(self, row: int, rung: int) -> float:
        """That training from the rung before to this one took; a training that diverged is taken to have gone on."""
        took = self.rows[row].seconds[self.seen]
        if rung < len(took):
            return took[rung] - (took[rung - 1] if rung else 0.0)
        return took[-1] * self.tokens(rung) / self.table.rung_tokens[len(took) - 1] if took else 1.0

    def score(self, row: int, rung: int) -> float | None:
        """What the search is told at a rung; None for a training that came to nothing."""
        found = self.rows[row].curves.get(self.seen, ())
        return found[rung] if rung < len(found) else None

    def curve(self, row: int, reached: int, state: CurveState) -> Curve:
        """What the stopping rule is told, smaller being better.

        Args:
            row: of the candidate.
            reached: rungs that it has reached.
            state: of its training.
        """
        candidate = self.rows[row]
        sign = 1.0 if self.table.axes[0].direction == "minimize" else -1.0
        rates = [float(value) for name, value in candidate.params.items() if name == "training.learning_rate"]
        return Curve(
            number=row,
            key=candidate.key,
            known=(candidate.memory,),
            scores=tuple((sign * score,) for score in candidate.curves.get(self.seen, ())[:reached]),
            state=state,
            mixers=tuple(sorted({layer.mixer for layer in candidate.architecture.all_layers})),
            context=float(candidate.architecture.max_context),
            learning_rate=rates[0] if rates else None,
        )

    def place(self, values: Mapping[str, Any]) -> int | None:
        """The row of an assignment of the space's parameters, or None where the table lacks it."""
        key = tuple(values.items())
        if key not in self._asked:
            self._asked[key] = self.row_of(self.table.space.decode(values))
        return self._asked[key]

    @cached_property
    def _asked(self) -> dict[Hashable, int | None]:
        """Assignments that were asked for: a table's space is small, and they come again and again."""
        return {}

    def row_of(self, drawn: Drawn) -> int | None:
        """The row of a draw, or None where the table lacks it."""
        return self._places.get((drawn.architecture, drawn.training))

    @cached_property
    def _places(self) -> dict[Hashable, int]:
        drawn = [self.table.space.decode(row.params) for row in self.rows]
        found: dict[Hashable, int] = {(one.architecture, one.training): row for row, one in enumerate(drawn)}
        assert len(found) == len(self.rows), "two candidates of a table are one"
        return found

    @cached_property
    def scored(self) -> tuple[float | None, ...]:
        """Of each candidate the mean final score of the training seeds that the search does not see.

        None where one of them came to nothing. Where there is one training seed alone, it scores too.
        """
        return tuple(_mean(row, self) for row in self.rows)

    @cached_property
    def is_scored_apart(self) -> bool:
        """Whether the front is scored on other training seeds than the search sees."""
        return len(common_seeds(self.table)) > 1

    @cached_property
    def best(self) -> float:
        """The hypervolume of the true front: of all candidates, on the seeds that score."""
        return self._volume(range(len(self.rows)))

    @cached_property
    def ceiling(self) -> float:
        """The share of `best` that a search has which trains everything and picks by the seed that it sees."""
        return self.picked(range(len(self.rows)))

    @cached_property
    def true_front(self) -> frozenset[int]:
        """Rows of the true front."""
        rows = [row for row, score in enumerate(self.scored) if score is not None]
        points = [(self.scored[row], self.rows[row].memory) for row in rows]
        return frozenset(rows[place] for place in front(points, self.table.axes))

    def found(self, finished: Sequence[int]) -> list[int]:
        """The front that a search reports: of what it trained to the end, by the scores that it saw."""
        rows = [row for row in finished if self.score(row, self.rungs - 1) is not None]
        points = [(self.score(row, self.rungs - 1), self.rows[row].memory) for row in rows]
        return [rows[place] for place in front(points, self.table.axes)] if rows else []

    def share(self, finished: Sequence[int]) -> float:
        """The hypervolume of what was trained to the end, on the seeds that score, relative to the true front's."""
        return self._volume(finished) / self.best

    def picked(self, finished: Sequence[int]) -> float:
        """The same of the front alone that the search would report, which one seed picks."""
        return self._volume(self.found(finished)) / self.best

    def _volume(self, rows: Sequence[int]) -> float:
        points = [(score, self.rows[row].memory) for row in rows if (score := self.scored[row]) is not None]
        return hypervolume(points, self.table.axes)


def _mean(row: TableCandidate, replay: Replay) -> float | None:
    others = [seed for seed in {*row.curves, *row.failure} if seed != replay.seen] or [replay.seen]
    finals = [row.curves[seed][-1] for seed in others if _is_whole(row, seed, replay.table)]
    return statistics.mean(finals) if len(finals) == len(others) else None


def is_known(row: TableCandidate, seed: int, table: Table) -> bool:
    """Whether the table says what a training came to."""
    return seed in row.failure or _is_whole(row, seed, table)


def _is_whole(row: TableCandidate, seed: int, table: Table) -> bool:
    return seed not in row.failure and len(row.curves.get(seed, ())) == len(table.rung_tokens)


def common_seeds(table: Table) -> tuple[int, ...]:
    """Training seeds that the whole table has, or most of what there is of one that still grows."""
    counts = {seed: sum(is_known(row, seed, table) for row in table.candidates) for seed in table.seeds}
    most = max(counts.values(), default=0)
    return tuple(seed for seed, count in sorted(counts.items()) if count and count >= LEAST_SHARE * most)


def digest(table: Table) -> str:
    """Changes with everything that a replay depends on."""
    rows = [
        [row.key, row.memory, *(sorted(part.items()) for part in (row.curves, row.seconds, row.failure))]
        for row in table.candidates
    ]
    axes = [[axis.direction, axis.ideal, axis.reference, axis.log2] for axis in table.axes]
    return hashlib.sha256(json.dumps([table.name, table.rung_tokens, axes, rows]).encode()).hexdigest()[:16]
