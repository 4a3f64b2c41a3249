"""The tape follows the networks whose tokens wait for each other, without following each token."""

from __future__ import annotations

import pytest
import torch
from unit.cost.sketching_linear import both

TOLERANCE = 1e-4
# oneDNN lays out its notes as the processor likes them.
KERNEL_TOLERANCE = 0.02

NARROW, AS_WIDE, WIDE = {"hidden": 40}, {}, {"hidden": 96}
EXTENTS = [(1, 3), (50, 1), (90, 2)]

has_kernel = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch has no oneDNN here")


@pytest.mark.parametrize(("length", "batch"), EXTENTS)
@pytest.mark.parametrize("options", [NARROW, AS_WIDE, WIDE])
@pytest.mark.parametrize("mixer", ["gru", "rnn"])
def test_a_training_step_is_followed_to_the_byte(mixer: str, options: dict[str, int], length: int, batch: int) -> None:
    sketched, real = both({"mixer": mixer, **options}, length=length, batch=batch)
    assert sketched.error(real) <= TOLERANCE, (sketched, real)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("length", "batch"), EXTENTS)
@pytest.mark.parametrize("mixer", ["gru", "rnn"])
def test_a_prefill_is_followed_to_the_byte(mixer: str, length: int, batch: int, dtype: torch.dtype) -> None:
    sketched, real = both({"mixer": mixer, **WIDE}, length=length, batch=batch, records=False, dtype=dtype)
    assert sketched.error(real) <= TOLERANCE, (sketched, real)


@pytest.mark.parametrize("records", [True, False])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("family", ["encoder", "prefix_lm"])
@pytest.mark.parametrize("mixer", ["gru", "rnn"])
def test_a_second_direction_is_followed_to_the_byte(mixer: str, family: str, batch: int, records: bool) -> None:
    sketched, real = both({"mixer": mixer, "mlp": "gelu"}, length=40, batch=batch, family=family, records=records)
    assert sketched.error(real) <= TOLERANCE, (sketched, real)


@has_kernel
@pytest.mark.parametrize(("length", "batch"), [*EXTENTS, (1000, 2), (128, 4)])
@pytest.mark.parametrize("options", [NARROW, AS_WIDE, WIDE, {"hidden": 256}])
def test_an_lstm_s_kernel_keeps_what_is_counted(options: dict[str, int], length: int, batch: int) -> None:
    sketched, real = both({"mixer": "lstm", **options}, length=length, batch=batch, is_real=True)
    assert sketched.error(real) <= KERNEL_TOLERANCE, (sketched, real)


@has_kernel
@pytest.mark.parametrize("records", [True, False])
@pytest.mark.parametrize("family", ["decoder", "encoder", "prefix_lm"])
def test_an_lstm_of_any_family_is_followed(family: str, records: bool) -> None:
    sketched, real = both({"mixer": "lstm", **WIDE}, length=60, batch=2, family=family, records=records, is_real=True)
    assert sketched.error(real) <= KERNEL_TOLERANCE, (sketched, real)


@has_kernel
@pytest.mark.parametrize("family", ["decoder", "encoder", "prefix_lm"])
@pytest.mark.parametrize("mixer", ["lstm", "gru", "rnn"])
def test_inference_in_bfloat16_is_followed(mixer: str, family: str) -> None:
    around = {"family": family, "records": False, "dtype": torch.bfloat16, "is_real": True}
    sketched, real = both({"mixer": mixer}, length=100, batch=2, **around)
    assert sketched.error(real) <= TOLERANCE, (sketched, real)


@has_kernel
@pytest.mark.parametrize("records", [True, False])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("mixer", ["lstm", "gru", "rnn"])
def test_prefixes_of_their_own_are_followed(mixer: str, batch: int, records: bool) -> None:
    around = {"family": "prefix_lm", "has_own_prefixes": True, "is_real": True}
    sketched, real = both({"mixer": mixer, **WIDE}, length=60, batch=batch, records=records, **around)
    assert sketched.error(real) <= (KERNEL_TOLERANCE if mixer == "lstm" else TOLERANCE), (sketched, real)


def test_tensors_without_numbers_lack_what_an_lstm_s_kernel_keeps() -> None:
    sketched, traced = both({"mixer": "lstm"}, length=100)
    # Gates, states and their like: fifteen numbers for each feature of a token.
    assert sketched.kept - traced.kept > 14 * 4 * 64 * 100
