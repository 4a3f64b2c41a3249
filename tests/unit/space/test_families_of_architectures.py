"""Architectures and spaces of every family: two stacks, cross-attention, positions, heads."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas.cost.estimate import bound, estimate
from nas.errors import SpaceError
from nas.space import Architecture, Space
from nas.space.load import shipped_folder
from nas.specs.tasks import TaskShape

FULL: dict[str, Any] = {"mixer": "full", "heads": 4}
SHIPPED = ("decoder", "encoder", "prefix_lm", "encoder_decoder", "recurrent", "hybrid_decoder")


def two_stacks(**changes: Any) -> dict[str, Any]:
    return {
        "family": "encoder_decoder",
        "width": 32,
        "max_context": 64,
        "encoder": {"layers": [FULL, FULL]},
        "decoder": {"layers": [FULL]},
        **changes,
    }


def one_stack(**changes: Any) -> dict[str, Any]:
    return {"family": "decoder", "width": 32, "max_context": 64, "layers": [FULL], **changes}


def refusal(mapping: dict[str, Any]) -> str:
    with pytest.raises(SpaceError) as caught:
        Architecture.from_mapping(mapping)
    return str(caught.value)


def test_an_encoder_decoder_has_two_stacks_and_comes_back_from_json() -> None:
    network = Architecture.from_mapping(two_stacks(positions="relative"))
    assert (len(network.encoder_layers), len(network.layers), network.depth) == (2, 1, 3)
    assert Architecture.from_json(network.to_json()) == network
    bound_network = network.bind(TaskShape(vocabulary=300, head="seq2seq_lm"))
    assert Architecture.from_json(bound_network.to_json()) == bound_network


def test_attention_to_the_source_takes_after_the_layers_own() -> None:
    layers = [{**FULL, "kv_heads": 2}, {"mixer": "sliding_window", "heads": 2, "window": 8, "cross_heads": 8}]
    network = Architecture.from_mapping(two_stacks(decoder={"layers": layers}))
    first, second = (layer.values for layer in network.layers)
    assert (first["cross_heads"], first["cross_kv_heads"], first["cross_head_dim"]) == (4, 2, 8)
    assert (second["cross_heads"], second["cross_kv_heads"], second["cross_head_dim"]) == (8, 8, 4)
    assert "cross_heads" not in network.encoder_layers[0].values


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        (two_stacks(layers=[FULL]), "no 'layers' of its own"),
        (two_stacks(encoder=None), "needs 'encoder: {layers"),
        (two_stacks(decoder={"layers": []}), "decoder.layers must be a list of at least one layer"),
        (
            two_stacks(decoder={"layers": [{**FULL, "cross_heads": 3}]}),
            "decoder.layers[0]: cross_heads must divide width",
        ),
        (two_stacks(decoder={"layers": [{**FULL, "cross_kv_heads": 3}]}), "cross_kv_heads must divide cross_heads"),
        (two_stacks(encoder={"layers": [{**FULL, "cross_heads": 2}]}), "no other layer has a source"),
        (one_stack(encoder={"layers": [FULL]}), "'encoder' is for family 'encoder_decoder'"),
        (one_stack(layers=[{**FULL, "cross_heads": 2}]), "no other layer has a source"),
        (one_stack(positions="rotary"), "unknown positions 'rotary'"),
        (one_stack(norm="batch"), "unknown norm 'batch'"),
        (one_stack(rope_factor=2.0), "rope_factor 2 needs a rope_scaling: linear or yarn"),
        (one_stack(rope_scaling="ntk", rope_factor=2.0), "unknown rope_scaling 'ntk'"),
        (
            one_stack(positions="relative", layers=[FULL, {"mixer": "full", "heads": 2}]),
            "all attention layers need equally many heads, not 2 and 4",
        ),
        (one_stack(layers=[{"mixer": "full", "heads": 5}]), "heads must divide width: 5 does not divide 32"),
        (one_stack(layers=[{"mixer": "sliding_window", "window": 0}]), "window must be at least 1, not 0"),
        (one_stack(layers=[{"mixer": "mamba2", "head_dim": 7}]), "layers[0]: "),
        (one_stack(layers=[{"mixer": "gated_delta", "heads": 5}]), "layers[0]: "),
        (one_stack(family="prefix_lm", layers=[{"mixer": "full", "heads": 16}]), "head_dim"),
        (one_stack(positions="alibi", layers=[{"mixer": "latent"}]), "layers[0]: "),
    ],
)
def test_what_cannot_be_built_is_refused_when_it_is_made(mapping: dict[str, Any], words: str) -> None:
    assert words in refusal(mapping)


def test_defaults_stay_out_of_the_plain_values() -> None:
    network = Architecture.from_mapping(one_stack())
    assert not {"norm", "embedding_norm", "rope_scaling", "rope_factor", "labels"} & set(network.to_mapping())
    assert Architecture.from_mapping(one_stack(norm="layer")).to_mapping()["norm"] == "layer"
    assert Architecture.from_mapping(one_stack(rope_scaling="yarn")) == network


def test_extending_stretches_rotary_positions_and_refuses_learned_ones() -> None:
    network = Architecture.from_mapping(one_stack())
    longer = network.extended(4)
    assert (longer.max_context, longer.rope_scaling, longer.rope_factor) == (256, "yarn", 4.0)
    assert longer.rope.original_context == 64
    assert longer.extended(2).rope.original_context == 64
    assert estimate(longer).parameters == estimate(network).parameters
    with pytest.raises(SpaceError, match="stretched by 'yarn' already"):
        longer.extended(2, "linear")
    with pytest.raises(SpaceError, match="factor must be at least 1"):
        network.extended(0.5)
    assert Architecture.from_mapping(one_stack(positions="alibi")).extended(2).rope_scaling == "none"
    with pytest.raises(SpaceError, match="learned positions end at 64 tokens"):
        Architecture.from_mapping(one_stack(positions="learned")).extended(2)


def test_a_prefix_language_model_turns_by_two_numbers() -> None:
    network = Architecture.from_mapping(one_stack(family="prefix_lm"))
    assert network.rope.dimensions == 2 and network.surroundings.looks_ahead
    assert Architecture.from_mapping(one_stack()).rope.dimensions == 1


def test_every_layer_counts_in_both_stacks() -> None:
    space = Space.from_mapping(
        {
            "name": "two",
            "family": "encoder_decoder",
            "width": 32,
            "max_context": 64,
            "encoder": {
                "depth": 2,
                "layers": {"mixer": {"choice": ["full", "sliding_window"], "per": "layer"}, "window": 8},
            },
            "decoder": {"depth": {"range": [1, 2]}, "layers": [{"mixer": "full"}] and {"mixer": "full"}},
            "constraints": ["count(mixer=sliding_window) >= 1"],
        }
    )
    names = [parameter.name for parameter in space.parameters]
    assert names == ["encoder.layers.0.mixer", "encoder.layers.1.mixer", "decoder.depth"]
    for seed in range(10):
        network = space.sample(seed)
        assert "sliding_window" in {layer.mixer for layer in network.encoder_layers}
        assert space.contains(network)


def test_layers_lists_work_inside_stacks_and_errors_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    text = (
        "name: two\nfamily: encoder_decoder\nwidth: 32\nmax_context: 64\n"
        "encoder:\n  layers:\n    - {mixer: full, repeat: 2}\n    - {mixer: none}\n"
        "decoder:\n  depth: 2\n  layers:\n    mixer: full\n    heads: HEADS\n"
    )
    path.write_text(text.replace("HEADS", "4"))
    assert Space.load(path).sample(0).depth == 5
    path.write_text(text.replace("HEADS", "5"))
    with pytest.raises(SpaceError, match=r"space.yaml:13: heads 5 is valid in no draw.*nearest 4"):
        Space.load(path)
    path.write_text(text.replace("  depth: 2\n", ""))
    with pytest.raises(SpaceError, match=r"space.yaml:10: 'depth' is missing"):
        Space.load(path)
    path.write_text(text.partition("decoder:")[0])
    with pytest.raises(SpaceError, match="'decoder' is missing"):
        Space.load(path)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_spaces_draw_networks_of_their_family_that_they_contain(name: str) -> None:
    space = Space.load(shipped_folder("search_spaces") / f"{name}.yaml")
    rng = random.Random(0)
    for _ in range(20):
        network = space.decode(space.draw(rng)).architecture
        assert network is not None
        assert bound(network).family == space.family
        found = replace(network)
        assert Architecture.from_json(found.to_json()) == network
        assert space.contains(network) or space.broken_constraints(bound(network))


def test_the_hybrid_space_mixes_at_least_five_mixers() -> None:
    space = Space.load("hybrid_decoder")
    assert len({layer.mixer for seed in range(40) for layer in space.sample(seed).layers}) >= 5
