"""Answers to runs of tokens, and back, with bytes and with pieces of words."""

from __future__ import annotations

import random
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import DataError
from nas.tasks.extractive.places import covering, first_character, right_answers, text_between
from nas.tasks.tokenizers import ByteTokenizer, Tokenizer, make_tokenizer

WORDS = ["the", "cat", "naïve", "wörter", "水", "日本", "😀", "mat", "on", "a", "running"]
TEXTS = [" ".join(random.Random(seed).choices(WORDS, k=30)) for seed in range(40)]


HAS_LIBRARY = find_spec("tokenizers") is not None
TOKENIZERS: list[Tokenizer] = [
    ByteTokenizer(),
    *([make_tokenizer({"kind": "bpe", "vocabulary": 330}, texts=TEXTS)] if HAS_LIBRARY else []),
]
LETTERS = st.text(alphabet="at wrö水日😀\n", min_size=1, max_size=40)


def record(context: str, answers: list[str], start: int | None = None) -> dict[str, Any]:
    return {"context": context, "answers": answers, "answer_start": start, "_where": ("a.jsonl", 7)}


@given(text=LETTERS, data=st.data(), number=st.integers(0, len(TOKENIZERS) - 1))
@settings(deadline=None)
def test_the_tokens_of_an_answer_are_the_fewest_that_hold_it(text: str, data: st.DataObject, number: int) -> None:
    tokenizer = TOKENIZERS[number]
    first = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(first + 1, len(text)))
    (placed,) = tokenizer.encode_placed([text])
    assert placed.ids.tolist() == tokenizer.encode(text)
    raw = text.encode()
    for token, at, behind in zip(placed.ids, placed.first_N, placed.end_N, strict=True):
        assert raw[at:behind] == tokenizer.token_bytes(int(token))
    first_byte, end_byte = len(text[:first].encode()), len(text[:end].encode())
    span = covering(placed, first_byte, end_byte)
    assert span is not None
    runs = [(a, b) for a in range(len(placed.ids)) for b in range(a + 1, len(placed.ids) + 1)]
    holding = [(a, b) for a, b in runs if placed.first_N[a] <= first_byte and placed.end_N[b - 1] >= end_byte]
    assert span == min(holding, key=lambda run: run[1] - run[0])
    covered = text_between(raw, int(placed.first_N[span[0]]), int(placed.end_N[span[1] - 1]))
    assert text[first:end].strip() in covered and covered in text
    if isinstance(tokenizer, ByteTokenizer):
        assert covered == text[first:end].strip()


@given(text=LETTERS, data=st.data())
def test_a_text_between_bytes_is_of_whole_characters(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    first = data.draw(st.integers(0, len(raw) - 1))
    end = data.draw(st.integers(first + 1, len(raw)))
    starts = [len(text[:place].encode()) for place in range(len(text) + 1)]
    before = max(place for place, byte in enumerate(starts) if byte <= first)
    behind = min(place for place, byte in enumerate(starts) if byte >= end)
    assert text_between(raw, first, end) == text[before:behind].strip()


def test_no_token_for_an_answer_is_no_run() -> None:
    (placed,) = ByteTokenizer().encode_placed(["abc"])
    assert covering(placed, 3, 3) is None
    assert covering(placed, 0, 3) == (0, 3)


def test_an_answer_stands_where_the_record_says_else_where_it_stands_first() -> None:
    text = "naïve cat, other cat"
    assert first_character(record(text, ["cat"]), "cat") == 6
    assert first_character(record(text, ["cat"], 17), "cat") == 17
    for wrong in (16, -3, 400):
        with pytest.raises(DataError, match=rf"a.jsonl, row 7: .*does not stand at {wrong}: it does at 6"):
            first_character(record(text, ["cat"], wrong), "cat")


def test_answers_that_are_blank_are_none_and_others_must_stand_in_the_context() -> None:
    assert right_answers(record("a cat", ["", " ", "cat"])) == ["cat"]
    assert right_answers(record("a cat", [])) == []
    with pytest.raises(DataError, match=r"a.jsonl, row 7: the answer 'dog' does not stand in its context"):
        right_answers(record("a cat", ["cat", "dog"]))


def test_the_library_says_where_tokens_stand_that_are_not_on_bytes(tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers")
    made = library.Tokenizer(library.models.WordLevel({"[UNK]": 0, "naive": 1, "cat": 2, "水": 3}, "[UNK]"))
    made.normalizer = library.normalizers.BertNormalizer()
    made.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = make_tokenizer({"kind": "hugging_face", "path": str(tmp_path)})
    text = "A naïve  Cat 水"
    assert not tokenizer.exact_bytes
    (placed,) = tokenizer.encode_placed([text])
    assert placed.ids.tolist() == tokenizer.encode(text) == [0, 1, 2, 3]
    raw = text.encode()
    words = [raw[a:b].decode() for a, b in zip(placed.first_N, placed.end_N, strict=True)]
    assert words == ["A", "naïve", "Cat", "水"]
    with pytest.raises(DataError, match="valid Unicode"):
        tokenizer.encode_placed(["\ud800"])
