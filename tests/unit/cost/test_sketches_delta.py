"""The sketches of delta rules, Mamba-2 and convolutions give, to the byte, what the networks hold."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from unit.cost.sketching_delta import one_block, real, sketched

from nas.specs.tape import Extent

DELTA: list[tuple[dict[str, Any], int, int]] = [
    ({"mixer": "gated_delta"}, 2, 300),
    ({"mixer": "gated_delta", "heads": 4, "key_heads": 2, "key_dim": 8, "value_dim": 32, "conv": 0}, 1, 20),
    ({"mixer": "gated_delta", "heads": 1, "output_gate": False}, 1, 256),
    ({"mixer": "gated_delta", "heads": 2, "key_dim": 48, "value_dim": 16, "short_conv": 3}, 4, 1000),
    ({"mixer": "delta"}, 1, 4500),
    ({"mixer": "delta", "heads": 8, "key_heads": 1, "conv": 2, "output_gate": True}, 3, 77),
]
MAMBA: list[tuple[dict[str, Any], int, int]] = [
    ({"mixer": "mamba2"}, 2, 512),
    ({"mixer": "mamba2", "groups": 2, "state_dim": 16}, 1, 300),
    ({"mixer": "mamba2", "groups": 4, "conv": 1}, 3, 77),
    ({"mixer": "mamba2", "head_dim": 128, "state_dim": 128}, 1, 20),
    ({"mixer": "mamba2", "expand": 1, "head_dim": 16, "groups": 2, "short_conv": 2}, 4, 1000),
]
CONVOLUTIONS: list[tuple[dict[str, Any], int, int]] = [
    ({"mixer": "gated_conv", "kernel": 1}, 1, 256),
    ({"mixer": "gated_conv", "kernel": 3, "short_conv": 4}, 3, 300),
    ({"mixer": "gated_conv", "kernel": 7}, 1, 3),
]
FAMILIES = ("decoder", "encoder", "prefix_lm")


def _extent(family: str, batch: int, length: int) -> Extent:
    return Extent(batch, length, {"encoder": length, "prefix_lm": length // 2}.get(family, 0))


@pytest.mark.parametrize(("layer", "batch", "length"), DELTA + MAMBA + CONVOLUTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_training_is_followed_to_the_byte(layer: dict[str, Any], batch: int, length: int, family: str) -> None:
    architecture = one_block(layer, width=64, length=length, family=family, mlp="swiglu" if batch == 1 else "none")
    extent = _extent(family, batch, length)
    assert sketched(architecture, extent, records=True) == real(architecture, extent, records=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("layer", "batch", "length"), DELTA[:3] + MAMBA[:3] + CONVOLUTIONS[1:2])
@pytest.mark.parametrize("family", FAMILIES)
def test_passes_without_gradients_are_followed_to_the_byte(
    layer: dict[str, Any], batch: int, length: int, family: str, dtype: torch.dtype
) -> None:
    architecture = one_block(layer, width=64, length=length, family=family)
    extent = _extent(family, batch, length)
    ours = sketched(architecture, extent, size=dtype.itemsize, records=False)
    assert ours == real(architecture, extent, dtype=dtype, records=False)


def test_a_norm_in_half_precision_holds_its_input_in_single_precision() -> None:
    # A mixer so narrow that the norm before it needs the most.
    layer = {"mixer": "gated_delta", "heads": 1, "key_dim": 4, "value_dim": 80, "output_gate": False}
    architecture, extent = one_block(layer, width=128, length=4096), Extent(4, 4096)
    ours = sketched(architecture, extent, size=2, records=False)
    assert ours == real(architecture, extent, dtype=torch.bfloat16, records=False)
    assert ours.forward > 6 * extent.tokens * 128 * 2


def test_long_sequences_are_followed_to_the_byte() -> None:
    for mixer in ("gated_delta", "mamba2"):
        architecture = one_block({"mixer": mixer}, width=64, length=16_384)
        extent = Extent(1, 16_384)
        assert sketched(architecture, extent, records=True) == real(architecture, extent, records=True)
