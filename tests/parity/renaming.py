"""Weights of published models under the names that they have in this package.

In: the state dict of a model of transformers. Out: the state dict of the same network here. A
weight that no rule names is an error: nothing is left out in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

State = dict[str, Tensor]
Rules = Mapping[str, str]
"""Regular expression of the whole published name -> the name here; "" leaves the weight out."""

LLAMA: Rules = {
    r"model\.embed_tokens\.(.*)": r"embed_tokens.\1",
    r"model\.layers\.(\d+)\.input_layernorm\.(.*)": r"layers.\1.mixer_norm.\2",
    r"model\.layers\.(\d+)\.self_attn\.(.*)": r"layers.\1.mixer.\2",
    r"model\.layers\.(\d+)\.post_attention_layernorm\.(.*)": r"layers.\1.mlp_norm.\2",
    r"model\.layers\.(\d+)\.mlp\.(.*)": r"layers.\1.mlp.\2",
    r"model\.norm\.(.*)": r"norm.\1",
    r"lm_head\.(.*)": r"lm_head.\1",
}

LFM2: Rules = {
    r"model\.embed_tokens\.(.*)": r"embed_tokens.\1",
    r"model\.layers\.(\d+)\.operator_norm\.(.*)": r"layers.\1.mixer_norm.\2",
    r"model\.layers\.(\d+)\.conv\.(.*)": r"layers.\1.mixer.\2",
    r"model\.layers\.(\d+)\.ffn_norm\.(.*)": r"layers.\1.mlp_norm.\2",
    r"model\.layers\.(\d+)\.feed_forward\.w1\.(.*)": r"layers.\1.mlp.gate_proj.\2",
    r"model\.layers\.(\d+)\.feed_forward\.w3\.(.*)": r"layers.\1.mlp.up_proj.\2",
    r"model\.layers\.(\d+)\.feed_forward\.w2\.(.*)": r"layers.\1.mlp.down_proj.\2",
    r"model\.embedding_norm\.(.*)": r"norm.\1",
    r"lm_head\.(.*)": r"lm_head.\1",
}

QWEN3_5: Rules = {
    r"model\.layers\.(\d+)\.linear_attn\.in_proj_(qkv|z|b|a)\.(.*)": r"layers.\1.mixer.\2_proj.\3",
    r"model\.layers\.(\d+)\.linear_attn\.conv1d\.(.*)": r"layers.\1.mixer.conv.\2",
    r"model\.layers\.(\d+)\.linear_attn\.norm\.(.*)": r"layers.\1.mixer.o_norm.\2",
    r"model\.layers\.(\d+)\.linear_attn\.out_proj\.(.*)": r"layers.\1.mixer.o_proj.\2",
    r"model\.layers\.(\d+)\.linear_attn\.(A_log|dt_bias)": r"layers.\1.mixer.\2",
    **LLAMA,
}

MPT: Rules = {
    r"transformer\.wte\.(.*)": r"embed_tokens.\1",
    r"transformer\.blocks\.(\d+)\.norm_1\.(.*)": r"layers.\1.mixer_norm.\2",
    r"transformer\.blocks\.(\d+)\.attn\.Wqkv\.(.*)": r"layers.\1.mixer.qkv_proj.\2",
    r"transformer\.blocks\.(\d+)\.attn\.out_proj\.(.*)": r"layers.\1.mixer.o_proj.\2",
    r"transformer\.blocks\.(\d+)\.norm_2\.(.*)": r"layers.\1.mlp_norm.\2",
    r"transformer\.blocks\.(\d+)\.ffn\.(.*)": r"layers.\1.mlp.\2",
    r"transformer\.norm_f\.(.*)": r"norm.\1",
    r"lm_head\.(.*)": r"lm_head.\1",
}

GPT2: Rules = {
    r"transformer\.wte\.(.*)": r"embed_tokens.\1",
    r"transformer\.wpe\.(.*)": r"embed_positions.0.\1",
    r"transformer\.h\.(\d+)\.ln_1\.weight": r"layers.\1.mixer_norm.weight",
    r"transformer\.h\.(\d+)\.attn\.c_attn\.weight": r"layers.\1.mixer.qkv_proj.weight",
    r"transformer\.h\.(\d+)\.attn\.c_proj\.weight": r"layers.\1.mixer.o_proj.weight",
    r"transformer\.h\.(\d+)\.ln_2\.weight": r"layers.\1.mlp_norm.weight",
    r"transformer\.h\.(\d+)\.mlp\.c_fc\.weight": r"layers.\1.mlp.up_proj.weight",
    r"transformer\.h\.(\d+)\.mlp\.c_proj\.weight": r"layers.\1.mlp.down_proj.weight",
    r"transformer\.ln_f\.weight": r"norm.weight",
    r"transformer\..*\.bias": "",
    r"lm_head\.(.*)": r"lm_head.\1",
}

MAMBA2: Rules = {
    r"backbone\.embeddings\.(.*)": r"embed_tokens.\1",
    r"backbone\.layers\.(\d+)\.norm\.(.*)": r"layers.\1.mixer_norm.\2",
    r"backbone\.layers\.(\d+)\.mixer\.(.*)": r"layers.\1.mixer.\2",
    r"backbone\.norm_f\.(.*)": r"norm.\1",
    r"lm_head\.(.*)": r"lm_head.\1",
}

MODERN_BERT: Rules = {
    r"model\.embeddings\.tok_embeddings\.(.*)": r"embed_tokens.\1",
    r"model\.embeddings\.norm\.(.*)": r"embedding_norm.\1",
    r"model\.layers\.(\d+)\.attn_norm\.(.*)": r"layers.\1.mixer_norm.\2",
    r"model\.layers\.(\d+)\.attn\.Wqkv\.(.*)": r"layers.\1.mixer.qkv_proj.\2",
    r"model\.layers\.(\d+)\.attn\.Wo\.(.*)": r"layers.\1.mixer.o_proj.\2",
    r"model\.layers\.(\d+)\.mlp_norm\.(.*)": r"layers.\1.mlp_norm.\2",
    r"model\.layers\.(\d+)\.mlp\.Wi\.(.*)": r"layers.\1.mlp.gate_up_proj.\2",
    r"model\.layers\.(\d+)\.mlp\.Wo\.(.*)": r"layers.\1.mlp.down_proj.\2",
    r"model\.final_norm\.(.*)": r"norm.\1",
    r"head\.(.*)": r"lm_head.transform.\1",
    r"decoder\.(.*)": r"lm_head.\1",
}

_SELF, _CROSS = r"\.layer\.0\.SelfAttention\.", r"\.layer\.1\.EncDecAttention\."
T5: Rules = {
    r"shared\.(.*)": r"embed_tokens.\1",
    r"(encoder|decoder)\.embed_tokens\..*": "",
    rf"(encoder|decoder)\.block\.0{_SELF}relative_attention_bias\.(.*)": r"\1.relative.relative_attention_bias.\2",
    rf"(encoder|decoder)\.block\.(\d+){_SELF}([qkvo])\.(.*)": r"\1.layers.\2.mixer.\3_proj.\4",
    r"(encoder|decoder)\.block\.(\d+)\.layer\.0\.layer_norm\.(.*)": r"\1.layers.\2.mixer_norm.\3",
    rf"decoder\.block\.(\d+){_CROSS}([qkvo])\.(.*)": r"decoder.layers.\1.cross.\2_proj.\3",
    r"decoder\.block\.(\d+)\.layer\.1\.layer_norm\.(.*)": r"decoder.layers.\1.cross_norm.\2",
    r"(encoder|decoder)\.block\.(\d+)\.layer\.\d\.layer_norm\.(.*)": r"\1.layers.\2.mlp_norm.\3",
    r"(encoder|decoder)\.block\.(\d+)\.layer\.\d\.DenseReluDense\.wi_0\.(.*)": r"\1.layers.\2.mlp.gate_proj.\3",
    r"(encoder|decoder)\.block\.(\d+)\.layer\.\d\.DenseReluDense\.wi(?:_1)?\.(.*)": r"\1.layers.\2.mlp.up_proj.\3",
    r"(encoder|decoder)\.block\.(\d+)\.layer\.\d\.DenseReluDense\.wo\.(.*)": r"\1.layers.\2.mlp.down_proj.\3",
    r"(encoder|decoder)\.final_layer_norm\.(.*)": r"\1.norm.\2",
    r"lm_head\.(.*)": r"lm_head.\1",
}


def renamed(state: Mapping[str, Tensor], rules: Rules) -> State:
    """The same weights under this package's names."""
    return {name: weight for name, weight in _named(state, rules) if name}


