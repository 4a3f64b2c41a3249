"""The kinds of examples: what is hidden, what is asked, and what it takes to answer.

In: a form, a random generator and a length. Out: an example of that length.

A length counts everything: opening, hay, question, and the room for the longest answer. Hay fills what
the rest leaves, never beyond the length: in tokens an example has exactly the length.

Source: Hsieh et al. 2024 (RULER). Its tasks of question answering need other data and are not here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.specs.tasks import FREQUENT_WORDS
from nas.tasks.ruler.forms import Form, Piece, Stock

ZETA_EXPONENT = 2
# The value of Zeta's function there.
_ZETA = math.pi**2 / 6
# The fewest words drawn by Zeta's law of which the fourth stands more often than the fifth, and the fifth at all.
_FEWEST_FREQUENT = 53


@dataclass(frozen=True)
class Example:
    """One example.

    Attributes:
        prompt: what is read.
        answer: what is to be said then, its end included.
        expected: what an answer must hold, in the order in which `answer` says it.
        shown: how many things of that sort the prompt shows.
        depths: where what is asked for or leads to it stands in the hay, from 0 (first) to 1 (last), in
            its order in the prompt; none where the words of the whole prompt are counted.
    """

    prompt: list[int]
    answer: list[int]
    expected: tuple[tuple[int, ...], ...]
    shown: int
    depths: tuple[float, ...] = ()


class Kind(ABC):
    """A kind of examples.

    Args:
        name: of the kind.
        form: how it is put.
        options: of the task, complete.

    Attributes:
        stock: what answers are drawn from.
        room: tokens of the longest answer.
        shortest: tokens of the shortest example.
        longest: tokens of the longest, or None where there is none.
    """

    stock: Stock
    room: int
    shortest: int
    longest: int | None = None

    def __init__(self, name: str, form: Form, options: Mapping[str, Any]) -> None:
        self.name = name
        self.form = form

    @abstractmethod
    def example(self, random: np.random.Generator, length: int) -> Example:
        """An example of so many tokens, between `shortest` and `longest`."""

    def frame(self, asked: Sequence[Piece], answers: int) -> tuple[Piece, Piece]:
        """What stands before and behind the rest."""
        return self.form.opening(self.name), self.form.question(self.name, asked, answers)


@dataclass(frozen=True)
class Hidden:
    """What is put in the hay, in its order there.

    Attributes:
        facts: each of them.
        asked: what the question names.
        expected: what it asks for.
        wanted: the places in `facts` of what has to be found.
        shown: how many things of the sort asked for there are.
        keys: of all needles.
    """

    facts: list[Piece]
    asked: list[Piece]
    expected: list[Piece]
    wanted: list[int]
    shown: int
    keys: list[Piece]


class Haystack(Kind):
    """Facts that are hidden in hay, each at a random place of its own."""

    def __init__(self, name: str, form: Form, options: Mapping[str, Any]) -> None:
        super().__init__(name, form, options)
        facts, asked, answers = self.longest_facts()
        self.room = len(form.answer([self.stock.longest] * answers))
        opening, question = self.frame(asked, answers)
        fixed = len(opening) + sum(map(len, facts)) + len(question) + self.room
        # At least one unit of hay.
        self.shortest = fixed + form.largest_unit

    @abstractmethod
    def longest_facts(self) -> tuple[list[Piece], list[Piece], int]:
        """Facts, what is asked, as long as they come, and how many answers are expected."""

    @abstractmethod
    def hide(self, random: np.random.Generator) -> Hidden:
        """What an example says."""

    def example(self, random: np.random.Generator, length: int) -> Example:
        hidden, form = self.hide(random), self.form
        opening, question = self.frame(hidden.asked, len(hidden.expected))
        fixed = len(opening) + sum(map(len, hidden.facts)) + len(question) + self.room
        hay = form.hay(random, length - fixed, hidden.keys)
        gaps = np.sort(random.integers(len(hay.ends), size=len(hidden.facts))).tolist()
        prompt, start = list(opening), 0
        for fact, gap in zip(hidden.facts, gaps, strict=True):
            prompt += hay.tokens[start : hay.ends[gap]]
            prompt += fact
            start = hay.ends[gap]
        prompt += hay.tokens[start:]
        prompt += question
        units = len(hay.ends) - 1
        return Example(
            prompt=prompt,
            answer=list(form.answer(hidden.expected)),
            expected=tuple(map(tuple, hidden.expected)),
            shown=hidden.shown,
            depths=tuple(gaps[place] / units for place in hidden.wanted),
        )


class Needles(Haystack):
    """Keys with values; what is asked for depends on the kind."""

    def __init__(self, name: str, form: Form, options: Mapping[str, Any]) -> None:
        self.stock = form.values
        self.needles = 1 if name == "niah_single" else int(options["needles"])
        super().__init__(name, form, options)

    def longest_facts(self) -> tuple[list[Piece], list[Piece], int]:
        key, value = self.form.keys.longest, self.form.values.longest
        asked = self.needles if self.name == "niah_multiquery" else 1
        answers = 1 if self.name == "niah_multikey" else self.needles
        return [self.form.needle(key, value)] * self.needles, [key] * asked, answers

    def hide(self, random: np.random.Generator) -> Hidden:
        count = self.needles
        keys = self.form.keys.draw(random, 1 if self.name == "niah_multivalue" else count)
        values = self.form.values.draw(random, count)
        owners = keys * count if self.name == "niah_multivalue" else keys
        # Any one will do: their order in the hay is that of drawing.
        wanted = [int(random.integers(count))] if self.name == "niah_multikey" else list(range(count))
        return Hidden(
            facts=[self.form.needle(key, value) for key, value in zip(owners, values, strict=True)],
            asked=keys if self.name == "niah_multiquery" else [owners[wanted[0]]],
            expected=[values[place] for place in wanted],
            wanted=wanted,
            shown=count,
            keys=keys,
        )


class Chains(Haystack):
    """Variables that get a value, and others that get theirs: all that end up with one value are asked for."""

    def __init__(self, name: str, form: Form, options: Mapping[str, Any]) -> None:
        self.stock = form.variables
        self.chains, self.size = int(options["chains"]), int(options["hops"]) + 1
        super().__init__(name, form, options)

    def longest_facts(self) -> tuple[list[Piece], list[Piece], int]:
        variable, value = self.form.variables.longest, self.form.values.longest
        first = self.form.assignment(variable, value, is_variable=False)
        further = self.form.assignment(variable, variable, is_variable=True)
        facts = [first] * self.chains + [further] * self.chains * (self.size - 1)
        return facts, [value], self.size

    def hide(self, random: np.random.Generator) -> Hidden:
        variables = self.form.variables.draw(random, self.chains * self.size)
        values = self.form.values.draw(random, self.chains)
        # The chains in any order among each other, but the links of one in theirs.
        turns = random.permutation(np.repeat(np.arange(self.chains), self.size)).tolist()
        wanted, facts, reached = int(random.integers(self.chains)), [], [0] * self.chains
        for chain in turns:
            place = chain * self.size + reached[chain]
            is_variable = reached[chain] > 0
            source = variables[place - 1] if is_variable else values[chain]
            facts.append(self.form.assignment(variables[place], source, is_variable=is_variable))
            reached[chain] += 1
        return Hidden(
            facts=facts,
            asked=[values[wanted]],
            expected=variables[wanted * self.size : (wanted + 1) * self.size],
            wanted=[place for place, chain in enumerate(turns) if chain == wanted],
            shown=len(variables),
            keys=[],
        )


class Counted(Kind):
    """Words in random order, some of them more often than others; what is left over is filled with dots."""

    asked: int

    def __init__(self, name: str, form: Form, options: Mapping[str, Any]) -> None:
        super().__init__(name, form, options)
        self.stock = form.words
        self.room = len(form.answer([form.words.longest] * self.asked))
        self.fixed = sum(map(len, self.frame([], self.asked))) + self.room

    def assemble(
        self, random: np.random.Generator, length: int, words: list[Piece], times: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """The prompt, and the words in the order of their first appearance, as places in `words`."""
        opening, question = self.frame([], self.asked)
        units = [self.form.unit(word) for word in words]
        used = sum(len(unit) * count for unit, count in zip(units, times, strict=True))
        units.append(self.form.dots)
        dots = (length - self.fixed - used) // len(self.form.dots)
        order = random.permutation(np.repeat(np.arange(len(units)), [*times, dots])).tolist()
        prompt = list(opening)
        for place in order:
            prompt += units[place]
        prompt += question
        return prompt, list(dict.fromkeys(order))

    def put(self, prompt: list[int], expected: Sequence[Piece], shown: int) -> Example:
        """The example."""
        return Example(prompt, list(self.form.answer(expected)), tuple(map(tuple, expected)), shown)


class CommonWords(Counted):
    """Some words stand many times and all others a few times: as many others as fit."""

    def __init__(self, name: str, form: Form, options: Mapping[str, Any]) -> None:
        self.asked, self.times = int(options["common"]), int(options["common_times"])
        self.other_times = int(options["other_times"])
        super().__init__(name, form, options)
        largest, smallest = len(form.unit(form.words.longest)), len(form.unit(form.words.shortest))
        common = self.asked * self.times
        self.shortest = self.fixed + (common + self.other_times) * largest
        # With one more unit there would be room for a word too many.
        others = form.words.size - self.asked
        self.longest = self.fixed + (common + (others + 1) * self.other_times) * smallest - 1

    def example(self, random: np.random.Generator, length: int) -> Example:
        form, asked = self.form, self.asked
        common = form.words.draw(random, min(form.words.size, self._most_words(length)))
        common, others = common[:asked], common[asked:]
        room = length - self.fixed - self.times * sum(len(form.unit(word)) for word in common)
        sizes = np.cumsum([self.other_times * len(form.unit(word)) for word in others])
        others = others[: int(np.searchsorted(sizes, room, side="right"))]
        times = [self.times] * asked + [self.other_times] * len(others)
        prompt, order = self.assemble(random, length, common + others, times)
        return self.put(prompt, [common[place] for place in order if place < asked], len(times))

    def _most_words(self, length: int) -> int:
        """The common ones, and as many others as could ever fit."""
        smallest = len(self.form.unit(self.form.words.shortest))
        room = length - self.fixed - self.asked * self.times * smallest
        return self.asked + room // (self.other_times * smallest)


class FrequentWords(Counted):
    """The k-th most frequent word of N stands ⌊N·k⁻²/ζ(2)⌋ times; the most frequent is the dots, which are no word."""

    asked = FREQUENT_WORDS

    def __init__(self, name: str, form: Form, options: Mapping[str, Any]) -> None:
        super().__init__(name, form, options)
        dots, *times = zeta_counts(_FEWEST_FREQUENT, form.words.size + 1).tolist()
        self.shortest = self.fixed + dots * len(form.dots) + sum(times) * len(form.unit(form.words.longest))

    def example(self, random: np.random.Generator, length: int) -> Example:
        form, room = self.form, length - self.fixed
        # Dots alone would fill the room with so many.
        most = math.ceil(_ZETA * (room // len(form.dots) + 1))
        words = form.words.draw(random, min(form.words.size, math.isqrt(room // len(form.dots) + 1)))
        sizes_K = np.array([len(form.dots), *(len(form.unit(word)) for word in words)])
        low, high = _FEWEST_FREQUENT, max(most, _FEWEST_FREQUENT + 1)
        while high - low > 1:
            middle = (low + high) // 2
            counts_K = zeta_counts(middle, len(sizes_K))
            low, high = (middle, high) if counts_K @ sizes_K[: len(counts_K)] <= room else (low, middle)
        times = zeta_counts(low, len(sizes_K))[1:].tolist()
        prompt, _ = self.assemble(random, length, words[: len(times)], times)
        return self.put(prompt, words[: self.asked], len(times))


def zeta_counts(total: int, ranks: int) -> NDArray[np.int64]:
    """How often the words of the first ranks stand: those that stand at all, ⌊total·k⁻²/ζ(2)⌋ each.

    >>> zeta_counts(53, 100).tolist()
    [32, 8, 3, 2, 1]
    """
    rank_K = np.arange(1, min(ranks, math.isqrt(int(total / _ZETA))) + 1)
    return (total / _ZETA / rank_K**ZETA_EXPONENT).astype(np.int64)


KINDS: Mapping[str, Callable[[str, Form, Mapping[str, Any]], Kind]] = {
    "niah_single": Needles,
    "niah_multikey": Needles,
    "niah_multivalue": Needles,
    "niah_multiquery": Needles,
    "variable_tracking": Chains,
    "common_words": CommonWords,
    "frequent_words": FrequentWords,
}
