"""Measured peaks correct what is predicted of the next candidates, and exclude what cannot fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nas.cost.estimate import estimate
from nas.records import Candidate, Failure, Result
from nas.space import Architecture
from nas.store import Store, StoredObjective
from nas.study.memory import LEAST_TRIALS, TrainingMemory
from nas.study.plan import Plan
from nas.tasks.base import StepShape

STEP = StepShape(sequences=4, length=32)
RESULT = Result(device="CPU", precision="fp32")
OUT = Failure(kind="out_of_memory", reason="cannot allocate")


def candidate(width: int = 32) -> Candidate:
    layers = [{"mixer": "full", "heads": 2}]
    return Candidate(
        Architecture.from_mapping(
            {"family": "decoder", "width": width, "max_context": 32, "vocabulary": 64, "head": "causal_lm"}
            | {"layers": layers}
        )
    )


def predicted(width: int = 32) -> int:
    return estimate(candidate(width).architecture, context=32, batch=4).train_peak_bytes


class Bench:
    """A store with trials whose training took so many times what was predicted."""

    def __init__(self, folder: Path, limit: int | None) -> None:
        self.store = Store.open(f"sqlite:///{folder}/nas.db", create=True)
        self.study = self.store.add_study(
            "s", resolved={}, objectives=[StoredObjective(name="loss", direction="minimize")]
        )
        plan = SimpleNamespace(trainer=(), memory_limit=limit, training_step=lambda architecture: STEP)
        self.memory = TrainingMemory(cast(Plan, plan), self.store)

    def complete(self, *ratios: float, device: str = "CPU") -> None:
        for index, ratio in enumerate(ratios):
            trial = self.store.add_trial(self.study, candidate(), seed=len(self.trials), known={}, reason="")
            self.store.add_memory(trial, self.memory.predicted(trial.candidate))
            result = replace(RESULT, peak_bytes=int(ratio * predicted()), device=device)
            # Of several jobs the largest peak counts.
            for peak in (result.peak_bytes, 1 + index):
                self.memory.took(trial, replace(result, peak_bytes=peak))
            self.store.complete(trial, {"loss": 1.0}, "")
            self.memory.completed(result)

    @property
    def trials(self) -> list[Any]:
        return list(self.store.trials(self.study))


def test_what_would_not_fit_by_every_measured_ratio_is_excluded_with_its_figures(tmp_path: Path) -> None:
    bench = Bench(tmp_path, limit=int(1.5 * predicted(64)))
    bench.complete(3.0, 2.0, 4.0)
    (text, excess), *others = bench.memory.excess(candidate(64)).items()
    assert not others and excess == pytest.approx(2.0 / 1.5 - 1, rel=1e-3)
    for words in ("memory_limit", "train_peak_bytes", "× 2", "3 trials on CPU, fp32"):
        assert words in text
    # What fits by the lowest of them is tried.
    bench.complete(1.4)
    assert bench.memory.excess(candidate(64)) == {}


def test_without_enough_measurements_on_this_device_nothing_is_excluded(tmp_path: Path) -> None:
    bench = Bench(tmp_path, limit=1)
    assert bench.memory.excess(candidate()) == {}
    bench.complete(*[2.0] * (LEAST_TRIALS - 1))
    assert bench.memory.excess(candidate()) == {}
    bench.complete(2.0, device="another")
    assert bench.memory.excess(candidate()) == {}
    bench.complete(2.0)
    assert bench.memory.excess(candidate())


def test_without_a_limit_nothing_is_excluded_and_ratios_are_kept_all_the_same(tmp_path: Path) -> None:
    bench = Bench(tmp_path, limit=None)
    bench.complete(2.0, 2.0, 2.0)
    assert bench.memory.excess(candidate(512)) == {}
    (found,) = bench.store.corrections()
    assert (found.device, found.dtype, found.trials) == ("CPU", "fp32", 3)
    assert found.ratio == pytest.approx(2.0, rel=1e-3)


def test_a_candidate_that_ran_out_tells_limit_prediction_and_measurement(tmp_path: Path) -> None:
    memory = Bench(tmp_path, limit=2**20).memory
    failure, violation = memory.ran_out(candidate(), OUT, replace(RESULT, peak_bytes=3 * 2**19))
    assert failure.kind == "out_of_memory"
    for words in ("out of memory on CPU", "memory_limit 1 MiB", "train_peak_bytes", "batch 4, context 32", "1.5 MiB"):
        assert words in failure.reason
    assert "cannot allocate" not in failure.reason
    # Predicted to fit, it is over the limit all the same.
    assert predicted() < 2**20 and violation > 0
    assert memory.ran_out(candidate(256), OUT, RESULT)[1] == pytest.approx(predicted(256) / 2**20 - 1)


def test_without_a_limit_the_devices_own_words_are_told(tmp_path: Path) -> None:
    failure, violation = Bench(tmp_path, limit=None).memory.ran_out(candidate(), OUT, None)
    assert "cannot allocate" in failure.reason and "memory_limit" not in failure.reason and violation == 1.0
