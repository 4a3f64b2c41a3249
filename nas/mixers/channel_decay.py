"""Linear recurrences whose state decays by one number per key feature, in chunks.

In: queries, keys, values and log decays of a sequence. Out: what each token reads from the state,
and the state that is left:

    S_t = Diag(exp(g_t)) S_{t−1} + k_t v_tᵀ        y_t = S_tᵀ q_t

That is gated linear attention (Yang et al. 2024), with g between LOWEST and 0.

With a decay per feature the weight of a pair does not come out of the sum over features, so that
each chunk is factored instead: with b the cumulated log decay and m its value in the middle of
the chunk, (q_i exp(b_i − m)) · (k_j exp(m − b_j)). Neither factor exceeds exp(80) in a chunk of
32 when no token decays by more than exp(−5), which float32 holds; pairs that are not seen may
overflow and are cut away. b − m is a product with a small matrix, without long sums.

The backward pass is written by hand: it keeps the inputs and one state per chunk.

Shapes: B batch, L length, H heads, K features of a key, V of a value, C tokens of a chunk, N
chunks of a segment, X = N + 1, M chunks of the sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nas.mixers.chunks import chunked, segments, work_dtype

CHUNK = 32
LOWEST = -5.0
"""The strongest log decay of one token: half a chunk of them is what float32 can hold."""


def channel_decayed_attention(
    q_BLHK: Tensor,
    k_BLHK: Tensor,
    v_BLHV: Tensor,
    log_decay_BLHK: Tensor,
    *,
    initial_BHKV: Tensor | None = None,
    exclusive: bool = False,
) -> tuple[Tensor, Tensor]:
    """Reads of every token from a state that decays per key feature (see the module).

    Args:
        q_BLHK: queries, already scaled.
        k_BLHK: keys.
        v_BLHV: values.
        log_decay_BLHK: from LOWEST to 0.
        initial_BHKV: the state before the first token; None: zeros.
        exclusive: a token does not see itself, though its own decay counts.

    Returns:
        The outputs (B, L, H, V), in the dtype of the values, and the state after the last token
        (B, H, K, V), in float32 (float64 for float64 values).
    """
    found: tuple[Tensor, Tensor] = _ChannelDecayedAttention.apply(  # type: ignore[no-untyped-call]
        q_BLHK, k_BLHK, v_BLHV, log_decay_BLHK, initial_BHKV, exclusive
    )
    return found


class _ChannelDecayedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q_BLHK: Tensor,
        k_BLHK: Tensor,
        v_BLHV: Tensor,
        g_BLHK: Tensor,
        initial_BHKV: Tensor | None,
        exclusive: bool,
    ) -> tuple[Tensor, Tensor]:
        batch, length, heads, key_dim = k_BLHK.shape
        shape = (-(-length // CHUNK) + 1, batch, heads, key_dim, v_BLHV.shape[3])
        states_MBHKV = k_BLHK.new_empty(shape, dtype=work_dtype(v_BLHV))
        if initial_BHKV is None:
            states_MBHKV[0].zero_()
        else:
            states_MBHKV[0].copy_(initial_BHKV)
        y_BLHV = torch.empty_like(v_BLHV, memory_format=torch.contiguous_format)
        first = 0
        for tokens, chunks, size in _segments(v_BLHV):
            part = _Segment.make(q_BLHK, k_BLHK, v_BLHV, g_BLHK, tokens, size)
            states_XBHKV = states_MBHKV[first : first + chunks + 1]
            torch.matmul(part.kept_keys_NBHCK.mT, part.v_NBHCV, out=states_XBHKV[1:])
            rows, wholes = states_XBHKV.unbind(0), part.whole_NBHK1.unbind(0)
            for before, after, whole in zip(rows, rows[1:], wholes, strict=False):
                after.addcmul_(before, whole)
            y_NBHCV = part.weights(exclusive) @ part.v_NBHCV
            y_NBHCV += (part.q_NBHCK * part.start_NBH1K) @ states_XBHKV[:-1]
            chunked(y_BLHV, tokens, size).copy_(y_NBHCV)
            first += chunks
        ctx.save_for_backward(q_BLHK, k_BLHK, v_BLHV, g_BLHK, states_MBHKV)
        ctx.settings = (exclusive, initial_BHKV is not None)
        return y_BLHV, states_MBHKV[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BLHV: Tensor, dfinal_BHKV: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, states_MBHKV = ctx.saved_tensors
        exclusive, has_initial = ctx.settings
        into = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in inputs]
        carry_BHKV, last = dfinal_BHKV, states_MBHKV.shape[0] - 1
        for tokens, chunks, size in reversed(list(_segments(inputs[2]))):
            q_BLHK, k_BLHK, v_BLHV, g_BLHK = inputs
            part = _Segment.make(q_BLHK, k_BLHK, v_BLHV, g_BLHK, tokens, size)
            states_XBHKV = states_MBHKV[last - chunks : last + 1]
            *grads, carry_BHKV = _backward_segment(part, states_XBHKV, dy_BLHV, carry_BHKV, exclusive)
            for whole, grad in zip(into, grads, strict=True):
                chunked(whole, part.tokens, size).copy_(grad)
            last -= chunks
        return *into, carry_BHKV if has_initial else None, None


def _segments(v_BLHV: Tensor) -> Iterator[tuple[slice, int, int]]:
    batch, length, heads, value_dim = v_BLHV.shape
    return segments(length, CHUNK, batch * heads * CHUNK * max(CHUNK, value_dim), v_BLHV.device)


@dataclass(frozen=True)
class _Segment:
    """What one segment computes with; queries and keys carry their factors exp(±(b − m))."""

    tokens: slice
    q_NBHCK: Tensor
    k_NBHCK: Tensor
    kept_keys_NBHCK: Tensor  # k exp(b_C − b_j): a key as the state after the chunk holds it
    v_NBHCV: Tensor
    read_NBHCK: Tensor  # exp(b − m)
    written_NBHCK: Tensor  # exp(m − b)
    start_NBH1K: Tensor  # exp(m)
    last_NBH1K: Tensor  # exp(b_C − m)
    whole_NBHK1: Tensor  # exp(b_C)

    @classmethod
    def make(
        cls,
        q_BLHK: Tensor,
        k_BLHK: Tensor,
        v_BLHV: Tensor,
        g_BLHK: Tensor,
        tokens: slice,
        size: int,
    ) -> _Segment:
        """From the inputs of the sequence."""
        work = work_dtype(v_BLHV)
        g_NBHCK = chunked(g_BLHK, tokens, size).to(work, memory_format=torch.contiguous_format)
        middle = max(size // 2 - 1, 0)
        start_NBH1K = g_NBHCK[..., : middle + 1, :].sum(-2, keepdim=True).exp_()
        read_NBHCK = (_from_middle(size, middle, g_NBHCK) @ g_NBHCK).exp_()
        written_NBHCK = read_NBHCK.reciprocal()
        k_NBHCK = chunked(k_BLHK, tokens, size) * written_NBHCK
        last_NBH1K = read_NBHCK[..., -1:, :]
        return cls(
            tokens=tokens,
            q_NBHCK=chunked(q_BLHK, tokens, size) * read_NBHCK,
            k_NBHCK=k_NBHCK,
            kept_keys_NBHCK=k_NBHCK * last_NBH1K,
            v_NBHCV=chunked(v_BLHV, tokens, size).to(work, memory_format=torch.contiguous_format),
            read_NBHCK=read_NBHCK,
            written_NBHCK=written_NBHCK,
            start_NBH1K=start_NBH1K,
            last_NBH1K=last_NBH1K,
            whole_NBHK1=(start_NBH1K * last_NBH1K).mT,
        )

    def weights(self, exclusive: bool) -> Tensor:
        """How strongly each token of a chunk reads each other, (N, B, H, C, C)."""
        return (self.q_NBHCK @ self.k_NBHCK.mT).tril_(-1 if exclusive else 0)


def _from_middle(size: int, middle: int, like: Tensor) -> Tensor:
    """The matrix that cumulates the rows of a chunk and subtracts the sum up to the middle."""
    ones_CC = torch.ones(size, size, dtype=like.dtype, device=like.device)
    return ones_CC.tril() - (torch.arange(size, device=like.device) <= middle).to(like.dtype)


def _backward_segment(
    part: _Segment, states_XBHKV: Tensor, dy_BLHV: Tensor, carry_BHKV: Tensor, exclusive: bool
) -> tuple[Tensor, ...]:
    """Gradients of a segment's queries, keys, values and log decays, and of the state before it."""
    size = part.v_NBHCV.shape[3]
    dy_NBHCV = chunked(dy_BLHV, part.tokens, size).to(part.v_NBHCV.dtype, memory_format=torch.contiguous_format)
    dstates_XBHKV = torch.empty_like(states_XBHKV)
    torch.matmul((part.q_NBHCK * part.start_NBH1K).mT, dy_NBHCV, out=dstates_XBHKV[:-1])
    dstates_XBHKV[-1].copy_(carry_BHKV)
    rows, wholes = dstates_XBHKV.unbind(0), part.whole_NBHK1.unbind(0)
    for before, after, whole in zip(reversed(rows[:-1]), reversed(rows), reversed(wholes), strict=False):
        before.addcmul_(after, whole)
    after_NBHKV = dstates_XBHKV[1:]

    dweights_NBHCC = (dy_NBHCV @ part.v_NBHCV.mT).tril_(-1 if exclusive else 0)
    dq_NBHCK = dweights_NBHCC @ part.k_NBHCK
    dq_NBHCK.addcmul_(dy_NBHCV @ states_XBHKV[:-1].mT, part.start_NBH1K)
    dk_NBHCK = dweights_NBHCC.mT @ part.q_NBHCK
    dk_NBHCK.addcmul_(part.v_NBHCV @ after_NBHKV.mT, part.last_NBH1K)
    dv_NBHCV = part.weights(exclusive).mT @ dy_NBHCV
    dv_NBHCV += part.kept_keys_NBHCK @ after_NBHKV
    # b_i scales what token i reads and inversely what others read of it; b_C the state left behind.
    db_NBHCK = (part.q_NBHCK * dq_NBHCK).addcmul_(part.k_NBHCK, dk_NBHCK, value=-1)
    later_CC = torch.ones(size, size, dtype=db_NBHCK.dtype, device=db_NBHCK.device).triu()
    dg_NBHCK = later_CC @ db_NBHCK
    dg_NBHCK += (states_XBHKV[1:] * after_NBHKV).sum(-1).unsqueeze(-2)
    return dq_NBHCK.mul_(part.read_NBHCK), dk_NBHCK.mul_(part.written_NBHCK), dv_NBHCV, dg_NBHCK, dstates_XBHKV[0]
