"""What the parity tests share: random weights that matter, and how close logits must be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nas.models.build import build
from nas.space.architecture import Architecture

VOCABULARY = 61
TOLERANCE = 1e-4
DOUBLE_TOLERANCE = 3e-5
"""Peers normalise and rotate in float32 whatever the weights are."""


def filled(peer: nn.Module, seed: int = 0, gain: float = 1.5) -> nn.Module:
    """Gives a model weights with which every part of it shows in the logits; no dropout.

    Args:
        peer: the model.
        seed: of the weights.
        gain: of its linear maps; where rounding alone moves the logits too far it must be smaller.
    """
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in peer.parameters():
            noise = torch.randn(weight.shape, generator=random)
            if weight.dim() == 1:
                weight.add_(0.2 * noise)
            else:
                weight.copy_(gain * noise * weight[0].numel() ** -0.5)
    return peer.eval()


def bound(**words: Any) -> Architecture:
    """An architecture of plain values; a language model unless it says otherwise."""
    return Architecture.from_mapping({"vocabulary": VOCABULARY, "head": "causal_lm", **words})


def built(architecture: Architecture, weights: Mapping[str, Tensor]) -> Any:
    """The network with these weights, all of them and no others."""
    model = build(architecture, seed=0)
    model.load_state_dict(weights, strict=True)
    return model.eval()


def tokens(batch: int, length: int, *, low: int = 2, seed: int = 1) -> Tensor:
    """Random tokens (B, L), above those that mean something to `generate`."""
    return torch.randint(low, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def valid(lengths: list[int], length: int) -> Tensor:
    """Which tokens are no padding, int64 (B, L): on the right there is some."""
    return (torch.arange(length) < torch.tensor(lengths)[:, None]).long()


def assert_same(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    """Logits agree absolutely, and are large enough for that to say something."""
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.3, "these logits are too small to compare"
    worst = float((ours - theirs).abs().max())
    assert worst <= tolerance, f"logits differ by {worst:.2e}"
