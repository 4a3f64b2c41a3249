"""Corrupting texts, for models that learn by mending them.

In: texts as arrays of tokens, and which of their stretches go (see spans.py). Out: what a model
reads and what it is to say.

    mask_tokens     single tokens to be guessed, as BERT (Devlin et al. 2019)
    infill          blanks that are filled in behind the text, as GLM (Du et al. 2022)
    span_corrupt    source and target of an encoder–decoder, as T5 (Raffel et al. 2020)

All rows of a batch are made at once: no function loops over rows or tokens.

Legend: B rows, N tokens of a text, L tokens of a sequence, S of a source, K spans of all rows,
R marks and tokens of all spans.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas.tasks.metrics import IGNORED
from nas.tasks.spans import Bools, Ints, Spans

MASKED_SHARE = 0.8
RANDOM_SHARE = 0.1


def mask_tokens(
    random: np.random.Generator, text_BL: Ints, maskable_BL: Bools, *, rate: float, mask: int, kinds: int
) -> tuple[Ints, Ints]:
    """Some tokens to be guessed (Devlin et al. 2019).

    Of each row the given share is chosen, at least one token; of these 80 % become the mask, 10 %
    a random token and 10 % stay, so that a model cannot trust what it reads.

    Args:
        random: draws which.
        text_BL: tokens.
        maskable_BL: those that may be chosen.
        rate: share of the maskable ones to choose.
        mask: the token that stands for a masked one.
        kinds: random tokens are below this.

    Returns:
        the corrupted text, and the chosen tokens, −100 elsewhere; each (B, L).
    """
    maskable_B = maskable_BL.sum(axis=1)
    chosen_B = np.minimum(np.maximum(np.rint(rate * maskable_B), 1), maskable_B)
    order_BL = np.argsort(np.where(maskable_BL, random.random(text_BL.shape), 2.0), axis=1)
    chosen_BL = np.zeros(text_BL.shape, dtype=np.bool_)
    np.put_along_axis(chosen_BL, order_BL, np.arange(text_BL.shape[1]) < chosen_B[:, None], axis=1)
    fate_BL, other_BL = random.random(text_BL.shape), random.integers(kinds, size=text_BL.shape)
    seen_BL = np.where(fate_BL < MASKED_SHARE, mask, np.where(fate_BL < MASKED_SHARE + RANDOM_SHARE, other_BL, text_BL))
    return np.where(chosen_BL, seen_BL, text_BL), np.where(chosen_BL, text_BL, IGNORED)


@dataclass(frozen=True)
class Infilled:
    """Texts with blanks, and behind each the blanks filled in (Du et al. 2022).

    Attributes:
        tokens_BL: part A, the text with a mask for each blank; part B, the blanks, each behind a
            start; zeros.
        targets_BL: in part B the token that follows, or the end; −100 elsewhere.
        positions_BL2: in part A the place and 0; in part B the place of the blank's mask in part A,
            and the place in the blank, from 1 on.
        prefix_B: tokens of part A.
        lengths_B: tokens of both parts.
    """

    tokens_BL: Ints
    targets_BL: Ints
    positions_BL2: Ints
    prefix_B: Ints
    lengths_B: Ints


@dataclass(frozen=True)
class BlankTokens:
    """The special tokens of `infill`, and the one of the text that is never to be said."""

    mask: int
    start: int
    end: int
    unsaid: int


def infill(
    text_BN: Ints,
    size_B: Ints,
    spans: Spans,
    special: BlankTokens,
    *,
    random: np.random.Generator | None = None,
    open_B: Bools | None = None,
) -> Infilled:
    """The sequences of blank infilling (Du et al. 2022).

    Every span becomes a mask; the scored ones are filled in.

    Args:
        text_BN: tokens.
        size_B: tokens of each text.
        spans: the blanks.
        special: tokens with a meaning.
        random: draws the order in which the blanks of a text are filled in; None: as they stand.
        open_B: rows whose blanks were cut off and have no end to be said; None: no row.
    """
    rows, said = len(text_BN), spans.take(spans.scored_K)
    kept_BN, place_BN = _kept(text_BN.shape, size_B, spans)
    prefix_B = kept_BN.sum(axis=1)
    lengths_B = prefix_B + np.bincount(said.row_K, weights=said.length_K + 1, minlength=rows).astype(np.int64)
    length = int(lengths_B.max())
    tokens_BL, targets_BL = np.zeros((rows, length), np.int64), np.full((rows, length), IGNORED)
    positions_BL2 = np.zeros((rows, length, 2), np.int64)
    row_R = np.nonzero(kept_BN)[0]
    tokens_BL[row_R, place_BN[kept_BN]] = text_BN[kept_BN]
    tokens_BL[spans.row_K, place_BN[spans.row_K, spans.start_K]] = special.mask
    positions_BL2[row_R, place_BN[kept_BN], 0] = place_BN[kept_BN]

    order_K = np.arange(len(said.row_K)) if random is None else np.lexsort((random.random(len(said.row_K)), said.row_K))
    said = said.take(order_K)
    row_R, at_R, inside_R, span_R = _laid_out(said, rows)
    place_R, token_R = prefix_B[row_R] + at_R, said.start_K[span_R] + inside_R
    is_last_R = inside_R == said.length_K[span_R]
    last = text_BN.shape[1] - 1
    next_R = np.where(is_last_R, special.end, text_BN[row_R, np.minimum(token_R, last)])
    before_R = text_BN[row_R, np.maximum(token_R - 1, 0)]
    unsaid_R = (~is_last_R & (next_R == special.unsaid)) | (is_last_R & (False if open_B is None else open_B[row_R]))
    tokens_BL[row_R, place_R] = np.where(inside_R == 0, special.start, before_R)
    targets_BL[row_R, place_R] = np.where(unsaid_R, IGNORED, next_R)
    positions_BL2[row_R, place_R, 0] = place_BN[row_R, said.start_K[span_R]]
    positions_BL2[row_R, place_R, 1] = inside_R + 1
    return Infilled(tokens_BL, targets_BL, positions_BL2, prefix_B, lengths_B)


@dataclass(frozen=True)
class Corrupted:
    """Texts with dropped spans, and the spans (Raffel et al. 2020).

    Attributes:
        source_BS: the text with a sentinel for each span; zeros.
        source_lengths_B: tokens of each.
        tokens_BL: what the decoder reads: a start, then each span behind its sentinel; zeros.
        targets_BL: the token that follows, after the last span the next sentinel; −100 elsewhere.
        lengths_B: tokens that the decoder reads.
    """

    source_BS: Ints
    source_lengths_B: Ints
    tokens_BL: Ints
    targets_BL: Ints
    lengths_B: Ints


@dataclass(frozen=True)
class SpanTokens:
    """The special tokens of `span_corrupt`: `sentinels` of them from `sentinel` on, used in turn.

    `unsaid` is a token of the text that is never to be said.
    """

    start: int
    sentinel: int
    sentinels: int
    unsaid: int


def span_corrupt(
    text_BN: Ints,
    size_B: Ints,
    spans: Spans,
    special: SpanTokens,
    *,
    says_first: bool = True,
) -> Corrupted:
    """The sources and targets of span corruption (Raffel et al. 2020).

    A target goes up to the last scored span of its text. With a span the sentinel after it is
    scored, which says that the span ends.

    Args:
        text_BN: tokens.
        size_B: tokens of each text.
        spans: those to drop.
        special: tokens with a meaning.
        says_first: whether the first sentinel, always the same, is scored as well.
    """
    rows = len(text_BN)
    kept_BN, place_BN = _kept(text_BN.shape, size_B, spans)
    place_K = np.arange(len(spans.row_K)) - np.searchsorted(spans.row_K, spans.row_K)
    source_lengths_B = kept_BN.sum(axis=1)
    source_BS = np.zeros((rows, int(source_lengths_B.max())), np.int64)
    source_BS[np.nonzero(kept_BN)[0], place_BN[kept_BN]] = text_BN[kept_BN]
    source_BS[spans.row_K, place_BN[spans.row_K, spans.start_K]] = _sentinel(special, place_K)

    said_B = np.zeros(rows, dtype=np.int64)
    np.maximum.at(said_B, spans.row_K, np.where(spans.scored_K, place_K + 1, 0))
    is_said_K = place_K < said_B[spans.row_K]
    said, place_K = spans.take(is_said_K), place_K[is_said_K]
    row_R, at_R, inside_R, span_R = _laid_out(said, rows)
    token_R = text_BN[row_R, said.start_K[span_R] + np.maximum(inside_R - 1, 0)]
    word_R = np.where(inside_R == 0, _sentinel(special, place_K[span_R]), token_R)
    # A sentinel ends the span before it, and is scored with that one.
    before_scored_K = np.concatenate([[False], said.scored_K[:-1]])
    opens_K = np.where(place_K == 0, says_first, before_scored_K)
    is_scored_R = np.where(inside_R == 0, opens_K[span_R], said.scored_K[span_R] & (token_R != special.unsaid))
    lengths_B = 1 + np.bincount(said.row_K, weights=said.length_K + 1, minlength=rows).astype(np.int64)

    length = int(lengths_B.max())
    tokens_BL, targets_BL = np.zeros((rows, length + 1), np.int64), np.full((rows, length), IGNORED)
    tokens_BL[:, 0] = special.start
    tokens_BL[row_R, at_R + 1] = word_R
    targets_BL[row_R, at_R] = np.where(is_scored_R, word_R, IGNORED)
    ended_B = np.flatnonzero(said_B)
    targets_BL[ended_B, lengths_B[ended_B] - 1] = _sentinel(special, said_B[ended_B])
    return Corrupted(source_BS, source_lengths_B, tokens_BL[:, :length], targets_BL, lengths_B)


def _sentinel(special: SpanTokens, place_K: Ints) -> Ints:
    return special.sentinel + place_K % special.sentinels


def _kept(shape: tuple[int, ...], size_B: Ints, spans: Spans) -> tuple[Bools, Ints]:
    """Which tokens stay, or are the first of a span and become its mark; and where they go."""
    edge_BN = np.zeros((shape[0], shape[1] + 1), dtype=np.int64)
    first_BN = np.zeros(shape, dtype=np.bool_)
    np.add.at(edge_BN, (spans.row_K, spans.start_K), 1)
    np.add.at(edge_BN, (spans.row_K, spans.start_K + spans.length_K), -1)
    first_BN[spans.row_K, spans.start_K] = True
    is_inside_BN = np.cumsum(edge_BN, axis=1)[:, :-1] > 0
    kept_BN = (~is_inside_BN | first_BN) & (np.arange(shape[1]) < size_B[:, None])
    return kept_BN, np.cumsum(kept_BN, axis=1) - 1


def _laid_out(spans: Spans, rows: int) -> tuple[Ints, Ints, Ints, Ints]:
    """The spans of each row one after the other, a mark before each.

    Returns:
        for every mark and token: row, place in the row, place behind the mark (0 for it), and span.
    """
    size_K = spans.length_K + 1
    span_R = np.repeat(np.arange(len(size_K)), size_K)
    begin_K = np.cumsum(size_K) - size_K
    before_B = np.cumsum(np.bincount(spans.row_K, weights=size_K, minlength=rows)).astype(np.int64)
    row_begin_B = np.concatenate([[0], before_B[:-1]])
    at_R = np.arange(len(span_R))
    row_R = spans.row_K[span_R]
    return row_R, at_R - row_begin_B[row_R], at_R - begin_K[span_R], span_R
