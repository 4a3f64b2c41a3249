"""What can be suggested: assignments of parameters, described.

In: an assignment that Optuna knows. Out: an `Option`: what makes it the same candidate as another,
its features, and the exact values of the known objectives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from nas.search.frontier.features import ArchitectureFeatures
from nas.search.frontier.surrogate import Array
from nas.search.mirror import distribution
from nas.space.architecture import Architecture
from nas.space.space import Drawn, Space

Params = Mapping[str, Any]
Known = Mapping[int, Callable[[Any], float]]
# Draws that say what keys and values the layers of a space have.
_SAMPLES = 256
# Candidates whose description is remembered: those of a small space come again with every suggestion.
_MOST_KEPT = 4096


@dataclass(frozen=True)
class Option:
    """An assignment, described.

    Attributes:
        params: the assignment.
        key: equal for equal candidates.
        summary: features.
        layers: features of each layer; may be empty.
        known: position of an objective → its exact value.
        is_allowed: whether it keeps every limit that is known before training.
    """

    params: Params
    key: Hashable
    summary: Array
    layers: Array
    known: Mapping[int, float]
    is_allowed: bool


class Describer(Protocol):
    """Describes the assignments of one study."""

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """Of the parameters."""
        ...

    def __call__(self, params: Params) -> Option | None:
        """The option of an assignment, or None where it is no candidate at all."""
        ...


class SpaceDescriber:
    """Describes the assignments of a `Space`.

    Args:
        space: whose parameters are suggested.
        known: position of an objective → its exact function of a bound architecture.
        bind: the network of a draw, bound to its task.
        is_allowed: of a bound architecture; by default whether it keeps the space's constraints.
    """

    def __init__(
        self,
        space: Space,
        known: Known,
        *,
        bind: Callable[[Drawn], Architecture] | None = None,
        is_allowed: Callable[[Architecture], bool] | None = None,
    ) -> None:
        self.distributions: Mapping[str, BaseDistribution] = {
            parameter.name: distribution(parameter.domain) for parameter in space.parameters
        }
        self._space, self._known = space, known
        self._bind = bind or (lambda drawn: space.bind(drawn, None))
        self._is_allowed = is_allowed or (lambda architecture: not space.broken_constraints(architecture))
        rng = np.random.default_rng(0)
        drawn = [space.decode(draw(self.distributions, rng)) for _ in range(_SAMPLES)]
        samples = [self._bind(found) for found in drawn if found.architecture is not None]
        self._features = ArchitectureFeatures(samples, sum(entry.most for entry in space.entries))
        self._described: dict[Hashable, tuple[Array, Array, Mapping[int, float]]] = {}
        sizes = [len(parameter.domain.grid or ()) for parameter in space.parameters]
        self._is_small = 0 < math.prod(sizes) <= _MOST_KEPT
        self._decoded: dict[tuple[Any, ...], Drawn] = {}

    def __call__(self, params: Params) -> Option | None:
        """See `Describer`."""
        drawn = self._decode(params)
        if drawn.architecture is None:
            return None
        architecture = self._bind(drawn)
        key = (architecture, drawn.training)
        # Limits may be learnt as a study goes on; what is asked beyond them is a function of the candidate.
        if not self._is_allowed(architecture):
            # Its other figures are not asked for: most draws of a tight space end here.
            return Option(params, key, np.zeros(0), np.zeros(0), {}, False)
        described = self._described.get(key)
        if described is None:
            if len(self._described) >= _MOST_KEPT:
                self._described.clear()
            known = {place: float(function(architecture)) for place, function in self._known.items()}
            described = self._described[key] = (*self._features(architecture, drawn.training), known)
        return Option(params, key, *described, True)

    def _decode(self, params: Params) -> Drawn:
        if not self._is_small:
            return self._space.decode(params)
        values = tuple(params[name] for name in self.distributions)
        drawn = self._decoded.get(values)
        if drawn is None:
            drawn = self._decoded[values] = self._space.decode(params)
        return drawn


class ParameterDescriber:
    """Describes the assignments of any Optuna study by the parameters themselves, or by a user's features.

    Args:
        distributions: of the parameters.
        known: position of an objective → its exact function of the parameters.
        features: the summaries of an assignment; by default numbers on their scale and indicators of words.
        is_allowed: whether an assignment keeps every limit.
    """

    def __init__(
        self,
        distributions: Mapping[str, BaseDistribution],
        known: Known,
        *,
        features: Callable[[Params], Sequence[float]] | None = None,
        is_allowed: Callable[[Params], bool] | None = None,
    ) -> None:
        self.distributions: Mapping[str, BaseDistribution] = distributions
        self._known, self._features, self._is_allowed = known, features, is_allowed

    def __call__(self, params: Params) -> Option | None:
        """See `Describer`."""
        allowed = self._is_allowed is None or bool(self._is_allowed(params))
        summary = self._features(params) if self._features else self._plain(params)
        known = {place: float(function(params)) for place, function in self._known.items()}
        key = tuple(params[name] for name in self.distributions)
        return Option(params, key, np.asarray(summary, dtype=float), np.zeros(0), known, allowed)

    def _plain(self, params: Params) -> list[float]:
        found: list[float] = []
        for name, domain in self.distributions.items():
            value = params[name]
            if isinstance(domain, CategoricalDistribution):
                order = ordered(domain)
                if order is None:
                    found += [float(value == choice) for choice in domain.choices]
                else:
                    found.append(float(order.index(value)))
            else:
                found.append(math.log(value) if getattr(domain, "log", False) else float(value))
        return found


def ordered(domain: CategoricalDistribution) -> list[Any] | None:
    """The choices from the smallest to the largest where all are numbers, else None."""
    if all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in domain.choices):
        return sorted(domain.choices)
    return None


def draw(distributions: Mapping[str, BaseDistribution], rng: np.random.Generator) -> dict[str, Any]:
    """A random assignment."""
    return {name: draw_one(domain, rng) for name, domain in distributions.items()}


def draw_one(domain: BaseDistribution, rng: np.random.Generator) -> Any:
    """A value, uniform on the distribution's own scale."""
    if isinstance(domain, CategoricalDistribution):
        return domain.choices[int(rng.integers(len(domain.choices)))]
    assert isinstance(domain, IntDistribution | FloatDistribution)
    return place(domain, float(rng.random()))


