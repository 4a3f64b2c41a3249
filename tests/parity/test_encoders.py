"""A whole encoder against transformers' ModernBERT."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity.comparing import DOUBLE_TOLERANCE, VOCABULARY, assert_same, bound, built, filled, tokens, valid
from parity.renaming import from_modern_bert, without_tied_head
from torch import nn
from transformers import ModernBertConfig, ModernBertForMaskedLM

from nas.tasks.inputs import Inputs

WIDTH, HEADS, HIDDEN, CONTEXT = 48, 4, 72, 64
# Theirs is the whole width, to both sides and without the token itself.
LOCAL_ATTENTION = 12


@pytest.fixture
def pair() -> tuple[Any, nn.Module]:
    rope = {"rope_type": "default", "rope_theta": 500.0}
    config = ModernBertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=4,
        num_attention_heads=HEADS,
        max_position_embeddings=CONTEXT,
        layer_types=["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        rope_parameters={"full_attention": dict(rope), "sliding_attention": dict(rope)},
        local_attention=LOCAL_ATTENTION,
        pad_token_id=0,
        attn_implementation="eager",
    )
    theirs = filled(ModernBertForMaskedLM(config))
    full = {"mixer": "full", "heads": HEADS, "mlp": "geglu", "mlp_hidden": HIDDEN}
    window = {**full, "mixer": "sliding_window", "window": LOCAL_ATTENTION // 2 + 1}
    architecture = bound(
        family="encoder",
        head="masked_lm",
        width=WIDTH,
        max_context=CONTEXT,
        layers=[full, window, window, full],
        rope_theta=500.0,
        norm="layer",
        embedding_norm=True,
    )
    return built(architecture, without_tied_head(from_modern_bert(theirs.state_dict()))), theirs


@torch.no_grad()
def test_logits(pair: tuple[Any, nn.Module]) -> None:
    ours, theirs = pair
    tokens_BL = tokens(2, 41)
    assert_same(ours(tokens_BL), theirs(tokens_BL).logits)
    assert_same(ours.double()(tokens_BL), theirs.double()(tokens_BL).logits, DOUBLE_TOLERANCE)


@torch.no_grad()
def test_logits_with_padding(pair: tuple[Any, nn.Module]) -> None:
    ours, theirs = pair
    lengths, tokens_BL = [41, 3, 20], tokens(3, 41)
    valid_BL = valid(lengths, 41)
    theirs_BLV = theirs(tokens_BL, attention_mask=valid_BL).logits
    ours_BLV = ours(Inputs(tokens_BL, lengths_B=torch.tensor(lengths)))
    assert_same(ours_BLV[valid_BL.bool()], theirs_BLV[valid_BL.bool()])


def test_gradients(pair: tuple[Any, nn.Module]) -> None:
    ours, theirs = pair
    tokens_BL = tokens(2, 41)
    grads = []
    for logits_BLV, embedding in (
        (ours(tokens_BL), ours.embed_tokens),
        (theirs(tokens_BL).logits, theirs.get_input_embeddings()),
    ):
        nn.functional.cross_entropy(logits_BLV.flatten(0, 1), tokens_BL.flatten()).backward()
        grads.append(embedding.weight.grad)
    assert (grads[0] - grads[1]).abs().max() < 1e-4 * grads[1].abs().max()
