"""The optimizer of a model: AdamW, its groups, and the learning rate of each.

In: a model and the candidate's hyperparameters. Out: an AdamW whose groups say what share of the peak learning rate
is theirs (`rate_scale`). Matrices decay, vectors do not.

With a base width the rates follow the width as in the maximal update parametrisation for Adam (Yang et al. 2022,
Tensor Programs V, table 3): of weights whose input grows with the width the rate is multiplied by base width / width,
all else keeps it. Then the rate that is best at one width is near the best at another. It is muP-like and not muP:
initial weights, the multiplier of the logits and the scale of attention are those of every other training.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from nas.models.base import Model
from nas.space.learning_rate_rule import BASE_WIDTH


def make_optimizer(model: nn.Module, chosen: Mapping[str, float], *, width: int, fused: bool) -> torch.optim.Optimizer:
    """AdamW over all weights of a model.

    Args:
        model: to train.
        chosen: hyperparameters, defaults filled in; `learning_rate_base_width` where a rule was named.
        width: of the model.
        fused: whether a step is one kernel.
    """
    base = chosen.get(BASE_WIDTH)
    hidden = set() if base is None else {id(weight) for weight in width_scaled(model)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    # Matrices first: the order of the groups shows in the last bit of a clipped gradient's norm.
    for weight in sorted(model.parameters(), key=lambda weight: weight.ndim < 2):
        decay = chosen["weight_decay"] if weight.ndim >= 2 else 0.0
        scale = base / width if base is not None and id(weight) in hidden else 1.0
        groups.setdefault((decay, scale), []).append(weight)
    return torch.optim.AdamW(
        [
            {"params": weights, "weight_decay": decay, "rate_scale": scale, "lr": chosen["learning_rate"] * scale}
            for (decay, scale), weights in groups.items()
        ],
        lr=chosen["learning_rate"],
        betas=(0.9, chosen["beta2"]),
        fused=fused,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Gives each group its share of the learning rate of a step."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_scale"]


def width_scaled(model: nn.Module) -> list[nn.Parameter]:
    """The weights whose rate a width rule scales: of linear maps, recurrent cells, and a head that is not tied.

    Not among them: embeddings (a tied head is one), tables of positions, norms, biases, gains, and the kernels of
    depthwise convolutions, whose input is no wider in a wider model. A linear map counts whatever its input is made
    of (a latent vector, the rank of a gate): what else a space ties to the width is not known here.
    """
    found = [
        weight
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.RNNBase)
        for weight in module.parameters(recurse=False)
        if weight.ndim == 2
    ]
    heads = (model.lm_head, model.score) if isinstance(model, Model) else ()
    found += [head.weight for head in heads if head is not None and head.weight is not None]
    return list({id(weight): weight for weight in found}.values())
