"""Metrics that accumulate over batches and are finite, or an error.

In: logits and targets, batch by batch. Out: one number for each metric of a task, by name.

Legend: N positions, V token kinds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from nas.errors import DataError, DivergedError

IGNORED = -100
"""The target of a position that is not scored."""


def summed_nats(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """The summed negative log likelihood of the scored targets, in float32, and how many they are."""
    # Summed by `sum`, which adds in pairs: the loss's own sum adds one by one and rounds as often.
    nats_N = cross_entropy(logits_NV.float(), targets_N, ignore_index=IGNORED, reduction="none")
    return nats_N.sum(), (targets_N != IGNORED).sum()


class MeanNats(Metric):
    """Mean negative log likelihood of the scored targets, in nats."""

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    nats: Tensor
    scored: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("nats", default=torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("scored", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits_NV: Tensor, targets_N: Tensor) -> None:
        """Takes in one batch."""
        nats, scored = summed_nats(logits_NV, targets_N)
        self.nats += nats
        self.scored += scored

    def compute(self) -> Tensor:
        """The mean so far, in double precision."""
        return self.nats.cpu().double() / self.scored.cpu()


class BitsPerByte(Metric):
    """Negative log2 likelihood of all scored targets, per byte of the text that they stand for.

    Marks, such as the end of a blank, have to be said as well, and stand for no byte themselves.

    Args:
        byte_lengths_V: bytes of text that each token stands for.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    nats: Tensor
    text_bytes: Tensor
    byte_lengths_V: Tensor

    def __init__(self, byte_lengths_V: NDArray[np.int64]) -> None:
        super().__init__()
        self.register_buffer("byte_lengths_V", torch.from_numpy(byte_lengths_V.copy()), persistent=False)
        self.add_state("nats", default=torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("text_bytes", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits_NV: Tensor, targets_N: Tensor) -> None:
        """Takes in one batch."""
        self.nats += summed_nats(logits_NV, targets_N)[0]
        self.text_bytes += self.byte_lengths_V[targets_N[targets_N != IGNORED]].sum()

    def compute(self) -> Tensor:
        """The bits so far, in double precision."""
        return self.nats.cpu().double() / self.text_bytes.cpu() / math.log(2)


class Perplexity(MeanNats):
    """exp of the mean negative log likelihood of a scored target."""

    def compute(self) -> Tensor:
        """The perplexity so far."""
        return super().compute().exp()


def share_right(vocabulary: int) -> Metric:
    """The share of scored targets that are the most likely guess."""
    accuracy = MulticlassAccuracy(num_classes=vocabulary, average="micro", ignore_index=IGNORED, validate_args=False)
    return cast(Metric, accuracy)


class Metrics:
    """All metrics of a task, accumulated together."""

    def __init__(self, by_name: Mapping[str, Metric]) -> None:
        # Metrics with equal states are updated once: torchmetrics groups them by itself.
        self._collection = MetricCollection(dict(by_name))
        self._scored = 0
        self._device = torch.device("cpu")

    @torch.no_grad()
    def update(self, logits_NV: Tensor, targets_N: Tensor, example_N: Tensor | None = None) -> None:
        """Takes in one batch, on whatever device it lies; targets of −100 count for nothing.

        Args:
            logits_NV: at the scored positions, or of whole sequences (`Task.scores_sequences`).
            targets_N: likewise.
            example_N: of which held-out example each is a part; a metric of whole examples joins them.
        """
        scored = int((targets_N != IGNORED).sum())
        if scored == 0:
            return
        if logits_NV.device != self._device:
            self._device = logits_NV.device
            self._collection.to(self._device)
        self._collection.update(logits_NV, targets_N)
        self._scored += scored

    def answer(self, example: int, tokens: list[int]) -> None:
        """Takes in the generated answer to the question about a held-out example.

        Raises:
            NotImplementedError: the task asks nothing.
        """
        raise NotImplementedError("these metrics score no generated answers")

    @property
    def scored(self) -> int:
        """How many targets were scored so far."""
        return self._scored

    def compute(self) -> dict[str, float]:
        """Every metric by name.

        Raises:
            DataError: nothing was scored.
            DivergedError: a metric is no finite number.
        """
        if self._scored == 0:
            raise DataError("no position was scored: a metric needs at least one target")
        return finite({name: float(value) for name, value in self._collection.compute().items()}, self._scored)


def finite(values: dict[str, float], scored: int) -> dict[str, float]:
    """The values of metrics.

    Raises:
        DivergedError: one is no finite number.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise DivergedError(f"{name} is {value} over {scored} targets: it must be a finite number")
    return values
