"""Every family learns from its own loss, in jobs like any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.cost.estimate import forward_flops, training_flops_per_token
from nas.files import Files
from nas.measure.checkpoints import read_checkpoint
from nas.measure.module import Training
from nas.measure.train import TrainingEvaluator, training_flops
from nas.records import Candidate, Job, Result, Schedule, TaskReference
from nas.space import Architecture
from nas.specs import task_spec
from nas.tasks.base import IGNORED, Batch, Inputs
from nas.tasks.load import load_task

LAYERS = [{"mixer": "full", "heads": 2, "mlp": "swiglu", "mlp_ratio": 2}]
STACKS: dict[str, dict[str, Any]] = {
    "decoder": {"layers": LAYERS},
    "encoder": {"layers": LAYERS},
    "prefix_lm": {"layers": LAYERS},
    "encoder_decoder": {"encoder": {"layers": LAYERS}, "decoder": {"layers": [{**LAYERS[0], "cross_heads": 2}]}},
}
CASES = [
    ("decoder", "causal", "bits_per_byte"),
    ("encoder", "masked", "masked_bits_per_byte"),
    ("prefix_lm", "infilling", "infilling_bits_per_byte"),
    ("prefix_lm", "prefix", "bits_per_byte"),
    ("encoder_decoder", "span_corruption", "span_bits_per_byte"),
]
SCHEDULE = Schedule(tokens_per_step=1024, rung_steps=(1, 20, 60))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("".join(f"{number} times {number} is {number * number}.\n" for number in range(600)))
    return path


def job_for(family: str, objective: str, corpus: Path, *, to_step: int) -> Job:
    options = task_spec("language_modeling").complete(
        {"corpus": str(corpus), "evaluation_bytes": 1024, "objective": objective}
    )
    task = TaskReference(name="language_modeling", options=tuple(sorted(options.items())))
    words = {"family": family, "width": 32, "max_context": 64, **STACKS[family]}
    return Job(
        kind="train",
        candidate=Candidate(Architecture.from_mapping(words).bind(load_task(task).shape), (("learning_rate", 1e-2),)),
        task=task,
        seed=0,
        schedule=SCHEDULE,
        from_step=0,
        to_step=to_step,
        files=str(corpus.parent / "files"),
        folder=objective,
        trainer=(("accelerator", "cpu"),),
    )


def scores(result: Result) -> dict[str, float]:
    assert result.failure is None, result.failure
    return {found.metric: found.value for found in result.measurements}


@pytest.mark.parametrize(("family", "objective", "metric"), CASES)
def test_a_family_learns_more_than_the_baseline_knows(family: str, objective: str, metric: str, corpus: Path) -> None:
    early = scores(TrainingEvaluator().evaluate(job_for(family, objective, corpus, to_step=1)))
    job = job_for(family, objective, corpus, to_step=60)
    late = scores(TrainingEvaluator().evaluate(job))
    task = load_task(job.task)
    assert set(late) == set(task.spec.metrics_for(dict(job.task.options))) == set(task.baseline("validation"))
    assert late[metric] < early[metric] - 1.0
    # Knowing a byte's successors by heart is more than 60 steps teach; knowing frequencies is less.
    if metric != "bits_per_byte":
        assert late[metric] < task.baseline("validation")[metric]


@pytest.mark.parametrize(("family", "objective"), [case[:2] for case in CASES if case[0] != "decoder"])
def test_rungs_equal_the_uninterrupted_training_bit_for_bit(family: str, objective: str, corpus: Path) -> None:
    whole = job_for(family, objective, corpus, to_step=4)
    expected = TrainingEvaluator().evaluate(whole)
    first = TrainingEvaluator().evaluate(replace(whole, to_step=2, folder="rungs"))
    rest = replace(whole, from_step=2, checkpoint=first.checkpoint, folder="rungs")
    found = TrainingEvaluator().evaluate(rest)
    assert found.measurements == expected.measurements
    assert found.checkpoint is not None and expected.checkpoint is not None
    files = Files(whole.files)
    one, other = read_checkpoint(expected.checkpoint, files), read_checkpoint(found.checkpoint, files)
    assert all(torch.equal(one.average[name], other.average[name]) for name in one.average)


def test_a_source_and_a_target_are_counted_at_their_own_lengths(corpus: Path) -> None:
    job = job_for("encoder_decoder", "span_corruption", corpus, to_step=3)
    architecture = job.candidate.architecture
    # 64 tokens of source, as T5 fits them: 71 of text, less 11 that are dropped, and 4 sentinels.
    rows = 1024 // (64 + 16)
    expected = 3 * 3 * rows * forward_flops(architecture, length=16, source_length=64)
    assert training_flops(job, load_task(job.task)) == pytest.approx(expected)


def test_a_sequence_without_padding_is_counted_by_its_tokens(corpus: Path) -> None:
    for family, objective in (("encoder", "masked"), ("prefix_lm", "infilling")):
        job = job_for(family, objective, corpus, to_step=3)
        expected = 3 * 1024 * training_flops_per_token(job.candidate.architecture, 64)
        assert training_flops(job, load_task(job.task)) == pytest.approx(expected)


class Voter(torch.nn.Module):
    """A model that speaks once for a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(4, 8)

    def features(self, inputs: Inputs) -> Tensor:
        return self.table(inputs.tokens_BL).mean(1)

    def head(self, features: Tensor) -> Tensor:
        return features[..., :2]


def test_a_model_may_speak_once_for_a_sequence(corpus: Path) -> None:
    job = job_for("decoder", "causal", corpus, to_step=1)
    model = Voter()
    module = Training(model, load_task(job.task), job, None)
    inputs = Inputs(torch.tensor([[0, 1], [2, 3], [1, 1]]))
    logits_NV, targets_N, _ = module._scored(Batch(inputs, torch.tensor([1, IGNORED, 0])))
    assert targets_N.tolist() == [1, 0]
    assert torch.equal(logits_NV, model.head(model.features(inputs))[[0, 2]])
