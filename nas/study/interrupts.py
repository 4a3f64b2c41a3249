"""Ctrl-C is never lost.

In: SIGINT. Out: KeyboardInterrupt now, and a note that it came. Python drops a KeyboardInterrupt
that is raised inside a finaliser or a callback from C, and a library may take it for a failure of
what it was doing; the note lets the study loop stop all the same.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Whether the user asked to stop."""

    def __init__(self) -> None:
        self._came = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """The signal handler.

        Raises:
            KeyboardInterrupt: always.
        """
        self._came = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Stops what the user wanted stopped.

        Raises:
            KeyboardInterrupt: the user asked to stop since `noted` began.
        """
        if self._came:
            raise KeyboardInterrupt


@contextmanager
def noted() -> Iterator[Interrupts]:
    """Notes interrupts while the block runs.

    Only where Ctrl-C raises KeyboardInterrupt to begin with: in the main thread, and where nobody
    handles or ignores the signal otherwise.
    """
    found = Interrupts()
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield found
        return
    signal.signal(signal.SIGINT, found.note)
    try:
        yield found
    finally:
        # Lightning ignores the signal once it has seen one; the caller's Ctrl-C must work again.
        signal.signal(signal.SIGINT, signal.default_int_handler)
