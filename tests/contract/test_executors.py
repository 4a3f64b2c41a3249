"""What every executor must do: jobs become results, a death is told, and the next job still runs."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests_support import EchoEvaluator, echo_job

from nas.errors import CheckpointError, KilledForMemoryError, MissingExtraError, StudyError, WorkerError
from nas.executors.inline import InlineExecutor
from nas.executors.local import LocalExecutor, available_cores, kernel_oom_kills
from nas.study.loop import Executor


@pytest.fixture(scope="module", params=["inline", "local", "dask"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "inline":
        made: Executor = InlineExecutor(EchoEvaluator())
        yield made
    elif request.param == "local":
        made = LocalExecutor(EchoEvaluator(), 2)
        yield made
    else:
        distributed = pytest.importorskip("distributed")
        from nas.executors.dask import DaskExecutor

        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster:
            made = DaskExecutor(EchoEvaluator(), cluster.scheduler_address)
            yield made
            made.close()
        return
    made.close()


def test_each_job_gets_its_own_result(executor: Executor) -> None:
    for start in range(0, 6, executor.slots):
        seeds = range(start, start + executor.slots)
        futures = [executor.submit(echo_job(seed)) for seed in seeds]
        assert [future.result(timeout=60).seconds for future in futures] == [float(seed) for seed in seeds]


@pytest.mark.parametrize(("folder", "error"), [("refuse", CheckpointError), ("miss", MissingExtraError)])
def test_an_input_error_arrives_as_it_was_raised(executor: Executor, folder: str, error: type[Exception]) -> None:
    raised = executor.submit(echo_job(folder=folder)).exception(timeout=60)
    assert type(raised) is error and str(raised)
    assert executor.submit(echo_job(3)).result(timeout=60).seconds == 3.0


def test_local_workers_are_other_processes_that_live_on() -> None:
    local = LocalExecutor(EchoEvaluator(), 1)
    try:
        first, second = (local.submit(echo_job()).result(timeout=60).device for _ in range(2))
    finally:
        local.close()
    assert first == second != str(os.getpid())


def test_a_local_worker_that_dies_is_told_and_replaced() -> None:
    local = LocalExecutor(EchoEvaluator(), 2)
    try:
        other = local.submit(echo_job(1))
        error = local.submit(echo_job(folder="die")).exception(timeout=60)
        assert isinstance(error, WorkerError)
        assert other.result(timeout=60).seconds == 1.0
        assert [local.submit(echo_job(seed)).result(timeout=60).seconds for seed in (5, 6, 7)] == [5.0, 6.0, 7.0]
    finally:
        local.close()


def test_a_local_worker_whose_job_ran_out_of_memory_is_replaced() -> None:
    local = LocalExecutor(EchoEvaluator(), 1)
    try:
        first = local.submit(echo_job(folder="run out")).result(timeout=60)
        second = local.submit(echo_job()).result(timeout=60)
    finally:
        local.close()
    assert first.failure is not None and first.failure.kind == "out_of_memory"
    assert first.device != second.device


@pytest.mark.parametrize(
    ("folder", "kills", "kind", "words"),
    [
        ("die", [7, 8], KilledForMemoryError, "the machine's memory ran out"),
        ("die", [7, 7], WorkerError, "died [(]killed[)]"),
        ("die", [None, None], WorkerError, "killed, or out of the machine's memory"),
        ("leave", [7, 8], WorkerError, "exit status 3"),
    ],
)
def test_a_worker_that_the_kernel_killed_for_memory_is_told_apart(
    folder: str, kills: list[int | None], kind: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter(kills)
    monkeypatch.setattr("nas.executors.local.kernel_oom_kills", lambda: next(counts))
    local = LocalExecutor(EchoEvaluator(), 1)
    try:
        error = local.submit(echo_job(folder=folder)).exception(timeout=60)
    finally:
        local.close()
    assert type(error) is kind
    with pytest.raises(kind, match=words):
        raise error


@pytest.mark.skipif(not Path("/proc/vmstat").exists(), reason="counters of Linux")
def test_the_kernels_count_is_read() -> None:
    count = kernel_oom_kills()
    assert count is None or count >= 0


def test_inline_jobs_run_in_this_process() -> None:
    assert InlineExecutor(EchoEvaluator()).submit(echo_job()).result().device == str(os.getpid())


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tcp://127.0.0.1:1", "no Dask scheduler answers at 'tcp://127.0.0.1:1'"),
        ("nonsense", "'nonsense' is no address of a Dask scheduler: write tcp://HOST:PORT"),
        ("127.0.0.1:8786", "write tcp://HOST:PORT"),
        ("tcp://127.0.0.1", "write tcp://HOST:PORT"),
        ("tcp://127.0.0.1:many", "write tcp://HOST:PORT"),
        ("nonsense://nowhere:1", "write tcp://HOST:PORT"),
    ],
)
def test_a_dask_scheduler_that_does_not_answer_is_an_input_error(
    address: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("distributed")
    from nas.executors.dask import DaskExecutor

    with pytest.raises(StudyError, match=words):
        DaskExecutor(EchoEvaluator(), address)
    gc.collect()
    assert capfd.readouterr().err == ""


def test_cores_are_counted() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
