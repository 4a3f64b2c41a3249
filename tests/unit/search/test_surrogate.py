"""The Gaussian process: its gradient, its predictions, what runs still."""

from __future__ import annotations

import numpy as np
import pytest

from nas.search.frontier.surrogate import (
    GaussianProcess,
    Inputs,
    Standard,
    _gram,
    _posterior,
)


def made(count: int, rng: np.random.Generator) -> Inputs:
    return Inputs(rng.normal(size=(count, 4)), rng.normal(size=(count, 6)))


def test_the_gradient_is_that_of_the_likelihood() -> None:
    rng = np.random.default_rng(0)
    inputs, targets, theta = made(12, rng), rng.normal(size=12), rng.normal(size=8) * 0.3 - 1.0
    grams = (_gram(inputs.summary, inputs.summary), _gram(inputs.layers, inputs.layers))
    noise = rng.random(12)
    _, gradient = _posterior(theta, inputs.summary, targets, noise, grams)
    for place in range(len(theta)):
        step = np.zeros(8)
        step[place] = 1e-5
        ends = [_posterior(theta + sign * step, inputs.summary, targets, noise, grams)[0] for sign in (1, -1)]
        assert gradient[place] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-6)


def test_it_learns_a_function_of_summaries_and_one_of_layers() -> None:
    rng = np.random.default_rng(1)
    inputs = made(80, rng)
    weights = rng.normal(size=6)
    values = np.sin(inputs.summary[:, 0]) + inputs.summary[:, 1] + 0.5 * inputs.layers @ weights
    model = GaussianProcess.fit(inputs.rows(range(60)), values[:60], rng)
    mean, deviation = model.predict(inputs.rows(range(60, 80)))
    errors = mean - values[60:]
    assert errors.std() < 0.25 * values.std()
    assert (np.abs(errors) < 3 * deviation + 0.05).mean() > 0.9
    # Of the features that play no part it makes less.
    assert model.weights[0] > 3 * model.weights[2:].max()


def test_more_trials_than_are_fitted_still_count_in_the_prediction() -> None:
    rng = np.random.default_rng(2)
    inputs = made(400, rng)
    values = inputs.summary[:, 0] ** 2
    model = GaussianProcess.fit(inputs, values, rng)
    mean, deviation = model.predict(inputs)
    assert np.abs(mean - values).max() < 0.2
    assert deviation.max() < 0.5


def test_what_still_runs_is_certain_and_moves_no_prediction() -> None:
    rng = np.random.default_rng(3)
    inputs, pending = made(20, rng), made(2, rng)
    model = GaussianProcess.fit(inputs, inputs.summary.sum(axis=1), rng)
    before, unsure = model.predict(pending)
    after, sure = model.with_pending(pending).predict(pending)
    assert after == pytest.approx(before, abs=0.02)
    assert (sure < 0.7 * unsure).all()
    assert model.with_pending(pending.rows([])) is model


def test_equal_values_and_constant_features_break_nothing() -> None:
    raw = Inputs(np.ones((5, 2)), np.zeros((5, 0)))
    inputs = Standard.of(raw).apply(raw)
    mean, deviation = GaussianProcess.fit(inputs, np.full(5, 3.0), np.random.default_rng(0)).predict(inputs)
    assert mean == pytest.approx(np.full(5, 3.0))
    assert np.isfinite(deviation).all()


def test_a_value_with_noise_of_its_own_counts_for_less() -> None:
    rng = np.random.default_rng(5)
    inputs = made(40, rng)
    values = inputs.summary[:, 0].copy()
    values[0] += 5.0
    noise = np.zeros(40)
    noise[0] = 25.0
    trusted = GaussianProcess.fit(inputs, values, rng).predict(inputs.rows([0]))[0][0]
    doubted = GaussianProcess.fit(inputs, values, rng, noise=noise).predict(inputs.rows([0]))[0][0]
    assert abs(doubted - inputs.summary[0, 0]) < 0.5 < abs(trusted - inputs.summary[0, 0])
