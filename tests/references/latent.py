"""Multi-head latent attention, written from its formulas, one query at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nas.mixers.base import MixerConfig
from nas.specs.base import Rope
from references.case import Case


def naive_latent(mixer: Any, x_BLD: Tensor, config: MixerConfig, prefix_B: Tensor) -> Tensor:
    """Keys and values of every head are expanded; what a query sees is looked up token by token."""
    heads, plain, turned, value, compressed = (
        int(config.options[key]) for key in ("heads", "head_dim", "rope_dim", "value_dim", "latent_dim")
    )
    batch, length, _ = x_BLD.shape
    q_BLHX = (x_BLD @ mixer.q_proj.weight.T).reshape(batch, length, heads, plain + turned)
    down_BLX = x_BLD @ mixer.kv_a_proj_with_mqa.weight.T
    latent_BLC, shared_BLR = down_BLX[..., :compressed], down_BLX[..., compressed:]
    root_BL1 = (latent_BLC.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    latent_BLC = latent_BLC / root_BL1 * mixer.kv_a_layernorm.weight
    up_BLHX = (latent_BLC @ mixer.kv_b_proj.weight.T).reshape(batch, length, heads, plain + value)
    shared_BLR = naive_rotation(shared_BLR, config.rope)
    q_BLHR = torch.stack([naive_rotation(q_BLHX[:, :, h, plain:], config.rope) for h in range(heads)], 2)
    rows = []
    for b in range(batch):
        outputs = []
        for t in range(length):
            end = max(t + 1, int(prefix_B[b])) if t < prefix_B[b] else t + 1
            mixed = []
            for h in range(heads):
                scores_S = up_BLHX[b, :end, h, :plain] @ q_BLHX[b, t, h, :plain]
                if turned:
                    scores_S = scores_S + shared_BLR[b, :end] @ q_BLHR[b, t, h]
                weights_S = (scores_S / (plain + turned) ** 0.5).softmax(0)
                mixed.append(weights_S @ up_BLHX[b, :end, h, plain:])
            outputs.append(torch.cat(mixed) @ mixer.o_proj.weight.T)
        rows.append(torch.stack(outputs))
    return torch.stack(rows)


def naive_rotation(x_BLR: Tensor, rope: Rope) -> Tensor:
    """Pairs (i, i + E) as complex numbers that turn; of two dimensions, the second stands at 0."""
    half = x_BLR.shape[-1] // (2 * rope.dimensions)
    frequencies_E = rope.theta ** (-torch.arange(half, dtype=x_BLR.dtype) / max(half, 1))
    angles_LE = torch.outer(torch.arange(x_BLR.shape[1], dtype=x_BLR.dtype), frequencies_E)
    first, second = x_BLR[..., :half], x_BLR[..., half : 2 * half]
    turned = torch.complex(first, second) * torch.polar(torch.ones_like(angles_LE), angles_LE)
    return torch.cat([turned.real, turned.imag, x_BLR[..., 2 * half :]], -1)


NAIVE = {"latent": naive_latent}

CASES = [
    Case(
        mixer="latent",
        options={"heads": 4, "head_dim": 8, "rope_dim": 4, "value_dim": 8, "latent_dim": 32},
        positions="rope",
    ),
    # The latent smaller than a head, values larger than keys, and an odd size.
    Case(
        mixer="latent",
        options={"heads": 3, "head_dim": 5, "rope_dim": 2, "value_dim": 9, "latent_dim": 6},
        positions="rope",
    ),
    Case(
        mixer="latent",
        options={"heads": 2, "head_dim": 8, "rope_dim": 8, "value_dim": 8, "latent_dim": 16},
        positions="rope",
        rope=Rope(theta=100.0, dimensions=2),
    ),
    Case(mixer="latent", options={"heads": 2, "head_dim": 16, "rope_dim": 0, "value_dim": 16, "latent_dim": 12}),
    Case(
        mixer="latent",
        options={"heads": 1, "head_dim": 8, "rope_dim": 0, "value_dim": 4, "latent_dim": 8},
        positions="learned",
    ),
]
