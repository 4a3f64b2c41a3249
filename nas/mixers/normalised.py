"""Linear attention whose weights sum to 1, in chunks.

In: queries, keys and values of a sequence. Out: the mean of the values seen, weighted by a kernel
of query and key, and the sums that the next token would read:

    y_t = Σ_s κ(q_t, k_s) v_s / (Σ_s κ(q_t, k_s) + ε)        κ(q, k) = φ(q)·φ(k)

κ is either the product of what is given, which must then be positive (Katharopoulos et al. 2020),
or 1 + s + s²/2 with s = q·k/√K, the Taylor series of softmax attention (Arora et al. 2024,
"Based"). Its features φ number 1 + K + K(K + 1)/2, each product of two features being made once. Inside a
chunk the kernel is computed from q·k without them; they serve what is read from the sums before
the chunk.

The values are given a feature more, a one, whose sum is the denominator. The backward pass is
written by hand: it keeps inputs, outputs and one state per chunk.

Shapes: B batch, L length, H heads, K features of a key, V of a value, U = V + 1, P features of
the feature map φ, C tokens of a chunk, N chunks of a segment, X = N + 1, M chunks of the sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nas.mixers.chunks import chunked, segments, work_dtype

EPSILON = 1e-6
CHUNK, TAYLOR_CHUNK = 64, 128


def normalised_attention(
    q_BLHK: Tensor, k_BLHK: Tensor, v_BLHV: Tensor, *, taylor: bool, valid_BL: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Causal normalised linear attention (see the module).

    Args:
        q_BLHK: queries; positive unless `taylor`.
        k_BLHK: keys, alike.
        v_BLHV: values.
        taylor: whether the kernel is the Taylor series, not the product itself.
        valid_BL: bool, the tokens that are seen at all; None: every one.

    Returns:
        The outputs (B, L, H, V), in the dtype of the values, and the sums over all tokens
        (B, H, P, V + 1), the denominator's last, in float32 (float64 for float64 values).
    """
    found: tuple[Tensor, Tensor] = _Causal.apply(q_BLHK, k_BLHK, v_BLHV, valid_BL, taylor)  # type: ignore[no-untyped-call]
    return found


def normalised_attention_to_all(
    q_BLHK: Tensor, k_BLHK: Tensor, v_BLHV: Tensor, *, taylor: bool, valid_BL: Tensor | None = None
) -> Tensor:
    """The same where every token sees all valid ones, before and after it: (B, L, H, V)."""
    found: Tensor = _ToAll.apply(q_BLHK, k_BLHK, v_BLHV, valid_BL, taylor)  # type: ignore[no-untyped-call]
    return found


def taylor_features(x_tKC: Tensor) -> Tensor:
    """φ(x) of queries or keys that lie in columns, (…, K, C) to (…, P, C).

    φ(q)·φ(k) = 1 + s + s²/2 with s = q·k/√K. For use outside autograd.
    """
    *leading, key_dim, size = x_tKC.shape
    x_tKC = x_tKC * key_dim**-0.25
    features = x_tKC.new_empty((*leading, taylor_feature_count(key_dim), size))
    features[..., 0, :] = 1
    features[..., 1 : key_dim + 1, :] = x_tKC
    for i, rows in enumerate(_pairs(key_dim)):
        torch.mul(x_tKC[..., i : i + 1, :], x_tKC[..., i:, :], out=features[..., rows, :])
        features[..., rows.start, :] *= 0.5**0.5
    return features


def taylor_features_of_token(x_tK: Tensor) -> Tensor:
    """The same of one query or key, (…, K) to (…, P); autograd can follow it."""
    key_dim = x_tK.shape[-1]
    x_tK = x_tK * key_dim**-0.25
    i, j = torch.triu_indices(key_dim, key_dim, device=x_tK.device)
    weights = torch.ones(len(i), dtype=x_tK.dtype, device=x_tK.device).masked_fill_(i == j, 0.5**0.5)
    return torch.cat([torch.ones_like(x_tK[..., :1]), x_tK, x_tK[..., i] * x_tK[..., j] * weights], -1)


def taylor_feature_count(key_dim: int) -> int:
    """P: one constant, K linear and K(K + 1)/2 quadratic features."""
    return 1 + key_dim + key_dim * (key_dim + 1) // 2


def _pairs(key_dim: int) -> Iterator[slice]:
    """The rows of features of each i with i, i + 1, …, K − 1."""
    start = 1 + key_dim
    for i in range(key_dim):
        yield slice(start, start + key_dim - i)
        start += key_dim - i


