import math
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas.errors import DataError, InputError
from nas.export import text as language
from nas.export.bundle import Bundle
from nas.export.text import until_stop
from nas.models.build import build
from nas.space.architecture import Architecture
from nas.specs.tasks import TaskShape
from nas.tasks.tokenizers import ByteTokenizer

DOCUMENT = 256


def bundle(max_context: int = 16, seed: int = 0) -> Bundle:
    network = Architecture.from_mapping(
        {
            "family": "decoder",
            "width": 16,
            "max_context": max_context,
            "layers": [
                {"mixer": "sliding_window", "window": 4, "heads": 2, "mlp_ratio": 2, "short_conv": 2},
                {"mixer": "full", "heads": 2, "mlp_ratio": 2},
            ],
        }
    ).bind(TaskShape(vocabulary=257, head="causal_lm"))
    model = build(network, seed=seed).eval()
    with torch.no_grad():
        # Fresh weights hardly look at the context.
        for weight in model.parameters():
            weight.mul_(3)
    return Bundle(model=model, architecture=network, tokenizer=ByteTokenizer(), metrics={})


def says(monkeypatch, tokens: list[int]) -> list[int]:
    """Makes every model say these tokens; the list returned grows with those that were asked for."""
    asked: list[int] = []

    def scripted(model, prompt_BL, **_) -> Iterator[torch.Tensor]:
        for token in tokens:
            asked.append(token)
            yield torch.tensor([token])

    monkeypatch.setattr(language, "generate", scripted)
    return asked


def greedy(made: Bundle, prompt: str, count: int) -> str:
    """The most likely continuation by full forward passes."""
    tokens = [DOCUMENT, *prompt.encode()]
    start = len(tokens)
    with torch.no_grad():
        for _ in range(count):
            tokens.append(int(made.model(torch.tensor([tokens]))[0, -1].argmax()))
    return ByteTokenizer().decode(tokens[start:])


@pytest.mark.parametrize("prompt", ["", "a", "né"])
def test_generation_continues_the_prompt_as_the_beginning_of_a_document(prompt):
    for seed in range(5):
        made = bundle(seed=seed)
        assert "".join(made.generate_text(prompt, max_new_tokens=8, temperature=0)) == greedy(made, prompt, 8)


def test_generation_repeats_with_its_seed_alone():
    made = bundle(64)
    first, second, other = ("".join(made.generate_text("a", max_new_tokens=40, seed=seed)) for seed in (1, 1, 2))
    assert first == second != other


def test_generation_ends_where_the_context_is_full():
    made = bundle(16)
    text = "".join(made.generate_text("abc", max_new_tokens=1000, temperature=0))
    assert text == greedy(made, "abc", 12)


def test_a_prompt_that_fills_the_context_is_refused_with_the_longest_that_fits():
    made = bundle(16)
    assert "".join(made.generate_text("a" * 14, max_new_tokens=5, temperature=0)) == greedy(made, "a" * 14, 1)
    with pytest.raises(InputError, match=r"at most 14 tokens.* has 15"):
        made.generate_text("a" * 15)


def test_multi_byte_characters_are_streamed_whole(monkeypatch):
    text = "aé日🎈z"
    says(monkeypatch, list(text.encode()))
    assert list(bundle().generate_text("x")) == list(text)


def test_a_character_that_is_cut_off_becomes_a_replacement(monkeypatch):
    says(monkeypatch, list("a🎈".encode())[:-1])
    assert "".join(bundle().generate_text("x")) == "a\N{REPLACEMENT CHARACTER}"


def test_document_tokens_say_nothing_and_end_nothing(monkeypatch):
    says(monkeypatch, [97, DOCUMENT, 98])
    assert "".join(bundle().generate_text("x")) == "ab"


def test_text_comes_as_it_is_generated(monkeypatch):
    asked = says(monkeypatch, list(b"abcdef"))
    stream = bundle().generate_text("x", stop=["zz"])
    assert next(stream) == "a"
    assert bytes(asked) == b"a"


