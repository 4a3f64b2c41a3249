"""What a CPU has available, within control groups of both versions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from nas.measure.device_memory import available_bytes, device_memory_bytes

GIB = 2**30
MEMINFO = f"MemTotal: {16 * 2**20} kB\nMemAvailable: {10 * 2**20} kB\n"


def machine(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_without_control_groups_it_is_what_the_machine_has(tmp_path: Path) -> None:
    assert available_bytes(machine(tmp_path, {})) == 10 * GIB


@pytest.mark.parametrize(
    ("limit", "left"), [(str(4 * GIB), 4 * GIB - GIB), ("max", 10 * GIB), (str(64 * GIB), 10 * GIB)]
)
def test_the_limit_of_a_group_counts_and_its_cache_is_free(tmp_path: Path, limit: str, left: int) -> None:
    group = {
        "proc/self/cgroup": "0::/outer/inner\n",
        "sys/fs/cgroup/outer/inner/memory.max": "max\n",
        "sys/fs/cgroup/outer/memory.max": f"{limit}\n",
        "sys/fs/cgroup/outer/memory.current": f"{3 * GIB}\n",
        "sys/fs/cgroup/outer/memory.stat": f"anon {GIB}\ninactive_file {2 * GIB}\n",
    }
    assert available_bytes(machine(tmp_path, group)) == left


def test_a_container_sees_its_own_group_at_the_mount(tmp_path: Path) -> None:
    group = {
        "proc/self/cgroup": "12:memory:/docker/abc\n3:cpu:/docker/abc\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
        "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 0\n",
    }
    assert available_bytes(machine(tmp_path, group)) == GIB


def test_no_limit_of_the_first_version_is_a_huge_number(tmp_path: Path) -> None:
    group = {
        "proc/self/cgroup": "12:memory:/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
        "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 0\n",
    }
    assert available_bytes(machine(tmp_path, group)) == 10 * GIB


def test_a_study_on_the_cpu_asks_the_machine() -> None:
    assert 0 < device_memory_bytes({"accelerator": "cpu"}) < 2**50
