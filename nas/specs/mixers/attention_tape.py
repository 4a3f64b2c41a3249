"""What softmax attention does to memory: `nas.mixers.attention`, followed on a tape.

In: queries, keys and values without numbers, and what joins their scores. Out: the mixed values, likewise, in
consecutive parts along time. Each function follows the one of its name there, variable by variable, as the processor's
fused kernel runs it. The sizes of blocks stand here, so that both take the same.

Followed: attention to all earlier tokens or to all, by one piece of keys or several that are joined by their
denominators (Dao et al. 2022; Liu et al. 2023), and under a window in blocks (Beltagy et al. 2020; Xiao et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from nas.specs.base import Surroundings
from nas.specs.tape import INDEX, Extent, Node, Shadow, Tape, Weight


ALIBI_BLOCK: Final = 1024
"""Queries of a block where scores fall with the distance: more make fewer calls, but a mask grows with the square."""


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
        logits: a learned one for each head, in the denominator.
        sinks: leading tokens that a window sees besides its own.
    """

    alibi: int = 0
    logits: Weight | None = None
    sinks: int = 0

    def block(self, queries: int) -> int:
        """Queries to take at once."""
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
    """

    k: Heads
    v: Heads
    mask: Shadow | None = None
    mask_heads: int = 1
    causal: bool = False
    shift: Shadow | None = None

    def is_simple(self, heads: int) -> bool:
        """Whether PyTorch's own attention does all of it."""
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
    exact, pairs = _exact(tape), features // 2
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
    statistics = rows * _exact(tape)
    # Where nothing is kept the kernel makes them all the same.
    return tape.op([q, k, v], q.elements, saves=saves, keeps=True, more=statistics, scratch=statistics)


def attend(tape: Tape, q: Heads, pieces: Sequence[Piece], terms: Terms) -> Heads:
    """Attention to all keys of all pieces together."""
    first = pieces[0]
    if len(pieces) == 1 and terms.logits is None and first.is_simple(q.heads):
        return replace(q, x=fused_attention(tape, q.x, first.k.x, first.v.x, q.rows, first.mask))
    return replace(q, x=_joined(tape, q, pieces, terms))


def _joined(tape: Tape, q: Heads, pieces: Sequence[Piece], terms: Terms) -> Shadow:
    """`_Attention`: pieces joined by their denominators."""
    _join_forward(tape, q, pieces, terms)
    inputs, saves = [q.x], [q.x]
    for piece in pieces:
        inputs += [piece.k.x, piece.v.x]
        saves += [part for part in (piece.k.x, piece.v.x, piece.mask, piece.shift) if part is not None]
    gradients = sum(one.bytes for one in inputs if one.node is not None)
    return tape.op(
        inputs,
        q.x.elements,
        saves=saves,
        keeps=True,
        more=q.rows * _exact(tape),
        back=max(_join_backward(tape, q, pieces, terms) - gradients, 0) if tape.records else 0,
        weights=() if terms.logits is None or not tape.records else (terms.logits,),
    )


def _join_forward(tape: Tape, q: Heads, pieces: Sequence[Piece], terms: Terms) -> None:
    """What is made and let go besides the output."""
    exact = _exact(tape)
    outputs, sums = [], []
    for piece in pieces:
        outputs.append(tape.new(q.x.elements))
        sums.append(tape.new(q.rows, exact))
        tape.scratch(piece.tiled_bytes(q.heads))
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
    rows, exact = q.rows, _exact(tape)
    whole: Shadow | None = None
    others = []
    own = None
    for piece in pieces:
        own = None if piece.shift is None else tape.new(rows, exact)
        part = tape.new(q.x.elements)
        others += [tape.new(piece.k.x.elements), tape.new(piece.v.x.elements)]
        tape.scratch(piece.tiled_bytes(q.heads))
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
    return tape.peak


def full_attention(tape: Tape, q: Heads, k: Heads, v: Heads, terms: Terms, *, prefix: int) -> list[Heads]:
    """Attention to all tokens that come before, and inside a prefix to all of it."""
    if prefix <= 1:
        return _causally(tape, q, k, v, terms, start=0)
    if prefix >= q.tokens:
        return _both_ways(tape, q, k, v, terms)
    inside = _both_ways(tape, *(part.part(tape, prefix) for part in (q, k, v)), terms)
    return inside + _causally(tape, q.part(tape, q.tokens - prefix), k, v, terms, start=prefix)


def _causally(tape: Tape, q: Heads, k: Heads, v: Heads, terms: Terms, *, start: int) -> list[Heads]:
    """Queries at positions start, start + 1, … over the keys up to their own."""
    parts = []
    block = terms.block(q.tokens)
    near = _near(tape, terms, min(block, q.tokens))
    for low in range(0, q.tokens, block):
        own_q = q.part(tape, min(block, q.tokens - low))
        pieces = [_piece(tape, k, v, own_q.tokens, own_q.tokens, terms, near=near, causal=True)]
        if start + low:
            pieces.append(_piece(tape, k, v, start + low, own_q.tokens, terms))
        parts.append(attend(tape, own_q, pieces, terms))
        del pieces
    return parts


