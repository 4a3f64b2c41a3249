"""Linear attention, retention and gated linear attention, token by token from their formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nas.mixers.base import MixerConfig
from nas.specs.base import Rope
from references.case import Case

Weights = Callable[[int, int], Tensor]


def naive_linear(mixer: Any, x_BLD: Tensor, config: MixerConfig, prefix_B: Tensor) -> Tensor:
    """Σ_s κ(q_t, k_s) v_s / (Σ_s κ(q_t, k_s) + 1e-6) over the tokens that t sees."""
    q_BLHK, k_BLHK, v_BLHV = projected(mixer, x_BLD, config)
    taylor = config.options["feature_map"] == "taylor"
    outputs = []
    for t in range(x_BLD.shape[1]):
        if taylor:
            s_BLH = torch.einsum("bhk,blhk->blh", q_BLHK[:, t], k_BLHK) / q_BLHK.shape[-1] ** 0.5
            kernel_BLH = 1 + s_BLH + s_BLH**2 / 2
        else:
            kernel_BLH = torch.einsum("bhk,blhk->blh", elu_plus_1(q_BLHK[:, t]), elu_plus_1(k_BLHK))
        kernel_BLH = kernel_BLH * seen(t, x_BLD.shape[1], prefix_B)[..., None]
        y_BHV = (kernel_BLH[..., None] * v_BLHV).sum(1) / (kernel_BLH.sum(1) + 1e-6)[..., None]
        outputs.append(y_BHV.flatten(1) @ mixer.o_proj.weight.T)
    return torch.stack(outputs, 1)


def naive_retention(mixer: Any, x_BLD: Tensor, config: MixerConfig, prefix_B: Tensor) -> Tensor:
    """Weights γ_h^|t − s| q_t·k_s / √d_k, normed by head and gated."""
    q_BLHK, k_BLHK, v_BLHV = projected(mixer, x_BLD, config)
    if config.around.positions == "rope":
        q_BLHK, k_BLHK = turned(q_BLHK, config.rope), turned(k_BLHK, config.rope)
    gamma_H = 1 - torch.tensor([2.0 ** (-5 - h) for h in range(q_BLHK.shape[2])], dtype=torch.float64)
    times_L = torch.arange(x_BLD.shape[1])
    outputs = []
    for t in range(x_BLD.shape[1]):
        scores_BLH = torch.einsum("bhk,blhk->blh", q_BLHK[:, t], k_BLHK) / q_BLHK.shape[-1] ** 0.5
        weights_BLH = scores_BLH * gamma_H ** (t - times_L).abs()[:, None]
        weights_BLH = weights_BLH * seen(t, x_BLD.shape[1], prefix_B)[..., None]
        outputs.append((weights_BLH[..., None] * v_BLHV).sum(1))
    return gated_output(mixer, torch.stack(outputs, 1), x_BLD)


def naive_gated_linear(mixer: Any, x_BLD: Tensor, config: MixerConfig, prefix_B: Tensor) -> Tensor:
    """Σ_s (q_t ⊙ decay(s → t)) · k_s v_s / √d_k, the log decay of a token being at least −5."""
    q_BLHK, k_BLHK, v_BLHV = projected(mixer, x_BLD, config)
    low, high = mixer.gk_proj
    logits_BLT = x_BLD @ low.weight.T @ high.weight.T + high.bias
    g_BLHK = (functional.logsigmoid(logits_BLT) / 16).clamp(min=-5).unflatten(-1, k_BLHK.shape[2:])
    outputs = []
    for t in range(x_BLD.shape[1]):
        decay_BLHK = decays(g_BLHK, t)
        scores_BLH = (q_BLHK[:, t, None] * k_BLHK * decay_BLHK).sum(-1) / q_BLHK.shape[-1] ** 0.5
        weights_BLH = scores_BLH * seen(t, x_BLD.shape[1], prefix_B)[..., None]
        outputs.append((weights_BLH[..., None] * v_BLHV).sum(1))
    return gated_output(mixer, torch.stack(outputs, 1), x_BLD)


def decays(g_BLt: Tensor, t: int) -> Tensor:
    """What is left of each token s when t reads it: all decays after s, up to and with that of t.

    Backwards in time the same holds, the decays being those before s.
    """
    before = g_BLt[:, 1 : t + 1].flip(1).cumsum(1).flip(1)
    after = g_BLt[:, t:-1].cumsum(1)
    return torch.cat([before, torch.zeros_like(g_BLt[:, :1]), after], 1).exp()


def seen(t: int, length: int, prefix_B: Tensor) -> Tensor:
    """(B, L): whether token t sees each token."""
    times_L = torch.arange(length)
    return (times_L <= t) | ((t < prefix_B[:, None]) & (times_L < prefix_B[:, None]))


def elu_plus_1(x: Tensor) -> Tensor:
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


def projected(mixer: Any, x_BLD: Tensor, config: MixerConfig) -> list[Tensor]:
    """Queries, keys and values, convolved where the mixer does that, with heads split off."""
    parts = [x_BLD @ projection.weight.T for projection in (mixer.q_proj, mixer.k_proj, mixer.v_proj)]
    if config.options.get("conv", 0):
        convolutions = (mixer.q_conv1d, mixer.k_conv1d, mixer.v_conv1d)
        parts = [swish(convolved(part, conv.weight, None)) for part, conv in zip(parts, convolutions, strict=True)]
    return [part.unflatten(-1, (int(config.options["heads"]), -1)) for part in parts]


def convolved(x_BLT: Tensor, weight_T11K: Tensor, bias_T: Tensor | None) -> Tensor:
    """Σ_i w_i x_{t−i}, tap by tap."""
    kernel, length = weight_T11K.shape[-1], x_BLT.shape[1]
    total = torch.zeros_like(x_BLT)
    for back in range(min(kernel, length)):
        shifted = torch.cat([torch.zeros_like(x_BLT[:, :back]), x_BLT[:, : length - back]], 1)
        total = total + weight_T11K[:, 0, 0, kernel - 1 - back] * shifted
    return total if bias_T is None else total + bias_T


def swish(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def normed(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5) ** 0.5


def gated_output(mixer: Any, y_BLHV: Tensor, x_BLD: Tensor) -> Tensor:
    y_BLHV = normed(y_BLHV)
    if mixer.g_norm.weight is not None:
        y_BLHV = y_BLHV * mixer.g_norm.weight
    y_BLE = y_BLHV.flatten(2)
    if mixer.g_proj is not None:
        y_BLE = y_BLE * swish(x_BLD @ mixer.g_proj.weight.T)
    return y_BLE @ mixer.o_proj.weight.T


def turned(x_BLHK: Tensor, rope: Rope) -> Tensor:
    """Feature i and feature i + half as one complex number, turned by its position."""
    half = x_BLHK.shape[-1] // 2 // rope.dimensions
    frequencies_E = rope.theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angles_LE = torch.outer(torch.arange(x_BLHK.shape[1], dtype=torch.float64), frequencies_E)
    turns_L1E = torch.polar(torch.ones_like(angles_LE), angles_LE)[:, None]
    # Of two-dimensional positions only the first number grows here.
    moving, still = x_BLHK[..., : 2 * half], x_BLHK[..., 2 * half :]
    product = torch.complex(moving[..., :half].contiguous(), moving[..., half:].contiguous()) * turns_L1E
    return torch.cat([product.real, product.imag, still], -1)


NAIVE = {"linear": naive_linear, "retention": naive_retention, "gated_linear": naive_gated_linear}

CASES = [
    Case(mixer="linear", options={"heads": 4, "key_dim": 8, "value_dim": 8, "feature_map": "elu"}),
    Case(mixer="linear", options={"heads": 2, "key_dim": 6, "value_dim": 5, "feature_map": "elu"}, positions="rope"),
    Case(mixer="linear", options={"heads": 2, "key_dim": 5, "value_dim": 16, "feature_map": "taylor"}),
    Case(mixer="linear", options={"heads": 1, "key_dim": 1, "value_dim": 3, "feature_map": "taylor"}),
    Case(mixer="retention", options={"heads": 4, "key_dim": 8, "value_dim": 8, "output_gate": True}, positions="rope"),
    Case(mixer="retention", options={"heads": 2, "key_dim": 5, "value_dim": 7, "output_gate": False}),
    Case(
        mixer="retention",
        options={"heads": 2, "key_dim": 8, "value_dim": 4, "output_gate": True},
        positions="rope",
        rope=Rope(theta=500.0, dimensions=2),
    ),
    Case(mixer="gated_linear", options={"heads": 4, "key_dim": 4, "value_dim": 8, "output_gate": True, "conv": 0}),
    Case(
        mixer="gated_linear",
        options={"heads": 2, "key_dim": 7, "value_dim": 5, "output_gate": False, "conv": 4},
        positions="rope",
    ),
    Case(mixer="gated_linear", options={"heads": 1, "key_dim": 16, "value_dim": 4, "output_gate": True, "conv": 1}),
]