def test_a_stop_string_ends_generation_and_is_cut_off(monkeypatch):
    asked = says(monkeypatch, list(b"one. Two.\nthree"))
    assert "".join(bundle().generate_text("x", stop=[".\n", "four"])) == "one. Two"
    assert bytes(asked) == b"one. Two.\n"


def test_a_stop_string_of_multi_byte_characters_is_found(monkeypatch):
    says(monkeypatch, list("日本。終わり".encode()))
    assert "".join(bundle().generate_text("x", stop=["。終"])) == "日本"


def test_a_single_stop_string_counts_as_one(monkeypatch):
    says(monkeypatch, list(b"abba-end-"))
    assert "".join(bundle().generate_text("x", stop="-end")) == "abba"


def test_an_empty_stop_string_is_refused_at_the_call():
    with pytest.raises(InputError, match="must not be empty"):
        bundle().generate_text("a", stop=[""])


def test_arguments_are_checked_at_the_call():
    with pytest.raises(InputError, match="temperature"):
        bundle().generate_text("a", temperature=-1)
    with pytest.raises(InputError, match="max_new_tokens"):
        bundle().generate_text("a", max_new_tokens=0)
    with pytest.raises(DataError, match="Unicode"):
        bundle().generate_text("\ud800")


@pytest.mark.parametrize(
    ("pieces", "stops", "expected"),
    [
        (["ab", "cd"], [], "abcd"),
        (["ab", "cd"], ["bc"], "a"),
        (["a", "a", "a", "b", "c"], ["aab"], "a"),
        (["abab", "abc"], ["ababc"], "ab"),
        (["xy"], ["xy"], ""),
        (["xy"], ["xyz"], "xy"),
        (["x", "aby"], ["xaby", "ab"], "x"),
        (["abc"], ["bc", "abc"], ""),
    ],
)
def test_stop_strings_are_cut_off_across_pieces(pieces, stops, expected):
    assert "".join(until_stop(pieces, stops)) == expected


@given(
    st.text("abé", max_size=12),
    st.lists(st.text("abé", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 12), max_size=6),
)
def test_the_text_does_not_depend_on_how_it_is_cut_into_pieces(text, stops, cuts):
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(edges)]
    ends = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
    assert "".join(until_stop(pieces, stops)) == (text[: min(ends)[1]] if ends else text)


@pytest.mark.parametrize("text", ["a", "naïve 日本 🎈", "x" * 15, "x" * 16, "xy" * 40, "é" * 33])
def test_a_uniform_model_scores_each_byte_with_the_same_bits(text):
    made = bundle()
    with torch.no_grad():
        made.model.embed_tokens.weight.zero_()
    assert made.bits_per_byte(text) == pytest.approx(math.log2(257), rel=1e-6)


@pytest.mark.parametrize("max_context", [1, 2, 7, 16, 64])
@pytest.mark.parametrize("size", [1, 5, 16, 17, 50])
def test_bits_per_byte_are_those_of_each_byte_after_half_a_context_or_more(max_context, size):
    made = bundle(max_context)
    data = ("é fox jumps over the läzy dog, " * 5).encode()[:size].decode(errors="ignore").encode()
    tokens = [DOCUMENT, *data]
    stride = max(max_context // 2, 1)
    bits = 0.0
    for place in range(len(data)):
        end = max_context
        while end <= place:
            end += stride
        seen = tokens[end - max_context : place + 1]
        assert len(seen) > min(place, max_context - stride - 1)
        with torch.no_grad():
            bits -= float(made.model(torch.tensor([seen]))[0, -1].log_softmax(-1)[data[place]]) / math.log(2)
    if data:
        assert made.bits_per_byte(data.decode()) == pytest.approx(bits / len(data), rel=1e-5)


def test_an_empty_text_has_no_bits_per_byte():
    with pytest.raises(InputError, match="empty"):
        bundle().bits_per_byte("")
