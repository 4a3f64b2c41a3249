"""One training of a table: from the first rung to the last, with the evaluator of every study.

In: a candidate of a `TablePlan` and a seed. Out: a `Trained`: what each rung scored and cost, or why it failed.

Jobs go from rung to rung, as in a study, so that what stands in a table is what a study would have seen. Checkpoints
lie in memory where the system has a folder for that, and are gone when the training is over.

Seconds are those of the process on its processor. It has one thread, so on a quiet machine they are the seconds of the
clock, and beside other work they grow by far less than those.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as pl
from _table_plan import TablePlan, Training
from _table_rows import Rung, Trained

from nas.measure.train import TrainingEvaluator
from nas.records import CheckpointReference, Job, Result

MEMORY_FOLDER = Path("/dev/shm")


@dataclass
class _Spent:
    train: float = 0.0
    evaluate: float = 0.0
    started: dict[str, float] = field(default_factory=dict)


_spent = _Spent()


class Clock(pl.Callback):
    """Tells training from scoring; a job's `trainer:` words name it, as a user's own callback."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _spent.started["train"] = time.process_time()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _spent.train += time.process_time() - _spent.started["train"]

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _spent.started["evaluate"] = time.process_time()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _spent.evaluate += time.process_time() - _spent.started["evaluate"]


def train(plan: TablePlan, training: Training, environment: str = "") -> Trained:
    """Trains through all rungs; a failure is a result too.

    One that is not the candidate's own (the machine's, say) is tried once more before it counts.
    """
    found = _train(plan, training, environment)
    if found.failure and not found.blames_candidate:
        found = _train(plan, training, environment)
    return found


def _train(plan: TablePlan, training: Training, environment: str) -> Trained:
    shared = str(MEMORY_FOLDER) if MEMORY_FOLDER.is_dir() and os.access(MEMORY_FOLDER, os.W_OK) else None
    rungs: list[Rung] = []
    begun, train_seconds, flops, from_step = time.process_time(), 0.0, 0.0, 0
    checkpoint: CheckpointReference | None = None
    with tempfile.TemporaryDirectory(prefix="nas-table-", dir=shared) as files:
        for step in plan.schedule.rung_steps:
            _spent.train = _spent.evaluate = 0.0
            result = TrainingEvaluator().evaluate(_job(plan, training, files, from_step, step, checkpoint))
            if result.failure is not None:
                return Trained(
                    training=training,
                    rungs=tuple(rungs),
                    failure=f"{result.failure.kind}: {result.failure.reason}",
                    blames_candidate=result.failure.blames_candidate,
                    environment=environment,
                )
            checkpoint, from_step = result.checkpoint, step
            train_seconds += _spent.train
            flops += result.flops
            rungs.append(
                Rung(
                    tokens=step * plan.schedule.tokens_per_step,
                    scores=_scores(result),
                    train_seconds=round(train_seconds, 4),
                    evaluate_seconds=round(_spent.evaluate, 4),
                    job_seconds=round(time.process_time() - begun, 4),
                    flops=flops,
                )
            )
    return Trained(training=training, rungs=tuple(rungs), environment=environment)


def settle() -> None:
    """Takes everything that lives now out of the collector's rounds, of which each job makes a full one."""
    gc.collect()
    gc.freeze()


def _job(plan: TablePlan, training: Training, files: str, from_step: int, to_step: int, checkpoint: Any) -> Job:
    return Job(
        kind="train",
        candidate=plan.candidates[training.key][0],
        task=plan.task,
        seed=training.seed,
        schedule=plan.schedule,
        from_step=from_step,
        to_step=to_step,
        checkpoint=checkpoint,
        files=files,
        folder=training.key,
        trainer=(("accelerator", "cpu"), ("callbacks", [f"{__name__}:Clock"])),
    )


def _scores(result: Result) -> dict[str, float]:
    return {found.metric: found.value for found in result.measurements if found.split == "validation"}
