"""Memory and compute of an architecture, from its specifications alone.

In: an `Architecture`, and the context, batch and dtypes that it is asked at. Out: an `Estimate`.
Parameters and state are exact. The peaks count parameters, gradients, optimizer state and what
autograd keeps, tensor by tensor, in eager mode; short-lived temporaries are counted for the two
largest moments alone, so a peak is an estimate and says so.

Conventions: weights and cache in bf16 and recurrent state in fp32 unless a dtype is given, which
then holds for weights and cache; training in fp32 with AdamW. MiB is 2**20 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from nas.cost.dtypes import bytes_per_element
from nas.errors import SpaceError
from nas.space.architecture import Architecture, Layer
from nas.specs import family_spec, mixer_spec, mlp_spec
from nas.specs.tasks import TaskShape

# What a network without a task counts as: a language model on bytes and one special token.
BYTE_LEVEL = TaskShape(vocabulary=257, head="causal_lm")
RECURRENT_DTYPE = "fp32"
TRAINING_BYTES = 4
# Weights, gradients and the two moments of AdamW.
TRAINING_COPIES = 4


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What an architecture costs at one context, batch and dtype.

    The formulas hold at any context, beyond max_context too: full layers keep every token, windows
    their own. Building a model and generating with it still stop at max_context.

    Attributes:
        context: tokens in the state.
        batch: sequences.
        dtype: of weights and cache.
        param_bytes: weights; exact.
        state_bytes: what decoding keeps for all sequences; exact.
        prefill_peak_bytes: weights, state and the largest live activations of one forward pass.
        train_peak_bytes: of a training step in fp32 with AdamW at this batch and context.
        parameters: trainable elements; exact.
        flops_per_token: of training (forward and backward), at this context.
        decode_flops_per_token: of generating one token with a full state.
    """

    context: int
    batch: int
    dtype: str
    param_bytes: int
    state_bytes: int
    prefill_peak_bytes: int
    train_peak_bytes: int
    parameters: int
    flops_per_token: float
    decode_flops_per_token: float

    @property
    def serve_bytes(self) -> int:
        """Weights and state together; exact."""
        return self.param_bytes + self.state_bytes


def estimate(
    architecture: Architecture, *, context: int | None = None, batch: int = 1, dtype: str = "bf16"
) -> Estimate:
    """The cost of an architecture.

    Args:
        architecture: one that no task has bound counts as a byte-level language model.
        context: tokens, at least 1; the architecture's own max_context by default.
        batch: sequences.
        dtype: of weights and cache: "bf16", "fp16", "fp32" or "fp64".

    Raises:
        SpaceError: a context or a batch below 1, or an unknown dtype.
    """
    architecture = bound(architecture)
    context = architecture.max_context if context is None else context
    if context < 1:
        raise SpaceError(f"context must be at least 1, not {context}")
    if batch < 1:
        raise SpaceError(f"batch must be at least 1, not {batch}")
    size = bytes_per_element(dtype)
    parameters = count_parameters(architecture)
    state = batch * _state_bytes(architecture, context, size)
    return Estimate(
        context=context,
        batch=batch,
        dtype=dtype,
        param_bytes=parameters * size,
        state_bytes=state,
        prefill_peak_bytes=parameters * size + state + batch * context * size * _live_elements(architecture),
        train_peak_bytes=_train_peak_bytes(architecture, parameters, batch, context),
        parameters=parameters,
        flops_per_token=training_flops_per_token(architecture, context),
        decode_flops_per_token=_decode_flops(architecture, context),
    )


def count_parameters(architecture: Architecture) -> int:
    """Trainable elements; exact."""
    assert architecture.vocabulary is not None
    outside = family_spec(architecture.family).parameters(
        width=architecture.width, vocabulary=architecture.vocabulary, tied_embeddings=architecture.tied_embeddings
    )
    return outside + sum(_layer_parameters(architecture, layer) for layer in architecture.layers)


