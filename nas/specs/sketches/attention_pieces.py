"""What softmax attention of given queries to given keys does to memory, followed on a tape.

In: queries, and pieces of keys and values with what is added to their scores, all without numbers. Out: the mixed
values, likewise. Each function follows the one of its name in `nas.mixers.attention`, variable by variable, as a
processor runs it: by PyTorch's fused kernel, or, where biases are learned, by scores that are written out.

A piece alone is a call of the kernel; several, or a sink logit, are joined by their denominators (Dao et al. 2022; Liu
et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from nas.specs.base import Surroundings
from nas.specs.tape import Extent, Shadow, Tape, Weight

ALIBI_BLOCK: Final = 1024
"""Queries of a block where scores fall with the distance: more make fewer calls, but a mask grows with the square."""

LEARNED_BLOCK: Final = 256
"""The same where biases are learned, and the scores of a whole block are in memory at once."""


@dataclass(frozen=True, eq=False)
class Heads:
    """A tensor of heads, in whatever order its axes lie.

    Attributes:
        x: what it lies in.
        batch: sequences, or blocks of one.
        heads: of each; under a window those of all sequences.
        tokens: of each.
        features: of a head.
    """

    x: Shadow
    batch: int
    heads: int
    tokens: int
    features: int

    @property
    def rows(self) -> int:
        """Tokens, counted for each head."""
        return self.batch * self.heads * self.tokens

    def part(self, tape: Tape, tokens: int) -> Heads:
        """So many consecutive tokens; a slice of all is the tensor itself."""
        if tokens == self.tokens:
            return self
        return replace(self, x=tape.view(self.x, self.x.elements // self.tokens * tokens), tokens=tokens)

    def split(self, tape: Tape, *tokens: int) -> list[Heads]:
        """Consecutive parts of so many tokens, whose gradients are joined."""
        one = self.x.elements // self.tokens
        parts = tape.split(self.x, *(one * count for count in tokens))
        return [replace(self, x=part, tokens=count) for part, count in zip(parts, tokens, strict=True)]


@dataclass(frozen=True, eq=False)
class Terms:
    """What joins the scores.

    Attributes:
        alibi: query heads of a sequence whose scores fall with the distance; 0: none.
        table: learned biases by distance.
        table_heads: query heads of a sequence, which it has rows for.
        logits: a learned one for each head, in the denominator.
        sinks: leading tokens that a window sees besides its own.
    """

    alibi: int = 0
    table: Shadow | None = None
    table_heads: int = 0
    logits: Weight | None = None
    sinks: int = 0

    def block(self, queries: int) -> int:
        """Queries to take at once."""
        if self.table is not None:
            return LEARNED_BLOCK
        return ALIBI_BLOCK if self.alibi else queries


@dataclass(frozen=True, eq=False)
class Piece:
    """Some keys and values that a block of queries sees.

    Attributes:
        k: keys.
        v: values.
        mask: added to the scores.
        mask_heads: 1, or the query heads of a sequence, each with a mask of its own.
        causal: whether a query sees only keys up to its own place.
        shift: added to all scores of a query.
        table: learned biases by distance, of `bias_heads` rows.
        bias: learned ones of each pair, of so many heads.
        bias_heads: see above.
    """

    k: Heads
    v: Heads
    mask: Shadow | None = None
    mask_heads: int = 1
    causal: bool = False
    shift: Shadow | None = None
    table: Shadow | None = None
    bias: Shadow | None = None
    bias_heads: int = 0

    @property
    def is_learned(self) -> bool:
        """Whether it has biases that get a gradient, which the fused kernel has none for."""
        return self.table is not None or self.bias is not None

    def is_simple(self, heads: int) -> bool:
        """Whether PyTorch's own attention does all of it."""
        if self.is_learned:
            return False
        return self.mask is None or (not self.causal and self.mask_heads in (1, heads))

    def tiled_bytes(self, heads: int) -> int:
        """Of the mask once for each sequence, where these lie in the axis of the heads."""
        return 0 if self.mask is None or self.mask_heads in (1, heads) else self.mask.bytes * heads // self.mask_heads


