"""Memory and compute of an architecture, from its specifications alone.

In: an `Architecture`, and the context, batch and dtypes that it is asked at. Out: an `Estimate`.
Parameters and state are exact. The peaks are followed tensor by tensor as eager PyTorch makes and lets
go of them (`nas.cost.peaks`), without the space that kernels take for themselves.

Conventions: weights and cache in bf16 and recurrent state in fp32 unless a dtype is given, which
then holds for weights and cache, unless the cache has its own (`nas.cost.state`); training in fp32
with AdamW. MiB is 2**20 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from nas.cost.dtypes import bytes_per_element
from nas.cost.peaks import OPTIMIZERS, TrainingPeak, prefill_peak, training_peak
from nas.cost.state import CACHE_WINDOW, RECURRENT_DTYPE, StateFormat, state_bytes
from nas.errors import SpaceError, did_you_mean
from nas.space.architecture import Architecture, relative_heads
from nas.space.layers import Layer
from nas.specs import family_spec, mixer_spec, mlp_spec
from nas.specs.base import Surroundings
from nas.specs.families import HEAD_TRANSFORMS, ModelOutline, head_outputs
from nas.specs.tasks import TaskShape

# What a network without a task counts as: a model of bytes and one special token.
BYTE_VOCABULARY = 257
TRAIN_DTYPE = "fp32"
OPTIMIZER = "adamw"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What an architecture costs at one context, batch and dtype.

    The formulas hold at any context, beyond max_context too: full layers keep every token, windows
    their own. Building a model and generating with it still stop at max_context.

    Attributes:
        context: tokens in the state.
        batch: sequences.
        dtype: of weights.
        cache_dtype: of keys and values.
        recurrent_dtype: of recurrent states.
        cache_window: latest tokens that a cache of integers keeps in full precision.
        param_bytes: weights; exact.
        state_bytes: what decoding keeps for all sequences; exact.
        train_dtype: of everything in training.
        optimizer: of training.
        checkpointing: whether training keeps each layer's input alone.
        parameters: trainable elements; exact.
        architecture: that was asked about, bound.
    """

    context: int
    batch: int
    dtype: str
    cache_dtype: str
    recurrent_dtype: str
    cache_window: int
    train_dtype: str
    optimizer: str
    checkpointing: bool
    param_bytes: int
    state_bytes: int
    parameters: int
    architecture: Architecture = field(repr=False, compare=False)

    # The rest is computed when it is asked for: a limit on one figure does not cost the others.

    @cached_property
    def prefill_peak_bytes(self) -> int:
        """Most bytes at once while prompts of `context` tokens are taken in, weights and state included.

        Of a family that does not decode, in one forward pass.
        """
        size = bytes_per_element(self.dtype)
        return prefill_peak(
            self.architecture, self.parameters, self.state_bytes, batch=self.batch, length=self.context, size=size
        )

    @cached_property
    def training_peak(self) -> TrainingPeak:
        """The fullest moment of a training step at this batch and context, and what it is made of."""
        return training_peak(
            self.architecture,
            self.parameters,
            batch=self.batch,
            length=self.context,
            size=bytes_per_element(self.train_dtype),
            optimizer=self.optimizer,
            checkpointing=self.checkpointing,
        )

    @cached_property
    def flops_per_token(self) -> float:
        """Of training (forward and backward), at this context."""
        return training_flops_per_token(self.architecture, self.context)

    @cached_property
    def prefill_flops_per_token(self) -> float:
        """Of a forward pass over `context` tokens."""
        # The backward pass costs two forward ones.
        return self.flops_per_token / 3.0

    @cached_property
    def decode_flops_per_token(self) -> float:
        """Of generating one token with a full state."""
        return _decode_flops(self.architecture, self.context)

    @property
    def serve_bytes(self) -> int:
        """Weights and state together; exact."""
        return self.param_bytes + self.state_bytes

    @property
    def train_peak_bytes(self) -> int:
        """All of `training_peak`."""
        return self.training_peak.total


