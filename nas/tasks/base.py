"""What a task is: data, batches, loss, metrics and trivial baselines. It knows nothing of models.

In: the options of a study's task. Out: training batches as a pure function of (seed, step),
held-out batches that score the same positions for every context, and metrics with the names and
units of the task's specification.

Legend: B sequences, L positions, N positions of a batch in one row, V token kinds.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from nas.errors import DataError
from nas.records import Split
from nas.specs.tasks import TaskShape, TaskSpec
from nas.tasks.inputs import Inputs
from nas.tasks.metrics import IGNORED, Metrics, summed_nats
from nas.tasks.tokenizers import Tokenizer

__all__ = ["IGNORED", "Batch", "Inputs", "Labels", "Questions", "Spans", "StepShape", "Task", "hashed"]


@dataclass(frozen=True)
class Batch:
    """Sequences of one length.

    Attributes:
        inputs: what a model reads.
        targets_BL: int64: what the model is to say at each position, −100 where nothing is scored;
            (B,) where it speaks once for each sequence, (B, labels) of 0 and 1 where several labels
            may hold at once, (B, L, 3) where it points at spans (`nas.tasks.extractive.reading`).
        example_B: int64: of which held-out example each row is a part; None where nobody asks.
    """

    inputs: Inputs
    targets_BL: Tensor
    example_B: Tensor | None = None

    def __post_init__(self) -> None:
        tokens_BL = self.inputs.tokens_BL
        assert tokens_BL.ndim == 2 and len(self.targets_BL) == len(tokens_BL)
        assert tokens_BL.dtype == self.targets_BL.dtype == torch.int64

    @property
    def inputs_BL(self) -> Tensor:  # noqa: N802
        """The tokens; of an encoder–decoder, those that the decoder reads."""
        return self.inputs.tokens_BL

    @property
    def tokens(self) -> int:
        """Tokens that a model reads in this batch, those of a source included."""
        source_BS = self.inputs.source_BS
        return self.inputs_BL.numel() + (0 if source_BS is None else source_BS.numel())

    def to(self, device: torch.device | str, **options: Any) -> Batch:
        """The same batch on another device."""
        example_B = None if self.example_B is None else self.example_B.to(device, **options)
        return Batch(self.inputs.to(device, **options), self.targets_BL.to(device, **options), example_B)


@dataclass(frozen=True)
class Labels:
    """What a classifier's outputs stand for, and how it reads a text.

    Attributes:
        names: one for each output of a head over labels, or for each token that says one.
        several: whether any number of them may hold at once.
        too_long: how a text that is longer than the context is read (`nas.specs.tasks.TOO_LONG`).
    """

    names: tuple[str, ...]
    several: bool = False
    too_long: str = "truncate"


@dataclass(frozen=True)
class Spans:
    """How spans that answer questions are found.

    Attributes:
        most_tokens: of a span.
        always_answered: whether every question has an answer.
        too_long: how a context that is longer than its room is read (`nas.specs.tasks.TOO_LONG`).
    """

    most_tokens: int
    always_answered: bool
    too_long: str = "truncate"


@dataclass(frozen=True)
class Questions:
    """Prompts whose answers are generated, greedily, and then scored as texts.

    Attributes:
        inputs: what a model reads before it answers.
        example_B: which held-out example each row is.
        most_tokens: at most so many tokens are generated.
        stop_tokens: an answer ends before one of these.
    """

    inputs: Inputs
    example_B: tuple[int, ...]
    most_tokens: int
    stop_tokens: frozenset[int]


@dataclass(frozen=True)
class StepShape:
    """The sizes of a training step's batch.

    Attributes:
        sequences: how many.
        length: tokens of each, padding included; of an encoder–decoder, those that the decoder reads.
        source_length: tokens of each source, or 0.
    """

    sequences: int
    length: int
    source_length: int = 0

    @property
    def tokens_of_one(self) -> int:
        """Tokens that a model reads of one sequence."""
        return self.length + self.source_length

    @property
    def tokens(self) -> int:
        """Tokens that a model reads in the step."""
        return self.sequences * self.tokens_of_one


class Task(ABC):
    """A job that models are trained and measured on.

    Attributes:
        spec: the torch-free specification.
        shape: what the task fixes of a model.
        data_version: hash of the data that was read and of the options that shape it.
        tokenizer: text to tokens and back; None where the tokens stand for no text.
        labels: of a task whose models speak once about each sequence, after its last token where they
            speak everywhere: what its labels are called; None for every other task.
        spans: how a head over spans finds them; None for every other head.
        bytes_per_token: of the text that is trained on, on average; 1 where tokens stand for no text.
        scores_sequences: whether the loss and the metrics take the logits of whole sequences, (B, L, C),
            instead of those at the scored positions alone, (N, C).
    """

    spec: ClassVar[TaskSpec]
    scores_sequences: ClassVar[bool] = False
    labels: Labels | None = None
    bytes_per_token: float = 1.0
    spans: Spans | None = None
    shape: TaskShape
    data_version: str
    tokenizer: Tokenizer | None

    @abstractmethod
    def __init__(self, options: Mapping[str, Any]) -> None:
        """Reads the data.

        Args:
            options: checked and completed by the specification.

        Raises:
            DataError: the data cannot be used as asked.
        """

    @classmethod
    def source_stamp(cls, options: Mapping[str, Any]) -> tuple[object, ...]:
        """What changes when the files behind the options do; cheap, for `load_task`'s cache."""
        return ()

    @abstractmethod
    def step_length(self, *, seed: int, step: int, max_context: int) -> int:
        """The length of the sequences of a training step, without making its batch.

        Where a source and a target are read, the most that either may have.
        """

    def step_shape(self, *, seed: int, step: int, tokens: int, max_context: int) -> StepShape:
        """The sizes of a training step's batch, without making it; arguments as of `training_batch`."""
        length = self.step_length(seed=seed, step=step, max_context=max_context)
        return StepShape(tokens // length, length)

    @abstractmethod
    def training_batch(self, *, seed: int, step: int, tokens: int, max_context: int) -> Batch:
        """The batch of one training step: a pure function of its arguments.

        Args:
            seed: of the training.
            step: from 0.
            tokens: of the batch; less by a part of a sequence where the step's length does not divide it.
            max_context: most tokens of a sequence.

        Raises:
            DataError: no sequence of that context can be had (see `check`).
        """

    @abstractmethod
    def evaluation_batches(self, split: Split, *, context: int, tokens_per_batch: int) -> Iterator[Batch]:
        """Held-out batches; the targets scored are the same, each once, for every context and batch size.

        The same: the same tokens of the text. A mark that is scored with them (which sentinel ends
        a span) may be numbered otherwise.

        Args:
            split: "validation" or "test".
            context: most tokens that the model sees at once.
            tokens_per_batch: most tokens of a batch, though never less than one sequence.
        """

    def questions(self, split: Split, *, context: int, tokens_per_batch: int) -> Iterator[Questions]:
        """Held-out prompts whose generated answers are scored; none unless the task has them.

        Args: as of `evaluation_batches`.
        """
        return iter(())

    def known_scores(self, split: Split, *, context: int) -> dict[str, float]:
        """Metrics that are known without a model: what of the data a context holds."""
        return {}

    def curve_contexts(self, max_context: int) -> tuple[int, ...]:
        """The contexts besides max_context that a finished candidate is scored at where its study names none.

        A quarter, a half and twice of it, from 16 tokens on.
        """
        return tuple(context for context in (max_context // 4, max_context // 2, 2 * max_context) if context >= 16)

    @abstractmethod
    def metrics(self) -> Metrics:
        """Fresh accumulators of every metric that the specification has for the task's options."""

    @abstractmethod
    def baseline(self, split: Split) -> dict[str, float]:
        """What a trivial guesser scores, for each of `metrics`."""

    @abstractmethod
    def longest_sequence(self, max_context: int) -> int:
        """The longest sequence that training with `max_context` needs, in tokens, its source included.

        Raises:
            DataError: there is none for this max_context; names the nearest valid one.
        """

    def check(self, *, tokens: int, max_context: int) -> None:
        """Whether training steps of `tokens` tokens can be had for `max_context`.

        Raises:
            DataError: with the nearest valid value.
        """
        if max_context < 1:
            raise DataError(f"max_context must be at least 1 token, not {max_context}")
        longest = self.longest_sequence(max_context)
        if tokens < longest:
            raise DataError(
                f"a training step must hold one sequence: {tokens} tokens are less than {longest}; "
                f"nearest: {longest} tokens per step"
            )

    def loss(self, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        """Mean cross-entropy in nats over the scored positions; 0 where none is scored.

        A task with `scores_sequences` has a loss of its own, of logits (B, L, C) and targets (B, L); so
        has one with several labels, of (B, C) and (B, C).
        """
        nats, scored = summed_nats(logits_NV, targets_N)
        return nats / scored.clamp(min=1)


def hashed(facts: Mapping[str, object], digest: str = "") -> str:
    """16 hexadecimal digits for plain facts and the digest of what was read."""
    text = json.dumps([dict(sorted(facts.items())), digest])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
