"""A text goes on in every family that generates, as in its training."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nas.errors import InputError
from nas.export.bundle import Bundle
from nas.export.prompts import prompt_of
from nas.models.base import Model
from nas.models.build import build
from nas.space.architecture import Architecture
from nas.specs.tasks import TaskShape
from nas.tasks.tokenizers import ByteTokenizer

LAYERS = [{"mixer": "full", "heads": 2}, {"mixer": "sliding_window", "heads": 2, "window": 8}]
SPECIALS = {
    "decoder": (),
    "encoder": ("<mask>",),
    "prefix_lm": ("<mask>", "<start>", "<end>"),
    "encoder_decoder": ("<start>", "<sentinel_0>", "<sentinel_1>"),
}
HEADS = {"decoder": "causal_lm", "encoder": "masked_lm", "prefix_lm": "infilling_lm", "encoder_decoder": "seq2seq_lm"}


def made(family: str, specials: tuple[str, ...] | None = None) -> tuple[Model, ByteTokenizer, Architecture]:
    tokenizer = ByteTokenizer(SPECIALS[family] if specials is None else specials)
    stacks: dict[str, Any] = {"layers": LAYERS}
    if family == "encoder_decoder":
        stacks = {"encoder": {"layers": LAYERS}, "decoder": {"layers": LAYERS}}
    network = Architecture.from_mapping({"family": family, "width": 32, "max_context": 32, **stacks})
    network = network.bind(TaskShape(vocabulary=tokenizer.vocabulary, head=HEADS[family]))
    model = build(network, seed=0)
    assert isinstance(model, Model)
    return model, tokenizer, network


def test_a_prefix_language_model_fills_a_blank_behind_the_text() -> None:
    model, tokenizer, _ = made("prefix_lm")
    mask, start, end = (tokenizer.special(name) for name in SPECIALS["prefix_lm"])
    found = prompt_of(model, tokenizer, "ab")
    assert found.inputs.tokens_BL.tolist() == [[tokenizer.document, 97, 98, mask, start]]
    assert found.inputs.prefix_B is not None and found.inputs.prefix_B.tolist() == [4]
    assert found.inputs.positions_BL2 is not None
    assert found.inputs.positions_BL2.tolist() == [[[0, 0], [1, 0], [2, 0], [3, 0], [3, 1]]]
    assert found.stop_tokens == {end}


def test_one_that_fills_no_blanks_takes_the_text_as_its_prefix() -> None:
    model, tokenizer, _ = made("prefix_lm", ())
    found = prompt_of(model, tokenizer, "ab")
    assert found.inputs.tokens_BL.tolist() == [[tokenizer.document, 97, 98]] and not found.stop_tokens


def test_an_encoder_decoder_writes_the_span_that_is_missing_at_the_end() -> None:
    model, tokenizer, _ = made("encoder_decoder")
    start, first, second = (tokenizer.special(name) for name in SPECIALS["encoder_decoder"])
    found = prompt_of(model, tokenizer, "ab")
    assert found.inputs.source_BS is not None
    assert found.inputs.source_BS.tolist() == [[tokenizer.document, 97, 98, first]]
    assert found.inputs.tokens_BL.tolist() == [[start, first]] and found.stop_tokens == {second}


@pytest.mark.parametrize("family", ["decoder", "prefix_lm", "encoder_decoder"])
def test_bundles_of_every_generating_family_go_on_with_a_text(family: str) -> None:
    model, tokenizer, network = made(family)
    bundle = Bundle(model=model, architecture=network, tokenizer=tokenizer, metrics={})
    first, second = ("".join(bundle.generate_text("ab", max_new_tokens=6, seed=3)) for _ in range(2))
    assert first == second
    with pytest.raises(InputError, match="a prompt must have at most"):
        bundle.generate_text("a" * 40)


def test_an_encoder_says_that_it_does_not_generate() -> None:
    model, tokenizer, network = made("encoder")
    bundle = Bundle(model=model, architecture=network, tokenizer=tokenizer, metrics={})
    with pytest.raises(InputError, match="does not generate: its family is 'encoder'"):
        bundle.generate_text("ab")
    assert torch.isfinite(model(torch.tensor([[97, 98]]))).all()


def test_bits_per_byte_are_for_decoders() -> None:
    model, tokenizer, network = made("prefix_lm")
    bundle = Bundle(model=model, architecture=network, tokenizer=tokenizer, metrics={})
    with pytest.raises(InputError, match="only decoders"):
        bundle.bits_per_byte("ab")
