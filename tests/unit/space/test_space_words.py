"""The words of a space: what each means for what is drawn."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas.errors import SpaceError
from nas.space.architecture import Architecture
from nas.space.constraints import Constraint
from nas.space.invert import assignments
from nas.space.load import shipped_folder
from nas.space.space import Space
from nas.specs.tasks import TaskShape

SHAPE = TaskShape(vocabulary=300, head="causal_lm")


def space(layers: Any = None, **changes: Any) -> Space:
    mapping = {
        "name": "test",
        "family": "decoder",
        "width": 64,
        "depth": 3,
        "max_context": 128,
        "layers": layers or {"mixer": "full"},
        **changes,
    }
    if isinstance(layers, list):
        del mapping["depth"]
    return Space.from_mapping(mapping)


def drawn(found: Space, count: int = 100) -> list[Architecture]:
    rng = random.Random(0)
    architectures = [found.decode(found.draw(rng)).architecture for _ in range(count)]
    return [architecture for architecture in architectures if architecture is not None]


def names(found: Space) -> list[str]:
    return [parameter.name for parameter in found.parameters]


def seen(values: Iterable[Any]) -> set[Any]:
    return set(values)


# Values


def test_a_choice_draws_each_of_its_values_and_no_other() -> None:
    assert seen(found.width for found in drawn(space(width={"choice": [32, 64, 96]}))) == {32, 64, 96}


def test_a_range_draws_from_low_to_high_in_steps() -> None:
    assert seen(found.width for found in drawn(space(width={"range": [32, 96], "step": 32}))) == {32, 64, 96}
    assert seen(found.depth for found in drawn(space(depth={"range": [2, 4]}))) == {2, 3, 4}


def test_a_log_range_draws_between_its_ends() -> None:
    found = space(training={"learning_rate": {"log_range": [1e-4, 1e-2]}})
    rates = [dict(found.decode(found.draw(random.Random(seed))).training)["learning_rate"] for seed in range(200)]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert 60 < sum(rate < 1e-3 for rate in rates) < 140


def test_a_scalar_is_fixed_and_no_parameter() -> None:
    found = space()
    assert names(found) == []
    assert found.size == 1
    assert seen(drawn(found, 5)) == {found.sample(0)}


def test_a_choice_of_one_is_a_scalar() -> None:
    assert names(space(width={"choice": [64]}, depth={"range": [3, 3]})) == []


def test_a_fixed_training_value_is_in_every_candidate() -> None:
    found = space(training={"learning_rate": 1e-3, "weight_decay": {"choice": [0, 0.1]}})
    assert names(found) == ["training.weight_decay"]
    assert found.decode({"training.weight_decay": 0}).training == (("learning_rate", 1e-3), ("weight_decay", 0.0))


# Conditions


@pytest.mark.parametrize("condition", ["sliding_window", ["sliding_window"]])
def test_a_value_is_dropped_where_its_condition_fails(condition: Any) -> None:
    layers = {
        "mixer": {"choice": ["full", "sliding_window"], "per": "layer"},
        "window": {"choice": [8, 16], "when": {"mixer": "sliding_window"}},
        "kv_heads": {"choice": [1, 2], "when": {"mixer": condition}},
    }
    found = [layer for architecture in drawn(space(layers)) for layer in architecture.layers]
    assert seen(layer.kv_heads for layer in found if layer.mixer == "full") == {4}, "the default: heads"
    assert seen(layer.kv_heads for layer in found if layer.mixer == "sliding_window") == {1, 2}


def test_a_condition_holds_for_any_of_its_values() -> None:
    layers = {"mixer": "full", "heads": {"choice": [1, 2, 4]}, "short_conv": {"choice": [3], "when": {"heads": [2, 4]}}}
    found = [layer for architecture in drawn(space(layers)) for layer in architecture.layers]
    assert seen((layer.heads, layer.short_conv) for layer in found) == {(1, 0), (2, 3), (4, 3)}


def test_all_conditions_of_a_value_must_hold() -> None:
    layers = {
        "mixer": "full",
        "heads": {"choice": [1, 2]},
        "short_conv": {"choice": [3], "when": {"heads": 2, "width": 64}},
    }
    found = drawn(space(layers, width={"choice": [32, 64]}))
    active = seen((one.width, one.layers[0].heads) for one in found if one.layers[0].short_conv)
    assert active == {(64, 2)}


def test_a_condition_on_an_inactive_value_fails() -> None:
    layers = {
        "mixer": {"choice": ["full", "sliding_window"]},
        "window": {"choice": [8, 16]},
        "short_conv": {"choice": [3], "when": {"window": [8, 16]}},
    }
    found = [layer for architecture in drawn(space(layers)) for layer in architecture.layers]
    assert seen((layer.mixer, layer.short_conv) for layer in found) == {("full", 0), ("sliding_window", 3)}


def test_a_chain_of_conditions_breaks_where_its_first_link_does() -> None:
    layers = {
        "mixer": "full",
        "heads": {"choice": [2, 4]},
        "short_conv": {"choice": [3], "when": {"heads": 4}},
        "kv_heads": {"choice": [1], "when": {"short_conv": 3}},
    }
    found = [layer for architecture in drawn(space(layers)) for layer in architecture.layers]
    assert seen((layer.heads, layer.short_conv, layer.kv_heads) for layer in found) == {(2, 0, 2), (4, 3, 1)}


# How often


def test_a_draw_is_one_for_the_whole_model_by_default() -> None:
    for words in ({"choice": [1, 2, 4]}, {"choice": [1, 2, 4], "per": "model"}):
        found = space({"mixer": "full", "heads": words})
        assert names(found) == ["layers.heads"]
        assert all(len({layer.heads for layer in architecture.layers}) == 1 for architecture in drawn(found))


def test_a_draw_per_layer_differs_from_layer_to_layer() -> None:
    found = space({"mixer": "full", "heads": {"choice": [1, 2], "per": "layer"}})
    assert names(found) == ["layers.0.heads", "layers.1.heads", "layers.2.heads"]
    assert len(seen(tuple(layer.heads for layer in one.layers) for one in drawn(found))) == 2**3


def test_a_draw_with_a_period_repeats_every_k_layers() -> None:
    found = space({"mixer": "full", "heads": {"choice": [1, 2], "period": 2}}, depth=5)
    assert names(found) == ["layers.0.heads", "layers.1.heads"]
    patterns = seen(tuple(layer.heads for layer in one.layers) for one in drawn(found))
    assert patterns == {(1, 1, 1, 1, 1), (1, 2, 1, 2, 1), (2, 1, 2, 1, 2), (2, 2, 2, 2, 2)}


# Layers as a list


def test_a_list_of_layers_repeats_each_entry() -> None:
    found = space([{"mixer": "full", "heads": 8, "repeat": 2}, {"mixer": "full", "mlp": "none"}, {"mixer": "full"}])
    architecture = found.sample(0)
    assert found.size == 1
    assert [(layer.heads, layer.mlp) for layer in architecture.layers] == [
        (8, "swiglu"),
        (8, "swiglu"),
        (4, "none"),
        (4, "swiglu"),
    ]


def test_a_drawn_repeat_varies_the_depth_and_has_a_parameter() -> None:
    found = space(
        [
            {"mixer": "full", "repeat": {"range": [1, 3]}},
            {"mixer": "full", "mlp": "none", "heads": {"choice": [1, 2], "per": "layer"}, "repeat": 2},
        ]
    )
    assert names(found) == ["layers[0].repeat", "layers[1].0.heads", "layers[1].1.heads"]
    assert found.size == 3 * 4
    assert seen(one.depth for one in drawn(found)) == {3, 4, 5}


def test_entries_of_a_list_are_drawn_apart() -> None:
    heads = {"choice": [1, 2]}
    found = space([{"mixer": "full", "heads": heads}, {"mixer": "full", "heads": heads}])
    assert names(found) == ["layers[0].heads", "layers[1].heads"]
    assert len(seen(tuple(layer.heads for layer in one.layers) for one in drawn(found))) == 4


# The flat set of parameters


def test_the_parameters_reach_up_to_the_maximum_depth_whatever_was_drawn() -> None:
    found = space({"mixer": "full", "heads": {"choice": [1, 2], "per": "layer"}}, depth={"choice": [1, 5]})
    expected = ["depth", *(f"layers.{index}.heads" for index in range(5))]
    assert names(found) == expected
    for seed in range(5):
        assert list(found.draw(random.Random(seed))) == expected


def test_layers_beyond_the_depth_change_nothing() -> None:
    found = space({"mixer": "full", "heads": {"choice": [1, 2], "per": "layer"}}, depth={"choice": [1, 2]})
    one = {"depth": 1, "layers.0.heads": 1, "layers.1.heads": 1}
    assert found.decode(one) == found.decode({**one, "layers.1.heads": 2})
    assert found.decode(one) != found.decode({**one, "layers.0.heads": 2})


# Size


def test_the_size_counts_layers_of_each_depth() -> None:
    found = space({"mixer": "full", "heads": {"choice": [1, 2], "per": "layer"}}, depth={"range": [1, 3]})
    assert found.size == 2 + 4 + 8
    assert len(list(found.enumerate())) == found.size


def test_a_continuous_range_makes_the_size_infinite_and_the_space_unlistable() -> None:
    found = space({"mixer": "full", "mlp_ratio": {"range": [1.0, 4.0]}})
    assert found.size == float("inf")
    assert not found.is_finite
    assert space(training={"learning_rate": {"choice": [1e-3, 1e-2]}}).is_finite
    assert not space(training={"learning_rate": {"log_range": [1e-3, 1e-2]}}).is_finite


def test_enumeration_lists_training_values_too() -> None:
    found = space(training={"learning_rate": {"choice": [1e-3, 1e-2]}}, width={"choice": [32, 64]})
    assert found.size == 2
    assert len({found.decode(values) for values in found.enumerate()}) == 4


# Repair


def test_a_value_that_breaks_a_rule_moves_to_the_nearest_that_keeps_it() -> None:
    found = space(
        {"mixer": "full", "heads": {"choice": [2, 6, 8]}, "kv_heads": {"choice": [1, 2, 4]}}, width={"choice": [48, 64]}
    )
    repaired = found.decode({"width": 64, "layers.heads": 6, "layers.kv_heads": 4}).architecture
    assert repaired is not None
    assert (repaired.layers[0].heads, repaired.layers[0].kv_heads) == (8, 4), "8 is nearer to 6 than 2"
    repaired = found.decode({"width": 64, "layers.heads": 2, "layers.kv_heads": 4}).architecture
    assert repaired is not None
    assert (repaired.layers[0].heads, repaired.layers[0].kv_heads) == (2, 2)


def test_a_draw_that_keeps_the_rules_is_left_alone() -> None:
    found = space(
        {"mixer": "full", "heads": {"choice": [2, 6, 8]}, "kv_heads": {"choice": [1, 2, 4]}}, width={"choice": [48, 64]}
    )
    for heads, kv_heads in ((2, 1), (2, 2), (8, 1), (8, 4)):
        kept = found.decode({"width": 64, "layers.heads": heads, "layers.kv_heads": kv_heads}).architecture
        assert kept is not None
        assert (kept.layers[0].heads, kept.layers[0].kv_heads) == (heads, kv_heads)


def test_what_no_repair_mends_is_excluded_with_its_rule() -> None:
    found = space({"mixer": "full", "heads": 6}, width={"choice": [64, 96]})
    drawn = found.decode({"width": 64})
    assert drawn.architecture is None
    assert drawn.excluded == "heads must divide width: 6 does not divide 64"
    assert found.decode({"width": 96}).architecture is not None


def test_an_inactive_key_is_no_means_of_repair() -> None:
    layers = {
        "mixer": {"choice": ["full", "sliding_window"]},
        "window": 8,
        "heads": {"choice": [3, 5], "when": {"mixer": "sliding_window"}},
    }
    found = space(layers, width=30)
    assert found.decode({"layers.mixer": "full", "layers.heads": 3}).excluded.startswith("heads must divide width: 4")


def test_rules_that_chase_each_other_exclude_the_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_chase.py").write_text(
        "from nas.specs.base import BrokenRule\n"
        "from nas.specs.mixers.softmax import FullAttention\n\n"
        "class Chase(FullAttention):\n"
        "    def broken_rules(self, options, around):\n"
        "        if options['heads'] == options['kv_heads']:\n"
        "            yield BrokenRule('heads', 'heads must differ from kv_heads')\n"
        "        else:\n"
        "            yield BrokenRule('kv_heads', 'kv_heads must equal heads')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = space({"mixer": "own_chase:Chase", "heads": {"choice": [1, 2]}, "kv_heads": {"choice": [1, 2]}})
    outcome = found.decode({"layers.heads": 1, "layers.kv_heads": 1})
    assert outcome.architecture is None
    assert outcome.excluded in ("heads must differ from kv_heads", "kv_heads must equal heads")


# Canonical form


def test_a_window_that_covers_the_context_is_full_attention() -> None:
    layers = {"mixer": "sliding_window", "window": {"choice": [64, 128, 256]}}
    found = space(layers)
    mixers = {
        window: found.decode({"layers.window": window}).architecture.layers[0].mixer  # type: ignore[union-attr]
        for window in (64, 128, 256)
    }
    assert mixers == {64: "sliding_window", 128: "full", 256: "full"}
    assert found.decode({"layers.window": 128}) == found.decode({"layers.window": 256})


def test_a_space_of_windows_contains_the_full_attention_that_they_cover() -> None:
    layers = {"mixer": {"choice": ["full", "sliding_window"], "per": "layer"}, "window": {"choice": [64, 128]}}
    layers["kv_heads"] = {"choice": [1], "when": {"mixer": "sliding_window"}}
    found = space(layers)
    covered = found.decode({"layers.window": 128, **{f"layers.{index}.mixer": "sliding_window" for index in range(3)}})
    assert covered.architecture is not None
    assert [layer.mixer for layer in covered.architecture.layers] == ["full"] * 3
    assert covered.architecture.layers[0].kv_heads == 1
    assert found.contains(covered.architecture)


def test_a_rounded_mlp_is_contained() -> None:
    found = space({"mixer": "full", "mlp_ratio": {"choice": [0.67, 2.5]}})
    architecture = found.decode({"layers.mlp_ratio": 0.67}).architecture
    assert architecture is not None
    assert architecture.layers[0].mlp_hidden == 43
    assert found.contains(architecture)
    assert list(assignments(found, architecture)) == [{"layers.mlp_ratio": 0.67}]


# Containment


def test_a_hidden_value_on_which_another_hangs_is_found() -> None:
    layers = {
        "mixer": "full",
        "mlp": "none",
        "mlp_ratio": {"choice": [2, 4]},
        "short_conv": {"choice": [3], "when": {"mlp_ratio": 4}},
    }
    found = space(layers)
    for ratio, kernel in ((2, 0), (4, 3)):
        architecture = found.decode({"layers.mlp_ratio": ratio}).architecture
        assert architecture is not None
        assert architecture.layers[0].short_conv == kernel
        assert list(assignments(found, architecture)) == [{"layers.mlp_ratio": ratio}]


def test_what_no_draw_gives_is_not_contained() -> None:
    found = space({"mixer": "full", "heads": {"choice": [1, 2]}}, width={"choice": [32, 64]})
    inside = found.sample(0)
    assert found.contains(inside)
    assert found.contains(inside.bind(SHAPE))
    for change in (
        {"width": 96},
        {"max_context": 64},
        {"positions": "none"},
        {"layers": inside.to_mapping()["layers"][:2]},
    ):
        assert not found.contains(Architecture.from_mapping({**inside.to_mapping(), **change})), change


def test_a_network_that_breaks_a_constraint_is_not_contained() -> None:
    free = space(width={"choice": [32, 64]})
    tight = space(width={"choice": [32, 64]}, constraints=["width <= 32"])
    wide = free.decode({"width": 64}).architecture
    assert wide is not None
    assert free.contains(wide)
    assert not tight.contains(wide)


def test_a_shared_draw_must_explain_all_layers_at_once() -> None:
    shared = space({"mixer": "full", "heads": {"choice": [1, 2]}}, depth=2)
    apart = space({"mixer": "full", "heads": {"choice": [1, 2], "per": "layer"}}, depth=2)
    mixed = apart.decode({"layers.0.heads": 1, "layers.1.heads": 2}).architecture
    assert mixed is not None
    assert apart.contains(mixed)
    assert not shared.contains(mixed)


# Sampling


def test_the_same_seed_gives_the_same_sample_in_every_process() -> None:
    found = space(width={"choice": [32, 64, 96, 128]}, depth={"range": [1, 8]})
    assert found.sample(3) == found.sample(3)
    assert len({found.sample(seed) for seed in range(20)}) > 5
    code = (
        "import json, sys; from nas.space.space import Space; "
        "print(Space.from_mapping(json.load(sys.stdin)).sample(3).fingerprint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(found.source),
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == found.sample(3).fingerprint


def test_samples_keep_the_constraints() -> None:
    found = space(
        {"mixer": {"choice": ["full", "sliding_window"], "per": "layer"}, "window": 16},
        width={"choice": [32, 64, 256]},
        constraints=["count(mixer=full) <= 1", "serve_bytes@context=64,batch=4 <= 300 KiB"],
    )
    some = [found.sample(seed, shape=SHAPE) for seed in range(20)]
    assert all(sum(layer.mixer == "full" for layer in one.layers) <= 1 for one in some)
    assert all(one.width < 256 for one in some)
    assert all(one.vocabulary == 300 for one in some)
    assert all(found.contains(one) for one in some)


def test_a_task_shape_counts_in_the_constraints() -> None:
    found = space(width={"choice": [32, 256]}, constraints=["param_bytes <= 3 MB"])
    big = TaskShape(vocabulary=100_000, head="causal_lm")
    with pytest.raises(SpaceError, match="'param_bytes <= 3 MB' excludes most"):
        found.sample(0, shape=big)
    assert found.sample(0, shape=SHAPE)


def test_a_fixed_vocabulary_binds_every_sample() -> None:
    assert space(vocabulary=1000).sample(0).vocabulary == 1000
    with pytest.raises(SpaceError, match="bound to 1000 tokens"):
        space(vocabulary=1000).sample(0, shape=SHAPE)


def test_where_nothing_is_feasible_the_constraint_that_excludes_most_is_named() -> None:
    found = space(
        width={"choice": [32, 64, 96, 128]},
        depth={"range": [1, 4]},
        constraints=["width <= 96", "serve_bytes <= 1 KiB", "depth <= 3"],
    )
    with pytest.raises(SpaceError) as caught:
        found.sample(0)
    rule, hint = str(caught.value).splitlines()
    assert rule == (
        "space 'test': 0 of 4,096 draws are feasible, and 1 in 1,000 must be; "
        "'serve_bytes <= 1 KiB' excludes most of them (100.0%)."
    )
    nearest = re.search(r"the nearest limit that is feasible: (serve_bytes <= \d+ B)", hint)
    assert nearest is not None
    kept = [rule for rule in found.constraints if not rule.text.startswith("serve")]
    assert replace(found, constraints=(*kept, Constraint.parse(nearest[1]))).sample(0)


# Files


def test_a_space_of_scalars_describes_one_published_model(tmp_path: Path) -> None:
    path = tmp_path / "published.yaml"
    path.write_text(
        "name: published\nfamily: decoder\nwidth: 128\nmax_context: 4096\nvocabulary: 1000\ntied_embeddings: false\n"
        "rope_theta: 5e5\nlayers:\n"
        "  - {mixer: full, heads: 4, kv_heads: 2, mlp_hidden: 300, repeat: 2}\n"
        "  - {mixer: full, mlp: none, repeat: 1}\n"
    )
    found = Space.load(path)
    architecture = found.sample(0)
    assert found.size == 1
    assert (architecture.rope_theta, architecture.tied_embeddings, architecture.vocabulary) == (500_000, False, 1000)
    assert [layer.values.get("mlp_hidden") for layer in architecture.layers] == [300, 300, None]


def test_shipped_spaces_load_by_name_and_draw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = sorted(shipped_folder("search_spaces").glob("*.yaml"))
    assert shipped
    for path in shipped:
        found = Space.load(path.stem)
        assert found.name == path.stem
        assert found.contains(found.sample(0))
        assert Space.load(f"search_spaces/{path.name}") == found


def test_a_missing_file_names_the_nearest_shipped_one() -> None:
    with pytest.raises(SpaceError, match=r"no file 'hybrid_decodr': did you mean 'hybrid_decoder'\?"):
        Space.load("hybrid_decodr")


def test_a_space_remembers_the_plain_values_that_make_it_again() -> None:
    found = space(width={"choice": [32, 64]}, constraints=["depth <= 3"])
    assert Space.from_mapping(json.loads(json.dumps(found.source))) == found
