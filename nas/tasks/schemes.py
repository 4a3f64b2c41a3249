"""How a text becomes batches: one scheme for each objective of language modelling.

In: the streams of a corpus. Out: the batch of a training step, held-out batches, metrics and
baselines. Here are those that score single bytes; blanks.py has those that score stretches.

    NextByte       next-byte prediction
    BehindPrefix   the same behind a prefix that is seen in both directions
    Masked         bytes guessed from both sides (Devlin et al. 2019)

Legend: T tokens of a part, B sequences, L positions, W windows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nas.records import Split
from nas.tasks.base import IGNORED, Batch, Inputs, StepShape
from nas.tasks.corruption import mask_tokens
from nas.tasks.metrics import BitsPerByte, Metrics, Perplexity, share_right
from nas.tasks.randomness import Purpose, generator
from nas.tasks.stream import Stream, segments
from nas.tasks.tokenizers import ByteTokenizer
from nas.tasks.windows import Windows, batches, chunks, join, read, scored_windows, surrounded_windows

HELD_OUT_BLOCK = 4_096
"""Tokens of a held-out part that are corrupted at once, whatever the context they are read in."""

HELD_OUT_PURPOSES: Mapping[Split, Purpose] = {"validation": Purpose.VALIDATION, "test": Purpose.TEST}


class Scheme(ABC):
    """A way to train on a text.

    Args:
        streams: the parts of the corpus.
        tokenizer: with the specials that `specials` names.
        options: complete.
    """

    def __init__(self, streams: Mapping[str, Stream], tokenizer: ByteTokenizer, options: Mapping[str, Any]) -> None:
        self.streams, self.tokenizer, self.options = streams, tokenizer, options
        self.train = streams["train"]

    @classmethod
    def specials(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The special tokens that the scheme needs besides `<document>`."""
        return ()

    def text_size(self, length: int) -> int:
        """Most tokens of the training part that one sequence of `length` is made of."""
        return length

    def shape(self, length: int, tokens: int) -> StepShape:
        """The sizes of a batch of `tokens` tokens whose sequences have up to `length`."""
        return StepShape(tokens // length, length)

    @abstractmethod
    def training_batch(self, random: np.random.Generator, length: int, tokens: int) -> Batch:
        """A batch of random sequences, of the sizes that `shape` says."""

    @abstractmethod
    def evaluation_batches(self, split: Split, context: int, tokens_per_batch: int) -> Iterator[Batch]:
        """Held-out batches; the same tokens of the text are scored for every context."""

    def metrics(self) -> Metrics:
        """The three plain metrics, by their plain names."""
        return Metrics(
            {
                "bits_per_byte": BitsPerByte(),
                "perplexity": Perplexity(),
                "token_accuracy": share_right(self.tokenizer.vocabulary),
            }
        )

    @abstractmethod
    def baseline(self, split: Split) -> dict[str, float]:
        """What a trivial guesser scores, for each of `metrics`."""

    def _starts(self, random: np.random.Generator, size: int, count: int) -> NDArray[np.int64]:
        return random.integers(len(self.train.inputs_T) - size + 1, size=count)

    def _segments(self, may_score_T: NDArray[np.bool_], split: Split) -> list[tuple[int, int]]:
        return segments(may_score_T, int(self.options["evaluation_bytes"]), split)


class NextByte(Scheme):
    """Next-byte prediction; `<document>` is read but never a target."""

    def training_batch(self, random: np.random.Generator, length: int, tokens: int) -> Batch:
        """Windows at random places of the training part."""
        start_B = self._starts(random, length, tokens // length)
        windows = Windows(start_B, start_B, start_B + length, start_B + length)
        return read(self.train.inputs_T, self.train.targets_T, windows, length=length)

    def evaluation_batches(self, split: Split, context: int, tokens_per_batch: int) -> Iterator[Batch]:
        """Windows whose second half is scored."""
        stream = self.streams[split]
        windows = self._windows(split, context)
        return batches(stream.inputs_T, stream.targets_T, windows, tokens_per_batch=tokens_per_batch)

    def baseline(self, split: Split) -> dict[str, float]:
        """What knowing each byte's successors in the whole part would score.

        The order-1 entropy H(next byte | byte) of the part, 2 to that power, and the accuracy of
        always guessing each byte's most frequent successor.
        """
        tokens_T = self.streams[split].targets_T
        bytes_T = tokens_T[tokens_T != IGNORED].astype(np.int64)
        kinds = ByteTokenizer.BYTES
        pairs = np.bincount(bytes_T[:-1] * kinds + bytes_T[1:], minlength=kinds**2).reshape(kinds, kinds)
        bits = entropy(pairs.ravel()) - entropy(pairs.sum(axis=1))
        return {
            "bits_per_byte": bits,
            "perplexity": 2.0**bits,
            "token_accuracy": float(pairs.max(axis=1).sum() / pairs.sum()),
        }

    def _windows(self, split: Split, context: int) -> Windows:
        stretches = self._segments(self.streams[split].targets_T != IGNORED, split)
        return join([scored_windows(first, last, context=context) for first, last in stretches])


class BehindPrefix(NextByte):
    """Next-byte prediction behind a prefix whose tokens see each other in both directions.

    What Raffel et al. (2020) call prefix language modelling. In training the prefix is of any length
    from 1 on, all equally likely, and what follows it is scored. On held-out text it is what a causal
    model only reads of the same window: both are scored on the same bytes, given the same bytes
    before them. What follows has the positions of a blank at the end of the prefix (Du et al. 2022),
    as when a prefix language model generates.
    """

    def training_batch(self, random: np.random.Generator, length: int, tokens: int) -> Batch:
        """Windows at random places of the training part, each with a prefix of its own."""
        whole = super().training_batch(random, length, tokens)
        prefix_B = random.integers(1, max(length, 2), size=len(whole.inputs_BL))
        # The last token of the prefix says the first one behind it.
        is_scored_BL = torch.from_numpy(np.arange(length) >= prefix_B[:, None] - 1)
        return _behind(Batch(whole.inputs, whole.targets_BL.masked_fill(~is_scored_BL, IGNORED)), prefix_B)

    def evaluation_batches(self, split: Split, context: int, tokens_per_batch: int) -> Iterator[Batch]:
        """Windows whose second half is scored, the first being the prefix."""
        stream = self.streams[split]
        for windows, length in chunks(self._windows(split, context), tokens_per_batch=tokens_per_batch):
            batch = read(stream.inputs_T, stream.targets_T, windows, length=length, bounded=True)
            yield _behind(batch, windows.scored_W - windows.start_W + 1)


class Masked(Scheme):
    """Some bytes to be guessed from the text on both sides (Devlin et al. 2019).

    A held-out part is corrupted once, the same for every context; the chosen bytes within the
    stretches that are scored are scored in windows that hold text on both sides of them.
    """

    def __init__(self, streams: Mapping[str, Stream], tokenizer: ByteTokenizer, options: Mapping[str, Any]) -> None:
        super().__init__(streams, tokenizer, options)
        self._held_out: dict[Split, _CorruptedPart] = {}

    @classmethod
    def specials(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """`<mask>`."""
        return ("<mask>",)

    def training_batch(self, random: np.random.Generator, length: int, tokens: int) -> Batch:
        """Windows at random places of the training part, masked anew at each step."""
        start_B = self._starts(random, length, tokens // length)
        text_BL = self.train.tokens_T[start_B[:, None] + np.arange(length)].astype(np.int64)
        inputs_BL, targets_BL = self.corrupt(random, text_BL)
        return Batch(Inputs(torch.from_numpy(inputs_BL)), torch.from_numpy(targets_BL))

    def evaluation_batches(self, split: Split, context: int, tokens_per_batch: int) -> Iterator[Batch]:
        """Windows whose middle half is scored."""
        stream = self.streams[split]
        size = len(stream.tokens_T)
        if split not in self._held_out:
            self._held_out[split] = _CorruptedPart(self, stream, HELD_OUT_PURPOSES[split])
        part = self._held_out[split]
        stretches = self._segments(stream.is_byte_T, split)
        windows = join(
            [surrounded_windows(first, last, context=context, size=size) for first, last in stretches],
        )
        for start, end in zip(windows.start_W.tolist(), windows.end_W.tolist(), strict=True):
            part.corrupt_up_to(start, end)
        return batches(part.inputs_T, part.targets_T, windows, tokens_per_batch=tokens_per_batch, bounded=True)

    def metrics(self) -> Metrics:
        """The plain metrics over the chosen bytes."""
        return Metrics(
            {
                "masked_bits_per_byte": BitsPerByte(),
                "masked_perplexity": Perplexity(),
                "masked_token_accuracy": share_right(self.tokenizer.vocabulary),
            }
        )

    def baseline(self, split: Split) -> dict[str, float]:
        """What knowing how frequent each byte of the part is would score."""
        stream = self.streams[split]
        counts = np.bincount(stream.tokens_T[stream.is_byte_T], minlength=ByteTokenizer.BYTES)
        bits = entropy(counts)
        return {
            "masked_bits_per_byte": bits,
            "masked_perplexity": 2.0**bits,
            "masked_token_accuracy": float(counts.max() / counts.sum()),
        }

    def corrupt(
        self, random: np.random.Generator, text_BL: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The corrupted text, and the chosen bytes."""
        return mask_tokens(
            random,
            text_BL,
            text_BL != self.tokenizer.document,
            rate=float(self.options["mask_rate"]),
            mask=self.tokenizer.special("<mask>"),
            kinds=ByteTokenizer.BYTES,
        )


class _CorruptedPart:
    """A held-out part, corrupted block by block as far as it is read."""

    def __init__(self, scheme: Masked, stream: Stream, purpose: Purpose) -> None:
        self.inputs_T = stream.tokens_T.copy()
        self.targets_T = np.full(len(stream.tokens_T), IGNORED, dtype=np.int16)
        self._scheme, self._stream, self._purpose = scheme, stream, purpose
        self._done: set[int] = set()

    def corrupt_up_to(self, start: int, end: int) -> None:
        """Makes sure that start..end−1 is corrupted."""
        for block in range(start // HELD_OUT_BLOCK, (end - 1) // HELD_OUT_BLOCK + 1):
            if block in self._done:
                continue
            here = slice(block * HELD_OUT_BLOCK, (block + 1) * HELD_OUT_BLOCK)
            random = generator(self._purpose, seed=0, step=block)
            found = self._scheme.corrupt(random, self._stream.tokens_T[None, here].astype(np.int64))
            self.inputs_T[here], self.targets_T[here] = found[0][0], found[1][0]
            self._done.add(block)


def _behind(batch: Batch, prefix_B: NDArray[np.int64]) -> Batch:
    """The batch with prefixes of at least one token, and positions to match."""
    place_BL, last_B1 = np.arange(batch.inputs_BL.shape[1]), prefix_B[:, None] - 1
    positions_BL2 = np.stack([np.minimum(place_BL, last_B1), np.maximum(place_BL - last_B1, 0)], axis=2)
    inputs = replace(batch.inputs, prefix_B=torch.from_numpy(prefix_B), positions_BL2=torch.from_numpy(positions_BL2))
    return Batch(inputs, batch.targets_BL)


def entropy(counts: NDArray[np.int64]) -> float:
    """Entropy in bits of the distribution that the counts give."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
