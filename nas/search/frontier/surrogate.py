"""An exact Gaussian process for one measured objective.

In: features and values of finished candidates. Out: mean and standard deviation of others.

The kernel adds three parts, because qualities of networks have three: a smooth one of the summaries
(Matérn 5/2 with a length for each feature: totals saturate, width and depth work together), a
linear one of the summaries, which goes on beyond the data, and a linear one of what stands in each
layer, which learns that one layer matters more than another and costs one number however many
layers there are. The lengths have the prior of Hvarfner et al. (2024), which grows with the
dimension; they are fitted by their gradient, in closed form and without a tensor of pairs and
features, so that a thousand trials take a fraction of a second. That is why it is written here: the
one in scikit-learn keeps pairs × features for each gradient, and a hundred features are usual.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Trials that the lengths are fitted on; the prediction is of all of them.
MOST_FITTED = 250
STEPS = 70
RATE = 0.12
_ROOT5 = math.sqrt(5.0)
# Relative to the variance of the values: keeps the matrix well conditioned.
_JITTER = 1e-6
# Prior means and deviations of the logarithms of: Matérn, linear and layer variance, noise.
_SCALE_MEANS: Array = np.array([0.0, -1.0, -1.0, math.log(1e-3)])
_SCALE_SPREADS: Array = np.array([1.0, 1.5, 1.5, 1.5])


class Inputs(NamedTuple):
    """What the surrogate sees of some candidates.

    Attributes:
        summary: (candidates, features), standardised.
        layers: (candidates, layer features), standardised; may have no columns.
    """

    summary: Array
    layers: Array

    def rows(self, which: Sequence[int] | Array) -> Inputs:
        """Some of the candidates."""
        return Inputs(self.summary[which], self.layers[which])


@dataclass(frozen=True)
class Standard:
    """Shifts and scales that a set of inputs had.

    Attributes:
        shifts: of summary and layers.
        scales: of summary and layers; infinite for a column that is constant, which so plays no part.
    """

    shifts: Inputs
    scales: Inputs

    @staticmethod
    def of(raw: Inputs) -> Standard:
        """Those of some candidates."""
        spreads = [part.std(axis=0) if len(part) else np.ones(part.shape[1]) for part in raw]
        means = [part.mean(axis=0) if len(part) else np.zeros(part.shape[1]) for part in raw]
        return Standard(Inputs(*means), Inputs(*(np.where(spread > 1e-9, spread, np.inf) for spread in spreads)))

    def apply(self, raw: Inputs) -> Inputs:
        """The inputs with mean 0 and deviation 1 in each column of the set."""
        return Inputs(
            (raw.summary - self.shifts.summary) / self.scales.summary,
            (raw.layers - self.shifts.layers) / self.scales.layers,
        )


@dataclass(frozen=True)
class GaussianProcess:
    """A fitted process.

    Attributes:
        inputs: of the candidates it was fitted to.
        weights: of the features: inverse squared lengths.
        scales: variances of the three parts and of the noise.
        noise: of each value, the variance beside the common one, of standardised values.
        inverse: of the covariance of the values.
        alpha: inverse · standardised values.
        offset: mean of the values.
        unit: deviation of the values.
    """

    inputs: Inputs
    weights: Array
    scales: Array
    noise: Array
    inverse: Array
    alpha: Array
    offset: float
    unit: float

    @staticmethod
    def fit(inputs: Inputs, values: Array, rng: np.random.Generator, *, noise: Array | None = None) -> GaussianProcess:
        """The process of some values.

        Args:
            inputs: standardised.
            values: (candidates,).
            rng: picks the trials that the lengths are fitted on, where there are too many.
            noise: (candidates,), the variance of each value beside the noise that all share.
        """
        offset, unit = float(values.mean()), float(values.std())
        unit = unit if unit > 1e-12 else 1.0
        targets = (values - offset) / unit
        own = np.zeros(len(targets)) if noise is None else np.asarray(noise / unit**2, dtype=np.float64)
        theta = _fitted(inputs, targets, own, rng)
        weights, scales = np.exp(theta[:-4]), np.exp(theta[-4:])
        covariance = _covariance(inputs, inputs, weights, scales)
        inverse = _inverse(covariance, own + scales[3])
        return GaussianProcess(inputs, weights, scales, own, inverse, inverse @ targets, offset, unit)

    def predict(self, inputs: Inputs) -> tuple[Array, Array]:
        """Mean and standard deviation of the noiseless values, (candidates,) each."""
        cross = _covariance(inputs, self.inputs, self.weights, self.scales)
        own = self.scales[0] + _linear_diagonal(inputs, self.scales)
        variance = own - np.einsum("ij,ij->i", cross @ self.inverse, cross)
        return self.offset + self.unit * (cross @ self.alpha), self.unit * np.sqrt(np.maximum(variance, 1e-10))

    def with_pending(self, pending: Inputs) -> GaussianProcess:
        """As if candidates that still run had come out as predicted (Ginsbourger et al. 2010)."""
        if not len(pending.summary):
            return self
        mean, _ = self.predict(pending)
        inputs = Inputs(*(np.concatenate(pair) for pair in zip(self.inputs, pending, strict=True)))
        covariance = _covariance(inputs, inputs, self.weights, self.scales)
        extra = np.asarray(np.concatenate([self.noise, np.zeros(len(pending.summary))]), dtype=np.float64)
        inverse = _inverse(covariance, extra + self.scales[3])
        known, _ = self.predict(self.inputs)
        # The values themselves: mean + noise part of each, as the process was given them.
        noise = (self.noise + self.scales[3] + _JITTER) * self.alpha
        targets = np.concatenate([(known - self.offset) / self.unit + noise, (mean - self.offset) / self.unit])
        return GaussianProcess(
            inputs, self.weights, self.scales, extra, inverse, inverse @ targets, self.offset, self.unit
        )


def _fitted(inputs: Inputs, targets: Array, noise: Array, rng: np.random.Generator) -> Array:
    """Logarithms of weights and scales at the largest posterior, by Adam (Kingma & Ba 2015) from the prior's mean."""
    if len(targets) > MOST_FITTED:
        # The best are what the choice turns on; the others are drawn.
        best = np.argsort(targets, kind="stable")[: MOST_FITTED // 2]
        rest = np.setdiff1d(np.arange(len(targets)), best)
        rows = np.concatenate([best, rng.choice(rest, MOST_FITTED - len(best), replace=False)])
        inputs, targets, noise = inputs.rows(rows), targets[rows], noise[rows]
    features = inputs.summary.shape[1]
    active = max(1, int((np.abs(inputs.summary).max(axis=0, initial=0.0) > 0).sum()))
    # Of lengths: √2 + log √d, and √3; a weight is a length to the power of -2.
    means = np.concatenate([np.full(features, -2.0 * math.sqrt(2.0) - math.log(active)), _SCALE_MEANS])
    spreads = np.concatenate([np.full(features, 2.0 * math.sqrt(3.0)), _SCALE_SPREADS])
    grams = (_gram(inputs.summary, inputs.summary), _gram(inputs.layers, inputs.layers))
    theta, first, second = means.copy(), np.zeros_like(means), np.zeros_like(means)
    best_theta, least = theta, math.inf
    for step in range(1, STEPS + 1):
        loss, gradient = _posterior(theta, inputs.summary, targets, noise, grams)
        shifted = (theta - means) / spreads
        loss += 0.5 * float(shifted @ shifted)
        if loss < least:
            best_theta, least = theta, loss
        gradient = gradient + shifted / spreads
        first = 0.9 * first + 0.1 * gradient
        second = 0.99 * second + 0.01 * gradient**2
        move = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
        theta = theta - RATE * move
    return best_theta


def _posterior(
    theta: Array, summary: Array, targets: Array, noise: Array, grams: tuple[Array, Array]
) -> tuple[float, Array]:
    """Negative log marginal likelihood and its gradient."""
    weights, scales = np.exp(theta[:-4]), np.exp(theta[-4:])
    size = len(targets)
    smooth, slope = _matern(_distances(summary, summary, weights))
    covariance = scales[0] * smooth + scales[1] * grams[0] + scales[2] * grams[1]
    covariance[np.diag_indices(size)] += noise + scales[3] + _JITTER
    inverse = np.linalg.inv(covariance)
    alpha = inverse @ targets
    _, determinant = np.linalg.slogdet(covariance)
    loss = 0.5 * float(targets @ alpha) + 0.5 * float(determinant)
    # d loss / d covariance; each parameter then costs one product of matrices.
    pull = 0.5 * (inverse - np.outer(alpha, alpha))
    by_distance = pull * (scales[0] * slope)
    row_sums = by_distance.sum(axis=1)
    by_weight = 2.0 * (row_sums @ summary**2) - 2.0 * np.einsum("ij,ij->j", summary, by_distance @ summary)
    by_scale = [
        scales[0] * float((pull * smooth).sum()),
        scales[1] * float((pull * grams[0]).sum()),
        scales[2] * float((pull * grams[1]).sum()),
        scales[3] * float(np.trace(pull)),
    ]
    return loss, np.concatenate([by_weight * weights, by_scale])


def _covariance(one: Inputs, other: Inputs, weights: Array, scales: Array) -> Array:
    smooth, _ = _matern(_distances(one.summary, other.summary, weights))
    linear = _gram(one.summary, other.summary)
    return np.asarray(scales[0] * smooth + scales[1] * linear + scales[2] * _gram(one.layers, other.layers))


def _inverse(covariance: Array, noise: Array) -> Array:
    noisy = covariance.copy()
    noisy[np.diag_indices(len(noisy))] += noise + _JITTER
    return np.asarray(np.linalg.inv(noisy), dtype=np.float64)


def _linear_diagonal(inputs: Inputs, scales: Array) -> Array:
    summary = np.square(inputs.summary).sum(axis=1) / max(1, inputs.summary.shape[1])
    layers = np.square(inputs.layers).sum(axis=1) / max(1, inputs.layers.shape[1])
    return np.asarray(scales[1] * summary + scales[2] * layers)


def _gram(one: Array, other: Array) -> Array:
    return np.asarray(one @ other.T / max(1, one.shape[1]))


def _distances(one: Array, other: Array, weights: Array) -> Array:
    """Squared distances, each feature weighted: (one, other)."""
    left, right = one * np.sqrt(weights), other * np.sqrt(weights)
    squares = np.square(left).sum(axis=1)[:, None] + np.square(right).sum(axis=1)[None, :]
    return np.asarray(np.maximum(squares - 2.0 * left @ right.T, 0.0))


def _matern(squared: Array) -> tuple[Array, Array]:
    """Matérn 5/2 of squared distances, and its slope by them."""
    scaled = _ROOT5 * np.sqrt(squared)
    decay = np.exp(-scaled)
    return (1.0 + scaled + scaled**2 / 3.0) * decay, -(5.0 / 6.0) * (1.0 + scaled) * decay
