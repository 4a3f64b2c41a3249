"""How much of a space keeps its limits.

In: a space, the limits that a candidate must keep, and how draws are bound to a task. Out: a `Survey` of random
draws: what each limit excludes, alone and beside the others, and, where next to nothing is left, the limit that is to
blame and the nearest one that is not.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from nas.errors import SpaceError
from nas.space.architecture import Architecture
from nas.space.constraints import OPERATORS, Constraint
from nas.units import exact_bytes

if TYPE_CHECKING:
    from nas.space.space import Drawn, Space

# Below this share of the draws next to nothing is feasible: a search would spend itself on finding candidates at all.
LEAST_SHARE = 1 / 1_000
# Enough that a share of 1 in 1,000 is seen four times.
SURVEYED = 4_096


@dataclass(frozen=True)
class Limit:
    """A rule between a number and a limit, whoever made it.

    Attributes:
        text: the whole rule.
        name: of the number.
        measure: the number of an architecture.
        op: one of `OPERATORS`.
        limit: what it is held against.
        is_bytes: whether both are bytes.
    """

    text: str
    name: str
    measure: Callable[[Architecture], float]
    op: str
    limit: float
    is_bytes: bool

    @staticmethod
    def of(rule: Constraint) -> Limit:
        """That of a constraint."""
        name = rule.text.partition(rule.op)[0].strip()
        return Limit(rule.text, name, rule.measure, rule.op, rule.limit, rule.measure.takes_bytes)

    def keeps(self, value: float) -> bool:
        """Whether the rule holds for a value."""
        return OPERATORS[self.op](value, self.limit)

    def shown(self, value: float) -> str:
        """A value as it can be typed in again."""
        return exact_bytes(value) if self.is_bytes else f"{value:.10g}"


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Random draws of a space and what its limits make of them.

    Attributes:
        name: of the space.
        limits: that were asked.
        networks: those of the draws that can be built, bound.
        values: for each network the number that each limit is about.
        unbuilt: rule that no repair could mend → draws that it excluded.
    """

    name: str
    limits: tuple[Limit, ...]
    networks: tuple[Architecture, ...]
    values: tuple[tuple[float, ...], ...]
    unbuilt: Mapping[str, int] = field(default_factory=dict)

    @property
    def draws(self) -> int:
        """How many there were."""
        return len(self.networks) + sum(self.unbuilt.values())

    @cached_property
    def broken(self) -> tuple[frozenset[int], ...]:
        """For each network the places of the limits that it breaks."""
        return tuple(
            frozenset(place for place, limit in enumerate(self.limits) if not limit.keeps(values[place]))
            for values in self.values
        )

    @property
    def feasible(self) -> list[Architecture]:
        """The networks that keep all limits."""
        return [network for network, broken in zip(self.networks, self.broken, strict=True) if not broken]

    @property
    def share(self) -> float:
        """Of the draws that are feasible."""
        return len(self.feasible) / self.draws

    def excluded(self, place: int) -> float:
        """The share of the draws that break a limit."""
        return sum(place in broken for broken in self.broken) / self.draws

    def excluded_alone(self, place: int) -> float:
        """The share of the draws that break a limit and no other: what its absence would let in."""
        return sum(broken == {place} for broken in self.broken) / self.draws

    def refuse_infeasible(self) -> None:
        """Refuses a space of which next to nothing is feasible.

        Raises:
            SpaceError: with the limit that excludes most, what was drawn for it, and the nearest one that is feasible.
        """
        if self.share >= LEAST_SHARE:
            return
        found = len(self.feasible)
        few = f"{found} of {self.draws:,} draws {'is' if found == 1 else 'are'} feasible"
        rule = f"space '{self.name}': {few}, and 1 in {1 / LEAST_SHARE:,.0f} must be"
        blame = Counter(place for broken in self.broken for place in broken)
        unbuildable = Counter(self.unbuilt).most_common(1)
        if not blame or (unbuildable and unbuildable[0][1] > blame.most_common(1)[0][1]):
            raise SpaceError(f"{rule}; no network can be built of most of them: {unbuildable[0][0]}")
        place, times = blame.most_common(1)[0]
        worst = f"'{self.limits[place].text}' excludes most of them ({times / self.draws:.1%})"
        raise SpaceError(f"{rule}; {worst}.\n{self._hint(place)}")

    def _hint(self, place: int) -> str:
        limit = self.limits[place]
        others = [
            values[place] for values, broken in zip(self.values, self.broken, strict=True) if not broken - {place}
        ]
        among = sorted(others or (values[place] for values in self.values))
        needed = min(math.ceil(LEAST_SHARE * self.draws), len(among)) - 1
        words = "" if others or len(self.limits) == 1 else " (whatever the other limits exclude)"
        if limit.op == "==":
            nearest = min(among, key=lambda value: abs(value - limit.limit))
            return f"The nearest value that was drawn: {limit.name} == {limit.shown(nearest)}{words}"
        smallest = limit.op in ("<", "<=")
        first, nearest = (among[0], among[needed]) if smallest else (among[-1], among[-1 - needed])
        end, op = ("smallest", "<=") if smallest else ("largest", ">=")
        return (
            f"The {end} {limit.name} that was drawn is {limit.shown(first)}; "
            f"the nearest limit that is feasible: {limit.name} {op} {limit.shown(nearest)}{words}"
        )


def survey(
    space: Space,
    limits: Sequence[Limit],
    *,
    draws: int = SURVEYED,
    seed: int = 0,
    bind: Callable[[Drawn], Architecture] | None = None,
) -> Survey:
    """Random draws of a space, measured.

    Args:
        space: to draw from.
        limits: its constraints (`limits_of`), and whatever else a candidate must keep.
        draws: how many.
        seed: the same seed gives the same draws.
        bind: the bound network of a draw that can be built; as the space binds it by default.
    """
    rng, unbuilt = random.Random(seed), Counter[str]()
    networks: list[Architecture] = []
    for _ in range(draws):
        drawn = space.decode(space.draw(rng))
        if drawn.architecture is None:
            unbuilt[drawn.excluded] += 1
        else:
            networks.append(space.bind(drawn, None) if bind is None else bind(drawn))
    values = tuple(tuple(float(limit.measure(network)) for limit in limits) for network in networks)
    return Survey(name=space.name, limits=tuple(limits), networks=tuple(networks), values=values, unbuilt=unbuilt)


def limits_of(space: Space) -> list[Limit]:
    """Those that a space has itself."""
    return [Limit.of(rule) for rule in space.constraints]
