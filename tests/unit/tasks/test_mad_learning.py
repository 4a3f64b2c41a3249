"""That kinds of MAD are learnt by who sees all of the example, and no further than guessing by who does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nas.measure.train import TrainingEvaluator
from nas.records import Candidate, Job, Schedule, TaskReference
from nas.space import Architecture
from nas.tasks import load_task


def accuracy(folder: Path, kind: str, layer: dict[str, Any], *, steps: int) -> float:
    task = TaskReference(name="mad", options=(("evaluation_examples", 200), ("kind", kind)))
    plan = {"heads": 2, "mlp_ratio": 2, "short_conv": 3, **layer}
    architecture = Architecture.from_mapping(
        {"family": "decoder", "width": 64, "max_context": 256, "layers": [plan, plan]}
    ).bind(load_task(task).shape)
    job = Job(
        kind="train",
        candidate=Candidate(architecture, (("learning_rate", 5e-3),)),
        task=task,
        seed=0,
        schedule=Schedule(tokens_per_step=2048, rung_steps=(steps,)),
        from_step=0,
        to_step=steps,
        files=str(folder),
        folder="a",
        trainer=(("accelerator", "cpu"),),
    )
    result = TrainingEvaluator().evaluate(job)
    assert result.failure is None, result.failure
    (found,) = (found.value for found in result.measurements if found.metric == "mad_accuracy")
    return found


@pytest.mark.slow
def test_full_attention_recalls_in_context_and_a_short_window_does_not(tmp_path: Path) -> None:
    full = accuracy(tmp_path / "full", "in_context_recall", {"mixer": "full"}, steps=150)
    window = accuracy(tmp_path / "window", "in_context_recall", {"mixer": "sliding_window", "window": 4}, steps=150)
    assert full > 0.95
    assert window < 0.6


@pytest.mark.slow
def test_full_attention_copies_among_blanks_and_a_short_window_does_not(tmp_path: Path) -> None:
    full = accuracy(tmp_path / "full", "selective_copying", {"mixer": "full"}, steps=300)
    window = accuracy(tmp_path / "window", "selective_copying", {"mixer": "sliding_window", "window": 8}, steps=100)
    assert full > 0.35
    assert window < 0.2
