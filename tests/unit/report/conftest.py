"""Small stores made by hand: what a run of a study would have left."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nas.records import Candidate, Environment, Failure, Measurement, Result, Split
from nas.space.architecture import Architecture
from nas.store import MemoryFigure, Store, StoredObjective, StoredStudy, StoredTrial

QUALITY = StoredObjective(name="bits_per_byte", direction="minimize", unit="bit/byte", reference=4.9, ideal=0.0)
MEMORY = StoredObjective(
    name="serve_bytes", direction="minimize", unit="B", known=True, reference=2.0**22, ideal=2.0**16, log2=True
)
ACCURACY = StoredObjective(name="token_accuracy", direction="maximize", reference=0.15, ideal=1.0)
CONTEXT = StoredObjective(name="max_context", direction="maximize", unit="", known=True, reference=128.0, ideal=1024.0)

RESOLVED = {
    "name": "small",
    "space": {
        "name": "hybrid",
        "family": "decoder",
        "width": {"choice": [64, 96, 128]},
        "depth": {"range": [2, 4]},
        "layers": {"mixer": {"choice": ["full", "sliding_window"], "per": "layer"}, "short_conv": 0},
        "training": {"learning_rate": {"log_range": [0.001, 0.01]}},
        "constraints": ["serve_bytes <= 4 MiB"],
    },
    "task": {"name": "language_modeling", "corpus": "<b>sotu</b>", "evaluation_bytes": 16384},
    "objectives": [{"name": "bits_per_byte"}, {"name": "serve_bytes"}],
    "budget": {"tokens": 200_000, "rungs": 3},
    "trials": 12,
    "sampler": {"name": "nsga2"},
    "seed": 7,
}


def candidate(
    width: int = 64, mixers: str = "FW", *, window: int = 32, context: int = 256, rate: float = 3e-3
) -> Candidate:
    layers = [
        {"mixer": "full", "heads": 4} if letter == "F" else {"mixer": "sliding_window", "heads": 4, "window": window}
        for letter in mixers
    ]
    mapping = {"family": "decoder", "width": width, "max_context": context, "layers": layers}
    mapping |= {"vocabulary": 257, "head": "causal_lm"}
    return Candidate(Architecture.from_mapping(mapping), (("learning_rate", rate),))


def measurement(
    value: float, *, step: int, context: int = 256, split: Split = "validation", metric: str = QUALITY.name
) -> Measurement:
    return Measurement(metric=metric, value=value, unit="", step=step, context=context, split=split, seed=7)


def memory(size: int, device: str = "") -> MemoryFigure:
    """A prediction, or what a device measured."""
    return MemoryFigure(
        figure="serve_bytes",
        kind="measured" if device else "predicted",
        bytes=size,
        batch=1,
        context=256,
        dtype="bf16",
        device=device,
    )


def finish(store: Store, trial: StoredTrial, values: dict[str, float], *, context: int = 256) -> StoredTrial:
    """Trains a trial in three rungs and completes it."""
    for rung, step in enumerate((50, 100, 200)):
        found = tuple(
            measurement(value * (1.3 - 0.15 * rung), step=step, context=context, metric=name)
            for name, value in values.items()
        )
        store.record_result(trial, Result(measurements=found, tokens=50_000, flops=2e11, seconds=2.0), step=step)
    return store.complete(trial, values, reason="trained to the end of its budget")


def front_of(study: StoredStudy, store: Store, members: list[int], hypervolume: float, tokens: int) -> None:
    done = len(store.trials(study, states=["complete"]))
    store.add_front(study, members=members, hypervolume=hypervolume, trials_done=done, tokens=tokens)


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of the test's own: a copy of one with the studies that the test asks for, else an empty one."""
    for fixture, made in (("study", "small_store"), ("wide_study", "wide_store")):
        if fixture in request.fixturenames:
            shutil.copyfile(request.getfixturevalue(made), tmp_path / "nas.db")
    with Store.open(str(tmp_path / "nas.db"), create=True) as opened:
        yield opened


@pytest.fixture
def study(store: Store) -> StoredStudy:
    """See `make_small`."""
    return store.study("small")


@pytest.fixture
def wide_study(store: Store) -> StoredStudy:
    """See `make_wide`."""
    return store.study("wide")


# Each is made once: a study is hundreds of transactions, and each waits for the disk.
@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _made(tmp_path_factory.mktemp("small") / "nas.db", make_small)


@pytest.fixture(scope="session")
def wide_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _made(tmp_path_factory.mktemp("wide") / "nas.db", make_wide)


def _made(path: Path, fill: Callable[[Store], None]) -> Path:
    with Store.open(str(path), create=True) as store:
        fill(store)
    return path


def make_small(store: Store) -> None:
    """Five complete trials, three of them on the front, and one in each other state."""
    made = store.add_study("small", resolved=RESOLVED, objectives=[QUALITY, MEMORY])
    store.add_environment(
        made,
        Environment(versions={"torch": "2.13.0", "python": "3.11"}, device="CPU, 2 cores", git_commit="abc123+changes"),
    )
    shapes = [(64, "FW", 2.9, 2**18), (96, "FFW", 2.6, 1.5 * 2**19), (128, "FFFF", 2.4, 2**21), (96, "WW", 3.1, 2**19)]
    for number, (width, mixers, quality, size) in enumerate([*shapes, (128, "WFFF", 2.7, 2**21)]):
        drawn = candidate(width, mixers, rate=1e-3 * (number + 1))
        trial = store.add_trial(made, drawn, seed=7, known={MEMORY.name: size}, reason="suggested by nsga2")
        store.add_memory(trial, [memory(int(size)), memory(int(size) + 4096, device="CPU")])
        finish(store, trial, {QUALITY.name: quality})
        members = [[0], [0, 1], [0, 1, 2]][min(number, 2)]
        front_of(made, store, members, 0.2 + 0.1 * min(number, 2), 150_000 * (number + 1))
    failed = store.add_trial(made, candidate(64, "WF"), seed=7, known={MEMORY.name: 2**18}, reason="suggested by nsga2")
    store.record_result(failed, Result(measurements=(measurement(5.0, step=50),), tokens=50_000), step=50)
    store.fail(failed, Failure(kind="diverged", reason="the loss is <nan> at step 60"))
    store.add_trial(made, candidate(64, "FF"), seed=7, known={MEMORY.name: 2**19}, reason="suggested by nsga2")
    paused = store.add_trial(made, candidate(96, "FF"), seed=7, known={MEMORY.name: 2**19}, reason="suggested by nsga2")
    store.pause(paused, "behind the front at step 50")
    store.add_infeasible(
        made, candidate(128, "FFFFFF"), seed=7, known={MEMORY.name: 2**23}, reason="serve_bytes <= 4 MiB (it is 8 MiB)"
    )
    store.count_duplicate(made)


def make_wide(store: Store) -> None:
    """Four objectives: two measured, two known; no two members dominate each other."""
    made = store.add_study("wide", resolved={"trials": 3}, objectives=[QUALITY, ACCURACY, MEMORY, CONTEXT])
    rows = [(64, 2.9, 0.45, 2**18, 256), (96, 2.6, 0.40, 2**19, 256), (128, 2.7, 0.5, 2**20, 512)]
    for width, quality, accuracy, size, context in rows:
        known = {MEMORY.name: size, CONTEXT.name: context}
        trial = store.add_trial(made, candidate(width, context=context), seed=7, known=known, reason="r")
        finish(store, trial, {QUALITY.name: quality, ACCURACY.name: accuracy}, context=context)
    front_of(made, store, [0, 1, 2], 0.3, 450_000)
