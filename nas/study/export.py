"""From a complete trial to a folder that runs elsewhere: scored on the test part, then written.

In: a trial of a store. Out: a bundle, whole or not at all. The test part of the data is looked at
here for the first time, and what it says is stored as such.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from nas import catalog
from nas.cost.estimate import estimate
from nas.errors import CheckpointError, StudyError, WorkerError
from nas.export.card import CardFacts, model_card
from nas.files import Files, refuse_taken
from nas.measure.checkpoints import read_checkpoint
from nas.measure.environment import current_environment
from nas.measure.module import TRAINING_DEFAULTS
from nas.records import Measurement
from nas.store import Store, StoredTrial
from nas.study.plan import Plan
from nas.study.scoring import scoring_job
from nas.study.standing import predicted_memory
from nas.tasks.load import load_task


def export_trial(store: Store, plan: Plan, trial: StoredTrial, folder: Path, *, format_name: str) -> Path:
    """See `Study.export`."""
    write = catalog.load("export format", format_name)
    refuse_taken(folder)
    if trial.state != "complete":
        raise StudyError(f"trial {trial.number} is {trial.state}, not complete: {trial.reason}")
    reference = trial.checkpoints[-1] if trial.checkpoints else None
    if reference is None:
        raise CheckpointError(f"trial {trial.number} has no checkpoint")
    state = read_checkpoint(reference, Files(store.files))
    tested = _test(store, plan, trial)
    store.add_measurements(trial, tested)
    read = plan.task_of(trial.candidate.architecture)
    task = load_task(read)
    measurements = [*_validation(store, plan, trial), *tested]
    baseline = task.baseline("test")
    card = model_card(
        CardFacts(
            study=plan.name,
            trial=trial.number,
            fingerprint=trial.candidate.architecture.fingerprint,
            architecture=trial.candidate.architecture,
            training={**TRAINING_DEFAULTS, **dict(trial.candidate.training)},
            task=read,
            tokens=trial.tokens,
            flops=trial.flops,
            measurements=tuple(measurements),
            baselines=baseline,
            versions=current_environment().versions,
        )
    )
    written: Path = write(
        folder,
        architecture=trial.candidate.architecture,
        weights=state.average,
        tokenizer=task.tokenizer,
        labels=task.labels,
        spans=task.spans,
        metrics=_metrics(plan, trial, measurements, baseline),
        card=card,
    )
    return written


def _test(store: Store, plan: Plan, trial: StoredTrial) -> list[Measurement]:
    """Scores on the test part, along the context."""
    result = plan.evaluator.evaluate(scoring_job(store, plan, trial))
    if result.failure is not None:
        raise WorkerError(f"the test part could not be scored: {result.failure.reason}")
    return list(result.measurements)


def _validation(store: Store, plan: Plan, trial: StoredTrial) -> list[Measurement]:
    found = store.measurements(store.study(plan.name), trial.number)
    rows = found[(found["step"] == trial.step) & (found["split"] == "validation")]
    return [
        Measurement(
            metric=str(row["metric"]),
            value=float(row["value"]),
            unit=str(row["unit"]),
            step=int(row["step"]),
            context=None if pd.isna(row["context"]) else int(row["context"]),
            split="validation",
            seed=int(row["seed"]),
        )
        for row in rows.to_dict("records")
    ]


def _metrics(
    plan: Plan, trial: StoredTrial, measurements: list[Measurement], baseline: dict[str, float]
) -> dict[str, Any]:
    """What metrics.json says."""
    cost = estimate(trial.candidate.architecture)
    return {
        "study": plan.name,
        "trial": trial.number,
        "fingerprint": trial.candidate.architecture.fingerprint,
        "training": dict(trial.candidate.training),
        "tokens": trial.tokens,
        "training_flops": trial.flops,
        "measurements": [
            {
                "metric": found.metric,
                "value": found.value,
                "unit": found.unit,
                "split": found.split,
                "context": found.context,
                "step": found.step,
                "seed": found.seed,
            }
            for found in measurements
        ],
        "trivial_baseline": {"split": "test", "values": baseline},
        "memory": {
            "batch": cost.batch,
            "context": cost.context,
            "weights_and_cache_dtype": cost.dtype,
            "recurrent_state_dtype": "fp32",
            **{figure.figure: figure.bytes for figure in predicted_memory(trial.candidate)},
        },
    }
