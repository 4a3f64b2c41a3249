"""The device's memory as a limit on a training step."""

from __future__ import annotations

import pytest

from nas.cost import estimate
from nas.errors import InputError
from nas.space.architecture import Architecture
from nas.space.device import DeviceMemory


def network(max_context: int) -> Architecture:
    layer = {"mixer": "full", "heads": 2}
    return Architecture.from_mapping(
        {"family": "decoder", "width": 16, "max_context": max_context, "layers": [layer, layer]}
    )


@pytest.mark.parametrize(("max_context", "batch"), [(64, 16), (100, 10), (1024, 1), (2048, 1)])
def test_the_limit_is_on_a_step_of_the_study(max_context: int, batch: int) -> None:
    peak = estimate(network(max_context), batch=batch).train_peak_bytes
    for memory, feasible in ((peak, True), (peak - 1, False)):
        rule = DeviceMemory.parse(memory, "0").constraint(1024)
        assert (rule.violation(network(max_context)) <= 0) == feasible
        assert rule.limit == memory


@pytest.mark.parametrize(
    ("memory", "reserve", "limit"),
    [("8 GiB", "10%", 0.9 * 8 * 2**30), ("8 GB", "1 GB", 7e9), ("1000 B", "0", 1000), ("4096 B", "0%", 4096)],
)
def test_the_reserve_is_a_share_or_bytes(memory: str | float, reserve: str | float, limit: float) -> None:
    assert DeviceMemory.parse(memory, reserve).constraint(64).limit == limit


def test_what_is_left_to_the_device_is_asked_later() -> None:
    device = DeviceMemory.parse("auto")
    assert device.bytes is None
    rule = device.constraint(64, found=1000)
    assert rule.limit == 900
    assert rule.explain(network(64)).startswith(
        "train_peak_bytes of 64 tokens <= 900 B (device_memory 1000 B, 10% kept"
    )


@pytest.mark.parametrize(
    ("memory", "reserve", "words"),
    [
        ("automatic", "10%", "device_memory must be 'auto' or bytes"),
        ("8 MeB", "10%", "did you mean 'MB'"),
        ("0 MiB", "10%", "above 0 bytes"),
        ("-8 GiB", "10%", "above 0 bytes"),
        ("8 GiB", "100%", "below 100%"),
        ("8 GiB", "-1%", "at least 0%"),
        ("8 GiB", "some", "a share or bytes"),
        ("8 GiB", "some%", "a share or bytes"),
        ("8 GiB", "8 GiB", "leave nothing"),
    ],
)
def test_words_that_leave_nothing_or_mean_nothing_are_refused(memory: str, reserve: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        DeviceMemory.parse(memory, reserve)


def test_a_reserve_above_what_the_device_has_is_refused() -> None:
    with pytest.raises(InputError, match="leaves nothing of the device's 1 GiB"):
        DeviceMemory.parse("auto", "2 GiB").constraint(64, found=2**30)


@pytest.mark.parametrize(("memory", "reserve"), [(8, "10%"), ("8", "10%"), ("8 GiB", 0.1), ("8 GiB", "0.1")])
def test_a_number_whose_unit_was_forgotten_is_refused(memory: str | float, reserve: str | float) -> None:
    with pytest.raises(InputError, match="has no unit, and would be bytes"):
        DeviceMemory.parse(memory, reserve)
