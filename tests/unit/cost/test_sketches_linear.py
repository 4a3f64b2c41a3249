"""The tape follows linear attention, retention and gated linear attention as their tensors come and go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from unit.cost.sketching_linear import both

from nas.mixers import channel_decay, chunks, decay, normalised
from nas.specs.sketches import channel_decay as channel_sketch
from nas.specs.sketches import chunks as chunks_sketch
from nas.specs.sketches import decay as decay_sketch
from nas.specs.sketches import normalised as normalised_sketch

# The few bytes of numbers that are written into tensors are not followed.
TOLERANCE = 1e-3

LAYERS: dict[str, Mapping[str, Any]] = {
    "linear": {"mixer": "linear", "heads": 4},
    "linear, one head": {"mixer": "linear", "heads": 1},
    "linear, narrow keys": {"mixer": "linear", "heads": 4, "key_dim": 8, "value_dim": 20, "mlp": "gelu"},
    "taylor": {"mixer": "linear", "heads": 4, "feature_map": "taylor", "key_dim": 4},
    "taylor, short convolution": {"mixer": "linear", "heads": 2, "feature_map": "taylor", "short_conv": 3},
    "retention": {"mixer": "retention", "heads": 4, "mlp": "swiglu"},
    "retention, one head": {"mixer": "retention", "heads": 1},
    "retention, no gate": {"mixer": "retention", "heads": 2, "key_dim": 16, "value_dim": 48, "output_gate": False},
    "gated_linear": {"mixer": "gated_linear", "heads": 4, "mlp": "swiglu"},
    "gated_linear, one head": {"mixer": "gated_linear", "heads": 1, "conv": 4},
    "gated_linear, no gate": {"mixer": "gated_linear", "heads": 4, "conv": 3, "output_gate": False},
}
# Fewer tokens than a chunk; several segments and a chunk cut short; one sequence alone.
EXTENTS = [(40, 3), (1000, 2), (333, 1)]


@pytest.mark.parametrize(("length", "batch"), EXTENTS)
@pytest.mark.parametrize("name", LAYERS)
def test_a_training_step_is_followed_to_the_byte(name: str, length: int, batch: int) -> None:
    sketched, real = both(LAYERS[name], length=length, batch=batch)
    assert sketched.error(real) <= TOLERANCE, (sketched, real)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", LAYERS)
def test_a_prefill_is_followed_to_the_byte(name: str, dtype: torch.dtype) -> None:
    sketched, real = both(LAYERS[name], length=500, batch=2, records=False, dtype=dtype)
    assert sketched.error(real) <= TOLERANCE, (sketched, real)


@pytest.mark.parametrize("records", [True, False])
@pytest.mark.parametrize("family", ["encoder", "prefix_lm"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_prefix_is_followed_to_the_byte(name: str, family: str, records: bool) -> None:
    sketched, real = both(LAYERS[name], length=300, batch=2, family=family, records=records, positions="none")
    assert sketched.error(real) <= TOLERANCE, (sketched, real)


@pytest.mark.parametrize("records", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_prefixes_of_their_own_are_followed_to_the_byte(name: str, records: bool) -> None:
    around = {"family": "prefix_lm", "positions": "none", "has_own_prefixes": True, "is_real": True}
    sketched, real = both(LAYERS[name], length=300, batch=2, records=records, **around)
    assert sketched.error(real) <= TOLERANCE, (sketched, real)


@pytest.mark.parametrize("name", ["linear", "taylor", "retention", "gated_linear"])
def test_real_tensors_come_and_go_as_those_without_numbers(name: str) -> None:
    sketched, real = both(LAYERS[name], length=200, batch=2, is_real=True)
    assert sketched.error(real) <= TOLERANCE, (sketched, real)


def test_segments_are_cut_where_the_mixers_cut_them() -> None:
    assert chunks_sketch.CPU_SCORES == chunks.CPU_SCORES
    assert decay_sketch.CHUNK == decay.CHUNK
    assert channel_sketch.CHUNK == channel_decay.CHUNK
    assert (normalised_sketch.CHUNK, normalised_sketch.TAYLOR_CHUNK) == (normalised.CHUNK, normalised.TAYLOR_CHUNK)


def test_no_more_than_two_equal_segments_are_followed() -> None:
    sizes = chunks_sketch.Sizes(batch=2, length=100_003, heads=4, key_dim=16, value_dim=16, given=4)
    spans = sizes.spans(64, 2 * 4 * 64 * 64)
    # Eight chunks fill a segment: 195 segments of them, two chunks that are left, and one of 35 tokens.
    assert [(span.chunks, span.size) for span in spans] == [(8, 64), (8, 64), (2, 64), (1, 35)]
    assert sizes.spans(64, 2 * 4 * 64 * 64, backwards=True) == spans[::-1]
