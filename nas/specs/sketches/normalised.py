"""What `nas.mixers.normalised`, linear attention whose weights sum to 1, does to memory.

In: shadows of queries, keys and values. Out: those of the outputs and of the last sums.

Names and shapes as there: U = V + 1 features of a value and its one, P features of the feature map.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from nas.specs.sketches.chunks import Sizes, Span, product, product_into
from nas.specs.tape import Shadow, Tape

CHUNK, TAYLOR_CHUNK = 64, 128


def normalised_attention(
    tape: Tape, q: Shadow, k: Shadow, v: Shadow, sizes: Sizes, *, taylor: bool
) -> tuple[Shadow, Shadow]:
    """The causal form: outputs, and the sums over all tokens."""
    kernel = _Kernel(tape, sizes, taylor)
    work = sizes.work
    states = tape.new((-(-sizes.length // kernel.chunk) + 1) * kernel.state, work)
    y = tape.new(sizes.tokens * sizes.value_dim)
    sums = tape.new(sizes.tokens, work)
    for part in kernel.parts():
        features = kernel.features(part)
        product_into(tape, work, kernel.copied(part))
        del features
        scores = kernel.scores(part)
        scores = kernel.weights(scores)
        read = product(tape, part.span.rows * kernel.values, work)
        del scores
        features = kernel.features(part)
        product(tape, part.span.rows * kernel.values, work, kernel.copied(part))
        del features
        kernel.divide(part)
    final = tape.new(kernel.state, work)
    if tape.records:
        tape.record(y, [q, k, v], saves=[q, k, v, y, sums, states], back=_causal_back(sizes, taylor=taylor))
    # They live until the function returns.
    del part, read
    return y, final


def normalised_attention_to_all(
    tape: Tape, q: Shadow, k: Shadow, v: Shadow, sizes: Sizes, *, taylor: bool, mask: Shadow | None = None
) -> Shadow:
    """The form in which every token sees all, or all that a mask leaves; masking takes next to nothing."""
    kernel = _Kernel(tape, sizes, taylor)
    work = sizes.work
    total = tape.new(kernel.state, work)
    y = tape.new(sizes.tokens * sizes.value_dim)
    sums = tape.new(sizes.tokens, work)
    for part in kernel.parts():
        features = kernel.features(part)
        each = product(tape, part.span.chunks * kernel.state, work, kernel.copied(part))
        del features
        tape.scratch(kernel.state * work)
        del each
    for part in kernel.parts():
        features = kernel.features(part)
        read = product(tape, part.span.rows * kernel.values, work, kernel.copied(part) + kernel.spread(part.span))
        del features
        kernel.divide(part)
        del read
    if tape.records:
        saves = [q, k, v, y, sums, total, *([] if mask is None else [mask])]
        tape.record(y, [q, k, v], saves=saves, back=_to_all_back(sizes, taylor=taylor))
    return y


@dataclass(frozen=True)
class _Part:
    """The inputs of a segment: copies of queries and keys where they are cast, and values with a one beside them."""

    span: Span
    q: Shadow | None
    k: Shadow | None
    v: Shadow


class _Kernel:
    """The steps that both forms and their ways back share."""

    def __init__(self, tape: Tape, sizes: Sizes, taylor: bool) -> None:
        self.tape = tape
        self.sizes = sizes
        self.taylor = taylor
        self.work = sizes.work
        self.chunk = TAYLOR_CHUNK if taylor else CHUNK
        key_dim = sizes.key_dim
        self.feature_count = 1 + key_dim + key_dim * (key_dim + 1) // 2 if taylor else key_dim
        self.values = sizes.value_dim + 1
        self.state = sizes.batch * sizes.heads * self.feature_count * self.values

    def parts(self, *, backwards: bool = False) -> Iterator[_Part]:
        """A generator as there, whose variables outlive a segment until the next one has made its own."""
        sizes = self.sizes
        widest = self.feature_count if self.taylor else sizes.value_dim
        scores = sizes.batch * sizes.heads * self.chunk * max(self.chunk, widest)
        for span in sizes.spans(self.chunk, scores, backwards=backwards):
            q, k = (self.tape.new(span.rows * sizes.key_dim, self.work) if sizes.casts else None for _ in range(2))
            v = self.tape.new(span.rows * self.values, self.work)
            yield _Part(span, q, k, v)

    def copied(self, part: _Part) -> list[int]:
        """What a product of features copies: queries or keys that are views; a Taylor series lies in one piece."""
        return [] if self.taylor else self.viewed(part)

    def viewed(self, part: _Part) -> list[int]:
        """What a product of queries or keys copies."""
        is_copied = part.span.scattered and not self.sizes.casts
        return [part.span.rows * self.sizes.key_dim] if is_copied else []

    def spread(self, span: Span) -> list[int]:
        """What a product of one state with all chunks copies: the state for each."""
        has_axes = span.chunks > 1 and self.sizes.batch * self.sizes.heads > 1
        return [span.chunks * self.state] if has_axes else []

    def features(self, part: _Part) -> Shadow | None:
        """Of queries or keys; None: themselves."""
        if not self.taylor:
            return None
        self.tape.scratch(part.span.rows * (self.sizes.key_dim + self.feature_count) * self.work)
        return self.tape.new(part.span.rows * self.feature_count, self.work)

    def features_backward(self, part: _Part, dfeatures: Shadow) -> Shadow:
        """The gradient of queries or keys from that of their features."""
        if not self.taylor:
            return dfeatures
        row, key_dim = part.span.rows * self.work, self.sizes.key_dim
        # What is scaled, the gradient, and the products with the first feature with their sum.
        self.tape.scratch(row * (3 * key_dim + 1))
        return self.tape.new(part.span.rows * key_dim, self.work)

    def scores(self, part: _Part) -> Shadow:
        """Of each pair of a chunk."""
        span, features = part.span, part.span.rows * self.sizes.key_dim
        scaled = self.tape.new(features, self.work) if self.taylor else None
        scores = product(self.tape, span.rows * span.size, self.work, 2 * self.viewed(part))
        del scaled
        return scores

    def weights(self, scores: Shadow) -> Shadow:
        """Made in the scores' place, but for a Taylor series."""
        return self.tape.new(scores.elements, self.work) if self.taylor else scores

    def divide(self, part: _Part) -> None:
        """Denominators and quotients of a segment."""
        self.tape.scratch(part.span.rows * (1 + self.sizes.value_dim) * self.work)

    def divide_backward(self, part: _Part) -> Shadow:
        """The gradient of what a segment read."""
        dread = self.tape.new(part.v.elements, self.work)
        self.tape.scratch(part.span.rows * (self.sizes.value_dim + 1) * self.work)
        return dread

    def inputs(self) -> list[Shadow]:
        """Gradients of queries, keys and values."""
        features = (self.sizes.key_dim, self.sizes.key_dim, self.sizes.value_dim)
        return [self.tape.new(self.sizes.tokens * count) for count in features]


