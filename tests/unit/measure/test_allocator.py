"""Memory that is freed stays within a block of training, and goes back behind it."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the allocator of glibc")

PROGRAM = """
import resource
from pathlib import Path
import torch
from nas.measure.allocator import freed_memory_kept

def use():
    torch.ones(48 * 2**20 // 4)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

with freed_memory_kept():
    for _ in range(20):
        # glibc before 2.38 finds an aligned block's room again only after several.
        use()
    before = faults()
    for _ in range(5):
        use()
    inside = resident()
    print(faults() - before)
print(inside - resident())
"""


def run(**environment: str) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "", "PYTHONPATH": ":".join(sys.path), **environment},
    )
    return [float(line) for line in done.stdout.split()]


def test_freed_memory_is_used_again_without_page_faults_and_goes_back_at_the_end() -> None:
    faults, returned_mib = run()
    # 48 MiB anew each of five times would be 61,440 pages.
    assert faults < 1_000
    assert returned_mib > 40


def test_a_user_who_set_the_allocator_is_not_overruled() -> None:
    faults, _ = run(MALLOC_MMAP_THRESHOLD_="1000000")
    assert faults > 50_000
