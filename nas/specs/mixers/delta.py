"""Specifications of the mixers whose memory is corrected by the delta rule.

    delta         cache (k − 1)·(2·h_k·d_k + h·d_v), recurrent h·d_k·d_v     (Yang et al. 2024, DeltaNet)
    gated_delta   the same                                                   (Yang et al. 2025)

h heads, h_k key heads, d_k and d_v features of a key and of a value, k taps of the short
convolution. In FLOPs T is the tokens of a chunk of the parallel form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

from nas.specs.base import BrokenRule, Key, MixerSpec, Options, Surroundings, Value
from nas.specs.mixers.convolution import short_convolution
from nas.specs.sketches.delta import CHUNK, Rule, backward_bytes, forward_bytes
from nas.specs.tape import Extent, Shadow, Tape


def _keys(*, output_gate: bool) -> Mapping[str, Key]:
    return {
        "heads": Key(type=int, minimum=1, default=4, doc="memories; they divide the width unless dims are given"),
        "key_heads": Key(type=int, minimum=1, derived=True, doc="query and key heads (default: heads); divide heads"),
        "key_dim": Key(type=int, minimum=1, derived=True, doc="features of a key (default: width / heads)"),
        "value_dim": Key(type=int, minimum=1, derived=True, doc="features of a value (default: width / heads)"),
        "conv": Key(
            type=int, minimum=0, default=4, doc="taps of the short convolutions of queries, keys, values; 0: none"
        ),
        "output_gate": Key(type=bool, default=output_gate, doc="whether a swish gate scales the normed output"),
    }


class _Sizes(NamedTuple):
    """The options as numbers."""

    heads: int
    key_heads: int
    key_dim: int
    value_dim: int
    conv: int
    gate: bool

    @classmethod
    def of(cls, options: Options) -> _Sizes:
        return cls(
            heads=int(options["heads"]),
            key_heads=int(options["key_heads"]),
            key_dim=int(options["key_dim"]),
            value_dim=int(options["value_dim"]),
            conv=int(options["conv"]),
            gate=bool(options["output_gate"]),
        )

    @property
    def channels(self) -> int:
        """Features of all queries, keys and values of a token."""
        return 2 * self.key_heads * self.key_dim + self.values

    @property
    def values(self) -> int:
        return self.heads * self.value_dim

    @property
    def state(self) -> int:
        return self.heads * self.key_dim * self.value_dim


class DeltaNet(MixerSpec):
    """A memory per head that each token corrects at its own key."""

    implementation: ClassVar[str] = "nas.mixers.delta:DeltaNet"
    keys: ClassVar[Mapping[str, Key]] = _keys(output_gate=False)
    decays: ClassVar[bool] = False

    def complete(self, options: Options, around: Surroundings) -> dict[str, Value]:
        done = dict(options)
        heads = int(done["heads"])
        done.setdefault("key_heads", heads)
        # Left out where heads give none that is whole, so that broken_rules can tell it from one that was given.
        if around.width % heads == 0:
            done.setdefault("key_dim", around.width // heads)
            done.setdefault("value_dim", around.width // heads)
        return done

    def broken_rules(self, options: Options, around: Surroundings) -> Iterator[BrokenRule]:
        heads, key_heads, width = int(options["heads"]), int(options["key_heads"]), around.width
        if heads % key_heads:
            yield BrokenRule("key_heads", f"key_heads must divide heads: {key_heads} does not divide {heads}")
        if width % heads and not {"key_dim", "value_dim"} <= options.keys():
            yield BrokenRule("heads", f"heads must divide width: {heads} does not divide {width}")

    def parameters(self, options: Options, around: Surroundings) -> int:
        sizes = _Sizes.of(options)
        own = sizes.conv * sizes.channels + sizes.value_dim + (2 * sizes.heads if self.decays else 0)
        return self._projections(sizes, around) + own

    def cache_elements(self, options: Options, around: Surroundings, context: int) -> int:
        sizes = _Sizes.of(options)
        return max(sizes.conv - 1, 0) * sizes.channels

    def recurrent_elements(self, options: Options, around: Surroundings) -> int:
        return _Sizes.of(options).state

    def forward_flops(self, options: Options, around: Surroundings, length: int) -> float:
        sizes = _Sizes.of(options)
        chunk = min(CHUNK, length)
        # S is asked, written and read; keys meet keys and queries, (I + A)⁻¹ meets keys and values,
        # scores meet values; and (I + A)⁻¹ itself.
        between = 6.0 * sizes.state
        within = sizes.heads * (chunk * (6.0 * sizes.key_dim + 4.0 * sizes.value_dim) + chunk**2 / 3)
        return self._flops_outside(sizes, around) + (between + within) * (2 if around.looks_ahead else 1)

    def decode_flops(self, options: Options, around: Surroundings, context: int) -> float:
        sizes = _Sizes.of(options)
        return self._flops_outside(sizes, around) + (7.0 if self.decays else 6.0) * sizes.state

    def sketch(self, tape: Tape, x: Shadow, options: Options, around: Surroundings, extent: Extent) -> Shadow:
        sizes, width = _Sizes.of(options), around.width
        out = _read(tape, _tokens(tape, x, sizes, width, extent, decays=self.decays), sizes, extent)
        gate = tape.linear(x, width, sizes.values) if sizes.gate else None
        normed = _head_norm(tape, out, gate, sizes)
        return tape.linear(normed, sizes.values, width)

    def _projections(self, sizes: _Sizes, around: Surroundings) -> int:
        wide = sizes.channels + sizes.values * (2 if sizes.gate else 1)
        return around.width * (wide + sizes.heads * (2 if self.decays else 1))

    def _flops_outside(self, sizes: _Sizes, around: Surroundings) -> float:
        return 2.0 * (self._projections(sizes, around) + sizes.conv * sizes.channels)


class GatedDeltaNet(DeltaNet):
    """A corrected memory that also fades, each head's as each token asks."""

    implementation: ClassVar[str] = "nas.mixers.delta:GatedDeltaNet"
    keys: ClassVar[Mapping[str, Key]] = _keys(output_gate=True)
    decays: ClassVar[bool] = True


