"""New assignments from old ones: changes and crossings.

In: assignments of one set of distributions. Out: others. Parameters that repeat over layers
("layers.3.heads") are changed together as well as alone, since the same wish usually holds for
many layers: a whole group, or a stretch of it, takes one value or moves by one step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from nas.search.frontier.options import Params, draw_one, ordered, place, share

_PLACE = re.compile(r"\d+")


class Proposals:
    """Makes assignments.

    Args:
        distributions: of the parameters.
        rng: of every draw.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution], rng: np.random.Generator) -> None:
        self._distributions, self._rng = distributions, rng
        # What can be one value alone is never changed.
        self._names = [name for name, domain in distributions.items() if not domain.single()]
        groups: dict[str, list[str]] = {}
        for name in self._names:
            groups.setdefault(_PLACE.sub("#", name), []).append(name)
        # Each group is as likely as any other, or the layers' many parameters would drown width and depth.
        self._groups = list(groups.values())

    def changed(self, parent: Params) -> dict[str, Any]:
        """A neighbour: one to three changes, small ones more often than large ones."""
        child = dict(parent)
        if not self._names:
            return child
        for _ in range(1 + int(self._rng.random() < 0.4) + int(self._rng.random() < 0.2)):
            group = self._groups[int(self._rng.integers(len(self._groups)))]
            kind = self._rng.random()
            if len(group) == 1 or kind < 0.5:
                self._change(child, [group[int(self._rng.integers(len(group)))]])
            else:
                ends = sorted(int(end) for end in self._rng.integers(len(group), size=2))
                self._change(child, group if kind < 0.7 else group[ends[0] : ends[1] + 1])
        return child

    def crossed(self, one: Params, other: Params) -> dict[str, Any]:
        """A child of two: each group of parameters, or a stretch of it, from one of them."""
        child = dict(one)
        for group in self._groups:
            kind = self._rng.random()
            if kind < 0.4:
                taken = group
            elif kind < 0.6:
                cut = int(self._rng.integers(len(group) + 1))
                taken = group[cut:]
            else:
                taken = []
            child.update({name: other[name] for name in taken})
        return child

    def _change(self, child: dict[str, Any], names: Sequence[str]) -> None:
        """Moves all by a step the same way, or sets all to one value."""
        up = bool(self._rng.random() < 0.5)
        if self._rng.random() < 0.6:
            for name in names:
                child[name] = self._step(self._distributions[name], child[name], up)
            return
        value = draw_one(self._distributions[names[0]], self._rng)
        child.update({name: value for name in names if self._distributions[name] == self._distributions[names[0]]})

    def _step(self, domain: BaseDistribution, value: Any, up: bool) -> Any:
        if isinstance(domain, CategoricalDistribution):
            order = ordered(domain)
            if order is None:
                return draw_one(domain, self._rng)
            index = order.index(value) + (1 if up else -1)
            return order[min(max(index, 0), len(order) - 1)]
        assert isinstance(domain, IntDistribution | FloatDistribution)
        if isinstance(domain, IntDistribution) and not domain.log and (domain.high - domain.low) // domain.step < 50:
            moved = value + (domain.step if up else -domain.step)
            return min(max(moved, domain.low), domain.high)
        size = abs(float(self._rng.normal(0.0, 0.15)))
        return place(domain, min(max(share(domain, value) + (size if up else -size), 0.0), 1.0))
