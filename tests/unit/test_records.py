"""What travels between the rooms: keys, refusals, pickling."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest

from nas.records import (
    Candidate,
    CheckpointReference,
    Decision,
    Environment,
    Failure,
    Job,
    Measurement,
    Result,
    Schedule,
    TaskReference,
)
from nas.space.architecture import Architecture
from nas.specs.tasks import TaskShape

NETWORK = Architecture.from_mapping(
    {"family": "decoder", "width": 64, "max_context": 128, "layers": [{"mixer": "full"}]}
).bind(TaskShape(vocabulary=300, head="causal_lm"))
CHECKPOINT = CheckpointReference(path="a/b.safetensors", sha256="0" * 64, bytes=10, step=4)
MEASUREMENT = Measurement(
    metric="bits_per_byte", value=2.5, unit="bit/byte", step=4, context=128, split="validation", seed=0
)
JOB = Job(
    kind="train",
    candidate=Candidate(NETWORK, (("learning_rate", 1e-3),)),
    task=TaskReference(name="recall", options=(("length", 64),)),
    seed=1,
    schedule=Schedule(tokens_per_step=1024, rung_steps=(2, 4)),
    from_step=0,
    to_step=2,
    trainer=(("precision", "auto"),),
)
RECORDS = [
    JOB,
    JOB.candidate,
    JOB.task,
    JOB.schedule,
    CHECKPOINT,
    MEASUREMENT,
    Failure(kind="diverged", reason="the loss is nan"),
    Result(measurements=(MEASUREMENT,), checkpoint=CHECKPOINT, seconds=1.0, tokens=10, flops=1e9, device="cpu"),
    Decision("start", "new"),
    Environment(versions={"python": "3.11"}, device="cpu", git_commit="abc"),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_travel_between_processes(record: Any) -> None:
    assert pickle.loads(pickle.dumps(record)) == record


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_are_frozen(record: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, dataclasses.fields(record)[0].name, None)


def test_the_key_of_a_candidate_is_that_of_its_network_and_its_training() -> None:
    rates = [Candidate(NETWORK, (("learning_rate", rate),)) for rate in (1e-3, 2e-3)]
    other = dataclasses.replace(NETWORK, tied_embeddings=False)
    keys = {rates[0].key, rates[1].key, Candidate(NETWORK).key, Candidate(other, rates[0].training).key}
    assert len(keys) == 4
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)
    assert rates[0].architecture.fingerprint == rates[1].architecture.fingerprint


def test_the_order_and_the_type_of_training_values_are_not_in_the_key() -> None:
    one = Candidate(NETWORK, (("learning_rate", 1), ("beta2", 0.9)))
    other = Candidate(NETWORK, (("beta2", 0.9), ("learning_rate", 1.0)))
    assert one == other
    assert one.key == other.key
    assert [name for name, _ in one.training] == ["beta2", "learning_rate"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_finite_number_is_refused_by_name(value: float) -> None:
    with pytest.raises(ValueError, match="'bits_per_byte' must be a finite number, not"):
        dataclasses.replace(MEASUREMENT, value=value)
    with pytest.raises(ValueError, match="'learning_rate' must be a finite number"):
        Candidate(NETWORK, (("learning_rate", value),))


@pytest.mark.parametrize("steps", [(), (4, 2), (2, 2), (0, 2)])
def test_rungs_rise_from_above_zero(steps: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError):
        Schedule(tokens_per_step=1, rung_steps=steps)


def test_the_last_rung_is_the_whole_budget() -> None:
    assert Schedule(tokens_per_step=1, rung_steps=(2, 4, 9)).total_steps == 9


@pytest.mark.parametrize("change", [{"from_step": 2}, {"kind": "test"}, {"from_step": 3, "checkpoint": CHECKPOINT}])
def test_a_job_that_continues_or_tests_needs_a_checkpoint_and_goes_forward(change: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        dataclasses.replace(JOB, **change)


@pytest.mark.parametrize(
    ("kind", "blames"),
    [("diverged", True), ("out_of_memory", True), ("timed_out", True), ("crashed", True), ("machine", False)],
)
def test_a_fault_of_the_machine_alone_is_not_the_candidates(kind: Any, blames: bool) -> None:
    assert Failure(kind=kind, reason="").blames_candidate is blames
