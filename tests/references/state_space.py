"""Mamba-2, token by token from its formulas."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nas.mixers.base import MixerConfig
from references.case import Case
from references.linear import convolved, decays, normed, seen, swish


def naive_mamba2(mixer: Any, x_BLD: Tensor, config: MixerConfig, prefix_B: Tensor) -> Tensor:
    """y_t = Σ_s exp(−A Σ dt) (C_t·B_s) dt_s x_s + D x_t, gated, normed by group and projected."""
    length, width = x_BLD.shape[1:]
    inner, groups = int(config.options["expand"]) * width, int(config.options["groups"])
    head_dim, shared = int(config.options["head_dim"]), groups * int(config.options["state_dim"])
    heads = inner // head_dim
    projected = x_BLD @ mixer.in_proj.weight.T
    z_BLI, mixed_BLT, logits_BLH = projected.split([inner, inner + 2 * shared, heads], -1)
    mixed_BLT = swish(convolved(mixed_BLT, mixer.conv1d.weight, mixer.conv1d.bias))
    v_BLHP = mixed_BLT[..., :inner].unflatten(-1, (heads, head_dim))
    k_BLHN, q_BLHN = (
        part.unflatten(-1, (groups, -1)).repeat_interleave(heads // groups, 2)
        for part in mixed_BLT[..., inner:].chunk(2, -1)
    )
    dt_BLH = (1 + (logits_BLH + mixer.dt_bias).exp()).log()
    g_BLH = -mixer.A_log.exp() * dt_BLH
    outputs = []
    for t in range(length):
        weights_BLH = (q_BLHN[:, t, None] * k_BLHN).sum(-1) * decays(g_BLH, t) * dt_BLH
        weights_BLH = weights_BLH * seen(t, length, prefix_B)[..., None]
        outputs.append((weights_BLH[..., None] * v_BLHP).sum(1) + mixer.D[:, None] * v_BLHP[:, t])
    y_BLI = torch.stack(outputs, 1).flatten(2) * swish(z_BLI)
    y_BLI = normed(y_BLI.unflatten(-1, (groups, -1))).flatten(2) * mixer.norm.weight
    return y_BLI @ mixer.out_proj.weight.T


NAIVE = {"mamba2": naive_mamba2}

CASES = [
    Case(mixer="mamba2", options={"expand": 2, "head_dim": 16, "state_dim": 8, "groups": 1, "conv": 4}),
    Case(mixer="mamba2", options={"expand": 1, "head_dim": 8, "state_dim": 5, "groups": 2, "conv": 1}),
    Case(
        mixer="mamba2",
        options={"expand": 2, "head_dim": 4, "state_dim": 6, "groups": 16, "conv": 2},
        positions="rope",
    ),
]
