"""The schemes that score stretches of a text: blank infilling and span corruption.

In: the parts of a corpus. Out: training and held-out batches (see schemes.py).

    Infilling         blanks filled in behind the text, and texts continued (Du et al. 2022)
    SpanCorruption    dropped spans, said by a decoder (Raffel et al. 2020)

The spans of a held-out part are drawn once, block by block, the same for every context. Those that
begin in the stretches to be scored are each scored once. A window scores a few that stand near each
other, so that at least half of it is text around them; the other spans in it are corrupted as in
training. What is scored of a span is its tokens and the mark that ends it; bits are counted per byte.
A span that would hold the end of a document is not drawn.

Legend: T tokens of a part, B sequences, N tokens of a text, K spans, W windows.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nas.errors import DataError
from nas.records import Split
from nas.specs.tasks import LONGEST_SPAN, shortest_context
from nas.tasks.base import IGNORED, Batch, Inputs, StepShape
from nas.tasks.corpus import Corpus
from nas.tasks.corruption import BlankTokens, SpanTokens, infill, span_corrupt
from nas.tasks.randomness import generator
from nas.tasks.sampling import Take
from nas.tasks.schemes import HELD_OUT_BLOCK, HELD_OUT_PURPOSES, Scheme, entropy
from nas.tasks.spans import Ints, Spans, corrupted_sizes, noise_spans, poisson_spans, tail_spans
from nas.tasks.stream import Stream, Stretch

# A block that is shorter than this, at the end of a part, is left whole.
SHORTEST_BLOCK = 16
BASELINE_CONTEXT = 1_024


@dataclass(frozen=True)
class _Window:
    """A stretch of a part, the spans within it, and which of them are scored (as places in a row of spans)."""

    start: int
    end: int
    spans: range
    scored: range


class Blanks(Scheme):
    """What both schemes share.

    Attributes:
        prefix: of the names of the metrics.
        marks: tokens that a scored span adds to a sequence that holds text and spans alike.
    """

    marks: int

    def __init__(self, corpus: Corpus, options: Mapping[str, Any], shortest: int) -> None:
        self.rate, self.mean = float(options["mask_rate"]), float(options["mean_span"])
        super().__init__(corpus, options, shortest)
        self._blocks: dict[tuple[Split, int], tuple[Ints, Ints]] = {}

    @abstractmethod
    def _draw(self, random: np.random.Generator, size: int) -> Spans:
        """The spans of a held-out text of `size` tokens."""

    @abstractmethod
    def _batch(self, text_BN: Ints, size_B: Ints, spans: Spans) -> Batch:
        """The batch of held-out texts."""

    @abstractmethod
    def _tokens(self, window: _Window, length_K: Ints) -> tuple[int, int]:
        """Tokens of a window's sequence and of its source, if it has one."""

    def evaluation_batches(self, split: Split, context: int, tokens_per_batch: int) -> Iterator[Batch]:
        """Every span that begins in the scored stretches once.

        Raises:
            DataError: the context is too short for the longest span, or no span begins there.
        """
        shortest = shortest_context(self.options)
        if context < shortest:
            raise DataError(
                f"spans of {self.mean:g} tokens on average are scored in a context of at least {shortest} tokens, "
                f"not {context}"
            )
        stream = self.corpus.stream(split)
        start_K, length_K, windows = self._windows(split, stream, context)
        if not windows:
            raise DataError(
                f"no span begins in the {self.options['evaluation_bytes']} bytes that are scored: raise "
                f"evaluation_bytes or mask_rate, or lower mean_span"
            )
        sizes = [self._tokens(window, length_K) for window in windows]
        rows = max(1, tokens_per_batch // (max(size[0] for size in sizes) + max(size[1] for size in sizes)))
        for at in range(0, len(windows), rows):
            yield self._read(stream, windows[at : at + rows], start_K, length_K)

    def baseline(self, split: Split) -> dict[str, float]:
        """What knowing how frequent each scored token is, and the mark that ends a span, would score."""
        mark = self.tokenizer.document
        counts = np.zeros(mark + 1, dtype=np.int64)
        context = max(BASELINE_CONTEXT, shortest_context(self.options))
        for batch in self.evaluation_batches(split, context, 16 * context):
            targets_N = batch.targets_BL[batch.targets_BL != IGNORED].numpy()
            # All marks are one: which sentinel comes next is known.
            counts += np.bincount(np.minimum(targets_N, mark), minlength=len(counts))
        bits = entropy(counts)
        text_bytes = counts[:mark] @ self.tokenizer.byte_lengths_V[:mark]
        return {
            f"{self.prefix}bits_per_byte": bits * float(counts.sum() / text_bytes),
            f"{self.prefix}perplexity": 2.0**bits,
            f"{self.prefix}token_accuracy": float(counts.max() / counts.sum()),
        }

    def _texts(self, random: np.random.Generator, take: Take, size_B: Ints) -> Ints:
        """Stretches at random places of the training part, filled up with whatever follows."""
        tokens_T = self.train.tokens_T
        start_B = self.sampling.starts(random, take, size_B)
        place_BN = np.minimum(start_B[:, None] + np.arange(int(size_B.max())), len(tokens_T) - 1)
        text_BN: Ints = tokens_T[place_BN].astype(np.int64)
        return text_BN

    def _windows(self, split: Split, stream: Stream, context: int) -> tuple[Ints, Ints, list[_Window]]:
        starts: list[Ints] = []
        lengths: list[Ints] = []
        windows: list[_Window] = []
        base = 0
        for here in stream.stretches(int(self.options["evaluation_bytes"]), split):
            first, last = max(here.first - context, here.low), min(here.last + 2 * context, here.high)
            start_K, length_K = self._spans(split, stream, first, last)
            is_here_K = (start_K >= here.low) & (start_K + length_K <= here.high)
            start_K, length_K = start_K[is_here_K], length_K[is_here_K]
            windows += self._segment(here, start_K, length_K, base, context)
            starts.append(start_K)
            lengths.append(length_K)
            base += len(start_K)
        return np.concatenate(starts), np.concatenate(lengths), windows

    def _segment(self, here: Stretch, start_K: Ints, length_K: Ints, base: int, context: int) -> Iterator[_Window]:
        """The windows of one stretch; their spans are numbered from `base` on."""
        starts, ends = start_K.tolist(), (start_K + length_K).tolist()
        at, stop = (int(np.searchsorted(start_K, place)) for place in (here.first, here.last))
        while at < stop:
            until = at + 1
            while until < stop and ends[until] - starts[at] + 2 * (until + 1 - at) <= context // 2:
                until += 1
            room = min(context - self.marks * (until - at), here.high - here.low)
            start = starts[at] - (room - (ends[until - 1] - starts[at])) // 2
            start = min(max(start, here.low), here.high - room)
            inside = range(int(np.searchsorted(ends, start, "right")), int(np.searchsorted(starts, start + room)))
            # No window cuts a span in two.
            begin = max(start, ends[inside[0]]) if inside and starts[inside[0]] < start else start
            end = starts[inside[-1]] if inside and ends[inside[-1]] > start + room else start + room
            spans = range(inside[0] + (begin > start), inside[-1] + 1 - (end < start + room))
            while 1 + sum(ends[k] - starts[k] + 1 for k in range(spans[0], until)) > context and spans[0] < at:
                begin, spans = ends[spans[0]], spans[1:]
            yield _Window(begin, end, _moved(spans, base), _moved(range(at, until), base))
            at = until

    def _spans(self, split: Split, stream: Stream, first: int, last: int) -> tuple[Ints, Ints]:
        """Start and length of the held-out spans of all blocks that hold tokens of first..last−1."""
        size = len(stream.tokens_T)
        found = []
        for block in range(max(first, 0) // HELD_OUT_BLOCK, (min(last, size) - 1) // HELD_OUT_BLOCK + 1):
            if (split, block) not in self._blocks:
                start = block * HELD_OUT_BLOCK
                self._blocks[split, block] = self._drawn(split, stream, block, min(HELD_OUT_BLOCK, size - start))
            found.append(self._blocks[split, block])
        return np.concatenate([start_K for start_K, _ in found]), np.concatenate([length_K for _, length_K in found])

    def _drawn(self, split: Split, stream: Stream, block: int, size: int) -> tuple[Ints, Ints]:
        if size < SHORTEST_BLOCK:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        spans = self._draw(generator(HELD_OUT_PURPOSES[split], seed=0, step=block), size)
        start_K = block * HELD_OUT_BLOCK + spans.start_K
        length_K = np.minimum(spans.length_K, math.ceil(LONGEST_SPAN * self.mean))
        # Marks of documents up to each place: a span that holds none begins and ends in one document.
        here_N = stream.tokens_T[block * HELD_OUT_BLOCK : block * HELD_OUT_BLOCK + size]
        marks_N = np.concatenate([[0], np.cumsum(here_N == stream.document)])
        is_whole_K = marks_N[spans.start_K] == marks_N[spans.start_K + length_K]
        return start_K[is_whole_K], length_K[is_whole_K]

    def _read(self, stream: Stream, windows: list[_Window], start_K: Ints, length_K: Ints) -> Batch:
        start_B = np.array([window.start for window in windows])
        size_B = np.array([window.end for window in windows]) - start_B
        place_BN = np.minimum(start_B[:, None] + np.arange(int(size_B.max())), len(stream.tokens_T) - 1)
        index_K = np.concatenate([np.arange(window.spans.start, window.spans.stop) for window in windows])
        row_K = np.repeat(np.arange(len(windows)), [len(window.spans) for window in windows])
        scored_BK = np.array([(window.scored.start, window.scored.stop) for window in windows])[row_K]
        is_scored_K = (index_K >= scored_BK[:, 0]) & (index_K < scored_BK[:, 1])
        spans = Spans(row_K, start_K[index_K] - start_B[row_K], length_K[index_K], is_scored_K)
        return self._batch(stream.tokens_T[place_BN].astype(np.int64), size_B, spans)


class Infilling(Blanks):
    """Blank infilling, and continuing a text (Du et al. 2022).

    The given share of examples has one blank over the second half of the text, or more of it: such
    a blank was cut off where the sequence ends, so its end is not said. Only short blanks are
    scored on held-out text.
    """

    prefix = "infilling_"
    marks = 2

    @classmethod
    def specials(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """`<mask>`, `<start>` and `<end>`."""
        return ("<mask>", "<start>", "<end>")

    def text_size(self, length: int) -> int:
        """Two less than the sequence: each blank has a mask or a start more than it has tokens."""
        return max(length - 2, 1)

    def training_batch(self, random: np.random.Generator, take: Take, tokens: int) -> Batch:
        """Texts whose sequences have `length` tokens each, none of them padding."""
        length, rows = take.length, tokens // take.length
        short, size_B = poisson_spans(random, rows=rows, length=length, rate=self.rate, mean=self.mean)
        is_open_B = random.random(rows) < float(self.options["generation_share"])
        size_B = np.where(is_open_B, length - 2, size_B)
        long = tail_spans(random, rows=rows, size=length - 2)
        spans = _chosen(short, long, is_open_B)
        text_BN = self._texts(random, take, size_B)
        return self._made(text_BN, size_B, spans, random, is_open_B)

    def _draw(self, random: np.random.Generator, size: int) -> Spans:
        return poisson_spans(random, rows=1, length=size, rate=self.rate, mean=self.mean, added=0)[0]

    def _tokens(self, window: _Window, length_K: Ints) -> tuple[int, int]:
        all_K, scored_K = (length_K[slice(part.start, part.stop)] for part in (window.spans, window.scored))
        return window.end - window.start - int((all_K - 1).sum()) + int((scored_K + 1).sum()), 0

    def _batch(self, text_BN: Ints, size_B: Ints, spans: Spans) -> Batch:
        return self._made(text_BN, size_B, spans)

    def _made(
        self,
        text_BN: Ints,
        size_B: Ints,
        spans: Spans,
        random: np.random.Generator | None = None,
        is_open_B: NDArray[np.bool_] | None = None,
    ) -> Batch:
        mask, start, end = (self.tokenizer.special(name) for name in self.specials(self.options))
        special = BlankTokens(mask=mask, start=start, end=end, unsaid=self.tokenizer.document)
        made = infill(text_BN, size_B, spans, special, random=random, open_B=is_open_B)
        inputs = Inputs(
            torch.from_numpy(made.tokens_BL),
            lengths_B=_lengths(made.lengths_B, made.tokens_BL.shape[1]),
            prefix_B=torch.from_numpy(made.prefix_B),
            positions_BL2=torch.from_numpy(made.positions_BL2),
        )
        return Batch(inputs, torch.from_numpy(made.targets_BL))


class SpanCorruption(Blanks):
    """Span corruption (Raffel et al. 2020); a step's tokens are those of sources and targets together."""

    prefix = "span_"
    marks = 0

    @classmethod
    def specials(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """`<start>` and the sentinels."""
        return ("<start>", *(f"<sentinel_{number}>" for number in range(int(options["sentinels"]))))

    def text_size(self, length: int) -> int:
        """More than the source has: spans are dropped from it."""
        return corrupted_sizes(length, self.rate, self.mean)[0]

    def shape(self, length: int, tokens: int) -> StepShape:
        """Source and target of the longest text whose source has up to `length` tokens."""
        _, source, target = corrupted_sizes(length, self.rate, self.mean)
        return StepShape(tokens // (source + target), target, source)

    def training_batch(self, random: np.random.Generator, take: Take, tokens: int) -> Batch:
        """Texts of one size: their sources, and their targets, have equally many tokens."""
        size = self.text_size(take.length)
        rows = self.shape(take.length, tokens).sequences
        spans = noise_spans(random, rows=rows, size=size, rate=self.rate, mean=self.mean)
        size_B = np.full(rows, size)
        return self._made(self._texts(random, take, size_B), size_B, spans, says_first=True)

    def _draw(self, random: np.random.Generator, size: int) -> Spans:
        return noise_spans(random, rows=1, size=size, rate=self.rate, mean=self.mean)

    def _tokens(self, window: _Window, length_K: Ints) -> tuple[int, int]:
        all_K = length_K[window.spans.start : window.spans.stop]
        said_K = length_K[window.spans.start : window.scored.stop]
        return 1 + int((said_K + 1).sum()), window.end - window.start - int((all_K - 1).sum())

    def _batch(self, text_BN: Ints, size_B: Ints, spans: Spans) -> Batch:
        return self._made(text_BN, size_B, spans, says_first=False)

    def _made(self, text_BN: Ints, size_B: Ints, spans: Spans, *, says_first: bool) -> Batch:
        special = SpanTokens(
            start=self.tokenizer.special("<start>"),
            sentinel=self.tokenizer.special("<sentinel_0>"),
            sentinels=int(self.options["sentinels"]),
            unsaid=self.tokenizer.document,
        )
        made = span_corrupt(text_BN, size_B, spans, special, says_first=says_first)
        inputs = Inputs(
            torch.from_numpy(made.tokens_BL),
            lengths_B=_lengths(made.lengths_B, made.tokens_BL.shape[1]),
            source_BS=torch.from_numpy(made.source_BS),
            source_lengths_B=_lengths(made.source_lengths_B, made.source_BS.shape[1]),
        )
        return Batch(inputs, torch.from_numpy(made.targets_BL))


def _chosen(short: Spans, long: Spans, is_long_B: NDArray[np.bool_]) -> Spans:
    """For each row either its spans of `short` or those of `long`."""
    kept, others = short.take(~is_long_B[short.row_K]), long.take(is_long_B[long.row_K])
    both = Spans.of(
        np.concatenate([kept.row_K, others.row_K]),
        np.concatenate([kept.start_K, others.start_K]),
        np.concatenate([kept.length_K, others.length_K]),
    )
    return both.take(np.argsort(both.row_K, kind="stable"))


def _lengths(lengths_B: Ints, length: int) -> torch.Tensor | None:
    """None where there is no padding."""
    return None if bool((lengths_B == length).all()) else torch.from_numpy(lengths_B)


def _moved(places: range, by: int) -> range:
    return range(places.start + by, places.stop + by)
