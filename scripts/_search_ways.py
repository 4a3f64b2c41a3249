"""What is compared: each method by name, with the settings that were chosen on the tuning runs.

To add one, say how its sampler is made and what it does without; the runs, the checks and the page
follow from these words. Settings are chosen with `scripts/bench_search --tune`, which sees the table
and the seeds of `TUNING` alone; `REPORTED` is run once they stand.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from _search_methods import FRUITLESS_DRAWS, Asked, Encoding, EncodingName, SamplerMaker, Stops
from _search_moasha import Moasha
from _search_replay import Replay
from _search_simulate import Method

from nas.search.frontier import FrontierSampler
from nas.search.frontier.choose import Effort
from nas.search.mirror import silent
from nas.search.samplers import InfeasibleForm
from nas.space.architecture import Architecture
from nas.space.domains import Choice
from nas.space.space import Drawn, Space

GP_DRAWS = 5
"""A draw takes it half a second and more, and in a small space every second one is not new."""

Role = Literal["baseline", "peer", "ours", "ablation", "variant"]


@dataclass(frozen=True)
class Split:
    """Runs that settings are chosen on, or runs that are reported."""

    tables: tuple[str, ...]
    seeds: tuple[int, ...]


TUNING = Split(("recall", "synthetic"), tuple(range(10)))
REPORTED = Split(("recall", "sotu", "synthetic"), tuple(range(10, 30)))
"""No setting is chosen on these: `scripts/bench_search --tune` refuses them."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """A method by its parts.

    Attributes:
        label: on the page.
        role: "baseline", "peer", "ours", an "ablation" of ours, or a "variant" with other settings, for tuning alone.
        sampler: makes it for a run's seed; None for a method with a driver of its own.
        encoding: of the parameters.
        form: in which the sampler is told of what comes to nothing.
        stops: whether with our early stopping.
        draws: in a row that may bring nothing new.
        settings: further words, for the record.
    """

    label: str
    role: Role
    sampler: SamplerMaker | None
    encoding: EncodingName = "choices"
    form: InfeasibleForm = "pruned"
    stops: bool = False
    draws: int = FRUITLESS_DRAWS
    settings: Mapping[str, Any] | None = None

    @property
    def words(self) -> str:
        """All that a run depends on besides the code: runs of other words are run again."""
        stops = "stops" if self.stops else "whole"
        return f"{self.encoding}, {self.form}, {stops}, {self.draws} draws, {dict(self.settings or {})}"


def random_sampler(replay: Replay, seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def nsga2(population: int) -> SamplerMaker:
    return lambda replay, seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=population)


def tpe(*, multivariate: bool) -> SamplerMaker:
    return lambda replay, seed: optuna.samplers.TPESampler(seed=seed, multivariate=multivariate)


def gp(replay: Replay, seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.GPSampler(seed=seed)


def frontier(*, knows: bool = True, scale: bool = True, effort: Effort | None = None, startup: int = 8) -> SamplerMaker:
    """Ours on architectures.

    Args:
        knows: whether memory is a known objective; a surrogate learns it otherwise.
        scale: whether it is told the axes of the objectives, as a study tells it.
        effort: how much is tried for a suggestion.
        startup: candidates before the surrogate is asked.
    """

    def make(replay: Replay, seed: int) -> optuna.samplers.BaseSampler:
        space, memories = replay.table.space, {row.architecture: row.memory for row in replay.rows}

        def bind(drawn: Drawn) -> Architecture:
            """The network of a draw; one that the table lacks stays unbound, and so is not allowed."""
            assert drawn.architecture is not None
            row = replay.row_of(drawn)
            return drawn.architecture if row is None else replay.rows[row].architecture

        return FrontierSampler(
            space,
            known={1: memories.__getitem__} if knows else {},
            is_allowed=memories.__contains__,
            axes=replay.table.axes if scale else None,
            bind=bind,
            effort=effort,
            startup=startup,
            seed=seed,
        )

    return make


def one_hots(replay: Replay, seed: int) -> optuna.samplers.BaseSampler:
    """Ours on the raw parameters: indicators of values in place of what a network is."""
    space = replay.table.space

    def memory(params: Mapping[str, Any]) -> float:
        row = replay.place(params)
        return replay.table.axes[1].reference if row is None else replay.rows[row].memory

    return FrontierSampler(
        known={1: memory},
        features=lambda params: indicators(space, params),
        is_allowed=lambda params: replay.place(params) is not None,
        axes=replay.table.axes,
        seed=seed,
    )


def indicators(space: Space, params: Mapping[str, Any]) -> list[float]:
    """One number for each value of each choice, and one for each range."""
    found: list[float] = []
    for parameter in space.parameters:
        value = params[parameter.name]
        if isinstance(parameter.domain, Choice):
            found += [float(value == choice) for choice in parameter.domain.values]
        else:
            found.append(float(value))
    return found


WAYS: Mapping[str, Way] = {
    "random": Way(label="random", role="baseline", sampler=random_sampler),
    "nsga2": Way(
        label="NSGA-II (Optuna)", role="peer", sampler=nsga2(16), form="complete", settings={"population": 16}
    ),
    "tpe": Way(label="TPE (Optuna)", role="peer", sampler=tpe(multivariate=False), settings={"multivariate": False}),
    "gp": Way(label="GP (Optuna)", role="peer", sampler=gp, encoding="ordered", draws=GP_DRAWS),
    "moasha": Way(label="MOASHA (Syne Tune)", role="peer", sampler=None, settings={"reduction_factor": 3}),
    "random+stops": Way(label="random, our early stopping", role="baseline", sampler=random_sampler, stops=True),
    "nsga2+stops": Way(
        label="NSGA-II, our early stopping",
        role="baseline",
        sampler=nsga2(16),
        form="complete",
        stops=True,
        settings={"population": 16},
    ),
    "ours": Way(label="frontier", role="ours", sampler=frontier(), stops=True),
    "ours-known": Way(label="memory learnt, not known", role="ablation", sampler=frontier(knows=False), stops=True),
    "ours-stops": Way(label="no early stopping", role="ablation", sampler=frontier()),
    "ours-features": Way(label="indicators of raw parameters", role="ablation", sampler=one_hots, stops=True),
}

VARIANTS: Mapping[str, Way] = {
    "nsga2@8": Way(label="NSGA-II, population 8", role="variant", sampler=nsga2(8), form="complete"),
    "nsga2@32": Way(label="NSGA-II, population 32", role="variant", sampler=nsga2(32), form="complete"),
    "nsga2@ordered": Way(
        label="NSGA-II, ordered", role="variant", sampler=nsga2(16), form="complete", encoding="ordered"
    ),
    "tpe@multivariate": Way(label="TPE, multivariate", role="variant", sampler=tpe(multivariate=True)),
    "tpe@ordered": Way(label="TPE, ordered", role="variant", sampler=tpe(multivariate=False), encoding="ordered"),
    "gp@choices": Way(label="GP, choices", role="variant", sampler=gp, draws=GP_DRAWS),
    "moasha@2": Way(label="MOASHA, factor 2", role="variant", sampler=None, settings={"reduction_factor": 2}),
    "ours@axes": Way(label="frontier, axes inferred", role="variant", sampler=frontier(scale=False), stops=True),
    "ours@startup4": Way(label="frontier, 4 first", role="variant", sampler=frontier(startup=4), stops=True),
    "ours@effort": Way(
        label="frontier, half the effort",
        role="variant",
        sampler=frontier(effort=Effort(draws=75, bred=125, rounds=3, children=60)),
        stops=True,
    ),
}


def make_method(name: str, replay: Replay, seed: int, *, syne: str | None) -> Method:
    """The method of a run.

    Args:
        name: of `WAYS` or `VARIANTS`.
        replay: that it searches.
        seed: of the run.
        syne: a Python that has syne-tune, for MOASHA.
    """
    way = {**WAYS, **VARIANTS}[name]
    if way.sampler is None:
        assert syne is not None, "the command line leaves MOASHA out where there is no Python for it"
        return Moasha(replay, python=syne, seed=seed, reduction_factor=(way.settings or {})["reduction_factor"])
    with silent():
        sampler = way.sampler(replay, seed)
    return Asked(
        replay,
        sampler,
        Encoding.of(replay.table.space, way.encoding),
        form=way.form,
        stops=Stops(replay, seed) if way.stops else None,
        seed=seed,
        draws=way.draws,
    )


def missing(name: str, *, syne: str | None) -> str:
    """What a method needs that is not there, with the command that brings it; "" where it can run."""
    way = {**WAYS, **VARIANTS}[name]
    if way.sampler is None and syne is None:
        return "needs syne-tune in an environment of its own: pip install syne-tune there, then --with-syne PYTHON"
    if way.sampler is gp and importlib.util.find_spec("scipy") is None:
        return "needs scipy: pip install scipy"
    return ""


def names_of(*roles: Role) -> Sequence[str]:
    """The methods with one of these roles."""
    return [name for name, way in {**WAYS, **VARIANTS}.items() if way.role in roles]
