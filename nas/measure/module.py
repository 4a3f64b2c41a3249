"""A candidate as a LightningModule, and its batches as a LightningDataModule.

In: a model, a task and a job. Out: what lightning.Trainer needs to train the model from one step
to another and to score its averaged weights. Everything that changes with the step (batch,
learning rate, averaging) is a pure function of it, so that a training in three pieces equals the
uninterrupted one bit for bit.

Legend: B sequences, L positions, D width, N positions of a batch in one row, V token kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from nas.errors import DivergedError
from nas.measure.checkpoints import Tensors, TrainingState
from nas.measure.optimizer import make_optimizer, set_learning_rate
from nas.measure.schedule import averaging_weight, learning_rate_factor
from nas.measure.time_limit import TimeLimit
from nas.models.base import Model
from nas.models.generate import generate
from nas.models.heads import last_token
from nas.models.stack import checkpoint_activations
from nas.records import Job, Split
from nas.tasks.base import IGNORED, Batch, Questions, Task
from nas.tasks.metrics import Metrics

TRAINING_DEFAULTS = {"learning_rate": 3e-3, "weight_decay": 0.1, "beta2": 0.95, "gradient_clip": 1.0}
EVALUATION_TOKENS = 16_384
# The loss is looked at every so many steps: looking makes a device wait.
LOOK_EVERY = 16


def hyperparameters(job: Job) -> dict[str, float]:
    """The candidate's training hyperparameters, defaults filled in."""
    return {**TRAINING_DEFAULTS, **dict(job.candidate.training)}


