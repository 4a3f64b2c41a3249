"""Jobs in this process, one after the other: for notebooks and unguarded scripts."""

from __future__ import annotations

from concurrent.futures import Future

from nas.records import Evaluator, Job, Result


class InlineExecutor:
    """Does a job when it is submitted."""

    slots = 1

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    def submit(self, job: Job) -> Future[Result]:
        """A future that is already done."""
        future: Future[Result] = Future()
        try:
            future.set_result(self._evaluator.evaluate(job))
        except Exception as error:
            future.set_exception(error)
        return future

    def stop_overdue(self, future: Future[Result], seconds: float) -> None:
        """Nothing can be stopped: a job is over when its future is there."""

    def close(self) -> None:
        """Nothing is held."""