def estimate(
    architecture: Architecture,
    *,
    context: int | None = None,
    batch: int = 1,
    dtype: str = "bf16",
    cache_dtype: str | None = None,
    recurrent_dtype: str = RECURRENT_DTYPE,
    cache_window: int = CACHE_WINDOW,
    train_dtype: str = TRAIN_DTYPE,
    optimizer: str = OPTIMIZER,
    checkpointing: bool = False,
) -> Estimate:
    """The cost of an architecture.

    Args:
        architecture: one that no task has bound counts as a byte-level language model.
        context: tokens, at least 1; the architecture's own max_context by default.
        batch: sequences.
        dtype: of weights: "bf16", "fp16", "fp32" or "fp64".
        cache_dtype: of keys and values: one of these, "fp8", "int8", "int4" or "int2" (`nas.cost.state`);
            `dtype` by default.
        recurrent_dtype: of recurrent states: as of weights.
        cache_window: latest tokens that a cache of integers keeps in full precision.
        train_dtype: of everything in training, "fp32" by default.
        optimizer: "adamw", "momentum" or "sgd".
        checkpointing: whether training keeps each layer's input alone and runs the layer again on the way back.

    Raises:
        SpaceError: a context or a batch below 1, a context beyond a table of learned positions, a window below 0,
            an unknown dtype or an unknown optimizer.
    """
    architecture = bound(architecture)
    context = architecture.max_context if context is None else context
    if context < 1:
        raise SpaceError(f"context must be at least 1, not {context}")
    if batch < 1:
        raise SpaceError(f"batch must be at least 1, not {batch}")
    if architecture.positions == "learned" and context > architecture.max_context:
        most = architecture.max_context
        raise SpaceError(f"learned positions end at max_context: {context} tokens do not fit, nearest {most}")
    if optimizer not in OPTIMIZERS:
        raise SpaceError(f"unknown optimizer '{optimizer}': {did_you_mean(optimizer, OPTIMIZERS)}")
    bytes_per_element(train_dtype)
    size = bytes_per_element(dtype)
    parameters = count_parameters(architecture)
    form = StateFormat(
        cache_dtype=dtype if cache_dtype is None else cache_dtype,
        recurrent_dtype=recurrent_dtype,
        cache_window=cache_window,
    )
    state = batch * state_bytes(architecture, context, form)
    return Estimate(
        context=context,
        batch=batch,
        dtype=dtype,
        cache_dtype=form.cache_dtype,
        recurrent_dtype=form.recurrent_dtype,
        cache_window=form.cache_window,
        param_bytes=parameters * size,
        state_bytes=state,
        train_dtype=train_dtype,
        optimizer=optimizer,
        checkpointing=checkpointing,
        parameters=parameters,
        architecture=architecture,
    )


def count_parameters(architecture: Architecture) -> int:
    """Trainable elements; exact."""
    outside = family_spec(architecture.family).parameters(outline(architecture))
    return outside + sum(
        _layer_parameters(architecture, layer, around, index) for index, layer, around in _indexed(architecture)
    )


def outline(architecture: Architecture) -> ModelOutline:
    """What a family must know of a bound architecture to count what lies outside its layers."""
    assert architecture.vocabulary is not None and architecture.head is not None
    stacks = (
        (architecture.encoder_layers, architecture.layers) if architecture.encoder_layers else (architecture.layers,)
    )
    return ModelOutline(
        width=architecture.width,
        vocabulary=architecture.vocabulary,
        max_context=architecture.max_context,
        tied_embeddings=architecture.tied_embeddings,
        positions=architecture.positions,
        norm=architecture.norm,
        embedding_norm=architecture.embedding_norm,
        head=architecture.head,
        labels=architecture.labels,
        relative_heads=tuple(relative_heads(layers, architecture.positions) for layers in stacks),
    )


def training_flops_per_token(architecture: Architecture, length: int) -> float:
    """FLOPs of the forward and backward pass of one token in a sequence of `length`.

    The backward pass costs two forward passes (Kaplan et al. 2020). Of an encoder–decoder, the
    mean over the tokens of a source and a target of `length` each.
    """
    architecture = bound(architecture)
    tokens = length * (2 if architecture.encoder_layers else 1)
    return 3.0 * forward_flops(architecture, length=length, source_length=length) / tokens


