"""The delta rule over a whole sequence, chunk by chunk.

In: queries, keys, values, how strongly each token writes and how much each lets the memory fade.
Out: what each token reads, and the memory after the last. The memory of a head is a matrix S that
answers a key with a value; a token corrects the answer to its own key (Yang et al. 2024,
"Parallelizing linear transformers with the delta rule"; with decay, Yang et al. 2025, "Gated delta
networks"):

    S_t = exp(g_t)·S_{t−1} + k_t·u_tᵀ      u_t = β_t·(v_t − exp(g_t)·S_{t−1}ᵀk_t)      o_t = S_tᵀq_t/√K

Inside a chunk of T tokens the corrections u depend on each other through a unit triangular matrix,
I + A with A_ij = β_i·(k_i·k_j)·exp(b_i − b_j), j < i, where b sums g from the chunk's start; so they
are (I + A)⁻¹·β(V − exp(b)·K·S), and a sequence is T times shorter. Everything but the step from one
chunk's S to the next is done for all chunks at once. Differences of b are formed before exp, so
that no decay is too strong.

A long sequence is taken in segments whose chunks fit the processor's cache together, so that time
and memory grow with the length and no faster. The backward pass is written out: besides the inputs
only S at the segments' starts is kept, and the rest is formed again.

Shapes: B batch, L length, H heads, G key heads (each serves H/G heads), K features of a key,
V features of a value, C chunks, T tokens of a chunk, N = B·H sequences times heads. Inside a chunk
(C, N, T, ·) is held as (C·N, T, ·), called M.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nas.mixers.kernels import has_linear_attention_kernels, plain_forced
from nas.specs.sketches.delta import CHUNK, segment_tokens

UNIT_EPSILON = 1e-6

GPU_SEGMENT = 16_384
CHUNK_OF_GPUS = 64
FLA_FEATURES = 256  # of a key at most

Inputs = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]
"""Queries, keys, values, log-decays and betas, each (B, L, heads, …)."""


def delta_rule(
    q_BLGK: Tensor, k_BLGK: Tensor, v_BLHV: Tensor, log_decay_BLH: Tensor | None, beta_BLH: Tensor, *, unit: bool
) -> tuple[Tensor, Tensor]:
    """`chunk_gated_delta_rule` by the fastest means that is there for these tensors.

    That is flash-linear-attention (Yang & Zhang 2024) on a GPU in half precision, if it is
    installed and NAS_KERNELS is not "plain"; the environment is not asked anywhere else.
    """
    inputs = (q_BLGK, k_BLGK, v_BLHV, log_decay_BLH, beta_BLH)
    fits = v_BLHV.is_cuda and v_BLHV.element_size() == 2 and q_BLGK.shape[-1] <= FLA_FEATURES
    if fits and has_linear_attention_kernels() and not plain_forced():
        return _fla(inputs, unit)
    return chunk_gated_delta_rule(*inputs, chunk=CHUNK_OF_GPUS if v_BLHV.is_cuda else CHUNK, unit=unit)


def _fla(inputs: Inputs, unit: bool) -> tuple[Tensor, Tensor]:
    """The same by the kernels of flash-linear-attention."""
    q_BLGK, k_BLGK, v_BLHV, log_decay_BLH, beta_BLH = inputs
    repeats = v_BLHV.shape[2] // q_BLGK.shape[2]
    q_BLHK, k_BLHK = (x.repeat_interleave(repeats, 2) if repeats > 1 else x for x in (q_BLGK, k_BLGK))
    qkv = tuple(x.contiguous() for x in (q_BLHK, k_BLHK, v_BLHV))
    beta_BLH = beta_BLH.to(v_BLHV.dtype).contiguous()
    options = {"output_final_state": True, "use_qk_l2norm_in_kernel": unit}
    if log_decay_BLH is None:
        kernel = importlib.import_module("fla.ops.delta_rule").chunk_delta_rule
        out_BLHV, final_BHKV = kernel(*qkv, beta_BLH, **options)
    else:
        kernel = importlib.import_module("fla.ops.gated_delta_rule").chunk_gated_delta_rule
        out_BLHV, final_BHKV = kernel(*qkv, log_decay_BLH.float().contiguous(), beta_BLH, **options)
    return out_BLHV, final_BHKV


def chunk_gated_delta_rule(
    q_BLGK: Tensor,
    k_BLGK: Tensor,
    v_BLHV: Tensor,
    log_decay_BLH: Tensor | None,
    beta_BLH: Tensor,
    *,
    chunk: int,
    unit: bool = False,
) -> tuple[Tensor, Tensor]:
    """What each token reads, (B, L, H, V), and the memory after the last, (B, H, K, V).

    The memory starts empty. Computes in float32, or float64 where the values are; the outputs are
    of the values' dtype and of the computing dtype.

    Args:
        q_BLGK: queries; they are scaled by K^−½ here.
        k_BLGK: keys of any length; a memory stays bounded while β·|k|² is at most 2.
        v_BLHV: values.
        log_decay_BLH: g, at most 0; None: nothing fades (DeltaNet).
        beta_BLH: how much of the error a token corrects, from 0 (none) to 1.
        chunk: tokens of a chunk.
        unit: whether queries and keys are to be divided by their lengths first.
    """
    inputs = (q_BLGK, k_BLGK, v_BLHV, log_decay_BLH, beta_BLH)
    out_BLHV, final_BHKV = _DeltaRule.apply(*inputs, min(chunk, q_BLGK.shape[1]), unit)  # type: ignore[no-untyped-call]
    return out_BLHV, final_BHKV


class _Shape(NamedTuple):
    """How a sequence was cut."""

    batch: int
    length: int
    heads: int
    chunk: int

    @property
    def chunks(self) -> int:
        return -(-self.length // self.chunk)

    def cut(self, x_BLGF: Tensor, dtype: torch.dtype) -> Tensor:
        """(B, L, G, F) to (C·N, T, F): padded with zeros, heads repeated, chunks first."""
        groups, features = x_BLGF.shape[2:]
        padding = self.chunks * self.chunk - self.length
        if padding:
            x_BLGF = torch.nn.functional.pad(x_BLGF, (0, 0, 0, 0, 0, padding))
        x_CBGTF = x_BLGF.reshape(self.batch, self.chunks, self.chunk, groups, features).permute(1, 0, 3, 2, 4)
        x_CBGRTF = x_CBGTF.unsqueeze(3).expand(-1, -1, -1, self.heads // groups, -1, -1)
        x_MTF = x_CBGRTF.to(dtype).reshape(-1, self.chunk, features)
        return x_MTF.contiguous()

    def join(self, x_MTF: Tensor, groups: int, dtype: torch.dtype) -> Tensor:
        """The way back; what repeated heads hold is summed."""
        x_CBHTF = x_MTF.view(self.chunks, self.batch, self.heads, self.chunk, -1)
        if groups != self.heads:
            x_CBHTF = x_CBHTF.reshape(*x_CBHTF.shape[:2], groups, -1, *x_CBHTF.shape[3:]).sum(3)
        x_BLGF = x_CBHTF.permute(1, 0, 3, 2, 4).reshape(self.batch, self.chunks * self.chunk, groups, -1)
        return x_BLGF[:, : self.length].to(dtype)


class _Decay(NamedTuple):
    """The decays inside of chunks, as factors.

    Attributes:
        since_start_MT1: exp(b).
        to_end_MT1: from a token to its chunk's last.
        whole_M11: of the whole chunk.
        pairs_MTT: exp(b_i − b_j) for j ≤ i, zero elsewhere.
    """

    since_start_MT1: Tensor
    to_end_MT1: Tensor
    whole_M11: Tensor
    pairs_MTT: Tensor

    @classmethod
    def of(cls, log_decay_MT1: Tensor) -> _Decay:
        b_MT1 = log_decay_MT1.cumsum(1)
        later_TT = torch.ones(2 * b_MT1.shape[1:2], dtype=torch.bool, device=b_MT1.device).triu_(1)
        pairs_MTT = (b_MT1 - b_MT1.mT).masked_fill_(later_TT, -torch.inf).exp_()
        return cls(b_MT1.exp(), (b_MT1[:, -1:] - b_MT1).exp(), b_MT1[:, -1:].exp(), pairs_MTT)


class _Chunks(NamedTuple):
    """The inputs, cut, and what forward and backward form from them alike."""

    shape: _Shape
    q_MTK: Tensor  # scaled
    k_MTK: Tensor
    v_MTV: Tensor
    beta_MT1: Tensor
    decay: _Decay | None
    inverse_q_MT1: Tensor | None  # what made the queries as long as they are, scale included
    inverse_k_MT1: Tensor | None

    def scores(self) -> Tensor:
        """What a query reads from each token of its chunk, (M, T, T)."""
        scores_MTT = torch.bmm(self.q_MTK, self.k_MTK.mT)
        return scores_MTT.tril_() if self.decay is None else scores_MTT.mul_(self.decay.pairs_MTT)

    def overlaps(self) -> Tensor:
        """A: how the correction of a token changes those of later tokens, (M, T, T)."""
        overlaps_MTT = torch.bmm(self.k_MTK * self.beta_MT1, self.k_MTK.mT)
        if self.decay is not None:
            overlaps_MTT.mul_(self.decay.pairs_MTT)
        return overlaps_MTT.tril_(-1)

    def probes(self) -> Tensor:
        """β·exp(b)·K: asks S at the chunk's start for what a token then corrects."""
        factor_MT1 = self.beta_MT1 if self.decay is None else self.beta_MT1 * self.decay.since_start_MT1
        return self.k_MTK * factor_MT1

    def readers(self) -> Tensor:
        """exp(b)·Q: reads from S at the chunk's start."""
        return self.q_MTK if self.decay is None else self.q_MTK * self.decay.since_start_MT1

    def writers(self) -> Tensor:
        """K faded until the chunk's end: writes into S there."""
        return self.k_MTK if self.decay is None else self.k_MTK * self.decay.to_end_MT1


