"""A limit on memory refuses what is beyond it, and is gone behind it."""

from __future__ import annotations

import sys

import pytest
import torch

from nas.errors import StudyError
from nas.measure import limit as limits
from nas.measure.allocator import freed_memory_returned
from nas.measure.limit import MemoryLimit, check_memory_limit
from nas.measure.train import classify

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resource limits of Linux")

CPU = torch.device("cpu")
MIB = 2**20


def tensor(mib: int) -> torch.Tensor:
    # Room that nothing is written to: the process's earlier holes are never so large as what must be refused.
    return torch.empty(mib * MIB // 4)


def resource_limit() -> tuple[int, int]:
    import resource

    return resource.getrlimit(resource.RLIMIT_DATA)


def test_what_is_within_the_limit_is_given_and_what_is_beyond_it_is_refused() -> None:
    with freed_memory_returned(), MemoryLimit(256 * MIB, CPU).held():
        kept = tensor(128)
        with pytest.raises((RuntimeError, MemoryError)) as refused:
            tensor(4096)
    assert classify(refused.value).kind == "out_of_memory"
    assert kept.numel() and tensor(4096).numel()


def test_python_objects_count_too() -> None:
    with MemoryLimit(64 * MIB, CPU).held(), pytest.raises(MemoryError):
        bytearray(4096 * MIB)


def test_what_the_process_holds_already_is_not_counted() -> None:
    kept = tensor(256)
    with freed_memory_returned(), MemoryLimit(128 * MIB, CPU).held():
        assert tensor(64).numel() and kept.numel()


def test_the_processs_own_limits_are_back_afterwards_whatever_happened() -> None:
    before = resource_limit()
    limit = MemoryLimit(64 * MIB, CPU)
    with limit.held():
        assert resource_limit()[0] != before[0] and resource_limit()[1] == before[1]
    assert resource_limit() == before
    # A limit may be held again: that of the moment when it was made.
    with limit.held(), pytest.raises((RuntimeError, MemoryError)):
        tensor(4096)
    assert resource_limit() == before


def test_a_stricter_limit_of_the_users_own_stays() -> None:
    import resource

    soft, hard = resource_limit()
    limit = MemoryLimit(2**40, CPU)
    resource.setrlimit(resource.RLIMIT_DATA, (2**39, hard))
    try:
        with limit.held():
            assert resource_limit()[0] == 2**39
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def test_no_limit_changes_nothing() -> None:
    before = resource_limit()
    with MemoryLimit(None, CPU).held():
        assert resource_limit() == before


def test_a_system_without_such_limits_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.sys, "platform", "darwin")
    with pytest.raises(StudyError, match=r"memory_limit 64 MiB: only CUDA and Linux .* train_peak_bytes"):
        check_memory_limit(64 * MIB, CPU)
    check_memory_limit(None, CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_the_allocator_is_limited_and_free_again_afterwards() -> None:
    device = torch.device("cuda", 0)
    before = torch.cuda.get_per_process_memory_fraction(device)
    with MemoryLimit(256 * MIB, device).held():
        assert torch.ones(16 * MIB, device=device).numel()
        with pytest.raises(torch.OutOfMemoryError):
            torch.ones(256 * MIB, device=device)
    assert torch.cuda.get_per_process_memory_fraction(device) == before
    assert torch.ones(256 * MIB, device=device).numel()
