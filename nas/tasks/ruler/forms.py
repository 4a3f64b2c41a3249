"""How an example is put: as tokens of a small vocabulary, or as English-like text in bytes.

In: what an example says (this key has that value). Out: the tokens that say it.

    tokens   h h h ◆ k v h h h h … ? k =          ◆ marks a needle, ? a question, = its end
    words    … The hill is steep. One of the special magic numbers for bade is: 1234567. On we …

Source: Hsieh et al. 2024 (RULER) for the structure of the texts; their words are our own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nas.specs.tasks import RULER_MARKS, token_ranges
from nas.tasks.ruler.wordlist import word_list
from nas.tasks.tokenizers import ByteTokenizer, Tokenizer

Piece = Sequence[int]
"""Tokens in a row: bytes are such, too."""


@dataclass(frozen=True)
class Hay:
    """What is read for nothing.

    Attributes:
        tokens: all of it.
        ends: where a needle may be put: 0, and behind each of its units.
    """

    tokens: Piece
    ends: Sequence[int]


@dataclass(frozen=True)
class Stock:
    """Different things to draw from, none of which is a part of another.

    Attributes:
        size: how many there are.
        longest: one with the most tokens.
        shortest: one with the fewest.
        draw: so many different ones in random order.
    """

    size: int
    longest: Piece
    shortest: Piece
    draw: Callable[[np.random.Generator, int], list[Piece]]


class Form(ABC):
    """A way to put examples.

    Attributes:
        vocabulary: token kinds.
        tokenizer: text to tokens and back; None where they stand for no text.
        stop_tokens: an answer ends before one of these.
        keys: the names of needles.
        variables: the names of variables.
        values: of needles and of the first variable of a chain.
        words: that are counted.
        dots: a unit of what is no word in a list of words.
        largest_unit: the tokens of the longest unit of hay.
    """

    vocabulary: int
    tokenizer: Tokenizer | None
    stop_tokens: frozenset[int]
    keys: Stock
    variables: Stock
    values: Stock
    words: Stock
    dots: Piece
    largest_unit: int

    @abstractmethod
    def opening(self, kind: str) -> Piece:
        """What stands before everything else."""

    @abstractmethod
    def hay(self, random: np.random.Generator, room: int, keys: Sequence[Piece]) -> Hay:
        """As much hay as fits.

        Args:
            random: draws it.
            room: at most so many tokens.
            keys: words that must not stand in it.
        """

    @abstractmethod
    def needle(self, key: Piece, value: Piece) -> Piece:
        """Says that the key has the value, among others perhaps."""

    @abstractmethod
    def assignment(self, variable: Piece, source: Piece, *, is_variable: bool) -> Piece:
        """Says that the variable has a value, or that of another variable."""

    @abstractmethod
    def unit(self, word: Piece) -> Piece:
        """A word of a list, ready to stand beside others."""

    @abstractmethod
    def question(self, kind: str, asked: Sequence[Piece], answers: int) -> Piece:
        """What stands after everything else.

        Args:
            kind: of the example.
            asked: the keys, or the value of the chain.
            answers: how many are expected.
        """

    @abstractmethod
    def answer(self, items: Sequence[Piece]) -> Piece:
        """What is to be said, its end included."""


class Tokens(Form):
    """Tokens that stand for nothing: marks, hay, keys, values, each in a range of its own."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.tokenizer = None
        self.stop_tokens = frozenset()
        self.largest_unit = 1
        self.vocabulary = int(options["vocabulary"])
        size = int(options["value_tokens"])
        ranges = token_ranges(self.vocabulary)
        self._hay = ranges.hay
        self._marks = {name: token for token, name in enumerate(RULER_MARKS)}
        self._question = {
            "variable_tracking": self._marks["chain"],
            "common_words": self._marks["common"],
            "frequent_words": self._marks["frequent"],
        }
        self.keys = self.variables = Stock(len(ranges.keys), (0,), (0,), _tokens_of(ranges.keys))
        self.words = Stock(len(ranges.values), (0,), (0,), _tokens_of(ranges.values))
        self.values = Stock(len(ranges.values) ** size, (0,) * size, (0,) * size, _rows(ranges.values, size))
        self.dots = (ranges.hay[0],)

    def opening(self, kind: str) -> Piece:
        return ()

    def hay(self, random: np.random.Generator, room: int, keys: Sequence[Piece]) -> Hay:
        tokens = random.integers(self._hay.start, self._hay.stop, size=room).tolist()
        return Hay(tokens, range(room + 1))

    def needle(self, key: Piece, value: Piece) -> Piece:
        return (self._marks["needle"], *key, *value)

    def assignment(self, variable: Piece, source: Piece, *, is_variable: bool) -> Piece:
        return (self._marks["variable"], *variable, *source)

    def unit(self, word: Piece) -> Piece:
        return word

    def question(self, kind: str, asked: Sequence[Piece], answers: int) -> Piece:
        mark = self._question.get(kind, self._marks["question"])
        return (mark, *(token for piece in asked for token in piece), self._marks["answer"])

    def answer(self, items: Sequence[Piece]) -> Piece:
        return tuple(token for item in items for token in item)


