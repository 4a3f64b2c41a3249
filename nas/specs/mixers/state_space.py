"""Specification of Mamba-2, a state space model.

    mamba2    recurrent heads·P·N, cache (k − 1)·(e·d + 2·g·N)    (Dao & Gu 2024)

d width, e·d = heads·P inner features, P features of a head, N of the state, g groups of heads that
share keys and queries, k kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from nas.specs.base import BrokenRule, Key, MixerSpec, Options, Surroundings
from nas.specs.mixers.convolution import short_convolution
from nas.specs.sketches.state_space import CHUNK, Recurrence, backward_bytes, forward_bytes
from nas.specs.tape import Extent, Shadow, Tape


@dataclass(frozen=True)
class _Size:
    """The numbers that all formulas are made of."""

    inner: int
    heads: int
    state: int
    groups: int
    kernel: int

    @classmethod
    def of(cls, options: Options, around: Surroundings) -> _Size:
        inner = int(options["expand"]) * around.width
        return cls(
            inner=inner,
            heads=inner // int(options["head_dim"]),
            state=int(options["state_dim"]),
            groups=int(options["groups"]),
            kernel=int(options["conv"]),
        )

    @property
    def shared(self) -> int:
        """Features of all keys, or of all queries."""
        return self.groups * self.state

    @property
    def convolved(self) -> int:
        return self.inner + 2 * self.shared


class Mamba2(MixerSpec):
    """The Mamba-2 block."""

    implementation: ClassVar[str] = "nas.mixers.state_space:Mamba2"
    keys: ClassVar[Mapping[str, Key]] = {
        "expand": Key(type=int, minimum=1, default=2, doc="inner features, as a multiple of the width"),
        "head_dim": Key(type=int, minimum=1, default=32, doc="features of a head; they divide expand x width"),
        "state_dim": Key(type=int, minimum=1, default=32, doc="features of a head's state per feature of the head"),
        "groups": Key(type=int, minimum=1, default=1, doc="groups of heads that share keys and queries; divide heads"),
        "conv": Key(type=int, minimum=1, default=4, doc="kernel of the short convolution"),
    }

    def broken_rules(self, options: Options, around: Surroundings) -> Iterator[BrokenRule]:
        size, head_dim = _Size.of(options, around), int(options["head_dim"])
        if size.inner % head_dim:
            yield BrokenRule(
                "head_dim", f"head_dim must divide expand x width: {head_dim} does not divide {size.inner}"
            )
        elif size.heads % size.groups:
            yield BrokenRule("groups", f"groups must divide heads: {size.groups} does not divide {size.heads}")

    def parameters(self, options: Options, around: Surroundings) -> int:
        size = _Size.of(options, around)
        # The convolution with its bias; a rate, a skip and a time step per head; the norm.
        own = size.convolved * (size.kernel + 1) + 3 * size.heads + size.inner
        return self._projections(size, around) + own

    def cache_elements(self, options: Options, around: Surroundings, context: int) -> int:
        size = _Size.of(options, around)
        return (size.kernel - 1) * size.convolved

    def recurrent_elements(self, options: Options, around: Surroundings) -> int:
        size = _Size.of(options, around)
        return size.inner * size.state

    def forward_flops(self, options: Options, around: Surroundings, length: int) -> float:
        size, chunk = _Size.of(options, around), min(CHUNK, length)
        # Scores are shared by the heads of a group.
        scan = 2.0 * chunk * (size.shared + size.inner) + 4.0 * size.inner * size.state
        return self._flops_outside(size, around) + scan * (2 if around.looks_ahead else 1)

    def decode_flops(self, options: Options, around: Surroundings, context: int) -> float:
        size = _Size.of(options, around)
        return self._flops_outside(size, around) + 5.0 * size.inner * size.state

    def sketch(self, tape: Tape, x: Shadow, options: Options, around: Surroundings, extent: Extent) -> Shadow:
        size, width, tokens = _Size.of(options, around), around.width, extent.tokens
        projected = tape.linear(x, width, size.inner + size.convolved + size.heads)
        z, unmixed, logits = tape.split(projected, *(tokens * n for n in (size.inner, size.convolved, size.heads)))
        del projected
        mixed = tape.pointwise(short_convolution(tape, unmixed, size.convolved, size.kernel, extent, bias=True))
        v, k, q = tape.split(mixed, *(tokens * n for n in (size.inner, size.shared, size.shared)))
        del mixed
        dt, g = _times(tape, logits, size)
        y, memory = _scan(tape, (v, q, k, g, dt), size, extent, skips=True)
        y = _with_later_tokens(tape, y, (v, q, k, g, dt), size, extent)
        out = tape.linear(_gated_norm(tape, y, z, size), size.inner, width)
        del memory
        return out

    @staticmethod
    def _projections(size: _Size, around: Surroundings) -> int:
        return around.width * (2 * size.inner + size.convolved + size.heads)

    def _flops_outside(self, size: _Size, around: Surroundings) -> float:
        return 2.0 * (self._projections(size, around) + size.convolved * size.kernel + size.inner)


def _times(tape: Tape, logits: Shadow, size: _Size) -> tuple[Shadow, Shadow]:
    """`Mamba2._times`: time steps and log decays."""
    exact, heads = max(tape.size, 4), size.heads
    if logits.size < exact:
        logits = tape.op([logits], logits.elements, size=exact)
    shifted = tape.op([logits], logits.elements, passes=True, weights=tape.weights(heads), size=exact)
    dt = tape.pointwise(shifted)
    rates = tape.op([], heads, keeps=True, weights=tape.weights(heads), size=exact)
    rates = tape.op([rates], heads, size=exact)
    # The gradient of rates is at first one for each token.
    return dt, tape.op([rates, dt], dt.elements, saves=[rates, dt], back=dt.bytes, size=exact)


def _scan(tape: Tape, parts: tuple[Shadow, ...], size: _Size, extent: Extent, *, skips: bool) -> tuple[Shadow, Shadow]:
    """Outputs, and the last state."""
    given = Recurrence(
        batch=extent.batch,
        length=extent.length,
        heads=size.heads,
        groups=size.groups,
        key_dim=size.state,
        value_dim=size.inner // size.heads,
        size=tape.size,
        skips=skips,
    )
    y = tape.op(
        parts,
        parts[0].elements,
        saves=parts,
        keeps=True,
        more=given.states,
        scratch=forward_bytes(given),
        back=backward_bytes(given),
        weights=tape.weights(size.heads) if skips else (),
    )
    return y, tape.new(given.state, given.work)


def _with_later_tokens(tape: Tape, y: Shadow, parts: tuple[Shadow, ...], size: _Size, extent: Extent) -> Shadow:
    """`nas.mixers.matrix.add_later_tokens`."""
    prefix, length = extent.prefix, extent.length
    if prefix <= 1:
        return y
    turned = tuple(tape.copy(tape.view(part, part.elements // length * prefix)) for part in parts)
    later = tape.copy(_scan(tape, turned, size, replace(extent, length=prefix), skips=False)[0])
    del turned
    if prefix == length:
        return tape.add(y, later)
    inside = tape.add(tape.view(y, later.elements), later)
    return tape.cat([inside, tape.view(y, y.elements - later.elements)])


def _gated_norm(tape: Tape, x: Shadow, gate: Shadow, size: _Size) -> Shadow:
    """`nas.mixers.gating.GatedRMSNorm` that gates first; its way back is written out."""
    work, rows = max(tape.size, 4), x.elements // size.inner * size.groups
    features, row = x.elements * work, rows * work
    casts = work != tape.size
    # The swish and what it scales, which is the output; cast, the input as well.
    forward = max(features + 2 * x.bytes + features, 3 * features + row + x.bytes) if casts else 2 * features + row
    return tape.op(
        [x, gate],
        x.elements,
        saves=[x, gate],
        more=row,
        scratch=forward - x.bytes,
        # The swish, the norm, what comes from behind its weights, its gradient, and that times the input.
        back=5 * features + row,
        weights=tape.weights(size.inner),
    )
