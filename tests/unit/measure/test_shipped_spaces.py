"""Draws of the shipped spaces: their formulas against the networks that they build."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.cost.estimate import bound, estimate
from nas.measure.trace import trace_prefill, trace_training
from nas.models.base import Model
from nas.models.build import build
from nas.space.space import Space
from nas.tasks.inputs import Inputs

SPACES = ("decoder", "hybrid_decoder", "encoder", "prefix_lm", "encoder_decoder", "recurrent")


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_built_network_has_the_parameters_of_its_formula(name: str, seed: int) -> None:
    architecture = bound(Space.load(name).sample(seed))
    with torch.device("meta"):
        built = sum(weight.numel() for weight in build(architecture).parameters())
    assert built == estimate(architecture).parameters


@pytest.mark.parametrize("name", [name for name in SPACES if name != "encoder"])
@pytest.mark.parametrize("context", [1, 33, 128])
@pytest.mark.parametrize("seed", range(3))
def test_a_state_that_was_filled_has_the_bytes_of_its_formula(name: str, context: int, seed: int) -> None:
    architecture = bound(Space.load(name).sample(seed))
    model = build(architecture, seed=0)
    assert isinstance(model, Model)
    tokens_BL = torch.zeros(2, context, dtype=torch.int64)
    source_BS = tokens_BL if architecture.encoder_layers else None
    with torch.no_grad():
        state = model.new_state(2, context, source_context=context)
        model.prefill(Inputs(tokens_BL, source_BS=source_BS), state)
    live = sum(tensor.nbytes for layer in state.layers for tensor in layer.tensors())
    assert live == estimate(architecture, context=context, batch=2).state_bytes


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", range(2))
def test_peaks_are_those_of_a_trace(name: str, seed: int) -> None:
    architecture = bound(Space.load(name).sample(seed))
    context = min(architecture.max_context, 256)
    cost = estimate(architecture, context=context, batch=2)
    traced = trace_training(architecture, context=context, batch=2).total
    assert cost.train_peak_bytes == pytest.approx(traced, rel=0.01)
    assert cost.prefill_peak_bytes == pytest.approx(trace_prefill(architecture, context=context, batch=2), rel=0.01)
