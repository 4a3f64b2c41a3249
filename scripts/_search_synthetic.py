"""A made-up table of curves: for tests, and to try the benchmark where no table was built.

In: a seed. Out: a `Table` of a few hundred candidates. What the real ones have is there: hybrids on
the front, learning rates that matter and whose best one depends on the width, curves that cross
(what learns fast is not what ends best), noise between training seeds, some trainings that diverge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from _table_read import Table, TableCandidate

from nas.cost import estimate
from nas.pareto import Axis
from nas.records import Candidate
from nas.space import Space
from nas.space.architecture import Architecture

RATES = (1e-3, 4e-3, 1.6e-2)
WIDTHS = (16, 24, 32, 48)
MIXERS = ("full", "gated_delta", "sliding_window")
RUNG_TOKENS = (25_000, 50_000, 100_000, 200_000, 400_000)
CONTEXT = 4096
NOISE = 0.006
SPACE: Mapping[str, Any] = {
    "name": "synthetic",
    "family": "decoder",
    "vocabulary": 64,
    "width": {"choice": list(WIDTHS)},
    "depth": {"range": [1, 3]},
    "max_context": CONTEXT,
    "layers": {"mixer": {"choice": list(MIXERS), "per": "layer"}, "heads": 2, "window": 16, "mlp_ratio": 2},
    "training": {"learning_rate": {"choice": list(RATES)}},
}


def synthetic_table(seed: int = 0, *, training_seeds: int = 2, name: str = "synthetic", depth: int = 3) -> Table:
    """A table of 4 widths, 1 to `depth` layers of 3 mixers and 3 learning rates: 468 candidates at depth 3."""
    rng = np.random.default_rng(seed)
    space = Space.from_mapping({**SPACE, "depth": {"range": [1, depth]}})
    helps = {"full": rng.uniform(0.9, 1.1), "gated_delta": rng.uniform(0.6, 0.8), "sliding_window": 0.3}
    rows = []
    for values in space.enumerate():
        drawn = space.decode(values)
        architecture = space.bind(drawn, None)
        curves = _Curves(architecture, dict(drawn.training)["learning_rate"], helps, rng)
        rows.append(curves.candidate(values, training_seeds))
    memories = [row.memory for row in rows]
    axes = (
        Axis(direction="minimize", ideal=0.0, reference=1.0),
        Axis(direction="minimize", ideal=min(memories), reference=max(memories) * 1.05, log2=True),
    )
    return Table(
        name=name,
        space=space,
        axes=axes,
        rung_tokens=RUNG_TOKENS,
        candidates=tuple(rows),
        seeds=tuple(range(training_seeds)),
        header={"complete": True},
    )


class _Curves:
    """The trainings of one candidate.

    Args:
        architecture: bound.
        rate: the learning rate.
        helps: mixer → what a layer of it adds to the quality.
        rng: of the noise.
    """

    def __init__(
        self, architecture: Architecture, rate: float, helps: Mapping[str, float], rng: np.random.Generator
    ) -> None:
        self._architecture, self._rate, self._rng = architecture, rate, rng
        mixers = [layer.mixer for layer in architecture.all_layers]
        # A second layer of the same kind adds less than one of another.
        gains = sum(helps[mixer] / (1.0 + 0.6 * mixers[:place].count(mixer)) for place, mixer in enumerate(mixers))
        best = 4e-3 * math.sqrt(24.0 / architecture.width)
        off = math.log(rate / best) / math.log(4.0)
        self._loss = math.exp(-0.55 * gains - 0.012 * architecture.width) + 0.05 + 0.06 * off**2
        # Full attention, depth and small learning rates learn late.
        self._pace = 0.12 + 0.1 * mixers.count("full") + 0.03 * len(mixers) + 0.08 * max(-off, 0.0)
        self._diverges = 0.5 if off > 1.1 else 0.0

    def candidate(self, values: Mapping[str, Any], training_seeds: int) -> TableCandidate:
        """The candidate with a curve for each training seed."""
        curves, seconds, failure = {}, {}, {}
        for seed in range(training_seeds):
            count = len(RUNG_TOKENS)
            if self._rng.random() < self._diverges:
                count = int(self._rng.integers(0, count))
                failure[seed] = "diverged: the loss is nan"
            curves[seed] = tuple(self._score(tokens) for tokens in RUNG_TOKENS[:count])
            speed = 1e5 / (self._architecture.width * len(self._architecture.all_layers))
            seconds[seed] = tuple(round(tokens / speed / 50.0, 3) for tokens in RUNG_TOKENS[:count])
        return TableCandidate(
            key=Candidate(self._architecture, (("learning_rate", self._rate),)).key,
            params=values,
            memory=float(estimate(self._architecture).serve_bytes),
            architecture=self._architecture,
            curves=curves,
            seconds=seconds,
            failure=failure,
        )

    def _score(self, tokens: int) -> float:
        left = math.exp(-tokens / RUNG_TOKENS[-1] / self._pace)
        return self._loss + max(1.0 - self._loss, 0.0) * left + NOISE * float(self._rng.normal())
