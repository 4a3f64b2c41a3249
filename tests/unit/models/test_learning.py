"""That the parts learn what they are there for, on associative recall (Arora et al. 2023)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nas.models.build import build
from nas.models.decoder import Decoder
from nas.space.architecture import Architecture
from nas.specs.tasks import TaskShape

VOCABULARY, LENGTH, PAIRS = 128, 64, 8


def recall_examples(count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Key-value pairs, then each key again at an even place; labels are −100 elsewhere."""
    half = VOCABULARY // 2
    keys = torch.rand(count, half - 1, generator=random).argsort(1)[:, :PAIRS] + 1
    values = torch.rand(count, half, generator=random).argsort(1)[:, :PAIRS] + half
    tokens_BL = torch.zeros(count, LENGTH, dtype=torch.long)
    tokens_BL[:, : 2 * PAIRS] = torch.stack([keys, values], 2).flatten(1)
    slots = torch.arange(1, (LENGTH - 2 * PAIRS) // 2 + 1)
    chosen = torch.multinomial((0.01 * slots**-0.99).expand(count, -1), PAIRS, generator=random)
    places = 2 * PAIRS + 2 * chosen
    labels_BL = torch.full_like(tokens_BL, -100).scatter(1, places, values)
    return tokens_BL.scatter(1, places, keys), labels_BL


def accuracy_after(steps: int, layer: dict[str, Any], learning_rate: float) -> float:
    plan = Architecture.from_mapping(
        {"family": "decoder", "width": 64, "max_context": LENGTH, "layers": [layer, layer]}
    ).bind(TaskShape(vocabulary=VOCABULARY, head="causal_lm"))
    model = build(plan, seed=0)
    assert isinstance(model, Decoder)
    random = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.1)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * min(1, (step + 1) / 20)
        tokens_BL, labels_BL = recall_examples(64, random)
        asked_BL = labels_BL >= 0
        loss = functional.cross_entropy(model.head(model.features(tokens_BL)[asked_BL]), labels_BL[asked_BL])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokens_BL, labels_BL = recall_examples(256, random)
    asked_BL = labels_BL >= 0
    with torch.no_grad():
        return (model(tokens_BL).argmax(-1)[asked_BL] == labels_BL[asked_BL]).float().mean().item()


@pytest.mark.slow
def test_full_attention_with_a_short_convolution_learns_recall_and_a_short_window_cannot() -> None:
    full = {"mixer": "full", "short_conv": 3, "mlp_ratio": 1}
    assert accuracy_after(120, full, 1e-2) > 0.95
    window = {**full, "mixer": "sliding_window", "window": 8}
    assert accuracy_after(120, window, 1e-2) < 0.5
