"""Linear recurrences whose state decays by one number per head, in chunks.

In: queries, keys, values and log decays of a sequence. Out: what each token reads from the state,
and the state that is left:

    S_t = exp(g_t)·S_{t−1} + w_t·k_t v_tᵀ        y_t = S_tᵀ q_t + D·v_t

with g the log decay (at most 0), w the gain and D the skip. That is linear attention without
decay (Katharopoulos et al. 2020), retention with a fixed one (Sun et al. 2023) and Mamba-2's
state space duality with one that depends on the token (Dao & Gu 2024).

Within a chunk the recurrence is masked attention; between chunks only the state is carried.
Chunks go in segments, as many at once as keep the scores in a processor's cache. Time and memory
grow with L. The backward pass is written by hand: it keeps the inputs, the outputs and one state
per chunk, and makes the scores anew.

A weight exp(b_i − b_j), b the cumulated log decay, is formed from the difference of a pair, which
is at most 0: nothing overflows, however strong the decay. b is cumulated in float64 and split
into a float32 and a rest, so that a token that forgets everything (g = −100) costs no digits of
the tokens after it.

Shapes: B batch, L length, G groups that share queries and keys, R heads of a group, H = G·R
heads, K features of a key, V of a value, C tokens of a chunk, N chunks of a segment, M chunks of
the sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, unflatten
from torch.autograd.function import once_differentiable

from nas.mixers.chunks import Segment, decayed_segments, heads_apart, work_dtype

CHUNK = 64


def decayed_attention(
    q_BLGK: Tensor,
    k_BLGK: Tensor,
    v_BLHV: Tensor,
    log_decay: Tensor | None = None,
    *,
    gain_BLH: Tensor | None = None,
    skip_H: Tensor | None = None,
    initial_BHKV: Tensor | None = None,
    exclusive: bool = False,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """Reads of every token from a state that decays per head (see the module).

    Args:
        q_BLGK: queries, already scaled; G divides H.
        k_BLGK: keys.
        v_BLHV: values.
        log_decay: at most 0; None: no decay; (H,): fixed, gets no gradient; (B, L, H): by token.
        gain_BLH: how strongly a token is written; None: 1.
        skip_H: how much of a token's value is added to its output; None: nothing.
        initial_BHKV: the state before the first token; None: zeros.
        exclusive: a token does not see itself, though its own decay counts.
        chunk: tokens of a chunk.

    Returns:
        The outputs (B, L, H, V), in the dtype of the values, and the state after the last token
        (B, H, K, V), in float32 (float64 for float64 values).
    """
    found: tuple[Tensor, Tensor] = _DecayedAttention.apply(  # type: ignore[no-untyped-call]
        q_BLGK, k_BLGK, v_BLHV, log_decay, gain_BLH, skip_H, initial_BHKV, exclusive, chunk
    )
    return found


class _DecayedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q_BLGK: Tensor,
        k_BLGK: Tensor,
        v_BLHV: Tensor,
        log_decay: Tensor | None,
        gain_BLH: Tensor | None,
        skip_H: Tensor | None,
        initial_BHKV: Tensor | None,
        exclusive: bool,
        chunk: int,
    ) -> tuple[Tensor, Tensor]:
        batch, length, groups, key_dim = k_BLGK.shape
        heads, value_dim = v_BLHV.shape[2:]
        work, chunks = work_dtype(v_BLHV), -(-length // chunk)
        states_MBGKS = k_BLGK.new_empty((chunks + 1, batch, groups, key_dim, heads // groups * value_dim), dtype=work)
        if initial_BHKV is None:
            states_MBGKS[0].zero_()
        else:
            heads_apart(states_MBGKS[0], value_dim).copy_(unflatten(initial_BHKV, 1, (groups, -1)).transpose(2, 3))
        y_BLHV = torch.empty_like(v_BLHV, memory_format=torch.contiguous_format)
        saved = (q_BLGK, k_BLGK, v_BLHV, log_decay, gain_BLH, skip_H)
        first = 0
        for part in decayed_segments(saved, exclusive, chunk):
            _forward_segment(part, states_MBGKS[first : first + part.chunks + 1], y_BLHV)
            first += part.chunks
            del part  # before the decays of the next are made
        # Outputs serve the gradient of decays alone.
        by_token = log_decay is not None and log_decay.dim() == 3
        ctx.save_for_backward(*saved, y_BLHV if by_token else None, states_MBGKS)
        ctx.settings = (exclusive, chunk, initial_BHKV is not None)
        final_BHKV = heads_apart(states_MBGKS[-1], value_dim).transpose(2, 3).flatten(1, 2)
        return y_BLHV, final_BHKV.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BLHV: Tensor, dfinal_BHKV: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, y_BLHV, states_MBGKS = ctx.saved_tensors
        exclusive, chunk, has_initial = ctx.settings
        q_BLGK, k_BLGK, v_BLHV, log_decay, gain_BLH, skip_H = inputs
        groups, value_dim = k_BLGK.shape[2], v_BLHV.shape[3]
        into = _Gradients(
            q_BLGK=torch.empty_like(q_BLGK, memory_format=torch.contiguous_format),
            k_BLGK=torch.empty_like(k_BLGK, memory_format=torch.contiguous_format),
            v_BLHV=torch.empty_like(v_BLHV, memory_format=torch.contiguous_format),
            decay_BLH=None if log_decay is None or log_decay.dim() == 1 else torch.empty_like(log_decay),
            gain_BLH=None if gain_BLH is None else torch.empty_like(gain_BLH),
            skip_H=None if skip_H is None else torch.zeros_like(skip_H, dtype=states_MBGKS.dtype),
        )
        carry_BGKS = unflatten(dfinal_BHKV.to(states_MBGKS.dtype), 1, (groups, -1)).transpose(2, 3).flatten(3)
        last = states_MBGKS.shape[0] - 1
        for part in decayed_segments(tuple(inputs), exclusive, chunk, backwards=True):
            states = states_MBGKS[last - part.chunks : last + 1]
            carry_BGKS = _backward_segment(part, states, y_BLHV, dy_BLHV, carry_BGKS, into)
            last -= part.chunks
            del part  # before the decays of the next are made
        dinitial = heads_apart(carry_BGKS, value_dim).transpose(2, 3).flatten(1, 2) if has_initial else None
        dskip = None if into.skip_H is None else into.skip_H.to(skip_H.dtype)
        return into.q_BLGK, into.k_BLGK, into.v_BLHV, into.decay_BLH, into.gain_BLH, dskip, dinitial, None, None


@dataclass(frozen=True)
class _Gradients:
    """Where the backward pass writes, shaped as the inputs."""

    q_BLGK: Tensor
    k_BLGK: Tensor
    v_BLHV: Tensor
    decay_BLH: Tensor | None
    gain_BLH: Tensor | None
    skip_H: Tensor | None


def _weighted(part: Segment, v_NBGRCV: Tensor, factor_NBGRC1: Tensor | None) -> Tensor:
    """Values times gain and factor, in the work dtype."""
    v_NBGRCV = v_NBGRCV.to(work_dtype(v_NBGRCV))
    if part.gain_BLH is not None:
        gain_NBGRC1 = part.rows(part.gain_BLH).to(v_NBGRCV.dtype)
        factor_NBGRC1 = gain_NBGRC1 if factor_NBGRC1 is None else gain_NBGRC1 * factor_NBGRC1
    return v_NBGRCV if factor_NBGRC1 is None else v_NBGRCV * factor_NBGRC1


def _written(part: Segment) -> tuple[Tensor, Tensor]:
    """Values as later tokens of their chunk see them (N, B, G, R, C, V), and as the state after it holds them,
    (N, B, G, C, S)."""
    v_NBGRCV, decays = part.heads(part.v_BLHV), part.decays
    rest = None if decays is None or decays.rest_NBGRC1 is None else decays.rest_NBGRC1.reciprocal()
    near_NBGRCV = _weighted(part, v_NBGRCV, rest).contiguous()
    kept_NBGRCV = near_NBGRCV if decays is None else _weighted(part, v_NBGRCV, decays.out_NBGRC1)
    return near_NBGRCV, _joined(kept_NBGRCV)


def _joined(x_NBGRCV: Tensor) -> Tensor:
    """The heads of a group side by side, (N, B, G, C, S)."""
    return x_NBGRCV.transpose(3, 4).flatten(4).contiguous()


def _split(x_NBGCS: Tensor, value_dim: int) -> Tensor:
    """The heads of a group apart, (N, B, G, R, C, V)."""
    return heads_apart(x_NBGCS, value_dim).transpose(3, 4)


def _weights(part: Segment, q_NBGCK: Tensor, k_NBGCK: Tensor) -> Tensor:
    """How strongly each token of a chunk reads each other, (N, B, G, R, C, C), the rest of b aside."""
    scores_NBG1CC = (q_NBGCK @ k_NBGCK.mT).unsqueeze(3)
    if part.decays is not None:
        return scores_NBG1CC * part.decays.pairs_NBGRCC
    weights_NBG1CC = scores_NBG1CC.tril_(-1 if part.exclusive else 0)
    return weights_NBG1CC.expand(-1, -1, -1, part.v_BLHV.shape[2] // part.k_BLGK.shape[2], -1, -1)


def _contiguous(x_NBGCK: Tensor) -> Tensor:
    return x_NBGCK.to(work_dtype(x_NBGCK), memory_format=torch.contiguous_format)


def _forward_segment(part: Segment, states_XBGKS: Tensor, y_BLHV: Tensor) -> None:
    """Fills the outputs of a segment and the states after each of its chunks (X = N + 1)."""
    value_dim, decays = y_BLHV.shape[3], part.decays
    q_NBGCK, k_NBGCK = (_contiguous(part.keys(x)) for x in (part.q_BLGK, part.k_BLGK))
    near_NBGRCV, kept_NBGCS = _written(part)
    torch.matmul(k_NBGCK.mT, kept_NBGCS, out=states_XBGKS[1:])
    _carry(states_XBGKS, part, value_dim)
    from_state_NBGRCV = _split(q_NBGCK @ states_XBGKS[:-1], value_dim)
    from_chunk_NBGRCV = _weights(part, q_NBGCK, k_NBGCK) @ near_NBGRCV
    if decays is None:
        from_chunk_NBGRCV += from_state_NBGRCV
    else:
        if decays.rest_NBGRC1 is not None:
            from_chunk_NBGRCV *= decays.rest_NBGRC1
        from_chunk_NBGRCV.addcmul_(from_state_NBGRCV, decays.in_NBGRC1)
    if part.skip_H is not None:
        from_chunk_NBGRCV.addcmul_(part.heads(part.v_BLHV), _by_head(part.skip_H, part))
    part.heads(y_BLHV).copy_(from_chunk_NBGRCV)


def _by_head(x_H: Tensor, part: Segment) -> Tensor:
    return x_H.view(part.k_BLGK.shape[2], -1, 1, 1)


def _carry(states_XBGKS: Tensor, part: Segment, value_dim: int) -> None:
    """Adds to what each chunk wrote the decayed state before it."""
    if part.decays is None:
        rows = states_XBGKS.unbind(0)
        for before, after in pairwise(rows):
            after += before
        return
    rows = heads_apart(states_XBGKS, value_dim).unbind(0)
    for before, after, whole in zip(rows, rows[1:], _whole(part), strict=False):
        after.addcmul_(before, whole)


def _whole(part: Segment) -> list[Tensor]:
    """The decay over each chunk, (B, G, 1, R, 1)."""
    assert part.decays is not None
    whole_NBG1R1 = part.decays.whole_NBGR11.transpose(3, 4)
    return list(whole_NBG1R1.expand(part.chunks, -1, -1, -1, -1, -1).unbind(0))


def _backward_segment(
    part: Segment, states_XBGKS: Tensor, y_BLHV: Tensor | None, dy_BLHV: Tensor, carry_BGKS: Tensor, into: _Gradients
) -> Tensor:
    """Fills the gradients of a segment's inputs; from that of the state after it makes that before it."""
    value_dim, decays = dy_BLHV.shape[3], part.decays
    q_NBGCK, k_NBGCK = (_contiguous(part.keys(x)) for x in (part.q_BLGK, part.k_BLGK))
    near_NBGRCV, kept_NBGCS = _written(part)
    dy_NBGRCV = part.heads(dy_BLHV).to(q_NBGCK.dtype)
    rest = None if decays is None else decays.rest_NBGRC1
    near_dy_NBGRCV = (dy_NBGRCV if rest is None else dy_NBGRCV * rest).contiguous()
    read_dy_NBGCS = _joined(dy_NBGRCV if decays is None else dy_NBGRCV * decays.in_NBGRC1)
    dstates_XBGKS = torch.empty_like(states_XBGKS)
    torch.matmul(q_NBGCK.mT, read_dy_NBGCS, out=dstates_XBGKS[:-1])
    dstates_XBGKS[-1].copy_(carry_BGKS)
    _carry_back(dstates_XBGKS, part, value_dim)
    after_NBGKS = dstates_XBGKS[1:]

    dweights_NBGRCC = near_dy_NBGRCV @ near_NBGRCV.mT
    if decays is None:
        dscores_NBGCC = dweights_NBGRCC.sum(3) if dweights_NBGRCC.shape[3] > 1 else dweights_NBGRCC.squeeze(3)
        dscores_NBGCC = dscores_NBGCC.tril_(-1 if part.exclusive else 0)
    else:
        dweights_NBGRCC *= decays.pairs_NBGRCC
        dscores_NBGCC = dweights_NBGRCC.sum(3) if dweights_NBGRCC.shape[3] > 1 else dweights_NBGRCC.squeeze(3)
    part.keys(into.q_BLGK).copy_((dscores_NBGCC @ k_NBGCK).add_(read_dy_NBGCS @ states_XBGKS[:-1].mT))
    part.keys(into.k_BLGK).copy_((dscores_NBGCC.mT @ q_NBGCK).add_(kept_NBGCS @ after_NBGKS.mT))
    dv_NBGRCV = _weights(part, q_NBGCK, k_NBGCK).mT @ near_dy_NBGRCV
    dkept_NBGRCV = _split(k_NBGCK @ after_NBGKS, value_dim)
    if decays is None:
        dv_NBGRCV += dkept_NBGRCV
    else:
        if rest is not None:
            dv_NBGRCV *= rest.reciprocal()
        dv_NBGRCV.addcmul_(dkept_NBGRCV, decays.out_NBGRC1)
    _finish_values(part, dv_NBGRCV, dy_NBGRCV, y_BLHV, states_XBGKS[1:], after_NBGKS, into)
    return dstates_XBGKS[0]


