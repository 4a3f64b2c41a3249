"""Generation against transformers': greedy and by beams, prompts of one and of several lengths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity.comparing import tokens, valid
from parity.test_decoders import CONTEXT, MODELS
from parity.test_encoder_decoders import END, LENGTHS, PAD, START, t5
from torch import Tensor, nn

from nas.models.beam import Continuation, beam_search
from nas.models.generate import generate
from nas.tasks.inputs import Inputs

NEW = 12
GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": NEW, "pad_token_id": 0, "eos_token_id": None}


def generated(model: Any, prompt: Tensor | Inputs, **words: Any) -> Tensor:
    """Our most likely tokens, (B, N)."""
    return torch.stack(list(generate(model, prompt, max_new_tokens=NEW, temperature=0, **words)), 1)


@pytest.fixture(params=["llama", "mistral", "ministral", "deepseek", "gpt2"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, nn.Module]:
    return MODELS[request.param]()


def test_greedy(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    prompt_BL = tokens(3, 30)
    expected = theirs.generate(prompt_BL, attention_mask=torch.ones_like(prompt_BL), **GREEDY)[:, 30:]
    assert torch.equal(generated(ours, prompt_BL), expected)


@pytest.mark.parametrize("side", ["left", "right"])
def test_greedy_from_padded_prompts(pair: tuple[Any, Any], side: str) -> None:
    """Theirs wants the padding on the left; ours takes it on either side."""
    ours, theirs = pair
    left_BL, right_BL = torch.zeros(3, 30, dtype=torch.int64), torch.zeros(3, 30, dtype=torch.int64)
    mask_BL, lengths = torch.zeros(3, 30, dtype=torch.int64), [30, 4, 17]
    for row, length in enumerate(lengths):
        prompt_L = tokens(1, length, seed=row)[0]
        left_BL[row, 30 - length :], right_BL[row, :length] = prompt_L, prompt_L
        mask_BL[row, 30 - length :] = 1
    expected = theirs.generate(left_BL, attention_mask=mask_BL, **GREEDY)[:, 30:]
    if side == "left":
        assert torch.equal(generated(ours, left_BL, attention_mask_BL=mask_BL.bool()), expected)
        assert torch.equal(generated(ours, left_BL, pad_token=0), expected)
    else:
        assert torch.equal(generated(ours, Inputs(right_BL, lengths_B=torch.tensor(lengths))), expected)


@pytest.fixture(scope="module")
def translators() -> tuple[Any, Any]:
    # Its cache has as many layers as the encoder, so the decoder must not have more.
    ours, theirs = t5("gated-silu", "swiglu", decoder_layers=2)
    # Sharper logits, so that ends come at different lengths.
    with torch.no_grad():
        ours.lm_head.weight.mul_(1.5)
        theirs.lm_head.weight.mul_(1.5)
    return ours, theirs


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, -1.0])
def test_beams_of_an_encoder_decoder(translators: tuple[Any, Any], beams: int, length_penalty: float) -> None:
    ours, theirs = translators
    source_BS, valid_BS = tokens(3, 150, seed=3), valid(LENGTHS, 150)
    start_B1 = torch.full((3, 1), START)
    inputs = Inputs(start_B1, source_BS=source_BS, source_lengths_B=torch.tensor(LENGTHS))
    found = beam_search(ours, inputs, max_new_tokens=NEW, beams=beams, length_penalty=length_penalty, stop_tokens={END})
    expected = theirs.generate(
        source_BS,
        attention_mask=valid_BS,
        num_beams=beams,
        num_return_sequences=beams,
        length_penalty=length_penalty,
        early_stopping=False,
        do_sample=False,
        max_new_tokens=NEW,
        eos_token_id=END,
        pad_token_id=PAD,
    ).view(3, beams, -1)
    for best, rows in zip(found, expected.tolist(), strict=True):
        assert [list(one.tokens) for one in best] == [_until_end(row[1:]) for row in rows]


def test_beams_of_a_decoder() -> None:
    ours, theirs = MODELS["llama"]()
    prompt_BL = tokens(2, 20)
    found = beam_search(ours, prompt_BL, max_new_tokens=NEW, beams=3, stop_tokens={END})
    expected = theirs.generate(
        prompt_BL,
        attention_mask=torch.ones_like(prompt_BL),
        num_beams=3,
        num_return_sequences=3,
        return_dict_in_generate=True,
        output_scores=True,
        do_sample=False,
        max_new_tokens=NEW,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    best: list[Continuation] = [one for row in found for one in row]
    assert [list(one.tokens) for one in best] == [_until_end(row) for row in expected.sequences[:, 20:].tolist()]
    # Theirs divides by the length without the prompt too, so scores agree as they are.
    torch.testing.assert_close(
        torch.tensor([one.score for one in best]), expected.sequences_scores, atol=1e-4, rtol=0, check_dtype=False
    )


def test_generation_stops_where_the_context_ends() -> None:
    ours, _ = MODELS["llama"]()
    assert generated(ours, tokens(1, CONTEXT - 5)).shape == (1, 5)


def _until_end(row: list[int]) -> list[int]:
    """Tokens up to the one that ends them, without what pads them."""
    return row[: row.index(END) + 1] if END in row else row
