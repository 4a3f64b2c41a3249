"""GRU and tanh network for processors without a fused kernel of theirs.

In: features of a sequence and torch's weights. Out: the outputs at all tokens. Forwards it is
torch's own loop. Backwards torch keeps a dozen small tensors for each token and adds up gradients
of the weights token by token. Here the outputs alone are kept: given those, the gates of all
tokens are functions of known numbers and are formed again at once, a loop carries nothing but the
gradient of the state from token to token, and the gradients of the weights are single products.
It keeps a quarter of what torch keeps, and at width 256 took a quarter (batch 1) to 0.6 (batch 4)
of torch's time. (LSTMs have a fused kernel on CPUs, and all three on GPUs.)

Shapes: B batch, L length, D width, H hidden features, G gates.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def gru(x_BLD: Tensor, weights: list[Tensor]) -> Tensor:
    """Outputs of a GRU that starts from zeros, (B, L, D) to (B, L, H); differentiable once.

    Args:
        x_BLD: features.
        weights: weight_ih (3H, D), weight_hh (3H, H), bias_ih, bias_hh (3H): reset, update, new.
    """
    return _GRU.apply(x_BLD, *weights)  # type: ignore[no-untyped-call, no-any-return]


def rnn(x_BLD: Tensor, weights: list[Tensor]) -> Tensor:
    """Outputs of a tanh network that starts from zeros, (B, L, D) to (B, L, H); differentiable once.

    Args:
        x_BLD: features.
        weights: weight_ih (H, D), weight_hh (H, H), bias_ih, bias_hh (H).
    """
    return _RNN.apply(x_BLD, *weights)  # type: ignore[no-untyped-call, no-any-return]


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BLD: Tensor, *weights: Tensor) -> Tensor:
        start_1BH = x_BLD.new_zeros(1, len(x_BLD), weights[1].shape[1])
        y_BLH, _ = torch.gru(x_BLD, start_1BH, weights, True, 1, 0.0, False, False, True)
        y_BLH = y_BLH.contiguous()  # so that a projection behind it keeps the same memory
        ctx.save_for_backward(x_BLD, y_BLH, *weights)
        return y_BLH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BLH: Tensor) -> Gradients:
        x_BLD, y_BLH, w_ih, w_hh, b_ih, b_hh = ctx.saved_tensors
        x_LBD, y_LBH = x_BLD.transpose(0, 1), y_BLH.transpose(0, 1)
        before_LBH = _before(y_LBH)
        length, batch, hidden = y_LBH.shape
        given_LBGH = functional.linear(x_LBD, w_ih, b_ih).view(length, batch, 3, hidden)
        recalled_LBGH = functional.linear(before_LBH, w_hh, b_hh).view(length, batch, 3, hidden)
        reset, update = (given_LBGH[:, :, :2] + recalled_LBGH[:, :, :2]).sigmoid_().unbind(2)
        recalled = recalled_LBGH[:, :, 2]
        new = torch.addcmul(given_LBGH[:, :, 2], reset, recalled).tanh_()
        # By what the gradient of the output is multiplied on its way to each gate's argument.
        to_new = (1 - update) * (1 - new * new)
        to_update = (before_LBH - new) * update * (1 - update)
        to_reset = to_new * recalled * reset * (1 - reset)
        to_gates_LBGH = torch.stack([to_reset, to_update, to_new * reset], dim=2)
        dy_LBH = _through_time(gradient_BLH.transpose(0, 1), to_gates_LBGH, w_hh, update.contiguous())
        gates_LBGH = to_gates_LBGH.mul_(dy_LBH[:, :, None])
        dw_hh, db_hh = _of_weights(gates_LBGH, before_LBH)
        # The input reaches the new value directly, what is recalled through the reset gate.
        gates_LBGH[:, :, 2] = to_new * dy_LBH
        dw_ih, db_ih = _of_weights(gates_LBGH, x_LBD)
        return _of_input(gates_LBGH, w_ih), dw_ih, dw_hh, db_ih, db_hh


class _RNN(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BLD: Tensor, *weights: Tensor) -> Tensor:
        start_1BH = x_BLD.new_zeros(1, len(x_BLD), weights[1].shape[1])
        y_BLH, _ = torch.rnn_tanh(x_BLD, start_1BH, weights, True, 1, 0.0, False, False, True)
        y_BLH = y_BLH.contiguous()
        ctx.save_for_backward(x_BLD, y_BLH, weights[0], weights[1])
        return y_BLH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BLH: Tensor) -> Gradients:
        x_BLD, y_BLH, w_ih, w_hh = ctx.saved_tensors
        x_LBD, y_LBH = x_BLD.transpose(0, 1), y_BLH.transpose(0, 1)
        to_gates_LBGH = (1 - y_LBH * y_LBH).contiguous()[:, :, None]
        dy_LBH = _through_time(gradient_BLH.transpose(0, 1), to_gates_LBGH, w_hh, None)
        gates_LBGH = to_gates_LBGH.mul_(dy_LBH[:, :, None])
        dw_hh, db = _of_weights(gates_LBGH, _before(y_LBH))
        dw_ih, _ = _of_weights(gates_LBGH, x_LBD)
        return _of_input(gates_LBGH, w_ih), dw_ih, dw_hh, db, db


def _before(y_LBH: Tensor) -> Tensor:
    """The output before each token."""
    return torch.cat([torch.zeros_like(y_LBH[:1]), y_LBH[:-1]])


def _through_time(gradient_LBH: Tensor, to_gates_LBGH: Tensor, w_hh: Tensor, kept_LBH: Tensor | None) -> Tensor:
    """The whole gradient of each output: its own, and what later outputs pass back through the state.

    Args:
        gradient_LBH: its own.
        to_gates_LBGH: the derivative of each gate's recalled argument by the output, per gradient.
        w_hh: (GH, H).
        kept_LBH: the share of a state that is kept as it is; None: nothing.
    """
    whole_LBH = torch.empty(gradient_LBH.shape, dtype=gradient_LBH.dtype, device=gradient_LBH.device)
    wholes, own, factors = whole_LBH.unbind(0), gradient_LBH.unbind(0), to_gates_LBGH.unbind(0)
    kept = None if kept_LBH is None else kept_LBH.unbind(0)
    later_BH = torch.zeros_like(wholes[-1])
    for t in range(len(wholes) - 1, -1, -1):
        dy_BH = torch.add(own[t], later_BH, out=wholes[t])
        gates = (factors[t] * dy_BH[:, None]).flatten(1)
        later_BH = torch.mm(gates, w_hh) if kept is None else torch.addmm(kept[t] * dy_BH, gates, w_hh)
    return whole_LBH


def _of_weights(gates_LBGH: Tensor, seen_LBE: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the weights (GH, E) that `seen` went through, and of the bias behind them."""
    gates = gates_LBGH.flatten(2).flatten(0, 1)
    return gates.T @ seen_LBE.flatten(0, 1), gates.sum(0)


def _of_input(gates_LBGH: Tensor, w_ih: Tensor) -> Tensor:
    """Gradient of the input, (B, L, D)."""
    return (gates_LBGH.flatten(2) @ w_ih).transpose(0, 1)