class Words(Form):
    """Text in English-like words, as the bytes of `ByteTokenizer`."""

    SENTENCES: ClassVar[tuple[bytes, ...]] = (
        b"The river is wide. ",
        b"The hill is steep. ",
        b"The wind is mild. ",
        b"On we walk. ",
        b"Home is far from here. ",
    )
    DIGITS: ClassVar[int] = 7
    LETTERS: ClassVar[int] = 5

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.tokenizer = ByteTokenizer()
        self.vocabulary = self.tokenizer.vocabulary
        self.stop_tokens = frozenset(b"\n")
        self._words = word_list()
        self._place = {word: place for place, word in enumerate(self._words)}
        longest, shortest = max(self._words, key=len), min(self._words, key=len)
        variable, number = b"A" * self.LETTERS, b"1" * self.DIGITS
        self.keys = self.words = Stock(len(self._words), longest, shortest, self._draw_words)
        self.variables = Stock(26**self.LETTERS, variable, variable, self._draw_variables)
        self.values = Stock(9 * 10 ** (self.DIGITS - 1), number, number, self._draw_numbers)
        self.dots = b"... "
        self._is_noise = options["haystack"] == "noise"
        units = self.SENTENCES if self._is_noise else (self.unit(longest),)
        self.largest_unit = max(map(len, units))

    def opening(self, kind: str) -> Piece:
        if kind.startswith("niah"):
            return b"Some special magic numbers are hidden in this text. Remember them.\n"
        return {
            "variable_tracking": b"Follow the chains of variables that are hidden in this text.\n",
            "common_words": b"Remember which words of this list stand there most often.\n",
            "frequent_words": b"Count the coded words of this text, but not the dots.\n",
        }[kind]

    def hay(self, random: np.random.Generator, room: int, keys: Sequence[Piece]) -> Hay:
        if self._is_noise:
            first = int(random.integers(len(self.SENTENCES)))
            rounds = room // sum(map(len, self.SENTENCES)) + 1
            units = [*self.SENTENCES[first:], *self.SENTENCES * rounds]
        else:
            most = room // len(self.unit(self.words.shortest))
            places = random.integers(len(self._words) - len(keys), size=most)
            # Those after a key that is left out move up by one.
            for key in sorted(self._place[bytes(key)] for key in keys):
                places += places >= key
            units = [bytes(self.unit(self._words[place])) for place in places.tolist()]
        ends = np.concatenate([[0], np.cumsum([len(unit) for unit in units], dtype=np.int64)])
        fitting = int(np.searchsorted(ends, room, side="right"))
        return Hay(b"".join(units[: fitting - 1]), ends[:fitting].tolist())

    def needle(self, key: Piece, value: Piece) -> Piece:
        return b"One of the special magic numbers for %b is: %b. " % (bytes(key), bytes(value))

    def assignment(self, variable: Piece, source: Piece, *, is_variable: bool) -> Piece:
        return b"VAR %b = %b%b. " % (bytes(variable), b"VAR " if is_variable else b"", bytes(source))

    def unit(self, word: Piece) -> Piece:
        return bytes(word) + b" "

    def question(self, kind: str, asked: Sequence[Piece], answers: int) -> Piece:
        names = b", ".join(map(bytes, asked))
        if kind.startswith("niah"):
            what = b"What are all the special magic numbers for %b in this text? They are:" % names
        elif kind == "variable_tracking":
            what = b"Which %d variables of this text have the value %b? They are:" % (answers, names)
        elif kind == "common_words":
            what = b"Which %d words are the most common of this list? They are:" % answers
        else:
            what = b"Which %d coded words are the most frequent of this text? They are:" % answers
        return b"\nQuestion: %b" % what

    def answer(self, items: Sequence[Piece]) -> Piece:
        return b" %b\n" % b", ".join(map(bytes, items))

    def _draw_words(self, random: np.random.Generator, count: int) -> list[Piece]:
        return [self._words[place] for place in random.choice(len(self._words), count, replace=False).tolist()]

    def _draw_variables(self, random: np.random.Generator, count: int) -> list[Piece]:
        drawn = _different(random, self.variables.size, count)
        return [bytes(65 + place // 26**power % 26 for power in range(self.LETTERS)) for place in drawn]

    def _draw_numbers(self, random: np.random.Generator, count: int) -> list[Piece]:
        least = 10 ** (self.DIGITS - 1)
        return [b"%d" % (least + number) for number in _different(random, self.values.size, count)]


FORMS: Mapping[str, Callable[[Mapping[str, Any]], Form]] = {"tokens": Tokens, "words": Words}


def _different(random: np.random.Generator, choices: int, count: int) -> list[int]:
    """Different numbers below `choices`, which are far more than are drawn."""
    drawn: list[int] = []
    while len(set(drawn)) < count:
        drawn = random.integers(choices, size=count).tolist()
    return drawn


def _tokens_of(tokens: range) -> Callable[[np.random.Generator, int], list[Piece]]:
    def draw(random: np.random.Generator, count: int) -> list[Piece]:
        return [(tokens.start + place,) for place in random.choice(len(tokens), count, replace=False).tolist()]

    return draw


def _rows(tokens: range, size: int) -> Callable[[np.random.Generator, int], list[Piece]]:
    """Values of several tokens: their first tokens are different, the others whatever they are."""
    first = _tokens_of(tokens)

    def draw(random: np.random.Generator, count: int) -> list[Piece]:
        rest = random.integers(tokens.start, tokens.stop, size=(count, size - 1)).tolist()
        return [(*start, *others) for start, others in zip(first(random, count), rest, strict=True)]

    return draw
