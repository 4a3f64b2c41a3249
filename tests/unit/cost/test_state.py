"""State in its own dtypes: bytes against counts by hand and packed arrays, and what grows with what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas import catalog
from nas.cost.dtypes import CACHE_BITS
from nas.cost.estimate import Estimate, estimate
from nas.cost.state import StateFormat
from nas.errors import SpaceError
from nas.space.architecture import Architecture
from nas.space.constraints import Constraint, Figure
from nas.specs import mixer_spec
from nas.specs.base import CachedVectors
from nas.specs.tasks import TaskShape

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
INTEGERS = ("int2", "int4", "int8")


def network(*layers: dict[str, Any], **changes: Any) -> Architecture:
    plain = [{"mlp": "none", **layer} for layer in layers]
    plan = {"family": "decoder", "width": 8, "max_context": 1024, "layers": plain, **changes}
    return Architecture.from_mapping(plan).bind(TaskShape(vocabulary=11, head="causal_lm"))


def full(head_dim: int = 80, kv_heads: int = 2) -> dict[str, Any]:
    return {"mixer": "full", "heads": 4, "kv_heads": kv_heads, "head_dim": head_dim}


def state(architecture: Architecture, **asked: Any) -> int:
    return estimate(architecture, **asked).state_bytes


@pytest.mark.parametrize(
    ("cache_dtype", "token"),
    [
        # Two heads, a key and a value each, of 80 features: 64 and 16 of them share a scale and a zero point.
        ("fp32", 4 * 80 * 4),
        ("bf16", 4 * 80 * 2),
        ("fp8", 4 * 80),
        ("int8", 4 * (80 + 2 * 4)),
        ("int4", 4 * (40 + 2 * 4)),
        ("int2", 4 * (20 + 2 * 4)),
    ],
)
def test_a_cache_by_hand(cache_dtype: str, token: int) -> None:
    recent = 4 * 80 * 2 if cache_dtype in INTEGERS else token
    assert state(network(full()), context=300, cache_dtype=cache_dtype) == 128 * recent + 172 * token
    assert state(network(full()), context=300, cache_dtype=cache_dtype, cache_window=0) == 300 * token
    assert state(network(full()), context=300, cache_dtype=cache_dtype, batch=3) == 3 * (128 * recent + 172 * token)


@given(st.integers(1, 200), st.sampled_from(INTEGERS))
@QUICK
def test_a_vector_takes_the_bytes_of_its_packed_bits_and_of_its_scales(features: int, dtype: str) -> None:
    values, bits = np.linspace(-1.0, 1.0, features), CACHE_BITS[dtype]
    packed, scales = 0, 0
    for start in range(0, features, 64):
        group = values[start : start + 64]
        codes = np.round((group - group.min()) / max(np.ptp(group), 1e-9) * (2**bits - 1)).astype(np.uint8)
        packed += np.packbits(np.unpackbits(codes[:, None], axis=1)[:, 8 - bits :]).nbytes
        scales += np.array([np.ptp(group), group.min()], dtype=np.float16).nbytes
    assert StateFormat(cache_dtype=dtype).vector_bytes(features) == packed + scales


def test_odd_vectors_are_packed_into_whole_bytes_each() -> None:
    # Three features of two bits are a byte, of four bits two.
    form = {dtype: StateFormat(cache_dtype=dtype).vector_bytes(3) for dtype in INTEGERS}
    assert form == {"int2": 1 + 4, "int4": 2 + 4, "int8": 3 + 4}


def test_the_recent_window_is_in_full_precision() -> None:
    architecture = network(full())
    for context in (1, 127, 128):
        assert state(architecture, context=context, cache_dtype="int2") == state(architecture, context=context)
    grown = state(architecture, context=129, cache_dtype="int2") - state(architecture, context=128)
    assert grown == 4 * (20 + 2 * 4)


def test_a_sliding_window_within_the_recent_one_is_not_quantised() -> None:
    def windowed(window: int) -> Architecture:
        return network({**full(), "mixer": "sliding_window", "window": window})

    assert state(windowed(128), cache_dtype="int4") == state(windowed(128))
    assert state(windowed(129), cache_dtype="int4") == 128 * 4 * 80 * 2 + 4 * (40 + 2 * 4)


def test_latents_are_quantised_as_two_vectors_a_token() -> None:
    layer = {"mixer": "latent", "heads": 2, "head_dim": 32, "latent_dim": 100, "rope_dim": 20}
    architecture = network(layer, width=128)
    assert state(architecture, context=500) == 500 * 120 * 2
    token = (50 + 2 * 4) + (10 + 4)
    assert state(architecture, context=500, cache_dtype="int4") == 128 * 120 * 2 + 372 * token


def test_inputs_of_convolutions_stay_in_full_precision_and_recurrent_states_in_their_own_dtype() -> None:
    layer = {"mixer": "gated_delta", "heads": 2, "key_dim": 4, "value_dim": 6, "conv": 4, "short_conv": 3}
    architecture = network(layer)
    inputs, memory = 3 * (2 * 2 * 4 + 2 * 6) + 2 * 8, 2 * 4 * 6
    assert state(architecture) == 2 * inputs + 4 * memory
    for cache_dtype in CACHE_BITS:
        assert state(architecture, cache_dtype=cache_dtype) == 2 * inputs + 4 * memory
    assert state(architecture, cache_dtype="fp32", recurrent_dtype="bf16") == 4 * inputs + 2 * memory


def test_of_a_source_every_token_is_quantised() -> None:
    layer = {"heads": 2, "kv_heads": 1, "head_dim": 64, "mixer": "full", "mlp": "none"}
    cross = {"cross_heads": 2, "cross_kv_heads": 1, "cross_head_dim": 64}
    plan = {"encoder": {"layers": [layer]}, "decoder": {"layers": [{**layer, **cross}]}}
    architecture = Architecture.from_mapping(
        {"family": "encoder_decoder", "width": 8, "max_context": 1024, **plan}
    ).bind(TaskShape(vocabulary=11, head="seq2seq_lm"))
    assert state(architecture, context=200) == 2 * 200 * 2 * 64 * 2
    own = 128 * 2 * 64 * 2 + 72 * 2 * (32 + 4)
    assert state(architecture, context=200, cache_dtype="int4") == own + 200 * 2 * (32 + 4)


def test_the_cache_of_a_mixer_that_names_no_vectors_stays_in_full_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_cache.py").write_text(
        "from nas.specs.mixers.softmax import FullAttention\n\n"
        "class Plain(FullAttention):\n"
        "    def cached_vectors(self, options, around, context):\n        return ()\n\n"
        "    def cache_elements(self, options, around, context):\n        return 7 * context\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    architecture = network({**full(), "mixer": "own_cache:Plain"})
    assert state(architecture, context=500) == state(architecture, context=500, cache_dtype="int4") == 500 * 7 * 2


def test_the_cache_has_the_dtype_of_the_weights_unless_it_has_one_of_its_own() -> None:
    plain = estimate(network(full()), dtype="fp32")
    assert (plain.cache_dtype, plain.recurrent_dtype) == ("fp32", "fp32")
    assert plain == estimate(network(full()), dtype="fp32", cache_dtype="fp32")
    small = estimate(network(full()), dtype="fp32", cache_dtype="int4")
    assert small.param_bytes == plain.param_bytes
    assert small.serve_bytes - small.state_bytes == plain.param_bytes
    assert small.state_bytes < plain.state_bytes


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"cache_dtype": "int3"}, "unknown cache_dtype 'int3': did you mean 'int"),
        ({"cache_dtype": "x"}, "unknown cache_dtype 'x': valid: bf16, fp16, fp32, fp64, fp8, int2, int4, int8"),
        ({"recurrent_dtype": "fp31"}, "unknown recurrent_dtype 'fp31': did you mean 'fp32'?"),
        ({"recurrent_dtype": "int8"}, "unknown recurrent_dtype 'int8': valid: bf16, fp16, fp32, fp64 (a cache alone"),
        ({"dtype": "int4"}, "(a cache alone may have it: cache_dtype=int4)"),
        ({"cache_window": -1}, "cache_window must be at least 0, not -1"),
    ],
)
def test_what_no_state_can_be_kept_in_is_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(SpaceError) as caught:
        estimate(network(full()), **asked)
    assert words in str(caught.value)


def test_constraints_and_objectives_take_the_words() -> None:
    architecture = network(full())
    text = "serve_bytes@context=65536,cache_dtype=int4,cache_window=0,recurrent_dtype=bf16"
    figure = Figure.parse(text)
    settings_given = {"cache_dtype": "int4", "cache_window": 0, "recurrent_dtype": "bf16"}
    assert figure(architecture) == estimate(architecture, context=65_536, **settings_given).serve_bytes
    assert Figure.parse(str(figure)) == figure
    limit = int(figure(architecture))
    assert Constraint.parse(f"{text} <= {limit}").violation(architecture) <= 0
    assert Constraint.parse(f"{text} < {limit}").violation(architecture) > 0
    with pytest.raises(SpaceError, match="cache_window must be a whole number of at least 0, not '-1'"):
        Figure.parse("serve_bytes@cache_window=-1")
    with pytest.raises(SpaceError, match="unknown setting 'cache_type=int4': did you mean 'cache_dtype'"):
        Figure.parse("serve_bytes@cache_type=int4")


SHAPES = st.fixed_dictionaries(
    {"head_dim": st.sampled_from([4, 16, 64, 66, 128, 130]), "kv_heads": st.sampled_from([1, 2, 4])}
)


@st.composite
def hybrids(draw: st.DrawFn) -> Architecture:
    attention = full(**draw(SHAPES))
    layers = [
        attention,
        {**attention, "mixer": "sliding_window", "window": draw(st.sampled_from([1, 100, 300]))},
        {"mixer": "mamba2", "head_dim": 4, "state_dim": 4},
    ]
    return network(*draw(st.lists(st.sampled_from(layers), min_size=1, max_size=4)))


def at(architecture: Architecture, context: int, cache_dtype: str, window: int = 128) -> Estimate:
    return estimate(architecture, context=context, cache_dtype=cache_dtype, cache_window=window)


@given(hybrids(), st.integers(1, 1024), st.sampled_from([0, 1, 128, 500]))
@QUICK
def test_fewer_bits_never_take_more_bytes(architecture: Architecture, context: int, window: int) -> None:
    order = [*INTEGERS, "bf16", "fp32", "fp64"]
    sizes = [at(architecture, context, dtype, window).state_bytes for dtype in order]
    assert sizes == sorted(sizes)
    # fp8 has neither scales nor recent tokens in full precision.
    assert at(architecture, context, "fp8", window).state_bytes <= sizes[2]
    assert at(architecture, context, "fp16", window).state_bytes == sizes[3]


@given(hybrids(), st.integers(1, 1023), st.sampled_from(sorted(CACHE_BITS)), st.integers(0, 300))
@QUICK
def test_a_state_grows_with_the_context_and_with_the_recent_window(
    architecture: Architecture, context: int, dtype: str, window: int
) -> None:
    here = at(architecture, context, dtype, window).state_bytes
    assert here <= at(architecture, context + 1, dtype, window).state_bytes
    assert here <= at(architecture, context, dtype, window + 1).state_bytes
    assert here <= at(architecture, context, "bf16", window).state_bytes


@given(hybrids(), st.integers(1, 1024))
@QUICK
def test_floats_take_their_bytes_times_the_elements(architecture: Architecture, context: int) -> None:
    around = architecture.surroundings
    cached = sum(mixer_spec(each.mixer).cache_elements(each.values, around, context) for each in architecture.layers)
    kept = sum(mixer_spec(each.mixer).recurrent_elements(each.values, around) for each in architecture.layers)
    for dtype, size in (("fp16", 2), ("bf16", 2), ("fp32", 4), ("fp64", 8)):
        found = estimate(architecture, context=context, cache_dtype=dtype, recurrent_dtype=dtype)
        assert found.state_bytes == size * (cached + kept)


@pytest.mark.parametrize("name", list(catalog.MIXERS))
@pytest.mark.parametrize("context", [1, 5, 600])
def test_of_a_cache_all_that_grows_with_the_tokens_are_vectors(name: str, context: int) -> None:
    layer = {"mixer": name, **({"window": 20} if name == "sliding_window" else {})}
    layer_of, around = network(layer, width=64).placed_layers[0]
    spec = mixer_spec(name)

    def sizes(tokens: int) -> tuple[int, int]:
        vectors = spec.cached_vectors(layer_of.values, around, tokens)
        assert all(isinstance(found, CachedVectors) for found in vectors)
        elements = sum(found.elements for found in vectors)
        return elements, spec.cache_elements(layer_of.values, around, tokens) - elements

    assert sizes(context)[1] == sizes(context + 7)[1] >= 0
