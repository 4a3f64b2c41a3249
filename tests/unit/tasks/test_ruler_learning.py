"""That RULER's first kind is learnt by who sees all of its context, at every length, and by nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.measure.train import TrainingEvaluator
from nas.records import Candidate, Job, Schedule, TaskReference
from nas.space import Architecture
from nas.tasks import load_task

TASK = TaskReference(name="ruler", options=(("evaluation_examples", 100), ("kind", "niah_single"), ("length", 128)))
STEPS = 200


def recalls(folder: Path, layer: dict) -> dict[tuple[str, int | None], float]:
    plan = {"heads": 2, "mlp_ratio": 2, "short_conv": 3, **layer}
    architecture = Architecture.from_mapping(
        {"family": "decoder", "width": 64, "max_context": 128, "layers": [plan, plan]}
    ).bind(load_task(TASK).shape)
    job = Job(
        kind="train",
        candidate=Candidate(architecture, (("learning_rate", 1e-2),)),
        task=TASK,
        seed=0,
        schedule=Schedule(tokens_per_step=2048, rung_steps=(STEPS,)),
        from_step=0,
        to_step=STEPS,
        files=str(folder),
        folder="a",
        trainer=(("accelerator", "cpu"),),
        contexts=(32, 256),
    )
    result = TrainingEvaluator().evaluate(job)
    assert result.failure is None, result.failure
    return {(found.metric, found.context): found.value for found in result.measurements}


@pytest.mark.slow
def test_full_attention_finds_the_needle_and_a_short_window_does_not(tmp_path: Path) -> None:
    full = recalls(tmp_path / "full", {"mixer": "full"})
    assert full["ruler_recall", 128] > 0.9
    assert full["ruler_recall_by_length", 32] > 0.9 and full["ruler_recall_by_length", 256] > 0.9
    # The needle stands in the last quarter of the text, or is not seen.
    assert full["ruler_recall", 32] < 0.45
    window = recalls(tmp_path / "window", {"mixer": "sliding_window", "window": 16})
    assert window["ruler_recall", 128] < 0.45
