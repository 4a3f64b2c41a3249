"""Specifications of the token mixers.

Formulas, per layer and sequence, at context L, head width d_h, h_kv key/value heads:

    full attention     cache 2·L·h_kv·d_h               (Vaswani et al. 2017; Ainslie et al. 2023)
    sliding window w   cache 2·min(L, w)·h_kv·d_h       (Beltagy et al. 2020): self + w−1 earlier tokens
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from nas.specs.base import BrokenRule, Key, MixerSpec, Options, Surroundings, Value

HEAD_KEYS: Mapping[str, Key] = {
    "heads": Key(type=int, minimum=1, default=4, doc="query heads; they divide the width unless head_dim is given"),
    "kv_heads": Key(type=int, minimum=1, derived=True, doc="key/value heads (default: heads); they divide heads"),
    "head_dim": Key(type=int, minimum=1, derived=True, doc="features of one head (default: width / heads)"),
}


class SoftmaxSpec(MixerSpec):
    """What every softmax attention shares: grouped heads and the cost of its projections."""

    families: ClassVar[frozenset[str]] = frozenset({"decoder"})

    def complete(self, options: Options, around: Surroundings) -> dict[str, Value]:
        done = dict(options)
        heads = int(done["heads"])
        done.setdefault("kv_heads", heads)
        # Left out where heads give none that is valid, so that broken_rules can tell it from one that was given.
        if around.width % heads == 0 and not _odd_rotary(around.width // heads, around):
            done.setdefault("head_dim", around.width // heads)
        return done

    def broken_rules(self, options: Options, around: Surroundings) -> Iterator[BrokenRule]:
        heads, kv_heads, width = int(options["heads"]), int(options["kv_heads"]), around.width
        if "head_dim" in options:
            if _odd_rotary(int(options["head_dim"]), around):
                yield BrokenRule("head_dim", f"rotary positions need an even head_dim, not {options['head_dim']}")
        elif width % heads:
            yield BrokenRule("heads", f"heads must divide width: {heads} does not divide {width}")
        else:
            yield BrokenRule("heads", f"rotary positions need an even head_dim: {width} / {heads} = {width // heads}")
        if heads % kv_heads:
            yield BrokenRule("kv_heads", f"kv_heads must divide heads: {kv_heads} does not divide {heads}")

    def parameters(self, options: Options, around: Surroundings) -> int:
        heads, kv_heads, head_dim = _heads(options)
        return around.width * head_dim * 2 * (heads + kv_heads)

    def saved_elements(self, options: Options, around: Surroundings, length: int) -> float:
        heads, kv_heads, head_dim = _heads(options)
        # The projections keep their input (shared) and the output projection its own; SDPA keeps
        # q, k, v, its output (the output projection's input, shared) and one log-sum-exp a head.
        return around.width + head_dim * (2 * heads + 2 * kv_heads) + heads

    def _attention_flops(self, options: Options, keys_per_query: float) -> float:
        heads, _, head_dim = _heads(options)
        return 4.0 * heads * head_dim * keys_per_query


class FullAttention(SoftmaxSpec):
    """Causal softmax attention over the whole context, with grouped key/value heads."""

    implementation: ClassVar[str] = "nas.mixers.softmax:FullAttention"
    keys: ClassVar[Mapping[str, Key]] = HEAD_KEYS

    def cache_elements(self, options: Options, around: Surroundings, context: int) -> int:
        _, kv_heads, head_dim = _heads(options)
        return 2 * context * kv_heads * head_dim

    def forward_flops(self, options: Options, around: Surroundings, length: int) -> float:
        projections = 2.0 * self.parameters(options, around)
        return projections + self._attention_flops(options, (length + 1) / 2)

    def decode_flops(self, options: Options, around: Surroundings, context: int) -> float:
        return 2.0 * self.parameters(options, around) + self._attention_flops(options, context)


class SlidingWindow(SoftmaxSpec):
    """Causal softmax attention to oneself and the `window` − 1 tokens before."""

    implementation: ClassVar[str] = "nas.mixers.softmax:SlidingWindow"
    keys: ClassVar[Mapping[str, Key]] = {
        **HEAD_KEYS,
        "window": Key(type=int, minimum=1, doc="tokens seen: oneself and window - 1 earlier ones"),
    }

    def canonical(self, name: str, options: Options, around: Surroundings) -> tuple[str, dict[str, Value]]:
        kept = dict(options)
        if int(kept["window"]) >= around.max_context:
            del kept["window"]
            return "full", kept
        return name, kept

    def cache_elements(self, options: Options, around: Surroundings, context: int) -> int:
        _, kv_heads, head_dim = _heads(options)
        return 2 * min(context, int(options["window"])) * kv_heads * head_dim

    def forward_flops(self, options: Options, around: Surroundings, length: int) -> float:
        window = min(int(options["window"]), length)
        # Token i sees min(i, window) keys; this is the mean over a sequence.
        seen = window - window * (window - 1) / (2 * length)
        return 2.0 * self.parameters(options, around) + self._attention_flops(options, seen)

    def decode_flops(self, options: Options, around: Surroundings, context: int) -> float:
        seen = min(context, int(options["window"]))
        return 2.0 * self.parameters(options, around) + self._attention_flops(options, seen)


def _odd_rotary(head_dim: int, around: Surroundings) -> bool:
    """Whether rotary positions, which turn features in pairs, would leave one over."""
    return around.positions == "rope" and head_dim % 2 == 1


def _heads(options: Options) -> tuple[int, int, int]:
    return int(options["heads"]), int(options["kv_heads"]), int(options["head_dim"])
