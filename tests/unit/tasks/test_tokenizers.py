import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import CheckpointError, DataError
from nas.tasks.tokenizers import ByteTokenizer, tokenizer_from_json

tokenizer = ByteTokenizer()


@given(st.text())
@settings(deadline=None)
def test_decoding_gives_the_encoded_text_back(text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text())
@settings(deadline=None)
def test_a_stream_of_a_text_yields_its_whole_characters(text):
    assert list(tokenizer.decode_stream(iter(tokenizer.encode(text)))) == list(text)


@given(st.lists(st.integers(0, 256)))
@settings(deadline=None)
def test_any_tokens_decode_alike_whole_and_streamed(ids):
    expected = bytes(token for token in ids if token != 256).decode(errors="replace")
    assert "".join(tokenizer.decode_stream(iter(ids))) == tokenizer.decode(ids) == expected


def test_an_incomplete_character_is_held_back_until_it_is_whole():
    given_so_far = []

    def ids():
        for token in "é水".encode():
            yield token
            given_so_far.append(token)

    arrived = [(text, len(given_so_far) + 1) for text in tokenizer.decode_stream(ids())]
    assert arrived == [("é", 2), ("水", 5)]


def test_a_character_that_never_ends_becomes_a_replacement():
    assert list(tokenizer.decode_stream([97, 0xE6, 0xB0])) == ["a", "\ufffd"]


def test_specials_are_in_the_vocabulary_and_say_nothing():
    assert (tokenizer.vocabulary, tokenizer.document) == (257, 256)
    assert tokenizer.decode([256, 97, 256, 98]) == "ab"


@pytest.mark.parametrize("token", [-1, 257])
def test_a_token_outside_the_vocabulary_is_refused(token):
    with pytest.raises(DataError, match=rf"must be in 0\.\.256, not {token}"):
        tokenizer.decode([97, token])


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(DataError, match="character 1"):
        tokenizer.encode("a\ud800")


def test_json_gives_the_tokenizer_back():
    text = tokenizer.to_json()
    assert isinstance(tokenizer_from_json(text), ByteTokenizer)
    assert ByteTokenizer.from_json(text).to_json() == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "JSON object; line 1"),
        ("[]", "not list"),
        (json.dumps({"kind": "bite"}), "unknown tokenizer kind 'bite': valid: byte"),
        (json.dumps({"kind": "byte", "vocabulary": 300}), "not by .*300"),
    ],
)
def test_json_of_another_tokenizer_is_refused(text, message):
    with pytest.raises(CheckpointError, match=message):
        tokenizer_from_json(text)


def test_further_specials_are_numbered_behind_the_document():
    more = ByteTokenizer(["<mask>", "<start>"])
    assert (more.vocabulary, more.document) == (259, 256)
    assert (more.special("<document>"), more.special("<mask>"), more.special("<start>")) == (256, 257, 258)
    assert more.decode([97, 258, 257, 98]) == "ab"
    with pytest.raises(DataError, match=r"must be in 0\.\.258, not 259"):
        more.decode([259])
    with pytest.raises(DataError, match="unknown special '<mark>': did you mean '<mask>'"):
        more.special("<mark>")


def test_json_gives_further_specials_back():
    more = ByteTokenizer(["<mask>", "<start>"])
    again = tokenizer_from_json(more.to_json())
    assert again.to_json() == more.to_json() and again.vocabulary == 259
    wrong = json.loads(more.to_json()) | {"specials": {"<document>": 256, "<mask>": 258, "<start>": 257}}
    with pytest.raises(CheckpointError, match="is described by"):
        tokenizer_from_json(json.dumps(wrong))


def test_without_further_specials_nothing_has_changed():
    expected = {"kind": "byte", "vocabulary": 257, "specials": {"<document>": 256}}
    assert ByteTokenizer().to_json() == json.dumps(expected)
