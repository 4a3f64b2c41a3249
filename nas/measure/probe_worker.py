"""The process that a probe is made in: JSON of an architecture and a probe in, JSON of what was measured out.

Each kind of work is done once before anything is measured, so that what libraries load and set up on first use counts
for nothing. On a CPU tensors are followed one by one in runs of their own, for that slows them down.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from nas.errors import InputError, SpaceError
from nas.measure.allocator import freed_memory_returned
from nas.measure.peak import Peak, release_memory
from nas.measure.probe import Probe, Work
from nas.measure.trace import DTYPES, trace_prefill, trace_training
from nas.measure.train import classify
from nas.measure.workload import InferenceWork, TrainingWork
from nas.space.architecture import Architecture


def main() -> None:
    """Answers the request on standard input."""
    request = json.loads(sys.stdin.read())
    sys.path[:] = request["path"]
    try:
        asked = Probe(**request["probe"])
        answer = measure(Architecture.from_json(request["architecture"]), asked, resolve_device(asked.device))
    except InputError as error:
        answer = {"error": "input", "reason": str(error)}
    except Exception as error:
        failure = classify(error)
        kind = "out_of_memory" if failure.kind == "out_of_memory" else "crashed"
        answer = {"error": kind, "reason": failure.reason}
    print(f"\n{json.dumps(answer)}")


def resolve_device(name: str) -> torch.device:
    """The device that a name stands for.

    Raises:
        SpaceError: there is none.
    """
    wanted = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    kind, _, index = wanted.partition(":")
    if kind == "cpu" and not index:
        return torch.device("cpu")
    if kind == "cuda" and (index.isdecimal() or not index) and int(index or 0) < torch.cuda.device_count():
        return torch.device("cuda", int(index or 0))
    there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    raise SpaceError(f"there is no device '{name}' here: valid: auto, {', '.join(there)}")


@freed_memory_returned()
def measure(architecture: Architecture, asked: Probe, device: torch.device) -> dict[str, Any]:
    """The plain values of a `Probed`, without its probe."""
    with torch.random.fork_rng(devices=[]):
        training = _training(architecture, asked, device)
        prefill, decoding, state_bytes = _inference(architecture, asked, device)
    on_cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_cuda else f"CPU, {torch.get_num_threads()} threads",
        "training": asdict(training),
        "prefill": asdict(prefill),
        "decoding": None if decoding is None else asdict(decoding),
        "state_bytes": state_bytes,
    }


def _training(architecture: Architecture, asked: Probe, device: torch.device) -> Work:
    def make() -> TrainingWork:
        return TrainingWork(architecture, context=asked.context, batch=asked.batch, device=device)

    make().step()
    release_memory()
    peak = Peak(device)
    work = make()
    seconds = _median_seconds(work.step, asked.repeats, device)
    del work
    tokens = asked.batch * asked.context * (2 if architecture.encoder_layers else 1)
    return _work(
        seconds,
        tokens,
        peak,
        lambda: trace_training(architecture, context=asked.context, batch=asked.batch, real=True).total,
    )


def _inference(architecture: Architecture, asked: Probe, device: torch.device) -> tuple[Work, Work | None, int]:
    def make() -> InferenceWork:
        return InferenceWork(
            architecture, context=asked.context, batch=asked.batch, dtype=DTYPES[asked.dtype], device=device
        )

    make().read()
    release_memory()
    peak = Peak(device)
    work = make()
    seconds = _median_seconds(work.read, asked.repeats, device)
    tokens = asked.batch * asked.context * (2 if architecture.encoder_layers else 1)
    prefill = _work(
        seconds,
        tokens,
        peak,
        lambda: trace_prefill(architecture, context=asked.context, batch=asked.batch, dtype=asked.dtype, real=True),
    )
    # As many steps as are timed, and one that warms up, come last.
    steps = asked.repeats + 1
    if not work.decodes or asked.context <= steps:
        return prefill, None, work.read()
    state_bytes = work.read(asked.context - steps)
    seconds = _median_seconds(work.decode, asked.repeats, device)
    return prefill, Work(milliseconds=1e3 * seconds, tokens_per_second=asked.batch / seconds), state_bytes


def _work(seconds: float, tokens: int, peak: Peak, followed: Callable[[], int]) -> Work:
    """What was measured: by the allocator on CUDA, by the resident set and by `followed` tensors on a CPU."""
    held, reserved = peak.bytes(), peak.reserved()
    return Work(
        milliseconds=1e3 * seconds,
        tokens_per_second=tokens / seconds,
        peak_bytes=followed() if reserved is None else held,
        reserved_bytes=reserved,
        resident_bytes=held if reserved is None else None,
    )


def _median_seconds(run: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Of so many runs after one that warms up."""
    times = []
    for _ in range(repeats + 1):
        _wait_for(device)
        start = time.perf_counter()
        run()
        _wait_for(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
