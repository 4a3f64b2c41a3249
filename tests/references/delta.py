"""DeltaNet and gated DeltaNet, written from their formulas, one token at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nas.mixers.base import MixerConfig
from references.case import Case


def naive_delta_rule(
    q_LHK: Tensor, k_LHK: Tensor, v_LHV: Tensor, g_LH: Tensor | None, beta_LH: Tensor
) -> tuple[Tensor, Tensor]:
    """S_t = exp(g_t)·S_{t−1}(I − β k kᵀ) + β v kᵀ with S (H, V, K); o_t = S_t q_t."""
    identity_KK = torch.eye(q_LHK.shape[-1], dtype=q_LHK.dtype)
    state_HVK = q_LHK.new_zeros(*v_LHV.shape[1:], q_LHK.shape[-1])
    outputs = []
    for t in range(len(q_LHK)):
        k_HK, beta_H11 = k_LHK[t], beta_LH[t, :, None, None]
        kept_HKK = identity_KK - beta_H11 * k_HK[:, :, None] * k_HK[:, None, :]
        fade_H11 = 1.0 if g_LH is None else g_LH[t, :, None, None].exp()
        state_HVK = fade_H11 * state_HVK @ kept_HKK + beta_H11 * v_LHV[t, :, :, None] * k_HK[:, None, :]
        outputs.append((state_HVK @ q_LHK[t, :, :, None])[..., 0])
    return torch.stack(outputs), state_HVK


def naive_delta(mixer: Any, x_BLD: Tensor, config: MixerConfig, prefix_B: Tensor) -> Tensor:
    """One scan over everything, another over the reversed prefix; a token reads the sum."""
    options = config.options
    heads, key_heads = int(options["heads"]), int(options["key_heads"])
    rows = []
    for x_LD, prefix in zip(x_BLD, prefix_B.tolist(), strict=True):
        length = len(x_LD)
        qkv_LC = torch.cat([x_LD @ getattr(mixer, f"{name}_proj").weight.T for name in "qkv"], 1)
        if options["conv"]:
            qkv_LC = _convolved(qkv_LC, mixer.conv.weight[:, 0, 0])
        qkv_LC = qkv_LC / (1 + (-qkv_LC).exp())
        keys = key_heads * int(options["key_dim"])
        q_LHK, k_LHK = (_unit(x.reshape(length, key_heads, -1)) for x in (qkv_LC[:, :keys], qkv_LC[:, keys : 2 * keys]))
        q_LHK, k_LHK = (x[:, [h * key_heads // heads for h in range(heads)]] for x in (q_LHK, k_LHK))
        q_LHK = q_LHK / int(options["key_dim"]) ** 0.5
        beta_LH = 1 / (1 + (-(x_LD @ mixer.b_proj.weight.T)).exp())
        g_LH = None
        if hasattr(mixer, "A_log"):
            g_LH = -mixer.A_log.exp() * (1 + (x_LD @ mixer.a_proj.weight.T + mixer.dt_bias).exp()).log()
        tokens = [q_LHK, k_LHK, qkv_LC[:, 2 * keys :].reshape(length, heads, -1), g_LH, beta_LH]
        out_LHV, _ = naive_delta_rule(*tokens)
        if prefix > 1:
            back_PHV, _ = naive_delta_rule(*(None if x is None else x[:prefix].flip(0) for x in tokens))
            out_LHV = torch.cat([out_LHV[:prefix] + back_PHV.flip(0), out_LHV[prefix:]])
        out_LHV = out_LHV / (out_LHV.square().mean(-1, keepdim=True) + 1e-6).sqrt() * mixer.o_norm.weight
        if options["output_gate"]:
            gate_LX = x_LD @ mixer.g_proj.weight.T
            out_LHV = out_LHV * (gate_LX / (1 + (-gate_LX).exp())).reshape(out_LHV.shape)
        rows.append(out_LHV.reshape(length, -1) @ mixer.o_proj.weight.T)
    return torch.stack(rows)


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def _convolved(x_LC: Tensor, weight_CT: Tensor) -> Tensor:
    taps = weight_CT.shape[1]
    return torch.stack(
        [
            torch.stack([weight_CT[:, taps - 1 - back] * x_LC[t - back] for back in range(min(taps, t + 1))]).sum(0)
            for t in range(len(x_LC))
        ]
    )


NAIVE = {"delta": naive_delta, "gated_delta": naive_delta}

CASES = [
    Case(
        mixer=mixer,
        options=dict(zip(("heads", "key_heads", "key_dim", "value_dim", "conv", "output_gate"), values, strict=True)),
    )
    for mixer in ("delta", "gated_delta")
    for values in (
        (4, 4, 8, 8, 4, mixer == "gated_delta"),
        (4, 2, 6, 10, 3, mixer == "delta"),
        (2, 1, 16, 8, 0, True),
        (1, 1, 4, 12, 1, False),
    )
]
