"""Multi-query associative recall (MQAR): how much a model can look up in its context.

In: a vocabulary, a length and a number of pairs, or several such settings. Out: examples in which every
query asks for the value of a key that stood at the beginning.

    k₁ v₁ k₂ v₂ … | k₂ 0 0 0 k₁ 0 …     the target at a query is its value, elsewhere −100

Source: Arora et al. 2023 (Zoology) and Arora et al. 2024 (Based).

Legend: E examples, K pairs, C choices, S slots, L positions, T positions of all examples in one row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from statistics import fmean
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
from nas.tasks.recall_settings import FixedSet, SettingMetrics, turn
from nas.tasks.windows import chunks, read, scored_windows

Filler = Literal["zero", "random"]
Ints = NDArray[np.int64]

SLOT_POWER = 0.01
# Of the example generator; a change of it is a change of the data.
GENERATOR_VERSION = 1
# Rows of random keys that are drawn at once are limited to some 32 MB.
MOST_DRAWS = 4_000_000
PORTION = 2048


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

    def portions(self, random: np.random.Generator, examples: int) -> Iterator[tuple[Ints, Ints]]:
        """Examples some at a time, for sets too large to be drawn at once; other ones than those of a call."""
        for done in range(0, examples, PORTION):
            yield self._draw(random, min(PORTION, examples - done), quick=True)

    def _draw(self, random: np.random.Generator, examples: int, *, quick: bool = False) -> tuple[Ints, Ints]:
        half, pairs = self.vocabulary // 2, self.pairs
        draw = _draw_different if quick else _draw_evenly
        keys_EK = 1 + draw(random, half - 1, examples, pairs)
        values_EK = half + draw(random, half, examples, pairs)
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


def _draw_evenly(random: np.random.Generator, choices: int, examples: int, count: int) -> Ints:
    return _draw_ordered(random, np.ones(choices), examples, count)


def _draw_different(random: np.random.Generator, choices: int, examples: int, count: int) -> Ints:
    """`count` of the choices without replacement, all alike: (E, count).

    Drawn with replacement, and rows with a repetition drawn again: each row without one is as likely as any
    other. Where hardly a row would be without one, by the slower way.
    """
    if count * count > 4 * choices:
        return _draw_evenly(random, choices, examples, count)
    drawn_EK = random.integers(choices, size=(examples, count))
    again = np.arange(examples)
    while len(again):
        ascending = np.sort(drawn_EK[again], axis=1)
        again = again[(ascending[:, 1:] == ascending[:, :-1]).any(axis=1)]
        drawn_EK[again] = random.integers(choices, size=(len(again), count))
    return drawn_EK


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
    """MQAR with fresh examples at every training step, or with fixed training sets.

    A model whose context is below the length of an example reads windows with a stride of half its
    context, and the pairs may be out of its reach: what does not fit is not recalled. Lengths are not
    mixed but where several settings say so (see `nas.tasks.recall_settings`), for a shorter example is
    another task.
    """

    spec: ClassVar[specs.TaskSpec] = specs.Recall()

    def __init__(self, options: Mapping[str, Any]) -> None:
        for broken in self.spec.broken_rules(options):
            raise DataError(broken.text)
        options = self.spec.complete(options)
        self.tokenizer = None
        self.shape = specs.TaskShape(vocabulary=int(options["vocabulary"]), head=self.spec.head)
        self._train = specs.recall_settings(options, "train_settings")
        self._test = specs.recall_settings(options, "test_settings")
        self._examples, self._filler = int(options["evaluation_examples"]), str(options["filler"])
        self.data_version = hashed({**self.spec.data_options(options), "generator": GENERATOR_VERSION})
        self._fixed: dict[int, FixedSet] = {}
        self._held_out: dict[tuple[Split, int], tuple[Ints, Ints]] = {}

    def longest_sequence(self, max_context: int) -> int:
        """A whole example of the longest setting, or a window of it."""
        return min(max_context, max(setting.length for setting in self._train))

    def step_length(self, *, seed: int, step: int, max_context: int) -> int:
        """That of the step's setting: the same at every step where there is one."""
        setting = self._train[turn(self._train, seed=seed, step=step, max_context=max_context)[0]]
        return min(max_context, setting.length)

    def training_batch(self, *, seed: int, step: int, tokens: int, max_context: int) -> Batch:
        """Examples of one setting; of each, where it does not fit, the window in which one of its queries is scored.

        That query is drawn at random and the window is the one that evaluation would use, so that a
        model is trained on what it is scored on and no sequence is without a target.
        """
        self.check(tokens=tokens, max_context=max_context)
        place, before = turn(self._train, seed=seed, step=step, max_context=max_context)
        setting = self._train[place]
        length = min(max_context, setting.length)
        random = generator(Purpose.TRAINING, seed=seed, step=step)
        rows = tokens // length
        if setting.examples is None:
            inputs_EL, labels_EL = self._generator(setting)(random, rows)
        else:
            inputs_EL, labels_EL = self._fixed_set(place).take(seed=seed, first=before * rows, count=rows)
        windows = scored_windows(0, setting.length, context=length)
        drawn_E = random.integers(setting.pairs, size=rows)
        query_E = _queries(labels_EL, setting.pairs)[np.arange(rows), drawn_E]
        window_E = np.searchsorted(windows.scored_W, query_E, side="right") - 1
        chosen = windows.take(window_E).move(np.arange(rows) * setting.length)
        return read(inputs_EL.ravel(), labels_EL.ravel(), chosen, length=length)

    def evaluation_batches(self, split: Split, *, context: int, tokens_per_batch: int) -> Iterator[Batch]:
        """Every query of the held-out examples of every setting once."""
        for place, setting in enumerate(self._test):
            inputs_EL, labels_EL = self._examples_of(split, place)
            windows = scored_windows(0, setting.length, context=context)
            query_EK = _queries(labels_EL, setting.pairs)
            example_EK = np.broadcast_to(np.arange(len(labels_EL))[:, None], query_EK.shape)
            window_EK = np.searchsorted(windows.scored_W, query_EK, side="right") - 1
            # Windows without a query would be read for nothing.
            used = np.unique(np.stack([example_EK.ravel(), window_EK.ravel()]), axis=1)
            chosen = windows.take(used[1]).move(used[0] * setting.length)
            for found, length in chunks(chosen, tokens_per_batch=tokens_per_batch):
                batch = read(inputs_EL.ravel(), labels_EL.ravel(), found, length=length)
                example_B = place * self._examples + found.start_W // setting.length
                yield replace(batch, example_B=torch.from_numpy(example_B)) if len(self._test) > 1 else batch

    def metrics(self) -> Metrics:
        """recall_accuracy and recall_loss, and the accuracy of each of several settings."""
        if len(self._test) > 1:
            return SettingMetrics(self._test, self._examples, self.shape.vocabulary)
        return Metrics({"recall_accuracy": share_right(self.shape.vocabulary), "recall_loss": MeanNats()})

    def baseline(self, split: Split) -> dict[str, float]:
        """Guessing evenly among the values that the example has shown: it knows all but which key has which."""
        scores = {
            "recall_accuracy": fmean(1 / setting.pairs for setting in self._test),
            "recall_loss": fmean(math.log(setting.pairs) for setting in self._test),
        }
        parts = {setting.metric: 1 / setting.pairs for setting in self._test}
        return scores | (parts if len(self._test) > 1 else {})

    def _generator(self, setting: specs.RecallSetting) -> _Generator:
        return _Generator(self.shape.vocabulary, setting.length, setting.pairs, self._filler)

    def _fixed_set(self, place: int) -> FixedSet:
        """The training set of a setting, made when it is first needed."""
        if place not in self._fixed:
            setting = self._train[place]
            assert setting.examples is not None
            random = generator(Purpose.EXAMPLES, seed=0, step=place)
            portions = self._generator(setting).portions(random, setting.examples)
            self._fixed[place] = FixedSet(portions, place=place, settings=len(self._train))
        return self._fixed[place]

    def _examples_of(self, split: Split, place: int) -> tuple[Ints, Ints]:
        if (split, place) not in self._held_out:
            purpose = Purpose.VALIDATION if split == "validation" else Purpose.TEST
            random = generator(purpose, seed=0, step=place)
            self._held_out[split, place] = self._generator(self._test[place])(random, self._examples)
        return self._held_out[split, place]


def _queries(labels_EL: Ints, pairs: int) -> Ints:
    """The positions of the queries, ascending: (E, K)."""
    return np.nonzero(labels_EL != IGNORED)[1].reshape(len(labels_EL), pairs)
