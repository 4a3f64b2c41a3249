"""What every family is: features of a batch, a head on them, and for most a state to decode with.

In: a batch of tokens with whatever the family has to know besides (`nas.tasks.inputs.Inputs`; a
bare tensor stands for tokens alone). Out: features for the head, logits, or the logits after the
last token with a state that decoding continues from. Generation uses this face and no family's own.

Shapes: B batch, L length, S length of a source, D width, V outputs of the head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields
from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.errors import InputError, SpaceError
from nas.models.heads import Head
from nas.models.stack import Stack
from nas.models.state import ModelState
from nas.space.architecture import Architecture
from nas.specs.families import VOCABULARY_HEADS
from nas.tasks.inputs import Inputs


class Model(nn.Module, ABC):
    """A network of any family; `nas.models.build.build` makes it.

    Embedding and linear maps start normal with standard deviation 0.02·√(1024 / width), which is
    that of GPT-2 (Radford et al. 2019) at width 1,024: at width 64 a fixed 0.02 cost 0.3 to 0.8
    bits per byte after 600 thousand tokens, and recall was learnt twice as late. Maps into the
    residual stream are scaled by 1/√(terms added to it). Whatever else a mixer has, it initialises
    itself.

    Attributes:
        max_context: most tokens of a sequence, and of a source.
        generates: whether it continues a prompt, token by token.
        embed_tokens: the one embedding of the whole model.
        lm_head: the head, where it speaks about tokens.
        score: the head, where it speaks about labels.
    """

    words: ClassVar[str]
    """What to call the family in a message, with its article."""
    reads: ClassVar[frozenset[str]] = frozenset()
    """Fields of `Inputs` that the family reads besides tokens and their lengths."""

    max_context: int
    generates: bool
    embed_tokens: nn.Embedding
    lm_head: Head | None
    score: Head | None

    @abstractmethod
    def features(self, inputs: Inputs | Tensor) -> Tensor:
        """What the head reads: (B, L, D), or (B, D) where it speaks once for a sequence.

        Raises:
            SpaceError: more tokens than max_context.
            InputError: inputs of another family, or some that are missing.
        """

    def head(self, features: Tensor) -> Tensor:
        """Logits of features, (…, D) to (…, V); a loss on few positions needs only those."""
        head = self.lm_head if self.score is None else self.score
        assert head is not None
        return head(features, self.embed_tokens.weight)  # type: ignore[no-any-return]

    def forward(self, inputs: Inputs | Tensor) -> Tensor:
        """Logits of each position, (B, L, V), or of each sequence, (B, V); raises as `features` does."""
        return self.head(self.features(inputs))

    @abstractmethod
    def new_state(
        self,
        batch: int,
        context: int | None = None,
        *,
        source_context: int | None = None,
        cache_dtype: torch.dtype = torch.bfloat16,
        recurrent_dtype: torch.dtype = torch.float32,
    ) -> ModelState:
        """An empty state on the model's device.

        Args:
            batch: sequences.
            context: tokens to make room for, prompt included; max_context by default.
            source_context: tokens of a source to make room for; max_context by default. Plays no
                part where no source is read.
            cache_dtype: of keys, values and convolution inputs.
            recurrent_dtype: of recurrent states.

        Raises:
            SpaceError: a context exceeds max_context.
            InputError: the family does not generate.
        """

    @abstractmethod
    def prefill(self, inputs: Inputs | Tensor, state: ModelState) -> Tensor:
        """Takes in a prompt and gives the logits after its last token, (B, L) to (B, V).

        Prompts may be of unequal length (`Inputs.lengths_B`).

        Raises:
            SpaceError: L exceeds the state's context, or the state is not empty.
            InputError: inputs of another family, some that are missing, or lengths beyond 1 to L;
                or the family does not generate.
        """

    @abstractmethod
    def step(self, tokens_B: Tensor, state: ModelState) -> Tensor:
        """Takes in one token of each sequence and gives the logits after it, (B,) to (B, V).

        Raises:
            SpaceError: the state is full.
            InputError: the family does not generate.
        """

    @property
    def vocabulary(self) -> int:
        """Token kinds."""
        return self.embed_tokens.num_embeddings

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """That of the weights."""
        return self.embed_tokens.weight.dtype

    def checked(self, inputs: Inputs | Tensor) -> Inputs:
        """The inputs as `Inputs`, after checks that cost nothing.

        Raises:
            SpaceError: more tokens than max_context.
            InputError: inputs of another family, or some that are missing.
        """
        inputs = Inputs(inputs) if isinstance(inputs, Tensor) else inputs
        for field in fields(inputs):
            given = getattr(inputs, field.name) is not None
            if given and field.name not in {"tokens_BL", "lengths_B"} | self.reads:
                raise InputError(f"{self.words} reads no {field.name}: leave it out")
        check_length(inputs.tokens_BL.shape[1], self.max_context)
        return inputs

    def _add_embedding(self, architecture: Architecture) -> None:
        assert architecture.vocabulary is not None, "only a bound architecture can be built"
        self.max_context = architecture.max_context
        self.embed_tokens = nn.Embedding(architecture.vocabulary, architecture.width)

    def _add_head(self, architecture: Architecture, *, looks_ahead: bool = False) -> None:
        speaks_tokens = architecture.head in VOCABULARY_HEADS
        head = Head(architecture, looks_ahead=looks_ahead)
        self.lm_head = head if speaks_tokens else None
        self.score = None if speaks_tokens else head
        self.generates = speaks_tokens and architecture.head != "autoencoder"

    def _initialize(self) -> None:
        std = 0.02 * (1024 / self.embed_tokens.embedding_dim) ** 0.5
        stacks = [module for module in self.modules() if isinstance(module, Stack)]
        tables = {self.embed_tokens, *(table for stack in stacks for table in stack.embed_positions)}
        for module in self.modules():
            if isinstance(module, nn.Linear | Head) or module in tables:
                weight = module.weight
                if isinstance(weight, Tensor):
                    nn.init.normal_(weight, std=std)
        for stack in stacks:
            stack.shrink_residual_projections()

    def _begin(self, inputs: Inputs, state: ModelState) -> None:
        """Checks that a state can take in a prompt."""
        if state.longest:
            raise SpaceError(f"prefill needs an empty state; this one holds {state.longest} tokens: use step")
        length, lengths_B = inputs.tokens_BL.shape[1], inputs.lengths_B
        if lengths_B is not None and (int(lengths_B.min()) < 1 or int(lengths_B.max()) > length):
            raise InputError(f"lengths_B must be from 1 to {length}, not {lengths_B.tolist()}")
        check_length(length, state.context, what="the state's context")

    def _took(self, inputs: Inputs, state: ModelState) -> None:
        """Counts the tokens of a prompt."""
        if inputs.lengths_B is None:
            state.position = state.longest = inputs.tokens_BL.shape[1]
        else:
            state.position = inputs.lengths_B.clone()
            state.longest = int(inputs.lengths_B.max())


def check_length(length: int, limit: int, what: str = "max_context") -> None:
    """Raises SpaceError unless 1 to `limit` tokens are asked for."""
    if not 1 <= length <= limit:
        raise SpaceError(f"{length} tokens do not fit: {what} allows 1 to {limit}")
