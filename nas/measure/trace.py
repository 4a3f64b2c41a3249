"""Memory of a training step and of a prefill, traced operation by operation.

In: an architecture and what it is given. Out: the same figures as `nas.cost` predicts, from the network itself: it
is built and run on fake tensors, which have shapes and no memory (torch's FakeTensorMode), while every storage is
counted from its making to its end. On real tensors the same is done with `real=True`.

Where a fake trace misleads or takes long, real tensors are used (`REAL_ONLY`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from nas.cost.estimate import bound
from nas.cost.peaks import TrainingPeak
from nas.measure.tracker import Tracker
from nas.mixers.base import Layout
from nas.models.base import Model
from nas.models.build import build
from nas.models.prefix_lm import PrefixLM
from nas.models.stack import checkpoint_activations
from nas.space.architecture import Architecture
from nas.tasks.inputs import Inputs
from nas.tasks.metrics import summed_nats

# An LSTM's kernel takes memory that fake tensors do not know; the others run token by token, which takes fake tensors
# ten to twenty times as long as real ones, and little memory.
REAL_ONLY = frozenset({"lstm", "gru", "rnn"})
DTYPES = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.bfloat16, "fp16": torch.float16}


def trace_training(
    architecture: Architecture,
    *,
    context: int,
    batch: int = 1,
    dtype: str = "fp32",
    checkpointing: bool = False,
    real: bool = False,
) -> TrainingPeak:
    """The fullest moment of a training step: forward, backward, AdamW and the running average of the weights.

    Args:
        architecture: one that no task has bound counts as a byte-level language model.
        context: tokens of each sequence, at most max_context.
        batch: sequences.
        dtype: of everything: "fp32", "fp64", "bf16" or "fp16".
        checkpointing: whether layers run again on the way back.
        real: whether real tensors are used, which take as much memory as is told.
    """
    with _mode(bound(architecture), real=real):
        step = training_step(architecture, context=context, batch=batch, dtype=dtype, checkpointing=checkpointing)
        tracker = Tracker()
        tracker.count(step.weights, "parameters")
        tracker.count(step.moments, "optimizer")
        tracker.count([step.targets, *_tensors(step.inputs)], "activations")
        handles = [
            weight.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda one: tracker.count([_gradient(one)], "gradients")
            )
            for weight in step.weights
        ]
        with tracker:
            step(lambda: setattr(tracker, "kind", "temporaries"))
        for handle in handles:
            handle.remove()
    found = tracker.at_peak
    kinds = ("parameters", "optimizer", "gradients", "activations", "temporaries")
    return TrainingPeak(**{kind: found[kind] for kind in kinds})


class TrainingStep:
    """One training step of a network, made on the current default device and ready to be taken again and again.

    Attributes:
        weights: parameters.
        moments: what the optimizer keeps, and the running average of the weights.
        inputs: of a batch.
        targets: of it.
    """

    def __init__(self, model: Model, inputs: Inputs, targets: Tensor) -> None:
        self._model = model
        self.inputs = inputs
        self.targets = targets
        self.weights: list[Tensor] = list(model.parameters())
        self._average = [weight.detach().clone() for weight in self.weights]
        self._optimizer = torch.optim.AdamW(self.weights, fused=True)
        _take_first_step(self._optimizer, self.weights)
        states = (value for state in self._optimizer.state.values() for value in state.values())
        self.moments = [*self._average, *(value for value in states if value.dim())]

    def __call__(self, before_backward: Callable[[], None] | None = None) -> None:
        """Forward, backward, AdamW, and the running average of the weights."""
        self._optimizer.zero_grad(set_to_none=True)
        loss = _loss(self._model, self.inputs, self.targets)
        if before_backward is not None:
            before_backward()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        torch._foreach_lerp_(self._average, self.weights, 0.5)


def training_step(
    architecture: Architecture, *, context: int, batch: int = 1, dtype: str = "fp32", checkpointing: bool = False
) -> TrainingStep:
    """A step of full sequences; args as of `trace_training`."""
    architecture = bound(architecture)
    model = _built(architecture, DTYPES[dtype])
    checkpoint_activations(model, checkpointing)
    return TrainingStep(model, *_batch(architecture, batch, context))


def trace_prefill(
    architecture: Architecture, *, context: int, batch: int = 1, dtype: str = "bf16", real: bool = False
) -> int:
    """The most bytes while prompts are taken in, weights and state included; of an encoder, of a forward pass.

    Args: as of `trace_training`; the cache has the weights' dtype, recurrent state is in float32.
    """
    architecture = bound(architecture)
    with _mode(architecture, real=real), torch.no_grad():
        model = _built(architecture, DTYPES[dtype])
        inputs, _ = _batch(architecture, batch, context)
        tracker = Tracker()
        tracker.count(model.parameters(), "parameters")
        tracker.count(_tensors(inputs), "activations")
        with tracker:
            if model.generates:
                state = model.new_state(batch, context, source_context=context, cache_dtype=DTYPES[dtype])
                model.prefill(inputs, state)
            else:
                model.head(model.features(inputs))
    return tracker.peak


def is_real_only(architecture: Architecture) -> bool:
    """Whether fake tensors would mislead."""
    return any(layer.mixer in REAL_ONLY for layer in architecture.all_layers)


@contextmanager
def _mode(architecture: Architecture, *, real: bool) -> Iterator[None]:
    fake = not (real or is_real_only(architecture))
    with FakeTensorMode() if fake else nullcontext():
        yield


def _built(architecture: Architecture, dtype: torch.dtype) -> Model:
    """The network with weights of a dtype from the start: fake ones cannot be moved."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model = build(architecture)
    finally:
        torch.set_default_dtype(before)
    assert isinstance(model, Model)
    if isinstance(model, PrefixLM):
        # Half of each sequence is its prefix. As a number: fake tensors have none to be read.
        model.layout = lambda inputs: Layout(prefix=inputs.tokens_BL.shape[1] // 2)  # type: ignore[method-assign]
    return model


def _batch(architecture: Architecture, batch: int, context: int) -> tuple[Inputs, Tensor]:
    """Tokens and targets of sequences of full length, every token of which is scored."""
    tokens_BL = torch.zeros(batch, context, dtype=torch.int64)
    source_BS = torch.zeros_like(tokens_BL) if architecture.encoder_layers else None
    once = architecture.head == "sequence_classification"
    targets = torch.zeros(batch, dtype=torch.int64) if once else torch.zeros_like(tokens_BL)
    return Inputs(tokens_BL, source_BS=source_BS), targets


def _tensors(inputs: Inputs) -> list[Tensor]:
    return [value for value in vars(inputs).values() if isinstance(value, Tensor)]


def _loss(model: Model, inputs: Inputs, targets: Tensor) -> Tensor:
    """As `nas.measure.module.Training.training_step` has it."""
    features = model.features(inputs)
    logits = model.head(features.flatten(0, -2))
    nats, _ = summed_nats(logits, targets.flatten())
    return nats / targets.numel()


def _take_first_step(optimizer: torch.optim.Optimizer, weights: list[Tensor]) -> None:
    """Makes the moments that every later step finds."""
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _gradient(weight: Tensor) -> Tensor:
    assert weight.grad is not None
    return weight.grad
