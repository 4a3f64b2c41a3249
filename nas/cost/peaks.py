"""The most bytes that a whole model holds at once: in a training step, and while it takes in a prompt.

In: a bound architecture and what it is given. Out: bytes, and what they are at the fullest moment. Each part of a
model is followed on its own (`nas.cost.memory`); here they are put one behind the other, forward and back.

What is counted is what eager PyTorch holds on the device: weights, what the optimizer keeps (AdamW's two moments,
and the running average that a training here scores), tokens and targets, what autograd keeps, gradients as they
come, and whatever an operation makes and lets go. Not counted is what a kernel takes for itself and gives back
before it returns, nor what the allocator rounds up or keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from nas.cost.memory import (
    Entrance,
    Exit,
    Passage,
    Place,
    entrance_passage,
    exit_passage,
    head_bytes,
    layer_passage,
    norm_passage,
)
from nas.errors import SpaceError, did_you_mean
from nas.space.architecture import Architecture
from nas.specs import family_spec
from nas.specs.families import HEAD_TRANSFORMS, VOCABULARY_HEADS, head_outputs
from nas.specs.tape import INDEX, Extent

OPTIMIZERS: Final[Mapping[str, int]] = {"adamw": 2, "momentum": 1, "sgd": 0}
"""Numbers that an optimizer keeps for each weight."""

AVERAGES: Final = 1
"""Running averages of each weight that a training keeps besides."""


@dataclass(frozen=True, kw_only=True)
class TrainingPeak:
    """The fullest moment of a training step, in bytes.

    Attributes:
        parameters: weights.
        optimizer: its moments, and the running average of the weights.
        gradients: of weights, those that are there at that moment.
        activations: tokens, targets, and what is kept for the way back.
        temporaries: what is made and let go.
    """

    parameters: int
    optimizer: int
    gradients: int
    activations: int
    temporaries: int

    @property
    def total(self) -> int:
        """All together."""
        return self.parameters + self.optimizer + self.gradients + self.activations + self.temporaries


@dataclass(frozen=True)
class _Part:
    """A part of a model.

    Attributes:
        kind: "enter", "layer", "norm" (which ends an encoder) or "exit".
        passage: what it does.
        output: bytes of what it gives.
        source: bytes of a source that it reads.
    """

    kind: str
    passage: Passage
    output: int
    source: int = 0

    @property
    def is_layer(self) -> bool:
        return self.kind == "layer"


def training_peak(
    architecture: Architecture,
    parameters: int,
    *,
    batch: int,
    length: int,
    size: int = 4,
    optimizer: str = "adamw",
    checkpointing: bool = False,
) -> TrainingPeak:
    """The fullest moment of a step over `batch` sequences of `length` tokens, all of which are scored.

    Args:
        architecture: bound to a task.
        parameters: its weights.
        batch: sequences.
        length: tokens of each; of an encoder–decoder, of each source and of each target.
        size: bytes of a number.
        optimizer: a name of `OPTIMIZERS`.
        checkpointing: whether layers keep their input alone and run again on the way back (Chen et al. 2016).

    Raises:
        SpaceError: there is no such optimizer.
    """
    assert architecture.vocabulary is not None
    if optimizer not in OPTIMIZERS:
        raise SpaceError(f"unknown optimizer '{optimizer}': {did_you_mean(optimizer, OPTIMIZERS)}")
    parts = list(_parts(architecture, batch, length, size, records=True))
    weights = parameters * size
    states = weights * (OPTIMIZERS[optimizer] + AVERAGES)
    # Tokens, targets, and of an encoder–decoder the source.
    given = batch * length * INDEX * (3 if architecture.encoder_layers else 2)
    best = (0, 0, 0)
    kept = given
    held: list[int] = []
    for index, part in enumerate(parts):
        passage = part.passage
        own = 0 if checkpointing and part.is_layer else passage.kept
        best = max(best, (kept + passage.forward_peak, 0, kept + own))
        held.append(kept)
        follower = parts[index + 1] if index + 1 < len(parts) else None
        # What an encoder gives is kept by the layers that read it.
        stays = part.kind == "norm" or (
            follower is not None and (follower.passage.keeps_input or (checkpointing and follower.is_layer))
        )
        kept += own + (part.output if stays else 0)
        if follower is not None and not stays:
            # The next part's input lives while that part runs.
            best = max(best, (kept + part.output + follower.passage.forward_peak, 0, kept))
    gradients = source_gradient = shared_gradient = 0
    embedding = architecture.vocabulary * architecture.width * size
    for index in range(len(parts) - 1, -1, -1):
        part = parts[index]
        passage = part.passage
        highest = passage.backward_peak
        if checkpointing and part.is_layer:
            highest = max(highest, passage.forward_peak)
        above = part.output if index < len(parts) - 1 else 0
        # What reaches the end of an encoder is the gradient of the source itself.
        waiting = 0 if part.kind == "norm" else source_gradient
        best = max(best, (held[index] + gradients + above + waiting + highest, gradients, held[index] + passage.kept))
        gradients += passage.weight_bytes
        if part.kind == "enter" and shared_gradient:
            # A second gradient of the embedding is added to the first, into a third storage.
            best = max(best, (held[index] + gradients + waiting + embedding, gradients, held[index]))
            gradients -= embedding
        if part.kind == "enter" or (part.kind == "exit" and shares_embedding(architecture)):
            shared_gradient = embedding
        if part.kind == "norm":
            source_gradient = 0
        elif part.is_layer and part.source:
            source_gradient = part.source
    best = max(best, (given + weights, weights, given))
    total, at_gradients, at_kept = best
    return TrainingPeak(
        parameters=weights,
        optimizer=states,
        gradients=at_gradients,
        activations=at_kept,
        temporaries=total - at_gradients - at_kept,
    )


def prefill_peak(architecture: Architecture, parameters: int, state: int, *, batch: int, length: int, size: int) -> int:
    """The most bytes while `batch` prompts of `length` tokens are taken in, weights and state included.

    Of a family that does not decode: of one forward pass over as much, with what the head says of it.

    Args:
        architecture: bound to a task.
        parameters: its weights.
        state: bytes of the state that is filled.
        batch: sequences.
        length: tokens of each.
        size: bytes of a number.
    """
    decodes = family_spec(architecture.family).decodes
    highest = entered = current = source = 0
    for part in _parts(architecture, batch, length, size, records=False):
        # The embedded tokens live as long as their stack runs, and beside them what the last layer gave. A decoder
        # has let them go before its head speaks; an encoder has let go of its stack too.
        here = source + current + (0 if part.kind == "norm" or (part.kind == "exit" and decodes) else entered)
        highest = max(highest, here + part.passage.forward_peak)
        if part.kind == "enter":
            entered, current = part.output, 0
        elif part.kind == "layer":
            current = part.output
        elif part.kind == "norm":
            source = part.output
    if not decodes:
        highest = max(highest, head_bytes(_exit(architecture), Extent(batch, length), size))
    tokens = batch * length * INDEX * (2 if architecture.encoder_layers else 1)
    return parameters * size + state + tokens + highest


def _parts(architecture: Architecture, batch: int, length: int, size: int, *, records: bool) -> Iterator[_Part]:
    """The parts of a model, in the order in which they run."""
    width = architecture.width
    output = batch * length * width * size
    family = family_spec(architecture.family)
    assert architecture.vocabulary is not None and architecture.head is not None
    tables = int(getattr(family, "position_tables", 1)) if architecture.positions == "learned" else 0
    entrance = Entrance(
        architecture.vocabulary,
        width,
        architecture.max_context if tables else 0,
        tables,
        architecture.norm if architecture.embedding_norm else "",
    )
    later = Place(architecture.norm)
    first = Place(architecture.norm, has_mixer_norm=False) if architecture.embedding_norm else later
    has_source = bool(architecture.encoder_layers)
    extent = Extent(batch, length)
    if has_source:
        both = Extent(batch, length, length)
        yield _Part("enter", entrance_passage(entrance, both, size, records=records), output)
        around = architecture.encoder_surroundings
        for index, layer in enumerate(architecture.encoder_layers):
            passage = layer_passage(layer, around, first if index == 0 else later, both, size, records=records)
            yield _Part("layer", passage, output)
        yield _Part("norm", norm_passage(width, architecture.norm, both, size, records=records), output)
        extent = Extent(batch, length, 0, length)
    around = architecture.surroundings
    if around.looks_ahead:
        # Of a prefix language model, half of each sequence is its prefix; an encoder sees all.
        extent = Extent(batch, length, length // 2 if family.decodes else length)
    source = output if has_source else 0
    yield _Part("enter", entrance_passage(entrance, extent, size, records=records), output, source)
    for index, layer in enumerate(architecture.layers):
        passage = layer_passage(layer, around, first if index == 0 else later, extent, size, records=records)
        yield _Part("layer", passage, output, source)
    leave = _exit(architecture)
    if records or family.decodes:
        passage = exit_passage(leave, extent, size, records=records, last_only=not records)
    else:
        passage = norm_passage(width, architecture.norm, extent, size, records=False)
    yield _Part("exit", passage, 0, source)


def shares_embedding(architecture: Architecture) -> bool:
    """Whether the head's weights are the embedding's."""
    return architecture.head in VOCABULARY_HEADS and architecture.tied_embeddings


def _exit(architecture: Architecture) -> Exit:
    head = str(architecture.head)
    assert architecture.vocabulary is not None
    looks_ahead = architecture.surroundings.looks_ahead
    is_sequence = head == "sequence_classification"
    transforms = HEAD_TRANSFORMS.get(head, 1 if is_sequence and looks_ahead else 0)
    return Exit(
        width=architecture.width,
        outputs=head_outputs(head, vocabulary=architecture.vocabulary, labels=architecture.labels),
        norm=architecture.norm,
        transforms=transforms,
        bias=bool(transforms) or head in ("token_classification", "span"),
        once=("mean" if looks_ahead else "last") if is_sequence else "",
    )
