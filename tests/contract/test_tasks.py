"""What every task keeps, whatever its data; a task of one's own can be added to CASES."""

import math
import random

import pytest
import torch

from nas import catalog
from nas.errors import DataError
from nas.records import TaskReference
from nas.specs import task_spec
from nas.tasks import IGNORED, Task, load_task
from nas.tasks.load import _load

CASES = {
    "language_modeling": {"evaluation_bytes": 512},
    "recall": {"vocabulary": 32, "length": 96, "pairs": 6, "evaluation_examples": 20},
}
CONTEXTS = [16, 40, 64, 96, 150]
SPLITS = ["validation", "test"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_text("".join(random.Random(0).choices("etaoin shrdlu\n", k=12_000)))
    return path


@pytest.fixture(params=CASES)
def reference(request, corpus) -> TaskReference:
    options = dict(CASES[request.param])
    if "corpus" in task_spec(request.param).keys:
        options["corpus"] = str(corpus)
    return TaskReference(name=request.param, options=tuple(sorted(options.items())))


@pytest.fixture
def task(reference) -> Task:
    return load_task(reference)


def test_every_task_of_the_catalog_is_covered():
    assert set(CASES) == set(catalog.TASKS)


def test_the_shape_is_that_of_the_specification(task):
    assert task.shape.head == task.spec.head
    assert task.shape.vocabulary >= 2
    assert task.data_version


def test_a_training_batch_is_a_pure_function_of_its_arguments(task, reference):
    arguments = {"seed": 3, "step": 5, "tokens": 512, "max_context": 128}
    first = task.training_batch(**arguments)
    for step in range(3):
        task.training_batch(**{**arguments, "step": step})
    _load.cache_clear()
    again = load_task(reference).training_batch(**arguments)
    assert torch.equal(first.inputs_BL, again.inputs_BL)
    assert torch.equal(first.targets_BL, again.targets_BL)


def test_steps_and_seeds_have_batches_of_their_own(task):
    drawn = [
        task.training_batch(seed=seed, step=step, tokens=512, max_context=64).inputs_BL
        for seed in (0, 1)
        for step in range(4)
    ]
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


def test_a_training_batch_has_the_tokens_and_the_length_that_were_announced(task):
    for max_context in CONTEXTS:
        for step in range(6):
            batch = task.training_batch(seed=1, step=step, tokens=1000, max_context=max_context)
            length = task.step_length(seed=1, step=step, max_context=max_context)
            assert length <= max_context
            assert batch.inputs_BL.shape == (1000 // length, length)


def test_tokens_and_targets_are_in_the_vocabulary(task):
    batches = [task.training_batch(seed=0, step=0, tokens=512, max_context=64)]
    batches += [batch for split in SPLITS for batch in task.evaluation_batches(split, context=64, tokens_per_batch=512)]
    for batch in batches:
        assert batch.inputs_BL.dtype == batch.targets_BL.dtype == torch.int64
        assert 0 <= int(batch.inputs_BL.min()) <= int(batch.inputs_BL.max()) < task.shape.vocabulary
        targets = batch.targets_BL[batch.targets_BL != IGNORED]
        assert len(targets)
        assert 0 <= int(targets.min()) <= int(targets.max()) < task.shape.vocabulary


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_targets_are_scored_for_every_context_and_batch_size(task, split):
    def scored(context: int, tokens_per_batch: int) -> list[int]:
        batches = task.evaluation_batches(split, context=context, tokens_per_batch=tokens_per_batch)
        return sorted(t for batch in batches for t in batch.targets_BL.flatten().tolist() if t != IGNORED)

    expected = scored(64, 1024)
    assert expected
    for context in CONTEXTS:
        assert scored(context, 300) == scored(context, 10_000) == expected


def test_evaluation_batches_keep_to_the_context_and_the_size(task):
    for context in CONTEXTS:
        for batch in task.evaluation_batches("validation", context=context, tokens_per_batch=400):
            assert batch.inputs_BL.shape[1] <= context
            assert batch.tokens <= 400


@pytest.mark.parametrize("split", SPLITS)
def test_metrics_and_baseline_are_those_of_the_specification_and_finite(task, split):
    metrics = task.metrics()
    for batch in task.evaluation_batches(split, context=64, tokens_per_batch=1024):
        metrics.update(torch.zeros(batch.tokens, task.shape.vocabulary), batch.targets_BL.flatten())
    found, baseline = metrics.compute(), task.baseline(split)
    assert set(found) == set(baseline) == set(task.spec.metrics)
    assert all(math.isfinite(value) for value in [*found.values(), *baseline.values()])
    for name, spec in task.spec.metrics.items():
        # Even guessing over the vocabulary is no better than the baseline, which is no better than best.
        sign = 1 if spec.direction == "minimize" else -1
        assert sign * spec.best <= sign * baseline[name] <= sign * found[name]


def test_the_loss_is_the_mean_over_scored_positions(task):
    torch.manual_seed(0)
    logits = torch.randn(6, task.shape.vocabulary, requires_grad=True)
    targets = torch.tensor([1, IGNORED, 2, 3, IGNORED, 0])
    scored = targets != IGNORED
    loss = task.loss(logits, targets)
    expected = -logits.log_softmax(1)[scored, targets[scored]].mean()
    assert torch.allclose(loss, expected)
    loss.backward()
    assert not logits.grad[~scored].any()
    assert task.loss(logits, torch.full((6,), IGNORED)).item() == 0.0


def test_a_step_too_small_for_one_sequence_is_refused(task):
    with pytest.raises(DataError, match="20 tokens are less than 64; nearest: 64 tokens per step"):
        task.training_batch(seed=0, step=0, tokens=20, max_context=64)
    with pytest.raises(DataError, match="max_context must be at least 1 token, not 0"):
        task.check(tokens=20, max_context=0)
