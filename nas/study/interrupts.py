"""Ctrl-C is never lost.

In: SIGINT. Out: KeyboardInterrupt now, or as soon as what must not be cut in two is done, and a note
that it came. Python drops a KeyboardInterrupt that is raised inside a finaliser or a callback from C,
and a library may take it for a failure of what it was doing (SQLAlchemy logs a traceback for one that
comes while it hands back a connection); the note lets the study loop stop all the same.
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
        self._is_held = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """The signal handler.

        Raises:
            KeyboardInterrupt: unless interrupts are held; at the second one in any case.
        """
        is_second, self._came = self._came, True
        if is_second or not self._is_held:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within it an interrupt waits for the next `check`, or for a block of `let_through`."""
        before, self._is_held = self._is_held, True
        try:
            yield
        finally:
            self._is_held = before

    @contextmanager
    def let_through(self) -> Iterator[None]:
        """Within `held`, a block that may be left at any moment.

        Raises:
            KeyboardInterrupt: the user asked to stop, before it or within it.
        """
        before, self._is_held = self._is_held, False
        try:
            self.check()
            yield
        finally:
            self._is_held = before

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