def from_llama(state: Mapping[str, Tensor]) -> State:
    """Of Llama, Mistral, Ministral, or DeepSeek-V3 without experts."""
    return renamed(state, LLAMA)


def from_lfm2(state: Mapping[str, Tensor]) -> State:
    """Of LFM2 with convolutions only."""
    return with_2d_convolutions(renamed(state, LFM2))


def from_qwen3_5(state: Mapping[str, Tensor], keys: int) -> State:
    """Of Qwen3.5 with linear attention only, of `keys` features of all keys; its norms hold weights less 1."""
    found: State = {}
    for name, weight in with_2d_convolutions(renamed(state, QWEN3_5)).items():
        if name.endswith("qkv_proj.weight"):
            parts = weight.split([keys, keys, len(weight) - 2 * keys])
            found |= {name.replace("qkv", part): piece for part, piece in zip("qkv", parts, strict=True)}
        elif name.endswith(("mixer_norm.weight", "mlp_norm.weight")) or name == "norm.weight":
            found[name] = weight + 1
        else:
            found[name.replace("z_proj", "g_proj")] = weight
    return found


def from_mpt(state: Mapping[str, Tensor]) -> State:
    """Of MPT without biases."""
    return with_split(renamed(state, MPT), "qkv_proj", ("q_proj", "k_proj", "v_proj"))


