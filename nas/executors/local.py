"""Jobs in long-lived worker processes of this machine.

Each worker is a pool of one process, because one killed process breaks every future of a larger
pool. A worker that died is replaced; its job fails with `WorkerError` and may be submitted again. So is
a worker whose job ran out of memory or met a fault of the machine, for libraries seldom undo all that they did
until an allocation failed, and a device in error stays so for its process. Importing torch costs seconds,
so the others live as long as the run.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import warnings
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path

from nas.errors import DataWarning, KilledForMemoryError, TimedOutError, WorkerError
from nas.records import Evaluator, Job, Result

# Seconds that a process whose pool broke has to be gone.
END_SECONDS = 5


class LocalExecutor:
    """Worker processes on this machine.

    Args:
        evaluator: sent to each worker with its jobs; must be picklable.
        workers: how many; their threads together do not exceed the cores.
    """

    def __init__(self, evaluator: Evaluator, workers: int) -> None:
        self.slots = workers
        self._evaluator = evaluator
        self._threads = max(1, available_cores() // workers)
        self._pools = [self._new_pool() for _ in range(workers)]
        self._busy: set[int] = set()
        self._running: dict[Future[Result], int] = {}
        self._began: dict[Future[Result], float] = {}
        self._stopped: set[int] = set()
        self._lock = threading.Lock()

    def submit(self, job: Job) -> Future[Result]:
        """The future of a job; there must be a free worker."""
        with self._lock:
            index = next(index for index in range(self.slots) if index not in self._busy)
            self._busy.add(index)
        outer: Future[Result] = Future()
        try:
            inner = self._begin(index, job, outer)
        except BrokenProcessPool:
            # It died between two jobs, of which nobody was told.
            self._replace(index)
            inner = self._begin(index, job, outer)
        kills = kernel_oom_kills()
        inner.add_done_callback(lambda done: self._hand_over(index, done, outer, kills))
        return outer

    def stop_overdue(self, future: Future[Result], seconds: float) -> None:
        """Kills the worker of a job that has run for longer, so that it fails with `TimedOutError`."""
        with self._lock:
            index, began = self._running.get(future), self._began.get(future)
            if index is None or index in self._stopped or began is None or time.monotonic() <= began + seconds:
                return
            self._stopped.add(index)
            for process in (self._pools[index]._processes or {}).values():
                process.kill()

    def close(self) -> None:
        """Stops the workers at once; what they were doing is done again by the next run."""
        for pool in self._pools:
            processes = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.kill()
            for process in processes:
                process.join(timeout=5)

    def _begin(self, index: int, job: Job, outer: Future[Result]) -> Future[Result]:
        pool = self._pools[index]
        with self._lock:
            self._running[outer] = index
        # The time of a job is not that which a new worker takes to import torch, as it does for the evaluator.
        pool.submit(_make_ready, self._evaluator).add_done_callback(lambda ready: self._note_begin(outer))
        return pool.submit(_evaluate, self._evaluator, job)

    def _note_begin(self, outer: Future[Result]) -> None:
        with self._lock:
            if outer in self._running:
                self._began[outer] = time.monotonic()

    def _hand_over(self, index: int, inner: Future[Result], outer: Future[Result], kills: int | None) -> None:
        if inner.cancelled():
            outer.cancel()
            return
        error = inner.exception()
        with self._lock:
            was_stopped = index in self._stopped
            self._stopped.discard(index)
            self._running.pop(outer, None)
            self._began.pop(outer, None)
        if isinstance(error, BrokenProcessPool):
            error = TimedOutError("its worker was stopped") if was_stopped else _death(self._pools[index], kills)
            self._replace(index)
        elif was_stopped or (error is None and _leaves_traces(inner.result())):
            self._replace(index)
        with self._lock:
            self._busy.discard(index)
        if error is not None:
            outer.set_exception(error)
        else:
            outer.set_result(inner.result())

    def _replace(self, index: int) -> None:
        self._pools[index].shutdown(wait=False)
        self._pools[index] = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            max_workers=1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_prepare,
            initargs=(self._threads,),
        )


def kernel_oom_kills() -> int | None:
    """Processes that the kernel has killed for want of memory since it started; None where it does not count them."""
    try:
        counters = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    except OSError:
        return None
    return int(counters["oom_kill"]) if "oom_kill" in counters else None


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys_has_affinity() else os.cpu_count() or 1


def sys_has_affinity() -> bool:
    """Whether the system tells which cores a process may use (Linux does, macOS does not)."""
    return "sched_getaffinity" in dir(os)


def _prepare(threads: int) -> None:
    """Runs in a new worker, before torch is imported there."""
    # Busy waiting makes a worker of several threads 10 to 20 times slower beside any other load.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    # The driver has read the same data, and said what is to be said of it.
    warnings.simplefilter("ignore", DataWarning)
    # Ctrl-C reaches the whole process group; the driver alone decides what becomes of workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """Ends the worker when the driver is gone: a killed driver cannot tell it to stop."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _death(pool: ProcessPoolExecutor, kills: int | None) -> WorkerError:
    """What to say of the end of a pool's process; `kills` were counted before its job."""
    process = next(iter((pool._processes or {}).values()), None)
    if process is None:
        return WorkerError("the worker process was stopped")
    process.join(timeout=END_SECONDS)
    if process.exitcode != -signal.SIGKILL:
        return WorkerError(f"the worker process died (exit status {process.exitcode})")
    now = kernel_oom_kills()
    if kills is None or now is None:
        return WorkerError("the worker process died (killed, or out of the machine's memory)")
    if now > kills:
        return KilledForMemoryError("the kernel killed the worker process: the machine's memory ran out")
    return WorkerError("the worker process died (killed)")


def _leaves_traces(result: Result) -> bool:
    return result.failure is not None and result.failure.kind in ("out_of_memory", "machine")


def _make_ready(evaluator: Evaluator) -> None:
    """Does nothing; that the evaluator has come says that all it needs is imported."""


def _evaluate(evaluator: Evaluator, job: Job) -> Result:
    return evaluator.evaluate(job)
