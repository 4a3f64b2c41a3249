"""What a model reads: one batch of tokens, and whatever its family has to know besides.

Sequences of unequal length are padded on the right; what stands in the padding plays no part.

Shapes: B batch, L length, S length of a source.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Inputs:
    """One batch.

    Attributes:
        tokens_BL: int64 tokens; of an encoder–decoder, those that the decoder reads.
        lengths_B: int64 tokens of each sequence before the padding, at least 1; None: all L.
        prefix_B: int64, of a prefix language model: how many leading tokens see each other in both
            directions, from 0 to L; None: the family's own habit (0 for a prefix language model).
        positions_BL2: int64, of a prefix language model: place in the text and place inside a
            blank; None: 0, 1, 2, … and 0.
        source_BS: int64 tokens that the encoder of an encoder–decoder reads.
        source_lengths_B: int64 tokens of each source before the padding; None: all S.
    """

    tokens_BL: Tensor
    lengths_B: Tensor | None = None
    prefix_B: Tensor | None = None
    positions_BL2: Tensor | None = None
    source_BS: Tensor | None = None
    source_lengths_B: Tensor | None = None

    def to(self, device: torch.device | str, **options: Any) -> Inputs:
        """The same batch on another device."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(
            self, **{name: tensor.to(device, **options) for name, tensor in tensors.items() if tensor is not None}
        )
