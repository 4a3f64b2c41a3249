"""nas estimate: what a network, a space or a study costs, before anything is trained.

In: a file. Out: text. Of a network: its memory and FLOPs, or the longest context that a limit allows. Of a space: the
ranges and histograms of random draws, and what its limits exclude. Of a study besides: how long it will take.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.inputs import architecture_of, find, size_in_words
from nas.cli.probing import measure, refuse_unmeasured
from nas.cli.speeds import Speed, given_speed, measured_speed
from nas.cli.tracing import print_traced, refuse_untraced
from nas.config import StudyConfig, load_study_config
from nas.cost.contexts import FARTHEST, Reach, check_context, figures_of, longest_context
from nas.cost.estimate import Estimate
from nas.cost.estimate import estimate as cost_of
from nas.errors import InputError, SpaceError, StudyError
from nas.objectives import objective_limits
from nas.report.charts import FULL, LIGHT, histogram
from nas.space.architecture import Architecture
from nas.space.feasibility import Survey, limits_of, survey
from nas.space.space import Space
from nas.space.yaml_lines import load_yaml
from nas.specs import family_spec
from nas.units import exact_bytes, format_bytes, format_count, format_seconds, parse_size

if TYPE_CHECKING:
    from nas.study.plan import Plan

DRAWS = 2_000
FIGURES = ("param_bytes", "state_bytes", "serve_bytes", "prefill_peak_bytes", "train_peak_bytes")


def estimate(arguments: argparse.Namespace) -> int:
    """nas estimate FILE"""
    if arguments.device != "auto" and not arguments.measure:
        raise InputError("--device is of --measure: give both")
    if arguments.max_memory is not None and (arguments.trace or arguments.measure or arguments.speed):
        raise InputError("--max-memory is answered by the formulas alone: leave out --trace, --measure and --speed")
    path = Path(arguments.file)
    if path.suffix == ".json":
        _estimate_network(architecture_of(path), arguments)
        return 0
    found = find(arguments.file)
    values, _ = load_yaml(found, StudyError)
    config = load_study_config(found) if "objectives" in values else None
    space = config.space if config is not None else Space.load(found)
    if arguments.max_memory is not None:
        if space.size != 1:
            raise InputError(
                f"--max-memory is for one network, and {space.name} has {size_in_words(space)}: "
                "give an architecture (JSON), or limit the space by a constraint"
            )
        _print_reaches(space.sample(0), arguments)
        return 0
    if config is None and space.size == 1:
        _estimate_network(space.sample(0), arguments)
        return 0
    if arguments.draws < 1:
        raise InputError(f"--draws must be at least 1, not {arguments.draws}")
    if config is not None and sum(map(bool, (arguments.speed, arguments.store, arguments.measure))) > 1:
        raise InputError("--speed, --store and --measure each tell how fast training is: give one of them")
    if arguments.trace:
        raise InputError(f"--trace is for one network, and {space.name} has {size_in_words(space)}")
    if config is None and (arguments.speed or arguments.store or arguments.measure):
        raise InputError("--speed, --store and --measure tell the time of a study; a space has no budget")
    # What is wrong with the settings is said before anything is drawn.
    for context in arguments.context or [None]:
        _cost(space.sample(0), context, arguments)
    _estimate_space(space, config, arguments)
    return 0


# One network


def _estimate_network(architecture: Architecture, arguments: argparse.Namespace) -> None:
    if arguments.max_memory is not None:
        _print_reaches(architecture, arguments)
        return
    if arguments.speed or (arguments.store and not arguments.measure):
        raise InputError(
            "--speed and --store tell the time of a study; of one network, --store keeps what --measure finds"
        )
    if arguments.measure:
        refuse_unmeasured(arguments)
    for context in arguments.context or [None]:
        check_context(architecture, context)
        cost = _cost(architecture, context, arguments)
        if arguments.trace:
            refuse_untraced(cost)
        _print_estimate(cost)
    if arguments.trace:
        for context in arguments.context or [None]:
            print_traced(_cost(architecture, context, arguments))
    if arguments.measure:
        for context in arguments.context or [None]:
            measure(architecture, context, arguments)


def _cost(architecture: Architecture, context: int | None, arguments: argparse.Namespace) -> Estimate:
    return cost_of(
        architecture,
        context=context,
        batch=arguments.batch,
        dtype=arguments.dtype,
        cache_dtype=arguments.cache_dtype,
        recurrent_dtype=arguments.recurrent_dtype,
        cache_window=arguments.cache_window,
        train_dtype=arguments.train_dtype,
        optimizer=arguments.optimizer,
        checkpointing=arguments.checkpointing,
    )


def _formats(cost: Estimate) -> str:
    """The batch, and what weights, cache and recurrent states are kept in."""
    stored = f"weights and cache {cost.dtype}"
    if cost.cache_dtype != cost.dtype:
        stored = f"weights {cost.dtype}, cache {cost.cache_dtype}"
    return f"batch {cost.batch}, {stored}, recurrent state {cost.recurrent_dtype}"


def _training(cost: Estimate) -> str:
    """How it is trained."""
    return f"training {cost.train_dtype}, {cost.optimizer}" + (", checkpointing" if cost.checkpointing else "")


def _print_estimate(cost: Estimate) -> None:
    print(f"context {cost.context:,}, {_formats(cost)}, {_training(cost)}")
    print(f"  parameters          {cost.parameters:,}")
    for name in FIGURES:
        value = getattr(cost, name)
        print(f"  {name:<19} {value:,} ({format_bytes(value)})")
    peak = cost.training_peak
    for name in ("parameters", "optimizer", "gradients", "activations", "temporaries"):
        print(f"    {name:<17} {format_bytes(getattr(peak, name))} at the fullest moment of training")
    print(f"  flops_per_token     {format_count(cost.flops_per_token)} (training)")
    print(f"                      {format_count(cost.prefill_flops_per_token)} (prefill)")
    print(f"                      {format_count(cost.decode_flops_per_token)} (decoding, with a full state)")


def _print_reaches(architecture: Architecture, arguments: argparse.Namespace) -> None:
    if arguments.context:
        raise InputError("--max-memory finds the context, and --context gives it: leave one out")
    try:
        limit = parse_size(arguments.max_memory)
    except InputError as error:
        raise InputError(f"--max-memory: {error}") from None

    def cost(context: int) -> Estimate:
        return _cost(architecture, context, arguments)

    reaches = [longest_context(architecture, figure, limit, cost) for figure in figures_of(architecture)]
    if not reaches[0].tokens:
        weights = cost(1).param_bytes
        below = "is below the weights alone" if weights > limit else "leaves no room for one token"
        raise SpaceError(
            f"--max-memory {arguments.max_memory} {below} (param_bytes {exact_bytes(weights)}): "
            f"the nearest limit that holds one token is {exact_bytes(reaches[0].bytes)}"
        )
    print(f"longest context within {format_bytes(limit)}, {_formats(cost(1))}, {_training(cost(1))}")
    for reach in reaches:
        print(f"  {reach.figure:<19} {_reach_in_words(reach, architecture)}")


def _reach_in_words(reach: Reach, architecture: Architecture) -> str:
    if not reach.tokens:
        return f"not even one token: it takes {exact_bytes(reach.bytes)}"
    taken = f"({format_bytes(reach.bytes)})"
    if reach.is_endless:
        return f"more than {FARTHEST:,} tokens {taken}: it hardly grows with the context"
    if reach.is_table_end:
        return f"{reach.tokens:,} tokens {taken}: learned positions end there"
    beyond = reach.tokens > architecture.max_context
    return f"{reach.tokens:,} tokens {taken}" + (f", beyond max_context {architecture.max_context:,}" if beyond else "")


# Spaces and studies


@dataclass(frozen=True)
class _Costs:
    """Draws of a space, and what each costs at one context."""

    seen: Survey
    costs: Sequence[Estimate]

    @property
    def keeps(self) -> list[bool]:
        return [not broken for broken in self.seen.broken]

    @property
    def feasible(self) -> list[Estimate]:
        return [cost for cost, keeps in zip(self.costs, self.keeps, strict=True) if keeps]


def _estimate_space(space: Space, config: StudyConfig | None, arguments: argparse.Namespace) -> None:
    # What is wrong with the options is said before anything is drawn.
    given = given_speed(arguments, config.name) if config is not None else None
    plan = _plan(config) if config is not None and arguments.measure else None
    limits = limits_of(space)
    if config is not None:
        limits += objective_limits(config.objectives)
        limits += plan.budget_limits if plan is not None else config.budget_limits(partial(_step_flops, config))
    draws = 1 if space.size == 1 else arguments.draws
    seen = survey(space, limits, draws=draws, bind=None if plan is None else plan.bind)
    if not seen.networks:
        seen.refuse_infeasible()
    print(f"{space.name}: {size_in_words(space)}; {_draws_in_words(seen)}")
    _print_limits(seen)
    if config is not None and config.device is not None and config.device.bytes is None:
        print("  device_memory auto is read when the study is run, and not counted here")
    for context in arguments.context or [None]:
        costs = []
        for network in seen.networks:
            check_context(network, context)
            costs.append(_cost(network, context, arguments))
        drawn = _Costs(seen, costs)
        _print_range(drawn, context)
        if draws > 1:
            _print_histograms(drawn, with_flops=config is None)
    if config is not None:
        _print_time(seen, config, plan, given)
    if not seen.feasible:
        seen.refuse_infeasible()


def _plan(config: StudyConfig) -> Plan:
    from nas.cli.running import be_a_good_neighbour

    be_a_good_neighbour()
    from nas.study.plan import plan_from_config

    return plan_from_config(config)


def _draws_in_words(seen: Survey) -> str:
    if seen.draws == 1:
        return "one network"
    return f"{len(seen.feasible):,} of {seen.draws:,} draws are feasible ({seen.share:.1%})"


def _print_limits(seen: Survey) -> None:
    if not seen.limits and not seen.unbuilt:
        return
    header = "draws that a limit excludes"
    width = max(map(len, (header, *(limit.text for limit in seen.limits), *seen.unbuilt)))
    print(f"  {header:<{width}}  in all  by it alone")
    for place, limit in enumerate(seen.limits):
        print(f"  {limit.text:<{width}}  {seen.excluded(place):>6.1%}  {seen.excluded_alone(place):>11.1%}")
    for rule, times in seen.unbuilt.items():
        print(f"  {rule:<{width}}  {times / seen.draws:>6.1%}  {times / seen.draws:>11.1%}")


def _print_range(drawn: _Costs, context: int | None) -> None:
    costs = drawn.feasible or drawn.costs
    of = "" if drawn.feasible else " of all draws, none of them feasible"
    at = "max_context" if context is None else context
    print(f"context {at}, {_formats(costs[0])}: smallest, median, largest{of}")
    for name in FIGURES:
        values = [float(getattr(cost, name)) for cost in costs]
        print(f"  {name:<19} " + "  ".join(f"{format_bytes(value):>9}" for value in _three(values)))
    flops = [cost.flops_per_token for cost in costs]
    print(f"  {'flops_per_token':<19} " + "  ".join(f"{format_count(value):>9}" for value in _three(flops)))


def _three(values: Sequence[float]) -> Iterator[float]:
    yield from (min(values), statistics.median(values), max(values))


def _print_histograms(drawn: _Costs, *, with_flops: bool) -> None:
    decodes = family_spec(drawn.seen.networks[0].family).decodes
    legend = _legend(drawn.keeps)
    for name in ("serve_bytes" if decodes else "prefill_peak_bytes", "train_peak_bytes"):
        print(f"{name}, draws from each size on{legend}")
        _print_bars([float(getattr(cost, name)) for cost in drawn.costs], drawn.keeps, is_bytes=True)
    if with_flops:
        print(f"training FLOPs per token, draws from each number on{legend}")
        _print_bars([cost.flops_per_token for cost in drawn.costs], drawn.keeps, is_bytes=False)


def _legend(keeps: Sequence[bool]) -> str:
    return "" if all(keeps) else f" ({FULL} feasible, {LIGHT} not)"


def _print_bars(values: Sequence[float], keeps: Sequence[bool], *, is_bytes: bool) -> None:
    for line in histogram(values, keeps, text=format_bytes if is_bytes else format_count):
        print(f"  {line}")


# The time of a study


def _print_time(seen: Survey, config: StudyConfig, plan: Plan | None, given: Speed | None) -> None:
    pairs = [
        (flops, network, not broken)
        for network, broken in zip(seen.networks, seen.broken, strict=True)
        if (flops := _training_flops(network, config, plan)) is not None
    ]
    if not pairs:
        return
    keeps = [pair[2] for pair in pairs]
    if len(pairs) > 1:
        print(f"training FLOPs of a candidate to its last rung{_legend(keeps)}")
        _print_bars([pair[0] for pair in pairs], keeps, is_bytes=False)
    able = sorted((pair for pair in pairs if pair[2]), key=lambda pair: pair[0])
    if not able:
        return
    mean = statistics.fmean(pair[0] for pair in able)
    candidates, total = _candidates(config, mean)
    print(f"the study: {candidates} x {format_count(mean)} FLOPs on average = {format_count(total)} FLOPs")
    if plan is None:
        print("  counted at max_context: less where batches mix lengths, as those of most tasks do")
    speed = given if plan is None else measured_speed(config, plan, able[len(able) // 2][1])
    print(f"  {_time_in_words(total, speed)}")


def _candidates(config: StudyConfig, mean: float) -> tuple[str, float]:
    """How many candidates a study trains, in words, and their FLOPs, where something known ends it first."""
    stop, most = config.stop, [] if config.trials is None else [float(config.trials)]
    if stop.flops is not None:
        most.append(stop.flops / mean)
    if stop.tokens is not None and config.budget.tokens is not None:
        most.append(stop.tokens / config.budget.tokens)
    if not most:
        return "a candidate", mean
    return f"{min(most):,.4g} candidates", min(most) * mean


def _training_flops(network: Architecture, config: StudyConfig, plan: Plan | None) -> float | None:
    """FLOPs of the whole budget of a candidate; None where it holds too few of its steps."""
    try:
        schedule = config.schedule(_step_flops(config, network)) if plan is None else plan.schedule(network)
    except StudyError:
        return None
    return schedule.total_steps * _step_flops(config, network)


def _step_flops(config: StudyConfig, network: Architecture) -> float:
    """FLOPs of a training step at max_context: what can be known without the task's data."""
    return cost_of(network).flops_per_token * config.budget.tokens_per_step


def _time_in_words(total: float, speed: Speed | None) -> str:
    if speed is None:
        return "no speed known: give --speed FLOPS, --store URL of finished trials, or --measure"
    time = format_seconds(total / speed.flops_per_second)
    return f"about {time}, one candidate at a time, at {format_count(speed.flops_per_second)} FLOP/s: {speed.basis}"
