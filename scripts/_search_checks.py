"""Figures of many runs, and the targets that they are held against.

In: entries of the record. Out: medians and quartiles over seeds, ratios against the best peer, and each
target with what was reached. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from _search_live import OTHER, Ratio, ratio_of
from _search_live import OURS as LIVE_OURS
from _search_record import Entry, Record
from _search_run import FIRST, SPEED_TRIALS, TRAININGS

from nas.search.rungs import TOLERATED

LEVEL = 0.95
PEERS = ("random", "nsga2", "tpe", "gp", "moasha")
"""Whose best the ratios are against: what a user has without us."""
OURS, BASELINE = "ours", "random"
WIDE_OURS = "frontier"

# What is asked for.
TOKENS_RATIO = 3.0
WIDE_SHARES = {25: 0.90, 100: 0.97}
SECONDS = {100: 1.0, 1000: 3.0}
LEAST_TAU = 0.6

Curve = Sequence[tuple[float, float]]
Spread = tuple[float, float, float]


@dataclass(frozen=True)
class Target:
    """Something that was asked for, and what was reached.

    Attributes:
        text: what was asked.
        reached: in words with numbers.
        is_met: whether it was; None where the runs are missing.
    """

    text: str
    reached: str
    is_met: bool | None


def share_at(curve: Curve, trainings: float) -> float:
    """The hypervolume once so much was spent; 0 before the first training ended."""
    return max((share for spent, share in curve if spent <= trainings), default=0.0)


def spent_to(curve: Curve, level: float = LEVEL) -> float:
    """What was spent until a share of the hypervolume was reached; infinite where it never was."""
    return min((spent for spent, share in curve if share >= level), default=math.inf)


def spread(values: Sequence[float]) -> Spread:
    """Lower quartile, median, upper quartile, each of them a value that occurs (some may be infinite)."""
    low, middle, high = np.quantile(np.array(values, dtype=float), [0.25, 0.5, 0.75], method="inverted_cdf")
    return float(low), float(middle), float(high)


def tokens_to_level(runs: Sequence[Entry]) -> Spread:
    """Of a method's runs, in whole trainings."""
    return spread([spent_to(run["curve"]) for run in runs])


def best_peer(found: Mapping[str, Sequence[Entry]], *, at: float | None = None) -> tuple[str, float] | None:
    """The peer with the smallest median spent to the level, or, with `at`, with the largest median share there."""
    peers = [name for name in PEERS if found.get(name)]
    if not peers:
        return None
    if at is None:
        # Of those whose median run never came there, the one whose better runs came there first.
        nearest = min(peers, key=lambda name: tokens_to_level(found[name])[1::-1])
        return nearest, tokens_to_level(found[nearest])[1]
    return max(((name, shares_at(found[name], at)[1]) for name in peers), key=lambda pair: pair[1])


def shares_at(runs: Sequence[Entry], trainings: float) -> Spread:
    """Of a method's runs."""
    return spread([share_at(run["curve"], trainings) for run in runs])


def behind(ours: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> list[tuple[int, float]]:
    """Where the median of ours is below that of others.

    Args:
        ours: of each run the share at each budget, the first budget first.
        others: likewise.

    Returns:
        Place of the budget, and by how much.
    """
    gaps = np.median(np.array(others), axis=0) - np.median(np.array(ours), axis=0)
    return [(int(place), float(gaps[place])) for place in np.flatnonzero(gaps > 0)]


def stepped(runs: Sequence[Entry]) -> list[list[float]]:
    """Of each run on a table the share at each whole number of trainings from `FIRST` on."""
    return [[share_at(run["curve"], count) for count in range(FIRST, TRAININGS + 1)] for run in runs]


def stops(runs: Sequence[Entry], kind: str) -> tuple[int, int]:
    """Of all runs together: stops and wrong ones, exact ("stops") or of the audit ("audit")."""
    pairs = [run[kind] or (0, 0) for run in runs]
    return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)


