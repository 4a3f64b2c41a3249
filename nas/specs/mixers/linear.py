"""Specifications of the mixers whose state is a matrix per head, written to by addition.

    linear         recurrent h·d_φ·d_v + h·d_φ    (Katharopoulos et al. 2020; Arora et al. 2024)
    retention      recurrent h·d_k·d_v            (Sun et al. 2023)
    gated_linear   recurrent h·d_k·d_v            (Yang et al. 2024)

h heads, d_k and d_v features of a head's keys and values. d_φ, the features of a feature map, is
d_k for elu + 1 and 1 + d_k + d_k(d_k + 1)/2 for the Taylor series.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from nas.specs.base import BrokenRule, Key, MixerSpec, Options, Surroundings, Value
from nas.specs.sketches.channel_decay import channel_decayed_attention
from nas.specs.sketches.chunks import Sizes
from nas.specs.sketches.decay import decayed_attention
from nas.specs.sketches.matrix import (
    chosen,
    convolved,
    finished,
    joined,
    log_decay_of,
    projected,
    share,
    turned,
    with_later_tokens,
    within,
)
from nas.specs.sketches.normalised import normalised_attention, normalised_attention_to_all
from nas.specs.tape import Extent, Shadow, Tape

FEATURE_MAPS = ("elu", "taylor")
TAYLOR_KEY_DIM = 16
# Tokens of a chunk in the parallel forms.
CHUNK, TAYLOR_CHUNK, CHANNEL_CHUNK = 64, 128, 32
GATE_RANK = 16

_HEADS = Key(type=int, minimum=1, default=4, doc="heads; they divide the width where a head's features are not given")
_OUTPUT_GATE = Key(type=bool, default=True, doc="whether what heads read is gated by the token")


@dataclass(frozen=True)
class _Size:
    """The numbers that all formulas are made of."""

    heads: int
    key_dim: int
    value_dim: int

    @classmethod
    def of(cls, options: Options) -> _Size:
        return cls(int(options["heads"]), int(options["key_dim"]), int(options["value_dim"]))

    @property
    def keys(self) -> int:
        return self.heads * self.key_dim

    @property
    def values(self) -> int:
        return self.heads * self.value_dim

    def in_chunks(self, tape: Tape, extent: Extent) -> Sizes:
        """What a chunked recurrence is given."""
        return Sizes.of(tape, extent, self.heads, self.key_dim, self.value_dim)


def chunk_flops(heads: int, features: int, values: int, key_dim: int, chunk: int, length: int) -> float:
    """FLOPs per token of a chunked recurrence: scores and their use, and the state written and read."""
    return heads * (2.0 * min(chunk, length) * (key_dim + values) + 4.0 * features * values)


class _MatrixSpec(MixerSpec):
    """What the three share."""

    def broken_rules(self, options: Options, around: Surroundings) -> Iterator[BrokenRule]:
        heads, width = int(options["heads"]), around.width
        if not {"key_dim", "value_dim"} <= options.keys():
            yield BrokenRule("heads", f"heads must divide width: {heads} does not divide {width}")

    def cache_elements(self, options: Options, around: Surroundings, context: int) -> int:
        return 0

    def recurrent_elements(self, options: Options, around: Surroundings) -> int:
        size = _Size.of(options)
        return size.keys * size.value_dim

    def decode_flops(self, options: Options, around: Surroundings, context: int) -> float:
        # The state decays, takes in a product and is read.
        return 2.0 * self._multiplied(options, around) + 5.0 * self.recurrent_elements(options, around)

    def _multiplied(self, options: Options, around: Surroundings) -> int:
        """Weights that each token is multiplied by."""
        return self.parameters(options, around)


class LinearAttention(_MatrixSpec):
    """Linear attention whose weights sum to 1."""

    implementation: ClassVar[str] = "nas.mixers.linear:LinearAttention"
    keys: ClassVar[Mapping[str, Key]] = {
        "heads": _HEADS,
        "key_dim": Key(
            type=int,
            minimum=1,
            derived=True,
            doc="features of a head's queries and keys before the feature map (default: width / heads; taylor: 16)",
        ),
        "value_dim": Key(type=int, minimum=1, derived=True, doc="features of a head's values (default: width / heads)"),
        "feature_map": Key(type=str, default="elu", doc="of queries and keys: elu (elu + 1) or taylor (second order)"),
    }

    def complete(self, options: Options, around: Surroundings) -> dict[str, Value]:
        done = dict(options)
        if done["feature_map"] == "taylor":
            done.setdefault("key_dim", TAYLOR_KEY_DIM)
        return _share_width(done, around)

    def broken_rules(self, options: Options, around: Surroundings) -> Iterator[BrokenRule]:
        if options["feature_map"] not in FEATURE_MAPS:
            names = " or ".join(FEATURE_MAPS)
            yield BrokenRule("feature_map", f"feature_map must be {names}, not {options['feature_map']}")
        yield from super().broken_rules(options, around)

    def parameters(self, options: Options, around: Surroundings) -> int:
        size = _Size.of(options)
        return 2 * around.width * (size.keys + size.values)

    def recurrent_elements(self, options: Options, around: Surroundings) -> int:
        size = _Size.of(options)
        return size.heads * _features(options) * (size.value_dim + 1)

    def forward_flops(self, options: Options, around: Surroundings, length: int) -> float:
        size, features = _Size.of(options), _features(options)
        projections = 2.0 * self.parameters(options, around)
        if around.looks_ahead:
            # One sum over all tokens, which each of them reads.
            return projections + 4.0 * size.heads * features * (size.value_dim + 1)
        chunk = _chunk(options)
        return projections + chunk_flops(size.heads, features, size.value_dim + 1, size.key_dim, chunk, length)

    def sketch(self, tape: Tape, x: Shadow, options: Options, around: Surroundings, extent: Extent) -> Shadow:
        sizes, taylor, prefix = (
            _Size.of(options).in_chunks(tape, extent),
            options["feature_map"] == "taylor",
            extent.prefix,
        )
        q, k, v = projected(tape, x, sizes, around.width)
        if not taylor:
            # Both are there before what they are made of is let go.
            positive = [tape.pointwise(part, of_output=True) for part in (q, k)]
            q, k = positive
            del positive
        y = sums = inside = None
        # An encoder leaves no state; a prefix language model's prefill does, whatever its prefix.
        is_encoder = prefix == extent.length > 1 and (tape.records or around.rope_dimensions == 1)
        if not is_encoder or extent.has_own_prefixes:
            y, sums = normalised_attention(tape, q, k, v, sizes, taylor=taylor)
        if extent.has_own_prefixes and y is not None:
            mask = within(tape, extent)
            inside = normalised_attention_to_all(tape, q, k, v, sizes, taylor=taylor, mask=mask)
            y = chosen(tape, inside, y, mask)
            del mask
        elif prefix > 1:
            first_q, first_k, first_v = (tape.view(part, share(part, extent)) for part in (q, k, v))
            cut = replace(sizes, length=prefix)
            inside = normalised_attention_to_all(tape, first_q, first_k, first_v, cut, taylor=taylor)
            del first_q, first_k, first_v
            y = inside if y is None else joined(tape, inside, y, extent)
        assert y is not None
        out = tape.linear(y, sizes.values, around.width)
        del q, k, v, sums, inside
        return out


class Retention(_MatrixSpec):
    """Retention: a state that decays by a fixed share per head."""

    implementation: ClassVar[str] = "nas.mixers.linear:Retention"
    keys: ClassVar[Mapping[str, Key]] = {
        "heads": _HEADS,
        "key_dim": Key(
            type=int, minimum=1, derived=True, doc="features of a head's queries and keys (default: width / heads)"
        ),
        "value_dim": Key(type=int, minimum=1, derived=True, doc="features of a head's values (default: key_dim)"),
        "output_gate": _OUTPUT_GATE,
    }

    def complete(self, options: Options, around: Surroundings) -> dict[str, Value]:
        done = dict(options)
        heads = int(done["heads"])
        if around.width % heads == 0 and not _unturnable(around.width // heads, around):
            done.setdefault("key_dim", around.width // heads)
        if "key_dim" in done:
            done.setdefault("value_dim", done["key_dim"])
        return done

    def broken_rules(self, options: Options, around: Surroundings) -> Iterator[BrokenRule]:
        heads, width, multiple = int(options["heads"]), around.width, 2 * around.rope_dimensions
        rule = f"rotary positions need a key_dim that is a multiple of {multiple}"
        if "key_dim" in options:
            if _unturnable(int(options["key_dim"]), around):
                yield BrokenRule("key_dim", f"{rule}, not {options['key_dim']}")
        elif width % heads:
            yield BrokenRule("heads", f"heads must divide width: {heads} does not divide {width}")
        else:
            yield BrokenRule("heads", f"{rule}: {width} / {heads} = {width // heads}")

    def parameters(self, options: Options, around: Surroundings) -> int:
        size = _Size.of(options)
        return around.width * (2 * size.keys + (3 if options["output_gate"] else 2) * size.values)

    def forward_flops(self, options: Options, around: Surroundings, length: int) -> float:
        size = _Size.of(options)
        scan = chunk_flops(size.heads, size.key_dim, size.value_dim, size.key_dim, CHUNK, length)
        return 2.0 * self.parameters(options, around) + scan * _scans(around)

    def sketch(self, tape: Tape, x: Shadow, options: Options, around: Surroundings, extent: Extent) -> Shadow:
        sizes = _Size.of(options).in_chunks(tape, extent)
        q, k, v = turned(tape, x, sizes, around, extent)
        log_decay = tape.new(sizes.heads, sizes.work)
        y, memory = decayed_attention(tape, q, k, v, log_decay, sizes)

        def scan(inside: list[Shadow], sizes: Sizes) -> Shadow:
            v, q, k = inside
            return decayed_attention(tape, q, k, v, log_decay, sizes)[0]

        y = with_later_tokens(tape, y, [v, q, k], scan, sizes, extent)
        out = finished(tape, x, y, sizes, around.width, has_gate=bool(options["output_gate"]), weights=0)
        del q, k, v, memory
        return out


class GatedLinearAttention(_MatrixSpec):
    """Gated linear attention: a state that decays per key feature, as the token says."""

    implementation: ClassVar[str] = "nas.mixers.linear:GatedLinearAttention"
    keys: ClassVar[Mapping[str, Key]] = {
        "heads": _HEADS,
        "key_dim": Key(
            type=int, minimum=1, derived=True, doc="features of a head's queries and keys (default: width / heads / 2)"
        ),
        "value_dim": Key(type=int, minimum=1, derived=True, doc="features of a head's values (default: width / heads)"),
        "output_gate": _OUTPUT_GATE,
        "conv": Key(type=int, minimum=0, default=0, doc="kernel of a short convolution of q, k and v; 0: none"),
    }

    def complete(self, options: Options, around: Surroundings) -> dict[str, Value]:
        done = dict(options)
        heads = int(done["heads"])
        if around.width % heads == 0:
            done.setdefault("key_dim", max(around.width // heads // 2, 1))
        return _share_width(done, around)

    def parameters(self, options: Options, around: Surroundings) -> int:
        size = _Size.of(options)
        convolutions = int(options["conv"]) * (2 * size.keys + size.values)
        return self._multiplied(options, around) + convolutions + size.keys + size.value_dim

    def cache_elements(self, options: Options, around: Surroundings, context: int) -> int:
        size = _Size.of(options)
        return max(int(options["conv"]) - 1, 0) * (2 * size.keys + size.values)

    def forward_flops(self, options: Options, around: Surroundings, length: int) -> float:
        size = _Size.of(options)
        scan = chunk_flops(size.heads, size.key_dim, size.value_dim, size.key_dim, CHANNEL_CHUNK, length)
        convolutions = 2.0 * int(options["conv"]) * (2 * size.keys + size.values)
        return 2.0 * self._multiplied(options, around) + convolutions + scan * _scans(around)

    def sketch(self, tape: Tape, x: Shadow, options: Options, around: Surroundings, extent: Extent) -> Shadow:
        sizes, width, has_gate = _Size.of(options).in_chunks(tape, extent), around.width, bool(options["output_gate"])
        q, k, v = convolved(tape, x, sizes, width, int(options["conv"]), extent)
        low = tape.linear(x, width, GATE_RANK)
        logits = tape.linear(low, GATE_RANK, sizes.keys, bias=True)
        del low
        g = log_decay_of(tape, logits)
        del logits
        y, memory = channel_decayed_attention(tape, q, k, v, g, sizes)

        def scan(inside: list[Shadow], sizes: Sizes) -> Shadow:
            v, q, k, g = inside
            return channel_decayed_attention(tape, q, k, v, g, sizes)[0]

        y = with_later_tokens(tape, y, [v, q, k, g], scan, sizes, extent)
        out = finished(tape, x, y, sizes, width, has_gate=has_gate, weights=sizes.value_dim)
        del q, k, v, g, memory
        return out

    def _multiplied(self, options: Options, around: Surroundings) -> int:
        size = _Size.of(options)
        values = (3 if options["output_gate"] else 2) * size.values
        return around.width * (2 * size.keys + values + GATE_RANK) + GATE_RANK * size.keys


def _share_width(done: dict[str, Value], around: Surroundings) -> dict[str, Value]:
    """A head's features as its share of the width, where that is whole and none are given."""
    heads = int(done["heads"])
    # Left out where heads give none that is valid, so that broken_rules can tell it from one that was given.
    if around.width % heads == 0:
        done.setdefault("key_dim", around.width // heads)
        done.setdefault("value_dim", around.width // heads)
    return done


def _unturnable(key_dim: int, around: Surroundings) -> bool:
    """Whether rotary positions, which turn features in pairs, would leave some over."""
    return around.positions == "rope" and key_dim % (2 * around.rope_dimensions) != 0


def _scans(around: Surroundings) -> int:
    return 2 if around.looks_ahead else 1


def _features(options: Options) -> int:
    key_dim = int(options["key_dim"])
    return 1 + key_dim + key_dim * (key_dim + 1) // 2 if options["feature_map"] == "taylor" else key_dim


def _chunk(options: Options) -> int:
    return TAYLOR_CHUNK if options["feature_map"] == "taylor" else CHUNK
