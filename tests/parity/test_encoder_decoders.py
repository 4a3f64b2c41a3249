"""A whole encoder–decoder against transformers' T5: logits, padding, greedy search, beam search."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity.comparing import DOUBLE_TOLERANCE, VOCABULARY, assert_same, bound, built, filled, tokens, valid
from parity.renaming import from_t5, without_tied_head
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from nas.tasks.inputs import Inputs

WIDTH, HEADS, HEAD_DIM, HIDDEN, CONTEXT = 48, 4, 10, 72, 160
PAD, END, START = 0, 1, 0
LENGTHS = [150, 9, 33]


def t5(feed_forward: str, mlp: str, *, tied: bool = False, decoder_layers: int = 3) -> tuple[Any, nn.Module]:
    """Two encoder layers and some decoder layers."""
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=WIDTH,
        d_kv=HEAD_DIM,
        d_ff=HIDDEN,
        num_layers=2,
        num_decoder_layers=decoder_layers,
        num_heads=HEADS,
        feed_forward_proj=feed_forward,
        tie_word_embeddings=False,  # version 1.1 does not scale the features before the head
        pad_token_id=PAD,
        eos_token_id=END,
        decoder_start_token_id=START,
        attn_implementation="eager",
    )
    theirs = T5ForConditionalGeneration(config)
    if not tied:
        theirs.lm_head.weight = nn.Parameter(torch.empty(VOCABULARY, WIDTH))
    theirs = filled(theirs)
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if name.endswith("Attention.q.weight"):
                weight.mul_(HEAD_DIM**-0.5)  # as T5 begins, since it does not divide scores
    layer = {"heads": HEADS, "head_dim": HEAD_DIM, "mlp": mlp, "mlp_hidden": HIDDEN, "mixer": "full"}
    cross = {"cross_heads": HEADS, "cross_head_dim": HEAD_DIM}
    architecture = bound(
        family="encoder_decoder",
        head="seq2seq_lm",
        width=WIDTH,
        max_context=CONTEXT,
        encoder={"layers": [layer] * 2},
        decoder={"layers": [{**layer, **cross}] * decoder_layers},
        positions="relative",
        tied_embeddings=tied,
    )
    weights = from_t5(theirs.state_dict(), HEAD_DIM)
    return built(architecture, without_tied_head(weights) if tied else weights), theirs


@pytest.fixture(params=["gated-silu", "gelu", "tied"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, nn.Module]:
    if request.param == "tied":
        return t5("gated-silu", "swiglu", tied=True)
    return t5(request.param, {"gated-silu": "swiglu", "gelu": "gelu"}[request.param])


@torch.no_grad()
def test_logits(pair: tuple[Any, nn.Module]) -> None:
    ours, theirs = pair
    source_BS, tokens_BL = tokens(2, 150, seed=2), tokens(2, 140)
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, DOUBLE_TOLERANCE)):
        expected = theirs.to(dtype)(input_ids=source_BS, decoder_input_ids=tokens_BL).logits
        assert_same(ours.to(dtype)(Inputs(tokens_BL, source_BS=source_BS)), expected, tolerance)


@torch.no_grad()
def test_logits_with_padding(pair: tuple[Any, nn.Module]) -> None:
    ours, theirs = pair
    source_BS, tokens_BL, lengths = tokens(3, 150, seed=2), tokens(3, 21), [4, 21, 13]
    valid_BS, valid_BL = valid(LENGTHS, 150), valid(lengths, 21)
    expected = theirs(
        input_ids=source_BS,
        attention_mask=valid_BS,
        decoder_input_ids=tokens_BL,
        decoder_attention_mask=valid_BL,
    ).logits
    inputs = Inputs(
        tokens_BL,
        lengths_B=torch.tensor(lengths),
        source_BS=source_BS,
        source_lengths_B=torch.tensor(LENGTHS),
    )
    assert_same(ours(inputs)[valid_BL.bool()], expected[valid_BL.bool()])


def test_gradients(pair: tuple[Any, nn.Module]) -> None:
    ours, theirs = pair
    source_BS, tokens_BL = tokens(2, 50, seed=2), tokens(2, 40)
    grads = []
    for logits_BLV, embedding in (
        (ours(Inputs(tokens_BL, source_BS=source_BS)), ours.embed_tokens),
        (theirs(input_ids=source_BS, decoder_input_ids=tokens_BL).logits, theirs.shared),
    ):
        nn.functional.cross_entropy(logits_BLV.flatten(0, 1), tokens_BL.flatten()).backward()
        grads.append(embedding.weight.grad)
    assert (grads[0] - grads[1]).abs().max() < 1e-4 * grads[1].abs().max()
