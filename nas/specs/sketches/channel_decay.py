"""What `nas.mixers.channel_decay`, a decay for each key feature, does to memory.

In: shadows of queries, keys, values and log decays. Out: those of the outputs and of the last state.

Names and shapes as there.
"""

from __future__ import annotations

from functools import lru_cache

from nas.specs.sketches.chunks import Sizes, Span, product, product_into
from nas.specs.tape import Shadow, Tape

CHUNK = 32


def channel_decayed_attention(
    tape: Tape, q: Shadow, k: Shadow, v: Shadow, g: Shadow, sizes: Sizes
) -> tuple[Shadow, Shadow]:
    """Outputs, and the state after the last token."""
    work = sizes.work
    states = tape.new((-(-sizes.length // CHUNK) + 1) * sizes.state, work)
    y = tape.new(sizes.tokens * sizes.value_dim)
    for span in _spans(sizes):
        part = _Part(tape, sizes, span)
        part.product_into("kv")
        weights = part.product(part.pairs, "kk")
        read = part.product(part.values, "v")
        del weights
        started = tape.new(part.keys, work)
        part.product(part.values, "k")
        del started
    final = tape.new(sizes.state, work)
    if tape.records:
        tape.record(y, [q, k, v, g], saves=[q, k, v, g, states], back=_back(sizes))
    del part, read
    return y, final


def _spans(sizes: Sizes, *, backwards: bool = False) -> list[Span]:
    return sizes.spans(CHUNK, sizes.batch * sizes.heads * CHUNK * max(CHUNK, sizes.value_dim), backwards=backwards)


class _Part:
    """What one segment computes with.

    Products copy what lies in the order of the sequence: of queries and keys with their factors (k), and of values or
    gradients of outputs that are not cast (v).
    """

    def __init__(self, tape: Tape, sizes: Sizes, span: Span) -> None:
        self.tape, self.work, self.size = tape, sizes.work, span.size
        self.keys, self.values = span.rows * sizes.key_dim, span.rows * sizes.value_dim
        self.pairs = span.rows * span.size
        self.states = (span.chunks + 1) * sizes.state
        self.firsts = span.chunks * sizes.batch * sizes.heads * sizes.key_dim
        is_view = span.scattered
        self.copied = {"k": self.keys * is_view, "v": self.values * (is_view and not sizes.casts)}
        start = tape.new(self.firsts, self.work)
        # The matrix that cumulates: ones, their triangle, which rows are before the middle, and the difference.
        square = span.size * span.size
        tape.scratch((3 * square + span.size) * self.work)
        matrix = tape.new(square, self.work)
        read = self.product(self.keys, "k")
        del matrix
        written, k, q, kept = (tape.new(self.keys, self.work) for _ in range(4))
        v = tape.new(self.values, self.work) if sizes.casts else None
        self.held = (start, read, written, k, q, kept, v, tape.new(self.firsts, self.work))

    def product(self, elements: int, copied: str = "") -> Shadow:
        """A product that copies some of its operands."""
        return product(self.tape, elements, self.work, [self.copied[one] for one in copied])

    def product_into(self, copied: str) -> None:
        """The same with an output that is there already."""
        product_into(self.tape, self.work, [self.copied[one] for one in copied])


@lru_cache(maxsize=4096)
def _back(sizes: Sizes) -> int:
    """Bytes that the way back needs beside the gradients that it gives."""
    tape = Tape(sizes.given, records=False)
    # The last state gets a gradient of zeros, which its giver holds too.
    zeros = carry = tape.new(sizes.state, sizes.work)
    into = [tape.new(sizes.tokens * count) for count in (sizes.key_dim, sizes.key_dim, sizes.value_dim)]
    into.append(tape.new(sizes.tokens * sizes.key_dim, sizes.work))
    for span in _spans(sizes, backwards=True):
        part = _Part(tape, sizes, span)
        grads, carry = _backward_segment(part, sizes)
    del part, zeros, grads, carry
    return tape.peak - sum(one.bytes for one in into)


def _backward_segment(part: _Part, sizes: Sizes) -> tuple[list[Shadow], Shadow]:
    """Gradients of a segment, and of the states."""
    tape, work = part.tape, part.work
    dy = tape.new(part.values, work) if sizes.casts else None
    dstates = tape.new(part.states, work)
    started = tape.new(part.keys, work)
    part.product_into("kv")
    del started
    dweights = part.product(part.pairs, "vv")
    dq = part.product(part.keys, "k")
    part.product(part.keys, "v")
    dk = part.product(part.keys, "k")
    part.product(part.keys, "v")
    weights = part.product(part.pairs, "kk")
    dv = part.product(part.values, "v")
    del weights
    part.product(part.values, "k")
    db = tape.new(part.keys, work)
    square = part.size * part.size
    tape.scratch(2 * square * work)
    later = tape.new(square, work)
    dg = part.product(part.keys, "k")
    tape.scratch((part.states - sizes.state + part.firsts) * work)
    del dy, dweights, db, later
    return [dq, dk, dv, dg], dstates
