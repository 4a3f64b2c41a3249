"""How the mixers' benchmark measures: each measurement in a process of its own.

In: subjects, that is functions that make something to run at a length. Out: plain numbers, or why
there are none. A process is forked from one that has imported everything and computed nothing, so
it is fresh and still starts at once; one that takes too long is killed, and one that wants more
memory than there is says so.

Two subjects are compared by running them in turns, A B B A A B …, and taking the median of the
ratios of neighbours: what else the machine does then falls on both.

Memory is the growth of the process's peak resident set (the kernel's high-water mark) over one
pass, so that scratch space of C++ kernels counts too, which torch's own memory tracker does not see.

Shapes: B batch, L length, D width.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import resource
import signal
import statistics
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nas.measure.allocator import freed_memory_kept

Run = Callable[[], None]
Figures = dict[str, Any]

WIDTH = 256
STEPS_PER_TURN = 8


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Something that can be run at any length.

    Attributes:
        name: for the page.
        make: length -> a function that runs it once (a pass or a step); called in the fresh process.
        exponent: how its time grows with the length, to skip what would take too long.
        read: length -> what it computes, (B, L, H, V), to be compared with others; None: not compared.
    """

    name: str
    make: Callable[[int], Run]
    exponent: float = 1.0
    read: Callable[[int], torch.Tensor] | None = None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one measurement may cost.

    Attributes:
        repeats: pairs that are compared.
        seconds: no further pair is begun after so long.
        pass_seconds: a pass that takes longer is skipped.
        threads: of torch.
    """

    repeats: int
    seconds: float
    pass_seconds: float
    threads: int


def isolated(work: Callable[[], Figures], *, limit_s: float, threads: int) -> Figures:
    """What `work` returns, from a process of its own; {"skipped": why} where it did not end well."""
    forking = multiprocessing.get_context("fork")
    receiver, sender = forking.Pipe(duplex=False)
    child = forking.Process(target=_child, args=(work, sender, threads))
    child.start()
    sender.close()
    found: Figures = {"skipped": f"over {limit_s:.0f} s"}
    if receiver.poll(limit_s):
        try:
            found = receiver.recv()
        except EOFError:
            child.join()
            killed = child.exitcode == -signal.SIGKILL
            found = {"skipped": "out of memory" if killed else f"the process ended with {child.exitcode}"}
    child.kill()
    child.join()
    return found


def _child(work: Callable[[], Figures], sender: Any, threads: int) -> None:
    try:
        torch.set_num_threads(threads)
        room = available_bytes()
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (mapped + int(0.9 * room), resource.RLIM_INFINITY))
        torch.manual_seed(0)
        sender.send(work())
    except (MemoryError, RuntimeError) as error:
        short = "allocate memory" in str(error) or isinstance(error, MemoryError)
        if not short:
            traceback.print_exc()
        sender.send({"skipped": "out of memory" if short else f"{type(error).__name__}: {str(error)[:200]}"})
    except Exception as error:
        traceback.print_exc()
        sender.send({"skipped": f"{type(error).__name__}: {str(error)[:200]}"})


def available_bytes() -> int:
    """Memory that a new process can have."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    raise OSError("no MemAvailable in /proc/meminfo: the benchmark needs Linux")


def once(subject: Subject, length: int, limits: Limits, *, runs: int = 1) -> Figures:
    """Seconds of one run, the best of three unless one is long; the mean of `runs` in a row."""

    def work() -> Figures:
        with freed_memory_kept():
            run = subject.make(length)
            first = _seconds(run, runs)
            again = 0 if first > limits.pass_seconds / 4 else 2
            return {"seconds": min([first, *(_seconds(run, runs) for _ in range(again))])}

    return isolated(work, limit_s=2 * limits.pass_seconds + 10, threads=limits.threads)


