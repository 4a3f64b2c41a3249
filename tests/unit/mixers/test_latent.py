from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.mixers.base import CAUSAL, Layout, MixerConfig
from nas.mixers.latent import LatentAttention, attend
from nas.specs import mixer_spec
from nas.specs.base import Rope, Surroundings, Value
from nas.specs.tape import Extent, Tape

SPEC = mixer_spec("latent")
YARN = Rope(theta=10_000.0, scaling="yarn", factor=4.0, original_context=64.0)


def around(positions: str = "rope", *, width: int = 48, rope_dimensions: int = 1) -> Surroundings:
    return Surroundings(width=width, max_context=256, positions=positions, rope_dimensions=rope_dimensions)


def make(options: dict[str, Value], *, positions: str = "rope", rope: Rope = YARN) -> LatentAttention:
    surroundings = around(positions)
    return LatentAttention(MixerConfig(options=SPEC.complete(options, surroundings), around=surroundings, rope=rope))


def halves(weight_XD: Tensor) -> Tensor:
    """Rows in DeepSeek's order, pairs side by side, in Llama's: the first of all pairs, then the second."""
    return torch.cat([weight_XD[0::2], weight_XD[1::2]])


@pytest.mark.parametrize("rope", [Rope(theta=500.0), YARN], ids=["plain", "yarn"])
@pytest.mark.parametrize("interleave", [True, False])
@pytest.mark.parametrize("value_dim", [12, 20])
def test_it_is_deepseeks(rope: Rope, interleave: bool, value_dim: int) -> None:
    transformers = pytest.importorskip("transformers")
    deepseek = pytest.importorskip("transformers.models.deepseek_v3.modeling_deepseek_v3")
    ours = make({"heads": 3, "head_dim": 12, "rope_dim": 8, "value_dim": value_dim, "latent_dim": 24}, rope=rope)
    parameters: dict[str, Any] = {"rope_theta": rope.theta, "rope_type": "default"}
    if rope.scaling == "yarn":
        parameters |= {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    config = transformers.DeepseekV3Config(
        hidden_size=48,
        num_attention_heads=3,
        num_key_value_heads=3,
        q_lora_rank=None,
        kv_lora_rank=24,
        qk_nope_head_dim=12,
        qk_rope_head_dim=8,
        v_head_dim=value_dim,
        rope_interleave=interleave,
        max_position_embeddings=256,
        rope_parameters=parameters,
    )
    config._attn_implementation = "sdpa"
    theirs = deepseek.DeepseekV3Attention(config, 0)
    weights = {name: weight.clone() for name, weight in theirs.state_dict().items()}
    weights["kv_a_layernorm.weight"] += torch.randn(24)
    theirs.load_state_dict(weights)
    if interleave:
        q_HXD = weights["q_proj.weight"].view(3, 20, 48)
        weights["q_proj.weight"] = torch.cat([torch.cat([q_XD[:12], halves(q_XD[12:])]) for q_XD in q_HXD])
        down_XD = weights["kv_a_proj_with_mqa.weight"]
        weights["kv_a_proj_with_mqa.weight"] = torch.cat([down_XD[:24], halves(down_XD[24:])])
    ours.load_state_dict(weights)
    x = torch.randn(2, 30, 48)
    tables = deepseek.DeepseekV3RotaryEmbedding(config)(x, torch.arange(30)[None])
    torch.testing.assert_close(ours(x), theirs(x, tables, None)[0], rtol=1e-4, atol=1e-5)


def test_a_step_never_expands_the_cache() -> None:
    mixer = make({"heads": 3, "head_dim": 16})
    state = mixer.new_state(
        1, 4096, cache_dtype=torch.float32, recurrent_dtype=torch.float32, device=torch.device("cpu")
    )
    sizes: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            made = [part for part in (out if isinstance(out, (tuple, list)) else (out,)) if isinstance(part, Tensor)]
            own = [part for part in made if part.untyped_storage().data_ptr() != state.latents_BSC.data_ptr()]
            sizes.extend(part.untyped_storage().nbytes() // part.element_size() for part in own)
            return out

    with torch.no_grad(), Watch():
        mixer.step(torch.randn(1, 48), state, 4000)
    largest_weight = max(weight.numel() for weight in mixer.parameters())
    assert max(sizes) <= max(largest_weight, 4096)


@pytest.mark.parametrize(
    "layout",
    [
        CAUSAL,
        Layout(prefix=4),
        Layout(prefix=7),
        Layout(prefix=torch.tensor([0, 3]), lengths_B=torch.tensor([7, 5])),
    ],
    ids=["causal", "part", "whole", "unequal"],
)
def test_attention_and_its_gradients_in_every_layout(layout: Layout) -> None:
    q, k, v = (torch.randn(2, 3, 7, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    times = torch.arange(7)
    prefix_B = torch.as_tensor(layout.prefix).expand(2)
    inside_BL = times < prefix_B[:, None]
    seen_BLL = (times <= times[:, None]) | (inside_BL[:, :, None] & inside_BL[:, None])
    scores = (q @ k.mT * 0.3).masked_fill(~seen_BLL[:, None], float("-inf"))
    expected = scores.softmax(-1) @ v
    found = attend(q, k, v, layout, scale=0.3)
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-12)
    upstream = torch.randn_like(found)
    for ours, theirs in zip(
        torch.autograd.grad(found, (q, k, v), upstream), torch.autograd.grad(expected, (q, k, v), upstream), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "positions"),
    [
        ({"heads": 4}, "rope"),
        ({"heads": 1, "value_dim": 16}, "rope"),
        ({"heads": 3, "head_dim": 5, "value_dim": 30}, "rope"),
        ({"heads": 2, "latent_dim": 7}, "none"),
        ({"heads": 2, "value_dim": 5}, "learned"),
    ],
)
def test_backward_keeps_exactly_what_the_sketch_tells(options: dict[str, Value], positions: str) -> None:
    mixer, surroundings = make(options, positions=positions), around(positions)
    x_BLD = torch.randn(2, 40, 48, requires_grad=True)
    tape = Tape(4)
    SPEC.sketch(tape, tape.source(x_BLD.numel()), SPEC.complete(options, surroundings), surroundings, Extent(2, 40))
    kept = {id(storage): storage.bytes for node in tape.nodes for storage in node.saved if storage is not None}
    assert 4 * saved_elements(mixer, x_BLD) == sum(kept.values())


def test_defaults_have_the_proportions_of_deepseek_v2() -> None:
    options = {"heads": 128, "head_dim": 128}
    made = SPEC.complete(options, Surroundings(width=5120, max_context=4096, positions="rope"))
    assert made == options | {"value_dim": 128, "latent_dim": 512, "rope_dim": 64}
    assert SPEC.cache_elements(made, around(), 1000) == 1000 * 576


def test_derived_sizes_keep_every_rule() -> None:
    for positions in ("rope", "learned", "none"):
        for heads in (1, 2, 3, 4, 6, 16, 48):
            for dimensions in (1, 2):
                surroundings = around(positions, rope_dimensions=dimensions)
                made = SPEC.complete({"heads": heads}, surroundings)
                assert not list(SPEC.broken_rules(made, surroundings))
                assert (int(made["rope_dim"]) > 0) == (positions == "rope")


@pytest.mark.parametrize(
    ("options", "surroundings", "key", "words"),
    [
        ({"heads": 5}, around(), "heads", "5 does not divide 48"),
        ({"heads": 4, "latent_dim": 49}, around(), "latent_dim", "width 48: 49 is more"),
        ({"heads": 4, "rope_dim": 3}, around(), "rope_dim", "2 or a multiple, not 3"),
        ({"heads": 4, "rope_dim": 0}, around(), "rope_dim", "2 or a multiple, not 0"),
        ({"heads": 4, "rope_dim": 6}, around(rope_dimensions=2), "rope_dim", "4 or a multiple, not 6"),
        ({"heads": 4, "rope_dim": 4}, around("none"), "rope_dim", "positions are none, not 4"),
        ({"heads": 4}, around("alibi"), "mixer", "not alibi"),
        ({"heads": 4}, around("relative"), "mixer", "not relative"),
    ],
)
def test_broken_rules_name_the_key_and_the_values(
    options: dict[str, Value], surroundings: Surroundings, key: str, words: str
) -> None:
    (rule,) = SPEC.broken_rules(SPEC.complete(options, surroundings), surroundings)
    assert rule.key == key
    assert words in rule.text


@pytest.mark.parametrize(("looks_ahead", "seen"), [(False, 50.5), (True, 100)])
def test_flops_count_what_is_seen(looks_ahead: bool, seen: float) -> None:
    surroundings = Surroundings(width=48, max_context=256, positions="none", looks_ahead=looks_ahead)
    options = SPEC.complete({"heads": 4, "latent_dim": 16}, surroundings)
    linear = 2 * (SPEC.parameters(options, surroundings) - 16)
    assert SPEC.forward_flops(options, surroundings, 100) == linear + 2 * 4 * (12 + 12) * seen
    assert SPEC.decode_flops(options, surroundings, 100) == linear + 2 * 4 * (16 + 16) * 100


def saved_elements(module: nn.Module, x: Tensor) -> int:
    parameters = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = module(x)
    del output
    return sum(tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in kept.values())
