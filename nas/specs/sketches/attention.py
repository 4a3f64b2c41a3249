"""What softmax attention does to memory, over all tokens and under a window, followed on a tape.

In: queries, keys and values without numbers, and what joins their scores. Out: the mixed values, likewise, in
consecutive parts along time. Each function follows the one of its name in `nas.mixers.attention`, variable by
variable. Sizes of blocks stand in these modules, so that both take the same.
"""

from __future__ import annotations

from dataclasses import replace

from nas.specs.sketches.attention_pieces import Heads, Piece, Terms, attend, exact_size
from nas.specs.tape import INDEX, Node, Shadow, Tape

_MOST_BLOCKS = 6
"""That are followed one by one."""


def full_attention(tape: Tape, q: Heads, k: Heads, v: Heads, terms: Terms, *, prefix: int) -> list[Heads]:
    """Attention to all tokens that come before, and inside a prefix to all of it."""
    if prefix <= 1:
        return _causally(tape, q, k, v, terms, start=0)
    if prefix >= q.tokens:
        return _both_ways(tape, q, k, v, terms)
    first_q, first_k, first_v = (part.part(tape, prefix) for part in (q, k, v))
    inside = _both_ways(tape, first_q, first_k, first_v, terms)
    return inside + _causally(tape, q.part(tape, q.tokens - prefix), k, v, terms, start=prefix)


def _causally(tape: Tape, q: Heads, k: Heads, v: Heads, terms: Terms, *, start: int) -> list[Heads]:
    """Queries at positions start, start + 1, … over the keys up to their own."""
    parts = []
    block = terms.block(q.tokens)
    near = _near(tape, terms, min(block, q.tokens))
    for low, queries, times in _followed(q.tokens, block):
        own_q = q.part(tape, queries)
        pieces = [_piece(tape, k, v, queries, queries, terms, near=near, causal=True)]
        if start + low:
            pieces.append(_piece(tape, k, v, start + low, queries, terms))
        # The others see fewer keys before them: half as many less on average as the first of them.
        others, fewer = times - 1, block * times // 2
        constants = others * (start + low - fewer + queries) * terms.alibi * exact_size(tape)
        parts.append(attend(tape, own_q, pieces, terms, times=times, constants=constants))
        del pieces
    return parts


def _followed(tokens: int, block: int) -> list[tuple[int, int, int]]:
    """Blocks to follow: where each begins, its queries, and how many blocks it stands for.

    What is alive at once is most at an end of the sequence: the blocks between are followed as one.
    """
    lows = list(range(0, tokens, block))
    if len(lows) <= _MOST_BLOCKS:
        return [(low, min(block, tokens - low), 1) for low in lows]
    ends = [(low, min(block, tokens - low), 1) for low in lows[-2:]]
    return [(0, block, 1), (lows[-3], block, len(lows) - 3), *ends]


def _both_ways(tape: Tape, q: Heads, k: Heads, v: Heads, terms: Terms) -> list[Heads]:
    """All queries over all keys."""
    parts = []
    length = q.tokens
    block = terms.block(length)
    near = _near(tape, terms, min(block, length))
    for low, queries, times in _followed(length, block):
        pieces = [_piece(tape, k, v, queries if terms.alibi else length, queries, terms, near=near)]
        if terms.alibi:
            others = [count for count in (low, length - low - queries) if count]
            pieces += [_piece(tape, k, v, count, queries, terms) for count in others]
        # Masks of all keys of other blocks, and what each query is shifted by on both sides.
        constants = (times - 1) * (length + queries) * terms.alibi * exact_size(tape)
        parts.append(attend(tape, q.part(tape, queries), pieces, terms, times=times, constants=constants))
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
        return Piece(own_k, own_v, causal=causal, table=terms.table, bias_heads=terms.table_heads)
    if near is not None:
        mask = tape.view(near, terms.alibi * queries * keys)
        return Piece(own_k, own_v, mask, terms.alibi, causal)
    places = tape.new(queries + keys, INDEX)
    apart = tape.new(keys, INDEX)
    mask = _fall(tape, terms, keys)
    del apart
    less = tape.new(queries, INDEX)
    shift = tape.new(terms.alibi * queries, exact_size(tape))
    del places, less
    return Piece(own_k, own_v, mask, terms.alibi, causal, shift)


def _near(tape: Tape, terms: Terms, tokens: int) -> Shadow | None:
    """ALiBi of so many consecutive tokens to each other: one mask for all blocks."""
    if not terms.alibi:
        return None
    places = tape.new(tokens, exact_size(tape))
    apart = tape.new(tokens * tokens, exact_size(tape))
    mask = _fall(tape, terms, tokens * tokens)
    del places, apart
    return mask


def _fall(tape: Tape, terms: Terms, distances: int) -> Shadow:
    """ALiBi at so many distances."""
    fall = tape.new(terms.alibi * distances, exact_size(tape))
    tape.scratch(terms.alibi * distances)
    return fall


def windowed_attention(
    tape: Tape, q: Heads, k: Heads, v: Heads, window: int, terms: Terms, *, prefix: int
) -> list[Heads]:
    """Attention to oneself and the window − 1 tokens before, inside a prefix also those behind."""
    length = q.tokens
    if prefix <= 1 or prefix >= length:
        return _windows(tape, q, k, v, window, terms, both_ways=prefix > 1)
    first_q, first_k, first_v = (part.part(tape, prefix) for part in (q, k, v))
    inside = _windows(tape, first_q, first_k, first_v, window, terms, both_ways=True)
    start = 0 if terms.sinks else max(0, prefix - window + 1)
    last_q, last_k, last_v = (part.part(tape, length - start) for part in (q, k, v))
    marks = [len(tape.nodes)]
    later = _windows(tape, last_q, last_k, last_v, window, terms, both_ways=False, marks=marks)
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
    pieces = [Piece(k_blocks, v_blocks, mask, terms.alibi or 1, table=terms.table, bias_heads=terms.table_heads)]
    del mask
    places = tape.new(q.tokens, INDEX) if terms.sinks else None
    if terms.sinks:
        pieces.append(_sink_piece(tape, k, v, blocks, block, terms))
    y = attend(tape, own, pieces, terms)
    del places
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
    pieces = [Piece(own_k, own_v, mask, terms.alibi or 1, table=terms.table, bias_heads=terms.table_heads)]
    del mask
    places = tape.new(q.tokens, INDEX) if terms.sinks and first else None
    if terms.sinks and first:
        pieces.append(_sink_piece(tape, k, v, 1, q.tokens, terms))
    y = attend(tape, q, pieces, terms)
    del places
    return _selected(tape, y)


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
    mask = tape.new(pairs, exact_size(tape))
    tape.scratch(pairs)
    if terms.alibi:
        apart = tape.new(pairs, INDEX)
        fall = _fall(tape, terms, pairs)
        del apart
        mask = tape.new(terms.alibi * pairs, exact_size(tape))
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
    if terms.table is not None:
        # Each place in the table is kept for the way back.
        bias = tape.op([terms.table], terms.table_heads * pairs, more=INDEX * pairs, size=exact_size(tape))
        return Piece(own_k, own_v, bias=bias, bias_heads=terms.table_heads)
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
