"""What a surrogate sees of an architecture.

In: an `Architecture` and its training hyperparameters. Out: a vector of *summaries* and one of its
*layers*. What a network can do follows its totals (parameters, state, FLOPs), its width, depth and
context, how many layers of a kind it has and where they stand: so a kind, or the number of heads,
appears as its mean over the layers, its slope and its curvature along the depth, and its sum.
Amounts are logarithms, for they act by ratios. The layers themselves come last, one block for each
place up to the maximum depth, empty beyond the depth; with them how often one mixer stands right
below another, for some need another kind below them (attention, one that shifts tokens).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from nas.cost import estimate
from nas.search.frontier.surrogate import Array
from nas.space.architecture import Architecture
from nas.space.layers import Layer
from nas.specs import family_spec
from nas.specs.base import Value

_WORDS = ("positions", "rope_scaling", "norm", "embedding_norm", "tied_embeddings")


class ArchitectureFeatures:
    """The features of the architectures of one space.

    Args:
        samples: of the space; keys and values that none of them has are not told apart.
        most_layers: the maximum depth.
    """

    def __init__(self, samples: Sequence[Architecture], most_layers: int) -> None:
        layers = {layer for architecture in samples for layer in architecture.all_layers}
        pairs = {(key, value) for layer in layers for key, value in (*layer.options, ("mixer", layer.mixer))}
        keys = sorted({key for key, value in pairs if not _is_number(value)})
        self._words = [(key, value) for key in keys for value in sorted({str(v) for k, v in pairs if k == key})]
        self._numbers = sorted({key for key, value in pairs if _is_number(value)} - set(keys))
        mixers = [value for key, value in self._words if key == "mixer"]
        # Of one mixer there is nothing to tell apart.
        self._neighbours = {pair: place for place, pair in enumerate(itertools.product(mixers, mixers))}
        if len(mixers) < 2:
            self._neighbours = {}
        self._most_layers = most_layers
        self._outside = sorted({(key, str(getattr(found, key))) for found in samples for key in _WORDS})
        self._known: dict[Layer, Array] = {}

    def __call__(self, architecture: Architecture, training: Sequence[tuple[str, float]]) -> tuple[Array, Array]:
        """Summaries and layers, one vector each."""
        rows = np.array([self._layer(layer) for layer in architecture.all_layers])
        moments = _basis(len(rows)) @ rows
        # How often the kind of layer changes on the way.
        mixers = [layer.mixer for layer in architecture.all_layers]
        changes = sum(one != other for one, other in itertools.pairwise(mixers))
        summary = np.concatenate(
            [
                [math.log2(architecture.width), architecture.depth, math.log2(architecture.depth)],
                [math.log2(architecture.max_context), changes, len(architecture.encoder_layers)],
                [float(str(getattr(architecture, key)) == value) for key, value in self._outside],
                _totals(architecture),
                [math.log2(value) if value > 0 else value for _, value in training],
                moments.ravel(),
            ]
        )
        placed = np.zeros((self._most_layers, rows.shape[1] + 1))
        count = min(len(rows), self._most_layers)
        placed[:count, :-1], placed[:count, -1] = rows[:count], 1.0
        neighbours = np.zeros(len(self._neighbours))
        for pair in itertools.pairwise(mixers):
            if pair in self._neighbours:
                neighbours[self._neighbours[pair]] += 1.0
        return summary, np.concatenate([placed.ravel(), neighbours])

    def _layer(self, layer: Layer) -> Array:
        found = self._known.get(layer)
        if found is None:
            values = {**layer.values, "mixer": layer.mixer}
            words = [float(str(values.get(key)) == value) for key, value in self._words]
            found = np.array(words + [_amount(values.get(key, 0)) for key in self._numbers])
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            self._known[layer] = found
        return found


_MOST_KEPT = 65_536


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _amount(value: Value) -> float:
    """A logarithm that 0 has too."""
    return math.log2(1.0 + max(float(value), 0.0)) if _is_number(value) else 0.0


@lru_cache(maxsize=1024)
def _basis(depth: int) -> Array:
    """Mean, slope, curvature (Legendre's polynomials along the depth) and sum."""
    place = (2.0 * np.arange(depth) + 1.0) / depth - 1.0
    return np.stack([np.ones(depth), place, 1.5 * place**2 - 0.5, np.full(depth, float(depth))]) / depth


def _totals(architecture: Architecture) -> list[float]:
    """Parameters, state and FLOPs, as logarithms."""
    cost = estimate(architecture)
    state = cost.state_bytes if family_spec(architecture.family).decodes else 0
    return [math.log2(cost.parameters), math.log2(1.0 + state), math.log2(cost.flops_per_token)]