def _carry_back(dstates_XBGKS: Tensor, part: Segment, value_dim: int) -> None:
    if part.decays is None:
        rows = dstates_XBGKS.unbind(0)
        for before, after in zip(reversed(rows[:-1]), reversed(rows), strict=False):
            before += after
        return
    rows = heads_apart(dstates_XBGKS, value_dim).unbind(0)
    for before, after, whole in zip(reversed(rows[:-1]), reversed(rows), reversed(_whole(part)), strict=False):
        before.addcmul_(after, whole)


def _finish_values(
    part: Segment,
    dv_NBGRCV: Tensor,
    dy_NBGRCV: Tensor,
    y_BLHV: Tensor | None,
    states_NBGKS: Tensor,
    dstates_NBGKS: Tensor,
    into: _Gradients,
) -> None:
    """Gradients of values, gains, skip and log decays, from that of gain · value.

    A token's b_i scales all that it reads and inversely all that others read of it, so that its
    gradient is ⟨y_i, dy_i⟩ − ⟨w_i·v_i, d(w_i·v_i)⟩.
    """
    v_NBGRCV = part.heads(part.v_BLHV).to(dv_NBGRCV.dtype)
    dgain_NBGRC1 = None
    if part.gain_BLH is not None or into.decay_BLH is not None:
        dgain_NBGRC1 = (dv_NBGRCV * v_NBGRCV).sum(-1, keepdim=True)
    if part.gain_BLH is not None:
        assert into.gain_BLH is not None and dgain_NBGRC1 is not None
        gain_NBGRC1 = part.rows(part.gain_BLH).to(dv_NBGRCV.dtype)
        part.rows(into.gain_BLH).copy_(dgain_NBGRC1)
        dgain_NBGRC1 = dgain_NBGRC1 * gain_NBGRC1
        dv_NBGRCV *= gain_NBGRC1
    read_NBGRC1 = None
    if into.decay_BLH is not None:
        assert y_BLHV is not None
        read_NBGRC1 = (part.heads(y_BLHV).to(dv_NBGRCV.dtype) * dy_NBGRCV).sum(-1, keepdim=True)
    if part.skip_H is not None:
        assert into.skip_H is not None
        skip_GR11 = _by_head(part.skip_H, part).to(dv_NBGRCV.dtype)
        skipped_NBGRC1 = (v_NBGRCV * dy_NBGRCV).sum(-1, keepdim=True)
        into.skip_H.add_(skipped_NBGRC1.sum((0, 1, 4, 5)).flatten())
        dv_NBGRCV.addcmul_(dy_NBGRCV, skip_GR11)
        if read_NBGRC1 is not None:
            read_NBGRC1 -= skipped_NBGRC1 * skip_GR11
    part.heads(into.v_BLHV).copy_(dv_NBGRCV)
    if into.decay_BLH is not None:
        assert read_NBGRC1 is not None and dgain_NBGRC1 is not None
        db_NBGRC = (read_NBGRC1 - dgain_NBGRC1).squeeze(-1)
        # b_C scales the whole state after the chunk.
        sums_NBGS = (states_NBGKS * dstates_NBGKS).sum(3)
        last_NBGR1 = heads_apart(sums_NBGS, dv_NBGRCV.shape[-1]).sum(-1, keepdim=True)
        dg_NBGRC = db_NBGRC.flip(-1).cumsum(-1).flip(-1).add_(last_NBGR1)
        part.rows(into.decay_BLH).copy_(dg_NBGRC[..., None])
