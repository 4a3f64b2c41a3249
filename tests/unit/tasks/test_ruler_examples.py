"""Examples of RULER are what they claim, checked by readers that know nothing of how they are made."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.specs.tasks import RULER_KINDS
from nas.tasks.ruler import Ruler
from nas.tasks.ruler.forms import FORMS
from nas.tasks.ruler.kinds import KINDS, Example, zeta_counts
from nas.tasks.ruler.wordlist import word_list

NIAH = [name for name in RULER_KINDS if name.startswith("niah")]
MARKS = 8
NEEDLE, VARIABLE, QUESTION, CHAIN, COMMON, FREQUENT, ANSWER = range(1, MARKS)
SENTENCES = ["The river is wide.", "The hill is steep.", "The wind is mild.", "On we walk.", "Home is far from here."]


def complete(**options) -> dict:
    found = Ruler.spec.complete(options)
    assert not list(Ruler.spec.broken_rules(options))
    return found


@st.composite
def examples(draw, kinds, form):
    """Options, a length and an example of one of the kinds."""
    name = draw(st.sampled_from(kinds))
    options = {"kind": name, "form": form}
    if form == "tokens":
        options["vocabulary"] = draw(st.integers(100, 300))
        options["value_tokens"] = draw(st.integers(1, 3))
    else:
        options["haystack"] = draw(st.sampled_from(["noise", "words"]))
    ranges = {
        "needles": (2, 6),
        "chains": (1, 3),
        "hops": (1, 5),
        "common": (1, 12),
        "common_times": (4, 31),
        "other_times": (1, 3),
    }
    options |= {key: draw(st.integers(*ranges[key])) for key in RULER_KINDS[name]}
    options = complete(**options)
    kind = KINDS[name](name, FORMS[form](options), options)
    length = kind.shortest + draw(st.integers(0, 3) | st.integers(0, 1500))
    length = length if kind.longest is None else min(length, kind.longest)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return options, length, kind.room, kind.example(random, length)


def text_of(example: Example) -> str:
    return bytes(example.prompt).decode("ascii")


def words_expected(example: Example) -> list[str]:
    return [bytes(piece).decode("ascii") for piece in example.expected]


# --- tokens -----------------------------------------------------------------------------------------


def parts(vocabulary: int) -> tuple[range, range, range]:
    """Hay, keys and values: the last half of what is no mark is values, the quarter before it keys."""
    values, keys = (vocabulary - MARKS) // 2, (vocabulary - MARKS) // 4
    return (
        range(MARKS, vocabulary - values - keys),
        range(vocabulary - values - keys, vocabulary - values),
        range(vocabulary - values, vocabulary),
    )


def read_facts(body: list[int], mark: int, options: dict) -> tuple[list[tuple[int, tuple[int, ...]]], list[int]]:
    """(name, what it is given) of each fact, and the tokens between the facts."""
    hay, keys, values = parts(options["vocabulary"])
    facts, others, at = [], [], 0
    while at < len(body):
        if body[at] != mark:
            assert body[at] in hay
            others.append(body[at])
            at += 1
            continue
        name, at = body[at + 1], at + 2
        assert name in keys
        given = (body[at],) if body[at] in keys else tuple(body[at : at + options["value_tokens"]])
        assert body[at] in keys or all(token in values for token in given)
        facts.append((name, given))
        at += len(given)
    return facts, others


@given(examples(NIAH, "tokens"))
@settings(max_examples=80, deadline=None)
def test_needles_of_tokens_answer_their_question(drawn):
    options, length, room, example = drawn
    assert len(example.prompt) + len(example.answer) == length
    assert len(example.answer) == room
    asked_at = example.prompt.index(QUESTION)
    assert example.prompt.count(QUESTION) == 1 and example.prompt[-1] == ANSWER
    asked = example.prompt[asked_at + 1 : -1]
    facts, others = read_facts(example.prompt[:asked_at], NEEDLE, options)
    assert others
    kind, needles = options["kind"], options.get("needles", 1)
    assert len(facts) == needles == len({value for _, value in facts})
    assert len({key for key, _ in facts}) == (1 if kind == "niah_multivalue" else needles)
    assert len(asked) == (needles if kind == "niah_multiquery" else 1)
    found = tuple(value for key, value in facts if key in asked)
    assert found == example.expected
    assert example.answer == [token for value in found for token in value]
    assert len(found) == (1 if kind in ("niah_single", "niah_multikey") else needles)


@given(examples(["variable_tracking"], "tokens"))
@settings(max_examples=50, deadline=None)
def test_chains_of_tokens_answer_their_question(drawn):
    options, length, _, example = drawn
    assert len(example.prompt) + len(example.answer) == length
    asked_at = example.prompt.index(CHAIN)
    asked = tuple(example.prompt[asked_at + 1 : -1])
    assert example.prompt[-1] == ANSWER
    facts, _ = read_facts(example.prompt[:asked_at], VARIABLE, options)
    assert followed(facts, asked, options) == [piece[0] for piece in example.expected] == example.answer


def followed(facts, asked, options) -> list:
    """The variables that have the value, each named after the one that it gets its value from."""
    value_of = {}
    for name, source in facts:
        assert name not in value_of, "a variable is given a value once"
        other = source[0] if isinstance(source, tuple) and len(source) == 1 else source
        value_of[name] = value_of.get(other, source)
    assert len(value_of) == options["chains"] * (options["hops"] + 1)
    assert Counter(Counter(value_of.values()).values()) == {options["hops"] + 1: options["chains"]}
    return [name for name, value in value_of.items() if value == asked]


@given(examples(["common_words"], "tokens"))
@settings(max_examples=50, deadline=None)
def test_common_words_of_tokens_are_counted_exactly(drawn):
    options, length, _, example = drawn
    hay, _, values = parts(options["vocabulary"])
    assert len(example.prompt) + len(example.answer) == length
    assert example.prompt[-2:] == [COMMON, ANSWER]
    words = [token for token in example.prompt[:-2] if token not in hay]
    assert set(words) <= set(values)
    check_common(words, example.answer, example.shown, options)
    # What is left over would hold no further word.
    assert len(example.prompt) - 2 - len(words) < options["other_times"]


def check_common(words, expected, shown, options) -> None:
    times = Counter(words)
    assert len(expected) == options["common"] and shown == len(times) > len(expected)
    assert all(count in (options["common_times"], options["other_times"]) for count in times.values())
    # In the order of their first appearance.
    assert [word for word in times if times[word] == options["common_times"]] == list(expected)


@given(examples(["frequent_words"], "tokens"))
@settings(max_examples=50, deadline=None)
def test_frequent_words_of_tokens_follow_zetas_law(drawn):
    options, length, _, example = drawn
    hay, _, values = parts(options["vocabulary"])
    assert len(example.prompt) + len(example.answer) == length
    assert example.prompt[-2:] == [FREQUENT, ANSWER]
    body = example.prompt[:-2]
    words = [token for token in body if token != hay[0]]
    assert set(words) <= set(values)
    check_frequent(words, len(body) - len(words), example.answer, len(values))
    # As many as fit: of one word more in Zeta's count there would be too many.
    ranks = range(1, len(values) + 2)
    most = max(total for total in range(53, 2 * length) if law(total, ranks) <= len(body))
    assert law(most, ranks) - law(most, [1]) == len(words)


def law(total: int, ranks) -> int:
    """The words of these ranks, by Zeta's law."""
    return sum(math.floor(total * 6 / (math.pi * rank) ** 2) for rank in ranks)


