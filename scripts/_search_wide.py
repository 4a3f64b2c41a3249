"""Wide spaces without training: a made-up quality over 27, 51 and 75 parameters, the memory known.

In: a number of parameters and a seed. Out: what samplers reach of the best known hypervolume.

Width, depth, tied embeddings, and for each possible layer its heads and MLP ratio; layers beyond the
depth play no part. The quality has diminishing returns in a weighted sum of what the layers
contribute, with weights drawn for each seed, neighbouring layers that like to differ or to be alike,
and a width that matters most, as in real models; it is measured with noise of half a percent of its
range. The memory is that of the weights and of a cache, by formula.

Hypervolume is of the noiseless qualities of all candidates that were evaluated: quality from that of
the smallest network to the best known, memory in powers of two from the smallest to the largest
network of the space. The best known front is that of a long evolution on the noiseless function.
Nothing runs beside anything else here: a candidate is suggested once the one before it is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from nas.pareto import Axis, hypervolume, non_dominated
from nas.search.frontier import FrontierSampler
from nas.search.mirror import silent
from nas.space import Space
from nas.space.architecture import Architecture

WIDTHS, HEADS, RATIOS, LEAST_DEPTH = (64, 96, 128, 192, 256), (1, 2, 4, 8), (1, 2, 3, 4), 2
VOCABULARY, HEAD_DIM, CONTEXT = 256, 16, 512
NOISE = 0.005
SIZES = (27, 51, 75)
EVALUATIONS = 100
NAMES = ("random", "nsga2", "tpe", "gp", "frontier")

Array = NDArray[np.float64]
Genes = NDArray[np.int64]


@dataclass(frozen=True)
class Wide:
    """One made-up problem.

    Attributes:
        parameters: 27, 51 or 75: three, and two for each possible layer.
        seed: of its weights.
    """

    parameters: int
    seed: int

    @property
    def most_layers(self) -> int:
        """The maximum depth."""
        return (self.parameters - 3) // 2

    @cached_property
    def space(self) -> Space:
        """Its candidates."""
        return Space.from_mapping(
            {
                "name": f"wide_{self.parameters}",
                "family": "decoder",
                "width": {"choice": list(WIDTHS)},
                "depth": {"choice": list(range(LEAST_DEPTH, self.most_layers + 1))},
                "max_context": CONTEXT,
                "tied_embeddings": {"choice": [True, False]},
                "layers": {
                    "mixer": "full",
                    "heads": {"choice": list(HEADS), "per": "layer"},
                    "mlp_ratio": {"choice": list(RATIOS), "per": "layer"},
                },
            }
        )

    @cached_property
    def _weights(self) -> dict[str, Array]:
        rng = np.random.default_rng([self.parameters, self.seed])
        layers = self.most_layers
        return {
            "heads": rng.gamma(2.0, 0.5, layers),
            "ratios": rng.gamma(2.0, 0.5, layers),
            "neighbours": rng.normal(0.0, 0.5, layers - 1),
            "shape": np.array([rng.uniform(0.45, 0.6), rng.uniform(2.0, 3.5), rng.uniform(0.0, 0.02)]),
        }

    def qualities(self, genes: Genes) -> Array:
        """Noiseless qualities, about 0 to 1.

        Args:
            genes: (candidates, 3 + 2 layers): indices of width, depth, tied, heads…, ratios….
        """
        width, active, heads, ratios = self._parts(genes)
        weights, layers = self._weights, self.most_layers
        ones = weights["heads"] * np.log2(2.0 * heads) / 4.0 + weights["ratios"] * ratios / 4.0
        differ = np.abs(np.log2(heads[:, 1:]) - np.log2(heads[:, :-1])) / 3.0
        pairs = weights["neighbours"] * (differ - 0.5)
        total = (ones * active).sum(axis=1) + (pairs * active[:, 1:]).sum(axis=1)
        share, returns, tied = weights["shape"]
        stacked = 1.0 - np.exp(-returns * np.maximum(total, 0.0) / (2.0 * layers) * 2.0)
        wide = (1.0 - np.exp(-width / 110.0)) / (1.0 - np.exp(-WIDTHS[-1] / 110.0))
        free = 1.0 - (genes[:, 2] == 0)
        return np.asarray((share * wide + (0.9 - share) * stacked + 0.1 * wide * stacked) * (1 - tied) + tied * free)

    def memories(self, genes: Genes) -> Array:
        """KiB of weights and cache."""
        width, active, heads, ratios = self._parts(genes)
        attention = 4.0 * width[:, None] * HEAD_DIM * heads
        feed = 2.0 * ratios * width[:, None] ** 2
        cache = 2.0 * CONTEXT * HEAD_DIM * heads
        tables = VOCABULARY * width * np.where(genes[:, 2] == 0, 1.0, 2.0)
        return np.asarray(2.0 * (tables + ((attention + feed + cache) * active).sum(axis=1)) / 1024.0)

    def _parts(self, genes: Genes) -> tuple[Array, Array, Array, Array]:
        layers = self.most_layers
        width = np.array(WIDTHS, dtype=float)[genes[:, 0]]
        active = np.arange(layers)[None, :] < genes[:, 1:2] + LEAST_DEPTH
        heads = np.array(HEADS, dtype=float)[genes[:, 3 : 3 + layers]]
        ratios = np.array(RATIOS, dtype=float)[genes[:, 3 + layers :]]
        return width, active.astype(float), heads, ratios

    def genes(self, architecture: Architecture) -> Genes:
        """The one row of an architecture; layers that it lacks have index 0."""
        heads, ratios = np.zeros(self.most_layers, dtype=int), np.zeros(self.most_layers, dtype=int)
        for place, layer in enumerate(architecture.layers):
            heads[place], ratios[place] = HEADS.index(layer.heads), RATIOS.index(int(layer.mlp_ratio))
        whole = [WIDTHS.index(architecture.width), architecture.depth - LEAST_DEPTH]
        return np.array([[*whole, 0 if architecture.tied_embeddings else 1, *heads, *ratios]])

    def evaluate(self, params: Mapping[str, Any]) -> tuple[float, float]:
        """Noiseless quality and memory of an assignment."""
        architecture = self.space.decode(params).architecture
        assert architecture is not None
        genes = self.genes(architecture)
        return float(self.qualities(genes)[0]), float(self.memories(genes)[0])

    def memory(self, architecture: Architecture) -> float:
        """The known objective."""
        return float(self.memories(self.genes(architecture))[0])

    @cached_property
    def sizes(self) -> Genes:
        """How many values each gene has."""
        layers = self.most_layers
        depths = layers - LEAST_DEPTH + 1
        return np.array([len(WIDTHS), depths, 2, *[len(HEADS)] * layers, *[len(RATIOS)] * layers])

    @cached_property
    def best(self) -> Array:
        """(points, 2): quality and memory of the best known front."""
        return evolved(self)

    def _memory_ends(self, small: Genes, large: Genes) -> dict[str, float]:
        return {"ideal": float(self.memories(small)[0]), "reference": float(self.memories(large)[0])}

    @cached_property
    def axes(self) -> tuple[Axis, Axis]:
        """Of quality and memory."""
        small, large = np.zeros_like(self.sizes)[None, :], (self.sizes - 1)[None, :]
        return (
            Axis(direction="maximize", ideal=float(self.best[:, 0].max()), reference=float(self.qualities(small)[0])),
            Axis(direction="minimize", **self._memory_ends(small, large), log2=True),
        )


def evolved(problem: Wide, *, population: int = 200, generations: int = 600, seed: int = 0) -> Array:
    """The front of NSGA-II (Deb et al. 2002) on the noiseless function."""
    rng = np.random.default_rng(seed)
    sizes = problem.sizes
    genes = rng.integers(sizes, size=(population, len(sizes)))
    ends = np.stack([np.zeros_like(sizes), sizes - 1])
    genes[:2] = ends
    costs = _costs(problem, genes)
    for _ in range(generations):
        parents = rng.integers(len(genes), size=(2, population))
        mask = rng.random((population, len(sizes))) < rng.choice([0.1, 0.5], size=(population, 1))
        children = np.where(mask, genes[parents[0]], genes[parents[1]])
        changed = rng.random(children.shape) < rng.choice([0.5, 1.5, 3.0], size=(population, 1)) / len(sizes)
        steps = children + rng.choice([-1, 1], size=children.shape)
        anew = np.where(rng.random(children.shape) < 0.5, steps, rng.integers(sizes, size=children.shape))
        children = np.clip(np.where(changed, anew, children), 0, sizes - 1)
        genes = np.concatenate([genes, children])
        costs = np.concatenate([costs, _costs(problem, children)])
        _, first = np.unique(costs, axis=0, return_index=True)
        genes, costs = genes[first], costs[first]
        keep = _survivors(costs, population)
        genes, costs = genes[keep], costs[keep]
    points = costs[non_dominated(costs)]
    return np.column_stack([-points[:, 0], points[:, 1]])


def _costs(problem: Wide, genes: Genes) -> Array:
    return np.column_stack([-problem.qualities(genes), problem.memories(genes)])


def _survivors(costs: Array, count: int) -> Genes:
    """Rows that stay: front after front, the last by crowding."""
    left, kept = np.arange(len(costs)), np.zeros(0, dtype=int)
    while len(kept) < min(count, len(costs)):
        mask = non_dominated(costs[left])
        front = left[mask]
        left = left[~mask]
        if len(kept) + len(front) > count:
            order = np.argsort(costs[front][:, 1])
            scaled = np.column_stack([costs[front][order][:, 0], np.log2(costs[front][order][:, 1])])
            span = np.maximum(np.ptp(scaled, axis=0), 1e-12)
            crowding = np.full(len(front), np.inf)
            crowding[1:-1] = (np.abs(scaled[2:] - scaled[:-2]) / span).sum(axis=1)
            front = front[order][np.argsort(-crowding, kind="stable")[: count - len(kept)]]
        kept = np.concatenate([kept, front])
    return kept


def make_sampler(name: str, problem: Wide, seed: int) -> optuna.samplers.BaseSampler:
    """A sampler by name."""
    makers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed, population_size=16),
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed, multivariate=False),
        "gp": lambda: optuna.samplers.GPSampler(seed=seed),
        "frontier": lambda: FrontierSampler(problem.space, known={1: problem.memory}, seed=seed),
    }
    return makers[name]()


def run(problem: Wide, name: str, seed: int, trials: int) -> tuple[Array, float]:
    """Noiseless points (trials, 2) in the order of evaluation, and seconds of the processor a suggestion at the end."""
    distributions = FrontierSampler(problem.space).distributions
    rng = np.random.default_rng([7, seed])
    points, seconds = [], []
    with silent():
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=make_sampler(name, problem, seed))
        for _ in range(trials):
            begun = time.process_time()
            trial = study.ask(distributions)
            seconds.append(time.process_time() - begun)
            quality, memory = problem.evaluate(trial.params)
            study.tell(trial, [quality + NOISE * float(rng.normal()), memory])
            points.append([quality, memory])
    return np.array(points), float(np.mean(seconds[-5:]))


def shares(problem: Wide, points: Array, *, first: int) -> list[float]:
    """The share of the best known hypervolume after each evaluation from the `first` on."""
    best = hypervolume(problem.best, problem.axes)
    return [hypervolume(points[:count], problem.axes) / best for count in range(first, len(points) + 1)]


def seconds_at(problem: Wide, name: str, trials: int, *, asked: int = 3) -> float:
    """Median seconds of the processor that a suggestion takes behind so many trials, drawn at random."""
    distributions = FrontierSampler(problem.space).distributions
    rng = np.random.default_rng([11, trials])
    with silent():
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0))
        for _ in range(trials):
            trial = study.ask(distributions)
            quality, memory = problem.evaluate(trial.params)
            study.tell(trial, [quality + NOISE * float(rng.normal()), memory])
        study.sampler = make_sampler(name, problem, 0)
        took = []
        # The first one describes all trials before it, which a study that goes on does not repeat.
        for _ in range(asked + 1):
            begun = time.process_time()
            trial = study.ask(distributions)
            took.append(time.process_time() - begun)
            quality, memory = problem.evaluate(trial.params)
            study.tell(trial, [quality, memory])
    return float(np.median(took[1:]))