def training_flops_per_token(architecture: Architecture, length: int) -> float:
    """FLOPs of the forward and backward pass of one token in a sequence of `length`.

    The backward pass costs two forward passes (Kaplan et al. 2020).
    """
    architecture = bound(architecture)
    around = architecture.surroundings
    forward = sum(
        mixer_spec(layer.mixer).forward_flops(layer.values, around, length) + _position_wise_flops(architecture, layer)
        for layer in architecture.layers
    )
    return 3.0 * (forward + _head_flops(architecture))


def _layer_parameters(architecture: Architecture, layer: Layer) -> int:
    width = architecture.width
    mlp = mlp_spec(str(layer.mlp))
    norms = width * (1 if layer.mlp == "none" else 2)
    convolution = width * int(layer.short_conv)
    hidden = int(layer.values.get("mlp_hidden", 0))
    mixer = mixer_spec(layer.mixer).parameters(layer.values, architecture.surroundings)
    return norms + convolution + mixer + mlp.parameters(width, hidden)


def _state_bytes(architecture: Architecture, context: int, cache_size: int) -> int:
    around, total = architecture.surroundings, 0
    recurrent_size = bytes_per_element(RECURRENT_DTYPE)
    for layer in architecture.layers:
        spec = mixer_spec(layer.mixer)
        convolution = max(int(layer.short_conv) - 1, 0) * architecture.width
        total += cache_size * (spec.cache_elements(layer.values, around, context) + convolution)
        total += recurrent_size * spec.recurrent_elements(layer.values, around)
    return total


def _position_wise_flops(architecture: Architecture, layer: Layer) -> float:
    hidden = int(layer.values.get("mlp_hidden", 0))
    mlp = mlp_spec(str(layer.mlp)).parameters(architecture.width, hidden)
    return 2.0 * (mlp + architecture.width * int(layer.short_conv))


def _head_flops(architecture: Architecture) -> float:
    assert architecture.vocabulary is not None
    return 2.0 * architecture.width * architecture.vocabulary


def _decode_flops(architecture: Architecture, context: int) -> float:
    around = architecture.surroundings
    inside = sum(
        mixer_spec(layer.mixer).decode_flops(layer.values, around, context) + _position_wise_flops(architecture, layer)
        for layer in architecture.layers
    )
    return inside + _head_flops(architecture)


def _live_elements(architecture: Architecture) -> int:
    """Elements per token alive at once in a forward pass: the residual stream and the widest temporary."""
    widest = 0
    for layer in architecture.layers:
        hidden = int(layer.values.get("mlp_hidden", 0))
        widest = max(widest, 3 * hidden + architecture.width, 4 * architecture.width)
    return architecture.width + widest


def _train_peak_bytes(architecture: Architecture, parameters: int, batch: int, length: int) -> int:
    assert architecture.vocabulary is not None
    around, width = architecture.surroundings, architecture.width
    per_token = 0.0
    for layer in architecture.layers:
        mlp = mlp_spec(str(layer.mlp))
        hidden = int(layer.values.get("mlp_hidden", 0))
        # Each norm keeps its input, the normalised one and a scale; a convolution keeps its input.
        norms = (2 * width + 1) * (1 if layer.mlp == "none" else 2)
        convolution = width if int(layer.short_conv) else 0
        per_token += norms + convolution + mlp.saved_elements(width, hidden)
        per_token += mixer_spec(layer.mixer).saved_elements(layer.values, around, length)
    # The final norm, the head's input, tokens and targets (int64), and at the loss the logits,
    # their log-probabilities and their gradient.
    per_token += 3 * width + 1 + 4 + 3 * architecture.vocabulary
    return round(TRAINING_BYTES * (TRAINING_COPIES * parameters + batch * length * per_token))


def bound(architecture: Architecture) -> Architecture:
    """The architecture, as a byte-level language model where no task has bound it."""
    return architecture if architecture.vocabulary is not None else architecture.bind(BYTE_LEVEL)
