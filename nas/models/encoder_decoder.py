"""A T5-like encoder–decoder (Raffel et al. 2020): an encoder reads a source, a decoder attends to it.

In: tokens of the source and of the target. Out: logits over the next token of the target, for all
positions at once, or for the last one with a state that decoding continues from. The state holds
the keys and values of the source, so that the source is read once.

Shapes: B batch, L length of the target, S length of the source, D width, V vocabulary.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from nas.errors import InputError
from nas.mixers.base import Layout
from nas.models.base import Model, check_length
from nas.models.blocks import Source
from nas.models.encoder import whole
from nas.models.heads import last_token
from nas.models.stack import Stack
from nas.models.state import ModelState
from nas.space.architecture import Architecture
from nas.tasks.inputs import Inputs


class EncoderDecoder(Model):
    """Two stacks with one token embedding; each has its own positions and biases.

    Args:
        architecture: of family "encoder_decoder" and bound to a task.
    """

    words: ClassVar[str] = "an encoder–decoder"
    reads: ClassVar[frozenset[str]] = frozenset({"source_BS", "source_lengths_B"})

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self._add_embedding(architecture)
        self.encoder = Stack(architecture, architecture.encoder_layers, architecture.encoder_surroundings)
        self.decoder = Stack(architecture, architecture.layers, architecture.surroundings)
        self._add_head(architecture)
        self._initialize()

    def checked(self, inputs: Inputs | Tensor) -> Inputs:
        """See `Model.checked`; there must be a source."""
        inputs = super().checked(inputs)
        if inputs.source_BS is None:
            raise InputError(f"{self.words} reads a source: give Inputs(tokens_BL, source_BS=…)")
        return inputs

    def encode(self, source_BS: Tensor, lengths_B: Tensor | None = None) -> Source:
        """What the encoder makes of a source, (B, S) to (B, S, D).

        Raises:
            SpaceError: S exceeds max_context.
        """
        check_length(source_BS.shape[1], self.max_context)
        x_BSD = self.encoder.enter(self.embed_tokens(source_BS))
        x_BSD = self.encoder.run(x_BSD, whole(source_BS.shape[1], lengths_B))
        return Source(self.encoder.norm(x_BSD), lengths_B)

    def features(self, inputs: Inputs | Tensor) -> Tensor:
        """The normalised features of the target, (B, L, D)."""
        inputs = self.checked(inputs)
        assert inputs.source_BS is not None
        source = self.encode(inputs.source_BS, inputs.source_lengths_B)
        x_BLD = self.decoder.enter(self.embed_tokens(inputs.tokens_BL))
        x_BLD = self.decoder.run(x_BLD, Layout(lengths_B=inputs.lengths_B), source=source)
        return self.decoder.norm(x_BLD)  # type: ignore[no-any-return]

    def new_state(
        self,
        batch: int,
        context: int | None = None,
        *,
        source_context: int | None = None,
        cache_dtype: torch.dtype = torch.bfloat16,
        recurrent_dtype: torch.dtype = torch.float32,
    ) -> ModelState:
        """See `Model.new_state`."""
        context = self.max_context if context is None else context
        source_context = self.max_context if source_context is None else source_context
        check_length(context, self.max_context)
        check_length(source_context, self.max_context)
        layers = self.decoder.new_states(
            batch,
            context,
            source_context=source_context,
            cache_dtype=cache_dtype,
            recurrent_dtype=recurrent_dtype,
            device=self.device,
        )
        return ModelState(layers=layers, batch=batch, context=context, source_context=source_context)

    def prefill(self, inputs: Inputs | Tensor, state: ModelState) -> Tensor:
        """See `Model.prefill`; reads the source too, which must fit the state's source_context."""
        inputs = self.checked(inputs)
        assert inputs.source_BS is not None
        self._begin(inputs, state)
        check_length(inputs.source_BS.shape[1], state.source_context, what="the state's source_context")
        source = self.encode(inputs.source_BS, inputs.source_lengths_B)
        x_BLD = self.decoder.enter(self.embed_tokens(inputs.tokens_BL))
        layout = Layout(lengths_B=inputs.lengths_B)
        x_BLD = self.decoder.run(x_BLD, layout, source=source, states=state.layers)
        self._took(inputs, state)
        return self.head(self.decoder.norm(last_token(x_BLD, inputs.lengths_B)))

    def step(self, tokens_B: Tensor, state: ModelState) -> Tensor:
        """See `Model.step`."""
        check_length(state.longest + 1, state.context, what="the state's context")
        x_BD = self.decoder.enter(self.embed_tokens(tokens_B), state.position)
        x_BD = self.decoder.advance(x_BD, state.layers, state.position)
        state.advance()
        return self.head(self.decoder.norm(x_BD))
