"""What mixers that keep a matrix per head do to memory around their recurrence (`nas.mixers.linear`, `matrix`).

In: shadows of what such a mixer sees. Out: those of queries, keys, values and decays, and of what is made of reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nas.specs.base import Surroundings
from nas.specs.mixers.convolution import short_convolution
from nas.specs.sketches.attention_pieces import rotation
from nas.specs.sketches.chunks import Sizes
from nas.specs.sketches.gating import gated_norm
from nas.specs.tape import INDEX, Extent, Shadow, Tape

Scan = Callable[[list[Shadow], Sizes], Shadow]


def projected(tape: Tape, x: Shadow, sizes: Sizes, width: int) -> tuple[Shadow, Shadow, Shadow]:
    """Queries, keys and values."""
    q, k, v = (tape.linear(x, width, features) for features in (sizes.keys, sizes.keys, sizes.values))
    return q, k, v


def turned(tape: Tape, x: Shadow, sizes: Sizes, around: Surroundings, extent: Extent) -> tuple[Shadow, Shadow, Shadow]:
    """Queries, keys and values of a retention: turned where positions are rotary, queries scaled."""
    q, k = (tape.linear(x, around.width, sizes.keys) for _ in range(2))
    if around.positions == "rope":
        both = [rotation(tape, part, sizes.key_dim, around, extent) for part in (q, k)]
        q, k = both
        del both
    scaled = tape.op([q], q.elements)
    return scaled, k, tape.linear(x, around.width, sizes.values)


def convolved(
    tape: Tape, x: Shadow, sizes: Sizes, width: int, kernel: int, extent: Extent
) -> tuple[Shadow, Shadow, Shadow]:
    """Queries, keys and values of a gated linear attention: through a convolution and a swish, queries scaled."""
    parts = [*projected(tape, x, sizes, width)]
    if kernel:
        for i, features in enumerate((sizes.keys, sizes.keys, sizes.values)):
            mixed = short_convolution(tape, parts[i], features, kernel, extent)
            parts[i] = tape.pointwise(mixed)
    q, k, v = parts
    return tape.op([q], q.elements), k, v


def log_decay_of(tape: Tape, logits: Shadow) -> Shadow:
    """Of a gated linear attention's logits, in float32 or better."""
    work = max(tape.size, 4)
    cast = tape.new(logits.elements, work) if work != tape.size else None
    # Log-sigmoid fills a buffer as large as its output; on the way back the negated logits are there for a while.
    out = tape.new(logits.elements, work)
    tape.scratch(out.bytes)
    tape.record(out, [logits], saves=[logits], back=out.bytes)
    del cast
    return out


def with_later_tokens(tape: Tape, y: Shadow, parts: list[Shadow], scan: Scan, sizes: Sizes, extent: Extent) -> Shadow:
    """`nas.mixers.matrix.add_later_tokens`: a second scan that goes backwards over a prefix.

    Args:
        tape: that follows it.
        y: what every token reads of itself and those before it.
        parts: values, and what else depends on the token.
        scan: the second one.
        sizes: of the first.
        extent: with the prefix.
    """
    if extent.has_own_prefixes:
        outside = within(tape, extent)
        inside = [_masked(tape, parts[0], outside), *parts[1:]]
        backwards = scan([_flipped(tape, part) for part in inside], sizes)
        later = _flipped(tape, backwards)
        del backwards
        y = tape.add(y, _masked(tape, later, outside))
        del inside
        return y
    if extent.prefix <= 1:
        return y
    flipped = [_flipped(tape, tape.view(part, share(part, extent))) for part in parts]
    backwards = scan(flipped, replace(sizes, length=extent.prefix))
    del flipped
    later = _flipped(tape, backwards)
    del backwards
    if extent.prefix == extent.length:
        return tape.add(y, later)
    return joined(tape, tape.add(tape.view(y, later.elements), later), y, extent)


def within(tape: Tape, extent: Extent) -> Shadow:
    """Which tokens are in their sequence's prefix, or which are not."""
    tape.scratch(INDEX * extent.length + extent.tokens)
    return tape.new(extent.tokens, 1)


def chosen(tape: Tape, x: Shadow, y: Shadow, mask: Shadow) -> Shadow:
    """`torch.where`."""
    return tape.op([x, y], x.elements, saves=[mask])


def _flipped(tape: Tape, x: Shadow) -> Shadow:
    return tape.op([x], x.elements, size=x.size)


def _masked(tape: Tape, x: Shadow, mask: Shadow) -> Shadow:
    return tape.op([x], x.elements, saves=[mask])


def share(part: Shadow, extent: Extent) -> int:
    """Elements of a prefix."""
    return part.elements // extent.length * extent.prefix


def joined(tape: Tape, inside: Shadow, y: Shadow, extent: Extent) -> Shadow:
    """A prefix, and what all tokens read behind it."""
    if extent.prefix == extent.length:
        # What is left of `y` is empty, and gets no gradient.
        return tape.cat([inside])
    return tape.cat([inside, tape.view(y, y.elements - inside.elements)])


def finished(tape: Tape, x: Shadow, y: Shadow, sizes: Sizes, width: int, *, has_gate: bool, weights: int) -> Shadow:
    """What heads read, normed, gated and projected."""
    gate = tape.linear(x, width, sizes.values) if has_gate else None
    normed = gated_norm(tape, y, gate, sizes.value_dim, sizes.heads, weights=weights)
    return tape.linear(normed, sizes.values, width)
