"""Softmax attention: over the whole context, over a sliding window, and over another sequence.

In: features of a sequence. Out: features of the same shape. Heads are grouped (Ainslie et al.
2023): several query heads share one key/value head. Projections have no biases and Llama's names.

Shapes: B batch, L length, D width, H query heads, G key/value heads, F features of a head,
S slots of a cache or tokens of a source, R distances.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

import torch
from torch import Tensor, nn

from nas.mixers import kernels
from nas.mixers.attention import HIDDEN, Piece, Terms, alibi_reach, attend, full_attention, windowed_attention
from nas.mixers.base import CAUSAL, Layout, Mixer, MixerConfig, MixerState
from nas.mixers.positions import alibi_slopes, rotate


class KeyValueCache(MixerState):
    """Keys, rotated at their absolute positions, and values of the latest tokens.

    The first slots belong to the `sinks` first tokens for good; the others are a ring.

    Attributes:
        keys_BGSF: rotated keys.
        values_BGSF: values.
        sinks: leading tokens that are never overwritten.
    """

    def __init__(self, keys_BGSF: Tensor, values_BGSF: Tensor, *, sinks: int = 0) -> None:
        self.keys_BGSF = keys_BGSF
        self.values_BGSF = values_BGSF
        self.sinks = min(sinks, self.slots)

    @property
    def slots(self) -> int:
        """Tokens that the cache can hold."""
        return self.keys_BGSF.shape[2]

    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor kept."""
        return self.keys_BGSF, self.values_BGSF

    def held(self, latest_B1: Tensor) -> Tensor:
        """The token that lies in each slot once those up to `latest` are taken in, int64 (B, S).

        A slot of which no token has come yet has its own number, which is beyond `latest`.
        """
        slot_S = torch.arange(self.slots, device=latest_B1.device)
        ring = max(self.slots - self.sinks, 1)
        turned_BS = latest_B1 - (latest_B1 - slot_S) % ring
        return torch.where((slot_S < self.sinks) | (latest_B1 < slot_S), slot_S, turned_BS)

    def fill(self, keys_BLGF: Tensor, values_BLGF: Tensor, lengths_B: Tensor | None = None) -> None:
        """Takes in whole prompts, of which row b has lengths_B[b] tokens; the cache must be empty."""
        batch, length = keys_BLGF.shape[:2]
        pairs = ((self.keys_BGSF, keys_BLGF), (self.values_BGSF, values_BLGF))
        if length <= self.slots:
            # What the padding leaves in later slots is not seen before a token overwrites it.
            for cache_BGSF, new_BLGF in pairs:
                cache_BGSF[:, :, :length] = new_BLGF.detach().transpose(1, 2)
            return
        if lengths_B is None:
            lengths_B = torch.full((batch,), length, device=keys_BLGF.device)
        token_BS = self.held(lengths_B[:, None] - 1)
        row_B1 = torch.arange(batch, device=keys_BLGF.device)[:, None]
        for cache_BGSF, new_BLGF in pairs:
            cache_BGSF.copy_(new_BLGF.detach()[row_B1, token_BS].transpose(1, 2))

    def append(self, key_BGF: Tensor, value_BGF: Tensor, position: int | Tensor) -> tuple[Tensor, Tensor]:
        """Takes in one token per row, at `position`.

        Returns:
            The keys and the values, (B, G, S, F), or of one position for all only those held.
        """
        pairs = ((self.keys_BGSF, key_BGF), (self.values_BGSF, value_BGF))
        ring = max(self.slots - self.sinks, 1)
        if isinstance(position, int):
            slot = position if position < self.slots else self.sinks + (position - self.sinks) % ring
            for cache_BGSF, new_BGF in pairs:
                cache_BGSF[:, :, slot] = new_BGF.detach()
            used = min(position + 1, self.slots)
            return self.keys_BGSF[:, :, :used], self.values_BGSF[:, :, :used]
        slot_B = torch.where(position < self.slots, position, self.sinks + (position - self.sinks) % ring)
        row_B = torch.arange(key_BGF.shape[0], device=key_BGF.device)
        for cache_BGSF, new_BGF in pairs:
            cache_BGSF[row_B, :, slot_B] = new_BGF.detach().to(cache_BGSF.dtype)
        return self.keys_BGSF, self.values_BGSF


