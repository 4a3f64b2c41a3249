"""Specifications of the mixers whose memory is corrected by the delta rule.

    delta         cache (k − 1)·(2·h_k·d_k + h·d_v), recurrent h·d_k·d_v     (Yang et al. 2024, DeltaNet)
    gated_delta   the same                                                   (Yang et al. 2025)

h heads, h_k key heads, d_k and d_v features of a key and of a value, k taps of the short
convolution. In FLOPs T is the tokens of a chunk of the parallel form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple

from nas.specs.base import BrokenRule, Key, MixerSpec, Options, Surroundings, Value

CHUNK = 32
SEGMENT_ELEMENTS = 2**18
MINIMUM_SEGMENT = 256


def segment_tokens(rows: int, features: int) -> int:
    """Tokens that the parallel form takes at once on a CPU, for `rows` sequences times heads.

    A mebibyte of float32 for each of its tensors was fastest: what fits the cache.
    """
    return max(MINIMUM_SEGMENT, SEGMENT_ELEMENTS // (rows * features))


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

    def saved_elements(self, options: Options, around: Surroundings, length: int) -> float:
        sizes = _Sizes.of(options)
        directions = 2 if around.looks_ahead else 1
        segments = -(-length // segment_tokens(directions * sizes.heads, max(sizes.key_dim, sizes.value_dim)))
        scalars = sizes.heads * (2 if self.decays else 1)
        core = directions * (sizes.channels + scalars + (segments - 1) * sizes.state / length)
        return core + self._saved_outside(sizes, around)

    def _saved_outside(self, sizes: _Sizes, around: Surroundings) -> float:
        # The input; the convolution's, and SiLU's; and the output: as read, its gate and normed.
        convolved = sizes.channels * (2 if sizes.conv else 1)
        scalars = sizes.heads * (3 if self.decays else 1)
        return around.width + convolved + scalars + sizes.values * (3 if sizes.gate else 2)

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
