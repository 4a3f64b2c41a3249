"""Pieces of words as tokens: every text comes back, specials are never spelt, JSON holds all."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import CheckpointError, DataError
from nas.tasks.tokenizers import Tokenizer, make_tokenizer, tokenizer_from_json
from nas.tasks.tokenizers.subword import BETWEEN_LINES, byte_alphabet

tokenizers = pytest.importorskip("tokenizers")
WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "while",
    "seven",
    "wörter",
    "und",
    "Wörter",
    "水",
    "went",
    "running",
    "home",
    "again",
    "😀",
]
TEXTS = [" ".join(random.Random(seed).choices(WORDS, k=40)) + "\n" for seed in range(60)]
MADE = {
    kind: make_tokenizer({"kind": kind, "vocabulary": 400}, specials=["<mask>"], texts=TEXTS)
    for kind in ("bpe", "unigram")
}


@pytest.fixture(params=MADE)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return MADE[request.param]


@given(text=st.text(max_size=200), kind=st.sampled_from(sorted(MADE)))
@settings(deadline=None)
def test_every_text_comes_back_and_its_bytes_add_up(text: str, kind: str) -> None:
    tokenizer = MADE[kind]
    ids = tokenizer.encode(text)
    assert all(0 <= token < tokenizer.document for token in ids)
    assert tokenizer.decode(ids) == text == "".join(tokenizer.decode_stream(iter(ids)))
    assert int(tokenizer.byte_lengths_V[ids].sum()) == len(text.encode())
    assert all(len(piece) == 0 or "\ufffd" not in piece or "\ufffd" in text for piece in tokenizer.decode_stream(ids))


def test_frequent_words_are_few_tokens(tokenizer: Tokenizer) -> None:
    # With few kinds beside the 256 bytes a unigram model spends most of them on bytes.
    most = {"bpe": 0.5, "unigram": 0.95}[tokenizer.kind]
    assert len(tokenizer.encode(TEXTS[0])) < most * len(TEXTS[0].encode())
    assert tokenizer.vocabulary <= 400 and tokenizer.exact_bytes


def test_specials_stand_behind_the_text_and_no_text_spells_them(tokenizer: Tokenizer) -> None:
    assert tokenizer.specials == ("<document>", "<mask>")
    assert tokenizer.special("<mask>") == tokenizer.document + 1 == tokenizer.vocabulary - 1
    assert tokenizer.byte_lengths_V[tokenizer.document :].tolist() == [0, 0]
    ids = tokenizer.encode("<document><mask>")
    assert tokenizer.decode(ids) == "<document><mask>" and max(ids) < tokenizer.document
    assert tokenizer.decode([*ids, tokenizer.document]) == "<document><mask>"


def test_json_gives_the_tokenizer_back(tokenizer: Tokenizer) -> None:
    again = tokenizer_from_json(tokenizer.to_json())
    assert again.to_json() == tokenizer.to_json() and again.kind == tokenizer.kind
    assert again.encode(TEXTS[1]) == tokenizer.encode(TEXTS[1])
    damaged = json.loads(tokenizer.to_json()) | {"library": {"model": 3}}
    with pytest.raises(CheckpointError, match="cannot read this tokenizer"):
        tokenizer_from_json(json.dumps(damaged))
    with pytest.raises(CheckpointError, match="'specials' and 'library'"):
        tokenizer_from_json('{"kind": "bpe"}')


def test_bpe_is_made_the_same_twice() -> None:
    again = make_tokenizer({"kind": "bpe", "vocabulary": 400}, specials=["<mask>"], texts=TEXTS)
    assert again.to_json() == MADE["bpe"].to_json()


@given(st.text(alphabet="ab \n.!é", min_size=1, max_size=80))
@settings(deadline=None)
def test_a_long_text_is_cut_where_no_token_reaches_over(text: str) -> None:
    whole = MADE["bpe"].encode(text)
    cuts = [0, *(found.start() for found in BETWEEN_LINES.finditer(text)), len(text)]
    pieces = [text[first:last] for first, last in itertools.pairwise(cuts)]
    assert [token for piece in pieces for token in MADE["bpe"].encode(piece)] == whole


def test_the_alphabet_is_the_librarys() -> None:
    assert set(byte_alphabet().values()) == set(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert len(byte_alphabet()) == 256


def test_a_vocabulary_without_room_for_the_bytes_is_refused() -> None:
    with pytest.raises(DataError, match="256 bytes and 3 specials: 258 is below 259, the nearest valid one"):
        make_tokenizer({"kind": "bpe", "vocabulary": 258}, specials=["<a>", "<b>"], texts=TEXTS)


def test_a_tokenizer_of_the_hub_keeps_its_tokens_and_takes_our_specials(tmp_path: Path) -> None:
    library = json.loads(MADE["bpe"].to_json())["library"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(library))
    loaded = make_tokenizer({"kind": "hugging_face", "path": str(tmp_path)}, specials=["<end>"])
    assert loaded.encode(TEXTS[0]) == MADE["bpe"].encode(TEXTS[0])
    assert loaded.exact_bytes and loaded.specials == ("<document>", "<end>")
    library["normalizer"] = {"type": "Lowercase"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(library))
    lower = make_tokenizer({"kind": "hugging_face", "path": str(tmp_path / "tokenizer.json")})
    assert not lower.exact_bytes and lower.decode(lower.encode("The CAT")) == "the cat"
    with pytest.raises(DataError, match=r"a folder with tokenizer.json: there is no .*nowhere"):
        make_tokenizer({"kind": "hugging_face", "path": str(tmp_path / "nowhere")})
