"""How fast this machine trains: a few real steps of one candidate.

In: a bound architecture, its task and the study's settings. Out: FLOPs a second, by the same formula as everywhere.
A benchmark of matrix products would say what a device can do; small candidates reach a part of it that only they tell.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from typing import Any

import lightning as pl
import torch

from nas.measure.allocator import freed_memory_kept
from nas.measure.module import Batches, Training, hyperparameters
from nas.measure.train import flops_of_steps
from nas.measure.trainer import device_in_words, make_trainer, quiet
from nas.models.build import build
from nas.records import Candidate, Job, Schedule, TaskReference
from nas.space.architecture import Architecture
from nas.tasks.load import load_task

# The first step allocates and warms up; the others are timed.
TIMED_STEPS = 3


@dataclass(frozen=True)
class MeasuredSpeed:
    """What a few steps of training gave.

    Attributes:
        flops_per_second: of the steps that were timed.
        device: in words.
    """

    flops_per_second: float
    device: str


class _Clock(pl.Callback):
    """When each training step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        self.ends.append(time.perf_counter())


def training_speed(
    architecture: Architecture,
    task: TaskReference,
    *,
    tokens_per_step: int,
    seed: int = 0,
    trainer: tuple[tuple[str, Any], ...] = (),
) -> MeasuredSpeed:
    """Trains a candidate for a few steps, batches and optimizer included, and keeps nothing of it.

    Args:
        architecture: bound to the task.
        task: whose batches it is trained on.
        tokens_per_step: of the study.
        seed: of weights and batches.
        trainer: arguments for lightning.Trainer.

    Raises:
        InputError: the task's data cannot be used, or a setting of the trainer is wrong.
    """
    steps = TIMED_STEPS + 1
    job = Job(
        kind="train",
        candidate=Candidate(architecture),
        task=task,
        seed=seed,
        schedule=Schedule(tokens_per_step=tokens_per_step, rung_steps=(steps,)),
        from_step=0,
        to_step=steps,
        trainer=trainer,
    )
    loaded, clock = load_task(task), _Clock()
    with quiet(), freed_memory_kept(), tempfile.TemporaryDirectory() as folder:
        module = Training(build(architecture, seed=seed), loaded, job, None)
        clip = hyperparameters(job)["gradient_clip"]
        fitter = make_trainer(dict(trainer), steps=steps, gradient_clip=clip, folder=folder)
        fitter.callbacks.append(clock)  # type: ignore[attr-defined]
        fitter.fit(module, train_dataloaders=Batches(loaded, job).train_dataloader())
    flops = flops_of_steps(architecture, loaded, tokens_per_step, seed, range(1, steps))
    return MeasuredSpeed(flops / (clock.ends[-1] - clock.ends[0]), device_in_words())
