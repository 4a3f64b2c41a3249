"""Root-mean-square norm and swish gate of what heads read, in one.

In: the features that heads read, and gates. Out: features of the same shape, normed head by head
(or group by group) and gated. Retention (Sun et al. 2023) and gated linear attention (Yang et al.
2024) norm and then gate, Mamba-2 (Dao & Gu 2024) gates and then norms.

The backward pass is written by hand: of its operands it keeps what was given and one number per
head, where autograd would keep every product.

Shapes: L length and leading axes as B, D features, H heads, F features of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn, unflatten
from torch.autograd.function import once_differentiable
from torch.nn import functional

EPSILON = 1e-5


class GatedRMSNorm(nn.Module):
    """RMS norm over groups of features, with a swish gate.

    Args:
        size: features that are normed together; they divide those given.
        weights: how many are learned: `size`, one for every feature given, or 0 for none.
        gate_first: whether what is normed is already gated.
    """

    def __init__(self, size: int, *, weights: int, gate_first: bool = False) -> None:
        super().__init__()
        self.size = size
        self.gate_first = gate_first
        self.weight = nn.Parameter(torch.ones(weights)) if weights else None

    def forward(self, x_BLD: Tensor, gate_BLD: Tensor | None) -> Tensor:
        """(…, D) normed and, where there are gates of the same shape, gated; in the dtype of x."""
        if gate_BLD is None:
            x_BLHF = unflatten(x_BLD, -1, (-1, self.size))
            y_BLHF = functional.rms_norm(x_BLHF, (self.size,), eps=EPSILON)
            return (y_BLHF if self.weight is None else y_BLHF * self.weight.view(-1, self.size)).flatten(-2)
        y_BLD: Tensor = _GatedNorm.apply(x_BLD, gate_BLD, self.weight, self.size, self.gate_first)  # type: ignore[no-untyped-call]
        return y_BLD


class _GatedNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_BLD: Tensor, gate_BLD: Tensor, weight: Tensor | None, size: int, gate_first: bool
    ) -> Tensor:
        work = torch.promote_types(x_BLD.dtype, torch.float32)
        x_BLHF, swish_BLHF = (unflatten(x.to(work), -1, (-1, size)) for x in (x_BLD, functional.silu(gate_BLD)))
        y_BLHF = x_BLHF * swish_BLHF if gate_first else x_BLHF
        inverse_BLH1 = torch.linalg.vector_norm(y_BLHF, dim=-1, keepdim=True)
        inverse_BLH1 = inverse_BLH1.square_().div_(size).add_(EPSILON).rsqrt_()
        y_BLHF = y_BLHF.mul_(inverse_BLH1) if gate_first else (y_BLHF * inverse_BLH1).mul_(swish_BLHF)
        if weight is not None:
            y_BLHF.mul_(weight.view(-1, size))
        ctx.save_for_backward(x_BLD, gate_BLD, weight, inverse_BLH1)
        ctx.settings = (size, gate_first)
        return y_BLHF.flatten(-2).to(x_BLD.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BLD: Tensor) -> tuple[Tensor | None, ...]:
        x_BLD, gate_BLD, weight, inverse_BLH1 = ctx.saved_tensors
        size, gate_first = ctx.settings
        x, gate, dy = (unflatten(part.to(inverse_BLH1.dtype), -1, (-1, size)) for part in (x_BLD, gate_BLD, dy_BLD))
        swish = functional.silu(gate)
        normed = (x * swish if gate_first else x.clone()).mul_(inverse_BLH1)
        # What the norm's output is multiplied by afterwards, but for the weight.
        after = dy if gate_first else dy * swish
        dweight = None
        if weight is not None:
            dweight_HF = (after * normed).flatten(0, -3).sum(0)
            dweight = dweight_HF.sum_to_size(weight.view(-1, size).shape).view_as(weight).to(weight.dtype)
            after = after * weight.view(-1, size)
            dy = after if gate_first else dy * weight.view(-1, size)
        mean_BLH1 = (after * normed).mean(-1, keepdim=True)
        dnorm = torch.addcmul(after, normed, mean_BLH1, value=-1).mul_(inverse_BLH1)
        dx = dnorm * swish if gate_first else dnorm
        dgate = torch.ops.aten.silu_backward(dnorm * x if gate_first else normed.mul_(dy), gate)
        return dx.flatten(-2).to(x_BLD.dtype), dgate.flatten(-2).to(gate_BLD.dtype), dweight, None, None
