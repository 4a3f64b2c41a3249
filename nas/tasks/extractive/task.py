"""Question answering by pointing at the answer.

In: records with a question, a context and answers, perhaps with the character where the first of them
begins. Out: training batches of questions of like length, every held-out view, and SQuAD's metrics.

The first answer is what is trained on; every right one counts when an answer is scored. A span is at most
as long as the longest of the training part. Where each training question has an answer, each held-out
one gets one.

Legend: N examples of a part, B sequences of a batch, W views.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

import numpy as np
import torch
from torch import Tensor

from nas.errors import DataError
from nas.records import Split
from nas.specs import tasks as specs
from nas.tasks.base import Batch, Spans, StepShape, Task, hashed
from nas.tasks.corpus import PARTS, tokenizer_for
from nas.tasks.data import cached, open_dataset, say
from nas.tasks.extractive.metrics import SpanMetrics
from nas.tasks.extractive.prepared import Prepared, PreparedWriter
from nas.tasks.extractive.reading import (
    END,
    MARKS,
    SEPARATOR,
    QuestionViews,
    check_context,
    drawn_question_views,
    grouped_views,
    padded,
    question_views,
    read_view,
    rooms,
)
from nas.tasks.extractive.search import span_nats
from nas.tasks.metrics import Metrics
from nas.tasks.randomness import Purpose, generator
from nas.tasks.text_metrics import answer_scores
from nas.tasks.texts import Epochs, held_out
from nas.tasks.tokenizers import Tokenizer
from nas.tasks.windows import Positions

# A change of what is written, or of how it is read, is a change of this number.
CACHE_VERSION: Final = 2


class SpanQuestions(Task):
    """Questions about a context, whose answers stand in it."""

    spec: ClassVar[specs.QuestionAnswering] = specs.QuestionAnswering()
    scores_sequences: ClassVar[bool] = True
    tokenizer: Tokenizer
    spans: Spans

    def __init__(self, options: Mapping[str, Any]) -> None:
        for broken in self.spec.broken_rules(options):
            raise DataError(broken.text)
        options = self.spec.complete(options)
        dataset = open_dataset(options, self.spec.fields_for(options))
        self.tokenizer = tokenizer_for(options.get("tokenizer"), dataset, (END, SEPARATOR))
        key = json.dumps(["spans", CACHE_VERSION, dataset.digest, self.tokenizer.to_json()])
        reader = cached(
            hashlib.sha256(key.encode()).hexdigest(),
            lambda writer: PreparedWriter(writer, self.tokenizer).write(dataset),
        )
        say(reader.facts["notes"])
        self._wanted, self._too_long = int(options["evaluation_examples"]), str(options["too_long"])
        self.spans = Spans(int(reader.facts["longest"]), bool(reader.facts["always_answered"]), self._too_long)
        self._parts = {part: Prepared(reader, part) for part in PARTS}
        self.bytes_per_token = self.tokenizer.bytes_per_token(self._parts["train"].contexts)
        self.shape = specs.TaskShape(vocabulary=self.tokenizer.vocabulary, head=self.spec.head_for(options))
        facts = {key: value for key, value in self.spec.data_options(options).items() if key not in specs.DATA_PLACES}
        facts |= {"tokenizer": self.tokenizer.to_json(), "cache": CACHE_VERSION}
        self.data_version = hashed(facts, dataset.digest)
        train = self._parts["train"]
        self._epochs = Epochs(train.question_N + train.context_N + MARKS)

    @classmethod
    def source_stamp(cls, options: Mapping[str, Any]) -> tuple[object, ...]:
        """Names, sizes and times of the files."""
        return open_dataset(options, cls.spec.fields_for(options)).stamp()

    def longest_sequence(self, max_context: int) -> int:
        """Question and context of the longest example, or what the context holds of them.

        Raises:
            DataError: the context is too short for any.
        """
        check_context(max_context)
        return min(max_context, self._epochs.longest)

    def step_length(self, *, seed: int, step: int, max_context: int) -> int:
        """The most that a step may have: that of the longest example, or the context."""
        return self.longest_sequence(max_context)

    def step_shape(self, *, seed: int, step: int, tokens: int, max_context: int) -> StepShape:
        """The sizes of the step's class of examples (see `nas.tasks.texts`)."""
        return self._epochs.shape(seed=seed, step=step, tokens=tokens, max_context=max_context)

    def training_batch(self, *, seed: int, step: int, tokens: int, max_context: int) -> Batch:
        """Examples of like length; every one once in an epoch, one view of it."""
        self.check(tokens=tokens, max_context=max_context)
        taken = self._epochs.step(seed=seed, step=step, tokens=tokens, max_context=max_context)
        random, part, chosen_B = generator(Purpose.TRAINING, seed=seed, step=step), self._parts["train"], taken.text_B
        found = drawn_question_views(
            random,
            chosen_B,
            part.question_N[chosen_B],
            part.context_N[chosen_B],
            part.span_N2[chosen_B],
            max_context,
            self._too_long,
        )
        return self._batch("train", found, taken.length)

    def evaluation_batches(self, split: Split, *, context: int, tokens_per_batch: int) -> Iterator[Batch]:
        """Every view of the held-out examples, the longest first; those of the test part have negative numbers."""
        for group, length in grouped_views(self._views(split, context), tokens_per_batch):
            yield self._batch(split, group, length)

    def known_scores(self, split: Split, *, context: int) -> dict[str, float]:
        """cut_share, and answer_in_reach: of the answers that there are, or 1."""
        part, chosen = self._parts[split], self._held_out(split)
        question_N, context_N, span_N2 = part.question_N[chosen], part.context_N[chosen], part.span_N2[chosen]
        kept_N, room_N = rooms(question_N, context_N, context)
        read_N = context_N if self._too_long == "window" else np.minimum(context_N, room_N)
        cut = 1 - float((kept_N + read_N).sum() / (question_N + context_N).sum())
        found = self._views(split, context)
        span_W2 = part.span_N2[found.views.text_W]
        reached = np.unique(found.views.text_W[found.holds(span_W2[:, 0], span_W2[:, 1])])
        answered = int((span_N2[:, 0] >= 0).sum())
        return {"cut_share": cut, "answer_in_reach": len(reached) / answered if answered else 1.0}

    def metrics(self) -> Metrics:
        """Exact match, F1 and the loss of the ends."""
        return SpanMetrics(
            most_tokens=self.spans.most_tokens,
            always_answered=self.spans.always_answered,
            text_of=lambda example, first, end: self._part_of(example).text(_place(example), first, end),
            right=lambda example: self._part_of(example).right(_place(example)),
        )

    def baseline(self, split: Split) -> dict[str, float]:
        """The most frequent answer of the part; its ends anywhere in a context that is read whole."""
        part, chosen = self._parts[split], self._held_out(split)
        right = [part.right(number) for number in chosen.tolist()]
        counts = Counter(answers[0] for answers in right)
        guess = max(counts, key=lambda answer: (counts[answer], answer))
        return {
            **answer_scores([guess] * len(right), right),
            "span_loss": float(np.log(part.context_N[chosen] + 1).mean()),
            "answer_in_reach": 1.0,
            "cut_share": 0.0,
        }

    def loss(self, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        """Mean nats of the two ends, of logits (B, L, 2)."""
        return span_nats(logits_NV, targets_N).mean()

    def _held_out(self, split: Split) -> Positions:
        return held_out(len(self._parts[split].context_N), self._wanted, split)

    def _views(self, split: Split, context: int) -> QuestionViews:
        part, chosen = self._parts[split], self._held_out(split)
        return question_views(chosen, part.question_N[chosen], part.context_N[chosen], context, self._too_long)

    def _batch(self, part: str, found: QuestionViews, length: int) -> Batch:
        examples = self._parts[part]
        rows = [
            read_view(self.tokenizer, *examples.tokens(number), found, row, examples.span(number))
            for row, number in enumerate(found.views.text_W.tolist())
        ]
        inputs, said_BL3 = padded(rows, length)
        number_B = torch.from_numpy(found.views.text_W.astype(np.int64))
        return Batch(inputs, said_BL3, None if part == "train" else -1 - number_B if part == "test" else number_B)

    def _part_of(self, example: int) -> Prepared:
        return self._parts["test" if example < 0 else "validation"]


def _place(example: int) -> int:
    """The number of a held-out example in its own part."""
    return -1 - example if example < 0 else example
