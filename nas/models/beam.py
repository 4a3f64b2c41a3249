"""Beam search: the most likely continuations, as far as a few at a time can be followed.

In: a model and prompts. Out: for each prompt the best continuations and their scores. A score is
the log probability of the continuation, its stop token included, over its length to the power of a
penalty (Wu et al. 2016, in the simple form). With as many beams as there are continuations the
search is exhaustive; with one it is greedy.

Shapes: B batch, K beams, C candidates, N new tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import torch
from torch import Tensor

from nas.errors import InputError
from nas.models.base import Model
from nas.models.prompts import checked_prompt
from nas.models.state import ModelState
from nas.tasks.inputs import Inputs


@dataclass(frozen=True)
class Continuation:
    """One continuation of a prompt.

    Attributes:
        tokens: the new ones, with the stop token where one was met.
        score: log probability in nats, over length ** length_penalty.
    """

    tokens: tuple[int, ...]
    score: float


def beam_search(
    model: Model,
    prompt: Tensor | Inputs,
    *,
    max_new_tokens: int,
    beams: int = 4,
    length_penalty: float = 1.0,
    stop_early: bool = False,
    stop_tokens: Set[int] = frozenset(),
    attention_mask_BL: Tensor | None = None,
    pad_token: int | None = None,
    cache_dtype: torch.dtype | None = None,
) -> list[list[Continuation]]:
    """The best continuations of each prompt, best first, at most `beams` of them.

    The search for a prompt ends when `beams` continuations have ended and the best open one could
    not beat the worst of them at its present length; what is open at `max_new_tokens` counts as ended.

    Args:
        model: of any family that generates.
        prompt: as of `nas.models.generate.generate`.
        max_new_tokens: at most so many; less where max_context is full before.
        beams: continuations that are followed at once.
        length_penalty: above 0 favours long ones, below 0 short ones; 0: log probability alone.
        stop_early: end as soon as `beams` continuations have ended.
        stop_tokens: what ends a continuation.
        attention_mask_BL: true at tokens of the prompt, false at its padding.
        pad_token: what the prompt is padded with, instead of a mask.
        cache_dtype: of the state's cache; that of the weights by default.

    Raises:
        InputError: an argument breaks its rule.
    """
    inputs, longest = checked_prompt(model, prompt, attention_mask_BL, pad_token)
    if max_new_tokens < 1 or beams < 1:
        raise InputError(f"max_new_tokens and beams must be at least 1, not {max_new_tokens} and {beams}")
    count = min(max_new_tokens, model.max_context - longest)
    search = _Search(inputs.tokens_BL, count, beams, length_penalty, stop_early or beams == 1, stop_tokens)
    with torch.inference_mode():
        logits_BKV, state = _begin(model, inputs, longest + count, beams, cache_dtype or model.dtype)
        while not search.take(logits_BKV):
            state.select(search.rows, sources=False)
            logits_BKV = model.step(search.newest, state).view(len(inputs.tokens_BL), beams, -1)
        return search.found()


def _begin(
    model: Model, inputs: Inputs, context: int, beams: int, cache_dtype: torch.dtype
) -> tuple[Tensor, ModelState]:
    """Reads each prompt once; logits (B, K, V) and a state of B·K sequences."""
    batch = inputs.tokens_BL.shape[0]
    source_context = None if inputs.source_BS is None else inputs.source_BS.shape[1]
    state = model.new_state(batch, context, source_context=source_context, cache_dtype=cache_dtype)
    logits_BV = model.prefill(inputs, state)
    wide = model.new_state(batch * beams, context, source_context=source_context, cache_dtype=cache_dtype)
    wide.take_over(state, torch.arange(batch, device=logits_BV.device).repeat_interleave(beams))
    return logits_BV[:, None].expand(-1, beams, -1), wide


class _Search:
    """The open and the ended continuations of each prompt, and what to do with new logits."""

    def __init__(
        self, prompt_BL: Tensor, count: int, beams: int, penalty: float, stop_early: bool, stop_tokens: Set[int]
    ) -> None:
        batch, device = prompt_BL.shape[0], prompt_BL.device
        self._count, self._beams, self._penalty, self._stop_early = count, beams, penalty, stop_early
        self._stops = torch.tensor(sorted(stop_tokens), dtype=torch.int64, device=device)
        # Only one beam is open at first: all are the same prompt.
        self._scores_BK = torch.full((batch, beams), -torch.inf, dtype=torch.float64, device=device)
        self._scores_BK[:, 0] = 0.0
        self._tokens_BKN = torch.empty(batch, beams, 0, dtype=torch.int64, device=device)
        self._ended_scores_BK = torch.full_like(self._scores_BK, -torch.inf)
        self._ended_tokens_BKN = self._tokens_BKN
        self._ended_lengths_BK = torch.zeros(batch, beams, dtype=torch.int64, device=device)
        self._going_B = torch.ones(batch, dtype=torch.bool, device=device)
        self._first_row_B1 = torch.arange(batch, device=device)[:, None] * beams
        self.rows = self._first_row_B1.expand(batch, beams).flatten()

    @property
    def newest(self) -> Tensor:
        """The last token of each open continuation, (B·K,)."""
        return self._tokens_BKN[..., -1].flatten()

    def take(self, logits_BKV: Tensor) -> bool:
        """Goes one token further; returns whether the search is over.

        Afterwards `rows` says which sequence of the state each open continuation goes on from.
        """
        vocabulary = logits_BKV.shape[-1]
        scores_BKV = self._scores_BK[..., None] + logits_BKV.double().log_softmax(-1)
        # Were all of the best to end, as many again must be left to go on.
        candidates = min((1 + max(1, len(self._stops))) * self._beams, self._beams * vocabulary)
        scores_BC, chosen_BC = scores_BKV.flatten(1).topk(candidates)
        beam_BC = chosen_BC // vocabulary
        tokens_BCN = self._tokens_BKN.take_along_dim(beam_BC[..., None], 1)
        tokens_BCN = torch.cat([tokens_BCN, (chosen_BC % vocabulary)[..., None]], 2)
        length = tokens_BCN.shape[2]
        ends_BC = torch.isin(tokens_BCN[..., -1], self._stops)
        self._keep_ended(scores_BC, tokens_BCN, ends_BC if length < self._count else torch.ones_like(ends_BC))
        self._scores_BK, order_BK = scores_BC.masked_fill(ends_BC, -torch.inf).topk(self._beams)
        self._tokens_BKN = tokens_BCN.take_along_dim(order_BK[..., None], 1)
        self.rows = (self._first_row_B1 + beam_BC.gather(1, order_BK)).flatten()
        self._going_B = self._going_B & self._may_improve(length)
        return length == self._count or not bool(self._going_B.any())

    def found(self) -> list[list[Continuation]]:
        """The best of what has ended, best first."""
        scores, lengths = self._ended_scores_BK.tolist(), self._ended_lengths_BK.tolist()
        tokens = self._ended_tokens_BKN.tolist()
        return [
            [
                Continuation(tuple(row[:length]), score)
                for row, length, score in zip(*beams, strict=True)
                if score > -torch.inf
            ]
            for beams in zip(tokens, lengths, scores, strict=True)
        ]

    def _keep_ended(self, scores_BC: Tensor, tokens_BCN: Tensor, ends_BC: Tensor) -> None:
        length = tokens_BCN.shape[2]
        # Only what is among the best `beams` may end; a prompt whose search is over takes no more.
        is_best_C = torch.arange(scores_BC.shape[1], device=scores_BC.device) < self._beams
        taken_BC = ends_BC & is_best_C & self._going_B[:, None]
        new_BC = (scores_BC / length**self._penalty).masked_fill(~taken_BC, -torch.inf)
        self._ended_scores_BK, order_BK = torch.cat([self._ended_scores_BK, new_BC], 1).topk(self._beams)
        padded = torch.nn.functional.pad(self._ended_tokens_BKN, (0, 1))
        self._ended_tokens_BKN = torch.cat([padded, tokens_BCN], 1).take_along_dim(order_BK[..., None], 1)
        lengths = torch.cat([self._ended_lengths_BK, torch.full_like(ends_BC, length, dtype=torch.int64)], 1)
        self._ended_lengths_BK = lengths.gather(1, order_BK)

    def _may_improve(self, length: int) -> Tensor:
        """Whether a prompt's search goes on, bool (B,)."""
        worst_B, best_open_B = self._ended_scores_BK[:, -1], self._scores_BK[:, 0]
        if self._stop_early:
            return worst_B.isneginf()
        factor: float = length**self._penalty
        return best_open_B / factor > worst_B
