"""Softmax attention of given queries to given keys: the pieces from which every form is put together.

In: queries, and pieces of keys and values with what is added to their scores. Out: the weighted
values, as if all pieces were one, with nothing of the size queries × keys kept for backward.

Each piece goes through a fused kernel that also gives the logarithm of its softmax denominator;
pieces are joined by their denominators, and the backward pass of each piece runs with the joint
output and denominator (Dao et al. 2022; Liu et al. 2023). A sink logit joins the denominator alone.

Shapes: B sequences, H query heads, G key/value heads, Q queries, S keys, F features of a head,
R distances of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from nas.specs.sketches.attention import window_block
from nas.specs.sketches.attention_pieces import ALIBI_BLOCK, LEARNED_BLOCK

HIDDEN = -1e30
"""Added to the score of a key that is not seen. Finite, so that a piece whose keys are all hidden
from a query weighs nothing beside the others, instead of spoiling them with a NaN."""

# Queries of a block where scores have biases: more make fewer calls, but a block's own biases grow
# with its square, and learned ones have the scores of a whole block in memory at once.
_ALIBI_BLOCK, _LEARNED_BLOCK = ALIBI_BLOCK, LEARNED_BLOCK


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What joins the scores of a layer, besides the products of queries and keys.

    Attributes:
        slopes_H: of ALiBi: |distance| × slope is taken off (Press et al. 2022).
        reach_H: distances from which on ALiBi hides keys, where it does (`alibi_reach`).
        table_HR: learned biases by distance, key minus query, of which the first is `-zero`.
        zero: the place of distance 0 in the table.
        logits_H: a learned logit per query head in the denominator (Agarwal et al. 2025, gpt-oss).
        sinks: leading tokens that a window sees besides its own (Xiao et al. 2023).
    """

    slopes_H: Tensor | None = None
    reach_H: Tensor | None = None
    table_HR: Tensor | None = None
    zero: int = 0
    logits_H: Tensor | None = None
    sinks: int = 0

    @property
    def biased(self) -> bool:
        """Whether scores depend on distances."""
        return self.slopes_H is not None or self.table_HR is not None

    @property
    def plain(self) -> bool:
        """Whether there is nothing but the products."""
        return not self.biased and self.logits_H is None and not self.sinks

    def bias_at(self, distance_XQS: Tensor) -> Tensor | None:
        """What is added at given distances, (X, H, Q, S); None: nothing."""
        if self.slopes_H is not None:
            return self.fall(distance_XQS.abs()[:, None])
        if self.table_HR is not None:
            return self.table_HR[:, distance_XQS + self.zero].transpose(0, 1)
        return None

    def fall(self, apart: Tensor) -> Tensor:
        """ALiBi at distances that broadcast against (…, H, Q, S)."""
        assert self.slopes_H is not None
        fall = -self.slopes_H[:, None, None] * apart
        # A piece whose keys are all hidden from a head weighs nothing in it.
        return fall if self.reach_H is None else fall.masked_fill_(apart > self.reach_H[:, None, None], HIDDEN)

    def block(self, queries: int) -> int:
        """Queries to take at once."""
        if not self.biased:
            return queries
        return _ALIBI_BLOCK if self.slopes_H is not None else _LEARNED_BLOCK


NO_TERMS = Terms()


