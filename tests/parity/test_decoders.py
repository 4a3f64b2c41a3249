"""Whole decoders against transformers': the same weights, the same logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity.comparing import (
    DOUBLE_TOLERANCE,
    TOLERANCE,
    VOCABULARY,
    assert_same,
    bound,
    built,
    filled,
    tokens,
    valid,
)
from parity.renaming import from_gpt2, from_lfm2, from_llama, from_mpt, without_tied_head
from torch import Tensor, nn
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MinistralConfig,
    MinistralForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MptConfig,
    MptForCausalLM,
)

from nas.tasks.inputs import Inputs

WIDTH, HEADS, HIDDEN, CONTEXT, WINDOW = 48, 6, 80, 64, 7
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": HIDDEN,
    "num_hidden_layers": 3,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-6,
    "attn_implementation": "eager",
}
ROPE = {"rope_type": "default", "rope_theta": 500.0}


def decoder(layers: list[dict[str, Any]], **words: Any) -> Any:
    """Our architecture of these layers."""
    return bound(**{"family": "decoder", "width": WIDTH, "max_context": CONTEXT, "layers": layers, **words})


def attention(mixer: str = "full", **words: Any) -> dict[str, Any]:
    """A layer with grouped heads."""
    return {"mixer": mixer, "heads": HEADS, "kv_heads": 2, "mlp_hidden": HIDDEN, **words}


def llama(rope: dict[str, Any] = ROPE, **words: Any) -> tuple[Any, nn.Module]:
    theirs = filled(LlamaForCausalLM(LlamaConfig(**SHAPE, rope_parameters=rope, tie_word_embeddings=False)))
    architecture = decoder([attention()] * 3, rope_theta=500.0, tied_embeddings=False, **words)
    return built(architecture, from_llama(theirs.state_dict())), theirs


def mistral() -> tuple[Any, nn.Module]:
    config = MistralConfig(**SHAPE, rope_parameters=ROPE, sliding_window=WINDOW, tie_word_embeddings=True)
    theirs = filled(MistralForCausalLM(config))
    architecture = decoder([attention("sliding_window", window=WINDOW)] * 3, rope_theta=500.0)
    return built(architecture, without_tied_head(from_llama(theirs.state_dict()))), theirs


def ministral() -> tuple[Any, nn.Module]:
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    config = MinistralConfig(
        **SHAPE, head_dim=10, rope_parameters=ROPE, sliding_window=WINDOW, layer_types=kinds, tie_word_embeddings=False
    )
    theirs = filled(MinistralForCausalLM(config))
    full, window = attention(head_dim=10), attention("sliding_window", head_dim=10, window=WINDOW)
    architecture = decoder([full, window, full], rope_theta=500.0, tied_embeddings=False)
    return built(architecture, from_llama(theirs.state_dict())), theirs


def deepseek() -> tuple[Any, nn.Module]:
    config = DeepseekV3Config(
        **{**SHAPE, "num_key_value_heads": HEADS},
        first_k_dense_replace=3,
        q_lora_rank=None,
        kv_lora_rank=20,
        qk_nope_head_dim=12,
        qk_rope_head_dim=6,
        v_head_dim=10,
        rope_interleave=False,
        rope_parameters=ROPE,
        num_mtp_layers=0,
        tie_word_embeddings=False,
    )
    theirs = filled(DeepseekV3ForCausalLM(config))
    layer = {"mixer": "latent", "heads": HEADS, "head_dim": 12, "rope_dim": 6, "value_dim": 10, "latent_dim": 20}
    architecture = decoder([{**layer, "mlp_hidden": HIDDEN}] * 3, rope_theta=500.0, tied_embeddings=False)
    return built(architecture, from_llama(theirs.state_dict())), theirs


def lfm2() -> tuple[Any, nn.Module]:
    config = Lfm2Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=3,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        norm_eps=1e-6,
        conv_L_cache=3,
        block_auto_adjust_ff_dim=False,
        layer_types=["conv"] * 3,
        tie_word_embeddings=True,
        use_cache=False,  # theirs asks an attention layer for its length, and here is none
    )
    theirs = filled(Lfm2ForCausalLM(config))
    layer = {"mixer": "gated_conv", "kernel": 3, "mlp_hidden": HIDDEN}
    return built(decoder([layer] * 3), without_tied_head(from_lfm2(theirs.state_dict()))), theirs


def mpt() -> tuple[Any, nn.Module]:
    config = MptConfig(d_model=WIDTH, n_heads=HEADS, n_layers=3, max_seq_len=CONTEXT, vocab_size=VOCABULARY)
    theirs = filled(MptForCausalLM(config))
    layer = {"mixer": "full", "heads": HEADS, "mlp": "gelu", "mlp_ratio": 4}
    architecture = decoder([layer] * 3, positions="alibi", norm="layer")
    return built(architecture, without_tied_head(from_mpt(theirs.state_dict()))), theirs


def gpt2() -> tuple[Any, nn.Module]:
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=WIDTH,
        n_layer=3,
        n_head=HEADS,
        activation_function="gelu",
        attn_implementation="eager",
    )
    theirs = filled(GPT2LMHeadModel(config))
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if name.endswith("bias"):
                weight.zero_()
    layer = {"mixer": "full", "heads": HEADS, "mlp": "gelu", "mlp_ratio": 4}
    architecture = decoder([layer] * 3, positions="learned", norm="layer")
    return built(architecture, without_tied_head(from_gpt2(theirs.state_dict()))), theirs


MODELS = {
    "llama": llama,
    "mistral": mistral,
    "ministral": ministral,
    "deepseek": deepseek,
    "lfm2": lfm2,
    "mpt": mpt,
    "gpt2": gpt2,
}


@pytest.fixture(params=MODELS)
def pair(request: pytest.FixtureRequest) -> tuple[Any, nn.Module]:
    return MODELS[request.param]()


@torch.no_grad()
def test_logits(pair: tuple[Any, nn.Module]) -> None:
    ours, theirs = pair
    tokens_BL = tokens(2, 37)
    assert_same(ours(tokens_BL), theirs(tokens_BL).logits)
    assert_same(ours.double()(tokens_BL), theirs.double()(tokens_BL).logits, DOUBLE_TOLERANCE)


@torch.no_grad()
def test_logits_with_padding(pair: tuple[Any, nn.Module]) -> None:
    ours, theirs = pair
    lengths, tokens_BL = [37, 5, 21], tokens(3, 37)
    valid_BL = valid(lengths, 37)
    theirs_BLV = theirs(tokens_BL, attention_mask=valid_BL).logits
    ours_BLV = ours.head(ours.features(Inputs(tokens_BL, lengths_B=torch.tensor(lengths))))
    assert_same(ours_BLV[valid_BL.bool()], theirs_BLV[valid_BL.bool()])


def test_gradients(pair: tuple[Any, nn.Module]) -> None:
    ours, theirs = pair
    tokens_BL = tokens(2, 23)
    grads = []
    for model, embedding in ((ours, ours.embed_tokens), (theirs, theirs.get_input_embeddings())):
        logits_BLV = model(tokens_BL)
        logits_BLV = logits_BLV if isinstance(logits_BLV, Tensor) else logits_BLV.logits
        nn.functional.cross_entropy(logits_BLV[:, :-1].flatten(0, 1), tokens_BL[:, 1:].flatten()).backward()
        grads.append(embedding.weight.grad)
    worst = float((grads[0] - grads[1]).abs().max() / grads[1].abs().max())
    assert worst < TOLERANCE, f"gradients of the embedding differ by {worst:.2e} of the largest"


@torch.no_grad()
@pytest.mark.parametrize("scaling", ["linear", "yarn"])
def test_stretched_positions(scaling: str) -> None:
    rope = {**ROPE, "rope_type": scaling, "factor": 4.0}
    if scaling == "yarn":
        rope["original_max_position_embeddings"] = CONTEXT // 4
    ours, theirs = llama(rope, rope_scaling=scaling, rope_factor=4.0)
    plain, _ = llama()
    tokens_BL = tokens(2, CONTEXT)
    assert_same(ours(tokens_BL), theirs(tokens_BL).logits)
    assert (plain(tokens_BL) - ours(tokens_BL)).abs().max() > 0.1, "stretching changed nothing"


@torch.no_grad()
def test_window_counts_the_token_itself() -> None:
    """A token's logits depend on the token window − 1 places before it, and on none earlier, in one layer."""
    config = MistralConfig(**{**SHAPE, "num_hidden_layers": 1}, rope_parameters=ROPE, sliding_window=WINDOW)
    theirs = filled(MistralForCausalLM(config))
    layer = attention("sliding_window", window=WINDOW)
    ours = built(decoder([layer], rope_theta=500.0, tied_embeddings=False), from_llama(theirs.state_dict()))
    tokens_1L = tokens(1, 20)
    changed_1L = tokens_1L.clone()
    changed_1L[0, 5] = (tokens_1L[0, 5] + 1) % VOCABULARY
    for model in (ours, lambda tokens_BL: theirs(tokens_BL).logits):
        moved_L = (model(changed_1L) - model(tokens_1L)).abs().amax(-1)[0] > 0
        assert moved_L.nonzero().flatten().tolist() == list(range(5, 5 + WINDOW))


