"""Options to choose from: new, within every known limit, none twice.

In: a `Describer`, the keys of what was tried. Out: options by random draws, and by changing and
crossing others. What breaks a limit that is known before training never leaves this module.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from nas.search.frontier.options import Describer, Option, draw
from nas.search.frontier.proposals import Proposals

# Tries for each option that is asked for: limits may exclude nearly all draws.
TRIES = 4


class Pool:
    """The options of one suggestion.

    Args:
        describe: describes assignments.
        seen: keys of what was tried.
        rng: of every draw.
    """

    def __init__(self, describe: Describer, seen: set[Hashable], rng: np.random.Generator) -> None:
        self._describe, self._rng = describe, rng
        self._seen = set(seen)
        self._proposals = Proposals(describe.distributions, rng)
        self.options: list[Option] = []

    def draw(self, count: int, *, most: int = 2000) -> None:
        """Adds random options, up to `count`; nearly all draws of a tight space are tried in vain."""
        made = 0
        for tried in range(most):
            if made >= count or (made and tried >= TRIES * count):
                return
            made += self._add(draw(self._describe.distributions, self._rng)) is not None

    def changed(self, parents: Sequence[Option], count: int) -> list[Option]:
        """Adds neighbours of the parents, in turn; gives back the new ones."""
        return self._bred(count, lambda tried: self._proposals.changed(parents[tried % len(parents)].params))

    def crossed(self, parents: Sequence[Option], count: int) -> list[Option]:
        """Adds children of pairs of the parents, slightly changed as often as not."""

        def child(tried: int) -> dict[str, Any]:
            one, other = (parents[int(place)] for place in self._rng.integers(len(parents), size=2))
            found = self._proposals.crossed(one.params, other.params)
            return self._proposals.changed(found) if tried % 2 else found

        return self._bred(count, child)

    def _bred(self, count: int, make: Any) -> list[Option]:
        found: list[Option] = []
        for tried in range(TRIES * count):
            if len(found) == count:
                break
            option = self._add(make(tried))
            if option is not None:
                found.append(option)
        return found

    def _add(self, params: dict[str, Any]) -> Option | None:
        option = self._describe(params)
        if option is None or not option.is_allowed or option.key in self._seen:
            return None
        self._seen.add(option.key)
        self.options.append(option)
        return option
