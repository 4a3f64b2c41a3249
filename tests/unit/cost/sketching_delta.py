"""The tape beside the truth: one block of a network under fake tensors, and its sketch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from nas import Space, build
from nas.cost.estimate import bound
from nas.cost.memory import passage_of
from nas.measure.tracker import Tracker
from nas.mixers.base import CAUSAL, Layout
from nas.space import Architecture
from nas.specs.tape import Extent


@dataclass(frozen=True)
class Peaks:
    """Bytes beyond a block's input.

    Attributes:
        forward: most that were alive at once on the way forward.
        kept: alive after it, the output among them.
        backward: most on the way back, without the gradient of the output.
        weights: gradients of weights.
    """

    forward: int
    kept: int
    backward: int = 0
    weights: int = 0

    def off_by(self, real: Peaks) -> float:
        """The largest error, as a share of the truth."""
        pairs = ((self.forward, real.forward), (self.kept, real.kept), (self.backward, real.backward))
        return max(abs(ours / true - 1) for ours, true in pairs if true)


def one_block(
    layer: dict[str, Any], *, width: int, length: int, family: str = "decoder", mlp: str = "none"
) -> Architecture:
    """Two equal layers, of which the second is looked at."""
    layers = {"mlp": mlp} | layer
    space = {"name": "one", "family": family, "width": width, "max_context": length, "depth": 2, "layers": layers}
    return bound(Space.from_mapping(space).sample(0))


def real(architecture: Architecture, extent: Extent, *, dtype: torch.dtype = torch.float32, records: bool) -> Peaks:
    """What the block of an architecture does: training, or a prefill (of an encoder, a pass without gradients)."""
    with FakeTensorMode():
        model = build(architecture)
        for module in model.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                setattr(module, name, torch.nn.Parameter(weight.detach().to(dtype)))
        block: Any = model.layers[1]  # type: ignore[union-attr, index]
        shape = (extent.batch, extent.length, architecture.width)
        x = torch.zeros(shape, dtype=dtype, requires_grad=records)
        layout = Layout(prefix=extent.prefix) if extent.prefix else CAUSAL
        tracker = Tracker()
        tracker.count([*model.parameters(), x], "outside")
        tracker.peak = outside = tracker.live
        with torch.set_grad_enabled(records), tracker:
            if records or architecture.family == "encoder":
                y = block(x, layout)
            else:
                state = block.new_state(
                    extent.batch,
                    extent.length,
                    cache_dtype=dtype,
                    recurrent_dtype=torch.float32,
                    device=x.device,
                )
                tracker.peak = outside = tracker.live
                y = block.prefill(x, state, layout)
            forward, kept = tracker.peak - outside, tracker.live - outside
            if not records:
                return Peaks(forward, kept)
            # The gradient of y is held by nobody else, as that of a network's next layer.
            loss = (2 * y).sum()
            tracker.peak = tracker.live
            loss.backward()
        weights = sum(weight.numel() for weight in block.parameters()) * x.element_size()
        return Peaks(forward, kept, tracker.peak - outside - 2 * (y.nbytes + loss.nbytes), weights)


def sketched(architecture: Architecture, extent: Extent, *, size: int = 4, records: bool) -> Peaks:
    """What the tape says of it."""
    passage = passage_of(architecture, 1, extent, size, records=records)
    kept = passage.kept + extent.tokens * architecture.width * size
    return Peaks(passage.forward_peak, kept, passage.backward_peak, passage.weight_bytes)
