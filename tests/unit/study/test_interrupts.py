"""A swallowed Ctrl-C still stops."""

from __future__ import annotations

import contextlib
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from nas.study.interrupts import noted


class Finalised:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def usual_handler() -> object:
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


def test_an_interrupt_stops_at_once_and_is_noted() -> None:
    with noted() as interrupts:
        interrupts.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


def test_an_interrupt_waits_while_it_is_held_and_comes_through_where_it_may() -> None:
    reached = []
    with noted() as interrupts, interrupts.held():
        signal.raise_signal(signal.SIGINT)
        reached.append("what must not be cut in two")
        with pytest.raises(KeyboardInterrupt), interrupts.let_through():
            reached.append("never")
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    assert reached == ["what must not be cut in two"]


def test_an_interrupt_that_comes_where_it_may_stops_at_once() -> None:
    with noted() as interrupts, interrupts.held():
        with pytest.raises(KeyboardInterrupt), interrupts.let_through():
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            # Somebody who asks twice does not want to wait.
            signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_drops_in_a_finaliser_is_found_at_the_next_check() -> None:
    with noted() as interrupts:
        found = Finalised()
        del found
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


def test_the_usual_handler_is_back_afterwards_even_where_a_library_ignored_the_signal() -> None:
    with noted():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_caller_that_handles_the_signal_keeps_its_handler() -> None:
    calls = []
    signal.signal(signal.SIGINT, lambda number, frame: calls.append(number))
    with noted() as interrupts:
        signal.raise_signal(signal.SIGINT)
        interrupts.check()
    assert calls == [signal.SIGINT]


def test_other_threads_go_without() -> None:
    def use() -> bool:
        with noted() as interrupts:
            interrupts.check()
        return threading.current_thread() is not threading.main_thread()

    with ThreadPoolExecutor(1) as pool, contextlib.suppress(TimeoutError):
        assert pool.submit(use).result()