def _taylor_features_backward(x_tKC: Tensor, dfeatures_tPC: Tensor) -> Tensor:
    """From the gradient of the features, which it overwrites, makes that of x."""
    key_dim = x_tKC.shape[-2]
    x_tKC = x_tKC * key_dim**-0.25
    dx_tKC = dfeatures_tPC[..., 1 : key_dim + 1, :].clone()
    for i, rows in enumerate(_pairs(key_dim)):
        dfeatures_tPC[..., rows.start, :] *= 0.5**0.5
        dproducts = dfeatures_tPC[..., rows, :]
        dx_tKC[..., i, :] += (dproducts * x_tKC[..., i:, :]).sum(-2)
        dx_tKC[..., i:, :].addcmul_(dproducts, x_tKC[..., i : i + 1, :])
    return dx_tKC.mul_(key_dim**-0.25)


@dataclass(frozen=True)
class _Segment:
    """The inputs of N chunks in the work dtype; values have a one beside them."""

    tokens: slice
    size: int
    taylor: bool
    q_NBHCK: Tensor
    k_NBHCK: Tensor
    v_NBHCU: Tensor
    valid_NBHC1: Tensor | None

    def features(self, x_NBHCK: Tensor) -> Tensor:
        """φ of queries or keys, in columns, (N, B, H, P, C)."""
        return taylor_features(x_NBHCK.mT) if self.taylor else x_NBHCK.mT

    def features_backward(self, x_NBHCK: Tensor, dfeatures_NBHPC: Tensor) -> Tensor:
        """From the gradient of φ(x), which it may overwrite, makes that of x, (N, B, H, C, K)."""
        return (_taylor_features_backward(x_NBHCK.mT, dfeatures_NBHPC) if self.taylor else dfeatures_NBHPC).mT

    def scores(self) -> Tensor:
        """s of each pair of a chunk, (N, B, H, C, C)."""
        q_NBHCK = self.q_NBHCK * self.q_NBHCK.shape[-1] ** -0.5 if self.taylor else self.q_NBHCK
        return q_NBHCK @ self.k_NBHCK.mT

    def weights(self, scores_NBHCC: Tensor) -> Tensor:
        """The kernel where a token sees another of its chunk, else 0; may overwrite the scores."""
        if self.taylor:
            # 1 + s + s²/2 = ((s + 1)² + 1) / 2
            scores_NBHCC = (scores_NBHCC + 1).square_().add_(1).mul_(0.5)
        return scores_NBHCC.tril_()


def _parts(
    q_BLHK: Tensor, k_BLHK: Tensor, v_BLHV: Tensor, valid_BL: Tensor | None, taylor: bool, *, backwards: bool = False
) -> Iterator[_Segment]:
    batch, length, heads, key_dim = k_BLHK.shape
    chunk, work = _chunk(taylor), work_dtype(v_BLHV)
    widest = taylor_feature_count(key_dim) if taylor else v_BLHV.shape[3]
    spans = segments(length, chunk, batch * heads * chunk * max(chunk, widest), v_BLHV.device)
    for tokens, chunks, size in reversed(list(spans)) if backwards else spans:
        q_NBHCK, k_NBHCK = (
            chunked(x, tokens, size).to(work, memory_format=torch.contiguous_format) for x in (q_BLHK, k_BLHK)
        )
        v_NBHCU = torch.empty((chunks, batch, heads, size, v_BLHV.shape[3] + 1), dtype=work, device=v_BLHV.device)
        v_NBHCU[..., :-1] = chunked(v_BLHV, tokens, size)
        v_NBHCU[..., -1] = 1
        valid_NBHC1 = None
        if valid_BL is not None:
            valid_NBHC1 = chunked(valid_BL[..., None, None], tokens, size)
            # What stands in the padding may be anything: multiplied by 0 it would not always vanish.
            v_NBHCU.masked_fill_(~valid_NBHC1, 0)
        yield _Segment(tokens, size, taylor, q_NBHCK, k_NBHCK, v_NBHCU, valid_NBHC1)


def _chunk(taylor: bool) -> int:
    return TAYLOR_CHUNK if taylor else CHUNK


def _sums(k_BLHK: Tensor, v_BLHV: Tensor, taylor: bool, count: int) -> Tensor:
    """Room for the sums of φ(k) and value, (count, B, H, P, U), all zero."""
    batch, _, heads, key_dim = k_BLHK.shape
    features = taylor_feature_count(key_dim) if taylor else key_dim
    return k_BLHK.new_zeros((count, batch, heads, features, v_BLHV.shape[3] + 1), dtype=work_dtype(v_BLHV))


