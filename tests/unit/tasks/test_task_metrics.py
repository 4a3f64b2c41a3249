import math

import numpy as np
import pytest
import torch

from nas.errors import DataError, DivergedError
from nas.tasks.metrics import IGNORED, BitsPerByte, MeanNats, Metrics, Perplexity, share_right


def metrics() -> Metrics:
    return Metrics(
        {
            "nats": MeanNats(),
            "bits": BitsPerByte(np.ones(4, dtype=np.int64)),
            "perplexity": Perplexity(),
            "right": share_right(4),
        }
    )


def test_even_logits_score_the_logarithm_of_the_vocabulary():
    found = metrics()
    for _ in range(3):
        found.update(torch.zeros(1000, 4), torch.ones(1000, dtype=torch.int64))
    assert found.compute() == pytest.approx(
        {"nats": math.log(4), "bits": 2.0, "perplexity": 4.0, "right": 0.0}, rel=1e-6
    )


def test_batches_are_weighed_by_their_scored_targets():
    torch.manual_seed(0)
    logits, targets = torch.randn(100, 4), torch.randint(4, (100,))
    targets[::3] = IGNORED
    whole, parts = metrics(), metrics()
    whole.update(logits, targets)
    for start, end in ((0, 1), (1, 70), (70, 100)):
        parts.update(logits[start:end], targets[start:end])
    assert parts.compute() == pytest.approx(whole.compute(), rel=1e-6)
    scored = targets != IGNORED
    nats = -logits.log_softmax(1)[scored, targets[scored]].mean().item()
    right = (logits.argmax(1) == targets)[scored].float().mean().item()
    assert whole.scored == int(scored.sum())
    assert whole.compute() == pytest.approx(
        {"nats": nats, "bits": nats / math.log(2), "perplexity": math.exp(nats), "right": right}, rel=1e-5
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_an_error_that_names_the_metric(value):
    found = metrics()
    found.update(torch.full((5, 4), value), torch.zeros(5, dtype=torch.int64))
    with pytest.raises(DivergedError, match=r"(nats|bits|perplexity) is .* over 5 targets"):
        found.compute()


def test_nothing_scored_is_an_error():
    found = metrics()
    with pytest.raises(DataError, match="no position was scored"):
        found.compute()
    found.update(torch.zeros(5, 4), torch.full((5,), IGNORED))
    with pytest.raises(DataError, match="no position was scored"):
        found.compute()


def test_half_precision_logits_are_scored_in_single_precision():
    found = metrics()
    found.update(torch.zeros(1000, 4, dtype=torch.bfloat16), torch.zeros(1000, dtype=torch.int64))
    assert found.compute()["bits"] == pytest.approx(2.0, rel=1e-6)
