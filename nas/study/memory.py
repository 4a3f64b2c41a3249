"""What training candidates takes of a device's memory: predicted, measured, and held against the study's limit.

In: candidates, and the results of their jobs. Out: figures for the store, the reason of a candidate that ran out, and
which candidates need not be tried since they would. Predictions count tensors; what a device holds besides is told
by the ratio of measured to predicted peak of the trials that were completed on it. That ratio concerns the memory of
the device alone: objectives and constraints are figures of the formulas and stay exact.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from nas.config import checkpoints
from nas.cost.estimate import estimate
from nas.records import Candidate, Failure, Result
from nas.store import Correction, MemoryFigure, Store, StoredTrial
from nas.study.plan import Plan
from nas.study.standing import predicted_memory
from nas.units import format_bytes

# Below so many measured trials a ratio excludes nobody.
LEAST_TRIALS = 3
# A candidate that ran out breaks its limit by this share of it at least.
LEAST_VIOLATION = 0.01


@dataclass
class TrainingMemory:
    """The memory of one run's trainings.

    Attributes:
        plan: of the study.
        store: where figures are kept.
    """

    plan: Plan
    store: Store
    _correction: Correction | None = None
    _peaks: dict[int, int] = field(default_factory=dict)

    def predicted(self, candidate: Candidate) -> list[MemoryFigure]:
        """The formulas' figures, those of its training batches among them; none for a user's own evaluator."""
        if self.plan.training_step is None:
            return []
        return [*predicted_memory(candidate), self._training(candidate)]

    def excess(self, candidate: Candidate) -> dict[str, float]:
        """The limit that a candidate would break, in words, and how far, above 0; nothing where it may fit.

        The lowest ratio on the device where this run's jobs are done is taken: libraries take much beside little
        models, so that the others would be unjust to large ones. A candidate that is let through in error runs out.
        """
        limit, found = self.plan.memory_limit, self._correction
        if limit is None or found is None or found.trials < LEAST_TRIALS:
            return {}
        predicted = self._training(candidate).bytes
        expected = predicted * found.lowest
        if expected <= limit:
            return {}
        text = (
            f"memory_limit {format_bytes(limit)}: training would take {format_bytes(expected)} (train_peak_bytes "
            f"{format_bytes(predicted)} × {found.lowest:.3g}, the lowest measured ratio of {found.trials} trials on "
            f"{found.device}, {found.dtype})"
        )
        return {text: expected / limit - 1}

    def took(self, trial: StoredTrial, result: Result) -> None:
        """Keeps the measured peak of a job; of a trial's jobs, the largest."""
        if result.peak_bytes is None or self.plan.training_step is None:
            return
        peak = self._peaks[trial.number] = max(result.peak_bytes, self._peaks.get(trial.number, 0))
        predicted = self._training(trial.candidate)
        measured = replace(
            predicted,
            figure="trained_peak_bytes",
            kind="measured",
            bytes=peak,
            dtype=result.precision,
            device=result.device,
        )
        self.store.add_memory(trial, [measured])

    def completed(self, result: Result) -> None:
        """Learns the ratio of the device where a trial was completed."""
        if self.plan.memory_limit is None:
            return
        place = (result.device, result.precision)
        self._correction = next(
            (found for found in self.store.corrections() if (found.device, found.dtype) == place), None
        )

    def ran_out(self, candidate: Candidate, failure: Failure, result: Result | None) -> tuple[Failure, float]:
        """What is said of a candidate that ran out of memory, and by what share of the limit it is too large."""
        limit, found = self.plan.memory_limit, self._correction
        parts = [] if limit is None else [f"memory_limit {format_bytes(limit)}"]
        violation = 1.0 if limit is None else LEAST_VIOLATION
        if self.plan.training_step is not None:
            predicted = self._training(candidate)
            parts.append(
                f"train_peak_bytes {format_bytes(predicted.bytes)} predicted (batch {predicted.batch}, context "
                f"{predicted.context})"
            )
            if limit is not None:
                expected = predicted.bytes * (1.0 if found is None else found.lowest)
                violation = max(expected / limit - 1, LEAST_VIOLATION)
        if result is not None and result.peak_bytes is not None:
            parts.append(f"{format_bytes(result.peak_bytes)} measured until then")
        if limit is None or not parts:
            # What the device says of itself; of a limit that we set it knows nothing.
            parts.append(failure.reason)
        place = f" on {result.device}" if result is not None and result.device else ""
        return replace(failure, reason=f"out of memory{place}: {', '.join(parts)}"), violation

    def _training(self, candidate: Candidate) -> MemoryFigure:
        assert self.plan.training_step is not None
        step = self.plan.training_step(candidate.architecture)
        context = max(step.length, step.source_length)
        return MemoryFigure(
            figure="train_peak_bytes",
            kind="predicted",
            bytes=estimate(
                candidate.architecture,
                context=context,
                batch=step.sequences,
                checkpointing=checkpoints(dict(self.plan.trainer)),
            ).train_peak_bytes,
            batch=step.sequences,
            context=context,
            dtype="fp32",
        )
