"""Which runs a command asks for, in which order, and which are refused.

In: the words of the command line. Out: tasks. The split between runs that settings are chosen on and
runs that are reported is held here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from _search_checks import number, shares_at, tokens_to_level
from _search_live import OTHER, OURS, PAIRS
from _search_record import Record, Task
from _search_run import SPEED_TRIALS, has_table
from _search_ways import VARIANTS, WAYS, Split, missing
from _search_wide import NAMES, SIZES

WIDE_SEEDS = 10
"""Of the split's seeds the first ones, in the wide spaces: their runs are long."""
SLOW_WIDE, SLOW = {"gp": 3}, {"gp": 10}
"""Fewer seeds for what takes a second and more for a suggestion: in wide spaces, on tables."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What a command asks for; `tables` None: all of the split that are there."""

    tables: Sequence[str] | None
    methods: Sequence[str]
    seeds: Sequence[int]
    kinds: Sequence[str]


def refuse_other_runs(chosen: Chosen, split: Split) -> None:
    """Keeps tuning away from what is reported, and the report from what was tuned on.

    Raises:
        ValueError: a table or a seed is not of the split.
    """
    for kind, asked, allowed in (("table", chosen.tables or (), split.tables), ("seed", chosen.seeds, split.seeds)):
        wrong = [one for one in asked if one not in allowed]
        if wrong:
            one_of = f"{allowed[0]} to {allowed[-1]}" if kind == "seed" else " or ".join(map(str, allowed))
            raise ValueError(
                f"{kind} {wrong[0]} is not of these runs, which have {one_of}: "
                "settings are chosen with --tune and reported with --report, on runs that are not the same"
            )


def tasks_of(chosen: Chosen, split: Split, *, syne: str | None) -> tuple[list[Task], list[str]]:
    """The runs, seed by seed, so that what is there after an interrupt is a fair part; and what is left out and why.

    Raises:
        ValueError: a table that was named is not there.
    """
    tasks: list[Task] = []
    lacking = {name: missing(name, syne=syne) for name in chosen.methods}
    left_out = [f"{name} is left out: it {why}" for name, why in lacking.items() if why]
    if "table" in chosen.kinds:
        real = [name for name in split.tables if name != "synthetic"]
        tables = chosen.tables or [name for name in real if has_table(name)]
        for name in tables:
            if not has_table(name):
                raise ValueError(f"there is no studies/tables/{name}.csv.gz: scripts/build_table makes it")
        if not tables:
            left_out.append("no table is there: scripts/build_table makes them")
        able = [method for method in chosen.methods if not lacking[method]]
        tasks += [
            Task("table", seed, name, method)
            for place, seed in enumerate(chosen.seeds)
            for name in tables
            for method in able
            if place < SLOW.get(method, len(chosen.seeds))
        ]
    samplers = [name for name in NAMES if name not in WAYS or not missing(name, syne=syne)]
    if "wide" in chosen.kinds:
        for place, seed in enumerate(chosen.seeds[:WIDE_SEEDS]):
            quick = [name for name in samplers if place < SLOW_WIDE.get(name, WIDE_SEEDS)]
            tasks += [Task("wide", seed, str(size), name) for size in SIZES for name in quick]
    if "speed" in chosen.kinds:
        # A GP that takes seconds behind a hundred trials is not waited for behind a thousand.
        tasks += [
            Task("speed", 0, str(count), name)
            for count in SPEED_TRIALS
            for name in samplers
            if name not in SLOW_WIDE or count == min(SPEED_TRIALS)
        ]
    if "live" in chosen.kinds:
        tasks += [Task("live", seed, "recall", method) for seed in chosen.seeds[:PAIRS] for method in (OURS, OTHER)]
    if "ranks" in chosen.kinds:
        tasks.append(Task("ranks", chosen.seeds[0], "recall", OURS))
    return tasks, left_out


def print_medians(record: Record) -> None:
    """A line for each table and method: tokens to the level, and the hypervolume on the way."""
    labels = {**WAYS, **VARIANTS}
    for name in record.names("table"):
        for method, runs in sorted(record.of("table", name).items(), key=lambda pair: tokens_to_level(pair[1])[1]):
            shares = " ".join(f"{shares_at(runs, at)[1]:.3f}" for at in (10, 25, 50, 100))
            spent = " ".join(number(value) for value in tokens_to_level(runs))
            print(f"{name} {labels[method].label}: {len(runs)} seeds, to 95 % {spent}; at 10, 25, 50, 100 {shares}")
