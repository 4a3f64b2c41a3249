"""Specification of multi-head latent attention.

Elements per layer and sequence, at context L, with d_c features of the compressed keys and values
and d_R of the rotated key that all heads share:

    latent    L·(d_c + d_R)    (DeepSeek-AI 2024)

Defaults are in the proportions that DeepSeek-V2 was published with: d_c is 4 and d_R half of a
head's d_h, so that the cache is that of grouped attention with 2.25 key/value heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from nas.specs.base import BrokenRule, CachedVectors, Key, MixerSpec, Options, Surroundings, Value
from nas.specs.sketches.attention_pieces import Heads, fused_attention, rotation
from nas.specs.tape import Extent, Shadow, Tape

_SERVED = ("rope", "learned", "none")


@dataclass(frozen=True)
class _Sizes:
    """Heads, and the features of a head's key without position, with position, of a value, and of the latent."""

    heads: int
    plain: int
    turned: int
    value: int
    latent: int

    @property
    def key(self) -> int:
        """Features that a query is compared in."""
        return self.plain + self.turned


class LatentAttention(MixerSpec):
    """Softmax attention whose keys and values are all expanded from one small vector a token."""

    implementation: ClassVar[str] = "nas.mixers.latent:LatentAttention"
    keys: ClassVar[Mapping[str, Key]] = {
        "heads": Key(type=int, minimum=1, default=4, doc="heads; they divide the width unless head_dim is given"),
        "head_dim": Key(
            type=int, minimum=1, derived=True, doc="features of a head's key without position (default: width / heads)"
        ),
        "value_dim": Key(type=int, minimum=1, derived=True, doc="features of a head's value (default: head_dim)"),
        "latent_dim": Key(
            type=int,
            minimum=1,
            derived=True,
            doc="features that keys and values are compressed to (default: 4 * head_dim, at most the width)",
        ),
        "rope_dim": Key(
            type=int,
            minimum=0,
            derived=True,
            doc="features of the rotated key that heads share (default: head_dim / 2); 0 unless positions are rope",
        ),
    }

    def complete(self, options: Options, around: Surroundings) -> dict[str, Value]:
        done = dict(options)
        heads = int(done["heads"])
        if around.width % heads == 0:
            done.setdefault("head_dim", around.width // heads)
        if "head_dim" not in done:
            return done
        head_dim = int(done["head_dim"])
        done.setdefault("value_dim", head_dim)
        done.setdefault("latent_dim", min(4 * head_dim, around.width))
        turn = _turn(around)
        done.setdefault("rope_dim", max(head_dim // 2 // turn * turn, turn) if around.positions == "rope" else 0)
        return done

    def broken_rules(self, options: Options, around: Surroundings) -> Iterator[BrokenRule]:
        if around.positions not in _SERVED:
            yield BrokenRule(
                "mixer",
                f"latent attention tells positions apart by the rotated key that its heads share: it serves "
                f"{', '.join(_SERVED[:-1])} and {_SERVED[-1]} positions, not {around.positions}",
            )
        heads, width, turn = int(options["heads"]), around.width, _turn(around)
        if "head_dim" not in options:
            yield BrokenRule("heads", f"heads must divide width: {heads} does not divide {width}")
        if int(options.get("latent_dim", 0)) > width:
            yield BrokenRule(
                "latent_dim", f"latent_dim compresses a token of width {width}: {options['latent_dim']} is more"
            )
        rope_dim = int(options.get("rope_dim", turn if around.positions == "rope" else 0))
        if around.positions == "rope" and (rope_dim < turn or rope_dim % turn):
            yield BrokenRule("rope_dim", f"rotary positions need a rope_dim of {turn} or a multiple, not {rope_dim}")
        if around.positions != "rope" and rope_dim:
            yield BrokenRule("rope_dim", f"rope_dim must be 0 where positions are {around.positions}, not {rope_dim}")

    def parameters(self, options: Options, around: Surroundings) -> int:
        return self._projected(options, around) + int(options["latent_dim"])

    def cache_elements(self, options: Options, around: Surroundings, context: int) -> int:
        return sum(kept.elements for kept in self.cached_vectors(options, around, context))

    def cached_vectors(self, options: Options, around: Surroundings, context: int) -> tuple[CachedVectors, ...]:
        sizes = _sizes(options)
        return CachedVectors(context, 1, sizes.latent), CachedVectors(context, 1, sizes.turned)

    def forward_flops(self, options: Options, around: Surroundings, length: int) -> float:
        sizes = _sizes(options)
        seen = length if around.looks_ahead else (length + 1) / 2
        return 2.0 * self._projected(options, around) + 2.0 * sizes.heads * (sizes.key + sizes.value) * seen

    def decode_flops(self, options: Options, around: Surroundings, context: int) -> float:
        # Queries go into the space of the latents and what they gather comes out of it by the two
        # halves of the expansion: as many multiply-adds as expanding one token.
        sizes = _sizes(options)
        compared = 2.0 * sizes.heads * (2 * sizes.latent + sizes.turned) * context
        return 2.0 * self._projected(options, around) + compared

    def sketch(self, tape: Tape, x: Shadow, options: Options, around: Surroundings, extent: Extent) -> Shadow:
        # Filling the cache afterwards takes less than what is let go before.
        sizes, tokens = _sizes(options), extent.tokens
        heads = tokens * sizes.heads
        q_plain, q_turned = tape.split(
            tape.linear(x, around.width, sizes.heads * sizes.key), heads * sizes.plain, heads * sizes.turned
        )
        compressed, shared = tape.split(
            tape.linear(x, around.width, sizes.latent + sizes.turned), tokens * sizes.latent, tokens * sizes.turned
        )
        if sizes.turned:
            q_turned = rotation(tape, q_turned, sizes.turned, around, extent)
            # One head of one is taken out.
            shared = tape.view(rotation(tape, shared, sizes.turned, around, extent), fresh=True)
        latent = tape.rms_norm(compressed, sizes.latent)
        del compressed
        expanded = tape.linear(latent, sizes.latent, sizes.heads * (sizes.plain + sizes.value))
        k_plain, values = tape.split(expanded, heads * sizes.plain, heads * sizes.value)
        k_turned = tape.view(shared, heads * sizes.turned)
        size = max(sizes.key, sizes.value)
        q, k, v = (
            Heads(_joined(tape, parts, heads * size), extent.batch, sizes.heads, extent.length, size)
            for parts in ((q_plain, q_turned), (k_plain, k_turned), (values,))
        )
        y = _attend(tape, q, k, v, extent.prefix)
        cut = tape.view(y, heads * sizes.value)
        # Heads that are cut, or lie behind each other, are copied side by side.
        scattered = sizes.heads > 1 and (sizes.value < size or 1 < extent.prefix < extent.length)
        side_by_side = tape.copy(cut, back=False) if scattered else cut
        return tape.linear(side_by_side, sizes.heads * sizes.value, around.width)

    def _projected(self, options: Options, around: Surroundings) -> int:
        """Weights of the linear maps."""
        sizes = _sizes(options)
        outside = around.width * (sizes.heads * (sizes.key + sizes.value) + sizes.latent + sizes.turned)
        return outside + sizes.latent * sizes.heads * (sizes.plain + sizes.value)


def _turn(around: Surroundings) -> int:
    """Features that turn as one."""
    return 2 * around.rope_dimensions


def _attend(tape: Tape, q: Heads, k: Heads, v: Heads, prefix: int) -> Shadow:
    """`nas.mixers.latent.attend`: what looks ahead is attended to once more, and takes the place of what does not."""
    causal = fused_attention(tape, q.x, k.x, v.x, q.rows)
    if prefix <= 1 or prefix >= q.tokens:
        return causal
    first_q, first_k, first_v = (part.part(tape, prefix) for part in (q, k, v))
    inside = fused_attention(tape, first_q.x, first_k.x, first_v.x, first_q.rows)
    return tape.cat([inside, replace(q, x=causal).part(tape, q.tokens - prefix).x])


def _joined(tape: Tape, parts: tuple[Shadow, ...], elements: int) -> Shadow:
    """Features one behind the other, and zeros up to so many elements."""
    joined = tape.cat(parts) if len(parts) > 1 else parts[0]
    return tape.op([joined], elements) if joined.elements < elements else joined


def _sizes(options: Options) -> _Sizes:
    return _Sizes(
        heads=int(options["heads"]),
        plain=int(options["head_dim"]),
        turned=int(options["rope_dim"]),
        value=int(options["value_dim"]),
        latent=int(options["latent_dim"]),
    )