def place(domain: IntDistribution | FloatDistribution, share: float) -> int | float:
    """The value at a share, from 0 to 1, of the way from low to high."""
    low, high = float(domain.low), float(domain.high)
    if isinstance(domain, IntDistribution) and not domain.log:
        steps = (domain.high - domain.low) // domain.step
        return domain.low + domain.step * min(int(share * (steps + 1)), steps)
    if isinstance(domain, FloatDistribution) and domain.step is not None:
        steps = round((high - low) / domain.step)
        # As Optuna itself places them, so that the value is one of its grid.
        return min(max(low + domain.step * min(int(share * (steps + 1)), steps), low), high)
    half = 0.5 if isinstance(domain, IntDistribution) else 0.0
    if domain.log:
        value = math.exp(math.log(low - half) + share * (math.log(high + half) - math.log(low - half)))
    else:
        value = low + share * (high - low)
    value = min(max(value, low), high)
    return min(max(round(value), domain.low), domain.high) if isinstance(domain, IntDistribution) else value


def share(domain: IntDistribution | FloatDistribution, value: float) -> float:
    """Where a value stands between low and high, from 0 to 1 on the distribution's scale."""
    low, high = float(domain.low), float(domain.high)
    if high <= low:
        return 0.5
    if domain.log:
        return math.log(value / low) / math.log(high / low)
    if isinstance(domain, IntDistribution):
        # The middle of the value's own part.
        steps = (domain.high - domain.low) // domain.step
        return ((value - low) / domain.step + 0.5) / (steps + 1)
    return (value - low) / (high - low)