def check_frequent(words, dots, expected, most) -> None:
    ranked = Counter(words).most_common()
    counts = [count for _, count in ranked]
    assert [word for word, _ in ranked[:3]] == list(expected)
    assert counts[0] > counts[1] > counts[2] > counts[3] >= 1
    # Rank k (the dots are the first) stands ⌊x/k²⌋ times for one x, and no word is missing that would stand once.
    ranks = range(2, len(counts) + 2)
    low = max(count * rank**2 for rank, count in zip(ranks, counts, strict=True))
    high = min((count + 1) * rank**2 for rank, count in zip(ranks, counts, strict=True))
    assert low < high
    assert low < (len(counts) + 2) ** 2 or len(counts) == most
    assert dots >= low


# --- words ------------------------------------------------------------------------------------------


@given(examples(NIAH, "words"))
@settings(max_examples=60, deadline=None)
def test_needles_of_words_answer_their_question(drawn):
    options, length, room, example = drawn
    opening, body, question = text_of(example).split("\n")
    assert opening and check_filled(length, room, example, options)
    facts = re.findall(r"One of the special magic numbers for (\w+) is: (\d+)\. ", body)
    rest = re.sub(r"One of the special magic numbers for \w+ is: \d+\. ", "", body)
    check_hay(rest, options, {key for key, _ in facts})
    asked = re.fullmatch(r"Question: .* for ([\w, ]+) in this text\? They are:", question)[1].split(", ")
    kind, needles = options["kind"], options.get("needles", 1)
    assert len(facts) == needles == len({value for _, value in facts})
    assert len({key for key, _ in facts}) == (1 if kind == "niah_multivalue" else needles)
    found = [value for key, value in facts if key in asked]
    assert found == words_expected(example) and all(len(value) == 7 for value in found)
    assert len(found) == (1 if kind in ("niah_single", "niah_multikey") else needles)
    assert bytes(example.answer).decode() == f" {', '.join(found)}\n"