class Training(pl.LightningModule):
    """One job's training of a model, with running averages of its weights."""

    def __init__(
        self, model: nn.Module, task: Task, job: Job, start: TrainingState | None, time_limit: TimeLimit | None = None
    ) -> None:
        super().__init__()
        self._time_limit = time_limit or TimeLimit(None)
        self.model = model
        self.task = task
        self.job = job
        self._start = start
        checkpoint_activations(model, bool(dict(job.trainer).get("activation_checkpointing", False)))
        if start is not None:
            model.load_state_dict(start.weights)
        self._average: list[Tensor] = []
        self._metrics: Metrics = task.metrics()

    @property
    def taken(self) -> int:
        """Training steps taken so far, those of earlier jobs included."""
        return self.job.from_step + self.global_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, decaying matrices alone, with the moments of the checkpoint."""
        optimizer = make_optimizer(
            self.model,
            hyperparameters(self.job),
            width=self.job.candidate.architecture.width,
            # Lightning refuses to clip gradients before a fused step where the precision is mixed.
            fused=not str(self.trainer.precision).endswith("mixed"),
        )
        if self._start is not None:
            self._restore(optimizer, self._start.optimizer)
        return optimizer

    def on_train_start(self) -> None:
        """Puts the running average on the device that Lightning chose."""
        names = [name for name, _ in self.model.named_parameters()]
        weights = dict(self.model.named_parameters())
        before = self._start.average if self._start is not None else weights
        self._average = [before[name].detach().to(weights[name].device, copy=True) for name in names]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Sets the learning rate of this step, if there is time for it."""
        self._time_limit.check(f"at step {self.taken}")
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        peak = hyperparameters(self.job)["learning_rate"]
        set_learning_rate(optimizer, peak * learning_rate_factor(self.taken, self.job.schedule))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        logits_NV, targets_N, _ = self._scored(batch)
        loss = self.task.loss(logits_NV, targets_N)
        if batch_idx % LOOK_EVERY == 0 and not torch.isfinite(loss):
            raise DivergedError(f"the training loss was {loss.item()} at step {self.taken}")
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Moves the running average; `taken` already counts this step."""
        weight = averaging_weight(self.taken - 1, self.job.schedule)
        with torch.no_grad():
            torch._foreach_lerp_(self._average, list(self.model.parameters()), weight)

    def on_validation_epoch_start(self) -> None:
        """Starts to score afresh."""
        self._metrics = self.task.metrics()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Scores one batch."""
        self._time_limit.check(f"while scoring step {self.job.to_step}")
        self._metrics.update(*self._scored(batch))

    def answer(self, questions: Questions) -> None:
        """Generates the answers to a batch of questions, greedily, and scores them."""
        assert isinstance(self.model, Model)
        self._time_limit.check(f"while answering after step {self.job.to_step}")
        inputs = questions.inputs.to(self.model.device)
        ended = [False] * len(questions.example_B)
        answers: list[list[int]] = [[] for _ in ended]
        tokens = generate(
            self.model,
            inputs,
            max_new_tokens=questions.most_tokens,
            temperature=0,
            stop_tokens=questions.stop_tokens,
        )
        for tokens_B in tokens:
            for row, token in enumerate(tokens_B.tolist()):
                ended[row] = ended[row] or token in questions.stop_tokens
                if not ended[row]:
                    answers[row].append(token)
        for example, answer in zip(questions.example_B, answers, strict=True):
            self._metrics.answer(example, answer)

    def scores(self) -> dict[str, float]:
        """The metrics of the last validation.

        Raises:
            DivergedError: one is no finite number.
        """
        return self._metrics.compute()

    def state(self) -> TrainingState:
        """Everything that the next job needs."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        names = {id(weight): name for name, weight in self.model.named_parameters()}
        moments: Tensors = {}
        for weight, kinds in optimizer.state.items():
            moments |= {f"{kind}.{names[id(weight)]}": value for kind, value in kinds.items()}
        return TrainingState(
            step=self.job.to_step,
            weights={name: weight.detach() for name, weight in self.model.named_parameters()},
            average=self.averaged_weights(),
            optimizer=moments,
            key=self.job.candidate.key,
            architecture=self.job.candidate.architecture.to_json(),
        )

    def averaged_weights(self) -> Tensors:
        """The running average, by parameter name."""
        return dict(zip((name for name, _ in self.model.named_parameters()), self._average, strict=True))

    def _scored(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits and targets of what is scored, and its examples; the head runs on nothing else."""
        features: Tensor = self.model.features(batch.inputs)  # type: ignore[operator]
        if self.task.labels is not None and features.ndim == 3:
            features = last_token(features, batch.inputs.lengths_B)
        is_once = features.ndim == 2
        if self.task.scores_sequences or (is_once and batch.targets_BL.ndim == 2):
            return self.model.head(features), batch.targets_BL, batch.example_B  # type: ignore[operator]
        features_ND, targets_N, example_N = features.flatten(0, -2), batch.targets_BL.flatten(), batch.example_B
        if example_N is not None and not is_once:
            example_N = example_N.repeat_interleave(features.shape[1])
        scored_N = targets_N != IGNORED
        if not bool(scored_N.all()):
            features_ND, targets_N = features_ND[scored_N], targets_N[scored_N]
            example_N = None if example_N is None else example_N[scored_N]
        return self.model.head(features_ND), targets_N, example_N  # type: ignore[operator]

    def _restore(self, optimizer: torch.optim.Optimizer, moments: Tensors) -> None:
        names = {id(weight): name for name, weight in self.model.named_parameters()}
        order = [names[id(weight)] for group in optimizer.param_groups for weight in group["params"]]
        kinds = ("step", "exp_avg", "exp_avg_sq")
        state = {index: {kind: moments[f"{kind}.{name}"].clone() for kind in kinds} for index, name in enumerate(order)}
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


class Batches(pl.LightningDataModule):
    """The batches of one job."""

    def __init__(self, task: Task, job: Job) -> None:
        super().__init__()
        self.task = task
        self.job = job

    def train_dataloader(self) -> DataLoader[Batch]:
        """The batches of the job's steps, made as they are needed."""
        return DataLoader(_Steps(self.task, self.job), batch_size=None)

    def evaluation_dataloader(self, split: Split, context: int) -> DataLoader[Batch]:
        """Held-out batches at one context length."""
        return DataLoader(_Held(self.task, split, context), batch_size=None)


class _Steps(IterableDataset[Batch]):
    def __init__(self, task: Task, job: Job) -> None:
        self.task = task
        self.job = job

    def __iter__(self) -> Iterator[Batch]:
        job = self.job
        for step in range(job.from_step, job.to_step):
            yield self.task.training_batch(
                seed=job.seed,
                step=step,
                tokens=job.schedule.tokens_per_step,
                max_context=job.candidate.architecture.max_context,
            )


class _Held(IterableDataset[Batch]):
    def __init__(self, task: Task, split: Split, context: int) -> None:
        self.task = task
        self.split = split
        self.context = context

    def __iter__(self) -> Iterator[Batch]:
        yield from self.task.evaluation_batches(self.split, context=self.context, tokens_per_batch=EVALUATION_TOKENS)