def _both_ways(tape: Tape, q: Heads, k: Heads, v: Heads, terms: Terms) -> list[Heads]:
    """All queries over all keys."""
    parts = []
    length = q.tokens
    block = terms.block(length)
    near = _near(tape, terms, min(block, length))
    for low in range(0, length, block):
        queries = min(block, length - low)
        pieces = [_piece(tape, k, v, queries if terms.alibi else length, queries, terms, near=near)]
        if terms.alibi:
            others = [count for count in (low, length - low - queries) if count]
            pieces += [_piece(tape, k, v, count, queries, terms) for count in others]
        parts.append(attend(tape, q.part(tape, queries), pieces, terms))
        del pieces
    return parts


def _piece(
    tape: Tape,
    k: Heads,
    v: Heads,
    keys: int,
    queries: int,
    terms: Terms,
    *,
    near: Shadow | None = None,
    causal: bool = False,
) -> Piece:
    """So many keys for so many queries. `near`: ALiBi of a block to itself, where they are the same tokens."""
    own_k, own_v = k.part(tape, keys), v.part(tape, keys)
    if not terms.alibi:
        return Piece(own_k, own_v, causal=causal)
    if near is not None:
        mask = tape.view(near, terms.alibi * queries * keys)
        return Piece(own_k, own_v, mask, terms.alibi, causal)
    places = tape.new(queries + keys, INDEX)
    apart = tape.new(keys, INDEX)
    mask = _fall(tape, terms, keys)
    del apart
    less = tape.new(queries, INDEX)
    shift = tape.new(terms.alibi * queries, _exact(tape))
    del places, less
    return Piece(own_k, own_v, mask, terms.alibi, causal, shift)


def _near(tape: Tape, terms: Terms, tokens: int) -> Shadow | None:
    """ALiBi of so many consecutive tokens to each other: one mask for all blocks."""
    if not terms.alibi:
        return None
    places = tape.new(tokens, _exact(tape))
    apart = tape.new(tokens * tokens, _exact(tape))
    mask = _fall(tape, terms, tokens * tokens)
    del places, apart
    return mask


def _fall(tape: Tape, terms: Terms, distances: int) -> Shadow:
    """ALiBi at so many distances."""
    fall = tape.new(terms.alibi * distances, _exact(tape))
    tape.scratch(terms.alibi * distances)
    return fall


def windowed_attention(
    tape: Tape, q: Heads, k: Heads, v: Heads, window: int, terms: Terms, *, prefix: int
) -> list[Heads]:
    """Attention to oneself and the window − 1 tokens before, inside a prefix also those behind; heads lie in one axis."""
    length = q.tokens
    if prefix <= 1 or prefix >= length:
        return _windows(tape, q, k, v, window, terms, both_ways=prefix > 1)
    firsts = [part.part(tape, prefix) for part in (q, k, v)]
    inside = _windows(tape, *firsts, window, terms, both_ways=True)
    start = 0 if terms.sinks else max(0, prefix - window + 1)
    lasts = [part.part(tape, length - start) for part in (q, k, v)]
    marks = [len(tape.nodes)]
    later = _windows(tape, *lasts, window, terms, both_ways=False, marks=marks)
    skipped = prefix - start
    unread: list[Node] = []
    for place, part in enumerate(later):
        if skipped < part.tokens:
            inside.append(part.part(tape, part.tokens - skipped))
        else:
            # Nothing reads it: its part of the graph goes with it.
            unread += tape.nodes[marks[place] : marks[place + 1]]
        skipped = max(0, skipped - part.tokens)
    if unread:
        tape.nodes = [node for node in tape.nodes if node not in unread]
    return inside


def _windows(
    tape: Tape,
    q: Heads,
    k: Heads,
    v: Heads,
    window: int,
    terms: Terms,
    *,
    both_ways: bool,
    marks: list[int] | None = None,
) -> list[Heads]:
    """One direction or both for a whole sequence: a head, blocks under one band, and a tail.

    `marks` takes in how many nodes there are behind each part.
    """
    length, sinks = q.tokens, terms.sinks
    marks = [] if marks is None else marks
    ahead = window - 1 if both_ways else 0
    head = window + sinks - (1 if both_ways else 0)
    if length <= (window if both_ways else head):
        parts = full_attention(tape, q, k, v, terms, prefix=length if both_ways else 0)
        marks.append(len(tape.nodes))
        return [_selected(tape, part) for part in parts]
    if length < head + ahead:
        return [_band_attention(tape, q, k, v, 0, window, terms, both_ways=True)]
    block = window_block(window)
    blocks, rest = divmod(length - head - ahead, block)
    head_q, block_q, tail_q = q.split(tape, head, blocks * block, rest + ahead)
    parts = []
    if both_ways and head:
        parts.append(_band_attention(tape, head_q, k, v, 0, window, terms, both_ways=True))
    elif head:
        own_k, own_v = k.part(tape, head), v.part(tape, head)
        parts += [_selected(tape, part) for part in full_attention(tape, head_q, own_k, own_v, terms, prefix=0)]
    marks.append(len(tape.nodes))
    if blocks:
        parts.append(_blocks(tape, block_q, k, v, window, terms, blocks=blocks, both_ways=both_ways))
        marks.append(len(tape.nodes))
    if rest + ahead:
        low = length - rest - ahead
        parts.append(_band_attention(tape, tail_q, k, v, low, window, terms, both_ways=both_ways))
        marks.append(len(tape.nodes))
    return parts


