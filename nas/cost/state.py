"""Bytes that decoding keeps of one sequence: key/value cache, last inputs of convolutions, recurrent state.

In: an architecture, the tokens that it has taken in, and the dtypes of what it keeps. Out: bytes, exact.

A cache in fp32, bf16, fp16 or fp64 keeps elements of that dtype. In fewer bits:

    int8, int4, int2   as in KIVI (Liu et al. 2024) and transformers' `QuantizedCache`: the latest `cache_window`
                       tokens stay in full precision; of a token before them each head's vector is packed into
                       whole bytes, and 64 of its values share a scale and a zero point, both bf16
    fp8                one byte a value, of all tokens: as in vLLM and transformers' fp8 cache, a scale is one
                       constant for a whole tensor (1, or calibrated and kept with the weights) and no state

    bytes of a vector of f features in b bits:   ceil(f·b / 8) + 4·ceil(f / 64)    (int8, int4, int2)

KIVI groups a key's values along the tokens instead, 32 of them by default. A window of w tokens is the most that
both keep in full precision: they empty some of it at once and fill it again.

The last inputs of a convolution belong to the latest tokens: of a cache in fewer bits they stay in full precision,
which is bf16. So does the cache of a mixer that does not say what vectors it is made of (`cached_vectors`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nas.cost.dtypes import BYTES_PER_ELEMENT, CACHE_BITS, bytes_per_element, check_cache_dtype
from nas.errors import SpaceError
from nas.space.architecture import Architecture
from nas.space.layers import Layer
from nas.specs import family_spec, mixer_spec
from nas.specs.base import CachedVectors

RECURRENT_DTYPE: Final = "fp32"
# Both are the defaults of transformers' `QuantizedCache`; the second is KIVI's too.
GROUP: Final = 64
CACHE_WINDOW: Final = 128
FULL_PRECISION_BYTES: Final = BYTES_PER_ELEMENT["bf16"]
# A scale and a zero point.
GROUP_BYTES: Final = 2 * FULL_PRECISION_BYTES


@dataclass(frozen=True, kw_only=True)
class StateFormat:
    """In what the state is kept.

    Attributes:
        cache_dtype: of keys and values, and of the last inputs of convolutions unless it has fewer than 16 bits:
            a name of `BYTES_PER_ELEMENT` or of `CACHE_BITS`.
        recurrent_dtype: of recurrent states: a name of `BYTES_PER_ELEMENT`.
        cache_window: latest tokens that a cache of integers keeps in full precision.

    Raises:
        SpaceError: an unknown dtype, or a window below 0.
    """

    cache_dtype: str = "bf16"
    recurrent_dtype: str = RECURRENT_DTYPE
    cache_window: int = CACHE_WINDOW

    def __post_init__(self) -> None:
        check_cache_dtype(self.cache_dtype)
        bytes_per_element(self.recurrent_dtype, key="recurrent_dtype")
        if self.cache_window < 0:
            raise SpaceError(f"cache_window must be at least 0, not {self.cache_window}")

    @property
    def recurrent_size(self) -> int:
        """Bytes of an element of a recurrent state."""
        return BYTES_PER_ELEMENT[self.recurrent_dtype]

    @property
    def full_size(self) -> int:
        """Bytes of an element of the cache that is not kept in fewer bits."""
        return BYTES_PER_ELEMENT.get(self.cache_dtype, FULL_PRECISION_BYTES)

    def vector_bytes(self, features: int) -> int:
        """Of one vector of a token beyond the latest."""
        if self.cache_dtype not in CACHE_BITS:
            return features * self.full_size
        packed = _ceil(features * CACHE_BITS[self.cache_dtype], 8)
        return packed + (0 if self.cache_dtype == "fp8" else GROUP_BYTES * _ceil(features, GROUP))

    def bytes_of(self, kept: CachedVectors, *, grows: bool = True) -> int:
        """Of the vectors of some tokens.

        Args:
            kept: the vectors.
            grows: whether tokens are still coming; of a finished source none is the latest.
        """
        has_window = grows and self.cache_dtype in CACHE_BITS and self.cache_dtype != "fp8"
        recent = min(self.cache_window, kept.tokens) if has_window else 0
        full = recent * kept.features * self.full_size
        return kept.count * (full + (kept.tokens - recent) * self.vector_bytes(kept.features))


def state_bytes(architecture: Architecture, context: int, form: StateFormat) -> int:
    """Of one sequence; of an encoder–decoder, after a source and a target of `context` tokens each."""
    if not family_spec(architecture.family).decodes:
        return 0
    return sum(_layer_bytes(architecture, layer, context, form) for layer in architecture.layers)


def _layer_bytes(architecture: Architecture, layer: Layer, context: int, form: StateFormat) -> int:
    around, spec, values = architecture.surroundings, mixer_spec(layer.mixer), layer.values
    vectors = spec.cached_vectors(values, around, context)
    others = spec.cache_elements(values, around, context) - sum(kept.elements for kept in vectors)
    others += max(int(layer.short_conv) - 1, 0) * architecture.width
    total = sum(form.bytes_of(kept) for kept in vectors) + form.full_size * others
    if around.has_source:
        total += form.bytes_of(_source(layer, context), grows=False)
    return total + form.recurrent_size * spec.recurrent_elements(values, around)


def _source(layer: Layer, tokens: int) -> CachedVectors:
    """Keys and values of a source, which every token of the target attends to."""
    values = layer.values
    return CachedVectors(tokens, 2 * int(values["cross_kv_heads"]), int(values["cross_head_dim"]))


def _ceil(amount: int, unit: int) -> int:
    return -(-amount // unit)
