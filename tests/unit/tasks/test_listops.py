"""Lists of ListOps come to what they are said to come to, by an evaluator that knows nothing of how they are made."""

from __future__ import annotations

import statistics
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import DataError
from nas.specs import task_spec
from nas.specs.tasks import LISTOPS_OPERATORS
from nas.tasks.listops import ListOps
from nas.tasks.listops.expressions import VOCABULARY, Sizes, lists, text_of, values_of

SPEC = task_spec("listops")
SMALL = {"shortest": 12, "longest": 60, "training_examples": 300, "evaluation_examples": 50}
OPERATORS = {
    "MIN": min,
    "MAX": max,
    "MED": lambda digits: int(statistics.median(digits)),
    "SM": lambda digits: sum(digits) % 10,
}


def evaluated(text: str) -> tuple[int, int, set[int]]:
    """The value of a list in symbols, the depth of its deepest digit, and how many arguments its lists have."""
    symbols = text.split()
    seen: set[int] = set()
    deepest = 0

    def read(at: int, depth: int) -> tuple[int, int]:
        nonlocal deepest
        if symbols[at].isdigit():
            deepest = max(deepest, depth)
            return int(symbols[at]), at + 1
        assert symbols[at][0] == "["
        operator, arguments = OPERATORS[symbols[at][1:]], []
        at += 1
        while symbols[at] != "]":
            value, at = read(at, depth + 1)
            arguments.append(value)
        seen.add(len(arguments))
        return operator(arguments), at + 1

    value, end = read(0, 1)
    assert end == len(symbols)
    return value, deepest, seen


@st.composite
def sizes(draw):
    shortest = draw(st.integers(4, 60))
    depth, arguments = draw(st.integers(2, 8)), draw(st.integers(2, 12))
    return Sizes(shortest, shortest + draw(st.integers(0, 200)), depth, arguments)


@given(sizes(), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_a_list_has_the_sizes_that_were_asked_for_and_its_value(wanted: Sizes, seed: int) -> None:
    found, values = lists(np.random.default_rng(seed), wanted, 60)
    assert len(found) == len(values)
    for tokens, value in zip(found, values.tolist(), strict=True):
        assert wanted.shortest <= len(tokens) <= wanted.longest
        expected, depth, arguments = evaluated(text_of(tokens))
        assert value == expected
        assert depth <= wanted.max_depth and min(arguments) >= 2 and max(arguments) <= wanted.max_arguments


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 9), min_size=1, max_size=12)), max_size=20))
@settings(max_examples=200, deadline=None)
def test_operators_are_minimum_maximum_integer_median_and_sum_modulo_ten(given_lists) -> None:
    operators = np.array([operator for operator, _ in given_lists], dtype=np.int64)
    digits = np.array([digit for _, part in given_lists for digit in part], dtype=np.uint8)
    counts = np.array([len(part) for _, part in given_lists], dtype=np.int64)
    expected = [OPERATORS[LISTOPS_OPERATORS[operator]](part) for operator, part in given_lists]
    assert values_of(operators, digits, counts).tolist() == expected


def test_a_known_list_has_its_tokens_and_its_value() -> None:
    symbols = [str(digit) for digit in range(10)] + ["[MIN", "[MAX", "[MED", "[SM", "]"]
    assert text_of(np.arange(VOCABULARY, dtype=np.uint8)).split() == symbols
    assert evaluated("[MAX 2 9 [MIN 4 7 ] 0 ]")[:2] == (9, 3)
    assert evaluated("[MED 1 4 ]")[0] == 2


def test_arguments_are_lists_in_a_quarter_of_the_cases_and_numbers_of_arguments_are_even() -> None:
    found, _ = lists(np.random.default_rng(0), Sizes(4, 200, 3, 10), 4000)
    # At depth 3 there is no list any more, and nothing of that depth is longer than 200.
    assert len(found) == 4000
    arguments, nested = Counter(), 0
    for tokens in found:
        text = text_of(tokens).split()
        level, own = 0, 0
        for symbol in text:
            own += level == 1 and symbol != "]"
            nested += level == 1 and symbol[0] == "["
            level += (symbol[0] == "[") - (symbol == "]")
        arguments[own] += 1
    assert set(arguments) == set(range(2, 11))
    assert max(abs(count / 4000 - 1 / 9) for count in arguments.values()) < 5 * (1 / 9 / 4000) ** 0.5
    total = sum(own * count for own, count in arguments.items())
    assert abs(nested / total - 0.25) < 5 * (0.25 * 0.75 / total) ** 0.5
    opened = Counter(symbol for tokens in found for symbol in text_of(tokens).split() if symbol[0] == "[")
    share = {symbol: count / opened.total() for symbol, count in opened.items()}
    assert set(share) == {"[MIN", "[MAX", "[MED", "[SM"}
    assert max(abs(found - 0.25) for found in share.values()) < 5 * (0.1875 / opened.total()) ** 0.5


def rows(task: ListOps, name: str) -> list[bytes]:
    tokens = task.part(name).tokens
    return [tokens[row].tobytes() for row in range(len(tokens))]


def test_no_list_stands_twice_in_a_part_or_in_two() -> None:
    task = ListOps({**SMALL, "shortest": 4, "longest": 7})
    parts = {name: rows(task, name) for name in ("train", "validation", "test")}
    assert [len(part) for part in parts.values()] == [300, 50, 50]
    assert len(set().union(*parts.values())) == 400