def _cut_all(inputs: Inputs, chunk: int, unit: bool) -> _Chunks:
    q_BLGK, k_BLGK, v_BLHV, log_decay_BLH, beta_BLH = inputs
    batch, length, heads, _ = v_BLHV.shape
    shape = _Shape(batch, length, heads, chunk)
    dtype = _computing_dtype(v_BLHV)
    q_MTK, k_MTK, v_MTV = (shape.cut(x, dtype) for x in (q_BLGK, k_BLGK, v_BLHV))
    scale = q_MTK.shape[-1] ** -0.5
    inverse_q = inverse_k = None
    if unit:
        inverse_q, inverse_k = _inverse_length(q_MTK).mul_(scale), _inverse_length(k_MTK)
        q_MTK, k_MTK = q_MTK * inverse_q, k_MTK * inverse_k
    else:
        q_MTK = q_MTK * scale
    decay = None if log_decay_BLH is None else _Decay.of(shape.cut(log_decay_BLH[..., None], dtype))
    return _Chunks(shape, q_MTK, k_MTK, v_MTV, shape.cut(beta_BLH[..., None], dtype), decay, inverse_q, inverse_k)


def _computing_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _inverse_length(x_MTK: Tensor) -> Tensor:
    lengths_MT1: Tensor = torch.linalg.vector_norm(x_MTK, dim=-1, keepdim=True)
    return lengths_MT1.square_().add_(UNIT_EPSILON).rsqrt_()


