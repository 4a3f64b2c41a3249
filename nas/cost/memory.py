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
from nas.specs.mixers.convolution import short_convolution
from nas.specs.sketches.attention_pieces import fused_attention
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
    storage = x.storage
    assert storage is not None
    keeps_input = any(saved is storage for node in tape.nodes for saved in node.saved)
    return _passage(tape, y, before, keeps_input=keeps_input)


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
    # Neither what the mixer has read nor the source's keys and values are let go before the layer returns: `prefill`
    # holds them in variables.
    remembered = None
    if source is not None:
        remembered = _remembered(tape, source, options, width)
        x = _cross(tape, x, remembered, options, width, place, extent)
    mlp = mlp_spec(str(layer.mlp))
    if layer.mlp == "none":
        return x
    return tape.add(x, mlp.sketch(tape, _norm(tape, x, width, place.norm), width, int(options.get("mlp_hidden", 0))))


def _norm(tape: Tape, x: Shadow, width: int, kind: str) -> Shadow:
    return tape.layer_norm(x, width) if kind == "layer" else tape.rms_norm(x, width)


def _remembered(tape: Tape, source: Shadow, options: Mapping[str, Value], width: int) -> tuple[Shadow, Shadow]:
    """`CrossAttention.remember`: keys and values of a source."""
    features = int(options["cross_kv_heads"]) * int(options["cross_head_dim"])
    return tape.linear(source, width, features), tape.linear(source, width, features)


def _cross(
    tape: Tape,
    x: Shadow,
    remembered: tuple[Shadow, Shadow],
    options: Mapping[str, Value],
    width: int,
    place: Place,
    extent: Extent,
) -> Shadow:
    heads, features = int(options["cross_heads"]), int(options["cross_heads"]) * int(options["cross_head_dim"])
    h = _norm(tape, x, width, place.norm)
    queries = tape.linear(h, width, features)
    mixed = fused_attention(tape, queries, *remembered, heads * extent.tokens)
    read = tape.linear(mixed, features, width)
    # Until the projection is made all of them live.
    del h, queries, mixed
    return tape.add(x, read)


@dataclass(frozen=True)
class Entrance:
    """What turns tokens into the features of the first layer.

    Attributes:
        vocabulary: token kinds.
        width: features.
        positions: learned ones to look up; 0: none.
        tables: of learned positions.
        norm: "rms" or "layer" where the embedding is normalised, else "".
    """

    vocabulary: int
    width: int
    positions: int
    tables: int
    norm: str


@lru_cache(maxsize=4096)
def entrance_passage(entrance: Entrance, extent: Extent, size: int, *, records: bool) -> Passage:
    """What the embedding of a stack does. Its output counts as the part's own."""
    tape = Tape(size, records=records)
    width = entrance.width
    embedded = tape.op([], extent.tokens * width, weights=tape.weights(entrance.vocabulary * width))
    for _ in range(entrance.tables):
        # A table's gradient is as large as the table, whatever was looked up.
        learned = tape.op([], 0, weights=tape.weights(entrance.positions * width), back=extent.length * width * size)
        embedded = tape.op([embedded, learned], embedded.elements, passes=True)
        del learned
    if entrance.norm:
        embedded = _norm(tape, embedded, width, entrance.norm)
    return _passage(tape, embedded, 0, keeps_input=False)


@dataclass(frozen=True)
class Exit:
    """What turns the features of the last layer into a loss.

    Attributes:
        width: features.
        outputs: numbers of each place that is spoken of.
        norm: "rms" or "layer".
        transforms: dense maps with a norm before the output.
        bias: whether the output has one.
        once: whether a sequence is spoken of once: "" (each token is), "last" or "mean".
    """

    width: int
    outputs: int
    norm: str
    transforms: int = 0
    bias: bool = False
    once: str = ""


