"""Peaks of training of every mixer, in whole models: the formula against a trace."""

from __future__ import annotations

from typing import Any

import pytest

from nas.cost.estimate import bound, estimate
from nas.measure.trace import trace_training
from nas.space.architecture import Architecture

MIXERS: dict[str, dict[str, Any]] = {
    "full": {"heads": 4},
    "sliding_window": {"heads": 4, "window": 32},
    "latent": {"heads": 4, "latent_dim": 16},
    "linear": {"heads": 4},
    "retention": {"heads": 4},
    "gated_linear": {"heads": 4},
    "delta": {"heads": 4},
    "gated_delta": {"heads": 4},
    "mamba2": {},
    "gated_conv": {},
    "lstm": {"hidden": 24},
    "gru": {"hidden": 24},
    "rnn": {"hidden": 24},
}
ROTARY = frozenset({"full", "sliding_window", "latent", "retention"})


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("mixer", MIXERS)
def test_a_step_of_every_mixer_is_as_full_as_the_formula_says(mixer: str, dtype: str, checkpointing: bool) -> None:
    words = {
        "family": "decoder",
        "width": 32,
        "max_context": 128,
        "positions": "rope" if mixer in ROTARY else "none",
        "layers": [{"mixer": mixer, **MIXERS[mixer]}] * 2,
    }
    network = bound(Architecture.from_mapping(words))
    # One token, where weights are nearly all; a length that fits chunks; and one that does not.
    for context, batch in ((1, 2), (128, 3), (77, 1)):
        cost = estimate(network, context=context, batch=batch, train_dtype=dtype, checkpointing=checkpointing)
        traced = trace_training(network, context=context, batch=batch, dtype=dtype, checkpointing=checkpointing)
        assert cost.train_peak_bytes == pytest.approx(traced.total, rel=2e-3), (context, batch)
