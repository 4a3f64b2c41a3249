"""Softmax attention in plain loops, one query at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nas.mixers.base import MixerConfig
from nas.specs.base import Rope
from references.case import Case


def naive_softmax(mixer: Any, x_BLD: Tensor, config: MixerConfig, prefix_B: Tensor) -> Tensor:
    """Each query over the keys that it sees, rotated as complex numbers."""
    options = config.options
    heads, kv_heads, dim = (int(options[key]) for key in ("heads", "kv_heads", "head_dim"))
    q_BLHF = naive_rotation((x_BLD @ mixer.q_proj.weight.T).unflatten(-1, (heads, dim)), config)
    k_BLGF = naive_rotation((x_BLD @ mixer.k_proj.weight.T).unflatten(-1, (kv_heads, dim)), config)
    v_BLGF = (x_BLD @ mixer.v_proj.weight.T).unflatten(-1, (kv_heads, dim))
    k_BLHF, v_BLHF = (part.repeat_interleave(heads // kv_heads, 2) for part in (k_BLGF, v_BLGF))
    rows = []
    for row, prefix in enumerate(prefix_B.tolist()):
        outputs = []
        for t in range(x_BLD.shape[1]):
            seen_S = seen(t, x_BLD.shape[1], prefix, config)
            scores_SH = (q_BLHF[row, t] * k_BLHF[row, seen_S]).sum(-1) / dim**0.5 + biases(t, seen_S, config, heads)
            powers_SH = scores_SH.exp()
            total_H = powers_SH.sum(0)
            if options.get("sink_logit", False):
                total_H = total_H + mixer.sinks.exp()
            y_HF = (powers_SH[..., None] * v_BLHF[row, seen_S]).sum(0) / total_H[:, None]
            y_C = y_HF.flatten()
            if options.get("output_gate", False):
                y_C = y_C / (1 + (-(mixer.gate_proj.weight @ x_BLD[row, t])).exp())
            outputs.append(mixer.o_proj.weight @ y_C)
        rows.append(torch.stack(outputs))
    return torch.stack(rows)


def seen(t: int, length: int, prefix: int, config: MixerConfig) -> Tensor:
    """The tokens that token t sees."""
    window = int(config.options.get("window", length))
    sinks = int(config.options.get("sinks", 0))
    allowed = [s for s in range(length) if s <= t or (t < prefix and s < prefix)]
    return torch.tensor([s for s in allowed if abs(t - s) < window or s < sinks])


def biases(t: int, seen_S: Tensor, config: MixerConfig, heads: int) -> Tensor:
    """What positions add to the scores, (S, H) or a number."""
    if config.around.positions == "alibi":
        # Press et al. 2022: 2^(-8/H), 2^(-16/H), ... for powers of 2; others borrow from the next power.
        below = 2 ** (heads.bit_length() - 1)
        slopes = [2 ** (-8 * (h + 1) / below) for h in range(below)]
        slopes += [2 ** (-4 * (2 * h + 1) / below) for h in range(heads - below)]
        return -(seen_S - t).abs()[:, None] * torch.tensor(slopes, dtype=torch.float64).float().double()
    if config.around.positions == "relative":
        assert config.relative is not None
        added_SH: Tensor = config.relative(torch.tensor([t]), seen_S)[:, 0].T
        return added_SH
    return torch.zeros(())


def naive_rotation(x_BLHF: Tensor, config: MixerConfig) -> Tensor:
    """Pairs of features as complex numbers, turned by their position."""
    if config.around.positions != "rope":
        return x_BLHF
    half = x_BLHF.shape[-1] // 2
    frequencies = config.rope.theta ** (-torch.arange(half, dtype=x_BLHF.dtype) / half)
    angles_L1E = torch.outer(torch.arange(x_BLHF.shape[1], dtype=x_BLHF.dtype), frequencies)[:, None]
    turns = torch.polar(torch.ones_like(angles_L1E), angles_L1E)
    turned = torch.complex(x_BLHF[..., :half], x_BLHF[..., half:]) * turns
    return torch.cat([turned.real, turned.imag], -1)


NAIVE = {"full": naive_softmax, "sliding_window": naive_softmax}

_FOUR = {"heads": 4, "kv_heads": 4, "head_dim": 8}
_GROUPED = {"heads": 4, "kv_heads": 2, "head_dim": 8}
_ONE_KEY = {"heads": 2, "kv_heads": 1, "head_dim": 16}
_THREE = {"heads": 3, "kv_heads": 3, "head_dim": 8}

CASES = [
    Case(mixer="full", options=_FOUR, positions="rope", saved_tolerance=0.0),
    Case(mixer="full", options={**_GROUPED, "head_dim": 6}, positions="rope", saved_tolerance=0.0),
    Case(mixer="full", options=_ONE_KEY, saved_tolerance=0.0),
    Case(mixer="full", options=_THREE, positions="alibi"),
    Case(mixer="full", options=_GROUPED, positions="relative"),
    Case(mixer="full", options={**_GROUPED, "sink_logit": True}, positions="rope"),
    Case(mixer="full", options={**_ONE_KEY, "output_gate": True}, positions="learned"),
    Case(mixer="full", options={**_GROUPED, "sink_logit": True, "output_gate": True}, positions="alibi"),
    Case(mixer="full", options={**_ONE_KEY, "sink_logit": True}, positions="relative"),
    Case(mixer="full", options=_FOUR, positions="rope", rope=Rope(theta=1e6), saved_tolerance=0.0),
    Case(mixer="sliding_window", options={**_FOUR, "window": 1}, positions="rope", saved_tolerance=0.0),
    Case(mixer="sliding_window", options={**_GROUPED, "window": 5}, positions="rope", saved_tolerance=0.0),
    Case(mixer="sliding_window", options={**_ONE_KEY, "window": 64}, saved_tolerance=0.0),
    Case(
        mixer="sliding_window",
        options={"heads": 2, "kv_heads": 2, "head_dim": 16, "window": 130},
        positions="rope",
        saved_tolerance=0.0,
    ),
    Case(mixer="sliding_window", options={**_GROUPED, "window": 5, "sinks": 3}, positions="rope"),
    Case(mixer="sliding_window", options={**_ONE_KEY, "window": 1, "sinks": 1}, positions="learned"),
    Case(mixer="sliding_window", options={**_GROUPED, "window": 40, "sinks": 4}, positions="alibi"),
    Case(
        mixer="sliding_window", options={**_GROUPED, "window": 33, "sinks": 2, "sink_logit": True}, positions="relative"
    ),
    Case(mixer="sliding_window", options={**_THREE, "window": 7}, positions="alibi"),
    Case(mixer="sliding_window", options={**_GROUPED, "window": 16}, positions="relative"),
    Case(mixer="sliding_window", options={**_GROUPED, "window": 16, "sink_logit": True}, positions="rope"),
    Case(
        mixer="sliding_window",
        options={**_ONE_KEY, "window": 20, "sinks": 2, "sink_logit": True, "output_gate": True},
        positions="rope",
    ),
]