def targets(record: Record) -> Iterator[Target]:
    """Every target, computed."""
    for name in record.names("table"):
        yield from _of_table(name, record.of("table", name))
    for size in record.names("wide"):
        yield from _of_wide(size, record.of("wide", size))
    for count in SPEED_TRIALS:
        runs = record.of("speed", str(count)).get(WIDE_OURS)
        if runs:
            took = runs[0]["seconds"]
            text = f"a suggestion behind {count:,} trials takes at most {SECONDS[count]:g} s"
            yield Target(text, f"{took:.2f} s", took <= SECONDS[count])
    ratio = live_ratio(record)
    if ratio is not None:
        text = f"live: the interval of the hypervolume ratio to NSGA-II, {ratio.pairs} pairs, lies above 1"
        yield Target(text, f"{ratio.middle:.3f} ({ratio.low:.3f} to {ratio.high:.3f})", ratio.low > 1.0)
    for found in record.of("ranks", "recall").get(LIVE_OURS, []):
        yield Target(
            f"live: Kendall's tau between both budgets is at least {LEAST_TAU}",
            "not defined" if found["tau"] is None else f"{found['tau']:.2f} over {found['candidates']} candidates",
            None if found["tau"] is None else found["tau"] >= LEAST_TAU,
        )


def live_pairs(record: Record) -> dict[int, tuple[Entry, Entry]]:
    """Of each seed with both searches: ours and NSGA-II's."""
    by_seed: dict[int, dict[str, Entry]] = {}
    for task, entry in record:
        if task.kind == "live":
            by_seed.setdefault(task.seed, {})[task.method] = entry
    return {
        seed: (found[LIVE_OURS], found[OTHER])
        for seed, found in sorted(by_seed.items())
        if LIVE_OURS in found and OTHER in found
    }


def live_ratio(record: Record) -> Ratio | None:
    """Ours over NSGA-II, of the hypervolume in the end; None below two pairs."""
    pairs = live_pairs(record).values()
    if len(pairs) < 2:
        return None
    return ratio_of(*([one["hypervolume"] for one in side] for side in zip(*pairs, strict=True)))


def _of_table(name: str, found: Mapping[str, Sequence[Entry]]) -> Iterator[Target]:
    ours, random = found.get(OURS), found.get(BASELINE)
    if not ours:
        return
    peer = best_peer(found)
    if peer is not None:
        own = tokens_to_level(ours)[1]
        # A peer that never came there took at least a whole run: what is known is a bound.
        is_bound = math.isinf(peer[1])
        least = "at least " if is_bound else ""
        ratio = min(peer[1], TRAININGS) / own if math.isfinite(own) else 0.0
        text = f"{name}: {LEVEL:.0%} of the hypervolume with at most 1/{TOKENS_RATIO:g} of the best peer's tokens"
        reached = f"{number(own)} trainings against {number(peer[1])} ({peer[0]}): {least}{ratio:.3g} times fewer"
        yield Target(text, reached, None if is_bound and 0 < ratio < TOKENS_RATIO else ratio >= TOKENS_RATIO)
    if random:
        yield _never_behind(name, behind(stepped(ours), stepped(random)), "trainings")
    count, wrong = stops(ours, "stops")
    text = f"{name}: at most {TOLERATED:.0%} of the stops are wrong"
    yield Target(text, f"{wrong} of {count}", wrong <= TOLERATED * count if count else None)


def _of_wide(size: str, found: Mapping[str, Sequence[Entry]]) -> Iterator[Target]:
    ours, random = found.get(WIDE_OURS), found.get(BASELINE)
    if not ours:
        return
    for count, share in WIDE_SHARES.items():
        median = spread([run["curve"][count - FIRST] for run in ours])[1]
        text = f"{size} parameters: {share:.0%} of the best known hypervolume after {count} evaluations"
        yield Target(text, f"{median:.3f}", median >= share)
    if random:
        curves = [[run["curve"] for run in runs] for runs in (ours, random)]
        yield _never_behind(f"{size} parameters", behind(*curves), "evaluations")


def _never_behind(name: str, places: Sequence[tuple[int, float]], unit: str) -> Target:
    text = f"{name}: never behind random at any budget from {FIRST} {unit} on (medians)"
    if not places:
        return Target(text, "never", True)
    worst = max(places, key=lambda pair: pair[1])
    where = ", ".join(_ranges([place + FIRST for place, _ in places]))
    return Target(text, f"behind at {where}; by {worst[1]:.3f} at most, at {worst[0] + FIRST}", False)


def _ranges(numbers: Sequence[int]) -> Iterator[str]:
    begun = last = numbers[0]
    for one in [*numbers[1:], None]:
        if one is not None and one == last + 1:
            last = one
            continue
        yield f"{begun}" if begun == last else f"{begun} to {last}"
        begun = last = one if one is not None else last


def number(value: float) -> str:
    """Three digits, or that it was never reached."""
    return f"{value:.3g}" if math.isfinite(value) else f"more than {TRAININGS}"
