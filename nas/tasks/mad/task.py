"""MAD as a task: a fixed training set or fresh examples, held-out ones, macro-averaged accuracy.

In: a kind and its settings. Out: batches of examples, or of windows of them where a model's context is
shorter.

A fixed training set is the same for all candidates and seeds, and every example of it is read once before
one is read again. Compression is read whole: a window of it would be an easier task.

The authors' accuracy averages the accuracies of token kinds within each batch of 128 examples, counting
kinds that are said and never right as 0, and then averages batches. Here it is taken over all held-out
examples at once, and over the token kinds that are right somewhere, so that it does not depend on the size
of batches.

Source: Poli et al. 2024 (Mechanistic design and scaling of hybrid architectures).

Legend: E examples, L positions, N scored positions in one row, W windows, V token kinds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from nas.errors import DataError
from nas.records import Split
from nas.specs import tasks as specs
from nas.tasks.base import IGNORED, Batch, Task, hashed
from nas.tasks.data import CacheWriter, cached
from nas.tasks.epochs import in_epochs
from nas.tasks.mad.fuzzy import FuzzyRecall
from nas.tasks.mad.kinds import (
    TRAINING_SET,
    Compression,
    Ints,
    Kind,
    Memorization,
    Recall,
    SelectiveCopying,
)
from nas.tasks.metrics import MeanNats, Metrics, share_right
from nas.tasks.randomness import Purpose, generator
from nas.tasks.windows import Windows, chunks, read, scored_windows

# Of the example generator; a change of it is a change of the data.
GENERATOR_VERSION = 1

KINDS: Mapping[str, type[Kind]] = {
    "in_context_recall": Recall,
    "fuzzy_recall": FuzzyRecall,
    "noisy_recall": Recall,
    "selective_copying": SelectiveCopying,
    "compression": Compression,
    "memorization": Memorization,
}


class Mad(Task):
    """One of the six kinds."""

    spec: ClassVar[specs.TaskSpec] = specs.Mad()

    def __init__(self, options: Mapping[str, Any]) -> None:
        for broken in self.spec.broken_rules(options):
            raise DataError(broken.text)
        options = self.spec.complete(options)
        self.tokenizer = None
        self._name, self._length = str(options["kind"]), int(options["length"])
        self._kind = KINDS[self._name](options)
        self.shape = specs.TaskShape(vocabulary=int(options["vocabulary"]), head=self.spec.head_for(options))
        self._training, self._examples = int(options["training_examples"]), int(options["evaluation_examples"])
        self._data_options = self.spec.data_options(options)
        self.data_version = hashed({**self._data_options, "generator": GENERATOR_VERSION})
        contexts: Any = options.get("contexts", [])
        for context in contexts:
            self._check_length("a context", context)
        self._training_set: tuple[Ints, Ints] | None = None
        self._held_out: dict[Split, tuple[Ints, Ints]] = {}

    def longest_sequence(self, max_context: int) -> int:
        """A whole example, or a window of it.

        Raises:
            DataError: compression, and the context does not hold an example.
        """
        self._check_length("max_context", max_context)
        return min(max_context, self._length)

    def step_length(self, *, seed: int, step: int, max_context: int) -> int:
        """That of an example, or the context."""
        return min(max_context, self._length)

    def training_batch(self, *, seed: int, step: int, tokens: int, max_context: int) -> Batch:
        """Examples; of each that does not fit, the window in which one of its targets is scored.

        That target is drawn at random and the window is the one that evaluation would use, so that a model
        is trained on what it is scored on and no sequence is without a target.
        """
        self.check(tokens=tokens, max_context=max_context)
        length = min(max_context, self._length)
        rows = tokens // length
        random = generator(Purpose.TRAINING, seed=seed, step=step)
        inputs_EL, targets_EL = self._training_examples(random, seed=seed, step=step, rows=rows)
        windows = scored_windows(0, self._length, context=length)
        window_E = _window_of(windows, _any_target(random, targets_EL))
        chosen = windows.take(window_E).move(np.arange(rows) * self._length)
        return read(inputs_EL.ravel(), targets_EL.ravel(), chosen, length=length)

    def evaluation_batches(self, split: Split, *, context: int, tokens_per_batch: int) -> Iterator[Batch]:
        """Every target of the held-out examples once.

        Raises:
            DataError: compression, and the context does not hold an example.
        """
        self._check_length("a context", context)
        inputs_EL, targets_EL = self.held_out(split)
        windows = scored_windows(0, self._length, context=context)
        example_N, place_N = np.nonzero(targets_EL != IGNORED)
        # Windows without a target would be read for nothing.
        used = np.unique(np.stack([example_N, _window_of(windows, place_N)]), axis=1)
        chosen = windows.take(used[1]).move(used[0] * self._length)
        for found, length in chunks(chosen, tokens_per_batch=tokens_per_batch):
            yield read(inputs_EL.ravel(), targets_EL.ravel(), found, length=length)

    def curve_contexts(self, max_context: int) -> tuple[int, ...]:
        """A quarter, a half and twice of it; of compression those that hold an example."""
        return tuple(context for context in super().curve_contexts(max_context) if not self._is_too_short(context))

    def metrics(self) -> Metrics:
        """mad_accuracy, mad_token_accuracy and mad_loss."""
        return Metrics(
            {
                "mad_accuracy": MacroAccuracy(self.shape.vocabulary),
                "mad_token_accuracy": share_right(self.shape.vocabulary),
                "mad_loss": MeanNats(),
            }
        )

    def baseline(self, split: Split) -> dict[str, float]:
        """What the guesser of the kind scores, which knows what could be right but not what is.

        It says a token at random: recall, one of the example's values; selective copying, one of the tokens
        to be copied; compression, any token (and the mark at the end, where it always stands); memorization,
        any value.
        """
        inputs_EL, targets_EL = self.held_out(split)
        chance_N = self._kind.chances(inputs_EL, targets_EL)
        target_N = targets_EL[targets_EL != IGNORED]
        asked_V = np.bincount(target_N, minlength=self.shape.vocabulary)
        right_V = np.bincount(target_N, weights=chance_N, minlength=self.shape.vocabulary)
        return {
            "mad_accuracy": float((right_V[asked_V > 0] / asked_V[asked_V > 0]).mean()),
            "mad_token_accuracy": float(chance_N.mean()),
            "mad_loss": float(-np.log(chance_N).mean()),
        }

    def held_out(self, split: Split) -> tuple[Ints, Ints]:
        """The inputs and targets of a part, each (E, L)."""
        if split not in self._held_out:
            purpose = Purpose.VALIDATION if split == "validation" else Purpose.TEST
            random = generator(purpose, seed=0)
            self._held_out[split] = self._kind.draw(random, self._examples, training=False)
        return self._held_out[split]

    def _training_examples(self, random: np.random.Generator, *, seed: int, step: int, rows: int) -> tuple[Ints, Ints]:
        if not self._training:
            return self._kind.draw(random, rows, training=True)
        if self._training_set is None:
            self._training_set = self._made_training_set()
        index_E = in_epochs(self._training, seed=seed, first=step * rows, count=rows)
        inputs_EL, targets_EL = self._training_set
        return inputs_EL[index_E].astype(np.int64), targets_EL[index_E].astype(np.int64)

    def _made_training_set(self) -> tuple[Ints, Ints]:
        """From the cache of data, for motifs take long to draw; written first where it is not there."""
        facts = {key: value for key, value in self._data_options.items() if key != "evaluation_examples"}
        key = json.dumps(["mad", GENERATOR_VERSION, sorted(facts.items())])
        # −100 fits in beside any token.
        size = np.int16 if self.shape.vocabulary <= 2**15 else np.int32

        def write(writer: CacheWriter) -> None:
            random = generator(Purpose.EXAMPLES, seed=0, step=TRAINING_SET)
            inputs_EL, targets_EL = self._kind.draw(random, self._training, training=True)
            writer.array("inputs", inputs_EL.astype(size))
            writer.array("targets", targets_EL.astype(size))

        reader = cached(hashlib.sha256(key.encode()).hexdigest(), write)
        return reader.array("inputs"), reader.array("targets")

    def _is_too_short(self, context: int) -> bool:
        return self._name == "compression" and context < self._length

    def _check_length(self, what: str, context: int) -> None:
        if self._is_too_short(context):
            raise DataError(
                f"{what} must be at least length = {self._length}, for compression reads examples whole, "
                f"not {context}: nearest {self._length}"
            )


class MacroAccuracy(Metric):
    """The share of right answers of each token kind that is right somewhere, averaged over these kinds.

    Args:
        vocabulary: token kinds.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    right_V: Tensor
    asked_V: Tensor

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.add_state("right_V", default=torch.zeros(vocabulary, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("asked_V", default=torch.zeros(vocabulary, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits_NV: Tensor, targets_N: Tensor) -> None:
        """Takes in one batch."""
        scored_N = targets_N != IGNORED
        targets_N, said_N = targets_N[scored_N], logits_NV[scored_N].argmax(1)
        self.asked_V += torch.bincount(targets_N, minlength=len(self.asked_V))
        self.right_V += torch.bincount(targets_N[said_N == targets_N], minlength=len(self.right_V))

    def compute(self) -> Tensor:
        """The mean so far, in double precision."""
        asked_V = self.asked_V.cpu().double()
        return (self.right_V.cpu().double() / asked_V)[asked_V > 0].mean()


def _window_of(windows: Windows, place_N: Ints) -> Ints:
    """The window in which each position is scored."""
    found: Ints = np.searchsorted(windows.scored_W, place_N, side="right") - 1
    return found


def _any_target(random: np.random.Generator, targets_EL: Ints) -> Ints:
    """The position of one of each example's targets, all alike: (E,)."""
    example_N, place_N = np.nonzero(targets_EL != IGNORED)
    count_E = np.bincount(example_N, minlength=len(targets_EL))
    found: Ints = place_N[np.cumsum(count_E) - count_E + random.integers(count_E)]
    return found
