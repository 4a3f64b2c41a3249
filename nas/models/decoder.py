"""A GPT-like decoder: causal layers between an embedding and a head.

In: tokens. Out: logits over the next token, for all positions at once (`forward`), or for the
last one with a state that decoding continues from (`prefill`, `step`); or logits over labels, for
each token or for the whole sequence at its last token; or logits over each token that was read, from
the features of the last one alone (head `autoencoder`).

`SingleStack` is what it shares with the other families of one stack.

Shapes: B batch, L length, D width, V outputs of the head.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.mixers.base import Layout
from nas.models.base import Model, check_length
from nas.models.heads import at_each_position, last_token
from nas.models.stack import Stack
from nas.models.state import ModelState
from nas.space.architecture import Architecture
from nas.tasks.inputs import Inputs


class SingleStack(Model, Stack):
    """A model of one stack.

    Args:
        architecture: of the family, bound to a task.
    """

    tables: ClassVar[int] = 1
    """Numbers that a learned position is looked up by."""

    def __init__(self, architecture: Architecture) -> None:
        nn.Module.__init__(self)
        around = architecture.surroundings
        self.head_kind = architecture.head
        self._add_embedding(architecture)
        self.furnish(architecture, architecture.layers, around, tables=self.tables)
        self._add_head(architecture, looks_ahead=around.looks_ahead)
        self._initialize()

    def features(self, inputs: Inputs | Tensor) -> Tensor:
        """What the head reads: (B, L, D), or (B, D) where it speaks once for a sequence."""
        inputs = self.checked(inputs)
        x_BLD = self.enter(self.embed_tokens(inputs.tokens_BL), self.places(inputs))
        return self.pooled(self.run(x_BLD, self.layout(inputs)), inputs.lengths_B)

    def layout(self, inputs: Inputs) -> Layout:
        """How the tokens lie."""
        return Layout(lengths_B=inputs.lengths_B)

    def places(self, inputs: Inputs) -> int | Tensor:
        """What learned positions are looked up by; see `Stack.enter`."""
        return 0

    def pooled(self, x_BLD: Tensor, lengths_B: Tensor | None) -> Tensor:
        """What the head reads of the stack's output."""
        if self.head_kind == "autoencoder":
            return at_each_position(self.norm(last_token(x_BLD, lengths_B)), x_BLD.shape[1])
        if self.head_kind == "sequence_classification":
            x_BLD = last_token(x_BLD, lengths_B)
        return self.norm(x_BLD)  # type: ignore[no-any-return]

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
        check_length(context, self.max_context)
        layers = self.new_states(
            batch, context, cache_dtype=cache_dtype, recurrent_dtype=recurrent_dtype, device=self.device
        )
        return ModelState(layers=layers, batch=batch, context=context)

    def prefill(self, inputs: Inputs | Tensor, state: ModelState) -> Tensor:
        """See `Model.prefill`."""
        inputs = self.checked(inputs)
        self._begin(inputs, state)
        x_BLD = self.enter(self.embed_tokens(inputs.tokens_BL), self.places(inputs))
        x_BLD = self.run(x_BLD, self.layout(inputs), states=state.layers)
        self._took(inputs, state)
        return self.head(self.norm(last_token(x_BLD, inputs.lengths_B)))

    def step(self, tokens_B: Tensor, state: ModelState) -> Tensor:
        """See `Model.step`."""
        check_length(state.longest + 1, state.context, what="the state's context")
        place = state.position if state.places_B2 is None else state.places_B2
        turn = None if state.places_B2 is None else self.turn(state.places_B2)
        x_BD = self.enter(self.embed_tokens(tokens_B), place)
        x_BD = self.advance(x_BD, state.layers, state.position, turn)
        state.advance()
        return self.head(self.norm(x_BD))

    def turn(self, places_B2: Tensor) -> Tensor | None:
        """What rotary positions turn by, where it is not how many tokens were taken in."""
        return None


class Decoder(SingleStack):
    """Causal layers; a token sees itself and what is before it."""

    words: ClassVar[str] = "a decoder"
