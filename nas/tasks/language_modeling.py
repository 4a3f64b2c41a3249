"""Language modelling on a corpus, each family in its own way, scored in bits per byte.

In: a corpus and an objective. Out: random training batches of mixed lengths, and held-out batches
that score the same bytes for every context.

Each document is preceded by `<document>`, which is read but never a target: bits per byte counts
bytes. No sequence holds tokens of two documents unless `cross_documents` says so. The vocabulary is
that of the tokenizer and the objective: a causal model has no use for a mask.

Legend: B sequences, L positions.
"""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

from nas.errors import DataError, DataWarning
from nas.records import Split
from nas.specs import tasks as specs
from nas.tasks.base import Batch, StepShape, Task, hashed
from nas.tasks.blanks import Infilling, SpanCorruption
from nas.tasks.corpus import Corpus, open_corpus
from nas.tasks.metrics import Metrics
from nas.tasks.randomness import Purpose, generator
from nas.tasks.schemes import BehindPrefix, Masked, NextToken, Scheme
from nas.tasks.tokenizers import Tokenizer

SCHEMES: Final[Mapping[str, type[Scheme]]] = {
    "causal": NextToken,
    "masked": Masked,
    "infilling": Infilling,
    "prefix": BehindPrefix,
    "span_corruption": SpanCorruption,
}
# Of what a corrupted text is made of; a change of it is a change of the data.
CORRUPTION_VERSION = 1
# Of how sequences are taken from documents.
DOCUMENTS_VERSION = 1


class LanguageModeling(Task):
    """Language modelling on text."""

    spec: ClassVar[specs.TaskSpec] = specs.LanguageModeling()
    tokenizer: Tokenizer

    def __init__(self, options: Mapping[str, Any]) -> None:
        options = self.spec.complete(options)
        objective = str(options.get("objective", "causal"))
        kind = SCHEMES[objective]
        corpus = Corpus(options, kind.specials(options))
        self.tokenizer = corpus.tokenizer
        self.shape = specs.TaskShape(vocabulary=self.tokenizer.vocabulary, head=self.spec.head_for(options))
        # Where the data lies is none of its version; what it holds is in the digest.
        facts = {key: value for key, value in self.spec.data_options(options).items() if key not in specs.DATA_PLACES}
        if objective != "causal":
            facts["corruption"] = CORRUPTION_VERSION
        facts |= {"tokenizer": self.tokenizer.to_json(), "documents": DOCUMENTS_VERSION}
        self.data_version = hashed(facts, corpus.digest)
        self.bytes_per_token = self.tokenizer.bytes_per_token(corpus.stream("train").tokens_T)
        self._shortest_context = specs.shortest_context(options)
        self._scheme = kind(corpus, options, self._shortest_context)
        self._warned: set[int] = set()

    @classmethod
    def source_stamp(cls, options: Mapping[str, Any]) -> tuple[object, ...]:
        """Names, sizes and times of the corpus's files."""
        return open_corpus(options).stamp()

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
        longest = len(self._scheme.train.tokens_T)
        if self._scheme.text_size(max_context) > longest:
            raise DataError(
                f"a training sequence must fit in the training part: max_context {max_context} is above "
                f"{self._nearest(max_context, longest)}, the nearest valid one"
            )
        self._warn_of_short_documents(max_context)
        return self._scheme.shape(max_context, max_context).tokens_of_one

    def step_length(self, *, seed: int, step: int, max_context: int) -> int:
        """max_context or one of its halves, or less where the step takes shorter documents (`nas.tasks.sampling`)."""
        return self._scheme.sampling.step(seed=seed, step=step, max_context=max_context).length

    def step_shape(self, *, seed: int, step: int, tokens: int, max_context: int) -> StepShape:
        """Sequences of the step's length; of source and target, what that leaves room for."""
        return self._scheme.shape(self.step_length(seed=seed, step=step, max_context=max_context), tokens)

    def training_batch(self, *, seed: int, step: int, tokens: int, max_context: int) -> Batch:
        """Stretches at random places of the training part, corrupted as the objective says."""
        self.check(tokens=tokens, max_context=max_context)
        take = self._scheme.sampling.step(seed=seed, step=step, max_context=max_context)
        return self._scheme.training_batch(generator(Purpose.TRAINING, seed=seed, step=step), take, tokens)

    def evaluation_batches(self, split: Split, *, context: int, tokens_per_batch: int) -> Iterator[Batch]:
        """`evaluation_bytes` bytes (four times as many for the test part) from all over the part.

        Of a corrupted text, the chosen ones among them: the same for every context.
        """
        return self._scheme.evaluation_batches(split, context, tokens_per_batch)

    def curve_contexts(self, max_context: int) -> tuple[int, ...]:
        """A quarter, a half and twice of it, where the objective's spans fit."""
        return tuple(context for context in super().curve_contexts(max_context) if context >= self._shortest_context)

    def metrics(self) -> Metrics:
        """Bits per byte, perplexity and token accuracy, by the objective's names."""
        return self._scheme.metrics()

    def baseline(self, split: Split) -> dict[str, float]:
        """What knowing the frequencies of bytes, or of their successors, would score."""
        return self._scheme.baseline(split)

    def _nearest(self, max_context: int, size: int) -> int:
        """The longest context whose text has at most `size` tokens, or one less than the shortest there is."""
        lengths = range(self._shortest_context, max_context)
        return lengths.start - 1 + bisect_right(lengths, size, key=self._scheme.text_size)

    def _warn_of_short_documents(self, max_context: int) -> None:
        longest = self._scheme.sampling.longest
        if max_context in self._warned or self._scheme.text_size(max_context) <= longest:
            return
        self._warned.add(max_context)
        nearest = self._nearest(max_context, longest)
        if nearest < self._shortest_context:
            raise DataError(
                f"a training sequence must fit in a document: the longest one has {longest} tokens; take longer "
                f"documents, or read all as one by cross_documents: true"
            )
        warnings.warn(
            f"max_context {max_context} is never reached in training: the longest document holds sequences of "
            f"{nearest} tokens (to read all documents as one, say cross_documents: true)",
            DataWarning,
            stacklevel=2,
        )
