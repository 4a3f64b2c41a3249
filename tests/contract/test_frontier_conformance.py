"""Optuna's own conformance suite for samplers, on the frontier sampler."""

from __future__ import annotations

from collections.abc import Callable

import optuna
import pytest
from optuna.testing import pytest_samplers as suite

from nas.search.frontier import FrontierSampler
from nas.search.frontier.choose import Effort


def make() -> optuna.samplers.BaseSampler:
    effort = Effort(draws=10, bred=10, rounds=1, parents=3, children=6)
    return FrontierSampler(seed=0, startup=3, effort=effort)


class TestBasic(suite.BasicSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], optuna.samplers.BaseSampler]:
        return make


class TestMultiObjective(suite.MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], optuna.samplers.BaseSampler]:
        return make


class TestRelative(suite.RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], optuna.samplers.BaseSampler]:
        return make