def _inverse(overlaps_MTT: Tensor) -> Tensor:
    """(I + A)⁻¹ by forward substitution; powers of A would overflow where keys repeat."""
    eye_TT = torch.eye(overlaps_MTT.shape[-1], dtype=overlaps_MTT.dtype, device=overlaps_MTT.device)
    eye_MTT = eye_TT.expand_as(overlaps_MTT)
    # The diagonal of A is not read.
    inverse_MTT: Tensor = torch.linalg.solve_triangular(overlaps_MTT, eye_MTT, upper=False, unitriangular=True)
    return inverse_MTT


class _DeltaRule(torch.autograd.Function):
    """See `chunk_gated_delta_rule`."""

    @staticmethod
    def forward(
        ctx: Any,
        q_BLGK: Tensor,
        k_BLGK: Tensor,
        v_BLHV: Tensor,
        log_decay_BLH: Tensor | None,
        beta_BLH: Tensor,
        chunk: int,
        unit: bool,
    ) -> tuple[Tensor, Tensor]:
        batch, _, heads, features = v_BLHV.shape
        inputs = (q_BLGK, k_BLGK, v_BLHV, log_decay_BLH, beta_BLH)
        state_NKV = v_BLHV.new_zeros(batch * heads, q_BLGK.shape[-1], features, dtype=_computing_dtype(v_BLHV))
        out_BLHV = torch.empty_like(v_BLHV, memory_format=torch.contiguous_format)
        starts: list[Tensor] = []
        with torch.autocast(v_BLHV.device.type, enabled=False):
            for span in _segments(v_BLHV, state_NKV, chunk):
                starts.append(state_NKV)
                state_NKV = _read_segment(_cut_all(_slice(inputs, span), chunk, unit), state_NKV, out_BLHV[:, span])
        ctx.save_for_backward(*inputs, *starts[1:])  # the first is empty
        ctx.chunk, ctx.unit = chunk, unit
        return out_BLHV, state_NKV.reshape(batch, heads, *state_NKV.shape[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_BLHV: Tensor, d_final_BHKV: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, log_decay, beta, *starts = ctx.saved_tensors
        inputs = (q, k, v, log_decay, beta)
        gradients = [None if x is None else torch.empty_like(x, memory_format=torch.contiguous_format) for x in inputs]
        d_state_NKV = d_final_BHKV.flatten(0, 1)
        starts.insert(0, torch.zeros_like(d_state_NKV))
        with torch.autocast(v.device.type, enabled=False):
            spans = _segments(v, d_state_NKV, ctx.chunk)
            for span, state_NKV in reversed(list(zip(spans, starts, strict=True))):
                c = _cut_all(_slice(inputs, span), ctx.chunk, ctx.unit)
                into = tuple(None if x is None else x[:, span] for x in gradients)
                d_state_NKV = _back_segment(c, state_NKV, d_out_BLHV[:, span], d_state_NKV, into)
                del c  # before the next is cut
        return *gradients, None, None


def _segments(v_BLHV: Tensor, state_NKV: Tensor, chunk: int) -> list[slice]:
    """Whole chunks, as many at once as the cache holds; on a GPU nearly always all."""
    length, features = v_BLHV.shape[1], max(state_NKV.shape[1:])
    tokens = segment_tokens(len(state_NKV), features) if v_BLHV.device.type == "cpu" else GPU_SEGMENT
    tokens = max(tokens // chunk, 1) * chunk
    return [slice(start, min(start + tokens, length)) for start in range(0, length, tokens)]


def _slice(inputs: Inputs, span: slice) -> Inputs:
    q_BLGK, k_BLGK, v_BLHV, log_decay_BLH, beta_BLH = inputs
    decay_BSH = None if log_decay_BLH is None else log_decay_BLH[:, span]
    return q_BLGK[:, span], k_BLGK[:, span], v_BLHV[:, span], decay_BSH, beta_BLH[:, span]


class _Solved(NamedTuple):
    """Chunks with their memories.

    Attributes:
        overlaps_MTT: A.
        inverse_MTT: (I + A)⁻¹.
        w_MTK: what S at the chunk's start takes away from the corrections.
        u_MTV: the corrections.
        states_XKV: S at every chunk's start and after the last, ((C + 1)·N, K, V).
    """

    overlaps_MTT: Tensor
    inverse_MTT: Tensor
    w_MTK: Tensor
    u_MTV: Tensor
    states_XKV: Tensor


def _solve(c: _Chunks, state_NKV: Tensor) -> _Solved:
    """Solves the chunks and goes from memory to memory."""
    overlaps_MTT = c.overlaps()
    inverse_MTT = _inverse(overlaps_MTT)
    w_MTK = torch.bmm(inverse_MTT, c.probes())
    u_MTV = torch.bmm(inverse_MTT, c.v_MTV * c.beta_MT1)
    rows = len(state_NKV)
    states_XKV = state_NKV.new_empty(len(u_MTV) + rows, *state_NKV.shape[1:])
    states = torch.split(states_XKV, rows)
    states[0].copy_(state_NKV)
    writers = torch.split(c.writers().mT, rows)
    fades = [None] * len(writers) if c.decay is None else torch.split(c.decay.whole_M11, rows)
    steps = zip(
        torch.split(w_MTK, rows), torch.split(u_MTV, rows), writers, fades, states[:-1], states[1:], strict=True
    )
    for w, u, writer, fade, before, after in steps:
        u.baddbmm_(w, before, alpha=-1)
        if fade is None:
            torch.baddbmm(before, writer, u, out=after)
        else:
            torch.mul(before, fade, out=after)
            after.baddbmm_(writer, u)
    return _Solved(overlaps_MTT, inverse_MTT, w_MTK, u_MTV, states_XKV)


def _read_segment(c: _Chunks, state_NKV: Tensor, into_BLHV: Tensor) -> Tensor:
    """Fills in what tokens read; gives S after the last."""
    *_, u_MTV, states_XKV = _solve(c, state_NKV)
    del _  # what the way back alone asks for
    before_MKV, after_NKV = states_XKV.tensor_split([-len(state_NKV)])
    out_MTV = torch.bmm(c.readers(), before_MKV).baddbmm_(c.scores(), u_MTV)
    into_BLHV.copy_(c.shape.join(out_MTV, into_BLHV.shape[2], into_BLHV.dtype))
    return after_NKV.clone()  # a view would keep the whole segment's alive


def _back_segment(
    c: _Chunks, state_NKV: Tensor, d_out_BLHV: Tensor, d_state_NKV: Tensor, into: tuple[Tensor | None, ...]
) -> Tensor:
    """Fills in the gradients of a segment's inputs; gives that of S before them."""
    d_state_NKV, parts = _back(c, _solve(c, state_NKV), d_out_BLHV, d_state_NKV)
    for target, part_MTF in zip(into, parts, strict=True):
        if target is not None and part_MTF is not None:
            target.copy_(c.shape.join(part_MTF, target.shape[2], target.dtype).view_as(target))
    return d_state_NKV


def _back(
    c: _Chunks, solved: _Solved, d_out_BLHV: Tensor, d_state_NKV: Tensor
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """From the gradient of S after the chunks to that of S before them, and of the cut inputs."""
    rows = len(d_state_NKV)
    d_out_MTV = c.shape.cut(d_out_BLHV, solved.u_MTV.dtype)
    scores_MTT = c.scores()
    d_u_MTV, d_states_XKV = _scan_back(c, solved.w_MTK, scores_MTT, d_out_MTV, d_state_NKV)
    known = _Known(
        states_MKV=solved.states_XKV[:-rows],
        u_MTV=solved.u_MTV,
        overlaps_MTT=solved.overlaps_MTT,
        scores_MTT=scores_MTT,
        d_out_MTV=d_out_MTV,
        d_right_MTV=torch.bmm(solved.inverse_MTT.mT, d_u_MTV),
        d_next_MKV=d_states_XKV[rows:],
    )
    return d_states_XKV[:rows].clone(), _gradients(c, known)


def _scan_back(
    c: _Chunks, w_MTK: Tensor, scores_MTT: Tensor, d_out_MTV: Tensor, d_state_NKV: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the corrections, (M, T, V), and of S at every chunk's start and after the last."""
    rows = len(d_state_NKV)
    d_u_MTV = torch.bmm(scores_MTT.mT, d_out_MTV)
    # At first what the chunk's own reads ask of S at its start.
    d_states_XKV = d_state_NKV.new_empty(len(d_u_MTV) + rows, *d_state_NKV.shape[1:])
    torch.bmm(c.readers().mT, d_out_MTV, out=d_states_XKV[:-rows])
    d_states_XKV[-rows:] = d_state_NKV
    d_states = torch.split(d_states_XKV, rows)
    writers = torch.split(c.writers(), rows)
    fades = [None] * len(writers) if c.decay is None else torch.split(c.decay.whole_M11, rows)
    steps = zip(
        torch.split(w_MTK.mT, rows),
        torch.split(d_u_MTV, rows),
        writers,
        fades,
        d_states[:-1],
        d_states[1:],
        strict=True,
    )
    for w, d_u, writer, fade, before, after in reversed(list(steps)):
        d_u.baddbmm_(writer, after)
        before.baddbmm_(w, d_u, alpha=-1)
        if fade is None:
            before.add_(after)
        else:
            before.addcmul_(after, fade)
    return d_u_MTV, d_states_XKV


class _Known(NamedTuple):
    """What the gradients of a segment's inputs are made from.

    Attributes:
        states_MKV: S at the chunks' starts.
        u_MTV: the corrections.
        overlaps_MTT: A.
        scores_MTT: what queries read from the tokens of their chunk.
        d_out_MTV: gradient of the outputs.
        d_right_MTV: of β(V − exp(b)·K·S), which (I + A)⁻¹ turns into the corrections.
        d_next_MKV: of S at the chunks' ends.
    """

    states_MKV: Tensor
    u_MTV: Tensor
    overlaps_MTT: Tensor
    scores_MTT: Tensor
    d_out_MTV: Tensor
    d_right_MTV: Tensor
    d_next_MKV: Tensor


def _gradients(c: _Chunks, known: _Known) -> Inputs:
    """Gradients of the cut inputs.

    A key acts as the asker (in A's rows and in β·exp(b)·K) and as the asked (in A's columns, in
    the scores and in what is written).
    """
    d_scores_MTT = torch.bmm(known.d_out_MTV, known.u_MTV.mT)
    d_overlaps_MTT = torch.bmm(known.d_right_MTV, known.u_MTV.mT).neg_()
    d_q_MTK = torch.bmm(known.d_out_MTV, known.states_MKV.mT)
    d_asker_MTK = torch.bmm(known.d_right_MTV, known.states_MKV.mT).neg_()
    d_asked_MTK = torch.bmm(known.u_MTV, known.d_next_MKV.mT)
    d_log_decay_MT1 = None
    if c.decay is None:
        d_scores_MTT.tril_()
    else:
        d_q_MTK.mul_(c.decay.since_start_MT1)
        d_asker_MTK.mul_(c.decay.since_start_MT1)
        d_asked_MTK.mul_(c.decay.to_end_MT1)
        across = _dot(d_q_MTK, c.q_MTK) + _dot(d_asker_MTK, c.k_MTK) * c.beta_MT1, _dot(d_asked_MTK, c.k_MTK)
        d_log_decay_MT1 = _decay_gradient(known, c.decay, d_scores_MTT, d_overlaps_MTT, *across)
        d_scores_MTT.mul_(c.decay.pairs_MTT)
        d_overlaps_MTT.mul_(c.decay.pairs_MTT)
    d_overlaps_MTT.tril_(-1)
    d_q_MTK.baddbmm_(d_scores_MTT, c.k_MTK)
    d_asker_MTK.baddbmm_(d_overlaps_MTT, c.k_MTK)
    d_asked_MTK.baddbmm_(d_scores_MTT.mT, c.q_MTK).baddbmm_(d_overlaps_MTT.mT, c.k_MTK * c.beta_MT1)
    d_beta_MT1 = _dot(d_asker_MTK, c.k_MTK) + _dot(known.d_right_MTV, c.v_MTV)
    d_k_MTK = d_asked_MTK.addcmul_(d_asker_MTK, c.beta_MT1)
    d_q_MTK, d_k_MTK = _through_lengths(c, d_q_MTK, d_k_MTK)
    return d_q_MTK, d_k_MTK, known.d_right_MTV * c.beta_MT1, d_log_decay_MT1, d_beta_MT1


def _decay_gradient(
    known: _Known,
    decay: _Decay,
    d_scores_MTT: Tensor,
    d_overlaps_MTT: Tensor,
    from_start_MT1: Tensor,
    to_end_MT1: Tensor,
) -> Tensor:
    """Gradient of each token's log-decay: the sum over all that crosses the token.

    What stays with its own token is left out instead of being taken away again: beside strong
    decays the rest is so small that rounding would drown it.

    Args:
        known: see there.
        decay: of the chunks.
        d_scores_MTT: gradient of the scores.
        d_overlaps_MTT: of A.
        from_start_MT1: what came from S at the chunk's start, times its gradient.
        to_end_MT1: what goes into S at the chunk's end, times its gradient.
    """
    pairs_MTT = (d_scores_MTT * known.scores_MTT).addcmul_(d_overlaps_MTT, known.overlaps_MTT).tril_(-1)
    b_MT1 = from_start_MT1 + pairs_MTT.sum(2)[..., None] - pairs_MTT.sum(1)[..., None]
    earlier_MT1 = torch.nn.functional.pad(to_end_MT1[:, :-1], (0, 0, 1, 0)).cumsum(1)
    through_M11 = torch.bmm(known.states_MKV.flatten(1)[:, None], known.d_next_MKV.flatten(1)[..., None])
    return b_MT1.flip(1).cumsum(1).flip(1) + earlier_MT1 + through_M11 * decay.whole_M11


def _dot(x_MTF: Tensor, y_MTF: Tensor) -> Tensor:
    return (x_MTF * y_MTF).sum(-1, keepdim=True)


def _through_lengths(c: _Chunks, d_q_MTK: Tensor, d_k_MTK: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of queries and keys before they were scaled or made of unit length."""
    scale = c.q_MTK.shape[-1] ** -0.5
    if c.inverse_q_MT1 is None or c.inverse_k_MT1 is None:
        return d_q_MTK.mul_(scale), d_k_MTK
    along_q_MT1, along_k_MT1 = _dot(d_q_MTK, c.q_MTK), _dot(d_k_MTK, c.k_MTK)
    # Queries are scale times unit vectors.
    d_q_MTK.addcmul_(c.q_MTK, along_q_MT1, value=-1 / scale**2).mul_(c.inverse_q_MT1)
    d_k_MTK.addcmul_(c.k_MTK, along_k_MT1, value=-1).mul_(c.inverse_k_MT1)
    return d_q_MTK, d_k_MTK
