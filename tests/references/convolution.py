"""The gated convolution and no mixer, written from their formulas, one token at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nas.mixers.base import MixerConfig
from references.case import Case


def naive_gated_convolution(mixer: Any, x_BLD: Tensor, config: MixerConfig, prefix_B: Tensor) -> Tensor:
    """y_t = W_out (c_t ⊙ Σ_i w_i ⊙ b_{t−i} ⊙ u_{t−i}); a prefix changes nothing."""
    kernel = int(config.options["kernel"])
    in_proj_3DD = mixer.in_proj.weight.unflatten(0, (3, -1))
    outputs = []
    for t in range(x_BLD.shape[1]):
        mixed_BD = torch.zeros_like(x_BLD[:, 0])
        for back in range(min(kernel, t + 1)):
            seen_BD = x_BLD[:, t - back]
            gated_BD = (seen_BD @ in_proj_3DD[0].T) * (seen_BD @ in_proj_3DD[2].T)
            mixed_BD = mixed_BD + mixer.conv.weight[:, 0, 0, kernel - 1 - back] * gated_BD
        outputs.append((mixed_BD * (x_BLD[:, t] @ in_proj_3DD[1].T)) @ mixer.out_proj.weight.T)
    return torch.stack(outputs, 1)


def naive_nothing(mixer: Any, x_BLD: Tensor, config: MixerConfig, prefix_B: Tensor) -> Tensor:
    """Zeros."""
    return 0 * x_BLD


NAIVE = {"gated_conv": naive_gated_convolution, "none": naive_nothing}

CASES = [
    Case(mixer="gated_conv", options={"kernel": 1}),
    Case(mixer="gated_conv", options={"kernel": 3}),
    Case(mixer="gated_conv", options={"kernel": 4}, positions="rope"),
    Case(mixer="none"),
]