@torch.no_grad()
def alibi_reach(slopes_H: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """Distances from which on no key weighs anything that the dtype can tell, (H,).

    A product of query and key is at most that of their lengths. A key whose bias outweighs twice
    the largest such product has less than e^-30 of the weight of the query's own key (e^-60 in
    float64). Hiding it spares the processor numbers near 0, which take it many times as long.

    Args:
        slopes_H: of ALiBi.
        q: queries, (…, H, F).
        k: keys, (…, G, F).
    """
    lengths_H, lengths_G = (x.square().sum(-1).flatten(0, -2).amax(0).sqrt() for x in (q, k))
    products_H = lengths_H * lengths_G.repeat_interleave(len(lengths_H) // len(lengths_G)) * q.shape[-1] ** -0.5
    reach_H: Tensor = (2 * products_H + (60 if q.dtype == torch.float64 else 30)) / slopes_H
    return reach_H


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """Some keys and values that a block of queries sees.

    Attributes:
        k_BGSF: keys.
        v_BGSF: values.
        mask: constant, added to the scores; it broadcasts against (B, H, Q, S).
        bias: learned, likewise.
        table_HR: learned, by distance: query i and key j get [:, offset + j − i].
        offset: see `table_HR`.
        causal: whether query i sees only keys j ≤ i.
        shift_HQ: constant, added to all scores of a query; it costs nothing.
    """

    k_BGSF: Tensor
    v_BGSF: Tensor
    mask: Tensor | None = None
    bias: Tensor | None = None
    table_HR: Tensor | None = None
    offset: int = 0
    causal: bool = False
    shift_HQ: Tensor | None = None

    def is_simple(self, heads: int) -> bool:
        """Whether PyTorch's own attention does all of it, and keeps no mask that grows with the batch."""
        learned = self.bias is not None or self.table_HR is not None
        if self.mask is None or learned:
            return not learned
        return not self.causal and (self.mask.dim() < 3 or self.mask.shape[-3] in (1, heads))


def attend(q_BHQF: Tensor, pieces: Sequence[Piece], logits_H: Tensor | None = None) -> Tensor:
    """Softmax attention, scaled by F^−½, to all keys of all pieces together, (B, H, Q, F).

    Sequences may also lie on the axis of the heads: what is given for fewer heads than the queries
    have serves each run of so many of them.

    Args:
        q_BHQF: queries; G divides H.
        pieces: keys and values; every query sees at least one key.
        logits_H: of one more key per head, whose value is 0.
    """
    first = pieces[0]
    if len(pieces) == 1 and logits_H is None and first.is_simple(q_BHQF.shape[1]):
        mask = _as_mask(first.mask, q_BHQF)
        if q_BHQF.shape[2] == 1 and not first.causal and (mask is None or mask.shape[1] == 1):
            # Heads that share keys are then queries of one head, and each key is read once for all of them.
            q_BGNF = q_BHQF.reshape(len(q_BHQF), first.k_BGSF.shape[1], -1, q_BHQF.shape[-1])
            y_BGNF = scaled_dot_product_attention(q_BGNF, first.k_BGSF, first.v_BGSF, attn_mask=mask)
            return y_BGNF.reshape(*q_BHQF.shape[:3], -1)
        return scaled_dot_product_attention(
            q_BHQF, first.k_BGSF, first.v_BGSF, attn_mask=mask, is_causal=first.causal, enable_gqa=True
        )
    tensors = [part for piece in pieces for part in (piece.k_BGSF, piece.v_BGSF, piece.bias, piece.table_HR)]
    # Autograd may be shown a tensor only as an argument of its own; the rest stays in the plan.
    plan = tuple(_Plan(piece.mask, piece.offset, piece.causal, piece.shift_HQ) for piece in pieces)
    y_BHQF: Tensor = _Attention.apply(q_BHQF, logits_H, plan, *tensors)  # type: ignore[no-untyped-call]
    return y_BHQF


@dataclass(frozen=True, eq=False)
class _Plan:
    mask: Tensor | None
    offset: int
    causal: bool
    shift_HQ: Tensor | None


class _Attention(torch.autograd.Function):
    """Pieces joined by their denominators; keeps the inputs, the output and one number a query and head."""

    @staticmethod
    def forward(
        ctx: Any, q_BHQF: Tensor, logits_H: Tensor | None, plan: Sequence[_Plan], *tensors: Tensor | None
    ) -> Tensor:
        outputs, sums = [], []
        for step, (k, v, bias, table) in zip(plan, _quads(tensors), strict=True):
            assert k is not None and v is not None
            y, sum_BHQ = _kernel_forward(q_BHQF, k, v, step, bias, table)
            outputs.append(y)
            sums.append(sum_BHQ if step.shift_HQ is None else sum_BHQ + _tiled(step.shift_HQ, q_BHQF, 0))
        y_BHQF, sum_BHQ = outputs[0], sums[0]
        if len(sums) > 1 or logits_H is not None:
            sinks = (
                [] if logits_H is None else [_tiled(logits_H, q_BHQF, 0).to(sum_BHQ.dtype)[:, None].expand_as(sum_BHQ)]
            )
            sum_BHQ = torch.stack([*sums, *sinks]).logsumexp(0)
            weighted = [y.mul((part - sum_BHQ).exp()[..., None]) for y, part in zip(outputs, sums, strict=True)]
            y_BHQF = sum(weighted[1:], weighted[0]).to(q_BHQF.dtype)
        # What is saved is let go once it is read; what a context keeps otherwise stays until the whole graph goes.
        ctx.plan = tuple(replace(step, mask=None, shift_HQ=None) for step in plan)
        constants = [part for step in plan for part in (step.mask, step.shift_HQ)]
        ctx.save_for_backward(q_BHQF, logits_H, y_BHQF, sum_BHQ, *constants, *tensors)
        return y_BHQF

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BHQF: Tensor) -> tuple[Tensor | None, ...]:
        q_BHQF, logits_H, y_BHQF, sum_BHQ, *saved = ctx.saved_tensors
        constants, tensors = saved[: 2 * len(ctx.plan)], saved[2 * len(ctx.plan) :]
        masks, shifts = constants[::2], constants[1::2]
        grad_q: Tensor | None = None
        grads: list[Tensor | None] = []
        for bare, mask, shift, (k, v, bias, table) in zip(ctx.plan, masks, shifts, _quads(tensors), strict=True):
            assert k is not None and v is not None
            step = replace(bare, mask=mask, shift_HQ=shift)
            own_BHQ = sum_BHQ if step.shift_HQ is None else sum_BHQ - _tiled(step.shift_HQ, q_BHQF, 0)
            part_q, *others = _kernel_backward(grad_BHQF, q_BHQF, k, v, y_BHQF, own_BHQ, step, bias, table)
            grad_q = part_q if grad_q is None else grad_q + part_q
            grads.extend(others)
        grad_logits = None
        if logits_H is not None:
            weight_BHQ = (_tiled(logits_H, q_BHQF, 0).to(sum_BHQ.dtype)[:, None] - sum_BHQ).exp()
            product_BHQ = (grad_BHQF * y_BHQF).sum(-1, dtype=sum_BHQ.dtype)
            sums_N = -(weight_BHQ * product_BHQ).sum((0, 2))
            grad_logits = sums_N.view(-1, len(logits_H)).sum(0).to(logits_H.dtype)
        return grad_q, grad_logits, None, *grads


def _quads(tensors: Sequence[Tensor | None]) -> list[Sequence[Tensor | None]]:
    return [tensors[start : start + 4] for start in range(0, len(tensors), 4)]


def _fused(q: Tensor, bias: Tensor | None, table: Tensor | None) -> bool:
    # The kernel that also gives the denominators. It has no gradient for what is added to the scores.
    return q.device.type == "cpu" and bias is None and table is None


def _kernel_forward(
    q: Tensor, k: Tensor, v: Tensor, step: _Plan, bias: Tensor | None, table: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The output of one piece and the logarithm of its denominator, (B, H, Q)."""
    if _fused(q, bias, table):
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        y, sum_BHQ = kernel(q, k, v, 0.0, step.causal, attn_mask=_as_mask(step.mask, q))
        return y, sum_BHQ
    scores_BHQS = _scores(q, k, step, bias, table)
    sum_BHQ = scores_BHQS.logsumexp(-1)
    weights_BHQS = (scores_BHQS - sum_BHQ[..., None]).exp_().to(v.dtype)
    y_BHQF = _grouped(weights_BHQS, k.shape[1]).matmul(v[:, :, None]).flatten(1, 2)
    # With the heads of a query side by side, as the fused kernels leave them for the output projection.
    return y_BHQF.transpose(1, 2).contiguous().transpose(1, 2), sum_BHQ


def _kernel_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    y: Tensor,
    sum_BHQ: Tensor,
    step: _Plan,
    bias: Tensor | None,
    table: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of queries, keys, values, bias and table, given the joint output and denominator."""
    if _fused(q, bias, table):
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        grad_q, grad_k, grad_v = kernel(grad, q, k, v, y, sum_BHQ, 0.0, step.causal, attn_mask=_as_mask(step.mask, q))
        return grad_q, grad_k, grad_v, None, None
    groups = k.shape[1]
    grad_5, q_5 = _grouped(grad, groups), _grouped(q, groups)
    weights_BHQS = (_scores(q, k, step, bias, table) - sum_BHQ[..., None]).exp_()
    weights_5 = _grouped(weights_BHQS, groups)
    grad_v = weights_5.to(v.dtype).mT.matmul(grad_5).sum(2)
    product_BHQ1 = (grad * y).sum(-1, keepdim=True, dtype=sum_BHQ.dtype)
    grad_scores_5 = (
        grad_5.matmul(v[:, :, None].mT).to(sum_BHQ.dtype).sub_(_grouped(product_BHQ1, groups)).mul_(weights_5)
    )
    grad_bias = grad_table = None
    if bias is not None:
        grad_bias = _folded(grad_scores_5, bias.shape[-3]).sum_to_size(bias.shape).to(bias.dtype)
    if table is not None:
        grad_table = _grad_of_table(_folded(grad_scores_5, len(table)).sum(0), table, step.offset)
    scaled_5 = (grad_scores_5 * q.shape[-1] ** -0.5).to(q.dtype)
    grad_q = scaled_5.matmul(k[:, :, None]).flatten(1, 2)
    grad_k = scaled_5.mT.matmul(q_5).sum(2)
    return grad_q, grad_k, grad_v, grad_bias, grad_table


def _grouped(x_BHQF: Tensor, groups: int) -> Tensor:
    batch, heads, *rest = x_BHQF.shape
    return x_BHQF.reshape(batch, groups, heads // groups, *rest)


def _as_mask(mask: Tensor | None, q: Tensor) -> Tensor | None:
    if mask is None:
        return None
    mask = mask.to(_exact(q))
    mask = mask if mask.dim() == 4 else mask[(None,) * (4 - mask.dim())]
    return mask if mask.shape[1] == 1 else _tiled(mask, q, 1)


def _tiled(part: Tensor, q: Tensor, axis: int) -> Tensor:
    """What is given for fewer heads than the queries have, once for each run of so many of them."""
    times = q.shape[1] // part.shape[axis]
    return part if times == 1 else part.repeat(*(times if at == axis else 1 for at in range(part.dim())))


def _folded(grad_5: Tensor, heads: int) -> Tensor:
    """The sum over runs of so many heads, (B, heads, Q, S)."""
    batch, _, _, queries, keys = grad_5.shape
    return grad_5.reshape(batch, -1, heads, queries, keys).sum(1)


def _scores(q: Tensor, k: Tensor, step: _Plan, bias: Tensor | None, table: Tensor | None) -> Tensor:
    product_5 = _grouped(q, k.shape[1]).matmul(k[:, :, None].mT)
    scores_BHQS: Tensor = product_5.flatten(1, 2).to(_exact(q)).mul_(q.shape[-1] ** -0.5)
    queries, keys = scores_BHQS.shape[-2:]
    diagonals = None if table is None else _diagonals(table, step.offset, queries, keys)
    for added in (bias, diagonals, step.mask):
        if added is not None:
            given = added.shape[-3] if added.dim() > 2 else 1
            runs = scores_BHQS.view(len(scores_BHQS), -1, given, queries, keys)
            runs += added.unsqueeze(-4) if added.dim() > 3 else added
    if step.causal:
        ahead_QS = torch.ones(queries, keys, dtype=torch.bool, device=q.device).triu(1)
        scores_BHQS.masked_fill_(ahead_QS, HIDDEN)
    return scores_BHQS


def _diagonals(table_HR: Tensor, offset: int, queries: int, keys: int) -> Tensor:
    """A table of distances laid out for queries and keys, (H, Q, S)."""
    laid_HQS: Tensor = table_HR[:, offset - queries + 1 : offset + keys].unfold(1, keys, 1).flip(1)
    return laid_HQS


def _grad_of_table(grad_HQS: Tensor, table_HR: Tensor, offset: int) -> Tensor:
    """The backward pass of `_diagonals`: the sum over each diagonal."""
    heads, queries, keys = grad_HQS.shape
    # Rows one longer than those they are read in: each row then starts one place further right.
    longer = torch.nn.functional.pad(grad_HQS.flip(1), (0, queries)).flatten(1)[:, : queries * (queries + keys - 1)]
    sums = longer.view(heads, queries, queries + keys - 1).sum(1)
    grad_HR = torch.zeros_like(table_HR)
    grad_HR[:, offset - queries + 1 : offset + keys] = sums
    return grad_HR


def full_attention(
    q_BHLF: Tensor,
    k_BGLF: Tensor,
    v_BGLF: Tensor,
    terms: Terms,
    *,
    prefix: int = 0,
    lengths_B: Tensor | None = None,
) -> list[Tensor]:
    """Attention to all tokens that come before, and inside a prefix to all of it.

    Args:
        q_BHLF: queries.
        k_BGLF: keys.
        v_BGLF: values.
        terms: what joins the scores; `sinks` play no part.
        prefix: leading tokens that see each other in both directions.
        lengths_B: tokens before the padding; read only where the prefix is the whole sequence.

    Returns:
        The output in consecutive parts along time, each (B, H, part, F).
    """
    length = q_BHLF.shape[2]
    if prefix <= 1:
        return _causally(q_BHLF, k_BGLF, v_BGLF, terms, start=0)
    if prefix >= length:
        return _both_ways(q_BHLF, k_BGLF, v_BGLF, terms, lengths_B)
    inside = _both_ways(q_BHLF[:, :, :prefix], k_BGLF[:, :, :prefix], v_BGLF[:, :, :prefix], terms, None)
    return inside + _causally(q_BHLF[:, :, prefix:], k_BGLF, v_BGLF, terms, start=prefix)


def _causally(q_BHQF: Tensor, k_BGSF: Tensor, v_BGSF: Tensor, terms: Terms, *, start: int) -> list[Tensor]:
    """Queries at positions start, start + 1, … over the keys up to their own."""
    queries = q_BHQF.shape[2]
    parts = []
    block = terms.block(queries)
    near_HQS = _near(terms, min(block, queries))
    for low in range(0, queries, block):
        q_block = q_BHQF if block >= queries else q_BHQF[:, :, low : low + block]
        middle = start + low
        end = middle + q_block.shape[2]
        own = _piece(k_BGSF, v_BGSF, middle, end, middle, end, terms, causal=True, near_HQS=near_HQS)
        before = [_piece(k_BGSF, v_BGSF, 0, middle, middle, end, terms)] if middle else []
        parts.append(attend(q_block, [own, *before], terms.logits_H))
    return parts


def _both_ways(q_BHLF: Tensor, k_BGLF: Tensor, v_BGLF: Tensor, terms: Terms, lengths_B: Tensor | None) -> list[Tensor]:
    length = q_BHLF.shape[2]
    mask = None
    if lengths_B is not None:
        beyond_BL = torch.arange(length, device=q_BHLF.device) >= lengths_B[:, None]
        mask = torch.zeros_like(beyond_BL, dtype=torch.float32).masked_fill_(beyond_BL, HIDDEN)[:, None, None]
    parts = []
    block = terms.block(length)
    near_HQS = _near(terms, min(block, length))
    for low in range(0, length, block):
        end = min(low + block, length)
        edges = [(low, end), (0, low), (end, length)] if terms.slopes_H is not None else [(0, length)]
        pieces = [
            _piece(k_BGLF, v_BGLF, a, b, low, end, terms, mask=mask, near_HQS=near_HQS) for a, b in edges if a < b
        ]
        parts.append(attend(q_BHLF[:, :, low:end], pieces, terms.logits_H))
    return parts


def _piece(
    k_BGSF: Tensor,
    v_BGSF: Tensor,
    first: int,
    last: int,
    low: int,
    high: int,
    terms: Terms,
    *,
    causal: bool = False,
    mask: Tensor | None = None,
    near_HQS: Tensor | None = None,
) -> Piece:
    """Keys [first, last) for queries [low, high), which overlap wholly or, for ALiBi, wholly or not at all.

    `near_HQS`: ALiBi of a block to itself, at least as large as this one.
    """
    keys, values = k_BGSF[:, :, first:last], v_BGSF[:, :, first:last]
    mask = None if mask is None else mask[..., first:last]
    shift_HQ = None
    if terms.slopes_H is not None:
        if near_HQS is not None and first == low:
            alibi = near_HQS[:, : high - low, : last - first]
        else:
            alibi, shift_HQ = _far(terms, terms.slopes_H, first, last, low, high)
        mask = alibi if mask is None else mask + alibi
    return Piece(
        k_BGSF=keys,
        v_BGSF=values,
        mask=mask,
        table_HR=terms.table_HR,
        offset=terms.zero + first - low,
        causal=causal,
        shift_HQ=shift_HQ,
    )


def _near(terms: Terms, tokens: int) -> Tensor | None:
    """ALiBi of so many consecutive tokens to each other: one mask for all blocks."""
    if terms.slopes_H is None:
        return None
    # In floating point from the start: integers of every pair would take twice as much.
    place_Q = torch.arange(tokens, dtype=terms.slopes_H.dtype, device=terms.slopes_H.device)
    return terms.fall((place_Q[:, None] - place_Q).abs_())


def _far(terms: Terms, slopes_H: Tensor, first: int, last: int, low: int, high: int) -> tuple[Tensor, Tensor]:
    """ALiBi's mask of keys that lie all on one side, and what is the same for all of them.

    Slope × distance is a sum of a part of the key and a part of the query, both counted from the
    border between them, so that near keys lose no precision.
    """
    query_Q, key_S = (torch.arange(*ends, device=slopes_H.device) for ends in ((low, high), (first, last)))
    if last <= low:
        return terms.fall(low - key_S), -slopes_H[:, None] * (query_Q - low)
    return terms.fall(key_S - high), -slopes_H[:, None] * (high - query_Q)


def windowed_attention(
    q_LNF: Tensor, k_LNF: Tensor, v_LNF: Tensor, window: int, terms: Terms = NO_TERMS, *, prefix: int = 0
) -> list[Tensor]:
    """Attention to oneself and the window − 1 tokens before, inside a prefix also those behind.

    Args:
        q_LNF: queries; N counts sequences times query heads.
        k_LNF: keys; N counts sequences times key/value heads, which divide the former.
        v_LNF: values, shaped as the keys.
        window: tokens seen, oneself included, on each side.
        terms: what joins the scores, repeated for every sequence; all tokens also see the
            `terms.sinks` first ones, as far as they may look ahead.
        prefix: leading tokens that see each other in both directions.

    Returns:
        The output in consecutive parts along time, each (part, N, F).
    """
    length = q_LNF.shape[0]
    if prefix <= 1 or prefix >= length:
        return _windows(q_LNF, k_LNF, v_LNF, window, terms, both_ways=prefix > 1)
    inside = _windows(q_LNF[:prefix], k_LNF[:prefix], v_LNF[:prefix], window, terms, both_ways=True)
    # Later tokens see nothing before the last window of the prefix, but for sinks.
    start = 0 if terms.sinks else max(0, prefix - window + 1)
    later = _windows(q_LNF[start:], k_LNF[start:], v_LNF[start:], window, terms, both_ways=False)
    skipped = prefix - start
    for part in later:
        if skipped < part.shape[0]:
            inside.append(part[skipped:])
        skipped = max(0, skipped - part.shape[0])
    return inside


def _windows(
    q_LNF: Tensor, k_LNF: Tensor, v_LNF: Tensor, window: int, terms: Terms, *, both_ways: bool
) -> list[Tensor]:
    """One direction or both for a whole sequence: a head, blocks of C queries under one band, and a tail.

    A block reads the keys that its first and its last query see, as a view; so work and memory grow
    with L, not L². The queries of the head still see sinks inside their windows, and see nothing
    but sinks and windows that begin before the sequence; those of the tail, windows that end after it.
    """
    length, sinks = q_LNF.shape[0], terms.sinks
    ahead = window - 1 if both_ways else 0
    head = window + sinks - (1 if both_ways else 0)
    if length <= (window if both_ways else head):
        q, k, v = (_one(part) for part in (q_LNF, k_LNF, v_LNF))
        return [part[0].transpose(0, 1) for part in full_attention(q, k, v, terms, prefix=length if both_ways else 0)]
    if length < head + ahead:
        return [_band_attention(q_LNF, k_LNF, v_LNF, 0, window, terms, both_ways=True)]
    block = window_block(window)
    blocks, rest = divmod(length - head - ahead, block)
    # Split at once, so that gradients are joined and not each made as large as the whole.
    head_q, block_q, tail_q = q_LNF.split_with_sizes([head, blocks * block, rest + ahead])
    parts = []
    if both_ways and head:
        parts.append(_band_attention(head_q, k_LNF, v_LNF, 0, window, terms, both_ways=True))
    elif head:
        q, k, v = (_one(part) for part in (head_q, k_LNF[:head], v_LNF[:head]))
        parts.extend(part[0].transpose(0, 1) for part in full_attention(q, k, v, terms))
    if blocks:
        parts.append(_block_attention(block_q, k_LNF, v_LNF, head, block, window, terms, both_ways=both_ways))
    if rest + ahead:
        parts.append(_band_attention(tail_q, k_LNF, v_LNF, length - rest - ahead, window, terms, both_ways=both_ways))
    return parts


def _block_attention(
    q_LNF: Tensor, k_LNF: Tensor, v_LNF: Tensor, low: int, block: int, window: int, terms: Terms, *, both_ways: bool
) -> Tensor:
    """Queries from `low` on, under one band in blocks of so many, (queries, N, F)."""
    queries = q_LNF.shape[0]
    ahead = window - 1 if both_ways else 0
    q_XNCF = q_LNF.view(-1, block, *q_LNF.shape[1:]).transpose(1, 2)
    keys = slice(low - window + 1, low + queries + ahead)
    k_XNSF, v_XNSF = (part[keys].unfold(0, block + window - 1 + ahead, block).mT for part in (k_LNF, v_LNF))
    pieces = [_band_piece(k_XNSF, v_XNSF, block, window - 1, window, terms, both_ways=both_ways)]
    if terms.sinks:
        query_XC = torch.arange(low, low + queries, device=q_LNF.device).view(-1, block)
        pieces.append(_sink_piece(k_LNF, v_LNF, query_XC, terms))
    return attend(q_XNCF, pieces, terms.logits_H).transpose(1, 2).flatten(0, 1)


def _band_attention(
    q_LNF: Tensor, k_LNF: Tensor, v_LNF: Tensor, low: int, window: int, terms: Terms, *, both_ways: bool
) -> Tensor:
    """Queries from `low` on over what they see, in one block, (queries, N, F)."""
    high = low + q_LNF.shape[0]
    first = max(0, low - window + 1)
    last = min(high + window - 1, k_LNF.shape[0]) if both_ways else high
    k_1NSF, v_1NSF = (_one(part[first:last]) for part in (k_LNF, v_LNF))
    pieces = [
        _band_piece(k_1NSF, v_1NSF, high - low, low - first, window, terms, both_ways=both_ways, from_start=not first)
    ]
    if terms.sinks and first:
        query_1C = torch.arange(low, high, device=q_LNF.device)[None]
        pieces.append(_sink_piece(k_LNF, v_LNF, query_1C, terms))
    return attend(_one(q_LNF), pieces, terms.logits_H)[0].transpose(0, 1)


def _band_piece(
    k_XNSF: Tensor,
    v_XNSF: Tensor,
    queries: int,
    lead: int,
    window: int,
    terms: Terms,
    *,
    both_ways: bool,
    from_start: bool = False,
) -> Piece:
    """Keys of which the first stands `lead` places before the first query.

    `from_start`: the keys begin with the sequence, so that sinks are among them.
    """
    query_C1 = torch.arange(lead, lead + queries, device=k_XNSF.device)[:, None]
    key_S = torch.arange(k_XNSF.shape[2], device=k_XNSF.device)
    distance_CS = key_S - query_C1
    seen_CS = distance_CS.abs() < window
    if from_start:
        seen_CS |= key_S < terms.sinks
    if not both_ways:
        seen_CS &= distance_CS <= 0
    mask = torch.zeros_like(seen_CS, dtype=_exact(k_XNSF)).masked_fill_(~seen_CS, HIDDEN)
    if terms.slopes_H is not None:
        mask = mask + terms.fall(distance_CS.abs())
    return Piece(k_BGSF=k_XNSF, v_BGSF=v_XNSF, mask=mask, table_HR=terms.table_HR, offset=terms.zero - lead)


def _sink_piece(k_LNF: Tensor, v_LNF: Tensor, query_XC: Tensor, terms: Terms) -> Piece:
    """The sinks, for queries whose windows begin behind them."""
    k_XNSF, v_XNSF = (_one(part[: terms.sinks]).expand(query_XC.shape[0], -1, -1, -1) for part in (k_LNF, v_LNF))
    sink_S = torch.arange(terms.sinks, device=k_LNF.device)
    added = terms.bias_at(sink_S - query_XC[..., None])
    learned = terms.table_HR is not None
    return Piece(k_BGSF=k_XNSF, v_BGSF=v_XNSF, mask=None if learned else added, bias=added if learned else None)


def _one(x_LNF: Tensor) -> Tensor:
    """Time first to (1, N, L, F)."""
    return x_LNF.transpose(0, 1)[None]


def _exact(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
