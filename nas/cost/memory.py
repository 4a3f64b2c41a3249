"""Peaks of memory, followed tensor by tensor on sizes alone.

In: an architecture and what it is given at once. Out: the most bytes that are alive at once in a training step and
in a prefill. Every layer is followed once on a tape (`nas.specs.tape`); a model's peak is put together from those of
its layers, so that equal layers cost nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from nas.space.architecture import Architecture
from nas.space.layers import Layer
from nas.specs import mixer_spec, mlp_spec
from nas.specs.base import Surroundings, Value
from nas.specs.mixers.attention_pieces import fused_attention
from nas.specs.mixers.convolution import short_convolution
from nas.specs.tape import Extent, Shadow, Storage, Tape


@dataclass(frozen=True, slots=True)
class Passage:
    """What a part of a model does to memory on its way forward and back, in bytes beyond its input's.

    Attributes:
        forward_peak: most bytes that are alive at once on the way forward, the output among them.
        kept: bytes that stay until the way back, without the output.
        keeps_input: whether the input is among what stays.
        backward_peak: most bytes on the way back: what was kept, gradients of weights and what is made and let go;
            without the gradient that comes from above.
        weight_bytes: gradients of weights that are there afterwards.
    """

    forward_peak: int
    kept: int
    keeps_input: bool
    backward_peak: int
    weight_bytes: int


@dataclass(frozen=True)
class Place:
    """A layer's place in its stack.

    Attributes:
        norm: "rms" or "layer".
        has_mixer_norm: false where the input is normalised already.
    """

    norm: str = "rms"
    has_mixer_norm: bool = True


@lru_cache(maxsize=65_536)
def layer_passage(
    layer: Layer, around: Surroundings, place: Place, extent: Extent, size: int, *, records: bool
) -> Passage:
    """What a layer does.

    Args:
        layer: canonical.
        around: of its stack.
        place: in its stack.
        extent: what it is given.
        size: bytes of a floating point number.
        records: whether a way back follows.
    """
    tape = Tape(size, records=records)
    x = tape.source(extent.tokens * around.width)
    source = tape.source(extent.batch * extent.source_length * around.width) if around.has_source else None
    before = tape.live
    tape.peak = before
    y = _block(tape, x, source, layer, around, place, extent)
    forward_peak, kept = tape.peak - before, tape.live - before - y.bytes
    if not records:
        return Passage(forward_peak, 0, False, 0, 0)
    storage = x.storage
    assert storage is not None
    keeps_input = any(saved is storage for node in tape.nodes for saved in node.saved)
    # What is the next part's: the output, and the gradient that comes from it.
    gradient = Shadow(y.elements, size, Storage(tape, y.bytes), None)
    outside = before + 2 * y.bytes
    tape.peak = tape.live
    tape.backward(y, gradient)
    return Passage(forward_peak, kept, keeps_input, tape.peak - outside, tape.weight_bytes)


def _block(
    tape: Tape, x: Shadow, source: Shadow | None, layer: Layer, around: Surroundings, place: Place, extent: Extent
) -> Shadow:
    """`nas.models.blocks.Block.forward`, or `prefill`."""
    width, options = around.width, layer.values
    if layer.mixer != "none":
        h = _norm(tape, x, width, place.norm) if place.has_mixer_norm else x
        if kernel := int(options.get("short_conv", 0)):
            h = short_convolution(tape, h, width, kernel, extent)
        mixed = mixer_spec(layer.mixer).sketch(tape, h, options, around, extent)
        x = tape.add(x, mixed)
        del mixed
    if source is not None:
        # Lives, like `h` below, until the layer returns.
        features = int(options["cross_kv_heads"]) * int(options["cross_head_dim"])
        memory = tuple(tape.linear(source, width, features) for _ in range(2))
        x = _cross(tape, x, memory, options, width, place, extent)
    mlp = mlp_spec(str(layer.mlp))
    if layer.mlp == "none":
        return x
    # `h` is not let go: as in the layer's code, what the mixer has read lives until the layer returns.
    return tape.add(x, mlp.sketch(tape, _norm(tape, x, width, place.norm), width, int(options.get("mlp_hidden", 0))))


def _norm(tape: Tape, x: Shadow, width: int, kind: str) -> Shadow:
    return tape.layer_norm(x, width) if kind == "layer" else tape.rms_norm(x, width)


def _cross(
    tape: Tape,
    x: Shadow,
    memory: tuple[Shadow, ...],
    options: Mapping[str, Value],
    width: int,
    place: Place,
    extent: Extent,
) -> Shadow:
    heads, features = int(options["cross_heads"]), int(options["cross_heads"]) * int(options["cross_head_dim"])
    keys, values = memory
    h = _norm(tape, x, width, place.norm)
    queries = tape.linear(h, width, features)
    mixed = fused_attention(tape, queries, keys, values, heads * extent.tokens)
    read = tape.linear(mixed, features, width)
    # Until the projection is made all of them live.
    del h, queries, mixed
    return tape.add(x, read)


def passage_of(architecture: Architecture, index: int, extent: Extent, size: int, *, records: bool) -> Passage:
    """That of one layer of the (last) stack of an architecture."""
    layer, around = architecture.placed_layers[len(architecture.encoder_layers) + index]
    place = Place(architecture.norm, index > 0 or not architecture.embedding_norm)
    return layer_passage(layer, around, place, extent, size, records=records)
