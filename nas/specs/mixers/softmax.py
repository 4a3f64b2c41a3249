"""Specifications of softmax attention, over the whole context or over a sliding window.

In: options and what is around. Out: parameters, elements and FLOPs. Per layer and sequence, at
context L, with h heads of d_h features and h_kv key/value heads:

    full                 cache 2·L·h_kv·d_h               (Vaswani et al. 2017; Ainslie et al. 2023)
    sliding_window w, s  cache 2·min(L, w + s)·h_kv·d_h   (Beltagy et al. 2020; Xiao et al. 2023)

A window is oneself and w − 1 earlier tokens, in a prefix also w − 1 later ones; s first tokens of
the sequence, its sinks, are always seen.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from nas.specs.base import BrokenRule, CachedVectors, Key, MixerSpec, Options, Surroundings, Value
from nas.specs.sketches.attention import full_attention, windowed_attention
from nas.specs.sketches.attention_pieces import Heads, Terms, exact_size, rotation
from nas.specs.tape import INDEX, Extent, Shadow, Tape, Weight

HEAD_KEYS: Mapping[str, Key] = {
    "heads": Key(type=int, minimum=1, default=4, doc="query heads; they divide the width unless head_dim is given"),
    "kv_heads": Key(type=int, minimum=1, derived=True, doc="key/value heads (default: heads); they divide heads"),
    "head_dim": Key(type=int, minimum=1, derived=True, doc="features of one head (default: width / heads)"),
}

EXTRA_KEYS: Mapping[str, Key] = {
    "sink_logit": Key(
        type=bool, default=False, doc="a learned logit per head that joins the softmax and gives nothing (gpt-oss)"
    ),
    "output_gate": Key(
        type=bool, default=False, doc="gate each feature of a head by a sigmoid before the output projection"
    ),
}


class SoftmaxSpec(MixerSpec):
    """What every softmax attention shares: grouped heads and the cost of its projections."""

    def complete(self, options: Options, around: Surroundings) -> dict[str, Value]:
        done = dict(options)
        heads = int(done["heads"])
        done.setdefault("kv_heads", heads)
        # Left out where heads give none that is valid, so that broken_rules can tell it from one that was given.
        if around.width % heads == 0 and not _odd_rotary(around.width // heads, around):
            done.setdefault("head_dim", around.width // heads)
        return done

    def canonical(self, name: str, options: Options, around: Surroundings) -> tuple[str, dict[str, Value]]:
        # A key that changes nothing is left out: architectures from before there was one stay what they are.
        return name, {key: value for key, value in options.items() if key not in _DROPPED or value}

    def broken_rules(self, options: Options, around: Surroundings) -> Iterator[BrokenRule]:
        heads, kv_heads, width = int(options["heads"]), int(options["kv_heads"]), around.width
        multiple = 2 * around.rope_dimensions
        rule = "rotary positions need " + ("an even head_dim" if multiple == 2 else f"a head_dim of {multiple} times n")
        if "head_dim" in options:
            if _odd_rotary(int(options["head_dim"]), around):
                yield BrokenRule("head_dim", f"{rule}, not {options['head_dim']}")
        elif width % heads:
            yield BrokenRule("heads", f"heads must divide width: {heads} does not divide {width}")
        else:
            yield BrokenRule("heads", f"{rule}: {width} / {heads} = {width // heads}")
        if heads % kv_heads:
            yield BrokenRule("kv_heads", f"kv_heads must divide heads: {kv_heads} does not divide {heads}")

    def relative_heads(self, options: Options) -> int:
        return int(options["heads"])

    def parameters(self, options: Options, around: Surroundings) -> int:
        heads, kv_heads, head_dim = _heads(options)
        gate = heads if options.get("output_gate", False) else 0
        logits = heads if options.get("sink_logit", False) else 0
        return around.width * head_dim * (2 * (heads + kv_heads) + gate) + logits

    @abstractmethod
    def kept_tokens(self, options: Options, context: int) -> int:
        """Tokens that the cache holds after `context` of them."""

    def cached_vectors(self, options: Options, around: Surroundings, context: int) -> tuple[CachedVectors, ...]:
        _, kv_heads, head_dim = _heads(options)
        return (CachedVectors(self.kept_tokens(options, context), 2 * kv_heads, head_dim),)

    def cache_elements(self, options: Options, around: Surroundings, context: int) -> int:
        return sum(kept.elements for kept in self.cached_vectors(options, around, context))

    def sketch(self, tape: Tape, x: Shadow, options: Options, around: Surroundings, extent: Extent) -> Shadow:
        # Filling the cache afterwards takes less than what is let go before.
        heads, kv_heads, head_dim = _heads(options)
        width, batch, length = around.width, extent.batch, extent.length
        window = self._span(options)
        time_first = window is not None and length > window
        table = self._table(tape, heads, length) if around.positions == "relative" else None
        # Of one sequence time is first already.
        moved = time_first and batch > 1
        if moved:
            x = tape.copy(x, back=False)
        q, k, v = (tape.linear(x, width, count * head_dim) for count in (heads, kv_heads, kv_heads))
        if around.positions == "rope":
            turned_q = rotation(tape, q, head_dim, around, extent)
            turned_k = rotation(tape, k, head_dim, around, extent)
            q, k = turned_q, turned_k
            del turned_q, turned_k
        alibi = heads if around.positions == "alibi" else 0
        if alibi:
            # How far it reaches is told by the lengths of queries and keys.
            tape.scratch(q.bytes + heads * extent.tokens * tape.size)
        gate = None
        if options.get("output_gate", False):
            gate = tape.pointwise(tape.linear(x, width, heads * head_dim), of_output=True)
        logits = Weight(heads * tape.size) if options.get("sink_logit", False) else None
        terms = Terms(alibi=alibi, table=table, table_heads=heads, logits=logits, sinks=int(options.get("sinks", 0)))
        counts = (heads, kv_heads, kv_heads)
        if time_first and window is not None:
            q_heads, k_heads, v_heads = (
                Heads(part, 1, batch * count, length, head_dim) for part, count in zip((q, k, v), counts, strict=True)
            )
            parts = windowed_attention(tape, q_heads, k_heads, v_heads, window, terms, prefix=extent.prefix)
        else:
            q_heads, k_heads, v_heads = (
                Heads(part, batch, count, length, head_dim) for part, count in zip((q, k, v), counts, strict=True)
            )
            parts = full_attention(tape, q_heads, k_heads, v_heads, terms, prefix=extent.prefix)
        return _finish(tape, parts, gate, heads * head_dim, width, moved=moved)

    def _table(self, tape: Tape, heads: int, length: int) -> Shadow:
        """Biases at all distances, from buckets that the layers of a stack share."""
        distances = 2 * length - 1
        # Kept: the place of each distance, and the bucket of each place.
        more = INDEX * (distances + 2 * _REACH + 1)
        buckets = tape.weights(_BUCKETS * heads)
        table = tape.op([], heads * distances, more=more, weights=buckets, size=exact_size(tape))
        return tape.view(table, fresh=True)

    def _span(self, options: Options) -> int | None:
        """Tokens of a window; None: there is none."""
        return None

    def _flops(self, options: Options, around: Surroundings, keys_per_query: float) -> float:
        heads, _, head_dim = _heads(options)
        return 2.0 * self.parameters(options, around) + 4.0 * heads * head_dim * keys_per_query


class FullAttention(SoftmaxSpec):
    """Softmax attention over the whole context, with grouped key/value heads."""

    implementation: ClassVar[str] = "nas.mixers.softmax:FullAttention"
    keys: ClassVar[Mapping[str, Key]] = {**HEAD_KEYS, **EXTRA_KEYS}

    def kept_tokens(self, options: Options, context: int) -> int:
        return context

    def forward_flops(self, options: Options, around: Surroundings, length: int) -> float:
        return self._flops(options, around, length if around.looks_ahead else (length + 1) / 2)

    def decode_flops(self, options: Options, around: Surroundings, context: int) -> float:
        return self._flops(options, around, context)


class SlidingWindow(SoftmaxSpec):
    """Softmax attention to oneself, the `window` − 1 tokens before, and the first `sinks` tokens."""

    implementation: ClassVar[str] = "nas.mixers.softmax:SlidingWindow"
    keys: ClassVar[Mapping[str, Key]] = {
        **HEAD_KEYS,
        "window": Key(type=int, minimum=1, doc="tokens seen: oneself and window - 1 earlier ones"),
        "sinks": Key(type=int, minimum=0, default=0, doc="first tokens that stay visible to all (StreamingLLM)"),
        **EXTRA_KEYS,
    }

    def canonical(self, name: str, options: Options, around: Surroundings) -> tuple[str, dict[str, Value]]:
        window, sinks = _window(options)
        # The first token sees no further ahead than its window or the last sink; looking back, the
        # last one sees all if its window begins where the sinks end.
        seen = max(window, sinks) if around.looks_ahead else window + sinks
        if seen >= around.max_context:
            name, options = "full", {key: value for key, value in options.items() if key not in ("window", "sinks")}
        return super().canonical(name, options, around)

    def kept_tokens(self, options: Options, context: int) -> int:
        return min(context, sum(_window(options)))

    def forward_flops(self, options: Options, around: Surroundings, length: int) -> float:
        window, sinks = _window(options)
        window, sinks = min(window, length), min(sinks, length)
        # Pairs of one token and another at most window - 1 before it, and, of sinks beyond those, after each.
        earlier = (window - 1) * length - window * (window - 1) / 2
        beyond = sum(max(0, length - window - sink) for sink in range(sinks))
        pairs = length + earlier + beyond
        if around.looks_ahead:
            pairs += earlier + sum(max(0, sink - window + 1) for sink in range(sinks))
        return self._flops(options, around, pairs / length)

    def decode_flops(self, options: Options, around: Surroundings, context: int) -> float:
        return self._flops(options, around, min(context, sum(_window(options))))

    def _span(self, options: Options) -> int | None:
        return _window(options)[0]


# Keys whose default value (false or 0) stands for the mixer without them.
_DROPPED = frozenset({"sink_logit", "output_gate", "sinks"})


# Of `nas.mixers.positions.RelativeBias`: its buckets, and the distance from which on all share one, twice.
_BUCKETS, _REACH = 32, 256


def _odd_rotary(head_dim: int, around: Surroundings) -> bool:
    """Whether rotary positions, which turn features in pairs, would leave some over."""
    return around.positions == "rope" and head_dim % (2 * around.rope_dimensions) != 0


def _heads(options: Options) -> tuple[int, int, int]:
    return int(options["heads"]), int(options["kv_heads"]), int(options["head_dim"])


def _window(options: Options) -> tuple[int, int]:
    return int(options["window"]), int(options.get("sinks", 0))


def _finish(
    tape: Tape, parts: Sequence[Heads], gate: Shadow | None, features: int, width: int, *, moved: bool
) -> Shadow:
    """The output projection of consecutive parts along time; `moved`: time is before the batch."""
    weight = Weight(features * width * tape.size)
    gates = None if gate is None else tape.split(gate, *(part.x.elements for part in parts))
    done = []
    for place, part in enumerate(parts):
        y = tape.linear(part.x if gates is None else tape.mul(part.x, gates[place]), features, width, weight=weight)
        # The gradient comes with the batch first, and is copied.
        done.append(tape.view(y, fresh=moved))
    return done[0] if len(done) == 1 else tape.cat(done)
