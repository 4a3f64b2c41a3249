"""What `nas.mixers.decay`, with a fixed decay for each head, does to memory.

In: shadows of queries, keys and values. Out: those of the outputs and of the last state.

Names and shapes as there, with one head to a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from nas.specs.sketches.chunks import Sizes, Span, product, product_into
from nas.specs.tape import Shadow, Tape

CHUNK = 64


def decayed_attention(
    tape: Tape, q: Shadow, k: Shadow, v: Shadow, log_decay: Shadow, sizes: Sizes
) -> tuple[Shadow, Shadow]:
    """Outputs, and the state after the last token."""
    work = sizes.work
    states = tape.new((-(-sizes.length // CHUNK) + 1) * sizes.state, work)
    y = tape.new(sizes.tokens * sizes.value_dim)
    for part in _parts(tape, sizes):
        _forward_segment(tape, sizes, part)
    final = tape.new(sizes.state, work)
    if tape.records:
        tape.record(y, [q, k, v], saves=[q, k, v, log_decay, states], back=_back(sizes))
    del part
    return y, final


@dataclass(frozen=True)
class _Part:
    """A segment and its decays: those of pairs, and three small tables."""

    span: Span
    decays: tuple[Shadow, ...]


def _parts(tape: Tape, sizes: Sizes, *, backwards: bool = False) -> Iterator[_Part]:
    """A generator as there, which keeps the decays of each size of chunk."""
    fixed: dict[int, tuple[Shadow, ...]] = {}
    scores = sizes.batch * sizes.heads * CHUNK * CHUNK
    for span in sizes.spans(CHUNK, scores, backwards=backwards):
        if span.size not in fixed:
            fixed[span.size] = _decays(tape, sizes.heads, span.size, sizes.work)
        yield _Part(span, fixed[span.size])


def _decays(tape: Tape, heads: int, size: int, work: int) -> tuple[Shadow, ...]:
    """Made in float64 and cast where less is computed with."""
    cumulated, unseen = tape.new(heads * size, 8), tape.new(size * size, 8)
    exact = tape.new(heads * size * size, 8)
    found = tuple(tape.new(count, work) for count in (heads * size * size, heads * size, heads * size, heads))
    del cumulated, unseen, exact
    return found


class _Steps:
    """Sizes of a segment's tensors and what products of its views copy."""

    def __init__(self, tape: Tape, sizes: Sizes, part: _Part) -> None:
        span, self.tape, self.work = part.span, tape, sizes.work
        self.keys, self.values = span.rows * sizes.key_dim, span.rows * sizes.value_dim
        self.pairs = span.rows * span.size
        self.states = (span.chunks + 1) * sizes.state
        self.casts, self.dense = sizes.casts, span.dense
        self.copied = [self.keys] if span.scattered and not sizes.casts else []

    def cast(self) -> list[Shadow]:
        """Queries and keys."""
        return [self.tape.new(self.keys, self.work) for _ in range(2)] if self.casts else []

    def written(self) -> tuple[Shadow | None, Shadow]:
        """Values in one piece, and decayed; None: as they are."""
        cast = self.tape.new(self.values, self.work) if self.casts else None
        near = cast if self.dense else self.tape.new(self.values, self.work)
        del cast
        cast = self.tape.new(self.values, self.work) if self.casts else None
        decayed = self.tape.new(self.values, self.work)
        del cast
        return near, self.joined(decayed)

    def joined(self, x: Shadow) -> Shadow:
        """In one piece."""
        return x if self.dense else self.tape.new(self.values, self.work)

    def product(self, elements: int, copied: int = 0) -> Shadow:
        """A product that copies so many views of keys or queries."""
        return product(self.tape, elements, self.work, copied * self.copied)

    def weights(self) -> Shadow:
        """Scores times the decay of each pair."""
        scores = self.product(self.pairs, copied=2)
        weights = self.tape.new(self.pairs, self.work)
        del scores
        return weights


def _forward_segment(tape: Tape, sizes: Sizes, part: _Part) -> None:
    steps = _Steps(tape, sizes, part)
    cast, near, kept = steps.cast(), *steps.written()
    product_into(tape, steps.work, steps.copied)
    from_state = steps.product(steps.values, copied=1)
    weights = steps.weights()
    from_chunk = steps.product(steps.values)
    del cast, near, kept, from_state, weights, from_chunk


@lru_cache(maxsize=4096)
def _back(sizes: Sizes) -> int:
    """Bytes that the way back needs beside the gradients that it gives."""
    tape = Tape(sizes.given, records=False)
    # The last state gets a gradient of zeros, which its giver holds too.
    zeros = carry = tape.new(sizes.state, sizes.work)
    into = [tape.new(sizes.tokens * count) for count in (sizes.key_dim, sizes.key_dim, sizes.value_dim)]
    for part in _parts(tape, sizes, backwards=True):
        carry = _backward_segment(tape, sizes, part)
    del part, zeros, carry
    return tape.peak - sum(one.bytes for one in into)


def _backward_segment(tape: Tape, sizes: Sizes, part: _Part) -> Shadow:
    steps = _Steps(tape, sizes, part)
    cast, near, kept = steps.cast(), *steps.written()
    dy = tape.new(steps.values, steps.work) if steps.casts else None
    near_dy = None if steps.dense else tape.new(steps.values, steps.work)
    read_dy = steps.joined(tape.new(steps.values, steps.work))
    dstates = tape.new(steps.states, steps.work)
    product_into(tape, steps.work, steps.copied)
    dweights = steps.product(steps.pairs)
    for _ in range(2):
        from_chunk = steps.product(steps.keys, copied=1)
        steps.product(steps.keys)
        del from_chunk
    weights = steps.weights()
    dv = steps.product(steps.values)
    del weights
    steps.product(steps.values, copied=1)
    del cast, near, kept, dy, near_dy, read_dy, dweights, dv
    return dstates
