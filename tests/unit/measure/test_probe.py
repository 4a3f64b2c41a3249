"""A probe measures one network in a process of its own, and says what went wrong there."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import pytest
import torch

from nas.cost.estimate import bound, estimate
from nas.errors import OutOfMemoryError, SpaceError, WorkerError
from nas.measure import probe as probes
from nas.measure.probe import Probe, Probed, Work, probe
from nas.measure.probe_worker import measure, resolve_device
from nas.space import Architecture

CPU = torch.device("cpu")


def network(family: str = "decoder", **globals_: Any) -> Architecture:
    layers = [{"mixer": "full", "heads": 2, "mlp_ratio": 2}]
    stacks: dict[str, Any] = {"layers": layers}
    if family == "encoder_decoder":
        stacks = {"encoder": {"layers": layers}, "decoder": {"layers": layers}}
    return Architecture.from_mapping({"family": family, "width": 32, "max_context": 64, **stacks, **globals_})


@pytest.fixture(scope="module")
def measured() -> Probed:
    return probe(network(), context=48, batch=3, device="cpu", repeats=2)


def test_tensors_of_a_training_step_and_of_a_prefill_take_what_is_predicted(measured: Probed) -> None:
    predicted = estimate(network(), context=48, batch=3)
    assert measured.training.peak_bytes == pytest.approx(predicted.train_peak_bytes, rel=0.05)
    assert measured.prefill.peak_bytes == pytest.approx(predicted.prefill_peak_bytes, rel=0.05)
    assert measured.state_bytes == predicted.state_bytes


def test_speeds_are_those_of_the_whole_batch(measured: Probed) -> None:
    assert measured.decoding is not None and measured.device.startswith("CPU")
    for work, tokens in ((measured.training, 144), (measured.prefill, 144), (measured.decoding, 3)):
        assert work.milliseconds > 0
        assert work.tokens_per_second == pytest.approx(1e3 * tokens / work.milliseconds)
    assert measured.training.reserved_bytes is None and measured.decoding.peak_bytes is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc of Linux")
def test_the_resident_set_of_a_training_grows_by_its_tensors_at_least() -> None:
    wide = bound(network(width=512))
    found = measure(wide, Probe(context=64, batch=8, repeats=1), CPU)["training"]
    # Small blocks come from what the process holds already.
    assert found["resident_bytes"] > 0.8 * found["peak_bytes"]


@pytest.mark.parametrize(("family", "decodes"), [("encoder", False), ("prefix_lm", True), ("encoder_decoder", True)])
def test_every_family_is_measured(family: str, decodes: bool) -> None:
    found = measure(bound(network(family)), Probe(context=16, batch=2, repeats=1, dtype="fp32"), CPU)
    assert (found["decoding"] is not None) == (found["state_bytes"] > 0) == decodes
    assert found["training"]["peak_bytes"] > found["prefill"]["peak_bytes"] > 0


def test_a_context_without_room_for_steps_is_not_decoded() -> None:
    assert measure(bound(network()), Probe(context=2, repeats=3), CPU)["decoding"] is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"context": 65}, "the network's max_context is 64"),
        ({"context": 0}, "context must be at least 1"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"dtype": "bf61"}, "bf16"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SpaceError) as refused:
        probe(network(), **{"repeats": 1, **settings})
    assert words in str(refused.value)


@pytest.mark.parametrize("name", ["cuda:77", "gpu", "cpu:1", "cuda:x"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(SpaceError, match=f"there is no device '{name}' here: valid: auto, cpu"):
        resolve_device(name)


def test_devices_go_by_name() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("returncode", "stdout", "kind", "words"),
    [
        (-9, "", OutOfMemoryError, "was killed"),
        (1, "", WorkerError, "ended with 1: no such thing"),
        (0, json.dumps({"error": "out_of_memory", "reason": "no room"}), OutOfMemoryError, "no room"),
        (0, json.dumps({"error": "crashed", "reason": "ZeroDivisionError"}), WorkerError, "ZeroDivisionError"),
    ],
)
def test_the_end_of_the_process_is_told(
    returncode: int, stdout: str, kind: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.CompletedProcess([], returncode, stdout=stdout, stderr="Traceback\nno such thing")
    monkeypatch.setattr(probes.subprocess, "run", lambda *given, **options: done)
    with pytest.raises(kind, match=words):
        probe(network())


def test_what_a_mixer_prints_does_not_disturb_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    work = asdict(Work(milliseconds=1.0, tokens_per_second=2.0))
    answer = {"device": "CPU", "training": work, "prefill": work, "decoding": None, "state_bytes": 0}
    done = subprocess.CompletedProcess([], 0, stdout=f"a mixer speaks\n{json.dumps(answer)}\n", stderr="")
    monkeypatch.setattr(probes.subprocess, "run", lambda *given, **options: done)
    assert probe(network()).training == Work(milliseconds=1.0, tokens_per_second=2.0)
