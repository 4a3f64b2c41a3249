"""Memory and speed of an architecture, measured on a device, each time in a fresh process.

In: an architecture and the sizes of a batch. Out: a `Probed` with bytes, milliseconds and tokens a second of a
training step, of taking in a prompt, and of decoding. In a process of its own nothing else is counted, and one that
runs out of memory ends alone. It is a plain program that is given JSON, so that it can be started from notebooks and
unguarded scripts too (`nas.measure.probe_worker`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from nas.cost.dtypes import bytes_per_element
from nas.cost.estimate import bound
from nas.errors import OutOfMemoryError, SpaceError, WorkerError
from nas.space.architecture import Architecture

WORKER = "nas.measure.probe_worker"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What is measured.

    Attributes:
        context: tokens of each sequence.
        batch: sequences.
        dtype: of weights and cache where prompts are taken in and tokens decoded; training is in fp32.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1".
        repeats: of each timing, after a run that warms up; the median counts.
    """

    context: int
    batch: int = 1
    dtype: str = "bf16"
    device: str = "auto"
    repeats: int = 5

    def __post_init__(self) -> None:
        for name in ("context", "batch", "repeats"):
            if getattr(self, name) < 1:
                raise SpaceError(f"{name} must be at least 1, not {getattr(self, name)}")
        bytes_per_element(self.dtype)


@dataclass(frozen=True, kw_only=True)
class Work:
    """One kind of work as it was measured.

    Attributes:
        milliseconds: of one run, the median.
        tokens_per_second: that the model reads or writes, of all sequences.
        peak_bytes: most bytes that tensors held at once: on CUDA by torch's allocator, on a CPU followed one by one.
        reserved_bytes: most that torch's allocator took from a CUDA device; None on others.
        resident_bytes: growth of the process's peak resident set on a CPU; None where it is not known.
    """

    milliseconds: float
    tokens_per_second: float
    peak_bytes: int | None = None
    reserved_bytes: int | None = None
    resident_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What was measured.

    Attributes:
        probe: what was asked for.
        device: in words.
        training: a step in fp32 with AdamW.
        prefill: a forward pass over prompts that keeps their state; of a family that does not decode, the pass alone.
        decoding: one token of each sequence at a full context, memory apart; None where nothing is decoded.
        state_bytes: of all sequences at this context, as allocated; 0 where nothing is decoded.
    """

    probe: Probe
    device: str
    training: Work
    prefill: Work
    decoding: Work | None
    state_bytes: int


def probe(
    architecture: Architecture,
    *,
    context: int | None = None,
    batch: int = 1,
    dtype: str = "bf16",
    device: str = "auto",
    repeats: int = 5,
) -> Probed:
    """Measures an architecture in a fresh process; minutes for a large one on a CPU.

    Args:
        architecture: one that no task has bound counts as a byte-level language model.
        context: tokens of each sequence; max_context by default.
        batch, dtype, device, repeats: see `Probe`.

    Raises:
        SpaceError: a size below 1, a context beyond max_context, an unknown dtype or device.
        OutOfMemoryError: it does not fit the device.
        WorkerError: the process died, or the work failed.
    """
    architecture = bound(architecture)
    context = architecture.max_context if context is None else context
    if context > architecture.max_context:
        raise SpaceError(
            f"context {context} cannot be measured: the network's max_context is {architecture.max_context}"
        )
    asked = Probe(context=context, batch=batch, dtype=dtype, device=device, repeats=repeats)
    request = {"architecture": architecture.to_json(), "probe": asdict(asked), "path": sys.path}
    done = subprocess.run(
        [sys.executable, "-m", WORKER],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        # The worker finds nas where this process does.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)},
    )
    return _probed(asked, _answer(done))


def _answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    if done.returncode == -signal.SIGKILL:
        raise OutOfMemoryError("the process that measured was killed: the machine's memory ran out, most likely")
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise WorkerError(f"the process that measured ended with {done.returncode}: {said[-1]}")
    # What a user's own mixer prints comes before it.
    answer: dict[str, Any] = json.loads(lines[-1])
    errors = {"input": SpaceError, "out_of_memory": OutOfMemoryError, "crashed": WorkerError}
    if "error" in answer:
        raise errors[answer["error"]](answer["reason"])
    return answer


def _probed(asked: Probe, answer: dict[str, Any]) -> Probed:
    works = {
        name: None if answer[name] is None else Work(**answer[name]) for name in ("training", "prefill", "decoding")
    }
    assert works["training"] is not None and works["prefill"] is not None
    return Probed(
        probe=asked,
        device=answer["device"],
        training=works["training"],
        prefill=works["prefill"],
        decoding=works["decoding"],
        state_bytes=answer["state_bytes"],
    )
