"""The peak of a piece of work is what it held at once, not what earlier work held."""

from __future__ import annotations

import gc
import sys
import weakref
from pathlib import Path

import pytest
import torch

from nas.measure import peak as peaks
from nas.measure.allocator import freed_memory_returned
from nas.measure.peak import Peak, own_garbage_collected, process_memory

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc of Linux")
CPU = torch.device("cpu")
MIB = 2**20


def use(mib: int) -> None:
    torch.ones(mib * MIB // 4)


@linux
def test_the_largest_moment_counts_and_what_came_before_does_not() -> None:
    with freed_memory_returned():
        use(300)
        peak = Peak(CPU)
        use(100)
        use(50)
        found = peak.bytes()
    assert found is not None and 90 * MIB < found < 160 * MIB
    assert peak.reserved() is None


@linux
def test_a_mark_that_cannot_be_set_back_and_does_not_move_is_not_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(peaks, "_CLEAR", tmp_path / "no" / "such")
    with freed_memory_returned():
        use(300)
        peak = Peak(CPU)
        use(50)
        assert peak.bytes() is None
        use(600)
        found = peak.bytes()
    assert found is not None and found > 500 * MIB


def test_a_system_that_tells_nothing_gives_no_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peaks, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(peaks, "_CLEAR", tmp_path / "no" / "such")
    assert process_memory() == {} and Peak(CPU).bytes() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_it_is_the_allocators() -> None:
    device = torch.device("cuda", 0)
    peak = Peak(device)
    torch.ones(64 * MIB // 4, device=device)
    found, reserved = peak.bytes(), peak.reserved()
    assert found == 64 * MIB and reserved is not None and reserved >= 0


class Cycle:
    """Refers to itself, so that only a collection frees it."""

    def __init__(self) -> None:
        self.itself = self


def test_a_jobs_own_cycles_are_collected_and_nothing_older_is_looked_at() -> None:
    gc.collect()
    frozen = gc.get_freeze_count()
    with own_garbage_collected():
        made = weakref.ref(Cycle())
        assert made() is not None
    assert made() is None
    older = weakref.ref(Cycle())
    with own_garbage_collected():
        pass
    # A full collection in between would have taken it; afterwards it is as free to go as ever.
    assert older() is not None and gc.get_freeze_count() == frozen
    gc.collect()
    assert older() is None