def forward_flops(architecture: Architecture, *, length: int, source_length: int = 0) -> float:
    """FLOPs of the forward pass of one sequence.

    Args:
        architecture: bound to a task.
        length: its tokens; of an encoder–decoder, those of the target.
        source_length: tokens of an encoder–decoder's source.
    """
    total = length * _head_flops(architecture)
    for layer, around in architecture.placed_layers:
        is_encoder = bool(architecture.encoder_layers) and not around.has_source
        tokens = source_length if is_encoder else length
        mixer = mixer_spec(layer.mixer).forward_flops(layer.values, around, tokens) if tokens else 0.0
        total += tokens * (mixer + _position_wise_flops(architecture, layer))
        if around.has_source:
            width, projections = architecture.width, _cross_projection(layer)
            # Queries and output for each token of the target, keys and values for each of the source.
            total += 4.0 * width * (tokens * projections.queries + source_length * projections.keys)
            total += 4.0 * projections.queries * tokens * source_length
    return total


@dataclass(frozen=True)
class _Projections:
    """Features of all heads of the attention to a source: its queries' and its keys'."""

    queries: int
    keys: int


def _cross_projection(layer: Layer) -> _Projections:
    values = layer.values
    head_dim = int(values["cross_head_dim"])
    return _Projections(int(values["cross_heads"]) * head_dim, int(values["cross_kv_heads"]) * head_dim)


def _indexed(architecture: Architecture) -> Iterator[tuple[int, Layer, Surroundings]]:
    """All layers with their place in their stack and what is around them."""
    before = len(architecture.encoder_layers)
    for place, (layer, around) in enumerate(architecture.placed_layers):
        yield (place if place < before else place - before), layer, around


def _norms(architecture: Architecture, layer: Layer, around: Surroundings, index: int) -> int:
    """How many norms a layer has; a normalised embedding spares the first mixer its own."""
    has_mixer_norm = layer.mixer != "none" and not (architecture.embedding_norm and index == 0)
    return has_mixer_norm + (layer.mlp != "none") + around.has_source


def _layer_parameters(architecture: Architecture, layer: Layer, around: Surroundings, index: int) -> int:
    width = architecture.width
    hidden = int(layer.values.get("mlp_hidden", 0))
    total = width * (_norms(architecture, layer, around, index) + int(layer.short_conv))
    total += mixer_spec(layer.mixer).parameters(layer.values, around)
    total += mlp_spec(str(layer.mlp)).parameters(width, hidden)
    if around.has_source:
        projections = _cross_projection(layer)
        total += 2 * width * (projections.queries + projections.keys)
    return total


def _position_wise_flops(architecture: Architecture, layer: Layer) -> float:
    hidden = int(layer.values.get("mlp_hidden", 0))
    mlp = mlp_spec(str(layer.mlp)).parameters(architecture.width, hidden)
    return 2.0 * (mlp + architecture.width * int(layer.short_conv))


def _head_flops(architecture: Architecture) -> float:
    """Per token; a head that speaks once a sequence counts as if it spoke at each."""
    transforms = HEAD_TRANSFORMS.get(str(architecture.head), 0) * architecture.width**2
    return 2.0 * (architecture.width * _outputs(architecture) + transforms)


def _outputs(architecture: Architecture) -> int:
    """Logits of one token."""
    assert architecture.vocabulary is not None and architecture.head is not None
    return head_outputs(architecture.head, vocabulary=architecture.vocabulary, labels=architecture.labels)


def _decode_flops(architecture: Architecture, context: int) -> float:
    around, total = architecture.surroundings, _head_flops(architecture)
    for layer in architecture.layers:
        total += mixer_spec(layer.mixer).decode_flops(layer.values, around, context)
        total += _position_wise_flops(architecture, layer)
        if around.has_source:
            total += 4.0 * _cross_projection(layer).queries * (architecture.width + context)
    return total


def bound(architecture: Architecture) -> Architecture:
    """The architecture, bound to bytes and its family's natural head where no task has bound it."""
    if architecture.vocabulary is not None:
        return architecture
    head = family_spec(architecture.family).natural_head
    return architecture.bind(TaskShape(vocabulary=BYTE_VOCABULARY, head=head))
