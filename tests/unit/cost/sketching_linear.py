"""A layer's memory twice: as the tape has it, and as tensors without numbers do.

In: a layer, what is around it and what it is given. Out: peaks and what stays, of the tape and of the real block.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from nas import Space, build
from nas.cost.estimate import bound
from nas.cost.memory import passage_of
from nas.measure.tracker import Tracker
from nas.mixers.base import CAUSAL, Layout
from nas.specs.tape import Extent


@dataclass(frozen=True)
class Memory:
    """Bytes beyond the input; on the way back without the gradient that comes from above."""

    forward_peak: int
    kept: int
    backward_peak: int

    def error(self, other: Memory) -> float:
        """The largest relative difference of the three."""
        pairs = zip((self.forward_peak, self.kept, self.backward_peak), _figures(other), strict=True)
        return max(abs(mine / theirs - 1) if theirs else float(mine > 0) for mine, theirs in pairs)


def _figures(memory: Memory) -> tuple[int, int, int]:
    return memory.forward_peak, memory.kept, memory.backward_peak


def both(
    layer: Mapping[str, Any],
    *,
    width: int = 64,
    length: int = 256,
    batch: int = 1,
    family: str = "decoder",
    positions: str = "rope",
    records: bool = True,
    is_real: bool = False,
    has_own_prefixes: bool = False,
    dtype: torch.dtype = torch.float32,
) -> tuple[Memory, Memory]:
    """By the tape, and of the block itself: of fake tensors, or of real ones."""
    space = {
        "name": "sketch",
        "family": family,
        "width": width,
        "max_context": length,
        "positions": positions,
        "depth": 2,
        "layers": {"mlp": "none", **layer},
    }
    architecture = bound(Space.from_mapping(space).sample(0))
    prefix = {"prefix_lm": length // 2, "encoder": length}.get(family, 0)
    size = torch.tensor([], dtype=dtype).element_size()
    extent = Extent(batch, length, prefix, has_own_prefixes=has_own_prefixes)
    passage = passage_of(architecture, 1, extent, size, records=records)
    sketched = Memory(passage.forward_peak, passage.kept, passage.backward_peak)
    mode = contextlib.nullcontext() if is_real else FakeTensorMode()
    with mode, torch.set_grad_enabled(records):
        model = build(architecture)
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
        block = model.get_submodule("layers.1")
        x = torch.zeros(batch, length, width, dtype=dtype, requires_grad=records)
        gradient = torch.zeros_like(x)
        tracker = Tracker()
        tracker.count([*model.parameters(), x, gradient], "outside")
        own = torch.full((batch,), prefix) if has_own_prefixes else prefix
        tracker.count([own] if isinstance(own, torch.Tensor) else [], "outside")
        layout = Layout(prefix=own) if prefix else CAUSAL
        with tracker:
            return sketched, _followed(tracker, block, x, gradient, layout, family)


def _followed(
    tracker: Tracker, block: Any, x: torch.Tensor, gradient: torch.Tensor, layout: Layout, family: str
) -> Memory:
    records, own = x.requires_grad, x.numel() * x.element_size()
    arguments: tuple[Any, ...] = (layout,)
    if not records and family != "encoder":
        dtypes = {"cache_dtype": x.dtype, "recurrent_dtype": torch.float32}
        state = block.new_state(len(x), x.shape[1], device=x.device, **dtypes)
        arguments = (state, layout)
    tracker.peak = before = tracker.live
    y = block(x, *arguments) if len(arguments) == 1 else block.prefill(x, *arguments)
    forward_peak, kept = tracker.peak - before, tracker.live - before - own
    if not records:
        return Memory(forward_peak, 0, 0)
    # As from the layer above: a gradient that nobody else holds, so that others may be added to it in place.
    above = y * 1
    tracker.peak = tracker.live
    above.backward(gradient)
    return Memory(forward_peak, kept, tracker.peak - before - 3 * own)