def _divide(part: _Segment, read_NBHCU: Tensor, y_BLHV: Tensor, sum_BLH1: Tensor) -> None:
    """Fills the outputs of a segment and their denominators."""
    sum_NBHC1 = read_NBHCU[..., -1:].add(EPSILON)
    chunked(sum_BLH1, part.tokens, part.size).copy_(sum_NBHC1)
    chunked(y_BLHV, part.tokens, part.size).copy_(read_NBHCU[..., :-1] / sum_NBHC1)


def _divide_backward(part: _Segment, y_BLHV: Tensor, sum_BLH1: Tensor, dy_BLHV: Tensor) -> Tensor:
    """Gradient of what a segment read, (N, B, H, C, U), from that of its outputs."""
    y_NBHCV, sum_NBHC1, dy_NBHCV = (chunked(x, part.tokens, part.size) for x in (y_BLHV, sum_BLH1, dy_BLHV))
    dread_NBHCU = torch.empty_like(part.v_NBHCU)
    dread_NBHCV = torch.div(dy_NBHCV, sum_NBHC1)
    dread_NBHCU[..., :-1] = dread_NBHCV
    dread_NBHCU[..., -1] = dread_NBHCV.mul_(y_NBHCV).sum(-1).neg_()
    return dread_NBHCU


def _store(
    part: _Segment, dq_NBHCK: Tensor | None, dk_NBHCK: Tensor | None, dv_NBHCU: Tensor | None, into: Any
) -> None:
    """Writes a segment's gradients where those of the sequence are gathered."""
    dv_NBHCV = None if dv_NBHCU is None else dv_NBHCU[..., :-1]
    if dv_NBHCV is not None and part.valid_NBHC1 is not None:
        dv_NBHCV.masked_fill_(~part.valid_NBHC1, 0)
    for whole, grad in zip(into, (dq_NBHCK, dk_NBHCK, dv_NBHCV), strict=True):
        if grad is not None:
            chunked(whole, part.tokens, part.size).copy_(grad)


class _Causal(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q_BLHK: Tensor, k_BLHK: Tensor, v_BLHV: Tensor, valid_BL: Tensor | None, taylor: bool
    ) -> tuple[Tensor, Tensor]:
        chunks = -(-k_BLHK.shape[1] // _chunk(taylor))
        states_MBHPU = _sums(k_BLHK, v_BLHV, taylor, chunks + 1)
        y_BLHV = torch.empty_like(v_BLHV, memory_format=torch.contiguous_format)
        sum_BLH1 = v_BLHV.new_empty((*v_BLHV.shape[:3], 1), dtype=states_MBHPU.dtype)
        first = 0
        for part in _parts(q_BLHK, k_BLHK, v_BLHV, valid_BL, taylor):
            states_XBHPU = states_MBHPU[first : first + part.v_NBHCU.shape[0] + 1]
            torch.matmul(part.features(part.k_NBHCK), part.v_NBHCU, out=states_XBHPU[1:])
            rows = states_XBHPU.unbind(0)
            for before, after in pairwise(rows):
                after += before
            read_NBHCU = part.weights(part.scores()) @ part.v_NBHCU
            read_NBHCU += part.features(part.q_NBHCK).mT @ states_XBHPU[:-1]
            _divide(part, read_NBHCU, y_BLHV, sum_BLH1)
            first += part.v_NBHCU.shape[0]
        ctx.save_for_backward(q_BLHK, k_BLHK, v_BLHV, valid_BL, y_BLHV, sum_BLH1, states_MBHPU)
        ctx.taylor = taylor
        return y_BLHV, states_MBHPU[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BLHV: Tensor, dfinal_BHPU: Tensor) -> tuple[Tensor | None, ...]:
        q_BLHK, k_BLHK, v_BLHV, valid_BL, y_BLHV, sum_BLH1, states_MBHPU = ctx.saved_tensors
        into = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q_BLHK, k_BLHK, v_BLHV)]
        carry_BHPU, last = dfinal_BHPU, states_MBHPU.shape[0] - 1
        for part in _parts(q_BLHK, k_BLHK, v_BLHV, valid_BL, ctx.taylor, backwards=True):
            states_NBHPU = states_MBHPU[last - part.v_NBHCU.shape[0] : last]
            dread_NBHCU = _divide_backward(part, y_BLHV, sum_BLH1, dy_BLHV)
            carry_BHPU = _causal_backward(part, states_NBHPU, dread_NBHCU, carry_BHPU, into)
            last -= part.v_NBHCU.shape[0]
        return *into, None, None