@torch.no_grad()
def test_prefix() -> None:
    """A prefix language model is a GPT-2 whose mask lets the prefix see itself in both directions."""
    _, theirs = gpt2()
    layer = {"mixer": "full", "heads": HEADS, "mlp": "gelu", "mlp_ratio": 4}
    architecture = decoder([layer] * 3, family="prefix_lm", head="infilling_lm", positions="learned", norm="layer")
    weights = without_tied_head(from_gpt2(theirs.state_dict()))
    # The second table is for places inside a blank, of which GPT-2 knows nothing.
    weights["embed_positions.1.weight"] = torch.zeros(CONTEXT, WIDTH)
    ours = built(architecture, weights)
    tokens_BL, prefix_B = tokens(3, 29), torch.tensor([0, 11, 29])
    places = torch.arange(29)
    both_BLL = (places < prefix_B[:, None])[:, :, None] & (places < prefix_B[:, None])[:, None]
    hidden_B1LL = ~(both_BLL | (places <= places[:, None]))[:, None]
    mask_B1LL = torch.zeros(hidden_B1LL.shape).masked_fill(hidden_B1LL, torch.finfo(torch.float32).min)
    ours_BLV = ours.head(ours.features(Inputs(tokens_BL, prefix_B=prefix_B)))
    assert_same(ours_BLV, theirs(tokens_BL, attention_mask=mask_B1LL).logits)
