"""The classic recurrent networks, written from their formulas, one token at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nas.mixers.base import MixerConfig
from references.case import Case

Cell = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(from the input, from the output before, output before, cell before) → (output, cell)."""


def lstm_cell(given: Tensor, recalled: Tensor, h_BH: Tensor, c_BH: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = (given + recalled).chunk(4, -1)
    c_BH = f.sigmoid() * c_BH + i.sigmoid() * g.tanh()
    return o.sigmoid() * c_BH.tanh(), c_BH


def gru_cell(given: Tensor, recalled: Tensor, h_BH: Tensor, c_BH: Tensor) -> tuple[Tensor, Tensor]:
    (r_x, z_x, n_x), (r_h, z_h, n_h) = given.chunk(3, -1), recalled.chunk(3, -1)
    z = (z_x + z_h).sigmoid()
    n = (n_x + (r_x + r_h).sigmoid() * n_h).tanh()
    return (1 - z) * n + z * h_BH, c_BH


def rnn_cell(given: Tensor, recalled: Tensor, h_BH: Tensor, c_BH: Tensor) -> tuple[Tensor, Tensor]:
    return (given + recalled).tanh(), c_BH


def run(cell: Cell, rnn: Any, x_LD: Tensor) -> Tensor:
    """One sequence, (L, D) to (L, H)."""
    h_BH = c_BH = torch.zeros(1, rnn.hidden_size, dtype=x_LD.dtype)
    outputs = []
    for x_D in x_LD:
        given = x_D[None] @ rnn.weight_ih_l0.T + rnn.bias_ih_l0
        recalled = h_BH @ rnn.weight_hh_l0.T + rnn.bias_hh_l0
        h_BH, c_BH = cell(given, recalled, h_BH, c_BH)
        outputs.append(h_BH)
    return torch.cat(outputs) if outputs else h_BH[:0]


def naive(cell: Cell) -> Callable[[Any, Tensor, MixerConfig, Tensor], Tensor]:
    def both(mixer: Any, x_BLD: Tensor, config: MixerConfig, prefix_B: Tensor) -> Tensor:
        """The whole forwards; beside it, where the mixer looks ahead, the prefix backwards."""
        rows = []
        for x_LD, prefix in zip(x_BLD, prefix_B.tolist(), strict=True):
            y_LH = run(cell, mixer.rnn, x_LD)
            if config.around.looks_ahead:
                backwards_PH = run(cell, mixer.rnn_reverse, x_LD[:prefix].flip(0)).flip(0)
                y_LH = torch.cat([y_LH, torch.cat([backwards_PH, torch.zeros_like(y_LH[prefix:])])], -1)
            rows.append(y_LH @ mixer.o_proj.weight.T)
        return torch.stack(rows)

    return both


NAIVE = {"lstm": naive(lstm_cell), "gru": naive(gru_cell), "rnn": naive(rnn_cell)}

CASES = [Case(mixer=name, options={"hidden": hidden}) for name in ("lstm", "gru", "rnn") for hidden in (32, 20)]
