"""A GPT-like decoder: causal layers between an embedding and a vocabulary head.

In: tokens. Out: logits over the next token, for all positions at once (`forward`), or for the
last one with a state that decoding continues from (`prefill`, `step`).

Shapes: B batch, L length, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.errors import SpaceError
from nas.models.blocks import NORM_EPSILON, Block, BlockState
from nas.space.architecture import Architecture


@dataclass
class ModelState:
    """What decoding keeps of a model.

    Attributes:
        layers: one state for each layer.
        batch: sequences.
        context: tokens that fit.
        position: tokens taken in so far.
    """

    layers: tuple[BlockState, ...]
    batch: int
    context: int
    position: int = 0

    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor kept."""
        return tuple(tensor for layer in self.layers for tensor in layer.tensors())

    @property
    def bytes(self) -> int:
        """Size of the tensors as they are."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors())


class Decoder(nn.Module):
    """Embedding, layers, final norm and head; `nas.models.build.build` makes it.

    Embedding and linear maps start normal with standard deviation 0.02·√(1024 / width), which is
    that of GPT-2 (Radford et al. 2019) at width 1,024: at width 64 a fixed 0.02 cost 0.3 to 0.8
    bits per byte after 600 thousand tokens, and recall was learnt twice as late. Maps into the
    residual stream are scaled by 1/√(2·depth). Whatever else a mixer has, it initialises itself.

    Args:
        architecture: of family "decoder" and bound to a task.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        assert architecture.vocabulary is not None, "only a bound architecture can be built"
        width, vocabulary = architecture.width, architecture.vocabulary
        self.max_context = architecture.max_context
        self.embed_tokens = nn.Embedding(vocabulary, width)
        blocks = [
            Block(layer, architecture.surroundings, rope_theta=architecture.rope_theta) for layer in architecture.layers
        ]
        self.layers = nn.ModuleList(blocks)
        self.norm = nn.RMSNorm(width, eps=NORM_EPSILON)
        self.lm_head = None if architecture.tied_embeddings else nn.Linear(width, vocabulary, bias=False)
        self._initialize()

    def features(self, tokens_BL: Tensor) -> Tensor:
        """The normalised features behind the logits, (B, L) to (B, L, D).

        Raises:
            SpaceError: L exceeds max_context.
        """
        self._check_length(tokens_BL.shape[1], self.max_context)
        x_BLD = self.embed_tokens(tokens_BL)
        for block in self.layers:
            x_BLD = block(x_BLD)
        return self.norm(x_BLD)  # type: ignore[no-any-return]

    def head(self, features: Tensor) -> Tensor:
        """Logits of features, (…, D) to (…, V); a loss on few positions needs only those."""
        weight_VD = self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        return functional.linear(features, weight_VD)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """Logits over the token after each position, (B, L) to (B, L, V).

        Raises:
            SpaceError: L exceeds max_context.
        """
        return self.head(self.features(tokens_BL))

    def new_state(
        self,
        batch: int,
        context: int | None = None,
        *,
        cache_dtype: torch.dtype = torch.bfloat16,
        recurrent_dtype: torch.dtype = torch.float32,
    ) -> ModelState:
        """An empty state on the model's device.

        Args:
            batch: sequences.
            context: tokens to make room for, prompt included; max_context by default.
            cache_dtype: of keys, values and convolution inputs.
            recurrent_dtype: of recurrent states.

        Raises:
            SpaceError: `context` exceeds max_context.
        """
        context = self.max_context if context is None else context
        self._check_length(context, self.max_context)
        layers = tuple(
            block.new_state(
                batch,
                context,
                cache_dtype=cache_dtype,
                recurrent_dtype=recurrent_dtype,
                device=self.embed_tokens.weight.device,
            )
            for block in self._blocks()
        )
        return ModelState(layers=layers, batch=batch, context=context)

    def prefill(self, tokens_BL: Tensor, state: ModelState) -> Tensor:
        """Takes in a prompt and gives the logits after its last token, (B, L) to (B, V).

        Raises:
            SpaceError: L exceeds the state's context, or the state is not empty.
        """
        if state.position:
            raise SpaceError(f"prefill needs an empty state; this one holds {state.position} tokens: use step")
        self._check_length(tokens_BL.shape[1], state.context, what="the state's context")
        x_BLD = self.embed_tokens(tokens_BL)
        for block, kept in zip(self._blocks(), state.layers, strict=True):
            x_BLD = block.prefill(x_BLD, kept)
        state.position = tokens_BL.shape[1]
        return self.head(self.norm(x_BLD[:, -1]))

    def step(self, tokens_B: Tensor, state: ModelState) -> Tensor:
        """Takes in one token of each sequence and gives the logits after it, (B,) to (B, V).

        Raises:
            SpaceError: the state is full.
        """
        self._check_length(state.position + 1, state.context, what="the state's context")
        x_BD = self.embed_tokens(tokens_B)
        for block, kept in zip(self._blocks(), state.layers, strict=True):
            x_BD = block.step(x_BD, kept)
        state.position += 1
        return self.head(self.norm(x_BD))

    def _blocks(self) -> list[Block]:
        return [block for block in self.layers if isinstance(block, Block)]

    def _check_length(self, length: int, limit: int, what: str = "max_context") -> None:
        if not 1 <= length <= limit:
            raise SpaceError(f"{length} tokens do not fit: {what} allows 1 to {limit}")

    def _initialize(self) -> None:
        std = 0.02 * (1024 / self.embed_tokens.embedding_dim) ** 0.5
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=std)
        with torch.no_grad():
            for projection in [linear for block in self._blocks() for linear in block.residual_projections()]:
                projection.weight.mul_((2 * len(self.layers)) ** -0.5)
