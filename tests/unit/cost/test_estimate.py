"""Parameters, state and bytes against values worked out by hand, and properties of the figures."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nas import catalog
from nas.cost.estimate import BYTE_VOCABULARY, count_parameters, estimate, training_flops_per_token
from nas.errors import SpaceError
from nas.space.architecture import Architecture
from nas.space.space import Space
from nas.specs.tasks import TaskShape

QUICK = settings(max_examples=60, deadline=None, derandomize=True)


def network(layers: list[dict[str, Any]], **changes: Any) -> Architecture:
    mapping = {"family": "decoder", "width": 8, "max_context": 32, "layers": layers, **changes}
    return Architecture.from_mapping(mapping).bind(TaskShape(vocabulary=11, head="causal_lm"))


FULL = {"mixer": "full", "heads": 4, "kv_heads": 2, "mlp_hidden": 12}
WINDOW = {"mixer": "sliding_window", "window": 5, "heads": 2, "kv_heads": 1, "mlp": "none", "short_conv": 3}


def test_a_tiny_model_of_one_full_layer_by_hand() -> None:
    cost = estimate(network([FULL]), context=32)
    embedding, final_norm = 11 * 8, 8
    queries_and_output, keys_and_values = 2 * 8 * 8, 2 * 8 * (2 * 2)
    norms, mlp = 2 * 8, 3 * 8 * 12
    assert cost.parameters == embedding + final_norm + queries_and_output + keys_and_values + norms + mlp == 592
    assert cost.param_bytes == 2 * 592
    # 32 tokens, keys and values, two heads of two features, two bytes each.
    assert cost.state_bytes == 32 * 2 * 2 * 2 * 2 == 512
    assert cost.serve_bytes == 2 * 592 + 512


def test_a_tiny_hybrid_by_hand() -> None:
    cost = estimate(network([FULL, WINDOW], tied_embeddings=False), context=20, batch=3, dtype="fp32")
    outside = 2 * 11 * 8 + 8
    full = 2 * 8 * 8 + 2 * 8 * 4 + 2 * 8 + 3 * 8 * 12
    # Heads of four features; one norm, for there is no MLP; a convolution of width 3.
    window = 2 * 8 * 8 + 2 * 8 * 4 + 8 + 3 * 8
    assert cost.parameters == outside + full + window == 904
    # The window keeps 5 tokens of 20 and the convolution 2.
    assert cost.state_bytes == 3 * 4 * (20 * 2 * 4 + 5 * 2 * 4 + 2 * 8)
    assert cost.param_bytes == 4 * 904


def test_llama_3_1_8b_as_a_space_of_scalars() -> None:
    space = Space.from_mapping(
        {
            "name": "llama_3_1_8b",
            "family": "decoder",
            "width": 4096,
            "max_context": 131_072,
            "vocabulary": 128_256,
            "tied_embeddings": False,
            "rope_theta": 500_000,
            "depth": 32,
            "layers": {"mixer": "full", "heads": 32, "kv_heads": 8, "mlp_hidden": 14_336},
        }
    )
    assert space.size == 1
    cost = estimate(space.sample(0), context=65_536)
    assert cost.parameters == 8_030_261_248
    assert cost.param_bytes == 16_060_522_496
    assert cost.state_bytes == 65_536 * 131_072
    assert cost.serve_bytes == cost.param_bytes + cost.state_bytes


def test_without_settings_the_context_is_the_models_own_and_the_batch_one() -> None:
    cost = estimate(network([FULL]))
    assert (cost.context, cost.batch, cost.dtype) == (32, 1, "bf16")
    assert cost == estimate(network([FULL]), context=32, batch=1, dtype="bf16")


def test_an_unbound_architecture_counts_as_a_byte_level_language_model() -> None:
    unbound = Architecture.from_mapping({"family": "decoder", "width": 8, "max_context": 32, "layers": [FULL]})
    assert estimate(unbound) == estimate(unbound.bind(TaskShape(vocabulary=BYTE_VOCABULARY, head="causal_lm")))


@pytest.mark.parametrize(
    ("context", "kept"), [(1, 1), (4, 4), (5, 5), (6, 5), (32, 5)], ids=["1", "below", "at", "above", "far"]
)
def test_a_sliding_window_caches_no_more_than_it_sees(context: int, kept: int) -> None:
    layer = {**WINDOW, "short_conv": 0}
    assert estimate(network([layer]), context=context).state_bytes == kept * 2 * 1 * 4 * 2


def test_the_formulas_hold_beyond_max_context() -> None:
    window = {**WINDOW, "short_conv": 0}
    short, long = network([FULL, window], max_context=32), network([FULL, window], max_context=65_536)
    assert estimate(short, context=65_536) == estimate(long)


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32", "fp64"])
def test_the_dtype_scales_weights_and_cache(dtype: str) -> None:
    size = {"fp16": 2, "bf16": 2, "fp32": 4, "fp64": 8}[dtype]
    cost, reference = estimate(network([FULL]), dtype=dtype), estimate(network([FULL]), dtype="bf16")
    assert cost.param_bytes * 2 == reference.param_bytes * size
    assert cost.state_bytes * 2 == reference.state_bytes * size


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"context": 0}, "context must be at least 1, not 0"),
        ({"batch": 0}, "batch must be at least 1, not 0"),
        ({"dtype": "fp8"}, "unknown dtype 'fp8': valid: bf16, fp16, fp32, fp64"),
    ],
)
def test_what_no_model_allows_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SpaceError) as caught:
        estimate(network([FULL]), **settings)
    assert words in str(caught.value)


@st.composite
def networks(draw: st.DrawFn) -> Architecture:
    heads = draw(st.sampled_from([1, 2, 4]))
    layer = st.fixed_dictionaries(
        {
            "mixer": st.just("sliding_window"),
            "window": st.sampled_from([1, 7, 64]),
            "heads": st.just(heads),
            "kv_heads": st.sampled_from([found for found in (1, 2, 4) if heads % found == 0]),
            "short_conv": st.sampled_from([0, 3]),
            "mlp_hidden": st.integers(1, 40),
        }
    )
    layers = draw(st.lists(layer, min_size=1, max_size=4))
    return network(layers, max_context=64, width=draw(st.sampled_from([8, 16])), tied_embeddings=draw(st.booleans()))


@given(networks(), st.integers(1, 63), st.integers(1, 8))
@QUICK
def test_no_figure_shrinks_with_context_or_batch(architecture: Architecture, context: int, batch: int) -> None:
    here = estimate(architecture, context=context, batch=batch)
    for more in (
        estimate(architecture, context=context + 1, batch=batch),
        estimate(architecture, context=context, batch=batch + 1),
    ):
        assert more.parameters == here.parameters
        for figure in ("state_bytes", "serve_bytes", "prefill_peak_bytes", "train_peak_bytes", "flops_per_token"):
            assert getattr(more, figure) >= getattr(here, figure), figure


@given(networks())
@QUICK
def test_state_is_proportional_to_the_batch(architecture: Architecture) -> None:
    assert estimate(architecture, batch=7).state_bytes == 7 * estimate(architecture).state_bytes


@given(networks(), st.sampled_from(["width", "kv_heads", "mlp_hidden", "depth", "window"]))
@QUICK
def test_a_larger_network_costs_more(architecture: Architecture, what: str) -> None:
    larger = architecture.to_mapping()
    if what == "width":
        for layer in larger["layers"]:
            layer["head_dim"] *= 2
        larger["width"] *= 2
    elif what == "depth":
        larger["layers"] = [*larger["layers"], larger["layers"][0]]
    else:
        layer = larger["layers"][0]
        assume(what in layer)
        assume(what != "kv_heads" or layer["heads"] > layer["kv_heads"])
        layer[what] *= 2
    here, there = estimate(architecture), estimate(Architecture.from_mapping(larger))
    grows = {"window": "state_bytes"}.get(what, "parameters")
    assert getattr(there, grows) > getattr(here, grows)
    assert there.serve_bytes > here.serve_bytes
    assert there.flops_per_token > here.flops_per_token


def test_a_window_of_the_whole_context_costs_what_full_attention_costs() -> None:
    full = {**WINDOW, "mixer": "full"}
    del full["window"]
    almost = network([{**WINDOW, "window": 31}])
    assert almost.layers[0].mixer == "sliding_window"
    below, whole = estimate(almost, context=31), estimate(network([full]), context=31)
    assert below.state_bytes == whole.state_bytes
    assert below.flops_per_token == pytest.approx(whole.flops_per_token)


def test_training_costs_three_forward_passes_of_two_flops_a_weight_and_token() -> None:
    # Embedding look-ups cost nothing and the tied head costs its product once more.
    layers = [{**FULL, "mlp": "none"}]
    architecture = network([{key: value for key, value in layers[0].items() if key != "mlp_hidden"}])
    weights = 2 * 8 * 8 + 2 * 8 * 4
    attention = 4 * 8 * (16 + 1) / 2
    assert training_flops_per_token(architecture, 16) == pytest.approx(3 * (2 * weights + attention + 2 * 8 * 11))


@pytest.mark.parametrize(("family", "head", "maps"), [("encoder", "masked_lm", 1), ("decoder", "autoencoder", 2)])
def test_the_dense_maps_of_a_head_are_counted(family: str, head: str, maps: int) -> None:
    def parameters_and_flops(name: str, labels: int | None = None) -> tuple[int, float]:
        plan = {"family": family, "width": 8, "max_context": 32, "layers": [FULL], "tied_embeddings": False}
        bound = Architecture.from_mapping(plan).bind(TaskShape(vocabulary=11, head=name, labels=labels))
        return count_parameters(bound), training_flops_per_token(bound, 16)

    # A map of 8 x 8 and a norm each; the plain head of as many outputs has a bias too.
    plain, found = parameters_and_flops("token_classification", labels=11), parameters_and_flops(head)
    assert found[0] - plain[0] == maps * (8 * 8 + 8)
    assert found[1] - plain[1] == pytest.approx(3 * 2 * maps * 8 * 8)


@given(networks())
@QUICK
def test_every_named_figure_agrees_with_the_estimate(architecture: Architecture) -> None:
    cost = estimate(architecture, context=9, batch=2, dtype="fp32")
    for name in catalog.FIGURES:
        assert catalog.load("figure", name)(architecture, context=9, batch=2, dtype="fp32") == getattr(cost, name)
    assert count_parameters(architecture) == cost.parameters


def test_a_family_that_does_not_decode_has_no_state(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_family.py").write_text(
        "from nas.specs.families import Decoder\nfrom nas.specs.mixers.softmax import FullAttention\n\n"
        "class Reader(Decoder):\n    decodes = False\n\n"
        "class Look(FullAttention):\n    families = frozenset({'own_family:Reader'})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    reader = Architecture.from_mapping(
        {"family": "own_family:Reader", "width": 8, "max_context": 32, "layers": [{"mixer": "own_family:Look"}]}
    )
    for name in ("state_bytes", "serve_bytes"):
        with pytest.raises(SpaceError, match=f"does not decode and has no {name}: use prefill_peak_bytes"):
            catalog.load("figure", name)(reader)
    assert catalog.load("figure", "prefill_peak_bytes")(reader) > 0


@pytest.mark.parametrize("vocabulary", [11, 5000])
def test_a_head_that_speaks_no_tokens_costs_its_own_outputs_alone(vocabulary: int) -> None:
    plan = Architecture.from_mapping({"family": "encoder", "width": 8, "max_context": 32, "layers": [FULL]})
    spans = estimate(plan.bind(TaskShape(vocabulary=vocabulary, head="span")), batch=2, context=16)
    labels = estimate(
        plan.bind(TaskShape(vocabulary=vocabulary, head="token_classification", labels=5)), batch=2, context=16
    )
    # Three outputs more: each a row of weights and a bias.
    assert labels.parameters - spans.parameters == 3 * (8 + 1)
    assert labels.flops_per_token - spans.flops_per_token == pytest.approx(3 * 2 * 8 * 3)
    # Weights, their gradients, two moments and an average: so small a step is fullest at its end.
    assert labels.train_peak_bytes - spans.train_peak_bytes == 4 * 5 * 27
