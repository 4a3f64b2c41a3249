"""Trains what is missing of the tables, a process for each core, and can be killed at any moment.

In: the plans, and the folder of the runs. Out: a line in `trainings.jsonl` for each training that ended. This process
alone writes; workers train, and leave with it however it ends. What a kill cuts short is trained again, nothing else.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _table_plan import TablePlan, Training, wanted
from _table_rows import Done, Trained, append, final_scores, mend, read_done

from nas.errors import StoreError

if TYPE_CHECKING:
    from io import TextIOWrapper

TRAININGS = "trainings.jsonl"
# What is frozen out of the collector's rounds must have been made first: by so many trainings.
_WARM = 1

_plans: dict[str, TablePlan] = {}
_environment = ""
_done_here = 0


def build(
    plans: Sequence[TablePlan],
    folder: Path,
    *,
    recorded: Done,
    processes: int,
    limit: int | None = None,
    say: Callable[[str], None] = print,
) -> Done:
    """Trains what is missing; returns all that is done.

    Args:
        plans: of the tables.
        folder: of the runs.
        recorded: what counts as done besides what lies in the folder.
        processes: trainings at a time, one core each.
        limit: of trainings in this run, or None.
        say: is told of each that ends.

    Raises:
        StoreError: another process builds in this folder.
    """
    path, measured = folder / TRAININGS, {plan.name: plan.measured for plan in plans}
    with _alone(folder), _pool(plans, processes) as pool:
        mend(path)
        done = {**recorded, **read_done(path)}
        begun, left = time.monotonic(), limit
        # Twice at most: the grid, and then more seeds of the front, which is known by then.
        while missing := list(wanted(plans, final_scores(done, measured)))[:left]:
            for count, trained in enumerate(_trained(pool, missing, processes), 1):
                append(path, trained)
                done[trained.training] = trained
                minutes = (time.monotonic() - begun) / 60
                say(f"[{minutes:6.1f} min] {count}/{len(missing)} {_in_words(trained, measured)}")
            left = None if left is None else left - len(missing)
    return done


def environment_in_words() -> str:
    """Versions, processor and commit, for the file beside a table."""
    from nas.measure.environment import current_environment

    found = current_environment()
    versions = ", ".join(f"{name} {found.versions[name]}" for name in ("context-nas", "torch", "lightning", "python"))
    return f"{versions}, {found.device}, {processor()}, commit {found.git_commit or 'unknown'}"


def machine(processes: int) -> dict[str, Any]:
    """What the file beside a table says of the machine."""
    return {"processor": processor(), "cores": os.cpu_count(), "processes": processes, "threads_of_a_process": 1}


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _trained(pool: ProcessPoolExecutor, missing: Sequence[Training], processes: int) -> Iterator[Trained]:
    """What comes of trainings as they end, so many at a time, started in order."""
    waiting = iter(missing)
    running: set[Future[Trained]] = {pool.submit(_train, one) for one in _first(waiting, processes)}
    while running:
        ended, running = wait(running, return_when=FIRST_COMPLETED)
        running |= {pool.submit(_train, one) for one in _first(waiting, len(ended))}
        yield from (future.result() for future in ended)


def _first(waiting: Iterator[Training], count: int) -> list[Training]:
    return [one for _, one in zip(range(count), waiting, strict=False)]


def _in_words(trained: Trained, measured: Mapping[str, str]) -> str:
    training = trained.training
    found = trained.failure or f"{trained.rungs[-1].scores[measured[training.table]]:.4f}"
    seconds = trained.rungs[-1].job_seconds if trained.rungs else 0.0
    return f"{training.table} {training.key} seed {training.seed}: {found} ({seconds:.1f} s)"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the folder; the system lets go of it when the process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    file: TextIOWrapper
    with (folder / "lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"another process builds in {folder}: wait for its end, or give another --folder"
            ) from None
        yield


@contextmanager
def _pool(plans: Sequence[TablePlan], processes: int) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_prepare,
        initargs=(tuple(plans),),
    )
    try:
        yield pool
    finally:
        workers = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.kill()


def _prepare(plans: tuple[TablePlan, ...]) -> None:
    """Runs once in each worker."""
    # Ctrl-C reaches the whole process group; this process's parent alone decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(1)
    global _environment
    _environment = environment_in_words()
    _plans.update({plan.name: plan for plan in plans})


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _train(training: Training) -> Trained:
    """Runs in a worker."""
    from _table_train import settle, train

    global _done_here
    found = train(_plans[training.table], training, _environment)
    _done_here += 1
    if _done_here == _WARM:
        settle()
    return found
