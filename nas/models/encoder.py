"""A BERT-like encoder: every token sees the whole sequence, in both directions.

In: tokens. Out: logits over the token that a mask hides, at each position; or over labels, for
each token or for the mean of the sequence. It has no state and generates nothing.

Shapes: B batch, L length, D width.
"""

from __future__ import annotations

from typing import ClassVar, NoReturn

import torch
from torch import Tensor

from nas.errors import InputError
from nas.mixers.base import Layout
from nas.models.decoder import SingleStack
from nas.models.heads import mean_token
from nas.models.state import ModelState
from nas.space.architecture import Architecture
from nas.tasks.inputs import Inputs


def whole(length: int, lengths_B: Tensor | None) -> Layout:
    """All tokens of each sequence see each other."""
    return Layout(prefix=length if lengths_B is None else lengths_B, lengths_B=lengths_B)


class Encoder(SingleStack):
    """Layers that look both ways (Devlin et al. 2019), with pre-norms as ModernBERT's (Warner et al. 2024)."""

    words: ClassVar[str] = "an encoder"

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.generates = False

    def layout(self, inputs: Inputs) -> Layout:
        """The whole sequence is a prefix."""
        return whole(inputs.tokens_BL.shape[1], inputs.lengths_B)

    def pooled(self, x_BLD: Tensor, lengths_B: Tensor | None) -> Tensor:
        """What the head reads: each token, their mean, or the last one for each."""
        if self.head_kind == "autoencoder":
            return super().pooled(x_BLD, lengths_B)
        x_BLD = self.norm(x_BLD)
        return mean_token(x_BLD, lengths_B) if self.head_kind == "sequence_classification" else x_BLD

    def new_state(
        self,
        batch: int,
        context: int | None = None,
        *,
        source_context: int | None = None,
        cache_dtype: torch.dtype = torch.bfloat16,
        recurrent_dtype: torch.dtype = torch.float32,
    ) -> ModelState:
        """Raises InputError: there is nothing to continue from."""
        _refuse()

    def prefill(self, inputs: Inputs | Tensor, state: ModelState) -> Tensor:
        """Raises InputError: there is nothing to continue from."""
        _refuse()

    def step(self, tokens_B: Tensor, state: ModelState) -> Tensor:
        """Raises InputError: there is nothing to continue from."""
        _refuse()


def _refuse() -> NoReturn:
    raise InputError(
        "an encoder does not generate: every token sees the whole sequence, so there is none to continue; "
        "use a decoder, a prefix_lm or an encoder_decoder"
    )
