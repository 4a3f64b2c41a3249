"""How a text becomes batches: one scheme for each objective of language modelling.

In: the parts of a corpus. Out: the batch of a training step, held-out batches, metrics and
baselines. Here are those that score single tokens; blanks.py has those that score stretches.

    NextToken      next-token prediction
    BehindPrefix   the same behind a prefix that is seen in both directions
    Masked         tokens guessed from both sides (Devlin et al. 2019)

Legend: T tokens of a part, B sequences, L positions, W windows, N any number of places.
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
from nas.tasks.corpus import Corpus
from nas.tasks.corruption import mask_tokens
from nas.tasks.metrics import BitsPerByte, Metrics, Perplexity, share_right
from nas.tasks.randomness import Purpose, generator
from nas.tasks.sampling import Sampling, Take
from nas.tasks.stream import Stream, Stretch
from nas.tasks.windows import (
    Positions,
    Windows,
    batches_from,
    chunks,
    join,
    read_from,
    scored_windows,
    surrounded_windows,
)

HELD_OUT_BLOCK = 4_096
"""Tokens of a held-out part that are corrupted at once, whatever the context they are read in."""

HELD_OUT_PURPOSES: Mapping[Split, Purpose] = {"validation": Purpose.VALIDATION, "test": Purpose.TEST}


class Scheme(ABC):
    """A way to train on a text.

    Args:
        corpus: its parts, in tokens of a vocabulary that has what `specials` names.
        options: complete.
        shortest: the shortest context that the options allow.
    """

    prefix: str = ""

    def __init__(self, corpus: Corpus, options: Mapping[str, Any], shortest: int) -> None:
        self.corpus, self.options, self.tokenizer = corpus, options, corpus.tokenizer
        self.train = corpus.stream("train")
        self.sampling = Sampling(self.train.bounds_D, self.text_size, shortest)

    @classmethod
    def specials(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The special tokens that the scheme needs besides `<document>`."""
        return ()

    @abstractmethod
    def text_size(self, length: int) -> int:
        """Most tokens of a document that one training sequence of `length` is made of."""

    def shape(self, length: int, tokens: int) -> StepShape:
        """The sizes of a batch of `tokens` tokens whose sequences have up to `length`."""
        return StepShape(tokens // length, length)

    @abstractmethod
    def training_batch(self, random: np.random.Generator, take: Take, tokens: int) -> Batch:
        """A batch of random sequences, of the sizes that `shape` says."""

    @abstractmethod
    def evaluation_batches(self, split: Split, context: int, tokens_per_batch: int) -> Iterator[Batch]:
        """Held-out batches; the same tokens of the text are scored for every context."""

    def metrics(self) -> Metrics:
        """The three metrics, by the scheme's names."""
        return Metrics(
            {
                f"{self.prefix}bits_per_byte": BitsPerByte(self.tokenizer.byte_lengths_V),
                f"{self.prefix}perplexity": Perplexity(),
                f"{self.prefix}token_accuracy": share_right(self.tokenizer.vocabulary),
            }
        )

    @abstractmethod
    def baseline(self, split: Split) -> dict[str, float]:
        """What a trivial guesser scores, for each of `metrics`."""

    def _stretches(self, split: Split) -> list[Stretch]:
        return self.corpus.stream(split).stretches(int(self.options["evaluation_bytes"]), split)


class NextToken(Scheme):
    """Next-token prediction; `<document>` is read but never a target."""

    def text_size(self, length: int) -> int:
        """One more than is read: the last token is only said."""
        return length + 1

    def training_batch(self, random: np.random.Generator, take: Take, tokens: int) -> Batch:
        """Windows at random places of the training part."""
        length, rows = take.length, tokens // take.length
        start_B = self.sampling.starts(random, take, np.full(rows, length + 1))
        inputs_BL, targets_BL = self.train.read(start_B[:, None] + np.arange(length))
        return Batch(Inputs(torch.from_numpy(inputs_BL)), torch.from_numpy(targets_BL))

    def evaluation_batches(self, split: Split, context: int, tokens_per_batch: int) -> Iterator[Batch]:
        """Windows whose second half is scored."""
        windows = self._windows(split, context)
        return batches_from(self.corpus.stream(split).read, windows, tokens_per_batch=tokens_per_batch)

    def baseline(self, split: Split) -> dict[str, float]:
        """What knowing each byte's successors in the whole part would score.

        Bits per byte: the order-1 entropy H(next byte | byte) of the part. Where tokens are bytes,
        perplexity and accuracy are those of the same guesser (2 to that power; always each byte's most
        frequent successor), else of one who knows how frequent each token is.
        """
        counts = self.corpus.counts(split)
        bits = entropy(counts.pairs.ravel()) - entropy(counts.pairs.sum(axis=1))
        if self.tokenizer.kind != "byte":
            return {"bits_per_byte": bits, **frequent_token(counts.tokens_V)}
        right = float(counts.pairs.max(axis=1).sum() / counts.pairs.sum())
        return {"bits_per_byte": bits, "perplexity": 2.0**bits, "token_accuracy": right}

    def _windows(self, split: Split, context: int) -> Windows:
        found = []
        for here in self._stretches(split):
            # A token is said where the one before it is read.
            windows = scored_windows(here.first - 1 - here.low, here.last - 1 - here.low, context=context)
            found.append(windows.move(np.full(len(windows), here.low)))
        return join(found)


class BehindPrefix(NextToken):
    """Next-token prediction behind a prefix whose tokens see each other in both directions.

    What Raffel et al. (2020) call prefix language modelling. In training the prefix is of any length
    from 1 on, all equally likely, and what follows it is scored. On held-out text it is what a causal
    model only reads of the same window: both are scored on the same bytes, given the same bytes
    before them. What follows has the positions of a blank at the end of the prefix (Du et al. 2022),
    as when a prefix language model generates.
    """

    def training_batch(self, random: np.random.Generator, take: Take, tokens: int) -> Batch:
        """Windows at random places of the training part, each with a prefix of its own."""
        whole, length = super().training_batch(random, take, tokens), take.length
        prefix_B = random.integers(1, max(length, 2), size=len(whole.inputs_BL))
        # The last token of the prefix says the first one behind it.
        is_scored_BL = torch.from_numpy(np.arange(length) >= prefix_B[:, None] - 1)
        return _behind(Batch(whole.inputs, whole.targets_BL.masked_fill(~is_scored_BL, IGNORED)), prefix_B)

    def evaluation_batches(self, split: Split, context: int, tokens_per_batch: int) -> Iterator[Batch]:
        """Windows whose second half is scored, the first being the prefix."""
        stream = self.corpus.stream(split)
        for windows, length in chunks(self._windows(split, context), tokens_per_batch=tokens_per_batch):
            batch = read_from(stream.read, windows, length=length, bounded=True)
            yield _behind(batch, windows.scored_W - windows.start_W + 1)


class Masked(Scheme):
    """Some tokens to be guessed from the text on both sides (Devlin et al. 2019).

    A held-out part is corrupted once, the same for every context; the chosen tokens within the
    stretches that are scored are scored in windows that hold text on both sides of them.
    """

    prefix = "masked_"

    def __init__(self, corpus: Corpus, options: Mapping[str, Any], shortest: int) -> None:
        super().__init__(corpus, options, shortest)
        self._held_out: dict[Split, _CorruptedPart] = {}

    @classmethod
    def specials(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """`<mask>`."""
        return ("<mask>",)

    def text_size(self, length: int) -> int:
        """What is read."""
        return length

    def training_batch(self, random: np.random.Generator, take: Take, tokens: int) -> Batch:
        """Windows at random places of the training part, masked anew at each step."""
        start_B = self.sampling.starts(random, take, np.full(tokens // take.length, take.length))
        text_BL = self.train.tokens_T[start_B[:, None] + np.arange(take.length)].astype(np.int64)
        inputs_BL, targets_BL = self.corrupt(random, text_BL)
        return Batch(Inputs(torch.from_numpy(inputs_BL)), torch.from_numpy(targets_BL))

    def evaluation_batches(self, split: Split, context: int, tokens_per_batch: int) -> Iterator[Batch]:
        """Windows whose middle half is scored."""
        if split not in self._held_out:
            self._held_out[split] = _CorruptedPart(self, self.corpus.stream(split), HELD_OUT_PURPOSES[split])
        found = []
        for here in self._stretches(split):
            first, last, size = here.first - here.low, here.last - here.low, here.high - here.low
            windows = surrounded_windows(first, last, context=context, size=size)
            found.append(windows.move(np.full(len(windows), here.low)))
        reader = self._held_out[split].read
        return batches_from(reader, join(found), tokens_per_batch=tokens_per_batch, bounded=True)

    def baseline(self, split: Split) -> dict[str, float]:
        """What knowing how frequent each token of the part is would score."""
        counts_V = self.corpus.counts(split).tokens_V
        bits_per_byte = entropy(counts_V) * float(counts_V.sum() / (counts_V @ self.tokenizer.byte_lengths_V))
        return {
            "masked_bits_per_byte": bits_per_byte,
            **{f"masked_{name}": value for name, value in frequent_token(counts_V).items()},
        }

    def corrupt(
        self, random: np.random.Generator, text_BL: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The corrupted text, and the chosen tokens."""
        return mask_tokens(
            random,
            text_BL,
            text_BL != self.tokenizer.document,
            rate=float(self.options["mask_rate"]),
            mask=self.tokenizer.special("<mask>"),
            # Text tokens stand before the special ones, of which `<document>` is the first.
            kinds=self.tokenizer.document,
        )


class _CorruptedPart:
    """A held-out part, corrupted block by block as far as it is read."""

    def __init__(self, scheme: Masked, stream: Stream, purpose: Purpose) -> None:
        self._scheme, self._stream, self._purpose = scheme, stream, purpose
        self._blocks: dict[int, tuple[Positions, Positions]] = {}

    def read(self, position_N: Positions) -> tuple[Positions, Positions]:
        """What stands at these places, and the chosen tokens (−100 at all others)."""
        block_N, inside_N = np.divmod(position_N, HELD_OUT_BLOCK)
        blocks_K, which_N = np.unique(block_N, return_inverse=True)
        found = [self._block(block) for block in blocks_K.tolist()]
        inputs_KN = np.stack([inputs for inputs, _ in found])
        targets_KN = np.stack([targets for _, targets in found])
        which_N = which_N.reshape(position_N.shape)
        return inputs_KN[which_N, inside_N], targets_KN[which_N, inside_N]

    def _block(self, block: int) -> tuple[Positions, Positions]:
        if block not in self._blocks:
            here_N = self._stream.tokens_T[block * HELD_OUT_BLOCK : (block + 1) * HELD_OUT_BLOCK].astype(np.int64)
            random = generator(self._purpose, seed=0, step=block)
            inputs_1N, targets_1N = self._scheme.corrupt(random, here_N[None])
            room = (0, HELD_OUT_BLOCK - len(here_N))
            self._blocks[block] = np.pad(inputs_1N[0], room), np.pad(targets_1N[0], room, constant_values=IGNORED)
        return self._blocks[block]


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


def frequent_token(counts_V: NDArray[np.int64]) -> dict[str, float]:
    """Perplexity and accuracy of one who knows how frequent each token is."""
    return {
        "perplexity": 2.0 ** entropy(counts_V),
        "token_accuracy": float(counts_V.max() / counts_V.sum()),
    }