def test_the_lists_are_the_same_whenever_they_are_made(tmp_path, monkeypatch) -> None:
    first = ListOps(SMALL)
    monkeypatch.setenv("NAS_CACHE", str(tmp_path))
    again = ListOps(SMALL)
    assert list(tmp_path.iterdir())
    for name in ("train", "validation", "test"):
        assert rows(first, name) == rows(again, name)
        assert (first.part(name).value_N == again.part(name).value_N).all()
    assert ListOps({**SMALL, "max_arguments": 9}).data_version != again.data_version == first.data_version


def test_the_defaults_are_the_arena_s() -> None:
    assert SPEC.complete({}) == {
        "shortest": 501,
        "longest": 1999,
        "max_depth": 10,
        "max_arguments": 10,
        "training_examples": 96_000,
        "evaluation_examples": 2_000,
        "too_long": "truncate",
    }
    assert SPEC.families_for({}) == {"decoder", "encoder"}


def test_an_epoch_reads_every_list_of_a_fixed_set() -> None:
    task = ListOps(SMALL)
    train = dict(zip(rows(task, "train"), task.part("train").value_N.tolist(), strict=True))
    read: Counter[bytes] = Counter()
    steps = 0
    while len(read) < 300:
        batch = task.training_batch(seed=0, step=steps, tokens=120, max_context=60)
        lengths = batch.inputs.lengths_B
        sizes = [batch.inputs_BL.shape[1]] * len(batch.inputs_BL) if lengths is None else lengths.tolist()
        for row, size, target in zip(batch.inputs_BL, sizes, batch.targets_BL.tolist(), strict=True):
            found = row[:size].numpy().astype(np.uint8).tobytes()
            assert train[found] == target
            read[found] += 1
        steps += 1
    # Only the last step of each of sixteen classes is filled up from its beginning.
    assert max(read.values()) <= 2 and read.total() < 300 + 16 * 10


def test_fresh_lists_are_new_at_every_step_and_none_is_held_out() -> None:
    fixed, task = ListOps(SMALL), ListOps({**SMALL, "training_examples": 0})
    held_out = set(rows(task, "validation")) | set(rows(task, "test"))
    assert held_out == set(rows(fixed, "validation")) | set(rows(fixed, "test"))
    read = []
    for step in range(0, 100, 2):
        batch = task.training_batch(seed=0, step=step, tokens=600, max_context=60)
        lengths = batch.inputs.lengths_B
        sizes = [batch.inputs_BL.shape[1]] * len(batch.inputs_BL) if lengths is None else lengths.tolist()
        for row, size, target in zip(batch.inputs_BL, sizes, batch.targets_BL.tolist(), strict=True):
            tokens = row[:size].numpy().astype(np.uint8)
            assert evaluated(text_of(tokens))[0] == target
            read.append(tokens.tobytes())
    assert not held_out & set(read)
    # Short lists turn up again by chance, and the end of a class is filled up from its beginning.
    assert len(set(read)) > 0.9 * len(read)


@pytest.mark.parametrize("too_long", ["truncate", "head_tail", "window"])
@pytest.mark.parametrize("context", [16, 30, 200])
def test_a_shorter_context_reads_what_it_holds_of_each_list(too_long: str, context: int) -> None:
    task = ListOps({**SMALL, "too_long": too_long})
    part = task.part("test")
    read: dict[int, int] = {}
    for batch in task.evaluation_batches("test", context=context, tokens_per_batch=500):
        lengths = batch.inputs.lengths_B
        sizes = [batch.inputs_BL.shape[1]] * len(batch.inputs_BL) if lengths is None else lengths.tolist()
        assert batch.example_B is not None
        for example, size, target in zip(batch.example_B.tolist(), sizes, batch.targets_BL.tolist(), strict=True):
            assert size <= context and target == part.value_N[example]
            read[example] = max(read.get(example, 0), size)
    lengths_N = part.tokens.lengths
    assert read == {example: min(int(length), context) for example, length in enumerate(lengths_N)}
    cut = task.known_scores("test", context=context)["cut_share"]
    expected = 0.0 if too_long == "window" else 1 - np.minimum(lengths_N, context).sum() / lengths_N.sum()
    assert cut == pytest.approx(expected)


def test_the_baseline_says_the_most_frequent_digit() -> None:
    task = ListOps(SMALL)
    share = np.bincount(task.part("validation").value_N, minlength=10) / 50
    found = task.baseline("validation")
    assert found["accuracy"] == pytest.approx(share.max())
    assert found["classification_loss"] == pytest.approx(-sum(p * np.log(p) for p in share if p))
    assert found["macro_f1"] == pytest.approx(2 * share.max() / (1 + share.max()) / 10, abs=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shortest": 100, "longest": 50}, "longest must be at least shortest = 100, not 50: nearest 100"),
        (
            {"shortest": 13, "max_depth": 2},
            "shortest must be at most 12, the longest list of max_depth 2 and max_arguments 10, not 13: nearest 12",
        ),
        ({"too_long": "head"}, "unknown too_long 'head': did you mean 'head_tail'"),
        ({"shortest": 3}, "shortest must be at least 4, not 3"),
        (
            # 4 operators and two digits: 400 lists.
            {**SMALL, "shortest": 4, "longest": 4, "training_examples": 301},
            "only 300 of the 301 lists .* too few differ",
        ),
        ({**SMALL, "shortest": 400, "longest": 401, "max_depth": 4}, "only 0 of the 50 lists .* are too rare"),
    ],
)
def test_what_cannot_be_had_is_refused(options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ListOps(options)
