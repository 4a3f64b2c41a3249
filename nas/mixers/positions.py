"""Rotary position embedding (Su et al. 2021), in the half-split layout of Llama.

In: queries or keys and the position of the first. Out: the same, rotated. Feature i of a head
turns together with feature i + E, by position × theta^(−i / E), so that weights trained with
Llama's `rotate_half` fit as they are.

Tables are made anew in every pass: that costs under 1 % of a layer, keeps buffers out of the
model, and lets the backward pass (a turn the other way) keep nothing at all.

Shapes: L length, H heads, E half the features of a head; leading axes are free.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def rotate(x: Tensor, *, start: int, theta: float, time_axis: int) -> Tensor:
    """Turns each head by an angle that grows with its position.

    Args:
        x: (…, heads, features), features even, with time on `time_axis`.
        start: absolute position of the first entry of the time axis.
        theta: base of the frequencies.
        time_axis: counted from the front, before the last two axes.
    """
    turned: Tensor = _Rotation.apply(x, start, theta, time_axis)  # type: ignore[no-untyped-call]
    return turned


class _Rotation(torch.autograd.Function):
    """Autograd would keep the tables and run twice as many kernels; a rotation needs neither."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, start: int, theta: float, time_axis: int) -> Tensor:
        ctx.place = (start, theta, time_axis)
        return _turn(x, start, theta, time_axis, sign=1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _turn(grad, *ctx.place, sign=-1.0), None, None, None


def _turn(x: Tensor, start: int, theta: float, time_axis: int, *, sign: float) -> Tensor:
    cos, sin = _tables(x, start, theta, time_axis)
    first, second = x.chunk(2, -1)
    turned = torch.empty_like(x, memory_format=torch.contiguous_format)
    turned_first, turned_second = turned.chunk(2, -1)
    torch.mul(first, cos, out=turned_first).addcmul_(second, sin, value=-sign)
    torch.mul(second, cos, out=turned_second).addcmul_(first, sin, value=sign)
    return turned


def _tables(x: Tensor, start: int, theta: float, time_axis: int) -> tuple[Tensor, Tensor]:
    length, heads, half = x.shape[time_axis], x.shape[-2], x.shape[-1] // 2
    # Angles of far positions need more than bf16 has; float64 inputs keep their precision.
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    frequencies_E = theta ** (-torch.arange(half, dtype=exact, device=x.device) / half)
    positions_L = torch.arange(start, start + length, dtype=exact, device=x.device)
    angles_LE = positions_L[:, None] * frequencies_E
    # One row per head: the kernels then run over whole rows and not over half a head at a time.
    shape = [1] * x.dim()
    shape[time_axis], shape[-2], shape[-1] = length, heads, half
    cos, sin = (
        table_LE.to(x.dtype)[:, None].expand(length, heads, half).reshape(shape)
        for table_LE in (angles_LE.cos(), angles_LE.sin())
    )
    return cos, sin
