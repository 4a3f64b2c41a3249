"""How tokens are told apart by where they stand: rotations of heads, and biases of scores.

In: queries or keys with their positions, or the positions alone. Out: the heads turned (Su et al.
2021), or what is added to attention's scores (Press et al. 2022; Raffel et al. 2020).

Rotation has the half-split layout of Llama: feature i of a head turns together with feature
i + E, by position × theta^(−i / E), so that weights trained with `rotate_half` fit as they are.
Where a position is two numbers, each turns one half of the features in just this way.

Tables are made anew in every pass: that costs under 1 % of a layer, keeps buffers out of the
model, and lets the backward pass (a turn the other way) keep nothing but given positions. Only in
decoding, where they would be half of a layer's time, all layers share those of the latest tokens.

Shapes: B batch, L length or queries, S keys, H heads, F features of a head, P numbers of a
position, E pairs of features that turn by one of them.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nas.specs.base import Rope

# Between these numbers of turns over the trained context, YaRN passes from stretching to leaving alone.
_YARN_FAST, _YARN_SLOW = 32.0, 1.0

_BLOCK = 64
"""Positions whose tables decoding makes at once."""


def rotate(x: Tensor, positions: int | Tensor, rope: Rope, *, time_axis: int) -> Tensor:
    """Turns each head by angles that grow with its position.

    Args:
        x: (…, heads, features) with time on `time_axis`; features are a multiple of
            2 · `rope.dimensions`. Where positions are a tensor: (B, L, H, F), or (L, B, H, F).
        positions: of the first entry of the time axis, each next one is 1 further (and, where
            `rope.dimensions` is 2, has 0 as its second number); or int64 (B, L) or
            (B, L, rope.dimensions), whichever axis of `x` is time.
        rope: base of the frequencies, how they are stretched, and numbers of a position.
        time_axis: counted from the front, before the last two axes: 0 or 1.
    """
    if _is_one_token(positions, x, time_axis):
        return _turn(x, _tables_of_token(positions, x.shape[-1], rope, x.dtype, x.device), rope, sign=1.0)
    # Positions enter apart from the rest: autograd may only be shown a tensor as an argument.
    given = positions if isinstance(positions, Tensor) else None
    start = 0 if isinstance(positions, Tensor) else positions
    turned: Tensor = _Rotation.apply(x, given, start, rope, time_axis)  # type: ignore[no-untyped-call]
    return turned


class _Rotation(torch.autograd.Function):
    """Autograd would keep the tables and run twice as many kernels; a rotation needs neither."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, given: Tensor | None, start: int, rope: Rope, time_axis: int) -> Tensor:
        ctx.place = (start, rope, time_axis)
        ctx.save_for_backward(*(() if given is None else (given,)))
        return _turn(x, _tables(x, given, *ctx.place), rope, sign=1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (given,) = ctx.saved_tensors or (None,)
        start, rope, time_axis = ctx.place
        return _turn(grad, _tables(grad, given, start, rope, time_axis), rope, sign=-1.0), None, None, None, None


def _is_one_token(positions: int | Tensor, x: Tensor, time_axis: int) -> TypeGuard[int]:
    """Whether this is a step of decoding, whose tables all layers share."""
    # Subclasses, such as the fake tensors of a trace, must not leave tables to real ones.
    return isinstance(positions, int) and x.shape[time_axis] == 1 and not torch.is_grad_enabled() and type(x) is Tensor


def _tables_of_token(
    position: int, features: int, rope: Rope, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of one position, for all heads alike."""
    cos, sin = _tables_of_block(position // _BLOCK, features, rope, dtype, device)
    place = position % _BLOCK
    return cos[place], sin[place]


@lru_cache(maxsize=32)
def _tables_of_block(
    block: int, features: int, rope: Rope, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The same for consecutive positions, which are on the first axis."""
    # Whoever asks first must not make them unfit for others: inference tensors are for inference alone.
    with torch.inference_mode(mode=False):
        x = torch.empty((_BLOCK, 1, 1, features), dtype=dtype, device=device)
        return _tables(x, None, block * _BLOCK, rope, 0)


def _turn(x: Tensor, tables: tuple[Tensor, Tensor], rope: Rope, *, sign: float) -> Tensor:
    parts = x if rope.dimensions == 1 else x.view(*x.shape[:-1], rope.dimensions, -1)
    cos, sin = tables
    first, second = parts.chunk(2, -1)
    turned = torch.empty_like(parts, memory_format=torch.contiguous_format)
    turned_first, turned_second = turned.chunk(2, -1)
    torch.mul(first, cos, out=turned_first).addcmul_(second, sin, value=-sign)
    torch.mul(second, cos, out=turned_second).addcmul_(first, sin, value=sign)
    return turned.view(x.shape)


def _tables(x: Tensor, given: Tensor | None, start: int, rope: Rope, time_axis: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines that broadcast against (…, H, E), or against (…, H, P, E) of a rope of more dimensions."""
    heads, features = x.shape[-2:]
    # Angles of far positions need more than bf16 has; float64 inputs keep their precision.
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    frequencies_E = rope_frequencies(rope, features // rope.dimensions, dtype=exact, device=x.device)
    positions = _positions(x, given, start, rope, time_axis, exact)
    angles = positions[..., None] * frequencies_E
    if rope.dimensions == 1:
        angles = angles.squeeze(-2)
    # Time, then whatever tells sequences apart; the heads; what belongs to one head.
    outer = angles.dim() - (1 if rope.dimensions == 1 else 2)
    shape = [1] * (x.dim() - 2) + [heads, *angles.shape[outer:]]
    if given is None:
        shape[time_axis] = x.shape[time_axis]
    else:
        shape[:2] = x.shape[:2]
    temperature = rope_temperature(rope)
    tables = (
        (angles.cos(), angles.sin()) if temperature == 1 else (angles.cos() * temperature, angles.sin() * temperature)
    )
    # One row per head: the kernels then run over whole rows and not over half a head at a time.
    rows = [*angles.shape[:outer], heads, *angles.shape[outer:]]
    cos, sin = (table.to(x.dtype).unsqueeze(outer).expand(rows).reshape(shape) for table in tables)
    return cos, sin


def _positions(x: Tensor, given: Tensor | None, start: int, rope: Rope, time_axis: int, exact: torch.dtype) -> Tensor:
    """Positions as (L, P), or where they are given (B, L, P), or (L, B, P) where time is first."""
    if given is None:
        length = x.shape[time_axis]
        positions = torch.arange(start, start + length, dtype=exact, device=x.device)[:, None]
    else:
        positions = given.to(exact) if given.dim() == 3 else given.to(exact)[..., None]
        positions = positions.transpose(0, 1) if time_axis == 0 else positions
    missing = rope.dimensions - positions.shape[-1]
    return nn.functional.pad(positions, (0, missing)) if missing > 0 else positions


def rope_frequencies(rope: Rope, features: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Angles per position, (features / 2,), of the features that turn by one number.

    Args:
        rope: as it is, stretched evenly (Chen et al. 2023), or by YaRN (Peng et al. 2023), which
            stretches what turns less than once in the trained context, leaves alone what turns
            more than 32 times, and passes from one to the other evenly in between.
        features: that turn, even.
        dtype: of the frequencies, at least float32.
        device: of the frequencies.
    """
    half = features // 2
    place_E = torch.arange(half, dtype=dtype, device=device)
    frequencies_E = rope.theta ** (-place_E / half)
    if rope.scaling == "linear":
        return frequencies_E / rope.factor
    if rope.scaling == "yarn":
        low, high = _yarn_range(rope, features)
        stretched_E = ((place_E - low) / (high - low)).clamp(0, 1)
        return frequencies_E * (1 - stretched_E + stretched_E / rope.factor)
    return frequencies_E


def _yarn_range(rope: Rope, features: int) -> tuple[float, float]:
    """The pair of features where stretching begins, and the one from which on it is complete."""

    def pair(turns: float) -> float:
        """The pair that turns so often over the trained context."""
        # A theta of 1 has all pairs turn alike; any large number then says so.
        logarithm = max(math.log(rope.theta), 1e-9)
        return features * math.log(rope.original_context / (turns * 2 * math.pi)) / (2 * logarithm)

    low = max(math.floor(pair(_YARN_FAST)), 0)
    high = min(math.ceil(pair(_YARN_SLOW)), features - 1)
    return low, high if high != low else high + 0.001


def rope_temperature(rope: Rope) -> float:
    """What queries and keys grow by when they turn: 1, but for YaRN 0.1 · ln(factor) + 1."""
    return 0.1 * math.log(rope.factor) + 1 if rope.scaling == "yarn" and rope.factor > 1 else 1.0


def alibi_slopes(heads: int, device: torch.device) -> Tensor:
    """What a head's scores fall by with each token of distance, (H,), float32 (Press et al. 2022).

    A geometric series from 2^(−8/H) down to 2^−8. Where H is no power of 2: the series of the
    power below, and then every other member of the series of the power above.
    """
    below = 1 << (heads.bit_length() - 1)
    series = [2 ** (-8 * i / below) for i in range(1, below + 1)]
    between = [2 ** (-4 * i / below) for i in range(1, 2 * (heads - below), 2)]
    return torch.tensor(series + between, dtype=torch.float32, device=device)


class RelativeBias(nn.Module):
    """A learned bias for each head and bucket of distances (Raffel et al. 2020).

    Half of the buckets are for single distances, the others for ranges that grow with the
    distance up to `max_distance`, from where on all distances share the last.

    Args:
        heads: of each layer that shares the biases.
        looks_ahead: whether later keys have buckets of their own: half of them. If not, a later
            key has the bias of distance 0 (and is for attention to mask).
        buckets: in all, even where `looks_ahead`.
        max_distance: in tokens.
    """

    def __init__(self, heads: int, *, looks_ahead: bool, buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__()
        self.looks_ahead = looks_ahead
        self.buckets = buckets
        self.max_distance = max_distance
        self.relative_attention_bias = nn.Embedding(buckets, heads)
        nn.init.normal_(self.relative_attention_bias.weight, std=0.02)

    def forward(self, query_positions_L: Tensor, key_positions_S: Tensor) -> Tensor:
        """What is added to the scores, (H, L, S); positions are int64."""
        # Far beyond max_distance all distances share one bucket, so that few have to be looked at.
        reach = 2 * self.max_distance
        distances_T = torch.arange(-reach, reach + 1, device=key_positions_S.device)
        biases_HT = self.relative_attention_bias(self._buckets_of(distances_T)).T
        place_LS = (key_positions_S - query_positions_L[:, None]).clamp_(-reach, reach).add_(reach)
        bias_HLS: Tensor = _Lookup.apply(biases_HT, place_LS)  # type: ignore[no-untyped-call]
        return bias_HLS

    def _buckets_of(self, distances: Tensor) -> Tensor:
        """The bucket of each distance, from the query to the key."""
        buckets = self.buckets // 2 if self.looks_ahead else self.buckets
        single = buckets // 2
        later = (distances > 0) * buckets if self.looks_ahead else torch.zeros_like(distances)
        apart = distances.abs() if self.looks_ahead else (-distances).clamp(min=0)
        # Written as T5 does to the last bit: a distance at the edge of two ranges stays in its own.
        growth = torch.log(apart.clamp(min=1).float() / single) / math.log(self.max_distance / single)
        ranges = (single + (growth * (buckets - single)).long()).clamp(max=buckets - 1)
        return later + torch.where(apart < single, apart, ranges)


class _Lookup(torch.autograd.Function):
    """Columns of a small table; autograd's own way back would add up one entry at a time, in one thread."""

    @staticmethod
    def forward(ctx: Any, table_HT: Tensor, place_LS: Tensor) -> Tensor:
        ctx.columns = table_HT.shape[1]
        ctx.save_for_backward(place_LS)
        heads, columns = table_HT.shape
        rows_HLT = table_HT.contiguous()[:, None].expand(heads, place_LS.shape[0], columns)
        # Gathering runs over whole rows, which takes half the time of indexing.
        return rows_HLT.gather(2, place_LS.expand(heads, *place_LS.shape))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_HLS: Tensor) -> tuple[Tensor, None]:
        (place_LS,) = ctx.saved_tensors
        # Row by row first: rows run in parallel, and no sum grows so long that it loses digits.
        exact = torch.float64 if grad_HLS.dtype == torch.float64 else torch.float32
        sums_HLT = grad_HLS.new_zeros((*grad_HLS.shape[:2], ctx.columns), dtype=exact)
        sums_HLT.scatter_add_(2, place_LS.expand_as(grad_HLS), grad_HLS.to(exact))
        return sums_HLT.sum(1).to(grad_HLS.dtype), None