def _causal_backward(
    part: _Segment, states_NBHPU: Tensor, dread_NBHCU: Tensor, carry_BHPU: Tensor, into: list[Tensor]
) -> Tensor:
    """Fills a segment's gradients; from that of the sums after it makes that of the sums before it."""
    dstates_XBHPU = states_NBHPU.new_empty((states_NBHPU.shape[0] + 1, *states_NBHPU.shape[1:]))
    torch.matmul(part.features(part.q_NBHCK), dread_NBHCU, out=dstates_XBHPU[:-1])
    dstates_XBHPU[-1].copy_(carry_BHPU)
    rows = dstates_XBHPU.unbind(0)
    for before, after in zip(reversed(rows[:-1]), reversed(rows), strict=False):
        before += after
    after_NBHPU = dstates_XBHPU[1:]
    scores_NBHCC = part.scores()
    dscores_NBHCC = (dread_NBHCU @ part.v_NBHCU.mT).tril_()
    if part.taylor:
        dscores_NBHCC.mul_(scores_NBHCC + 1).mul_(part.q_NBHCK.shape[-1] ** -0.5)
    dq_NBHCK = part.features_backward(part.q_NBHCK, states_NBHPU @ dread_NBHCU.mT)
    dk_NBHCK = part.features_backward(part.k_NBHCK, after_NBHPU @ part.v_NBHCU.mT)
    dq_NBHCK = dq_NBHCK + dscores_NBHCC @ part.k_NBHCK
    dk_NBHCK = dk_NBHCK + dscores_NBHCC.mT @ part.q_NBHCK
    dv_NBHCU = part.weights(scores_NBHCC).mT @ dread_NBHCU
    dv_NBHCU += part.features(part.k_NBHCK).mT @ after_NBHPU
    _store(part, dq_NBHCK, dk_NBHCK, dv_NBHCU, into)
    return dstates_XBHPU[0]


class _ToAll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q_BLHK: Tensor, k_BLHK: Tensor, v_BLHV: Tensor, valid_BL: Tensor | None, taylor: bool
    ) -> Tensor:
        sums_BHPU = _sums(k_BLHK, v_BLHV, taylor, 1)[0]
        y_BLHV = torch.empty_like(v_BLHV, memory_format=torch.contiguous_format)
        sum_BLH1 = v_BLHV.new_empty((*v_BLHV.shape[:3], 1), dtype=sums_BHPU.dtype)
        for part in _parts(q_BLHK, k_BLHK, v_BLHV, valid_BL, taylor):
            sums_BHPU += (part.features(part.k_NBHCK) @ part.v_NBHCU).sum(0)
        for part in _parts(q_BLHK, k_BLHK, v_BLHV, valid_BL, taylor):
            _divide(part, part.features(part.q_NBHCK).mT @ sums_BHPU, y_BLHV, sum_BLH1)
        ctx.save_for_backward(q_BLHK, k_BLHK, v_BLHV, valid_BL, y_BLHV, sum_BLH1, sums_BHPU)
        ctx.taylor = taylor
        return y_BLHV

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BLHV: Tensor) -> tuple[Tensor | None, ...]:
        q_BLHK, k_BLHK, v_BLHV, valid_BL, y_BLHV, sum_BLH1, sums_BHPU = ctx.saved_tensors
        into = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q_BLHK, k_BLHK, v_BLHV)]
        dsums_BHPU = torch.zeros_like(sums_BHPU)
        for part in _parts(q_BLHK, k_BLHK, v_BLHV, valid_BL, ctx.taylor):
            dread_NBHCU = _divide_backward(part, y_BLHV, sum_BLH1, dy_BLHV)
            dsums_BHPU += (part.features(part.q_NBHCK) @ dread_NBHCU).sum(0)
            _store(part, part.features_backward(part.q_NBHCK, sums_BHPU @ dread_NBHCU.mT), None, None, into)
        for part in _parts(q_BLHK, k_BLHK, v_BLHV, valid_BL, ctx.taylor):
            dk_NBHCK = part.features_backward(part.k_NBHCK, dsums_BHPU @ part.v_NBHCU.mT)
            _store(part, None, dk_NBHCK, part.features(part.k_NBHCK).mT @ dsums_BHPU, into)
        return *into, None, None