def from_gpt2(state: Mapping[str, Tensor]) -> State:
    """Of a GPT-2 whose biases are all zero; its linear maps are stored transposed."""
    turned = {name: weight.T if ".c_" in name and weight.dim() == 2 else weight for name, weight in state.items()}
    return with_split(renamed(turned, GPT2), "qkv_proj", ("q_proj", "k_proj", "v_proj"))


def from_mamba2(state: Mapping[str, Tensor]) -> State:
    """Of Mamba-2."""
    return with_2d_convolutions(renamed(state, MAMBA2))


def from_modern_bert(state: Mapping[str, Tensor]) -> State:
    """Of ModernBERT that predicts masked tokens."""
    found = with_split(renamed(state, MODERN_BERT), "qkv_proj", ("q_proj", "k_proj", "v_proj"))
    return with_split(found, "gate_up_proj", ("gate_proj", "up_proj"))


def from_t5(state: Mapping[str, Tensor], head_dim: int) -> State:
    """Of T5; it does not divide scores by the root of `head_dim`, so its queries are made larger here."""
    found = renamed(state, T5)
    return {
        name: weight * head_dim**0.5 if name.endswith("q_proj.weight") else weight for name, weight in found.items()
    }


def with_split(state: Mapping[str, Tensor], whole: str, parts: tuple[str, ...]) -> State:
    """Weights called `whole` cut into equal `parts` along their outputs."""
    found: State = {}
    for name, weight in state.items():
        if f".{whole}." in name:
            pieces = weight.chunk(len(parts), 0)
            found |= {name.replace(whole, part): piece for part, piece in zip(parts, pieces, strict=True)}
        else:
            found[name] = weight
    return found


def with_2d_convolutions(state: Mapping[str, Tensor]) -> State:
    """Depthwise kernels (D, 1, K) as (D, 1, 1, K), which is what runs fast on a CPU."""
    return {name: weight[:, :, None] if weight.dim() == 3 else weight for name, weight in state.items()}


def _named(state: Mapping[str, Tensor], rules: Rules) -> Iterator[tuple[str, Tensor]]:
    for name, weight in state.items():
        for pattern, ours in rules.items():
            match = re.fullmatch(pattern, name)
            if match is not None:
                yield match.expand(ours), weight
                break
        else:
            raise KeyError(f"no rule names the weight {name} {tuple(weight.shape)}")


def without_tied_head(state: Mapping[str, Tensor]) -> State:
    """Without the output weights that are the embedding's."""
    assert torch.equal(state["lm_head.weight"], state["embed_tokens.weight"])
    return {name: weight for name, weight in state.items() if name != "lm_head.weight"}
