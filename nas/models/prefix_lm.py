"""A GLM-like prefix language model (Du et al. 2022): a prefix seen both ways, then token by token.

In: tokens, how many of them form the prefix, and where each stands. Out: logits at each position.
A position is two numbers: the place in the text, which all tokens that fill one blank share, and
the place inside the blank, 0 for the text itself and 1, 2, … for what fills the blank.

Decoding takes the prompt as the prefix, unless it says otherwise, and what is generated as the
filling of a blank at the prompt's last position: that may be the mask's, or the end of the text.

Shapes: B batch, L length, D width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from nas.mixers.base import Layout
from nas.models.decoder import SingleStack
from nas.models.heads import last_token
from nas.models.state import ModelState
from nas.space.architecture import Architecture
from nas.tasks.inputs import Inputs


class PrefixLM(SingleStack):
    """Layers that look both ways inside a prefix; without one, a decoder."""

    words: ClassVar[str] = "a prefix language model"
    reads: ClassVar[frozenset[str]] = frozenset({"prefix_B", "positions_BL2"})
    tables: ClassVar[int] = 2

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.rotates = architecture.positions == "rope"

    def layout(self, inputs: Inputs) -> Layout:
        """No prefix where none is given."""
        return Layout(
            prefix=0 if inputs.prefix_B is None else inputs.prefix_B,
            lengths_B=inputs.lengths_B,
            positions=inputs.positions_BL2 if self.rotates else None,
        )

    def places(self, inputs: Inputs) -> int | Tensor:
        """The positions that are given, else 0, 1, 2, … and 0."""
        return 0 if inputs.positions_BL2 is None else inputs.positions_BL2

    def turn(self, places_B2: Tensor) -> Tensor | None:
        """Both numbers of a position, for rotary ones."""
        return places_B2 if self.rotates else None

    def prefill(self, inputs: Inputs | Tensor, state: ModelState) -> Tensor:
        """See `Model.prefill`; without `Inputs.prefix_B` the whole prompt is the prefix."""
        inputs = self.checked(inputs)
        batch, length = inputs.tokens_BL.shape
        device = inputs.tokens_BL.device
        lengths_B = torch.full((batch,), length, device=device) if inputs.lengths_B is None else inputs.lengths_B
        if inputs.prefix_B is None:
            inputs = replace(inputs, prefix_B=lengths_B)
        logits_BV = super().prefill(inputs, state)
        if inputs.positions_BL2 is None:
            last_B2 = torch.stack([lengths_B - 1, torch.zeros_like(lengths_B)], 1)
        else:
            last_B2 = last_token(inputs.positions_BL2, inputs.lengths_B)
        state.places_B2 = last_B2 + last_B2.new_tensor([0, 1])
        return logits_BV