@freed_memory_kept()
def in_turns(first: Run, second: Run, limits: Limits, *, runs_per_turn: int = 1) -> Figures:
    """Seconds of both, and the median of second / first over pairs; in the current process."""
    _seconds(first), _seconds(second)
    pairs: list[tuple[float, float]] = []
    began = time.perf_counter()
    while len(pairs) < limits.repeats and (not pairs or time.perf_counter() - began < limits.seconds):
        if len(pairs) % 2:
            b, a = _seconds(second, runs_per_turn), _seconds(first, runs_per_turn)
        else:
            a, b = _seconds(first, runs_per_turn), _seconds(second, runs_per_turn)
        pairs.append((a, b))
    ratios = sorted(b / a for a, b in pairs)
    return {
        "first_seconds": statistics.median(a for a, _ in pairs),
        "second_seconds": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios),
        "lowest": ratios[0],
        "highest": ratios[-1],
        "pairs": len(pairs),
    }


def compare(first: Subject, second: Subject, length: int, limits: Limits, *, runs_per_turn: int = 1) -> Figures:
    """`in_turns` of two subjects at one length, in a fresh process."""

    def work() -> Figures:
        return in_turns(first.make(length), second.make(length), limits, runs_per_turn=runs_per_turn)

    return isolated(work, limit_s=_patience(limits), threads=limits.threads)


def growth(subject: Subject, short: int, long: int, limits: Limits, *, runs_per_turn: int = 1) -> Figures:
    """`in_turns` of one subject at two lengths: the ratio is long over short."""

    def work() -> Figures:
        return in_turns(subject.make(short), subject.make(long), limits, runs_per_turn=runs_per_turn)

    return isolated(work, limit_s=_patience(limits), threads=limits.threads)


def difference(first: Subject, second: Subject, length: int, limits: Limits) -> Figures:
    """The largest difference of what both compute from the same random numbers, over the largest value."""

    def work() -> Figures:
        found = []
        for subject in (first, second):
            assert subject.read is not None
            torch.manual_seed(0)
            found.append(subject.read(length))
        return {"difference": float((found[0] - found[1]).abs().max() / found[0].abs().max())}

    return isolated(work, limit_s=limits.pass_seconds, threads=limits.threads)


def memory(subject: Subject, length: int, limits: Limits) -> Figures:
    """Growth of the peak resident set over one run, in bytes."""

    def work() -> Figures:
        # Freed memory goes back to the system at once, so that what is resident is what is in use.
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 65_536)
        libc.mallopt(-1, 65_536)
        subject.make(64)()
        run = subject.make(length)
        gc.collect()
        libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _status_bytes("VmRSS")
        run()
        return {"bytes": _status_bytes("VmHWM") - before}

    return isolated(work, limit_s=2 * limits.pass_seconds + 10, threads=limits.threads)


def _patience(limits: Limits) -> float:
    return 6 * limits.pass_seconds + limits.seconds


def _seconds(run: Run, times: int = 1) -> float:
    gc.collect()
    gc.disable()
    began = time.perf_counter()
    for _ in range(times):
        run()
    took = time.perf_counter() - began
    gc.enable()
    return took / times


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")


def module_pass(module: torch.nn.Module, call: Callable[[torch.Tensor], torch.Tensor], length: int) -> Run:
    """One forward and backward pass of a module, gradients of weights and input included."""
    x_BLD, grad_BLD = torch.randn(1, length, WIDTH).requires_grad_(), torch.randn(1, length, WIDTH)
    leaves = [x_BLD, *module.parameters()]

    def run() -> None:
        call(x_BLD).backward(grad_BLD)
        for leaf in leaves:
            leaf.grad = None

    return run


def core_pass(call: Callable[..., torch.Tensor], inputs: Mapping[str, torch.Tensor]) -> Run:
    """One forward and backward pass of a function, gradients of every input that wants one included."""
    leaves = [tensor for tensor in inputs.values() if tensor.requires_grad]

    def run() -> None:
        out = call(**inputs)
        out.backward(out.detach())
        for leaf in leaves:
            leaf.grad = None

    return run
