"""Architectures: canonical form, fingerprints, JSON, binding, and which networks are refused."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from typing import Any

import pytest

from nas.errors import SpaceError
from nas.space.architecture import Architecture
from nas.specs.tasks import TaskShape

SHAPE = TaskShape(vocabulary=300, head="causal_lm")


def plain(**changes: Any) -> dict[str, Any]:
    layer = {"mixer": "full", "heads": 4, "kv_heads": 2, "mlp_ratio": 2}
    return {"family": "decoder", "width": 64, "max_context": 128, "layers": [layer, dict(layer)], **changes}


def one_layer(**layer: Any) -> Architecture:
    return Architecture.from_mapping(plain(layers=[layer]))


def refusal(mapping: Any) -> str:
    with pytest.raises(SpaceError) as caught:
        Architecture.from_mapping(mapping)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"mixer": "full"}, {"mixer": "full", "heads": 4, "kv_heads": 4, "head_dim": 16, "mlp": "swiglu"}),
        ({"mixer": "full", "mlp_ratio": 2}, {"mixer": "full", "mlp_ratio": 2.0}),
        ({"mixer": "full", "mlp_ratio": 2}, {"mixer": "full", "mlp_hidden": 128}),
        ({"mixer": "full", "mlp_ratio": 1.001}, {"mixer": "full", "mlp_hidden": 64}),
        ({"mixer": "full", "mlp": "none", "mlp_ratio": 3}, {"mixer": "full", "mlp": "none", "mlp_hidden": 5}),
        ({"mixer": "full"}, {"mixer": "sliding_window", "window": 128}),
        ({"mixer": "full"}, {"mixer": "sliding_window", "window": 1000}),
        ({"mixer": "full"}, {"mixer": "full", "short_conv": 0}),
    ],
)
def test_equal_networks_have_one_form_and_one_fingerprint(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one_layer(**one) == one_layer(**other)
    assert one_layer(**one).fingerprint == one_layer(**other).fingerprint


@pytest.mark.parametrize(
    "changed",
    [
        {"mixer": "sliding_window", "window": 127},
        {"mixer": "full", "heads": 2},
        {"mixer": "full", "kv_heads": 1},
        {"mixer": "full", "mlp_ratio": 2},
        {"mixer": "full", "short_conv": 3},
        {"mixer": "full", "mlp": "none"},
    ],
)
def test_different_networks_have_different_fingerprints(changed: dict[str, Any]) -> None:
    assert one_layer(**changed).fingerprint != one_layer(mixer="full").fingerprint


def test_the_rotary_base_counts_only_where_something_rotates() -> None:
    def with_base(theta: float, positions: str) -> Architecture:
        return Architecture.from_mapping(plain(rope_theta=theta, positions=positions))

    assert with_base(500.0, "none") == with_base(10_000, "none")
    assert with_base(500.0, "rope") != with_base(10_000, "rope")
    assert with_base(500, "rope").fingerprint == with_base(500.0, "rope").fingerprint


@pytest.mark.parametrize("key", ["width", "max_context", "positions", "tied_embeddings"])
def test_every_key_of_the_whole_model_is_in_the_fingerprint(key: str) -> None:
    other = {"width": 128, "max_context": 64, "positions": "none", "tied_embeddings": False}[key]
    assert (
        Architecture.from_mapping(plain(**{key: other})).fingerprint != Architecture.from_mapping(plain()).fingerprint
    )


def test_the_order_of_layers_is_in_the_fingerprint() -> None:
    layers = [{"mixer": "full"}, {"mixer": "full", "mlp": "none"}]
    one, other = (Architecture.from_mapping(plain(layers=found)) for found in (layers, layers[::-1]))
    assert one.fingerprint != other.fingerprint


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    code = (
        "import json, sys; from nas.space.architecture import Architecture; "
        "print(Architecture.from_mapping(json.load(sys.stdin)).fingerprint)"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(plain()),
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == Architecture.from_mapping(plain()).fingerprint


def test_a_fingerprint_is_stable_over_versions() -> None:
    # Stores and bundles hold fingerprints: a change here orphans them.
    assert Architecture.from_mapping(plain()).fingerprint == "baf832b1462334b3"


def test_json_and_pickle_give_the_same_architecture_back() -> None:
    for architecture in (Architecture.from_mapping(plain()), Architecture.from_mapping(plain()).bind(SHAPE)):
        assert Architecture.from_json(architecture.to_json()) == architecture
        assert pickle.loads(pickle.dumps(architecture)) == architecture
        assert copy.deepcopy(architecture).fingerprint == architecture.fingerprint
        assert "\n" not in architecture.to_json()


def test_options_of_a_layer_read_as_attributes() -> None:
    layer = one_layer(mixer="sliding_window", window=16, heads=2).layers[0]
    assert (layer.mixer, layer.window, layer.heads, layer.kv_heads, layer.mlp_ratio) == ("sliding_window", 16, 2, 2, 4)
    with pytest.raises(AttributeError, match=r"this layer \(sliding_window\) has no 'rank'"):
        _ = layer.rank
    assert one_layer(mixer="full").depth == 1


def test_binding_sets_vocabulary_and_head_and_nothing_else() -> None:
    unbound = Architecture.from_mapping(plain())
    bound = unbound.bind(SHAPE)
    assert (bound.vocabulary, bound.head) == (300, "causal_lm")
    assert {**bound.to_mapping(), "vocabulary": None, "head": None} == {
        **unbound.to_mapping(),
        "vocabulary": None,
        "head": None,
    }
    assert bound.fingerprint != unbound.fingerprint
    assert bound.bind(SHAPE) == bound


def test_binding_to_another_task_is_refused() -> None:
    bound = Architecture.from_mapping(plain()).bind(SHAPE)
    with pytest.raises(SpaceError, match="bound to 300 tokens and head 'causal_lm', the task has 301"):
        bound.bind(TaskShape(vocabulary=301, head="causal_lm"))


def test_a_head_that_the_family_lacks_is_refused() -> None:
    with pytest.raises(SpaceError, match="family 'decoder' has no head 'causal': did you mean 'causal_lm'"):
        Architecture.from_mapping(plain()).bind(TaskShape(vocabulary=300, head="causal"))
    with pytest.raises(SpaceError, match="family 'decoder' has no head 'classes'"):
        Architecture.from_mapping(plain(vocabulary=3, head="classes"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"widht": 3}, "unknown key 'widht' of an architecture: did you mean 'width'?"),
        ({"family": "decodr"}, "unknown family 'decodr': did you mean 'decoder'?"),
        ({"width": 0}, "width must be at least 1, not 0"),
        ({"width": 64.0}, "width must be an integer, not 64.0"),
        ({"width": True}, "width must be an integer, not True"),
        ({"width": None}, "width must be an integer, not None"),
        ({"max_context": "long"}, "max_context must be an integer, not 'long'"),
        ({"positions": "rop"}, "unknown positions 'rop': did you mean 'rope'?"),
        ({"rope_theta": float("nan")}, "rope_theta must be a finite number, not nan"),
        ({"tied_embeddings": 1}, "tied_embeddings must be true or false, not 1"),
        ({"vocabulary": 1, "head": "causal_lm"}, "vocabulary must be at least 2, not 1"),
        ({"vocabulary": 300}, "a bound architecture has 'vocabulary' and 'head', an unbound one neither"),
        ({"vocabulary": 300, "head": ["x"]}, "head must be a name, not ['x']"),
        ({"vocabulary": "300", "head": "causal_lm"}, "vocabulary must be an integer, not '300'"),
        ({"width": 10**400}, "width must be a finite number"),
        ({"head": "causal_lm"}, "a bound architecture has 'vocabulary' and 'head'"),
        ({"layers": []}, "layers must be a list of at least one layer"),
        ({"layers": 3}, "layers must be a list of at least one layer"),
        ({"layers": ["full"]}, "layers[0]: a layer is a mapping with the key 'mixer', not 'full'"),
        ({"layers": [{"heads": 3}]}, "layers[0]: a layer is a mapping with the key 'mixer'"),
    ],
)
def test_a_key_of_the_whole_model_that_breaks_a_rule_is_refused(changes: dict[str, Any], words: str) -> None:
    assert words in refusal(plain(**changes))


@pytest.mark.parametrize("key", ["family", "width", "max_context", "layers"])
def test_a_key_that_must_be_given_is_missed(key: str) -> None:
    mapping = plain()
    del mapping[key]
    assert refusal(mapping) == f"an architecture needs '{key}'"


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"mixer": "ful"}, "unknown mixer 'ful': did you mean 'full'?"),
        ({"mixer": "full", "mlp": "swigl"}, "unknown mlp 'swigl': did you mean 'swiglu'?"),
        ({"mixer": "full", "window": 3}, "mixer 'full' takes no 'window'"),
        ({"mixer": "full", "heds": 3}, "mixer 'full' takes no 'heds': did you mean 'heads'?"),
        ({"mixer": "sliding_window"}, "mixer 'sliding_window' needs 'window'"),
        ({"mixer": "sliding_window", "window": 0}, "window must be at least 1, not 0"),
        ({"mixer": "full", "heads": 7}, "heads must divide width: 7 does not divide 64"),
        ({"mixer": "full", "heads": 64}, "rotary positions need an even head_dim: 64 / 64 = 1"),
        ({"mixer": "full", "head_dim": 9}, "rotary positions need an even head_dim, not 9"),
        ({"mixer": "full", "heads": 4, "kv_heads": 3}, "kv_heads must divide heads: 3 does not divide 4"),
        ({"mixer": "full", "heads": "4"}, "heads must be an integer, not '4'"),
        ({"mixer": "full", "mlp_ratio": 0.001}, "mlp_ratio x width must be at least 1: 0.001 x 64 rounds to 0"),
        ({"mixer": "full", "mlp_ratio": float("inf")}, "mlp_ratio must be a finite number, not inf"),
        ({"mixer": "full", "mlp_ratio": 2, "mlp_hidden": 3}, "give mlp_ratio or mlp_hidden, not both"),
    ],
)
def test_a_layer_that_breaks_a_rule_is_refused_by_its_number(layer: dict[str, Any], words: str) -> None:
    text = refusal(plain(layers=[{"mixer": "full"}, layer]))
    assert text.startswith("layers[1]: ")
    assert words in text


@pytest.mark.parametrize("head_dim", [8, 10])
def test_heads_that_do_not_divide_the_width_need_a_head_dim_of_their_own(head_dim: int) -> None:
    assert one_layer(mixer="full", heads=6, head_dim=head_dim).layers[0].head_dim == head_dim
    assert "heads must divide width: 6 does not divide 64" in refusal(plain(layers=[{"mixer": "full", "heads": 6}]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "an architecture is a JSON object; line 1"),
        ("[1]", "an architecture is a JSON object, not list"),
        ('{"width": 1' + "0" * 5000 + "}", "an architecture is a JSON object: Exceeds the limit"),
        ('{"width": NaN}', "an architecture needs 'family'"),
    ],
)
def test_a_text_that_is_no_architecture_is_refused(text: str, words: str) -> None:
    with pytest.raises(SpaceError) as caught:
        Architecture.from_json(text)
    assert words in str(caught.value)
