"""Multi-query associative recall (MQAR): how much a model can look up in its context.

In: a vocabulary, a length and a number of pairs. Out: examples in which every query asks for the
value of a key that stood at the beginning.

    k₁ v₁ k₂ v₂ … | k₂ 0 0 0 k₁ 0 …     the target at a query is its value, elsewhere −100

Source: Arora et al. 2023 (Zoology) and Arora et al. 2024 (Based).

Legend: E examples, K pairs, C choices, S slots, L positions, T positions of all examples in one row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.errors import DataError
from nas.records import Split
from nas.specs import tasks as specs
from nas.tasks.base import IGNORED, Batch, Task, hashed
from nas.tasks.metrics import MeanNats, Metrics, share_right
from nas.tasks.randomness import Purpose, generator
from nas.tasks.windows import batches, read, scored_windows

Filler = Literal["zero", "random"]
Ints = NDArray[np.int64]

SLOT_POWER = 0.01
# Of the example generator; a change of it is a change of the data.
GENERATOR_VERSION = 1
# Rows of random keys that are drawn at once are limited to some 32 MB.
MOST_DRAWS = 4_000_000


def mqar(
    *, vocab_size: int, length: int, pairs: int, examples: int, seed: int, filler: Filler = "zero"
) -> tuple[Tensor, Tensor]:
    """Examples of multi-query associative recall.

    The first 2K tokens are K pairs (key, value): keys without replacement from 1..V/2−1, values
    without replacement from V/2..V−1. The rest has slots 1..(L−2K)/2 at its even offsets; pair j is
    queried at the j-th slot drawn without replacement with p ∝ a·i^(a−1), a = 0.01. The label at
    a query is the value of its key (same position, no shift), every other label is −100.

    Args:
        vocab_size: V, even.
        length: L in tokens, even, at least 4 × pairs.
        pairs: K, at most V/2 − 1.
        examples: how many.
        seed: equal seeds give equal examples.
        filler: the other tokens: 0, or "random" ones of the whole vocabulary.

    Returns:
        inputs and labels, int64, each (examples, length).

    Raises:
        DataError: a rule is broken; names the nearest valid value.
    """
    options = {"vocabulary": vocab_size, "length": length, "pairs": pairs, "filler": filler}
    for broken in specs.Recall().broken_between(options):
        raise DataError(broken.text)
    if examples < 1:
        raise DataError(f"examples must be at least 1, not {examples}")
    generate = _Generator(vocab_size, length, pairs, filler)
    inputs_EL, labels_EL = generate(generator(Purpose.EXAMPLES, seed=seed), examples)
    return torch.from_numpy(inputs_EL), torch.from_numpy(labels_EL)


class _Generator:
    """Draws examples of one kind; the rules are checked before."""

    def __init__(self, vocabulary: int, length: int, pairs: int, filler: str) -> None:
        self.vocabulary, self.length, self.pairs, self.filler = vocabulary, length, pairs, filler
        slots = (length - 2 * pairs) // 2
        # The law's constant factor a changes no probability.
        self.weights_S = np.arange(1, slots + 1, dtype=np.float64) ** (SLOT_POWER - 1)

    def __call__(self, random: np.random.Generator, examples: int) -> tuple[Ints, Ints]:
        at_once = max(1, MOST_DRAWS // max(self.vocabulary // 2, len(self.weights_S)))
        sizes = [min(at_once, examples - done) for done in range(0, examples, at_once)]
        drawn = [self._draw(random, size) for size in sizes]
        return np.concatenate([inputs for inputs, _ in drawn]), np.concatenate([labels for _, labels in drawn])

    def _draw(self, random: np.random.Generator, examples: int) -> tuple[Ints, Ints]:
        half, pairs = self.vocabulary // 2, self.pairs
        keys_EK = 1 + _draw_ordered(random, np.ones(half - 1), examples, pairs)
        values_EK = half + _draw_ordered(random, np.ones(half), examples, pairs)
        query_EK = 2 * pairs + 2 * _draw_ordered(random, self.weights_S, examples, pairs)
        if self.filler == "random":
            inputs_EL = random.integers(self.vocabulary, size=(examples, self.length))
        else:
            inputs_EL = np.zeros((examples, self.length), dtype=np.int64)
        labels_EL = np.full((examples, self.length), IGNORED, dtype=np.int64)
        inputs_EL[:, 0 : 2 * pairs : 2] = keys_EK
        inputs_EL[:, 1 : 2 * pairs : 2] = values_EK
        np.put_along_axis(inputs_EL, query_EK, keys_EK, axis=1)
        np.put_along_axis(labels_EL, query_EK, values_EK, axis=1)
        return inputs_EL, labels_EL


def _draw_ordered(random: np.random.Generator, weights_C: NDArray[np.float64], examples: int, count: int) -> Ints:
    """`count` of the choices without replacement, p ∝ weights, in the order of drawing: (E, count).

    Exponential keys divided by the weights: the smallest is the first draw, the next smallest the
    second, exactly as in drawing one after the other (Efraimidis and Spirakis 2006).
    """
    arrival_EC = random.standard_exponential((examples, len(weights_C))) / weights_C
    if count < len(weights_C):
        first_EK = np.argpartition(arrival_EC, count - 1, axis=1)[:, :count]
    else:
        first_EK = np.broadcast_to(np.arange(count), (examples, count))
    order_EK = np.argsort(np.take_along_axis(arrival_EC, first_EK, axis=1), axis=1)
    return np.take_along_axis(first_EK, order_EK, axis=1)


class Recall(Task):
    """MQAR with fresh examples at every training step.

    A model whose context is below `length` reads windows with a stride of half its context, and
    the pairs may be out of its reach: what does not fit is not recalled. Lengths are not mixed, for
    a shorter example is another task.
    """

    spec: ClassVar[specs.TaskSpec] = specs.Recall()

    def __init__(self, options: Mapping[str, Any]) -> None:
        for broken in self.spec.broken_rules(options):
            raise DataError(broken.text)
        self.tokenizer = None
        self.shape = specs.TaskShape(vocabulary=int(options["vocabulary"]), head=self.spec.head)
        self._length, self._pairs = int(options["length"]), int(options["pairs"])
        self._examples = int(options["evaluation_examples"])
        self._generate = _Generator(self.shape.vocabulary, self._length, self._pairs, str(options["filler"]))
        self.data_version = hashed({**self.spec.data_options(options), "generator": GENERATOR_VERSION})
        self._held_out: dict[Split, tuple[Ints, Ints]] = {}

    def longest_sequence(self, max_context: int) -> int:
        """A whole example, or a window of it."""
        return min(max_context, self._length)

    def step_length(self, *, seed: int, step: int, max_context: int) -> int:
        """The same at every step."""
        return self.longest_sequence(max_context)

    def training_batch(self, *, seed: int, step: int, tokens: int, max_context: int) -> Batch:
        """Fresh examples; of each, where it does not fit, the window in which one of its queries is scored.

        That query is drawn at random and the window is the one that evaluation would use, so that a
        model is trained on what it is scored on and no sequence is without a target.
        """
        self.check(tokens=tokens, max_context=max_context)
        length = self.longest_sequence(max_context)
        random = generator(Purpose.TRAINING, seed=seed, step=step)
        inputs_EL, labels_EL = self._generate(random, tokens // length)
        windows = scored_windows(0, self._length, context=length)
        query_E = self._queries(labels_EL)[np.arange(len(labels_EL)), random.integers(self._pairs, size=len(labels_EL))]
        window_E = np.searchsorted(windows.scored_W, query_E, side="right") - 1
        chosen = windows.take(window_E).move(np.arange(len(labels_EL)) * self._length)
        return read(inputs_EL.ravel(), labels_EL.ravel(), chosen, length=length)

    def evaluation_batches(self, split: Split, *, context: int, tokens_per_batch: int) -> Iterator[Batch]:
        """Every query of the held-out examples once."""
        inputs_EL, labels_EL = self._examples_of(split)
        windows = scored_windows(0, self._length, context=context)
        query_EK = self._queries(labels_EL)
        example_EK = np.broadcast_to(np.arange(len(labels_EL))[:, None], query_EK.shape)
        window_EK = np.searchsorted(windows.scored_W, query_EK, side="right") - 1
        # Windows without a query would be read for nothing.
        used = np.unique(np.stack([example_EK.ravel(), window_EK.ravel()]), axis=1)
        chosen = windows.take(used[1]).move(used[0] * self._length)
        return batches(inputs_EL.ravel(), labels_EL.ravel(), chosen, tokens_per_batch=tokens_per_batch)

    def metrics(self) -> Metrics:
        """recall_accuracy and recall_loss."""
        return Metrics({"recall_accuracy": share_right(self.shape.vocabulary), "recall_loss": MeanNats()})

    def baseline(self, split: Split) -> dict[str, float]:
        """Guessing evenly among the values that the example has shown: it knows all but which key has which."""
        return {"recall_accuracy": 1 / self._pairs, "recall_loss": math.log(self._pairs)}

    def _queries(self, labels_EL: Ints) -> Ints:
        """The positions of the queries, ascending: (E, K)."""
        return np.nonzero(labels_EL != IGNORED)[1].reshape(len(labels_EL), self._pairs)

    def _examples_of(self, split: Split) -> tuple[Ints, Ints]:
        if split not in self._held_out:
            purpose = Purpose.VALIDATION if split == "validation" else Purpose.TEST
            self._held_out[split] = self._generate(generator(purpose, seed=0), self._examples)
        return self._held_out[split]
