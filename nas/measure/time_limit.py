"""A limit on the wall time of a job, looked at between steps.

In: the seconds that are left to a candidate. Out: an error of its own as soon as they are over. A step that never
ends is not noticed here: the study's driver stops the worker process then.
"""

from __future__ import annotations

import time

from nas.errors import TimedOutError


class TimeLimit:
    """The time that a job has from now on.

    Args:
        seconds: of wall time; None for no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def check(self, where: str) -> None:
        """Ends the job if its time is over.

        Args:
            where: how far it is, in words.

        Raises:
            TimedOutError: saying where.
        """
        if self._end is not None and time.monotonic() > self._end:
            raise TimedOutError(f"stopped {where}")
