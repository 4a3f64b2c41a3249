"""Text-to-text tasks: a source is read and a target written, as each family does.

In: records with a source and a target, or a question, a context and answers. Out: training batches of
pairs of like length, held-out batches, prompts whose answers are generated, and metrics of both.

    causal     <document> source <start> target            the target and <end> are said
    prefix     the same; the source is seen in both directions, the target stands in a blank at its end
    seq2seq    <document> source | <start> target          encoder | decoder

A source is one text, or a question, <separator>, and a context. Where source and target do not fit in a
context, the target has at most half of it, and the source what is left; of a question and its context,
the context is cut.

Legend: N examples of a part, B sequences, L positions, S positions of a source.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.errors import DataError
from nas.records import Split
from nas.specs import tasks as specs
from nas.tasks.answers import START, blank_positions
from nas.tasks.base import IGNORED, Batch, Inputs, Questions, StepShape, Task, hashed
from nas.tasks.corpus import PARTS, tokenizer_for
from nas.tasks.data import CacheReader, CacheWriter, Dataset, cached, open_dataset, say
from nas.tasks.metrics import Metrics
from nas.tasks.schemes import entropy
from nas.tasks.text_metrics import TextMetrics, answer_scores, translation_scores
from nas.tasks.texts import Epochs, held_out
from nas.tasks.tokenizers import Tokenizer
from nas.tasks.windows import Positions

END, SEPARATOR = "<end>", "<separator>"
# A change of what is written is a change of this number.
CACHE_VERSION: Final = 1
# Records are encoded in groups of so many.
GROUP: Final = 256
# An answer may be longer than every right one by so many tokens.
SPARE: Final = 8


@dataclass(frozen=True)
class Pair:
    """What is read of an example, and what is to be written.

    Attributes:
        source: tokens, `<document>` included.
        target: tokens, `<end>` not included.
    """

    source: list[int]
    target: list[int]


class TextToText(Task):
    """What translation and question answering share."""

    spec: ClassVar[specs.TextToText]
    tokenizer: Tokenizer
    loss_name: ClassVar[str]

    def __init__(self, options: Mapping[str, Any]) -> None:
        for broken in self.spec.broken_rules(options):
            raise DataError(broken.text)
        options = self.spec.complete(options)
        dataset = open_dataset(options, self.spec.fields)
        self.tokenizer = tokenizer_for(options.get("tokenizer"), dataset, (START, END, SEPARATOR))
        key = json.dumps([type(self).__name__, CACHE_VERSION, dataset.digest, self.tokenizer.to_json()])
        self._reader = cached(hashlib.sha256(key.encode()).hexdigest(), lambda writer: self._write(writer, dataset))
        say(self._reader.facts["notes"])
        self._form, self._too_long = str(options["form"]), str(options["too_long"])
        self._wanted = int(options["evaluation_examples"])
        self._parts = {part: _Part(self._reader, part) for part in PARTS}
        self.bytes_per_token = self.tokenizer.bytes_per_token(self._parts["train"].sources)
        self.shape = specs.TaskShape(vocabulary=self.tokenizer.vocabulary, head=self.spec.head_for(options))
        facts = {key: value for key, value in self.spec.data_options(options).items() if key not in specs.DATA_PLACES}
        self.data_version = hashed(
            {**facts, "tokenizer": self.tokenizer.to_json(), "cache": CACHE_VERSION}, dataset.digest
        )
        train = self._parts["train"]
        self._epochs = Epochs(train.source_N + train.target_N + 2, self._sizes)
        everyone = np.arange(len(train.source_N))
        self._largest = lru_cache(maxsize=64)(lambda context: self._sizes(everyone, context))

    @abstractmethod
    def texts_of(self, record: Mapping[str, Any]) -> tuple[str, str, str, list[str]]:
        """Question (or nothing), source, target, and all that is right.

        Raises:
            DataError: the record cannot be used; names its file and row.
        """

    @abstractmethod
    def scores(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Metrics of generated answers."""

    @abstractmethod
    def trivial(self, split: Split, examples: Sequence[int]) -> list[str]:
        """The answers of one who understands nothing."""

    @classmethod
    def source_stamp(cls, options: Mapping[str, Any]) -> tuple[object, ...]:
        """Names, sizes and times of the files."""
        return open_dataset(options, cls.spec.fields).stamp()

    def longest_sequence(self, max_context: int) -> int:
        """Source and target of the longest pairs, or what the context holds of them.

        Raises:
            DataError: the context is too short for any pair.
        """
        if max_context < (fewest := specs.SHORTEST_PAIR):
            raise DataError(
                f"a source and a target need a context of at least {fewest} tokens, not {max_context}: nearest {fewest}"
            )
        return sum(self._largest(max_context))

    def step_length(self, *, seed: int, step: int, max_context: int) -> int:
        """The most that a step may have."""
        return max(self._largest(max_context))

    def step_shape(self, *, seed: int, step: int, tokens: int, max_context: int) -> StepShape:
        """The sizes of the step's class of pairs (see `nas.tasks.texts`)."""
        return self._epochs.shape(seed=seed, step=step, tokens=tokens, max_context=max_context)

    def training_batch(self, *, seed: int, step: int, tokens: int, max_context: int) -> Batch:
        """Pairs of like length; every pair once in an epoch."""
        self.check(tokens=tokens, max_context=max_context)
        taken = self._epochs.step(seed=seed, step=step, tokens=tokens, max_context=max_context)
        pairs = [self._pair("train", int(number), max_context) for number in taken.text_B]
        return self._batch(pairs, taken.length, taken.source_length)

    def evaluation_batches(self, split: Split, *, context: int, tokens_per_batch: int) -> Iterator[Batch]:
        """The targets of the held-out pairs, given their sources."""
        for pairs, _ in self._groups(split, context, tokens_per_batch):
            sizes = [self._size_of(pair) for pair in pairs]
            yield self._batch(pairs, max(size[0] for size in sizes), max(size[1] for size in sizes))

    def questions(self, split: Split, *, context: int, tokens_per_batch: int) -> Iterator[Questions]:
        """The sources of the held-out pairs; what follows is generated."""
        start, end = self.tokenizer.special(START), self.tokenizer.special(END)
        for pairs, numbers in self._groups(split, context, tokens_per_batch):
            most = SPARE + max(len(pair.target) for pair in pairs)
            if self._form == "seq2seq":
                source_BS, source_lengths_B = _rows([pair.source for pair in pairs])
                tokens_B1 = torch.full((len(pairs), 1), start, dtype=torch.int64)
                inputs = Inputs(tokens_B1, source_BS=source_BS, source_lengths_B=source_lengths_B)
                room = context - 1
            else:
                tokens_BL, lengths_B = _rows([[*pair.source, start] for pair in pairs])
                inputs = self._behind(tokens_BL, lengths_B, [len(pair.source) for pair in pairs])
                room = context - tokens_BL.shape[1]
            yield Questions(inputs, tuple(numbers), max(min(most, room), 1), frozenset({end}))

    def known_scores(self, split: Split, *, context: int) -> dict[str, float]:
        """cut_share: of sources and targets."""
        part = self._parts[split]
        whole = kept = 0
        for number in self._held_out(split).tolist():
            pair = self._pair(split, number, context)
            kept += len(pair.source) + len(pair.target)
            whole += int(part.source_N[number] + part.target_N[number])
        return {"cut_share": 1 - kept / whole}

    def metrics(self) -> Metrics:
        """Scores of the generated answers, and bits per byte of the right ones."""
        # Whose answers come in says whether it is the validation or the test part.
        return _EitherPart(
            {
                split: TextMetrics(self.loss_name, self.scores, self._references(split), self.tokenizer)
                for split in ("validation", "test")
            }
        )

    def baseline(self, split: Split) -> dict[str, float]:
        """What `trivial` answers, and the entropy of the tokens of right answers."""
        examples = self._held_out(split).tolist()
        references = self._references(split)
        found = self.scores(self.trivial(split, examples), [references[_number(split, one)] for one in examples])
        counts_V = np.zeros(self.tokenizer.vocabulary, dtype=np.int64)
        for one in examples:
            counts_V += np.bincount(self._parts[split].target(one), minlength=len(counts_V))
            counts_V[self.tokenizer.special(END)] += 1
        per_byte = counts_V.sum() / max(int(counts_V @ self.tokenizer.byte_lengths_V), 1)
        return {**found, self.loss_name: entropy(counts_V) * float(per_byte), "cut_share": 0.0}

    def _held_out(self, split: Split) -> Positions:
        return held_out(len(self._parts[split].source_N), self._wanted, split)

    def _references(self, split: Split) -> dict[int, list[str]]:
        return {_number(split, one): self._parts[split].references(one) for one in self._held_out(split).tolist()}

    def _sizes(self, number_N: Positions, context: int) -> tuple[int, int]:
        """Length and source length to which training pairs are filled up."""
        part = self._parts["train"]
        source_N, target_N = part.source_N[number_N], part.target_N[number_N]
        if self._form == "seq2seq":
            return int(np.minimum(target_N + 1, context).max()), int(np.minimum(source_N, context).max())
        return int(np.minimum(source_N + target_N + 1, context).max()), 0

    def _size_of(self, pair: Pair) -> tuple[int, int]:
        if self._form == "seq2seq":
            return len(pair.target) + 1, len(pair.source)
        return len(pair.source) + 1 + len(pair.target), 0

    def _pair(self, part: str, number: int, context: int) -> Pair:
        """What a context holds of an example."""
        question, source, target = self._parts[part].tokens(number)
        if self._form == "seq2seq":
            target, room = target[: context - 1], context
        else:
            # The target has what the source leaves, and at least half.
            whole = 1 + len(source) + (len(question) + 1 if question else 0)
            target = target[: max(context // 2 - 1, context - 1 - whole)]
            # Where nothing is right, the model must still have room to say so.
            room = context - 1 - max(len(target), 1)
        read = [self.tokenizer.document]
        if question:
            read += [*question[: max(room // 2 - 2, 0)], self.tokenizer.special(SEPARATOR)]
        return Pair(read + _cut(source, room - len(read), self._too_long), target)

    def _groups(self, split: Split, context: int, tokens_per_batch: int) -> Iterator[tuple[list[Pair], list[int]]]:
        """Held-out pairs, longest first, in groups of at most so many tokens (or one pair)."""
        numbers = self._held_out(split).tolist()
        pairs = {number: self._pair(split, number, context) for number in numbers}
        order = iter(sorted(numbers, key=lambda number: -sum(self._size_of(pairs[number]))))
        while first := list(islice(order, 1)):
            most = [0, 0]
            group = first
            # The rest are no longer in all, but one of the two may be.
            for number in order:
                sizes = [self._size_of(pairs[one]) for one in (*group, number)]
                most = [max(size[side] for size in sizes) for side in (0, 1)]
                if sum(most) * len(sizes) > tokens_per_batch:
                    yield [pairs[one] for one in group], [_number(split, one) for one in group]
                    group = [number]
                    continue
                group.append(number)
            yield [pairs[one] for one in group], [_number(split, one) for one in group]

    def _batch(self, pairs: Sequence[Pair], length: int, source_length: int) -> Batch:
        start, end = self.tokenizer.special(START), self.tokenizer.special(END)
        if self._form == "seq2seq":
            tokens_BL, lengths_B = _rows([[start, *pair.target] for pair in pairs], length)
            source_BS, source_lengths_B = _rows([pair.source for pair in pairs], source_length)
            targets_BL, _ = _rows([[*pair.target, end] for pair in pairs], length, filler=IGNORED)
            return Batch(Inputs(tokens_BL, lengths_B, None, None, source_BS, source_lengths_B), targets_BL)
        tokens_BL, lengths_B = _rows([[*pair.source, start, *pair.target] for pair in pairs], length)
        said = [[*[IGNORED] * len(pair.source), *pair.target, end] for pair in pairs]
        targets_BL, _ = _rows(said, length, filler=IGNORED)
        return Batch(self._behind(tokens_BL, lengths_B, [len(pair.source) for pair in pairs]), targets_BL)

    def _behind(self, tokens_BL: Tensor, lengths_B: Tensor | None, sources: Sequence[int]) -> Inputs:
        """What a decoder reads; a prefix language model sees the source in both directions."""
        if self._form == "causal":
            return Inputs(tokens_BL, lengths_B)
        prefix_B = torch.tensor(sources, dtype=torch.int64)
        return Inputs(tokens_BL, lengths_B, prefix_B, blank_positions(prefix_B, tokens_BL.shape[1]))

    def _write(self, writer: CacheWriter, dataset: Dataset) -> None:
        kind = self.tokenizer.id_type
        names = ("question", "source", "target")
        rows = {(part, name): writer.ragged(f"{part}_{name}", kind) for part in PARTS for name in names}
        # What is right is kept as text: a tokenizer may not give it back.
        right = {part: writer.ragged(f"{part}_right", np.uint8) for part in PARTS}
        owners: dict[str, list[int]] = {part: [] for part in PARTS}
        counts = dict.fromkeys(PARTS, 0)
        records = dataset.records()
        while group := list(islice(records, GROUP)):
            found = [(part, self.texts_of(record)) for part, record in group]
            encoded = self.tokenizer.encode_many([text for _, texts in found for text in texts[:3]])
            for place, (part, texts) in enumerate(found):
                for name, ids in zip(names, encoded[3 * place : 3 * place + 3], strict=True):
                    rows[part, name].append(ids)
                for text in texts[3]:
                    right[part].append(np.frombuffer(text.encode(), dtype=np.uint8))
                    owners[part].append(counts[part])
                counts[part] += 1
        for part in PARTS:
            writer.array(f"{part}_owners", np.array(owners[part], dtype=np.int64))
        writer.facts({"notes": dataset.notes()})


class _Part:
    """The examples of a part, from the cache."""

    def __init__(self, reader: CacheReader, part: str) -> None:
        self._question, self._source, self._target, self._right = (
            reader.ragged(f"{part}_{name}") for name in ("question", "source", "target", "right")
        )
        self._owners = reader.array(f"{part}_owners")
        question_N = self._question.lengths
        self.source_N: Positions = 1 + self._source.lengths + np.where(question_N > 0, question_N + 1, 0)
        self.target_N: Positions = self._target.lengths

    @property
    def sources(self) -> NDArray[Any]:
        """The tokens of all sources in one row."""
        return self._source.flat

    def tokens(self, number: int) -> tuple[list[int], list[int], list[int]]:
        """Question, source and target."""
        return self._question[number].tolist(), self._source[number].tolist(), self._target[number].tolist()

    def target(self, number: int) -> NDArray[Any]:
        """Tokens of the target."""
        return self._target[number]

    def references(self, number: int) -> list[str]:
        """All that is right."""
        first, last = np.searchsorted(self._owners, [number, number + 1])
        return [self._right[place].tobytes().decode() for place in range(int(first), int(last))]


class _EitherPart(Metrics):
    """The metrics of the part whose answers come in; examples of the test part have negative numbers."""

    def __init__(self, by_split: Mapping[str, TextMetrics]) -> None:
        super().__init__({})
        self._by_split = by_split
        self._split = "validation"

    def update(self, logits_NV: Tensor, targets_N: Tensor, example_N: Tensor | None = None) -> None:
        """Takes in one batch of either part."""
        for metrics in self._by_split.values():
            metrics.update(logits_NV, targets_N)

    def answer(self, example: int, tokens: list[int]) -> None:
        """Takes in one generated answer."""
        self._split = "test" if example < 0 else "validation"
        self._by_split[self._split].answer(example, tokens)

    @property
    def scored(self) -> int:
        """How many targets were scored so far."""
        return self._by_split[self._split].scored

    def compute(self) -> dict[str, float]:
        """Every metric by name."""
        return self._by_split[self._split].compute()


class Translation(TextToText):
    """A text into another."""

    spec: ClassVar[specs.TextToText] = specs.Translation()
    loss_name: ClassVar[str] = "target_bits_per_byte"

    def texts_of(self, record: Mapping[str, Any]) -> tuple[str, str, str, list[str]]:
        """The source, and its one target."""
        return "", record["source"], record["target"], [record["target"]]

    def scores(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """chrF and BLEU."""
        return translation_scores(answers, references)

    def trivial(self, split: Split, examples: Sequence[int]) -> list[str]:
        """The sources, copied."""
        return [self.tokenizer.decode(self._parts[split].tokens(one)[1]) for one in examples]


class QuestionAnswering(TextToText):
    """Questions about a context, whose answers are written."""

    spec: ClassVar[specs.TextToText] = specs.QuestionAnswering()
    loss_name: ClassVar[str] = "answer_bits_per_byte"

    def texts_of(self, record: Mapping[str, Any]) -> tuple[str, str, str, list[str]]:
        """Question, context, the first answer, and all answers."""
        answers = [answer for answer in record["answers"] if answer]
        for answer in answers:
            if answer not in record["context"]:
                path, row = record["_where"]
                raise DataError(f"{path}, row {row}: the answer {answer!r:.60} does not stand in its context")
        return record["question"], record["context"], answers[0] if answers else "", answers or [""]

    def scores(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Exact match and F1."""
        return answer_scores(answers, references)

    def trivial(self, split: Split, examples: Sequence[int]) -> list[str]:
        """The most frequent answer of the part."""
        part = self._parts[split]
        counts: dict[str, int] = {}
        for one in examples:
            answer = part.references(one)[0]
            counts[answer] = counts.get(answer, 0) + 1
        return [max(counts, key=lambda answer: (counts[answer], answer))] * len(examples)


def _number(split: Split, example: int) -> int:
    """The number of a held-out example among those of both parts."""
    return -1 - example if split == "test" else example


def _cut(tokens: list[int], room: int, how: str) -> list[int]:
    room = max(room, 0)
    if len(tokens) <= room:
        return tokens
    if how == "head_tail":
        tail = room // 2
        return tokens[: room - tail] + (tokens[-tail:] if tail else [])
    return tokens[:room]


def _rows(rows: Sequence[Sequence[int]], length: int = 0, filler: int = 0) -> tuple[Tensor, Tensor | None]:
    """Rows filled up to a length, or to the longest, and their own lengths where they differ from it."""
    sizes = [len(row) for row in rows]
    length = max(length, *sizes) if length else max(sizes)
    found_BL = np.full((len(rows), length), filler, dtype=np.int64)
    for row, tokens in enumerate(rows):
        found_BL[row, : sizes[row]] = tokens
    lengths_B = None if min(sizes) == length else torch.tensor(sizes, dtype=torch.int64)
    return torch.from_numpy(found_BL), lengths_B
