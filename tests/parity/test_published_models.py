"""Published models, made by transformers from their configurations: as many weights, and caches of as many bytes.

Nothing is computed: models, tokens and caches are on the meta device, where tensors have sizes alone.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from _memory_models import MODELS, Published, State, cost_of
from _memory_published import PUBLISHED
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    DeepseekV2Config,
    Gemma3TextConfig,
    GPT2Config,
    Lfm2Config,
    LlamaConfig,
    Mamba2Config,
    MistralConfig,
    NemotronHConfig,
    PreTrainedConfig,
    QuantizedCache,
    Qwen2Config,
    Qwen3_5TextConfig,
)

# What each model's config.json says.
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama_3_1_8b": LlamaConfig(
        vocab_size=128_256,
        hidden_size=4_096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=131_072,
    ),
    "tinyllama_1_1b": LlamaConfig(
        vocab_size=32_000,
        hidden_size=2_048,
        intermediate_size=5_632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        max_position_embeddings=2_048,
    ),
    "gpt2": GPT2Config(),
    "qwen2_5_1_5b": Qwen2Config(
        vocab_size=151_936,
        hidden_size=1_536,
        intermediate_size=8_960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        max_position_embeddings=131_072,
        tie_word_embeddings=True,
    ),
    "mistral_7b_v0_1": MistralConfig(
        vocab_size=32_000,
        hidden_size=4_096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=32_768,
        sliding_window=4_096,
    ),
    "gemma_3_1b": Gemma3TextConfig(
        vocab_size=262_144,
        hidden_size=1_152,
        intermediate_size=6_912,
        num_hidden_layers=26,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        max_position_embeddings=32_768,
        sliding_window=512,
    ),
    "deepseek_v2_lite": DeepseekV2Config(
        vocab_size=102_400,
        hidden_size=2_048,
        intermediate_size=10_944,
        num_hidden_layers=27,
        num_attention_heads=16,
        num_key_value_heads=16,
        q_lora_rank=None,
        kv_lora_rank=512,
        qk_rope_head_dim=64,
        qk_nope_head_dim=128,
        v_head_dim=128,
        n_routed_experts=64,
        n_shared_experts=2,
        num_experts_per_tok=6,
        moe_intermediate_size=1_408,
        first_k_dense_replace=1,
        max_position_embeddings=163_840,
    ),
    "mamba2_1_3b": Mamba2Config(
        vocab_size=50_288,
        hidden_size=2_048,
        num_hidden_layers=48,
        num_heads=64,
        head_dim=64,
        state_size=128,
        expand=2,
        n_groups=1,
        conv_kernel=4,
        tie_word_embeddings=True,
    ),
    "nemotron_h_8b": NemotronHConfig(
        vocab_size=131_072,
        hidden_size=4_096,
        intermediate_size=21_504,
        hybrid_override_pattern="M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        mamba_num_heads=128,
        mamba_head_dim=64,
        ssm_state_size=128,
        n_groups=8,
        conv_kernel=4,
        max_position_embeddings=8_192,
    ),
    "qwen3_5_2b": Qwen3_5TextConfig(
        vocab_size=248_320,
        hidden_size=2_048,
        intermediate_size=6_144,
        num_hidden_layers=24,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=256,
        linear_num_key_heads=16,
        linear_num_value_heads=16,
        max_position_embeddings=262_144,
        tie_word_embeddings=True,
    ),
    "lfm2_1_2b": Lfm2Config(
        vocab_size=65_536,
        hidden_size=2_048,
        intermediate_size=12_288,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        full_attn_idxs=[2, 5, 8, 10, 12, 14],
    ),
}


def made(name: str) -> nn.Module:
    """transformers' model, of sizes alone."""
    config = CONFIGS[name]
    config._attn_implementation = "eager"
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def kept_bytes(cache: Any) -> int:
    """Of keys, values, inputs of convolutions and recurrent states; counters are no part of a state."""
    found: list[Tensor] = []
    for layer in cache.layers:
        for name, value in vars(layer).items():
            nested = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else [value]
            # A layer that quantises holds an empty tensor beside what it keeps.
            found += [part for part in nested if isinstance(part, Tensor) and not name.startswith("_sliding_window")]
    return sum(tensor.numel() * tensor.element_size() for tensor in found)


def in_fp8(cache: Any, config: PreTrainedConfig) -> QuantizedCache:
    """The same keys and values in transformers' cache of eight bits."""
    quantized = QuantizedCache("fp8", config)
    for index, layer in enumerate(cache.layers):
        quantized.update(layer.keys, layer.values, index)
    return quantized


@pytest.mark.parametrize("model", PUBLISHED, ids=lambda model: model.name)
def test_transformers_counts_as_many_weights(model: Published) -> None:
    assert sum(weights.numel() for weights in made(model.name).parameters()) == model.parameters
    assert cost_of(model, model.states[0]).parameters + model.left_out.amount == model.parameters


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        pytest.param(model, asked, id=f"{model.name}-{asked.words}")
        for model in PUBLISHED
        for asked in model.states
        if asked.in_transformers
    ],
)
def test_the_cache_of_transformers_takes_as_many_bytes(model: Published, asked: State) -> None:
    tokens = torch.zeros(asked.batch, asked.context, dtype=torch.long, device="meta")
    with torch.no_grad():
        output = made(model.name)(tokens, use_cache=True, logits_to_keep=1)
    cache = output.cache_params if hasattr(output, "cache_params") else output.past_key_values
    if ("cache_dtype", "fp8") in asked.dtypes:
        cache = in_fp8(cache, CONFIGS[model.name])
    kept = kept_bytes(cache)
    assert kept == asked.reference
    assert cost_of(model, asked).state_bytes + asked.left_out.amount == kept


def test_every_described_model_has_a_reference_and_is_made_here() -> None:
    assert {path.stem for path in MODELS.glob("*.yaml")} == {model.name for model in PUBLISHED} == set(CONFIGS)