@lru_cache(maxsize=4096)
def _causal_back(sizes: Sizes, *, taylor: bool) -> int:
    """Bytes that the causal form's way back needs beside the gradients that it gives."""
    tape = Tape(sizes.given, records=False)
    kernel = _Kernel(tape, sizes, taylor)
    # The last sums get a gradient of zeros, which their giver holds too.
    zeros = carry = tape.new(kernel.state, sizes.work)
    into = kernel.inputs()
    gradients = sum(one.bytes for one in into)
    for part in kernel.parts(backwards=True):
        dread = kernel.divide_backward(part)
        carry = _causal_segment_back(kernel, part)
    del part, zeros, carry, dread
    return tape.peak - gradients


def _causal_segment_back(kernel: _Kernel, part: _Part) -> Shadow:
    tape, span, work = kernel.tape, part.span, kernel.work
    keys, values, pairs = span.rows * kernel.sizes.key_dim, span.rows * kernel.values, span.rows * span.size
    dstates = tape.new((span.chunks + 1) * kernel.state, work)
    features = kernel.features(part)
    product_into(tape, work, kernel.copied(part))
    del features
    scores = kernel.scores(part)
    dscores = product(tape, pairs, work)
    if kernel.taylor:
        tape.scratch(scores.bytes)
    dq, dk = (kernel.features_backward(part, product(tape, span.rows * kernel.feature_count, work)) for _ in range(2))
    for grad in (dq, dk):
        more = product(tape, keys, work, kernel.viewed(part))
        tape.scratch(grad.bytes)
        del more
    weights = kernel.weights(scores)
    dv = product(tape, values, work)
    del weights
    features = kernel.features(part)
    product(tape, values, work, kernel.copied(part))
    del features, dscores, dv
    return dstates


@lru_cache(maxsize=4096)
def _to_all_back(sizes: Sizes, *, taylor: bool) -> int:
    """The same of the form in which every token sees all."""
    tape = Tape(sizes.given, records=False)
    kernel = _Kernel(tape, sizes, taylor)
    work = sizes.work
    into = kernel.inputs()
    gradients = sum(one.bytes for one in into)
    dsums = tape.new(kernel.state, work)
    for part in kernel.parts():
        span = part.span
        dread = kernel.divide_backward(part)
        features = kernel.features(part)
        each = product(tape, span.chunks * kernel.state, work, kernel.copied(part))
        del features
        tape.scratch(kernel.state * work)
        del each
        kernel.features_backward(part, product(tape, span.rows * kernel.feature_count, work, kernel.spread(span)))
    for part in kernel.parts():
        span = part.span
        dk = kernel.features_backward(part, product(tape, span.rows * kernel.feature_count, work, kernel.spread(span)))
        features = kernel.features(part)
        product(tape, span.rows * kernel.values, work, kernel.copied(part) + kernel.spread(span))
        del features
    del part, dsums, dread, dk
    return tape.peak - gradients
