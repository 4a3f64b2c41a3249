"""What is kept of questions, contexts and answers: written once, mapped into memory by everyone.

In: records. Out: of each part the tokens of questions and contexts, and where the first answer stands; of
the held-out parts also the contexts' own text, where in it each token stands, and all right answers. A
context is kept once, however many questions are about it.

Legend: N examples of a part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nas.errors import DataError
from nas.tasks.corpus import PARTS
from nas.tasks.data import CacheReader, CacheWriter, Dataset
from nas.tasks.extractive.places import covering, first_character, right_answers, text_between
from nas.tasks.tokenizers import Placed, Tokenizer
from nas.tasks.windows import Positions

# Records are encoded in groups of so many.
GROUP: Final = 256
HELD_OUT: Final = PARTS[1:]


class Prepared:
    """The examples of a part, from the cache."""

    def __init__(self, reader: CacheReader, part: str) -> None:
        self._question, self._context = reader.ragged(f"{part}_question"), reader.ragged(f"{part}_context")
        self._context_of_N = reader.array(f"{part}_context_of")
        self.question_N: Positions = self._question.lengths
        self.context_N: Positions = self._context.lengths[self._context_of_N]
        self.span_N2: Positions = reader.array(f"{part}_span")
        if part in HELD_OUT:
            self._text, self._first, self._end, self._right = (
                reader.ragged(f"{part}_{name}") for name in ("text", "first", "end", "right")
            )
            self._right_of = reader.array(f"{part}_right_of")

    @property
    def contexts(self) -> NDArray[Any]:
        """The tokens of all contexts in one row."""
        return self._context.flat

    def tokens(self, number: int) -> tuple[Any, Any]:
        """Question and context."""
        return self._question[number], self._context[int(self._context_of_N[number])]

    def span(self, number: int) -> tuple[int, int]:
        """The answer in tokens of the context; below 0 where there is none."""
        first, end = self.span_N2[number].tolist()
        return first, end

    def text(self, number: int, first: int, end: int) -> str:
        """The text of tokens of a held-out context."""
        place = int(self._context_of_N[number])
        first_byte, end_byte = int(self._first[place][first]), int(self._end[place][end - 1])
        return text_between(self._text[place].tobytes(), first_byte, end_byte)

    def right(self, number: int) -> list[str]:
        """All that is right for a held-out question; an empty text where it has no answer."""
        first, last = np.searchsorted(self._right_of, [number, number + 1])
        return [self._right[place].tobytes().decode() for place in range(int(first), int(last))] or [""]


class PreparedWriter:
    """Writes what `Prepared` reads: each context once, however many questions are about it."""

    def __init__(self, writer: CacheWriter, tokenizer: Tokenizer) -> None:
        self._writer, self._tokenizer = writer, tokenizer
        kind = tokenizer.id_type
        self._rows = {
            (part, name): writer.ragged(f"{part}_{name}", kind) for part in PARTS for name in ("question", "context")
        }
        more = {"text": np.uint8, "first": np.uint32, "end": np.uint32, "right": np.uint8}
        self._rows |= {(part, name): writer.ragged(f"{part}_{name}", more[name]) for part in HELD_OUT for name in more}
        self._known: dict[str, dict[bytes, int]] = {part: {} for part in PARTS}
        self._context_of: dict[str, list[int]] = {part: [] for part in PARTS}
        self._span: dict[str, list[tuple[int, int]]] = {part: [] for part in PARTS}
        self._right_of: dict[str, list[int]] = {part: [] for part in PARTS}
        self._inexact = 0
        self._first_inexact = ""

    def write(self, dataset: Dataset) -> None:
        """All records.

        Raises:
            DataError: an answer does not stand in its context, or the training part has none.
        """
        records = dataset.records()
        while group := list(islice(records, GROUP)):
            contexts = list(dict.fromkeys(record["context"] for _, record in group))
            placed = dict(zip(contexts, self._tokenizer.encode_placed(contexts), strict=True))
            questions = self._tokenizer.encode_many([record["question"] for _, record in group])
            for (part, record), question in zip(group, questions, strict=True):
                self._rows[part, "question"].append(question)
                self._add(part, record, placed[record["context"]])
        for part in PARTS:
            self._writer.array(f"{part}_context_of", np.array(self._context_of[part], dtype=np.int64))
            self._writer.array(f"{part}_span", np.array(self._span[part], dtype=np.int64).reshape(-1, 2))
            self._writer.array(f"{part}_right_of", np.array(self._right_of[part], dtype=np.int64))
        sizes = [end - first for first, end in self._span["train"] if first >= 0]
        if not sizes:
            raise DataError(f"no question of the training part of {dataset.name} has an answer: one at least must")
        self._writer.facts(
            {
                "longest": max(sizes),
                "always_answered": len(sizes) == len(self._span["train"]),
                "notes": [*dataset.notes(), *self._notes(dataset.name)],
            }
        )

    def _add(self, part: str, record: Mapping[str, Any], placed: Placed) -> None:
        number = len(self._context_of[part])
        answers = right_answers(record)
        self._context_of[part].append(self._context(part, record["context"], placed))
        self._span[part].append(self._placed_answer(record, answers[0], placed) if answers else (-1, -1))
        if part not in HELD_OUT:
            return
        for answer in answers:
            self._rows[part, "right"].append(np.frombuffer(answer.encode(), dtype=np.uint8))
            self._right_of[part].append(number)

    def _context(self, part: str, text: str, placed: Placed) -> int:
        """The number of a context among those of its part."""
        known = self._known[part]
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if digest not in known:
            known[digest] = len(known)
            self._rows[part, "context"].append(placed.ids)
            if part in HELD_OUT:
                self._rows[part, "text"].append(np.frombuffer(text.encode(), dtype=np.uint8))
                self._rows[part, "first"].append(placed.first_N)
                self._rows[part, "end"].append(placed.end_N)
        return known[digest]

    def _placed_answer(self, record: Mapping[str, Any], answer: str, placed: Placed) -> tuple[int, int]:
        at, text = first_character(record, answer), record["context"]
        first_byte = len(text[:at].encode())
        found = covering(placed, first_byte, first_byte + len(answer.encode()))
        path, row = record["_where"]
        if found is None:
            raise DataError(f"{path}, row {row}: no token of the context stands for the answer {answer!r:.60}")
        first, end = found
        covered = text_between(text.encode(), int(placed.first_N[first]), int(placed.end_N[end - 1]))
        if covered != answer.strip():
            self._inexact += 1
            self._first_inexact = self._first_inexact or f"{path}, row {row}"
        return first, end

    def _notes(self, name: str) -> list[str]:
        if not self._inexact:
            return []
        answers = sum(first >= 0 for spans in self._span.values() for first, _ in spans)
        return [
            f"{name}: {self._inexact:,} of {answers:,} answers do not begin and end where tokens do, the first in "
            f"{self._first_inexact}: the fewest tokens that hold them stand for them"
        ]
