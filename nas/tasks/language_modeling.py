"""Language modelling on a corpus, each family in its own way, scored in bits per byte.

In: a corpus and an objective. Out: random training batches of mixed lengths, and held-out batches
that score the same bytes for every context.

Each document is preceded by `<document>`, which is read but never a target: bits per byte counts
bytes. The vocabulary is that of the objective: a causal model has no use for a mask.

Legend: B sequences, L positions.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

from nas.errors import DataError
from nas.records import Split
from nas.specs import tasks as specs
from nas.tasks.base import Batch, StepShape, Task, hashed
from nas.tasks.blanks import Infilling, SpanCorruption
from nas.tasks.lengths import mixed_length
from nas.tasks.metrics import Metrics
from nas.tasks.randomness import Purpose, generator
from nas.tasks.schemes import BehindPrefix, Masked, NextByte, Scheme
from nas.tasks.stream import join_documents
from nas.tasks.text import corpus_files, read_corpus
from nas.tasks.tokenizers import ByteTokenizer

SCHEMES: Final[Mapping[str, type[Scheme]]] = {
    "causal": NextByte,
    "masked": Masked,
    "infilling": Infilling,
    "prefix": BehindPrefix,
    "span_corruption": SpanCorruption,
}
# Of what a corrupted text is made of; a change of it is a change of the data.
CORRUPTION_VERSION = 1


class LanguageModeling(Task):
    """Byte-level language modelling."""

    spec: ClassVar[specs.TaskSpec] = specs.LanguageModeling()
    tokenizer: ByteTokenizer

    def __init__(self, options: Mapping[str, Any]) -> None:
        options = self.spec.complete(options)
        objective = str(options.get("objective", "causal"))
        corpus = read_corpus(str(options["corpus"]))
        kind = SCHEMES[objective]
        self.tokenizer = ByteTokenizer(kind.specials(options))
        self.shape = specs.TaskShape(vocabulary=self.tokenizer.vocabulary, head=self.spec.head_for(options))
        facts = {key: value for key, value in self.spec.data_options(options).items() if key != "corpus"}
        if objective != "causal":
            facts["corruption"] = CORRUPTION_VERSION
        self.data_version = hashed({**facts, "tokenizer": self.tokenizer.to_json()}, corpus.digest)
        self._shortest_context = specs.shortest_context(options)
        streams = {
            str(part): join_documents(documents, self.tokenizer.document) for part, documents in corpus.parts.items()
        }
        self._scheme = kind(streams, self.tokenizer, options)

    @classmethod
    def source_stamp(cls, options: Mapping[str, Any]) -> tuple[object, ...]:
        """Names, sizes and times of the corpus's files."""
        stats = [(str(file), file.stat()) for file in corpus_files(str(options["corpus"]))]
        return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)

    def longest_sequence(self, max_context: int) -> int:
        """max_context; of source and target together, what that leaves room for.

        Raises:
            DataError: the training part is shorter than a sequence's text, or the longest span of a
                held-out text does not fit.
        """
        if max_context < self._shortest_context:
            raise DataError(
                f"the longest span must fit in a sequence: max_context {max_context} is below "
                f"{self._shortest_context}, the nearest valid one"
            )
        longest = len(self._scheme.train.inputs_T)
        if self._scheme.text_size(max_context) > longest:
            lengths = range(self._shortest_context, max_context)
            nearest = lengths.start - 1 + bisect_right(lengths, longest, key=self._scheme.text_size)
            raise DataError(
                f"a training sequence must fit in the training part: max_context {max_context} is above "
                f"{nearest}, the nearest valid one"
            )
        return self._scheme.shape(max_context, max_context).tokens_of_one

    def step_length(self, *, seed: int, step: int, max_context: int) -> int:
        """max_context or one of its halves (see `nas.tasks.lengths`)."""
        return mixed_length(seed=seed, step=step, max_context=max_context)

    def step_shape(self, *, seed: int, step: int, tokens: int, max_context: int) -> StepShape:
        """Sequences of the step's length; of source and target, what that leaves room for."""
        return self._scheme.shape(self.step_length(seed=seed, step=step, max_context=max_context), tokens)

    def training_batch(self, *, seed: int, step: int, tokens: int, max_context: int) -> Batch:
        """Stretches at random places of the training part, corrupted as the objective says."""
        self.check(tokens=tokens, max_context=max_context)
        length = self.step_length(seed=seed, step=step, max_context=max_context)
        return self._scheme.training_batch(generator(Purpose.TRAINING, seed=seed, step=step), length, tokens)

    def evaluation_batches(self, split: Split, *, context: int, tokens_per_batch: int) -> Iterator[Batch]:
        """`evaluation_bytes` bytes (four times as many for the test part) from all over the part.

        Of a corrupted text, the chosen ones among them: the same for every context.
        """
        return self._scheme.evaluation_batches(split, context, tokens_per_batch)

    def metrics(self) -> Metrics:
        """Bits per byte, perplexity and token accuracy, by the objective's names."""
        return self._scheme.metrics()

    def baseline(self, split: Split) -> dict[str, float]:
        """What knowing the frequencies of bytes, or of their successors, would score."""
        return self._scheme.baseline(split)
