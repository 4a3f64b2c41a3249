"""How a chunked operation goes through a sequence, for sketches of its memory.

In: a length and the sizes of heads. Out: the segments that differ, and what products of their tensors copy.

Segments are those of processors (`nas.mixers.chunks`); a GPU takes more chunks at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nas.specs.tape import Extent, Shadow, Tape

CPU_SCORES: Final = 2**18
"""Elements of a segment's largest temporary, as in `nas.mixers.chunks`."""


@dataclass(frozen=True)
class Span:
    """N chunks of C tokens.

    Attributes:
        chunks: N.
        size: C.
        rows: tokens of all sequences, counted for each head.
        scattered: whether the batch axes (N, B, H) of a view of the sequence cannot be seen as one, so that a product
            copies it first.
        dense: whether such a view lies in one piece already.
    """

    chunks: int
    size: int
    rows: int
    scattered: bool
    dense: bool


@dataclass(frozen=True)
class Sizes:
    """What a recurrence whose state is a matrix per head is given.

    Attributes:
        batch: sequences.
        length: tokens of each.
        heads: of each token.
        key_dim: features of a query or key.
        value_dim: features of a value.
        given: bytes of an element of what is given.
    """

    batch: int
    length: int
    heads: int
    key_dim: int
    value_dim: int
    given: int

    @classmethod
    def of(cls, tape: Tape, extent: Extent, heads: int, key_dim: int, value_dim: int) -> Sizes:
        """Of a layer's input."""
        return cls(extent.batch, extent.length, heads, key_dim, value_dim, tape.size)

    @property
    def work(self) -> int:
        """Bytes of an element that is computed with: float32 or better."""
        return max(self.given, 4)

    @property
    def casts(self) -> bool:
        """Whether what is given has to be copied to be computed with."""
        return self.given != self.work

    @property
    def keys(self) -> int:
        """Features of a token's queries or keys."""
        return self.heads * self.key_dim

    @property
    def values(self) -> int:
        """Features of a token's values."""
        return self.heads * self.value_dim

    @property
    def tokens(self) -> int:
        """Of all sequences, counted for each head."""
        return self.batch * self.length * self.heads

    @property
    def state(self) -> int:
        """Elements of the state of all sequences."""
        return self.batch * self.heads * self.key_dim * self.value_dim

    def spans(self, chunk: int, scores: int, *, backwards: bool = False) -> list[Span]:
        """The segments of a sequence, the same ones in a row twice at most.

        A third would find alive what the second found, so that no peak is missed.

        Args:
            chunk: tokens of a chunk.
            scores: elements that one chunk's largest temporary has.
            backwards: whether the last segment comes first.
        """
        room = max(1, CPU_SCORES // scores)
        whole, left = divmod(self.length, chunk)
        found = [self._span(room, chunk)] * min(whole // room, 2)
        if whole % room:
            found.append(self._span(whole % room, chunk))
        if left:
            found.append(self._span(1, left))
        return found[::-1] if backwards else found

    def _span(self, chunks: int, size: int) -> Span:
        axes = sum(count > 1 for count in (chunks, self.batch, self.heads))
        dense = self.heads == 1 and axes <= 1
        return Span(chunks, size, chunks * size * self.batch * self.heads, axes > 1, dense)


def product(tape: Tape, elements: int, size: int, copied: Sequence[int] = ()) -> Shadow:
    """A batched product, which first copies operands that are `scattered`.

    Args:
        tape: that follows it.
        elements: of the product.
        size: bytes of one.
        copied: elements of each operand that is copied.
    """
    tape.scratch((sum(copied) + elements) * size)
    return tape.new(elements, size)


def product_into(tape: Tape, size: int, copied: Sequence[int]) -> None:
    """The same with an output that is there already."""
    tape.scratch(sum(copied) * size)
