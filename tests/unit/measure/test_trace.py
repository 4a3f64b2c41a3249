"""Traces of whole models, and the formulas held against them."""

from __future__ import annotations

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker

from nas.cost.estimate import bound, estimate
from nas.measure.trace import is_real_only, trace_prefill, trace_training, training_step
from nas.measure.tracker import Tracker
from nas.space.architecture import Architecture
from nas.specs.tasks import TaskShape

FULL = {"mixer": "full", "heads": 4, "kv_heads": 2, "mlp_ratio": 2}
PLAIN = {"mixer": "full", "heads": 2, "mlp": "gelu", "mlp_ratio": 3, "short_conv": 3}


def made(family: str = "decoder", *, layers: object = FULL, **words: object) -> Architecture:
    base = {"family": family, "width": 32, "max_context": 128, **words}
    if family == "encoder_decoder":
        base |= {"encoder": {"layers": [layers, layers]}, "decoder": {"layers": [layers, layers]}}
    else:
        base["layers"] = [layers, layers]
    return Architecture.from_mapping(base)


CASES = {
    "decoder": made(),
    "a batch fuller than the weights": made(width=16),
    "tied": made(tied_embeddings=True),
    "untied": made(tied_embeddings=False),
    "encoder": made("encoder", norm="layer", embedding_norm=True, layers=PLAIN),
    "prefix language model": made("prefix_lm"),
    "encoder-decoder": made("encoder_decoder", positions="none"),
    "learned positions": made(positions="learned"),
    "learned positions of two kinds": made("prefix_lm", positions="learned"),
    "no positions": made(positions="none", layers=PLAIN),
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_a_training_step_is_as_full_as_the_formula_says(name: str, batch: int) -> None:
    architecture = bound(CASES[name])
    traced = trace_training(architecture, context=128, batch=batch)
    predicted = estimate(architecture, batch=batch).training_peak
    assert predicted.total == pytest.approx(traced.total, rel=2e-3)
    assert predicted.parameters == traced.parameters
    assert predicted.optimizer == traced.optimizer


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_a_prefill_is_as_full_as_the_formula_says(name: str, dtype: str) -> None:
    architecture = bound(CASES[name])
    traced = trace_prefill(architecture, context=128, batch=2, dtype=dtype)
    assert estimate(architecture, batch=2, dtype=dtype).prefill_peak_bytes == pytest.approx(traced, rel=2e-3)


@pytest.mark.parametrize(
    ("family", "shape"),
    [
        ("decoder", TaskShape(vocabulary=50, head="sequence_classification", labels=5)),
        ("encoder", TaskShape(vocabulary=50, head="sequence_classification", labels=5)),
        ("encoder", TaskShape(vocabulary=50, head="token_classification", labels=5)),
        ("decoder", TaskShape(vocabulary=5000, head="causal_lm")),
        ("encoder", TaskShape(vocabulary=5000, head="masked_lm")),
    ],
)
def test_heads_cost_what_the_formula_says(family: str, shape: TaskShape) -> None:
    architecture = made(family).bind(shape)
    traced = trace_training(architecture, context=128, batch=4).total
    assert estimate(architecture, batch=4).train_peak_bytes == pytest.approx(traced, rel=3e-3)


@pytest.mark.parametrize("family", ["decoder", "encoder", "encoder_decoder"])
def test_checkpointing_costs_what_the_formula_says_and_less(family: str) -> None:
    architecture = bound(made(family, positions="none"))
    traced = trace_training(architecture, context=128, batch=4, checkpointing=True).total
    predicted = estimate(architecture, batch=4, checkpointing=True).train_peak_bytes
    assert predicted == pytest.approx(traced, rel=1e-2)
    assert predicted < estimate(architecture, batch=4).train_peak_bytes


def test_fake_tensors_tell_what_real_ones_do() -> None:
    architecture = bound(made())
    for batch in (1, 2):
        fake = trace_training(architecture, context=96, batch=batch)
        assert fake == trace_training(architecture, context=96, batch=batch, real=True)
    assert trace_prefill(architecture, context=96) == trace_prefill(architecture, context=96, real=True)


@pytest.mark.parametrize("mixer", ["gated_delta", "mamba2", "linear"])
def test_writes_that_a_fake_trace_leaves_out_take_nothing(mixer: str) -> None:
    layer = {"mixer": mixer, "mlp_ratio": 2} | ({} if mixer == "mamba2" else {"heads": 2})
    network = made(layers=layer, positions="none")
    fake, real = (trace_training(network, context=100, batch=2, real=is_real) for is_real in (False, True))
    assert fake == real
    assert trace_prefill(network, context=100) == trace_prefill(network, context=100, real=True)


def test_torchs_own_tracker_tells_the_same() -> None:
    step = training_step(made(), context=64, batch=2)
    step()
    ours = Tracker()
    ours.count([*step.weights, *step.moments, step.inputs.tokens_BL, step.targets], "given")
    with ours:
        step()
    theirs = MemTracker()
    theirs.track_external(*step.weights, *step.moments, step.inputs.tokens_BL, step.targets)
    with theirs:
        step()
    (snapshot,) = theirs.get_tracker_snapshot("peak").values()
    # Gradients of the step before are alive in neither: they are let go first.
    assert ours.peak == pytest.approx(snapshot["Total"], rel=1e-3)


def test_nothing_is_computed_by_a_trace_at_a_long_context() -> None:
    # Half a gigabyte a layer, were it real.
    found = trace_training(made(max_context=16_384), context=16_384, batch=4)
    assert found.total > 2**28


def test_lstms_are_traced_on_real_tensors() -> None:
    lstm = made(layers={"mixer": "lstm", "hidden": 16, "mlp": "none"}, positions="none")
    assert is_real_only(lstm)
    assert not is_real_only(made())
    # A fake LSTM has no workspace.
    found = trace_training(lstm, context=64, batch=2)
    assert found == trace_training(lstm, context=64, batch=2, real=True)
    assert found.total == pytest.approx(estimate(lstm, context=64, batch=2).train_peak_bytes, rel=2e-3)


def test_a_tracker_counts_what_lives_and_what_it_is() -> None:
    given = torch.zeros(10)
    tracker = Tracker()
    tracker.count([given], "given")
    with tracker:
        one = given + 1
        two = one[2:5] * 2
        del one
        three = two + 1
    assert tracker.live == 4 * (10 + 3 + 3)
    assert tracker.peak == 4 * (10 + 10 + 3)
    assert tracker.at_peak == {"given": 40, "activations": 52}
    tracker.count([three], "temporaries")
    del two, three
    assert tracker.live == 40
