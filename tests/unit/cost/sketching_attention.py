"""Bytes of a real layer, by its tensors, beside those that its sketch tells."""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from nas import build
from nas.cost.memory import passage_of
from nas.measure.tracker import Tracker
from nas.mixers.base import CAUSAL, Layout
from nas.space.architecture import Architecture
from nas.space.space import Space
from nas.specs.tape import Extent

SIZE = 4


def architecture(
    layer: dict[str, Any], length: int, *, family: str = "decoder", positions: str = "rope"
) -> Architecture:
    """One layer in a model of that family."""
    return Space.from_mapping(
        {
            "name": "sketch",
            "family": family,
            "width": 64,
            "max_context": length,
            "positions": positions,
            "depth": 1,
            "layers": {"mlp": "none", **layer},
        }
    ).sample(0)


def prefix_of(family: str, length: int) -> int:
    """Leading tokens that see each other."""
    return {"decoder": 0, "encoder": length, "prefix_lm": length // 2}[family]


def told(made: Architecture, batch: int, length: int, *, records: bool) -> tuple[int, ...]:
    """Peak forward, and in training what is kept and the peak on the way back, as the sketch has it."""
    extent = Extent(batch, length, prefix_of(made.family, length))
    passage = passage_of(made, 0, extent, SIZE, records=records)
    found = (passage.forward_peak, passage.kept, passage.backward_peak)
    return found if records else found[:1]


def counted(made: Architecture, batch: int, length: int, *, records: bool) -> tuple[int, ...]:
    """The same, counted on the layer itself."""
    prefix = prefix_of(made.family, length)
    layout = Layout(prefix=prefix) if prefix else CAUSAL
    with FakeTensorMode():
        model = build(made)
        block: Any = model.layers[0]
        x_BLD = torch.zeros(batch, length, 64, requires_grad=records)
        upstream_BLD = torch.zeros(batch, length, 64)
        tracker = Tracker()
        tracker.count([*model.parameters(), x_BLD, upstream_BLD], "outside")
        stream = x_BLD.numel() * SIZE
        with torch.set_grad_enabled(records), tracker:
            state = None
            if not records and made.family != "encoder":
                state = block.new_state(
                    batch,
                    length,
                    cache_dtype=torch.float32,
                    recurrent_dtype=torch.float32,
                    device=x_BLD.device,
                )
            before = tracker.peak = tracker.live
            y_BLD = block(x_BLD, layout) if state is None else block.prefill(x_BLD, state, layout)
            forward_peak, kept = tracker.peak - before, tracker.live - before - stream
            if not records:
                return (forward_peak,)
            # The next layer's gradient is nobody else's, as it is between layers.
            next_BLD = y_BLD * 1.0
            del y_BLD
            tracker.peak = tracker.live
            next_BLD.backward(upstream_BLD)
    return forward_peak, kept, tracker.peak - before - 2 * stream
