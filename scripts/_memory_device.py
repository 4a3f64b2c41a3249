"""Traces held against a device: what docs/memory.md says of real tensors.

In: a device. Out: one line of JSON for each of 50 draws. On CUDA the allocator's peak is compared with the trace; on
a CPU, which has no allocator that tells, the same count over real tensors, and beside it the resident memory by
which the process grew.
"""

from __future__ import annotations

import gc
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from _memory_draws import drawn

from nas.measure.trace import trace_training, training_step

DEVICE_DRAWS: Final = 50
DEVICE_LIMITS: Final = (0.05, 0.10)
# Real tensors of longer contexts would not fit every machine.
LONGEST: Final = {"cpu": 2048, "cuda": 16_384}


@dataclass(frozen=True, kw_only=True)
class Held:
    """One network's training step, traced and on the device, in bytes."""

    number: int
    fingerprint: str
    mixers: tuple[str, ...]
    context: int
    batch: int
    traced: int
    measured: int

    @property
    def error(self) -> float:
        """How far the trace is off, as a share of what was measured."""
        return abs(self.traced / self.measured - 1)


@dataclass(frozen=True)
class HeldRows:
    """All networks of a device.

    Attributes:
        device: its name.
        rows: one for each network.
    """

    device: str
    rows: tuple[Held, ...]

    def spread(self) -> tuple[float, float]:
        """Median and largest error."""
        errors = [row.error for row in self.rows]
        return statistics.median(errors), max(errors)


def compare_device(folder: Path, kind: str, say: Callable[[str], None]) -> None:
    """Compares what is missing of the first 50 draws that are short enough.

    Raises:
        SystemExit: there is no such device.
    """
    if kind == "cuda" and not torch.cuda.is_available():
        raise SystemExit("check_memory: no CUDA device is at hand: this part of docs/memory.md stays empty")
    done = recorded_device(folder, kind)
    numbers = {row.number for row in done.rows} if done else set()
    path = folder / f"device-{kind}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    count = number = 0
    while count < DEVICE_DRAWS:
        _, architecture, batch = drawn(number)
        number += 1
        if architecture.max_context > LONGEST[kind]:
            continue
        count += 1
        if number - 1 in numbers:
            continue
        context = architecture.max_context
        traced = trace_training(architecture, context=context, batch=batch).total
        if kind == "cpu":
            measured = trace_training(architecture, context=context, batch=batch, real=True).total
        else:
            measured = _on_cuda(number - 1)
        mixers = tuple(layer.mixer for layer in architecture.all_layers)
        row = Held(
            number=number - 1,
            fingerprint=architecture.fingerprint,
            mixers=mixers,
            context=context,
            batch=batch,
            traced=traced,
            measured=measured,
        )
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**asdict(row), "device": _name(kind)}) + "\n")
        say(f"{row.number:4d} {context:6,d} x {batch} {','.join(mixers)}: trace off by {row.error:.2%}")


def recorded_device(folder: Path, kind: str) -> HeldRows | None:
    """What is done, or nothing."""
    path = folder / f"device-{kind}.jsonl"
    if not path.is_file():
        return None
    rows, name = [], ""
    for line in path.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        name = values.pop("device")
        rows.append(Held(**{**values, "mixers": tuple(values["mixers"])}))
    return HeldRows(name, tuple(rows)) if rows else None


def _on_cuda(number: int) -> int:
    _, architecture, batch = drawn(number)
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    with torch.device("cuda"):
        step = training_step(architecture, context=architecture.max_context, batch=batch)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _name(kind: str) -> str:
    return str(torch.cuda.get_device_name()) if kind == "cuda" else f"CPU, torch {torch.__version__}"
