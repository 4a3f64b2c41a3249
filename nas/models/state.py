"""What decoding keeps of a model: the states of its layers, and how far each sequence is.

Shapes: B batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nas.models.blocks import BlockState


@dataclass
class ModelState:
    """The state of a batch of sequences.

    Attributes:
        layers: one state for each layer that decodes.
        batch: sequences.
        context: tokens that fit.
        source_context: tokens of a source that fit; 0 where none is read.
        position: tokens taken in so far: one number for all sequences, or int64 (B,) where the
            prompts were of unequal length.
        longest: the largest of them.
        places_B2: int64 (B, 2), where the next token of a prefix language model stands; None for
            other families.
    """

    layers: tuple[BlockState, ...]
    batch: int
    context: int
    source_context: int = 0
    position: int | Tensor = 0
    longest: int = 0
    places_B2: Tensor | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor kept."""
        return tuple(tensor for layer in self.layers for tensor in layer.tensors())

    @property
    def bytes(self) -> int:
        """Size of the tensors as they are."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors())

    def select(self, rows_B: Tensor, *, sources: bool = True) -> None:
        """Goes on with other sequences of the batch: row b becomes what row rows_B[b] was.

        Args:
            rows_B: int64.
            sources: false where row rows_B[b] has the same source as row b, which then need not
                be copied.
        """
        for layer in self.layers:
            for part in layer.parts(sources=sources):
                part.select(rows_B)
        if isinstance(self.position, Tensor):
            self.position = self.position[rows_B]
        if self.places_B2 is not None:
            self.places_B2 = self.places_B2[rows_B]

    def take_over(self, other: ModelState, rows_B: Tensor) -> None:
        """Makes row b of this empty state what row rows_B[b] of `other` is, which has other sequences."""
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.take_over(theirs, rows_B)
        self.position = other.position[rows_B] if isinstance(other.position, Tensor) else other.position
        self.longest = other.longest
        self.places_B2 = None if other.places_B2 is None else other.places_B2[rows_B]

    def advance(self) -> None:
        """Counts one more token of each sequence."""
        self.position = self.position + 1
        self.longest += 1
        if self.places_B2 is not None:
            # A blank grows; its place in the text stays.
            self.places_B2 = self.places_B2 + self.places_B2.new_tensor([0, 1])
