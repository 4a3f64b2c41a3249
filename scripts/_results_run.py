"""Runs the comparisons of scripts/reproduce_results, one process each, and reads what they found.

In: rows of a table, each a shipped study with some of its words replaced, learning rates to try and seeds
to confirm with. Out: a store that holds every run, and from it the scores of each row.

The learning rate is chosen at one seed on the validation part; the chosen one is trained again with fresh
seeds, and only those are reported, on the test part too. What is in the store is not done again, so the
whole can be interrupted at any time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Before torch is imported: one thread for each process, and no busy waiting.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}

SCRIPT = Path(__file__).resolve().parent / "reproduce_results"
SEARCH_SEED = 0


@dataclass(frozen=True)
class Row:
    """One configuration of a comparison.

    Attributes:
        name: short and unique, for the store.
        label: for tables.
        study: a shipped study, whose task, objectives and budget count unless `words` replaces them.
        space: the one architecture, as the words of a space.
        score: the metric that chooses the learning rate and that the table shows.
        rates: learning rates to try at the search's seed; one is taken as it is.
        seeds: of the reported trainings.
        words: dotted keys of the study and their values.
        search_words: the same for the search of the learning rate alone, such as a smaller budget.
        rate_of: the name of a row whose chosen learning rate this one takes.
    """

    name: str
    label: str
    study: str
    space: Mapping[str, Any]
    score: str
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    words: Mapping[str, Any] = field(default_factory=dict)
    search_words: Mapping[str, Any] = field(default_factory=dict)
    rate_of: str = ""


@dataclass(frozen=True)
class Found:
    """One finished training.

    Attributes:
        seed: of the training.
        learning_rate: its peak.
        flops: spent on training.
        tokens: trained on.
        seconds: of training and scoring.
        serve_bytes: by formula, or None where the family keeps no state.
        scores: (split, metric, context) -> value.
        baseline: metric -> what the trivial guesser scores on the test part.
    """

    seed: int
    learning_rate: float
    flops: float
    tokens: int
    seconds: float
    serve_bytes: float | None
    scores: Mapping[tuple[str, str, int], float]
    baseline: Mapping[str, float]

    def score(self, metric: str, split: str = "test") -> float:
        """At the candidate's own context, the longest that it was trained for."""
        own = int(self.scores["own", "context", 0])
        return self.scores[split, metric, own]


def run_rows(
    rows: Sequence[Row], every: Mapping[str, Row], folder: Path, processes: int, say: Callable[[str], None]
) -> None:
    """Searches the learning rates of rows, then trains with fresh seeds; rows are taken as they are listed.

    Args:
        rows: to run.
        every: all rows by name, among them those whose learning rate another one takes.
        folder: where the runs lie.
        processes: at a time.
        say: is told of each that ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()

    def run(job: tuple[Row, str, int]) -> None:
        row, phase, seed = job
        if result_path(folder, row, phase, seed).is_file():
            return
        rates = row.rates if phase == "search" else (chosen_rate(every, folder, row),)
        asked = {"row": row.name, "phase": phase, "seed": seed, "rates": rates}
        done = subprocess.run(
            [sys.executable, str(SCRIPT), "--folder", str(folder), "--one", json.dumps(asked)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{row.name}, seed {seed}: {done.stderr.strip()[-3000:]}")
        say(f"[{(time.monotonic() - begun) / 60:6.1f} min] {done.stdout.strip()}")

    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(run, [(row, "search", SEARCH_SEED) for row in rows if len(row.rates) > 1]))
        list(pool.map(run, [(row, "confirm", seed) for row in rows for seed in row.seeds]))


def chosen_rate(every: Mapping[str, Row], folder: Path, row: Row) -> float:
    """The learning rate that did best at the search's seed on the validation part."""
    if row.rate_of:
        return chosen_rate(every, folder, every[row.rate_of])
    if len(row.rates) == 1:
        return row.rates[0]
    tried = tried_rates(folder, row)
    # Of equal ones the smaller: it is the safer.
    return (
        max(sorted(tried), key=tried.__getitem__) if is_higher_better(row.score) else min(tried, key=tried.__getitem__)
    )


def tried_rates(folder: Path, row: Row) -> dict[float, float]:
    """Learning rate -> score on the validation part, of the search."""
    return {float(rate): value for rate, value in read(result_path(folder, row, "search", SEARCH_SEED))["tried"]}


def is_higher_better(metric: str) -> bool:
    return not metric.endswith(("_per_byte", "loss", "perplexity"))


def result_path(folder: Path, row: Row, phase: str, seed: int) -> Path:
    return folder / f"{row.name}-{phase}-{seed}.json"


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def finished(folder: Path, row: Row) -> list[Found]:
    """The reported trainings of a row that are done, by seed."""
    found = []
    for seed in row.seeds:
        path = result_path(folder, row, "confirm", seed)
        if path.is_file():
            values = read(path)
            scores = {(split, metric, int(context)): value for split, metric, context, value in values.pop("scores")}
            values.pop("tried")
            found.append(Found(scores=scores, **values))
    return found


def run_one(row: Row, folder: Path, *, phase: str, seed: int, rates: Sequence[float]) -> str:
    """One study: a row at some learning rates and one seed; writes what it found beside the store."""
    from nas import Study

    name = f"{row.name}-{phase}-{seed}"
    space = {"name": row.name, **row.space, "training": {**row.space.get("training", {})}}
    space["training"]["learning_rate"] = {"choice": list(rates)}
    words = {**row.words, **(row.search_words if phase == "search" else {})}
    words |= {"name": name, "space": space, "override": {}, "seed": seed, "trials": len(rates), "sampler": "random"}
    # Plain JSON is YAML too.
    settings = {key: json.dumps(value) for key, value in words.items()}
    # A store of its own for each process: they never wait for each other.
    store = f"sqlite:///{folder / name}.db"
    begun = time.monotonic()
    with Study.load(row.study, store=store, settings=settings) as study:
        study.run()
        stored = study.store.study(name)
        trials = study.store.trials(stored, states=["complete"])
        tried = [(dict(trial.candidate.training)["learning_rate"], float(trial.values[row.score])) for trial in trials]
        if len(tried) < len(rates):
            raise SystemExit(f"{name}: {len(tried)} of {len(rates)} trials are complete")
        best = study.best(row.score)
        found: dict[str, Any] = {"tried": tried}
        if phase == "confirm":
            bundle = folder / f"{name}-bundle"
            shutil.rmtree(bundle, ignore_errors=True)
            study.export(best, bundle)
            baseline = json.loads((bundle / "metrics.json").read_text())["trivial_baseline"]["values"]
            frame = study.store.measurements(stored, best.number)
            frame = frame[(frame["step"] == best.step) & frame["context"].notna()]
            scores = [
                (str(one["split"]), str(one["metric"]), int(one["context"]), float(one["value"]))
                for one in frame.to_dict("records")
            ]
            scores.append(("own", "context", 0, float(best.candidate.architecture.max_context)))
            found |= {
                "seed": seed,
                "learning_rate": float(rates[0]),
                "flops": float(best.flops),
                "tokens": int(best.tokens),
                "serve_bytes": best.values.get("serve_bytes"),
                "scores": scores,
                "baseline": baseline,
                "seconds": time.monotonic() - begun,
            }
    path = result_path(folder, row, phase, seed)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(found), encoding="utf-8")
    beside.rename(path)
    shown = ", ".join(f"{rate:g}: {value:.4f}" for rate, value in sorted(tried))
    return f"{name}: {row.score} {shown} ({time.monotonic() - begun:.0f} s)"
