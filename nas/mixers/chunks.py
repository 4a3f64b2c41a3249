"""How sequences are cut into chunks, and how a state decays over one of them.

In: queries, keys, values and log decays of a sequence. Out: segments of chunks that are computed
at once, as views of them, with the factors by which their tokens decay.

Shapes: B batch, L length, G groups that share queries and keys, R heads of a group, H = G·R
heads, K features of a key, V of a value, S = R·V, F features, C tokens of a chunk, N chunks of a
segment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, unflatten

# Scores that one segment makes: on a CPU they stay in the processor's cache.
CPU_SCORES, GPU_SCORES = 2**18, 2**26


def segments(length: int, chunk: int, scores: int, device: torch.device) -> Iterator[tuple[slice, int, int]]:
    """Cuts a sequence: (its tokens, N chunks, C tokens of each) of each segment in turn.

    Args:
        length: tokens of the sequence.
        chunk: tokens of a chunk; those left over make a short chunk of their own.
        scores: elements that one chunk's largest temporary has.
        device: where it runs.
    """
    room = max(1, (CPU_SCORES if device.type == "cpu" else GPU_SCORES) // scores)
    whole = length // chunk
    for first in range(0, whole, room):
        count = min(room, whole - first)
        yield slice(first * chunk, (first + count) * chunk), count, chunk
    if length % chunk:
        yield slice(whole * chunk, length), 1, length % chunk


def work_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which states and decays are computed."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def chunked(x_BLHF: Tensor, tokens: slice, size: int) -> Tensor:
    """Some tokens of a sequence in chunks of a size, (N, B, H, C, F); a view."""
    return unflatten(x_BLHF[:, tokens], 1, (-1, size)).permute(1, 0, 3, 2, 4)


def heads_apart(x_tS: Tensor, value_dim: int) -> Tensor:
    """The heads of a group, which lie side by side, on an axis of their own: (…, R, V)."""
    return unflatten(x_tS, -1, (-1, value_dim))


@dataclass(frozen=True)
class Decays:
    """The factors by which one segment decays; each is at most about 1."""

    pairs_NBGRCC: Tensor  # exp(b_i − b_j) where j is seen from i, else 0
    in_NBGRC1: Tensor  # exp(b_i): the state before the chunk, as token i sees it
    out_NBGRC1: Tensor  # exp(b_C − b_j): token j, as the state after the chunk holds it
    whole_NBGR11: Tensor  # exp(b_C)
    # What float32 leaves of b: exp(rest_i) for queries; exp(−rest_j) for keys is its reciprocal.
    rest_NBGRC1: Tensor | None


@dataclass(frozen=True)
class Segment:
    """The inputs of N chunks of C tokens, as views, and their decays."""

    tokens: slice
    chunks: int
    size: int
    q_BLGK: Tensor
    k_BLGK: Tensor
    v_BLHV: Tensor
    gain_BLH: Tensor | None
    skip_H: Tensor | None
    decays: Decays | None
    exclusive: bool

    def keys(self, x_BLGK: Tensor) -> Tensor:
        """(B, L, G, K) of the sequence as (N, B, G, C, K) of the segment."""
        return chunked(x_BLGK, self.tokens, self.size)

    def heads(self, x_BLHV: Tensor) -> Tensor:
        """(B, L, H, V) of the sequence as (N, B, G, R, C, V) of the segment."""
        groups = self.k_BLGK.shape[2]
        x_BLGRV = unflatten(x_BLHV[:, self.tokens], 2, (groups, -1))
        x_BNCGRV = unflatten(x_BLGRV, 1, (self.chunks, self.size))
        return x_BNCGRV.permute(1, 0, 3, 4, 2, 5)

    def rows(self, x_BLH: Tensor) -> Tensor:
        """(B, L, H) of the sequence as (N, B, G, R, C, 1) of the segment."""
        return self.heads(x_BLH[..., None])


def decayed_segments(
    inputs: tuple[Tensor | None, ...], exclusive: bool, chunk: int, *, backwards: bool = False
) -> Iterator[Segment]:
    """The segments of a sequence, with the decays of each.

    Args:
        inputs: queries, keys, values, log decay, gain and skip, as `decayed_attention` takes them.
        exclusive: whether a token does not see itself.
        chunk: tokens of a chunk.
        backwards: whether the last segment comes first.
    """
    q, k, v, log_decay, gain, skip = inputs
    assert q is not None and k is not None and v is not None
    batch, length, heads, _ = v.shape
    fixed: dict[int, Decays] = {}
    spans = segments(length, chunk, batch * heads * chunk * chunk, v.device)
    for tokens, chunks, size in reversed(list(spans)) if backwards else spans:
        decays = None
        if log_decay is not None and log_decay.dim() == 1:
            if size not in fixed:
                g_NBGRC = log_decay.view(1, 1, k.shape[2], -1, 1).expand(-1, -1, -1, -1, size)
                fixed[size] = _decays(g_NBGRC, exclusive, work_dtype(v), is_small=True)
            decays = fixed[size]
        elif log_decay is not None:
            g_BLGR = unflatten(log_decay[:, tokens], 2, (k.shape[2], -1))
            g_BNCGR = unflatten(g_BLGR, 1, (chunks, size))
            decays = _decays(g_BNCGR.permute(1, 0, 3, 4, 2), exclusive, work_dtype(v), is_small=False)
        yield Segment(tokens, chunks, size, q, k, v, gain, skip, decays, exclusive)


def _decays(g_NBGRC: Tensor, exclusive: bool, work: torch.dtype, *, is_small: bool) -> Decays:
    """The factors of log decays; where the table is small it is made in float64, without a rest."""
    b_NBGRC1 = g_NBGRC.to(torch.float64, memory_format=torch.contiguous_format).cumsum(-1).unsqueeze(-1)
    near_NBGRC1 = b_NBGRC1 if is_small else b_NBGRC1.to(work)
    size = g_NBGRC.shape[-1]
    unseen_CC = torch.full((size, size), -torch.inf, dtype=near_NBGRC1.dtype, device=g_NBGRC.device)
    unseen_CC = unseen_CC.triu_(0 if exclusive else 1)
    pairs_NBGRCC = torch.sub(near_NBGRC1, near_NBGRC1.mT).add_(unseen_CC).exp_()
    last_NBGR11 = b_NBGRC1[..., -1:, :]
    return Decays(
        pairs_NBGRCC=pairs_NBGRCC.to(work),
        in_NBGRC1=b_NBGRC1.exp().to(work),
        out_NBGRC1=(last_NBGR11 - b_NBGRC1).exp_().to(work),
        whole_NBGR11=last_NBGR11.exp().to(work),
        rest_NBGRC1=None if near_NBGRC1.dtype == torch.float64 else (b_NBGRC1 - near_NBGRC1).exp_().to(work),
    )
