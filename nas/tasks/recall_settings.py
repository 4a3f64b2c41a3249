"""Several sizes of recall examples in one training: whose turn it is, fixed training sets, and scores.

In: settings, a seed and a step. Out: the setting of that step and how often it was its turn before;
the examples of a fixed set; accuracy overall and of each setting.

Every setting has so many steps that each of its examples is seen as often as those of the others:
steps in proportion to the tokens of its set. Fresh examples have no end, so each setting then has the
same share of the steps. Turns are shuffled within rounds, for the luck of independent draws would be a
difference between seeds.

Source: Arora et al. 2024 (Based), whose batches hold one setting each, all settings shuffled.

Legend: E examples, K pairs, L positions, N scored positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nas.specs.tasks import RecallSetting
from nas.tasks.epochs import in_epochs
from nas.tasks.metrics import IGNORED, MeanNats, Metrics, share_right
from nas.tasks.randomness import Purpose, generator

Ints = NDArray[np.int64]

# A round is no longer than this, though the shares are then not exact.
LONGEST_ROUND = 256


def turn(settings: Sequence[RecallSetting], *, seed: int, step: int, max_context: int) -> tuple[int, int]:
    """The place of the step's setting, and how many steps before it had the same."""
    sizes = [(setting.examples or 1) * min(max_context, setting.length) for setting in settings]
    counts = steps_of_a_round(tuple(sizes) if settings[0].examples else (1,) * len(settings))
    round_, place = divmod(step, sum(counts))
    order = _order(seed, round_, counts)
    return order[place], round_ * counts[order[place]] + order[:place].count(order[place])


@lru_cache(maxsize=64)
def steps_of_a_round(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """How many steps each has, in proportion to the sizes.

    >>> steps_of_a_round((64, 128, 32)), steps_of_a_round((1000, 1001))
    ((2, 4, 1), (128, 128))
    """
    shared = math.gcd(*sizes)
    if sum(sizes) // shared <= LONGEST_ROUND:
        return tuple(size // shared for size in sizes)
    return tuple(max(1, round(size * LONGEST_ROUND / sum(sizes))) for size in sizes)


@lru_cache(maxsize=64)
def _order(seed: int, round_: int, counts: tuple[int, ...]) -> tuple[int, ...]:
    turns = np.repeat(np.arange(len(counts)), counts)
    return tuple(generator(Purpose.LENGTHS, seed=seed, step=round_).permutation(turns).tolist())


class FixedSet:
    """The examples of one setting that a training sees again and again, the same for all candidates and seeds.

    Args:
        portions: the inputs (E, L) and labels (E, L) of its examples, some at a time.
        place: of the setting among those of the task.
        settings: how many there are.
    """

    def __init__(self, portions: Iterator[tuple[Ints, Ints]], *, place: int, settings: int) -> None:
        inputs, queries, labels = [], [], []
        for inputs_EL, labels_EL in portions:
            pairs = int((labels_EL[0] != IGNORED).sum())
            query_EK = np.nonzero(labels_EL != IGNORED)[1].reshape(-1, pairs)
            # Tokens of 16 or 32 bits, and labels only where there are some: a set may have 50 million tokens.
            kind = np.min_scalar_type(int(inputs_EL.max()))
            inputs.append(inputs_EL.astype(kind))
            queries.append(query_EK.astype(np.uint32))
            labels.append(np.take_along_axis(labels_EL, query_EK, axis=1).astype(np.uint32))
        self._inputs_EL, self._query_EK = np.concatenate(inputs), np.concatenate(queries)
        self._label_EK = np.concatenate(labels)
        self._place, self._settings = place, settings

    def take(self, *, seed: int, first: int, count: int) -> tuple[Ints, Ints]:
        """Examples of an endless row in which each epoch holds all of them once, in an order of its own.

        Returns:
            inputs and labels, each (count, L).
        """
        size = len(self._inputs_EL)
        index_E = in_epochs(size, seed=seed, first=first, count=count, place=self._place, sets=self._settings)
        inputs_EL = self._inputs_EL[index_E].astype(np.int64)
        labels_EL = np.full(inputs_EL.shape, IGNORED, dtype=np.int64)
        np.put_along_axis(labels_EL, self._query_EK[index_E].astype(np.int64), self._label_EK[index_E], axis=1)
        return inputs_EL, labels_EL


class SettingMetrics(Metrics):
    """Accuracy and loss of several settings: each by itself, and the mean in which every setting counts the same.

    Args:
        settings: in the order of their examples.
        examples: held-out examples of each.
        vocabulary: token kinds.
    """

    def __init__(self, settings: Sequence[RecallSetting], examples: int, vocabulary: int) -> None:
        super().__init__({})
        self._examples = examples
        self._parts = {
            setting.metric: Metrics({"accuracy": share_right(vocabulary), "loss": MeanNats()}) for setting in settings
        }

    def update(self, logits_NV: Tensor, targets_N: Tensor, example_N: Tensor | None = None) -> None:
        """Takes in one batch; its examples tell the settings."""
        assert example_N is not None, "the examples of several settings are numbered"
        setting_N = example_N // self._examples
        for place, part in enumerate(self._parts.values()):
            is_its_N = setting_N == place
            if bool(is_its_N.any()):
                part.update(logits_NV[is_its_N], targets_N[is_its_N])

    @property
    def scored(self) -> int:
        """How many targets were scored so far."""
        return sum(part.scored for part in self._parts.values())

    def compute(self) -> dict[str, float]:
        """Every metric by name.

        Raises:
            DataError: nothing was scored of some setting.
            DivergedError: a metric is no finite number.
        """
        found = {name: part.compute() for name, part in self._parts.items()}
        return {
            "recall_accuracy": fmean(values["accuracy"] for values in found.values()),
            "recall_loss": fmean(values["loss"] for values in found.values()),
            **{name: values["accuracy"] for name, values in found.items()},
        }
