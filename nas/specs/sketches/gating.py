"""What `nas.mixers.gating`, root-mean-square norm and swish gate in one, does to memory.

In: shadows of what heads read and of the gates. Out: that of the gated norm.
"""

from __future__ import annotations

from nas.specs.tape import Shadow, Tape


def gated_norm(tape: Tape, x: Shadow, gate: Shadow | None, size: int, heads: int, *, weights: int) -> Shadow:
    """`GatedRMSNorm.forward` that norms first.

    Args:
        tape: that follows it.
        x: what heads read.
        gate: of the same shape; None: no gate.
        size: features that are normed together.
        heads: how often there are so many.
        weights: how many are learned.
    """
    if gate is None:
        return _norm(tape, x, size, weights)
    rows, work = x.elements // size, max(tape.size, 4)
    casts = work != tape.size
    swish = tape.new(x.elements)
    cast = [tape.new(x.elements, work) for _ in range(2)] if casts else []
    if casts:
        del swish
    inverse = tape.new(rows, work)
    y = tape.new(x.elements, work)
    out = tape.new(x.elements) if casts else y
    # Swish, the norm's output, what comes from behind the gate, and a number for each row, beside both gradients.
    back = 3 * x.bytes + rows * work
    if weights:
        # What comes from behind the weights too, and their gradient by head.
        back += x.bytes + (size * heads * work if heads > 1 else 0)
    tape.record(out, [x, gate], saves=[x, gate, inverse], back=back, weights=tape.weights(weights) if weights else ())
    del cast
    return out


def _norm(tape: Tape, x: Shadow, size: int, weights: int) -> Shadow:
    """`torch.nn.functional.rms_norm`, which PyTorch puts together from pointwise operations, and weights behind it."""
    squares = tape.op([x], x.elements, saves=[x], back=2 * x.bytes)
    # The gradient of a mean is written out in full.
    mean = tape.op([squares], x.elements // size)
    del squares
    inverse = tape.pointwise(mean, of_output=True)
    del mean
    normal = tape.op([x, inverse], x.elements, saves=[x, inverse], back=x.bytes)
    del inverse
    if not weights:
        return normal
    return tape.op([normal], x.elements, saves=[normal], weights=tape.weights(weights), back=x.bytes)
