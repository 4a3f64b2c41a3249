"""Metrics of whole examples that are read in one or several views.

In: logits of views and the examples that they are views of. Out: accuracy, F1, calibration error and
loss of the examples, from the mean of their views' probabilities.

Legend: W views, E examples, C labels, V outputs of a model: C, or more.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.classification import (
    BinaryCalibrationError,
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassF1Score,
    MultilabelExactMatch,
    MultilabelF1Score,
)

from nas.errors import DataError
from nas.tasks.metrics import Metrics, finite

BINS = 15
SMALLEST = 1e-12


class ClassMetrics(Metrics):
    """Accuracy, macro F1, calibration error and loss.

    Args:
        labels: C.
        multi_label: whether several may hold at once.
        first: of the logits, the first one of a label; the others say nothing about labels.
    """

    def __init__(self, labels: int, *, multi_label: bool, first: int = 0) -> None:
        super().__init__({})
        self._labels, self._multi_label, self._first = labels, multi_label, first
        self._shares: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._examples: list[Tensor] = []

    @torch.no_grad()
    def update(self, logits_NV: Tensor, targets_N: Tensor, example_N: Tensor | None = None) -> None:
        """Takes in the logits of views, (W, V), their targets, (W,) or (W, C), and their examples, (W,)."""
        logits_WC = logits_NV[:, self._first : self._first + self._labels].detach().float().cpu()
        # Where nobody numbers the examples, each view is one.
        examples = torch.arange(self._scored, self._scored + len(logits_WC)) if example_N is None else example_N.cpu()
        self._shares.append(logits_WC.sigmoid() if self._multi_label else logits_WC.softmax(1))
        self._targets.append(targets_N.cpu())
        self._examples.append(examples)
        self._scored += len(logits_WC)

    def compute(self) -> dict[str, float]:
        """Every metric by name.

        Raises:
            DataError: nothing was scored.
            DivergedError: a metric is no finite number.
        """
        if not self._scored:
            raise DataError("no text was scored: a metric needs at least one")
        _, place_W = torch.unique(torch.cat(self._examples), return_inverse=True)
        count = int(place_W.max()) + 1
        sums_EC = torch.zeros(count, self._labels, dtype=torch.float64)
        sums_EC.index_add_(0, place_W, torch.cat(self._shares).double())
        shares_EC = sums_EC / torch.bincount(place_W, minlength=count)[:, None]
        targets_W = torch.cat(self._targets)
        targets_E = torch.empty((count, *targets_W.shape[1:]), dtype=torch.int64)
        targets_E[place_W] = targets_W
        return finite(class_scores(shares_EC, targets_E), count)


def class_scores(shares_EC: Tensor, targets_E: Tensor) -> dict[str, float]:
    """The metrics of probabilities.

    Args:
        shares_EC: a probability of each label.
        targets_E: the label, (E,), or 0 and 1 for each label, (E, C).
    """
    labels = shares_EC.shape[1]
    if targets_E.ndim == 1:
        found = {
            "accuracy": MulticlassAccuracy(labels, average="micro"),
            "macro_f1": MulticlassF1Score(labels, average="macro"),
            "calibration_error": MulticlassCalibrationError(labels, n_bins=BINS, norm="l1"),
        }
        likelihood_E = shares_EC.gather(1, targets_E[:, None])
    else:
        found = {
            "accuracy": MultilabelExactMatch(labels),
            "macro_f1": MultilabelF1Score(labels, average="macro"),
        }
        likelihood_E = torch.where(targets_E == 1, shares_EC, 1 - shares_EC)
    scores = {name: float(metric(shares_EC, targets_E)) for name, metric in found.items()}
    if targets_E.ndim == 2:
        each = BinaryCalibrationError(n_bins=BINS, norm="l1")
        scores["calibration_error"] = float(each(shares_EC.flatten(), targets_E.flatten()))
    scores["classification_loss"] = float(-likelihood_E.clamp(min=SMALLEST).log().mean())
    return scores


def frequent_label_scores(label_E: NDArray[np.int64], labels: int) -> dict[str, float]:
    """What always saying the most frequent label scores; its loss is the entropy of the labels, so it is calibrated."""
    count_C = np.bincount(label_E, minlength=labels)
    guess_EC = torch.zeros(len(label_E), labels, dtype=torch.float64)
    guess_EC[:, int(count_C.argmax())] = 1.0
    found = class_scores(guess_EC, torch.from_numpy(label_E))
    share_C = count_C[count_C > 0] / len(label_E)
    found["classification_loss"] = float(-(share_C * np.log(share_C)).sum())
    return {**found, "calibration_error": 0.0, "cut_share": 0.0}
