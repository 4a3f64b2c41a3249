"""Bytes of the tensors that live at once, on any device and without one.

In: a computation. Out: the most bytes that its tensors held at once, and what they were. Each storage is counted
from the operation that made it until nothing refers to it, on real tensors and on fake ones, which have none.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, MutableMapping
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.weak import WeakIdKeyDictionary

# Operations that make nothing: they write numbers into what is there, and change neither its shape nor its place.
_WRITES = frozenset(
    {
        torch.ops.aten.add_.Tensor,
        torch.ops.aten.addcmul_.default,
        torch.ops.aten.baddbmm_.default,
        torch.ops.aten.bmm.out,
        torch.ops.aten.mul.out,
        torch.ops.aten.mul_.Tensor,
        torch.ops.aten.sub_.Tensor,
    }
)


class Tracker(TorchDispatchMode):
    """Counts the storages of tensors that operations make while it is entered.

    Attributes:
        kind: what storages that are made now count as.
        live: bytes alive now.
        peak: most bytes that were alive at once.
        at_peak: bytes alive then, by kind.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kind = "activations"
        self.live = self.peak = 0
        self.at_peak: Counter[str] = Counter()
        self._by_kind: Counter[str] = Counter()
        self._entries: MutableMapping[Any, _Entry] = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation and counts what it made."""
        kwargs = kwargs or {}
        if args and isinstance(args[0], FakeTensor):
            # Fake numbers need no writing, and asking a fake tensor for its device is as dear as an operation: a trace
            # of a recurrent network, which writes into what it holds chunk by chunk, takes half the time without both.
            if func is torch.ops.prim.device.default:
                return args[0].fake_device
            if func in _WRITES:
                return kwargs["out"] if "out" in kwargs else args[0]
        out = func(*args, **kwargs)
        for one in tree_iter(out):
            if isinstance(one, Tensor):
                self._see(one, self.kind)
        return out

    def count(self, tensors: Iterable[Tensor], kind: str) -> None:
        """Counts tensors that are there already, or that are something else than was thought."""
        for tensor in tensors:
            entry = self._entries.get(tensor.untyped_storage())
            if entry is None:
                self._see(tensor, kind)
            else:
                self._by_kind[entry.kind] -= entry.bytes
                self._by_kind[kind] += entry.bytes
                entry.kind = kind

    def _see(self, tensor: Tensor, kind: str) -> None:
        storage = tensor.untyped_storage()
        if storage in self._entries:
            return
        entry = _Entry(kind, storage.nbytes())
        self._entries[storage] = entry
        weakref.finalize(storage, self._gone, entry)
        self._by_kind[kind] += entry.bytes
        self.live += entry.bytes
        if self.live > self.peak:
            self.peak = self.live
            self.at_peak = Counter(self._by_kind)

    def _gone(self, entry: _Entry) -> None:
        self.live -= entry.bytes
        self._by_kind[entry.kind] -= entry.bytes


class _Entry:
    __slots__ = ("bytes", "kind")

    def __init__(self, kind: str, count: int) -> None:
        self.kind = kind
        self.bytes = count
