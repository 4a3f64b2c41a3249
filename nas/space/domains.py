"""What one parameter can be: a choice, a range or a log range.

In: the words of a space file. Out: values, drawn or listed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from nas.specs.base import Value


@dataclass(frozen=True)
class Choice:
    """One of a list of values."""

    values: tuple[Value, ...]

    @property
    def grid(self) -> tuple[Value, ...] | None:
        """Every value, or None where they are not countable."""
        return self.values

    def contains(self, value: object) -> bool:
        """Whether the value can be drawn."""
        return value in self.values

    def sample(self, rng: random.Random) -> Value:
        """A value, each as likely as any other."""
        return self.values[rng.randrange(len(self.values))]


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included, on steps or not, on a log scale or not.

    Whole numbers where both ends are whole and a step is not given otherwise.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False

    @cached_property
    def is_integer(self) -> bool:
        """Whether its values are whole numbers."""
        return all(isinstance(bound, int) for bound in (self.low, self.high, self.step or 1))

    @cached_property
    def grid(self) -> tuple[Value, ...] | None:
        """Every value, or None where they are not countable."""
        if self.low == self.high:
            return (self.low,)
        step = self.step or (1 if self.is_integer else None)
        if step is None:
            return None
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        # Rounded, so that 0.1 + 2 x 0.1 is 0.3.
        points = (round(self.low + index * step, 12) for index in range(count))
        return tuple(min(max(point, self.low), self.high) for point in points)

    def contains(self, value: object) -> bool:
        """Whether the value can be drawn."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        step = self.step or (1 if self.is_integer else None)
        if not self.low <= value <= self.high or step is None:
            return self.low <= value <= self.high
        if self.is_integer:
            return (value - self.low) % step == 0
        return math.isclose((value - self.low) / step, round((value - self.low) / step), abs_tol=1e-9)

    def sample(self, rng: random.Random) -> Value:
        """A value, uniform on the range's own scale."""
        if self.log:
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
            # exp(log(x)) may miss x by a rounding.
            value = min(max(value, self.low), self.high)
            return round(value) if self.is_integer else value
        if self.grid is not None:
            return self.grid[rng.randrange(len(self.grid))]
        return rng.uniform(self.low, self.high)


Domain = Choice | Range
Scope = Literal["model", "layer"] | int
"""One draw for all layers, one for each, or one for each of k layers that then repeat."""


@dataclass(frozen=True)
class Draw:
    """A domain, when it is active, and how often it is drawn.

    Attributes:
        domain: what can be drawn.
        when: names of other draws and the values under which this one is active.
        scope: how often, inside `layers`.
    """

    domain: Domain
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    scope: Scope = "model"

    @cached_property
    def fixed(self) -> Value | None:
        """The value where there is only one, else None."""
        grid = self.domain.grid
        return grid[0] if grid is not None and len(grid) == 1 else None

    def is_active(self, values: Mapping[str, Value]) -> bool:
        """Whether the conditions hold for values drawn so far; a name that is absent fails them."""
        return all(name in values and values[name] in allowed for name, allowed in self.when)