@dataclass(frozen=True)
class _Tokens:
    """What the memory takes of each token."""

    qkv: Shadow
    decay: Shadow | None
    beta: Shadow

    def stacked(self, tape: Tape, other: _Tokens) -> _Tokens:
        """Both as one batch."""
        decay = None if self.decay is None or other.decay is None else tape.cat([self.decay, other.decay])
        return _Tokens(tape.cat([self.qkv, other.qkv]), decay, tape.cat([self.beta, other.beta]))

    def backwards(self, tape: Tape, extent: Extent) -> _Tokens:
        """The prefixes from their ends to their starts."""

        def reverse(x: Shadow) -> Shadow:
            inside = tape.view(x, x.elements // extent.length * extent.prefix)
            return tape.copy(inside)

        return _Tokens(reverse(self.qkv), None if self.decay is None else reverse(self.decay), reverse(self.beta))


def _tokens(tape: Tape, x: Shadow, sizes: _Sizes, width: int, extent: Extent, *, decays: bool) -> _Tokens:
    """`DeltaNet._mixed` and `_tokens`."""
    # The joined weights, which the product keeps and whose gradient is that of all three.
    joined = tape.new(width * sizes.channels)
    features = extent.tokens * sizes.channels
    convolved = tape.op([x], features, saves=[x, joined], weights=tape.weights(joined.elements))
    del joined
    if sizes.conv:
        convolved = short_convolution(tape, convolved, sizes.channels, sizes.conv, extent)
    beta = tape.pointwise(_cast(tape, tape.linear(x, width, sizes.heads)), of_output=True)
    qkv = tape.pointwise(convolved)
    return _Tokens(qkv, _log_decay(tape, x, sizes, width) if decays else None, beta)


def _log_decay(tape: Tape, x: Shadow, sizes: _Sizes, width: int) -> Shadow:
    """`GatedDeltaNet._log_decay`."""
    heads = sizes.heads
    logits = _cast(tape, tape.linear(x, width, heads))
    shifted = tape.op([logits], logits.elements, passes=True, weights=tape.weights(heads), size=logits.size)
    del logits
    step = tape.op([shifted], shifted.elements, saves=[shifted], size=shifted.size)
    del shifted
    rates = tape.op([], heads, keeps=True, weights=tape.weights(heads), size=step.size)
    rates = tape.op([rates], heads, size=step.size)
    # The gradient of rates is at first one for each token.
    return tape.op([rates, step], step.elements, saves=[rates, step], back=step.bytes, size=step.size)


def _read(tape: Tape, tokens: _Tokens, sizes: _Sizes, extent: Extent) -> Shadow:
    """`DeltaNet._read`."""
    if extent.prefix <= 1:
        return _scan(tape, tokens, sizes, extent)[0]
    if extent.prefix == extent.length:
        stacked = tokens.stacked(tape, tokens.backwards(tape, extent))
        both, memory = _scan(tape, stacked, sizes, replace(extent, batch=2 * extent.batch))
        del stacked
        half = both.elements // 2
        y = tape.add(tape.view(both, half), tape.copy(tape.view(both, half)))
        del memory
        return y
    out, memory = _scan(tape, tokens, sizes, extent)
    back = tape.copy(_scan(tape, tokens.backwards(tape, extent), sizes, replace(extent, length=extent.prefix))[0])
    y = tape.add(out, tape.op([back], out.elements))
    del memory
    return y


def _scan(tape: Tape, tokens: _Tokens, sizes: _Sizes, extent: Extent) -> tuple[Shadow, Shadow]:
    """What is read, and the last memories."""
    rule = Rule(
        batch=extent.batch,
        length=extent.length,
        heads=sizes.heads,
        key_heads=sizes.key_heads,
        key_dim=sizes.key_dim,
        value_dim=sizes.value_dim,
        decays=tokens.decay is not None,
        size=tape.size,
    )
    keys, values = (extent.tokens * count for count in (sizes.key_heads * sizes.key_dim, sizes.values))
    q, k, v = tape.split(tokens.qkv, keys, keys, values)
    scalars = [tokens.beta] if tokens.decay is None else [tokens.decay, tokens.beta]
    read = tape.op(
        [q, k, v, *scalars],
        values,
        saves=[tokens.qkv, *scalars],
        more=(rule.segments - 1) * rule.state,
        scratch=forward_bytes(rule),
        back=backward_bytes(rule),
    )
    return read, tape.new(rule.state, 1)


def _head_norm(tape: Tape, x: Shadow, gate: Shadow | None, sizes: _Sizes) -> Shadow:
    """`nas.mixers.delta.HeadNorm`, whose way back is written out."""
    work, cast = max(tape.size, 4), tape.size < 4
    features, row = x.elements * work, x.elements // sizes.value_dim * work
    norming = features * (2 if cast else 1) + row
    gating = features * ((3 if cast else 2) if gate is not None else 0)
    casting = features + x.bytes if cast else 0
    inputs = [x] if gate is None else [x, gate]
    return tape.op(
        inputs,
        x.elements,
        saves=inputs,
        weights=tape.weights(sizes.value_dim),
        scratch=max(norming, gating, casting) - x.bytes,
        back=(2 if gate is None else 4) * features + 2 * row,
    )


def _cast(tape: Tape, x: Shadow) -> Shadow:
    """x in float32 at least."""
    return x if x.size >= 4 else tape.op([x], x.elements, size=4)
