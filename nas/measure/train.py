"""The evaluator of candidates: a `Job` in, a `Result` out.

It trains with Lightning from one step to another, scores the averaged weights on held-out data,
and writes a checkpoint. It talks to nobody while it runs: a job that died is simply run again.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from typing import Any

import lightning as pl
import torch
from torch import nn

from nas.cost.estimate import forward_flops, training_flops_per_token
from nas.errors import CheckpointError, DivergedError, InputError, OutOfMemoryError, TimedOutError
from nas.files import Files
from nas.measure.allocator import freed_memory_kept, freed_memory_returned
from nas.measure.checkpoints import TrainingState, read_checkpoint, write_checkpoint
from nas.measure.limit import MemoryLimit
from nas.measure.module import EVALUATION_TOKENS, Batches, Training, hyperparameters
from nas.measure.peak import Peak, own_garbage_collected, release_memory
from nas.measure.time_limit import TimeLimit
from nas.measure.trainer import device_in_words, device_of, make_trainer, precision_in_words, quiet
from nas.models.build import build
from nas.records import Failure, FailureKind, Job, Measurement, Result, Split
from nas.space.architecture import Architecture
from nas.specs.tasks import EFFECTIVE_CONTEXT, EFFECTIVE_SHARE
from nas.tasks.base import StepShape, Task
from nas.tasks.curves import effective_context
from nas.tasks.load import load_task

_AVERAGED_STEPS = 64
# A backward pass costs two forward ones (Kaplan et al. 2020).
TRAINING_PASSES = 3.0
_OUT_OF_MEMORY = (
    "out of memory",
    "bad_alloc",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
)
_OWN_ERRORS: Mapping[FailureKind, tuple[type[BaseException], ...]] = {
    "diverged": (DivergedError,),
    "timed_out": (TimedOutError,),
    "out_of_memory": (torch.OutOfMemoryError, MemoryError, OutOfMemoryError),
}
_DEVICE_ERROR = "CUDA error"


class TrainingEvaluator:
    """Trains candidates in this process."""

    def evaluate(self, job: Job) -> Result:
        """Does the job.

        Returns:
            Measurements, a checkpoint and timings; or a classified failure. Behind a failure nothing of
            the job is left in this process.

        Raises:
            InputError: the job cannot be done as asked (a damaged checkpoint, data that changed).
            KeyboardInterrupt: the user stopped it.
        """
        start = time.perf_counter()
        device, peak = device_of(dict(job.trainer)), None
        try:
            freed = freed_memory_kept() if job.memory_limit is None else freed_memory_returned()
            with quiet(), freed, own_garbage_collected():
                # The data is not the candidate's: it is read before the limit is reckoned.
                task = load_task(job.task)
                start = time.perf_counter()
                limit, peak = MemoryLimit(job.memory_limit, device), Peak(device)
                return _train(job, task, limit, peak, start) if job.kind == "train" else _test(job, task, limit, start)
        except (InputError, KeyboardInterrupt):
            raise
        except SystemExit as error:
            # Lightning turns Ctrl-C into an exit.
            raise KeyboardInterrupt from error
        except BaseException as error:
            failure = classify(error)
            peak_bytes = None if peak is None else peak.bytes()
        # Out here nothing refers to the error, and with it to the job's tensors, any more.
        release_memory()
        return Result(
            failure=failure,
            seconds=time.perf_counter() - start,
            device=device_in_words(dict(job.trainer)),
            precision=_precision(job),
            peak_bytes=peak_bytes,
        )


def classify(error: BaseException) -> Failure:
    """What kind of failure an exception is."""
    text = "".join(traceback.format_exception(error))
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    name = type(error).__name__
    for kind, classes in _OWN_ERRORS.items():
        if isinstance(error, classes):
            return Failure(kind=kind, reason=first_line, traceback=text, error=name)
    if any(words in str(error).lower() for words in _OUT_OF_MEMORY):
        return Failure(kind="out_of_memory", reason=first_line, traceback=text, error=name)
    # Disks, connections, and a device that no job can use any more.
    is_machine = isinstance(error, OSError) or _DEVICE_ERROR in str(error)
    return Failure(
        kind="machine" if is_machine else "crashed", reason=f"{name}: {first_line}", traceback=text, error=name
    )


def training_flops(job: Job, task: Task) -> float:
    """FLOPs of the job's training steps, by formula, each at its own lengths of sequence and source."""
    steps = range(job.from_step, job.to_step)
    return flops_of_steps(job.candidate.architecture, task, job.schedule.tokens_per_step, job.seed, steps)


def flops_per_step(architecture: Architecture, task: Task, tokens_per_step: int, seed: int) -> float:
    """FLOPs of a training step of a bound architecture, averaged over the lengths that batches mix."""
    return flops_of_steps(architecture, task, tokens_per_step, seed, range(_AVERAGED_STEPS)) / _AVERAGED_STEPS


def largest_step(architecture: Architecture, task: Task, tokens_per_step: int, seed: int) -> StepShape:
    """The sizes of the step of a bound architecture that holds the longest sequences."""
    shapes = (
        task.step_shape(seed=seed, step=step, tokens=tokens_per_step, max_context=architecture.max_context)
        for step in range(_AVERAGED_STEPS)
    )
    return max(shapes, key=lambda shape: (shape.tokens_of_one, shape.tokens))


