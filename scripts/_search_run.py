"""Runs what is missing: a table searched by a method, a wide space, the speed of a sampler, searches that train.

In: tasks. Out: entries of the record, of plain numbers. Each run takes one core; several are done at
once, each in a process that is told which and shares nothing.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path

from _search_false_stops import exact_false_stops
from _search_live import confirmed_words, live_words, ranked, searched
from _search_live import digest as digest_of_words
from _search_methods import Asked
from _search_record import Entry, Record, Task
from _search_replay import Replay, digest
from _search_simulate import Method, Outcome, simulate
from _search_synthetic import synthetic_table
from _search_ways import VARIANTS, WAYS, make_method
from _search_wide import EVALUATIONS, Wide, run, seconds_at, shares
from _table_read import Table, read_table

TABLES = Path(__file__).resolve().parent.parent / "studies" / "tables"
TRAININGS = 100
"""A run on a table ends when it has given out the tokens of so many whole trainings."""
FIRST = 10
"""Evaluations, or whole trainings, from which on searches are compared."""
SPEED_TRIALS = (100, 1000)
SPEED_PARAMETERS = 75


@lru_cache(maxsize=4)
def table_of(name: str) -> Table:
    """A table by name; "synthetic" is made up."""
    return synthetic_table() if name == "synthetic" else read_table(TABLES / f"{name}.csv.gz")


def has_table(name: str) -> bool:
    """Whether a table is there."""
    return name == "synthetic" or (TABLES / f"{name}.csv.gz").exists()


@lru_cache(maxsize=4)
def _digest(name: str) -> str:
    return digest(table_of(name))


@lru_cache(maxsize=4)
def _wide(parameters: int, seed: int) -> Wide:
    return Wide(parameters, seed)


def words_of(task: Task) -> str:
    """All that a run depends on besides the code and the versions of libraries."""
    if task.kind == "table":
        return f"{_digest(task.on)}, {TRAININGS} trainings, {({**WAYS, **VARIANTS})[task.method].words}"
    if task.kind == "live":
        return digest_of_words(live_words(task.method, task.seed))
    if task.kind == "ranks":
        return digest_of_words(confirmed_words(task.seed))
    return f"{EVALUATIONS} evaluations" if task.kind == "wide" else f"{SPEED_PARAMETERS} parameters"


def perform(task: Task, syne: str | None) -> Entry:
    """The entry of a run."""
    begun = time.process_time()
    if task.kind == "table":
        found = _on_table(task, syne)
    elif task.kind == "wide":
        problem = _wide(int(task.on), task.seed)
        points, seconds = run(problem, task.method, task.seed, EVALUATIONS)
        curve = [round(share, 4) for share in shares(problem, points, first=FIRST)]
        found = {"curve": curve, "suggestion_seconds": round(seconds, 3)}
    elif task.kind == "live":
        found = searched(task.method, task.seed)
    elif task.kind == "ranks":
        found = ranked(task.seed)
    else:
        found = {"seconds": round(seconds_at(_wide(SPEED_PARAMETERS, 0), task.method, int(task.on)), 4)}
    return {"words": words_of(task), **found, "processor_seconds": round(time.process_time() - begun, 1)}


def _on_table(task: Task, syne: str | None) -> dict[str, object]:
    replay = Replay.of(table_of(task.on), task.seed)
    method = make_method(task.method, replay, task.seed, syne=syne)
    try:
        outcome = simulate(replay, method, tokens=TRAININGS * replay.whole)
    finally:
        method.close()
    return entry_of(replay, method, outcome)


def entry_of(replay: Replay, method: Method, outcome: Outcome) -> dict[str, object]:
    """What is kept of a search.

    Returns:
        The hypervolume of what it trained as it grew (in whole trainings' tokens), that of the front which it picks in
        the end, counts, false stops.
    """
    curve: list[tuple[float, float]] = []
    for tokens, share in outcome.hypervolumes(replay):
        # Kept where it changes.
        if not curve or round(share, 4) != curve[-1][1]:
            curve.append((round(tokens / replay.whole, 3), round(share, 4)))
    finished = [row for row, _ in outcome.finished]
    exact = exact_false_stops(replay, finished, method.paused)
    stops = method.stops if isinstance(method, Asked) else None
    audit = None if stops is None else stops.audit()
    last = outcome.events[-1]
    return {
        "curve": curve,
        "picked": round(replay.picked(finished), 4),
        "trainings": round(last.tokens / replay.whole, 3),
        "simulated_seconds": round(last.seconds, 1),
        "begun": len(outcome.reached),
        "finished": len(outcome.finished),
        "failed": len(outcome.failed),
        "stops": [exact.audited, exact.wrong],
        "audit": None if audit is None else [audit.audited, audit.wrong],
        "ceiling": round(replay.ceiling, 4),
    }


def run_missing(
    tasks: Sequence[Task],
    record: Record,
    *,
    processes: int,
    syne: str | None,
    say: Callable[[str], None],
) -> None:
    """Runs the tasks that the record lacks, so many at once, and keeps each as it ends."""
    missing = [task for task in tasks if record.find(task, words_of(task)) is None]
    say(f"{len(tasks) - len(missing)} of {len(tasks)} runs are on record")
    if not missing:
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = {pool.submit(perform, task, syne): task for task in missing}
        for place, future in enumerate(as_completed(futures), 1):
            task, entry = futures[future], future.result()
            record.add(task, entry)
            say(f"{place} of {len(missing)}: {task.key} took {entry['processor_seconds']} s of a core")
