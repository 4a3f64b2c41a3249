"""How much memory the device has that candidates are trained on.

In: a study's `trainer:` words. Out: bytes. Of a CUDA device its total memory; of a CPU what the machine has
available, within the limits of the control groups that this process is in (containers, batch systems).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

# A limit of about the size of the address space is how version 1 of control groups says that there is none.
_NO_LIMIT = 2**60
# Where each version keeps what: the file of the limit, that of the use, and the cache that makes room when it must.
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def device_memory_bytes(trainer: Mapping[str, Any]) -> int:
    """Bytes of the device that a Trainer with these arguments takes.

    Args:
        trainer: a study's `trainer:`; of interest are its accelerator and its devices.
    """
    on_cpu = str(trainer.get("accelerator", "auto")) == "cpu"
    if torch.cuda.is_available() and not on_cpu:
        devices = trainer.get("devices")
        index = int(devices[0]) if isinstance(devices, list) else 0
        return int(torch.cuda.get_device_properties(index).total_memory)
    return available_bytes()


def available_bytes(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may still take.

    Args:
        root: of the file system; another one in tests.
    """
    return min([_machine_bytes(root), *_group_bytes(root)])


def _machine_bytes(root: Path) -> int:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        # No Linux: what there is in all.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _group_bytes(root: Path) -> Iterator[int]:
    """What each control group around this process has left, from the innermost out."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, inside = line.split(":", 2)
        if number == "0":
            mount, files = root / "sys/fs/cgroup", _V2
        elif "memory" in controllers.split(","):
            mount, files = root / "sys/fs/cgroup/memory", _V1
        else:
            continue
        folder = mount / inside.lstrip("/")
        while True:
            # Inside a container the path is often the host's, and the mount itself is our group.
            left = _left(folder, *files)
            if left is not None:
                yield left
            if folder == mount or mount not in folder.parents:
                break
            folder = folder.parent


def _left(folder: Path, limit_name: str, use_name: str, cache_name: str) -> int | None:
    """Bytes between a group's limit and its use; None where there is no limit."""
    try:
        limit = int((folder / limit_name).read_text())
        used = int((folder / use_name).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        used -= int(stat.get(cache_name, 0))
    except (OSError, ValueError):
        # "max", or no such group here.
        return None
    return max(limit - max(used, 0), 0) if limit < _NO_LIMIT else None