class SoftmaxAttention(Mixer[KeyValueCache]):
    """What full and windowed attention share: projections, positions, the cache and its step.

    Optional: `sinks`, a logit per head that takes part of the softmax and gives nothing (gpt-oss,
    Agarwal et al. 2025), and `gate_proj`, which gates each feature before `o_proj` (Qiu et al. 2025).
    """

    window: int | None = None
    kept: int = 0

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        options, positions, width = config.options, config.around.positions, config.around.width
        self.heads = int(options["heads"])
        self.kv_heads = int(options["kv_heads"])
        self.head_dim = int(options["head_dim"])
        self.rope = config.rope if positions == "rope" else None
        self.alibi = positions == "alibi"
        # In a tuple, so that the biases that all layers share are not this module's own.
        self.relative: tuple[nn.Module | None, ...] = (config.relative,) if positions == "relative" else ()
        self.q_proj = nn.Linear(width, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(width, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(width, self.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, width, bias=False)
        self.gate_proj = (
            nn.Linear(width, self.heads * self.head_dim, bias=False) if options.get("output_gate", False) else None
        )
        self.sinks = nn.Parameter(torch.zeros(self.heads)) if options.get("sink_logit", False) else None

    @abstractmethod
    def slots(self, context: int) -> int:
        """Tokens that a cache for `context` tokens has to hold."""

    def forward(self, x_BLD: Tensor, layout: Layout = CAUSAL) -> Tensor:
        """All positions at once, (B, L, D) to (B, L, D)."""
        return self._attend(x_BLD, layout)[0]

    def new_state(
        self,
        batch: int,
        context: int,
        *,
        cache_dtype: torch.dtype,
        recurrent_dtype: torch.dtype,
        device: torch.device,
    ) -> KeyValueCache:
        """An empty cache; all of it is in `cache_dtype`."""
        shape = (batch, self.kv_heads, self.slots(context), self.head_dim)
        keys, values = (torch.zeros(shape, dtype=cache_dtype, device=device) for _ in range(2))
        return KeyValueCache(keys, values, sinks=self.kept)

    def prefill(self, x_BLD: Tensor, state: KeyValueCache, layout: Layout = CAUSAL) -> Tensor:
        """`forward` that also fills `state`, which must be empty."""
        y_BLD, keys_BLGF, values_BLGF = self._attend(x_BLD, layout)
        state.fill(keys_BLGF, values_BLGF, layout.lengths_B)
        return y_BLD

    def step(self, x_BD: Tensor, state: KeyValueCache, position: int | Tensor, turn: Tensor | None = None) -> Tensor:
        """The next token, (B, D) to (B, D), causally; takes it into `state`."""
        turns = position if turn is None else turn
        q_B1HF, k_B1GF, v_B1GF = self._project(x_BD[:, None], turns if isinstance(turns, int) else turns[:, None], 1)
        keys_BGSF, values_BGSF = state.append(k_B1GF[:, 0], v_B1GF[:, 0], position)
        dtype = q_B1HF.dtype
        mask, bias = self._step_terms(state, position, q_B1HF)
        piece = Piece(k_BGSF=keys_BGSF.to(dtype), v_BGSF=values_BGSF.to(dtype), mask=mask, bias=bias)
        y_BH1F = attend(q_B1HF.transpose(1, 2), [piece], self.sinks)
        y_BC = y_BH1F.flatten(1)
        if self.gate_proj is not None:
            y_BC = y_BC * self.gate_proj(x_BD).sigmoid()
        return self.o_proj(y_BC)  # type: ignore[no-any-return]

    def residual_projections(self) -> tuple[nn.Linear, ...]:
        """The output projection."""
        return (self.o_proj,)

    @abstractmethod
    def _is_time_first(self, length: int) -> bool:
        """Whether `_parts` wants time before the batch."""

    @abstractmethod
    def _parts(
        self, q: Tensor, k: Tensor, v: Tensor, terms: Terms, prefix: int, lengths_B: Tensor | None
    ) -> list[Tensor]:
        """The mixed values in consecutive parts along time, with the axes in the order of the queries.

        Args:
            q: queries, (B, L, H, F), or (L, B, H, F) where time is first.
            k: keys, likewise.
            v: values, likewise.
            terms: what joins the scores.
            prefix: of all sequences.
            lengths_B: tokens before the padding, where the prefix is all of them.
        """

    def _attend(self, x_BLD: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """The mixed features, (B, L, D), and the keys and values, (B, L, G, F), behind them."""
        length = x_BLD.shape[1]
        turns = 0 if layout.positions is None else layout.positions
        terms = self._terms(length, x_BLD)
        if kernels.takes_flex(x_BLD, self.head_dim) and self._wants_flex(layout, terms, length):
            q, k, v = self._project(x_BLD, turns, 1)
            q_BHLF, k_BGLF, v_BGLF = (part.transpose(1, 2) for part in (q, k, v))
            y_BHLF = kernels.flex(q_BHLF, k_BGLF, v_BGLF, terms, window=self.window, prefix=layout.prefix)
            return self._finish([y_BHLF.transpose(1, 2)], self._gate(x_BLD), 1), k, v
        time_first = self._is_time_first(length)
        axis = 0 if time_first else 1
        x = x_BLD.transpose(0, 1).contiguous() if time_first else x_BLD
        q, k, v = self._project(x, turns, axis)
        if terms.slopes_H is not None:
            terms = replace(terms, reach_H=alibi_reach(terms.slopes_H, q, k))
        gate = self._gate(x)
        rows = _rows(layout, length, one_by_one=time_first)
        if isinstance(rows, int):
            lengths_B = layout.lengths_B if rows == length else None
            y = self._finish(self._parts(q, k, v, terms, rows, lengths_B), gate, axis)
        else:
            y = self._row_by_row(q, k, v, gate, terms, rows, axis)
        y, k, v = (part.transpose(0, 1) if time_first else part for part in (y, k, v))
        return y, k, v

    def _row_by_row(
        self, q: Tensor, k: Tensor, v: Tensor, gate: Tensor | None, terms: Terms, rows: list[tuple[int, int]], axis: int
    ) -> Tensor:
        """Each sequence alone, without its padding: what kernels with masks would do in vain is more than this."""
        length, done = q.shape[axis], []
        for row, (prefix, real) in enumerate(rows):
            own_q, own_k, own_v = (part.narrow(1 - axis, row, 1).narrow(axis, 0, real) for part in (q, k, v))
            own_gate = None if gate is None else gate.narrow(1 - axis, row, 1).narrow(axis, 0, real)
            y = self._finish(self._parts(own_q, own_k, own_v, terms, prefix, None), own_gate, axis)
            padding = (0, 0, 0, length - real) if axis == 1 else (0, 0, 0, 0, 0, length - real)
            done.append(nn.functional.pad(y, padding))
        return torch.cat(done, 1 - axis)

    def _finish(self, parts: list[Tensor], gate: Tensor | None, axis: int) -> Tensor:
        """The output projection of consecutive parts along time, with heads still split."""
        # Split at once, so that gradients are joined and not each made as large as the whole.
        gates = (
            [None] * len(parts) if gate is None else gate.split_with_sizes([part.shape[axis] for part in parts], axis)
        )
        done = []
        for part, own_gate in zip(parts, gates, strict=True):
            joined = part.flatten(-2)
            done.append(self.o_proj(joined if own_gate is None else joined * own_gate))
        # Joining after the output projection spares a second copy of the heads for backward.
        return done[0] if len(done) == 1 else torch.cat(done, axis)

    def _gate(self, x: Tensor) -> Tensor | None:
        return None if self.gate_proj is None else self.gate_proj(x).sigmoid()

    def _project(self, x: Tensor, turns: int | Tensor, time_axis: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries, rotated keys, and values, with heads split off the last axis."""
        q = self.q_proj(x).unflatten(-1, (self.heads, self.head_dim))
        k = self.k_proj(x).unflatten(-1, (self.kv_heads, self.head_dim))
        v = self.v_proj(x).unflatten(-1, (self.kv_heads, self.head_dim))
        if self.rope is None:
            return q, k, v
        q, k = (rotate(part, turns, self.rope, time_axis=time_axis) for part in (q, k))
        return q, k, v

    def _terms(self, length: int, x: Tensor) -> Terms:
        table_HR = None
        if self.relative:
            table_HR = self._relative(torch.arange(1 - length, length, device=x.device))
        return Terms(
            slopes_H=alibi_slopes(self.heads, x.device).to(_exact(x)) if self.alibi else None,
            table_HR=table_HR,
            zero=length - 1,
            logits_H=self.sinks,
            sinks=self.kept,
        )

    def _relative(self, distances_R: Tensor) -> Tensor:
        """Learned biases at distances, (H, R), in a dtype that their gradients can be summed in."""
        (shared,) = self.relative
        assert shared is not None, "relative positions need the biases that the stack shares"
        bias_HR: Tensor = shared(distances_R.new_zeros(1), distances_R)[:, 0]
        return bias_HR.to(_exact(bias_HR))

    def _step_terms(
        self, state: KeyValueCache, position: int | Tensor, q: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """What is added to the scores of one query by slot: constant and learned, (B or 1, H or 1, 1, S)."""
        mask = bias = None
        if isinstance(position, int) and not (self.alibi or self.relative):
            return None, None
        latest_B1 = torch.full((1, 1), position, device=q.device) if isinstance(position, int) else position[:, None]
        held_BS = state.held(latest_B1)
        if isinstance(position, int):
            held_BS = held_BS[:, : position + 1]
        else:
            empty_BS = held_BS > latest_B1
            mask = torch.zeros_like(empty_BS, dtype=torch.float32).masked_fill_(empty_BS, HIDDEN)[:, None, None]
        if self.alibi:
            slopes_H11 = alibi_slopes(self.heads, held_BS.device).to(_exact(q))[:, None, None]
            fall = slopes_H11 * (held_BS - latest_B1)[:, None, None]
            mask = fall if mask is None else mask + fall
        if self.relative:
            distance_BS = held_BS - latest_B1
            bias = (
                self._relative(distance_BS.flatten()).view(self.heads, *distance_BS.shape).transpose(0, 1)[:, :, None]
            )
        return mask, bias

    def _wants_flex(self, layout: Layout, terms: Terms, length: int) -> bool:
        """Whether this is more than the fused kernels of PyTorch do without masks."""
        return not (terms.plain and isinstance(layout.prefix, int) and (layout.is_causal or layout.prefix == length))


class FullAttention(SoftmaxAttention):
    """Attention over the whole context (Vaswani et al. 2017)."""

    def slots(self, context: int) -> int:
        """One for every token."""
        return context

    def _is_time_first(self, length: int) -> bool:
        return False

    def _parts(
        self, q: Tensor, k: Tensor, v: Tensor, terms: Terms, prefix: int, lengths_B: Tensor | None
    ) -> list[Tensor]:
        return _full_parts(q, k, v, terms, prefix, lengths_B)


class SlidingWindow(SoftmaxAttention):
    """Attention to oneself and the window − 1 tokens before (Beltagy et al. 2020).

    Inside a prefix also to the window − 1 tokens behind; everywhere also to the first tokens, as
    many as `sinks` says (StreamingLLM, Xiao et al. 2023).
    """

    def __init__(self, config: MixerConfig) -> None:
        super().__init__(config)
        self.window: int = int(config.options["window"])
        self.kept = int(config.options.get("sinks", 0))

    def slots(self, context: int) -> int:
        """One for every token of a window and every sink; older ones are overwritten."""
        return min(context, self.window + self.kept)

    def _is_time_first(self, length: int) -> bool:
        # With time first, sequences and heads are one axis and the overlapping windows of keys
        # are views; with the batch first, each block would need a copy of its window.
        return length > self.window

    def _parts(
        self, q: Tensor, k: Tensor, v: Tensor, terms: Terms, prefix: int, lengths_B: Tensor | None
    ) -> list[Tensor]:
        if not self._is_time_first(terms.zero + 1):
            return _full_parts(q, k, v, terms, prefix, lengths_B)
        batch = q.shape[1]
        q_LNF, k_LNF, v_LNF = (part.flatten(1, 2) for part in (q, k, v))
        parts = windowed_attention(q_LNF, k_LNF, v_LNF, self.window, terms, prefix=prefix)
        return [part.reshape(part.shape[0], batch, self.heads, self.head_dim) for part in parts]

    def _wants_flex(self, layout: Layout, terms: Terms, length: int) -> bool:
        return length > self.window or super()._wants_flex(layout, terms, length)


def _full_parts(
    q_BLHF: Tensor, k_BLGF: Tensor, v_BLGF: Tensor, terms: Terms, prefix: int, lengths_B: Tensor | None
) -> list[Tensor]:
    q, k, v = (part.transpose(1, 2) for part in (q_BLHF, k_BLGF, v_BLGF))
    return [part.transpose(1, 2) for part in full_attention(q, k, v, terms, prefix=prefix, lengths_B=lengths_B)]


def _rows(layout: Layout, length: int, *, one_by_one: bool) -> int | list[tuple[int, int]]:
    """One prefix for all sequences, or the prefix and the length of each.

    Where every prefix is all of its sequence, one prefix of the whole length and a mask for the
    padding serve too, unless `one_by_one`.
    """
    if isinstance(layout.prefix, int):
        return layout.prefix
    prefixes: list[int] = layout.prefix.tolist()
    if len(set(prefixes)) == 1:
        return prefixes[0]
    lengths = [length] * len(prefixes) if layout.lengths_B is None else layout.lengths_B.tolist()
    if not one_by_one and all(prefix >= real for prefix, real in zip(prefixes, lengths, strict=True)):
        return length
    return list(zip(prefixes, lengths, strict=True))


def _exact(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


class CrossMemory(MixerState):
    """Keys and values of a source that another sequence reads.

    Attributes:
        keys_BGSF: keys.
        values_BGSF: values.
        lengths_B: tokens of each source before the padding; None: all S.
    """

    def __init__(self, keys_BGSF: Tensor, values_BGSF: Tensor, lengths_B: Tensor | None = None) -> None:
        self.keys_BGSF = keys_BGSF
        self.values_BGSF = values_BGSF
        self.lengths_B = lengths_B

    def tensors(self) -> tuple[Tensor, ...]:
        """The keys and the values; the lengths belong to the source."""
        return self.keys_BGSF, self.values_BGSF

    def fill(self, memory: CrossMemory) -> None:
        """Takes in a memory that has room in this one."""
        batch, _, length, _ = memory.keys_BGSF.shape
        for mine, theirs in zip(self.tensors(), memory.tensors(), strict=True):
            mine[:, :, :length] = theirs.detach()
        self.lengths_B = memory.lengths_B
        if self.lengths_B is None and length < self.keys_BGSF.shape[2]:
            self.lengths_B = torch.full((batch,), length, device=self.keys_BGSF.device)

    def select(self, rows_B: Tensor) -> None:
        """Goes on with other sequences of the batch: row b becomes what row rows_B[b] was."""
        super().select(rows_B)
        if self.lengths_B is not None:
            self.lengths_B = self.lengths_B.index_select(0, rows_B)

    def mask(self) -> Tensor | None:
        """What hides the padding, (B, 1, 1, S)."""
        if self.lengths_B is None:
            return None
        beyond_BS = torch.arange(self.keys_BGSF.shape[2], device=self.keys_BGSF.device) >= self.lengths_B[:, None]
        return torch.zeros_like(beyond_BS, dtype=torch.float32).masked_fill_(beyond_BS, HIDDEN)[:, None, None]


class CrossAttention(nn.Module):
    """Attention of one sequence to another (Vaswani et al. 2017), without positions.

    Args:
        width: features of both sequences.
        heads: query heads.
        kv_heads: key/value heads; they divide the former.
        head_dim: features of a head.
    """

    def __init__(self, width: int, heads: int, kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.kv_heads = kv_heads
        self.head_dim = head_dim
        self.q_proj = nn.Linear(width, heads * head_dim, bias=False)
        self.k_proj = nn.Linear(width, kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(width, kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(heads * head_dim, width, bias=False)

    def remember(self, source_BSD: Tensor, lengths_B: Tensor | None = None) -> CrossMemory:
        """Keys and values of a source, whose row b has lengths_B[b] tokens before the padding."""
        keys, values = (
            projection(source_BSD).unflatten(-1, (self.kv_heads, self.head_dim)).transpose(1, 2)
            for projection in (self.k_proj, self.v_proj)
        )
        return CrossMemory(keys, values, lengths_B)

    def new_memory(self, batch: int, context: int, *, dtype: torch.dtype, device: torch.device) -> CrossMemory:
        """An empty memory with room for sources of `context` tokens, to be filled before it is read."""
        shape = (batch, self.kv_heads, context, self.head_dim)
        keys, values = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        return CrossMemory(keys, values)

    def forward(self, x_BLD: Tensor, memory: CrossMemory) -> Tensor:
        """What each token reads from the source, (B, L, D) to (B, L, D)."""
        q_BHLF = self.q_proj(x_BLD).unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)
        keys, values = (part.to(q_BHLF.dtype) for part in memory.tensors())
        y_BHLF = attend(q_BHLF, [Piece(k_BGSF=keys, v_BGSF=values, mask=memory.mask())])
        return self.o_proj(y_BHLF.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def step(self, x_BD: Tensor, memory: CrossMemory) -> Tensor:
        """What one token reads from the source, (B, D) to (B, D)."""
        return self(x_BD[:, None], memory)[:, 0]  # type: ignore[no-any-return]

    def residual_projections(self) -> tuple[nn.Linear, ...]:
        """The output projection."""
        return (self.o_proj,)