def flops_of_steps(architecture: Architecture, task: Task, tokens_per_step: int, seed: int, steps: range) -> float:
    """FLOPs of some training steps of a bound architecture, each at its own lengths."""
    per_shape: dict[StepShape, float] = {}
    total = 0.0
    for step in steps:
        shape = task.step_shape(seed=seed, step=step, tokens=tokens_per_step, max_context=architecture.max_context)
        if shape not in per_shape:
            per_shape[shape] = _flops_of_step(architecture, shape)
        total += per_shape[shape]
    return total


def _flops_of_step(architecture: Architecture, shape: StepShape) -> float:
    if not shape.source_length:
        return training_flops_per_token(architecture, shape.length) * shape.tokens
    forward = forward_flops(architecture, length=shape.length, source_length=shape.source_length)
    return TRAINING_PASSES * forward * shape.sequences


def _train(job: Job, task: Task, limit: MemoryLimit, peak: Peak, start: float) -> Result:
    # Nor is the time that the data took.
    clock = TimeLimit(job.time_limit)
    files = Files(job.files)
    state = _starting_state(job, files)
    with limit.held():
        model = build(job.candidate.architecture, seed=job.seed)
    module, batches = Training(model, task, job, state, clock), Batches(task, job)
    trainer = make_trainer(
        dict(job.trainer),
        steps=job.to_step - job.from_step,
        gradient_clip=hyperparameters(job)["gradient_clip"],
        folder=str(files.root),
    )
    with limit.held():
        # No validation dataloader here: Lightning then trains alone.
        trainer.fit(module, train_dataloaders=batches.train_dataloader())
    peak_bytes = peak.bytes()
    # Writing is no part of what the limit is for: it takes the whole file in memory.
    reached = module.state()
    checkpoint = write_checkpoint(reached, files, job.folder)
    model.load_state_dict(reached.average)
    with limit.held():
        measurements = _score(module, batches, trainer, job, "validation")
    return Result(
        measurements=measurements,
        checkpoint=checkpoint,
        seconds=time.perf_counter() - start,
        tokens=(job.to_step - job.from_step) * job.schedule.tokens_per_step,
        flops=training_flops(job, task),
        device=device_in_words(dict(job.trainer)),
        precision=_precision(job),
        peak_bytes=peak_bytes,
    )


def _test(job: Job, task: Task, limit: MemoryLimit, start: float) -> Result:
    files = Files(job.files)
    state = _starting_state(job, files)
    assert state is not None
    model = build(job.candidate.architecture, seed=job.seed)
    module, batches = Training(model, task, job, state), Batches(task, job)
    model.load_state_dict(state.average)
    trainer = make_trainer(dict(job.trainer), steps=0, gradient_clip=0.0, folder=str(files.root))
    with limit.held():
        measurements = _score(module, batches, trainer, job, "test")
    return Result(
        measurements=measurements,
        checkpoint=job.checkpoint,
        seconds=time.perf_counter() - start,
        device=device_in_words(dict(job.trainer)),
    )


def _precision(job: Job) -> str:
    return precision_in_words(str(dict(job.trainer).get("precision", "auto")))


def _starting_state(job: Job, files: Files) -> TrainingState | None:
    if job.checkpoint is None:
        return None
    state = read_checkpoint(job.checkpoint, files)
    if state.key != job.candidate.key:
        raise CheckpointError(f"checkpoint '{job.checkpoint.path}' belongs to candidate {state.key}")
    return state


def _score(module: Training, batches: Batches, trainer: pl.Trainer, job: Job, split: Split) -> tuple[Measurement, ...]:
    """The metrics at the candidate's own context, at the others that the job asks for, and of the whole curve."""
    architecture, task = job.candidate.architecture, module.task
    options = dict(job.task.options)
    specs = task.spec.metrics_for(options)
    model = module.model
    scores: dict[int, dict[str, float]] = {}
    for context in sorted({architecture.max_context, *job.contexts}):
        if context > architecture.max_context:
            if not architecture.extends:
                continue
            module.model = _longer(architecture, context)
            module.model.load_state_dict(model.state_dict())
        trainer.validate(module, dataloaders=batches.evaluation_dataloader(split, context), verbose=False)
        for questions in task.questions(split, context=context, tokens_per_batch=EVALUATION_TOKENS):
            module.answer(questions)
        scores[context] = {**module.scores(), **task.known_scores(split, context=context)}
    module.model = model
    found: list[tuple[str, float, int | None]] = [
        (name, value, context) for context, by_name in scores.items() for name, value in by_name.items()
    ]
    if EFFECTIVE_CONTEXT in specs and set(options["contexts"]) <= set(job.contexts):
        found.append((EFFECTIVE_CONTEXT, float(_effective(task, options, scores)), None))
    return tuple(
        Measurement(
            metric=name,
            value=value,
            unit=specs[name].unit,
            step=job.to_step,
            context=context,
            split=split,
            seed=job.seed,
        )
        for name, value, context in found
    )


def _longer(architecture: Architecture, context: int) -> nn.Module:
    """The network with room for a longer context, rotary positions stretched as they are already, or by YaRN."""
    scaling = "yarn" if architecture.rope_scaling == "none" else architecture.rope_scaling
    return build(architecture.extended(context / architecture.max_context, scaling))


def _effective(task: Task, options: Mapping[str, Any], scores: Mapping[int, Mapping[str, float]]) -> int:
    """The longest of the study's contexts whose score is still good; those out of reach are not."""
    name = task.spec.curve_score(options)
    direction = task.spec.measured(options)[name].direction
    curve = {context: scores[context][name] for context in options["contexts"] if context in scores}
    if not curve:
        return 0
    score = options.get("effective_score")
    share = None if score is not None else float(options.get("effective_share", EFFECTIVE_SHARE))
    return effective_context(curve, direction=direction, share=share, score=score)