def _blocks(
    tape: Tape, q: Heads, k: Heads, v: Heads, window: int, terms: Terms, *, blocks: int, both_ways: bool
) -> Heads:
    """Blocks of queries, each over the keys that its first and its last query see."""
    block = q.tokens // blocks
    ahead = window - 1 if both_ways else 0
    reach = block + window - 1 + ahead
    own = replace(q, batch=blocks, tokens=block)
    keys = blocks * block + window - 1 + ahead
    k_blocks, v_blocks = (_unfolded(tape, part.part(tape, keys), blocks, reach) for part in (k, v))
    mask = _band_mask(tape, block, reach, terms, both_ways=both_ways)
    pieces = [Piece(k_blocks, v_blocks, mask, terms.alibi or 1)]
    del mask
    if terms.sinks:
        queries = tape.new(blocks * block, INDEX)
        pieces.append(_sink_piece(tape, k, v, blocks, block, terms))
    y = attend(tape, own, pieces, terms)
    return replace(y, batch=1, tokens=blocks * block)


def _band_attention(
    tape: Tape, q: Heads, k: Heads, v: Heads, low: int, window: int, terms: Terms, *, both_ways: bool
) -> Heads:
    """Queries from `low` on over what they see, in one block."""
    high = low + q.tokens
    first = max(0, low - window + 1)
    last = min(high + window - 1, k.tokens) if both_ways else high
    own_k, own_v = (part.part(tape, last - first) for part in (k, v))
    mask = _band_mask(tape, q.tokens, last - first, terms, both_ways=both_ways)
    pieces = [Piece(own_k, own_v, mask, terms.alibi or 1)]
    del mask
    if terms.sinks and first:
        queries = tape.new(high - low, INDEX)
        pieces.append(_sink_piece(tape, k, v, 1, q.tokens, terms))
    return _selected(tape, attend(tape, q, pieces, terms))


def _band_mask(tape: Tape, queries: int, keys: int, terms: Terms, *, both_ways: bool) -> Shadow:
    """`_band_piece`: one mask for all blocks, and what making it takes."""
    pairs = queries * keys
    places = tape.new(queries + keys, INDEX)
    distances = tape.new(pairs, INDEX)
    apart = tape.new(pairs, INDEX)
    seen = tape.new(pairs, 1)
    del apart
    if not both_ways:
        tape.new(pairs, 1)
    mask = tape.new(pairs, _exact(tape))
    tape.scratch(pairs)
    if terms.alibi:
        apart = tape.new(pairs, INDEX)
        fall = _fall(tape, terms, pairs)
        del apart
        mask = tape.new(terms.alibi * pairs, _exact(tape))
        del fall
    del places, distances, seen
    return mask


def _sink_piece(tape: Tape, k: Heads, v: Heads, blocks: int, block: int, terms: Terms) -> Piece:
    """The sinks, for queries whose windows begin behind them."""
    own_k, own_v = (
        replace(part, x=tape.view(part.x, part.x.elements * blocks), batch=blocks)
        for part in (part.part(tape, terms.sinks) for part in (k, v))
    )
    pairs = blocks * block * terms.sinks
    distances = tape.new(pairs, INDEX)
    if not terms.alibi:
        return Piece(own_k, own_v)
    apart = tape.new(pairs, INDEX)
    mask = _fall(tape, terms, pairs)
    del distances, apart
    return Piece(own_k, own_v, mask, terms.alibi)


def _unfolded(tape: Tape, x: Heads, blocks: int, reach: int) -> Heads:
    """Overlapping runs of so many tokens; their gradients are added up in a new tensor."""
    elements = x.x.elements // x.tokens * blocks * reach
    return replace(x, x=tape.view(x.x, elements, fresh=True), batch=blocks, tokens=reach)


def _selected(tape: Tape, x: Heads) -> Heads:
    """The only sequence of a batch; the gradient is written into a new batch."""
    return replace(x, x=tape.view(x.x, fresh=True))


def window_block(window: int) -> int:
    """Queries that a window takes at once."""
    # Half a window wastes little on masked keys; under 32 or over 128 queries a kernel call is slow.
    return min(128, max(32, window // 64 * 32))


def _exact(tape: Tape) -> int:
    """Bytes of what is at least float32."""
    return max(tape.size, 4)
