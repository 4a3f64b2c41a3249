"""Jobs on a Dask cluster, for searches over several machines.

The workers need nas and the study's data, and `--files` on storage that all of them reach.
"""

from __future__ import annotations

import socket
from concurrent.futures import Executor as FuturesExecutor
from concurrent.futures import Future
from urllib.parse import urlsplit

from nas.errors import MissingExtraError, StudyError
from nas.records import Evaluator, Job, Result

# Seconds within which whoever listens at an address must take a connection.
CONNECT_SECONDS = 5


class DaskExecutor:
    """Workers of a Dask scheduler, one job each at a time.

    Args:
        evaluator: sent with each job; must be picklable.
        address: of the scheduler, such as "tcp://127.0.0.1:8786".

    Raises:
        MissingExtraError: dask.distributed is not installed.
        StudyError: this is no address, no scheduler answers at the address, or it has no workers.
    """

    def __init__(self, evaluator: Evaluator, address: str) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise MissingExtraError("--dask", "dask") from None
        self._evaluator = evaluator
        _check_address(address)
        try:
            self._client = Client(address, timeout=20, set_as_default=False)
        except (OSError, ValueError) as error:
            raise StudyError(f"no Dask scheduler answers at '{address}': {error}") from None
        self.slots = len(self._client.scheduler_info(n_workers=-1)["workers"])
        if self.slots == 0:
            self._client.close()
            raise StudyError(
                f"the Dask scheduler at '{address}' has no workers: start one with 'dask worker {address}'"
            )
        self._executor: FuturesExecutor = self._client.get_executor(pure=False, retries=0)

    def submit(self, job: Job) -> Future[Result]:
        """The future of a job."""
        return self._executor.submit(self._evaluator.evaluate, job)

    def stop_overdue(self, future: Future[Result], seconds: float) -> None:
        """Nothing can be stopped: a cluster's worker ends a job between its own steps."""

    def close(self) -> None:
        """Cancels what has not begun, and leaves the cluster."""
        self._executor.shutdown(wait=False)
        self._client.close()


def _check_address(address: str) -> None:
    """Refuses an address where nobody listens: a Client that fails prints a traceback of its own.

    Raises:
        StudyError: in one line.
    """
    from distributed.comm.registry import get_backend

    wrong = f"'{address}' is no address of a Dask scheduler: write tcp://HOST:PORT, such as tcp://127.0.0.1:8786"
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
        get_backend(parts.scheme)
    except ValueError:
        raise StudyError(wrong) from None
    if parts.scheme != "tcp":
        return
    if not host or not port:
        raise StudyError(wrong)
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise StudyError(f"no Dask scheduler answers at '{address}': {error}") from None