def check_filled(length: int, room: int, example: Example, options: dict) -> bool:
    """The room for the longest answer is kept, and what is left is less than a unit of hay."""
    left = length - room - len(example.prompt)
    longest = max(map(len, SENTENCES)) + 1 if options.get("haystack") == "noise" else 7
    return len(example.answer) <= room and 0 <= left < longest


def check_hay(rest: str, options: dict, keys: set[str]) -> None:
    if options["haystack"] == "words":
        words = rest.split()
        assert words and set(words) <= {word.decode() for word in word_list()}
        assert not keys & set(words)
        return
    units = re.findall(r"[A-Z][a-z ]+\.", rest)
    assert units and rest == "".join(unit + " " for unit in units)
    first = SENTENCES.index(units[0])
    assert units == [SENTENCES[(first + place) % 5] for place in range(len(units))]


def test_hay_of_words_never_holds_a_key():
    form = FORMS["words"](complete(form="words", haystack="words"))
    words = list(word_list())
    left = [words.pop(place) for place in (8191, 4000, 0)]
    hay = form.hay(np.random.default_rng(0), 5000, words[::-1])
    assert Counter(bytes(hay.tokens).split()).keys() == set(left)


@given(examples(["variable_tracking"], "words"))
@settings(max_examples=40, deadline=None)
def test_chains_of_words_answer_their_question(drawn):
    options, length, room, example = drawn
    _, body, question = text_of(example).split("\n")
    assert check_filled(length, room, example, options)
    facts = re.findall(r"VAR ([A-Z]{5}) = (?:VAR )?(\w+)\. ", body)
    check_hay(re.sub(r"VAR [A-Z]{5} = (?:VAR )?\w+\. ", "", body), options, set())
    count, asked = re.fullmatch(r"Question: Which (\d+) variables .* value (\d+)\? They are:", question).groups()
    found = followed(facts, asked, options)
    assert found == words_expected(example) and len(found) == int(count)
    assert bytes(example.answer).decode() == f" {', '.join(found)}\n"


@given(examples(["common_words"], "words"))
@settings(max_examples=40, deadline=None)
def test_common_words_of_words_are_counted_exactly(drawn):
    options, length, room, example = drawn
    _, body, question = text_of(example).split("\n")
    assert f"Which {options['common']} words" in question
    words = [word for word in body.split() if word != "..."]
    check_common(words, words_expected(example), example.shown, options)
    assert 0 <= length - room - len(example.prompt) < len("... ")
    # What is left over would hold no further word: six letters and a space are the longest.
    assert 4 * body.count("...") < options["other_times"] * 7


@given(examples(["frequent_words"], "words"))
@settings(max_examples=40, deadline=None)
def test_frequent_words_of_words_follow_zetas_law(drawn):
    _, length, room, example = drawn
    _, body, question = text_of(example).split("\n")
    assert "Which 3 coded words" in question
    words = [word for word in body.split() if word != "..."]
    assert 0 <= length - room - len(example.prompt) < len("... ")
    check_frequent(words, body.count("..."), words_expected(example), len(word_list()))


# --- both -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", RULER_KINDS)
def test_the_shortest_and_the_longest_are_just_so(name, form):
    options = complete(kind=name, form=form)
    kind = KINDS[name](name, FORMS[form](options), options)
    for seed in range(20):
        example = kind.example(np.random.default_rng(seed), kind.shortest)
        assert len(example.prompt) + len(example.answer) <= kind.shortest
        assert example.shown >= len(example.expected) >= 1
        if kind.longest is not None:
            at_most = kind.example(np.random.default_rng(seed), kind.longest)
            assert kind.longest - 80 <= len(at_most.prompt) + len(at_most.answer) <= kind.longest


def test_the_counts_of_common_words_are_those_of_the_paper():
    options = complete(kind="common_words", vocabulary=256)
    example = KINDS["common_words"]("common_words", FORMS["tokens"](options), options).example(
        np.random.default_rng(0), 512
    )
    times = Counter(token for token in example.prompt[:-2] if token >= MARKS + 62)
    assert Counter(times.values()) == {30: 10, 3: 66}


def test_the_three_most_frequent_words_are_never_level_with_a_fourth():
    for total in range(53, 5000):
        counts = zeta_counts(total, 100)
        assert counts.tolist() == [math.floor(total * 6 / math.pi**2 / k**2 + 1e-12) for k in range(1, len(counts) + 1)]
        assert counts[1] > counts[2] > counts[3] > counts[4] >= 1


def test_words_are_different_and_none_is_a_part_of_another():
    words = word_list()
    assert len(words) == len(set(words)) == 8192 and list(words) == sorted(words)
    lengths = Counter(map(len, words))
    assert set(lengths) == {4, 6} and all(re.fullmatch(rb"([b-z][aeiou])+", word) for word in words)
    short = {word for word in words if len(word) == 4}
    assert not any(word[at : at + 4] in short for word in words if len(word) == 6 for at in range(3))
