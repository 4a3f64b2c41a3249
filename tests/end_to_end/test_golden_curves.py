"""Two small trainings give the curves that they gave before: what no unit test sees shows here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests_support import write_study

from nas.measure.train import TrainingEvaluator
from nas.records import Candidate, Job, Schedule, TaskReference
from nas.space import Architecture
from nas.tasks.load import load_task

SCHEDULE = Schedule(tokens_per_step=512, rung_steps=(20, 40, 100))
# Measured on 2026-11-23 with torch 2.13 on a CPU; other CPUs round otherwise, hence the tolerance.
GOLDEN = {
    "language_modeling": {"bits_per_byte": [2.0263, 1.7728, 1.6672]},
    "recall": {"recall_loss": [2.6643, 2.5825, 2.3800]},
}
TOLERANCE = 0.05


def curve(task: TaskReference, metric: str, files: Path) -> list[float]:
    layers = [
        {"mixer": "sliding_window", "window": 8, "heads": 4, "kv_heads": 2, "mlp_ratio": 2, "short_conv": 3},
        {"mixer": "full", "heads": 4, "kv_heads": 1, "mlp_ratio": 2},
    ]
    architecture = Architecture.from_mapping({"family": "decoder", "width": 32, "max_context": 64, "layers": layers})
    job = Job(
        kind="train",
        candidate=Candidate(architecture.bind(load_task(task).shape), (("learning_rate", 1e-2),)),
        task=task,
        seed=0,
        schedule=SCHEDULE,
        from_step=0,
        to_step=SCHEDULE.rung_steps[0],
        files=str(files),
        folder="golden",
        trainer=(("accelerator", "cpu"),),
    )
    found = []
    for step in SCHEDULE.rung_steps:
        job = replace(job, to_step=step)
        result = TrainingEvaluator().evaluate(job)
        assert result.failure is None, result.failure
        found += [measured.value for measured in result.measurements if measured.metric == metric]
        job = replace(job, from_step=step, checkpoint=result.checkpoint)
    return found


def test_a_language_model_learns_as_it_did(tmp_path: Path) -> None:
    write_study(tmp_path)
    options = (("corpus", str(tmp_path / "corpus.txt")), ("evaluation_bytes", 1024))
    task = TaskReference(name="language_modeling", options=options)
    found = curve(task, "bits_per_byte", tmp_path / "files")
    assert found == pytest.approx(GOLDEN["language_modeling"]["bits_per_byte"], abs=TOLERANCE)


def test_recall_is_learnt_as_it_was(tmp_path: Path) -> None:
    options = (("evaluation_examples", 64), ("length", 32), ("pairs", 4), ("vocabulary", 32))
    found = curve(TaskReference(name="recall", options=options), "recall_loss", tmp_path / "files")
    assert found == pytest.approx(GOLDEN["recall"]["recall_loss"], abs=TOLERANCE)
