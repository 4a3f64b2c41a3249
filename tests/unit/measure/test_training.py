"""Training in rungs equals the uninterrupted one, and failures are classified."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nas.cost.estimate import training_flops_per_token
from nas.errors import CheckpointError, DivergedError, TimedOutError
from nas.files import Files
from nas.measure.checkpoints import read_checkpoint
from nas.measure.peak import process_memory
from nas.measure.schedule import averaging_weight, learning_rate_factor
from nas.measure.train import TrainingEvaluator, classify, training_flops
from nas.measure.trainer import device_in_words, device_of, precision_in_words
from nas.records import Candidate, CheckpointReference, Job, Result, Schedule, TaskReference
from nas.space import Architecture
from nas.tasks.load import load_task

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resource limits of Linux")
SCHEDULE = Schedule(tokens_per_step=256, rung_steps=(3, 5, 10))


@pytest.fixture
def corpus(tmp_path: Path) -> TaskReference:
    path = tmp_path / "corpus.txt"
    path.write_text("".join(f"{number} times {number} is {number * number}.\n" for number in range(600)))
    return TaskReference(name="language_modeling", options=(("corpus", str(path)), ("evaluation_bytes", 512)))


def job_for(task: TaskReference, files: Path, *, learning_rate: float = 5e-3, mixer: str = "sliding_window") -> Job:
    layer = {"mixer": mixer, "heads": 2, "mlp_ratio": 2, "short_conv": 3}
    if mixer == "sliding_window":
        layer["window"] = 8
    architecture = Architecture.from_mapping(
        {"family": "decoder", "width": 16, "max_context": 64, "layers": [layer, {"mixer": "full", "heads": 2}]}
    ).bind(load_task(task).shape)
    return Job(
        kind="train",
        candidate=Candidate(architecture, (("learning_rate", learning_rate),)),
        task=task,
        seed=3,
        schedule=SCHEDULE,
        from_step=0,
        to_step=10,
        files=str(files),
        folder="a",
        trainer=(("accelerator", "cpu"),),
    )


def in_rungs(job: Job) -> list[Result]:
    results: list[Result] = []
    checkpoint: CheckpointReference | None = None
    start = 0
    for step in job.schedule.rung_steps:
        part = replace(job, from_step=start, to_step=step, checkpoint=checkpoint, folder="rungs")
        results.append(TrainingEvaluator().evaluate(part))
        checkpoint, start = results[-1].checkpoint, step
    return results


def test_three_rungs_equal_the_uninterrupted_training_bit_for_bit(corpus: TaskReference, tmp_path: Path) -> None:
    job = job_for(corpus, tmp_path / "files")
    whole = TrainingEvaluator().evaluate(job)
    rungs = in_rungs(job)
    assert whole.failure is None, whole.failure
    assert rungs[-1].measurements == whole.measurements
    assert rungs[-1].checkpoint is not None and whole.checkpoint is not None
    files = Files(str(tmp_path / "files"))
    one, other = read_checkpoint(whole.checkpoint, files), read_checkpoint(rungs[-1].checkpoint, files)
    for group in ("weights", "average", "optimizer"):
        ours, theirs = getattr(one, group), getattr(other, group)
        assert ours.keys() == theirs.keys() and ours
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), group


def test_the_same_job_twice_gives_the_same_file(corpus: TaskReference, tmp_path: Path) -> None:
    job = replace(job_for(corpus, tmp_path / "files"), to_step=3)
    first, second = TrainingEvaluator().evaluate(job), TrainingEvaluator().evaluate(replace(job, folder="b"))
    assert first.checkpoint is not None and second.checkpoint is not None
    assert first.checkpoint.sha256 == second.checkpoint.sha256


def test_another_seed_gives_other_weights(corpus: TaskReference, tmp_path: Path) -> None:
    job = replace(job_for(corpus, tmp_path / "files"), to_step=3)
    first, second = TrainingEvaluator().evaluate(job), TrainingEvaluator().evaluate(replace(job, seed=4, folder="b"))
    assert first.checkpoint is not None and second.checkpoint is not None
    assert first.checkpoint.sha256 != second.checkpoint.sha256


def test_training_lowers_the_loss(corpus: TaskReference, tmp_path: Path) -> None:
    job = replace(
        job_for(corpus, tmp_path / "files"), schedule=Schedule(tokens_per_step=256, rung_steps=(1, 60)), to_step=1
    )
    early = TrainingEvaluator().evaluate(job)
    late = TrainingEvaluator().evaluate(replace(job, to_step=60))
    assert late.measurements[0].value < early.measurements[0].value - 0.5


def test_a_loss_that_is_no_number_is_the_candidates_fault(corpus: TaskReference, tmp_path: Path) -> None:
    job = replace(job_for(corpus, tmp_path / "files", learning_rate=1e30), trainer=(("accelerator", "cpu"),))
    result = TrainingEvaluator().evaluate(job)
    assert result.failure is not None
    assert result.failure.kind == "diverged" and result.failure.blames_candidate
    assert not result.measurements


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError("nothing left"), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (RuntimeError("std::bad_alloc"), "out_of_memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (ZeroDivisionError("division by zero"), "crashed"),
        (DivergedError("the loss is nan"), "diverged"),
        (TimedOutError("stopped at step 3"), "timed_out"),
        (OSError(28, "No space left on device"), "machine"),
        (ConnectionResetError("the share is gone"), "machine"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "machine"),
    ],
)
def test_failures_are_classified(error: Exception, kind: str) -> None:
    failure = classify(error)
    assert failure.kind == kind and failure.error == type(error).__name__


def test_a_training_that_takes_too_long_ends_between_two_steps(corpus: TaskReference, tmp_path: Path) -> None:
    job = replace(job_for(corpus, tmp_path / "files"), time_limit=0.0)
    result = TrainingEvaluator().evaluate(job)
    assert result.failure is not None and result.failure.kind == "timed_out"
    assert result.failure.reason == "stopped at step 0" and not result.measurements
    ample = TrainingEvaluator().evaluate(replace(job, to_step=3, time_limit=3600.0))
    assert ample.failure is None


def test_a_damaged_checkpoint_is_an_input_error(corpus: TaskReference, tmp_path: Path) -> None:
    job = replace(job_for(corpus, tmp_path / "files"), to_step=3)
    reference = TrainingEvaluator().evaluate(job).checkpoint
    assert reference is not None
    path = tmp_path / "files" / reference.path
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(CheckpointError, match="damaged"):
        TrainingEvaluator().evaluate(replace(job, from_step=3, to_step=5, checkpoint=reference))


def test_a_checkpoint_of_another_candidate_is_refused(corpus: TaskReference, tmp_path: Path) -> None:
    job = replace(job_for(corpus, tmp_path / "files"), to_step=3)
    reference = TrainingEvaluator().evaluate(job).checkpoint
    other = job_for(corpus, tmp_path / "files", mixer="full")
    with pytest.raises(CheckpointError, match="belongs to candidate"):
        TrainingEvaluator().evaluate(replace(other, from_step=3, to_step=5, checkpoint=reference))


def test_flops_count_each_step_at_its_own_length(corpus: TaskReference, tmp_path: Path) -> None:
    job, task = job_for(corpus, tmp_path), load_task(corpus)
    lengths = [task.step_length(seed=3, step=step, max_context=64) for step in range(10)]
    architecture = job.candidate.architecture
    expected = sum(256 // length * length * training_flops_per_token(architecture, length) for length in lengths)
    assert training_flops(job, task) == pytest.approx(expected)


def test_a_test_job_scores_the_averaged_weights_on_the_test_part(corpus: TaskReference, tmp_path: Path) -> None:
    job = replace(job_for(corpus, tmp_path / "files"), to_step=3)
    reference = TrainingEvaluator().evaluate(job).checkpoint
    test = replace(job, kind="test", from_step=3, checkpoint=reference, contexts=(32,))
    first, second = TrainingEvaluator().evaluate(test), TrainingEvaluator().evaluate(test)
    assert first.measurements == second.measurements
    assert {found.split for found in first.measurements} == {"test"}
    assert {found.context for found in first.measurements} == {32, 64}


def test_trainer_settings_reach_lightning(corpus: TaskReference, tmp_path: Path) -> None:
    settings = (("accelerator", "cpu"), ("logger", "csv"), ("log_every_n_steps", 1), ("precision", "bf16-mixed"))
    job = replace(job_for(corpus, tmp_path / "files"), to_step=3, trainer=settings)
    result = TrainingEvaluator().evaluate(job)
    assert result.failure is None, result.failure
    assert list((tmp_path / "files").glob("lightning_logs/version_*"))
    plain = TrainingEvaluator().evaluate(replace(job, trainer=(("accelerator", "cpu"),), folder="b"))
    assert plain.measurements != result.measurements


def test_the_learning_rate_warms_up_stays_and_cools_down_in_the_last_rung() -> None:
    schedule = Schedule(tokens_per_step=1, rung_steps=(50, 100, 200))
    factors = [learning_rate_factor(step, schedule) for step in range(200)]
    assert factors[0] < factors[5] < factors[10] == 1.0
    assert set(factors[10:100]) == {1.0}
    assert factors[100] > factors[150] > factors[199] > 0


def test_a_single_rung_cools_down_over_its_second_half() -> None:
    schedule = Schedule(tokens_per_step=1, rung_steps=(100,))
    factors = [learning_rate_factor(step, schedule) for step in range(100)]
    assert factors[49] == 1.0 > factors[51] > factors[99] > 0


def test_the_average_starts_as_the_mean_of_all_weights_so_far() -> None:
    schedule = Schedule(tokens_per_step=1, rung_steps=(1000,))
    assert averaging_weight(0, schedule) == 1.0
    assert averaging_weight(3, schedule) == 0.25
    assert averaging_weight(900, schedule) == pytest.approx(1 / 40)


@linux
def test_a_candidate_beyond_the_memory_limit_runs_out_and_leaves_nothing_behind(
    corpus: TaskReference, tmp_path: Path
) -> None:
    job = replace(job_for(corpus, tmp_path), memory_limit=64 * 2**20)
    layers = [{"mixer": "full", "heads": 4}] * 4
    wide = Architecture.from_mapping({"family": "decoder", "width": 768, "max_context": 64, "layers": layers})
    large = replace(job, candidate=Candidate(wide.bind(load_task(corpus).shape)))
    fits = TrainingEvaluator().evaluate(job)
    before = process_memory()["VmRSS"]
    result = TrainingEvaluator().evaluate(large)
    assert fits.failure is None and fits.peak_bytes is not None and fits.precision == "fp32"
    assert result.failure is not None and result.failure.kind == "out_of_memory"
    # The weights alone are 108 MB; gradients, moments and the average are as much each.
    assert result.peak_bytes is not None and result.peak_bytes < 4 * 108e6
    assert process_memory()["VmRSS"] < before + 16 * 2**20
    again = TrainingEvaluator().evaluate(replace(large, memory_limit=None, to_step=1))
    assert again.failure is None and again.peak_bytes is not None and again.peak_bytes > 4 * 108e6


def test_the_device_and_precision_are_those_of_the_trainers_settings() -> None:
    assert device_of({"accelerator": "cpu"}) == torch.device("cpu")
    assert device_in_words({"accelerator": "cpu"}) == f"CPU, {torch.get_num_threads()} threads"
    words = {"32-true": "fp32", "32": "fp32", "bf16-true": "bf16", "bf16-mixed": "bf16-mixed"}
    assert {name: precision_in_words(name) for name in words} == words
