"""A stack: layers between an embedding and a norm, and how they tell positions apart.

In: embedded tokens. Out: features before the final norm, so that a model normalises only those
that it needs. A stack may add learned positions to the embedding, normalise it (Warner et al.
2024, ModernBERT), and have T5's biases (Raffel et al. 2020) that its layers share.

Shapes: B batch, L length, D width; places are (B, L) or (B,) of a step, with a last axis of 2
where a position is two numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nas.mixers.base import Layout
from nas.mixers.positions import RelativeBias
from nas.models.blocks import Block, BlockState, Source, make_norm
from nas.space.architecture import Architecture, relative_heads
from nas.space.layers import Layer
from nas.specs.base import Surroundings


class Stack(nn.Module):
    """Layers with all that they share, but for the token embedding.

    Attributes:
        embed_positions: one table of learned positions, or two: for the place in the text and for
            the place inside a blank.
        embedding_norm: on the embedding; the first mixer then has no norm of its own.
        relative: biases that the layers share.
        layers: the blocks.
        norm: the final one.
        checkpointing: whether training keeps each layer's input alone, and runs the layer again on the way back
            (Chen et al. 2016): less memory for a third more compute.
    """

    checkpointing: bool = False

    embed_positions: nn.ModuleList
    embedding_norm: nn.Module | None
    relative: RelativeBias | None
    layers: nn.ModuleList
    norm: nn.Module

    def __init__(self, architecture: Architecture, layers: Sequence[Layer], around: Surroundings) -> None:
        super().__init__()
        self.furnish(architecture, layers, around)

    def furnish(
        self, architecture: Architecture, layers: Sequence[Layer], around: Surroundings, *, tables: int = 1
    ) -> None:
        """Makes the parts; `tables` of learned positions where positions are learned."""
        has_tables = around.positions == "learned"
        self.embed_positions = nn.ModuleList(
            nn.Embedding(around.max_context, around.width) for _ in range(tables if has_tables else 0)
        )
        self.embedding_norm = make_norm(architecture.norm, around.width) if architecture.embedding_norm else None
        heads = relative_heads(layers, around.positions)
        self.relative = RelativeBias(heads, looks_ahead=around.looks_ahead) if heads else None
        self.layers = nn.ModuleList(
            Block(
                layer,
                around,
                rope=architecture.rope,
                norm=architecture.norm,
                relative=self.relative,
                has_mixer_norm=index > 0 or not architecture.embedding_norm,
            )
            for index, layer in enumerate(layers)
        )
        self.norm = make_norm(architecture.norm, around.width)

    @property
    def blocks(self) -> list[Block]:
        """The layers, as what they are."""
        return [block for block in self.layers if isinstance(block, Block)]

    def enter(self, x: Tensor, places: int | Tensor = 0) -> Tensor:
        """Embedded tokens as the first layer takes them.

        Args:
            x: (B, L, D), or (B, D) of a step.
            places: int64 (B, L, tables); of a step (B,) or (B, tables); or the place of the first
                token, each next one 1 further.
        """
        for number, table in enumerate(self.embed_positions):
            assert isinstance(table, nn.Embedding)
            x = x + _learned(table, x, places, number, len(self.embed_positions))
        return x if self.embedding_norm is None else self.embedding_norm(x)

    def run(
        self, x_BLD: Tensor, layout: Layout, *, source: Source | None = None, states: Sequence[BlockState] | None = None
    ) -> Tensor:
        """All layers over all positions, (B, L, D) to (B, L, D); fills the states where some are given."""
        if states is None:
            saves = not (self.checkpointing and torch.is_grad_enabled())
            for block in self.layers:
                x_BLD = block(x_BLD, layout, source) if saves else _again(block, x_BLD, layout, source)
            return x_BLD
        for block, state in zip(self.blocks, states, strict=True):
            x_BLD = block.prefill(x_BLD, state, layout, source)
        return x_BLD

    def advance(
        self, x_BD: Tensor, states: Sequence[BlockState], position: int | Tensor, turn: Tensor | None = None
    ) -> Tensor:
        """All layers over the next position, (B, D) to (B, D)."""
        for block, state in zip(self.blocks, states, strict=True):
            x_BD = block.step(x_BD, state, position, turn)
        return x_BD

    def new_states(
        self,
        batch: int,
        context: int,
        *,
        source_context: int = 0,
        cache_dtype: torch.dtype,
        recurrent_dtype: torch.dtype,
        device: torch.device,
    ) -> tuple[BlockState, ...]:
        """Empty states of all layers."""
        return tuple(
            block.new_state(
                batch,
                context,
                source_context=source_context,
                cache_dtype=cache_dtype,
                recurrent_dtype=recurrent_dtype,
                device=device,
            )
            for block in self.blocks
        )

    @torch.no_grad()
    def shrink_residual_projections(self) -> None:
        """Scales down what is added to the residual stream, by 1/√(its terms) (Radford et al. 2019)."""
        terms = sum(part is not None for block in self.blocks for part in (block.mixer, block.cross, block.mlp))
        for projection in [linear for block in self.blocks for linear in block.residual_projections()]:
            projection.weight.mul_(terms**-0.5)


def checkpoint_activations(model: nn.Module, checkpointing: bool) -> None:
    """Has all stacks of a model keep, or not keep, what their layers could compute again."""
    for module in model.modules():
        if isinstance(module, Stack):
            module.checkpointing = checkpointing


def _again(block: nn.Module, x_BLD: Tensor, layout: Layout, source: Source | None) -> Tensor:
    # No layer draws random numbers, so there is no state of theirs to put back.
    y_BLD: Tensor = checkpoint(block, x_BLD, layout, source, use_reentrant=False, preserve_rng_state=False)
    return y_BLD


def _learned(table: nn.Embedding, x: Tensor, places: int | Tensor, number: int, tables: int) -> Tensor:
    """What one table adds: (B, L, D), or (L, D), or (B, D) or (D,) of a step."""
    if isinstance(places, Tensor):
        learned: Tensor = table(places[..., number] if tables > 1 else places)
        return learned
    # Only the first number of a position goes on from token to token.
    if number > 0:
        return table.weight[0]
    return table.weight[places] if x.dim() == 2 else table.weight[places : places + x.shape[1]]
