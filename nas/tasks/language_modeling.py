"""Next-byte prediction on a corpus, scored in bits per byte.

In: a corpus. Out: random training windows of mixed lengths, and held-out windows that score the
same bytes for every context.

Each document is preceded by `<document>`, which is read but never a target: bits per byte counts
bytes alone, and training optimises what is scored.

Legend: T tokens of a part, B sequences, L positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nas.errors import DataError
from nas.records import Split
from nas.specs import tasks as specs
from nas.tasks.base import IGNORED, Batch, Task, hashed
from nas.tasks.lengths import mixed_length
from nas.tasks.metrics import BitsPerByte, Metrics, Perplexity, share_right
from nas.tasks.randomness import Purpose, generator
from nas.tasks.text import corpus_files, read_corpus
from nas.tasks.tokenizers import ByteTokenizer
from nas.tasks.windows import Windows, batches, join, read, scored_windows

# Enough places of a part to speak for it, few enough that long contexts are not read for little.
MOST_SEGMENTS = 16
SHORTEST_SEGMENT = 256
TEST_BYTES_FACTOR = 4


@dataclass(frozen=True)
class Stream:
    """The documents of a part in one row.

    Attributes:
        inputs_T: every token but the last.
        targets_T: the byte that follows each, or −100 where a document ends.
    """

    inputs_T: NDArray[np.int16]
    targets_T: NDArray[np.int16]


class LanguageModeling(Task):
    """Byte-level language modelling."""

    spec: ClassVar[specs.TaskSpec] = specs.LanguageModeling()

    def __init__(self, options: Mapping[str, Any]) -> None:
        corpus = read_corpus(str(options["corpus"]))
        self.tokenizer = ByteTokenizer()
        self.shape = specs.TaskShape(vocabulary=self.tokenizer.vocabulary, head=self.spec.head)
        self._evaluation_bytes = int(options["evaluation_bytes"])
        facts = {"evaluation_bytes": self._evaluation_bytes, "tokenizer": self.tokenizer.to_json()}
        self.data_version = hashed(facts, corpus.digest)
        self._streams = {
            part: _join_documents(documents, self.tokenizer.document) for part, documents in corpus.parts.items()
        }

    @classmethod
    def source_stamp(cls, options: Mapping[str, Any]) -> tuple[object, ...]:
        """Names, sizes and times of the corpus's files."""
        stats = [(str(file), file.stat()) for file in corpus_files(str(options["corpus"]))]
        return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)

    def longest_sequence(self, max_context: int) -> int:
        """max_context; the training part must be longer than that.

        Raises:
            DataError: it is not.
        """
        longest = len(self._streams["train"].inputs_T)
        if max_context > longest:
            raise DataError(
                f"a training sequence must fit in the training part: max_context {max_context} is above "
                f"{longest}, the nearest valid one"
            )
        return max_context

    def step_length(self, *, seed: int, step: int, max_context: int) -> int:
        """max_context or one of its halves (see `nas.tasks.lengths`)."""
        return mixed_length(seed=seed, step=step, max_context=max_context)

    def training_batch(self, *, seed: int, step: int, tokens: int, max_context: int) -> Batch:
        """Windows at random places of the training part."""
        self.check(tokens=tokens, max_context=max_context)
        length = self.step_length(seed=seed, step=step, max_context=max_context)
        stream = self._streams["train"]
        places = len(stream.inputs_T) - length + 1
        random = generator(Purpose.TRAINING, seed=seed, step=step)
        start_B = random.integers(places, size=tokens // length)
        windows = Windows(start_B, start_B, start_B + length)
        return read(stream.inputs_T, stream.targets_T, windows, length=length)

    def evaluation_batches(self, split: Split, *, context: int, tokens_per_batch: int) -> Iterator[Batch]:
        """`evaluation_bytes` bytes (four times as many for the test part) from all over the part."""
        stream = self._streams[split]
        segments = _segments(stream, self._evaluation_bytes * (TEST_BYTES_FACTOR if split == "test" else 1))
        windows = join([scored_windows(first, last, context=context) for first, last in segments])
        return batches(stream.inputs_T, stream.targets_T, windows, tokens_per_batch=tokens_per_batch)

    def metrics(self) -> Metrics:
        """bits_per_byte, perplexity (of a byte) and token_accuracy."""
        return Metrics(
            {
                "bits_per_byte": BitsPerByte(),
                "perplexity": Perplexity(),
                "token_accuracy": share_right(self.shape.vocabulary),
            }
        )

    def baseline(self, split: Split) -> dict[str, float]:
        """What knowing each byte's successors in the whole part would score.

        The order-1 entropy H(next byte | byte) of the part, 2 to that power, and the accuracy of
        always guessing each byte's most frequent successor.
        """
        tokens_T = self._streams[split].targets_T
        bytes_T = tokens_T[tokens_T != IGNORED].astype(np.int64)
        kinds = ByteTokenizer.BYTES
        pairs = np.bincount(bytes_T[:-1] * kinds + bytes_T[1:], minlength=kinds**2).reshape(kinds, kinds)
        entropy = _entropy(pairs.ravel()) - _entropy(pairs.sum(axis=1))
        return {
            "bits_per_byte": entropy,
            "perplexity": 2.0**entropy,
            "token_accuracy": float(pairs.max(axis=1).sum() / pairs.sum()),
        }


def _join_documents(documents: tuple[bytes, ...], special: int) -> Stream:
    tokens_T = np.empty(sum(map(len, documents)) + len(documents), dtype=np.int16)
    at = 0
    for document in documents:
        tokens_T[at] = special
        tokens_T[at + 1 : at + 1 + len(document)] = np.frombuffer(document, dtype=np.uint8)
        at += 1 + len(document)
    targets_T = tokens_T[1:].copy()
    targets_T[targets_T == special] = IGNORED
    return Stream(tokens_T[:-1], targets_T)


def _segments(stream: Stream, wanted: int) -> list[tuple[int, int]]:
    """Stretches of positions that hold `wanted` byte targets, or all there are, evenly spaced.

    They depend on nothing but the part and `wanted`, so that every candidate is scored on them.
    """
    places = np.flatnonzero(stream.targets_T != IGNORED)
    wanted = min(wanted, len(places))
    count = max(1, min(MOST_SEGMENTS, wanted // SHORTEST_SEGMENT))
    left_out = len(places) - wanted
    segments = []
    for index in range(count):
        skipped = left_out * (2 * index + 1) // (2 * count)
        first = skipped + wanted * index // count
        last = skipped + wanted * (index + 1) // count
        segments.append((int(places[first]), int(places[last - 1]) + 1))
    return segments


def _entropy(counts: NDArray[np.int64]) -> float:
    """Entropy in bits of the distribution that the counts give."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