@lru_cache(maxsize=4096)
def exit_passage(leave: Exit, extent: Extent, size: int, *, records: bool, last_only: bool = False) -> Passage:
    """What the final norm, the head and the loss do.

    Args:
        leave: the parts.
        extent: what the last layer gave.
        size: bytes of a floating point number.
        records: whether a loss and a way back follow.
        last_only: whether only the last token of each sequence is spoken of, as in a prefill.
    """
    tape = Tape(size, records=records)
    width = leave.width
    x = tape.source(extent.tokens * width)
    before = tape.live
    tape.peak = before
    places = extent.batch if leave.once or last_only else extent.tokens
    h = x
    if last_only or leave.once == "last":
        h = tape.view(x, places * width) if extent.length > 1 else x
    h = _norm(tape, h, width, leave.norm)
    if leave.once == "mean":
        h = tape.op([h], places * width)
    # Whoever calls the head holds what it reads.
    features = h
    logits = _head(tape, features, leave)
    if not records:
        return Passage(tape.peak - before, 0, False, 0, 0)
    loss = _cross_entropy(tape, logits, places)
    del logits, h, features
    storage = x.storage
    keeps_input = any(saved is storage for node in tape.nodes for saved in node.saved)
    return _passage(tape, loss, before, keeps_input=keeps_input)


@lru_cache(maxsize=1024)
def norm_passage(width: int, kind: str, extent: Extent, size: int, *, records: bool) -> Passage:
    """What the norm at the end of an encoder does."""
    tape = Tape(size, records=records)
    x = tape.source(extent.tokens * width)
    before = tape.live
    return _passage(tape, _norm(tape, x, width, kind), before, keeps_input=True)


def _head(tape: Tape, h: Shadow, leave: Exit) -> Shadow:
    """`nas.models.heads.Head.forward`."""
    for _ in range(leave.transforms):
        h = tape.linear(h, leave.width, leave.width)
        h = tape.pointwise(h)
        h = _norm(tape, h, leave.width, leave.norm)
    return tape.linear(h, leave.width, leave.outputs, bias=leave.bias)


@lru_cache(maxsize=4096)
def head_bytes(leave: Exit, extent: Extent, size: int) -> int:
    """Most bytes while the head alone runs, what it reads among them, and nothing is kept for a way back."""
    tape = Tape(size, records=False)
    places = extent.batch if leave.once else extent.tokens
    _head(tape, tape.source(places * leave.width), leave)
    return tape.peak


def _cross_entropy(tape: Tape, logits: Shadow, places: int) -> Shadow:
    """`nas.tasks.base.Task.loss`: logits in float32, their logarithms, and one number of each place."""
    if tape.size < 4:
        logits = tape.op([logits], logits.elements, size=4)
    # Which places are scored is asked of each.
    tape.scratch(places)
    logarithms = tape.op([logits], logits.elements, keeps=True, size=4)
    picked = tape.op([logarithms], places, saves=[logarithms], size=4)
    return tape.op([picked], 1, size=4, passes=True)


def _passage(tape: Tape, out: Shadow, before: int, *, keeps_input: bool) -> Passage:
    """What a tape tells whose part begins with `before` bytes and ends with `out`, which is not counted as kept."""
    forward_peak, kept = tape.peak - before, tape.live - before - out.bytes
    if not tape.records:
        return Passage(forward_peak, 0, False, 0, 0)
    gradient = Shadow(out.elements, out.size, Storage(tape, out.bytes), None)
    outside = before + 2 * out.bytes
    tape.peak = tape.live
    tape.backward(out, gradient)
    return Passage(forward_peak, kept, keeps_input, tape.peak - outside, tape.weight_bytes)


def passage_of(architecture: Architecture, index: int, extent: Extent, size: int, *, records: bool) -> Passage:
    """That of one layer of the (last) stack of an architecture."""
    layer, around = architecture.placed_layers[len(architecture.encoder_layers) + index]
    place = Place(architecture.norm, index > 0 or not architecture.embedding_norm)
    return layer_passage(layer, around, place, extent, size, records=records)