def rotation(tape: Tape, x: Shadow, features: int, around: Surroundings, extent: Extent) -> Shadow:
    """`nas.mixers.positions.rotate`: an output, and tables that are made and let go each time.

    Args:
        tape: that follows it.
        x: heads of so many features.
        features: of a head.
        around: says how many numbers a position is.
        extent: tokens.
    """
    exact, pairs = exact_size(tape), features // 2
    angles = extent.length * pairs
    tables = 2 * angles * tape.size
    # Positions, frequencies, angles, cosines and sines, which half precision copies; then the tables and the output.
    making = exact * (extent.length * around.rope_dimensions + pairs // around.rope_dimensions + 3 * angles)
    making += 0 if tape.size == exact else tables
    tape.scratch(making)
    return tape.op([x], x.elements, scratch=tables, back=max(making - x.bytes, tables))


def fused_attention(tape: Tape, q: Shadow, k: Shadow, v: Shadow, rows: int, mask: Shadow | None = None) -> Shadow:
    """PyTorch's fused kernel, which keeps its inputs, its output and one float32 for each query and head.

    Args:
        tape: that follows it.
        q: queries.
        k: keys.
        v: values.
        rows: queries, counted for each head.
        mask: added to the scores.
    """
    saves = [q, k, v] if mask is None else [q, k, v, mask]
    statistics = rows * exact_size(tape)
    # Where nothing is kept the kernel makes them all the same.
    return tape.op([q, k, v], q.elements, saves=saves, keeps=True, more=statistics, scratch=statistics)


def attend(tape: Tape, q: Heads, pieces: Sequence[Piece], terms: Terms, *, times: int = 1, constants: int = 0) -> Heads:
    """Attention to all keys of all pieces together.

    Args:
        tape: that follows it.
        q: queries.
        pieces: that they see.
        terms: what joins the scores.
        times: so many blocks of queries in a row, of which this is the last: only what they keep adds up.
        constants: bytes of what the others keep besides their outputs and denominators.
    """
    first = pieces[0]
    if times == 1 and len(pieces) == 1 and terms.logits is None and first.is_simple(q.heads):
        return replace(q, x=fused_attention(tape, q.x, first.k.x, first.v.x, q.rows, first.mask))
    return replace(q, x=_joined(tape, q, pieces, terms, times, constants), tokens=q.tokens * times)


def _joined(tape: Tape, q: Heads, pieces: Sequence[Piece], terms: Terms, times: int, constants: int) -> Shadow:
    """`_Attention`: pieces joined by their denominators."""
    _join_forward(tape, q, pieces, terms)
    inputs, saves = [q.x], [q.x]
    for piece in pieces:
        given = (piece.k.x, piece.v.x, piece.bias, piece.table)
        inputs += [part for part in given if part is not None]
        saves += [part for part in (*given, piece.mask, piece.shift) if part is not None]
    gradients = sum(one.bytes for one in inputs if one.node is not None)
    return tape.op(
        inputs,
        q.x.elements * times,
        saves=saves,
        keeps=True,
        more=q.rows * times * exact_size(tape) + constants,
        back=max(_join_backward(tape, q, pieces, terms) - gradients, 0) if tape.records else 0,
        weights=() if terms.logits is None or not tape.records else (terms.logits,),
    )


def _join_forward(tape: Tape, q: Heads, pieces: Sequence[Piece], terms: Terms) -> None:
    """What is made and let go besides the output."""
    exact = exact_size(tape)
    outputs, sums = [], []
    for piece in pieces:
        y, total = _kernel_forward(tape, q, piece)
        outputs.append(y)
        sums.append(total)
        del y, total
        if piece.shift is not None:
            sums[-1] = tape.new(q.rows, exact)
    if len(pieces) == 1 and terms.logits is None:
        return
    stacked = tape.new(q.rows * (len(sums) + (terms.logits is not None)), exact)
    together = tape.new(q.rows, exact)
    del stacked
    weighted = []
    for _ in pieces:
        less = tape.new(q.rows, exact)
        weight = tape.new(q.rows, exact)
        del less
        # In half precision the weights make it exact.
        weighted.append(tape.new(q.x.elements, exact))
        del weight
    total = weighted[0]
    for _ in weighted[1:]:
        total = tape.new(q.x.elements, exact)
    if tape.size != exact:
        total = tape.new(q.x.elements)
    del total, together


def _join_backward(above: Tape, q: Heads, pieces: Sequence[Piece], terms: Terms) -> int:
    """Bytes at once on the way back, the gradients among them."""
    tape = Tape(above.size, records=False)
    rows, exact = q.rows, exact_size(tape)
    whole: Shadow | None = None
    others = []
    own: Shadow | None = None
    for piece in pieces:
        own = None if piece.shift is None else tape.new(rows, exact)
        part, *more = _kernel_backward(tape, q, piece)
        others += more
        whole = part if whole is None else tape.new(q.x.elements)
    if terms.logits is not None:
        less = tape.new(rows, exact)
        weight = tape.new(rows, exact)
        del less
        products = tape.new(q.x.elements)
        product = tape.new(rows, exact)
        del products
        tape.new(rows, exact)
        del weight, product
    del own
    return tape.peak


def _kernel_forward(tape: Tape, q: Heads, piece: Piece) -> tuple[Shadow, Shadow]:
    """The output of one piece and its denominators."""
    exact = exact_size(tape)
    if not piece.is_learned:
        y, total = tape.new(q.x.elements), tape.new(q.rows, exact)
        tape.scratch(piece.tiled_bytes(q.heads))
        return y, total
    scores = _scores(tape, q, piece)
    total = tape.new(q.rows, exact)
    weights = tape.new(scores.elements, exact)
    if tape.size != exact:
        weights = tape.new(scores.elements)
    values = _copied(tape, piece.v, q)
    y = tape.new(q.x.elements)
    del values
    if q.heads > 1 and q.tokens > 1:
        y = tape.new(q.x.elements)
    del scores, weights
    return y, total


def _kernel_backward(tape: Tape, q: Heads, piece: Piece) -> list[Shadow]:
    """Gradients of queries, and then of the others."""
    k, v, exact = piece.k, piece.v, exact_size(tape)
    if not piece.is_learned:
        tape.scratch(piece.tiled_bytes(q.heads) + q.x.bytes + k.x.bytes + v.x.bytes)
        return [tape.new(q.x.elements), tape.new(k.x.elements), tape.new(v.x.elements)]
    ratio, found = q.heads // k.heads, []
    scores = _scores(tape, q, piece)
    weights = tape.new(scores.elements, exact)
    pairs = scores.elements
    del scores
    copies = [_copied(tape, q, q)]
    each = tape.new(v.x.elements * ratio)
    copies.clear()
    found.append(tape.new(v.x.elements))
    del each
    products = tape.new(q.x.elements)
    product = tape.new(q.rows, exact)
    del products
    copies = [_copied(tape, q, q), _copied(tape, v, q)]
    of_scores = tape.new(pairs, exact)
    copies.clear()
    of_biases = pairs // q.heads * piece.bias_heads
    if piece.bias is not None:
        found.append(tape.new(of_biases, exact))
    if piece.table is not None:
        found.append(_grad_of_table(tape, q, k, piece, piece.table))
    scaled = tape.new(pairs, exact)
    copies = [_copied(tape, k, q)]
    of_queries = tape.new(q.x.elements)
    copies.clear()
    copies = [_copied(tape, q, q)]
    each = tape.new(k.x.elements * ratio)
    copies.clear()
    found.append(tape.new(k.x.elements))
    del each, scaled, of_scores, weights, product
    return [of_queries, *found]


def _grad_of_table(tape: Tape, q: Heads, k: Heads, piece: Piece, table: Shadow) -> Shadow:
    """The sum over sequences, and then over each diagonal."""
    exact, rows = exact_size(tape), piece.bias_heads * q.tokens
    folded = tape.new(q.batch * rows * k.tokens, exact)
    total = tape.new(rows * k.tokens, exact)
    del folded
    flipped = tape.new(total.elements, exact)
    longer = tape.new(rows * (k.tokens + q.tokens), exact)
    del flipped
    sums = tape.new(piece.bias_heads * (q.tokens + k.tokens - 1), exact)
    gradient = tape.new(table.elements, exact)
    del longer, sums, total
    return gradient


def _scores(tape: Tape, q: Heads, piece: Piece) -> Shadow:
    """The scores of all pairs."""
    exact, pairs = exact_size(tape), q.rows * piece.k.tokens
    copies = [_copied(tape, q, q), _copied(tape, piece.k, q)]
    product = tape.new(pairs)
    copies.clear()
    scores = product if tape.size == exact else tape.new(pairs, exact)
    of_one = q.tokens * piece.k.tokens
    diagonals = None if piece.table is None else tape.new(piece.bias_heads * of_one, exact)
    if piece.causal:
        tape.scratch(2 * of_one)
    del product, diagonals
    return scores


def _copied(tape: Tape, part: Heads, q: Heads) -> Shadow | None:
    """What a product of batches of matrices reads, where it is not a view: heads once for each query head."""
    ratio = q.heads // part.heads
    # Two axes that do not follow each other make no view of one.
    axes = (part.batch, part.heads, ratio)
    return tape.new(part.x.elements * ratio) if sum(count > 1 for count in axes) > 1 else None


def exact_size(tape: Tape) -> int:
    """Bytes of what is at least float32."""
    return max(tape.size, 4)
