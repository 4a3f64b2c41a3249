"""What every task keeps, whatever its data and options; a task of one's own can be added to CASES."""

import json
import math
import random
from dataclasses import fields

import pytest
import torch

from nas import catalog
from nas.errors import DataError
from nas.records import TaskReference
from nas.specs import family_spec, task_spec
from nas.tasks import IGNORED, Batch, Task, load_task
from nas.tasks.load import _load

BPE = {"kind": "bpe", "vocabulary": 300}
CASES = {
    "causal": ("language_modeling", {"evaluation_bytes": 512}),
    "causal_bpe": ("language_modeling", {"evaluation_bytes": 512, "tokenizer": BPE}),
    "masked": ("language_modeling", {"evaluation_bytes": 512, "objective": "masked"}),
    "infilling": ("language_modeling", {"evaluation_bytes": 512, "objective": "infilling"}),
    "prefix": ("language_modeling", {"evaluation_bytes": 512, "objective": "prefix"}),
    "span_corruption": ("language_modeling", {"evaluation_bytes": 512, "objective": "span_corruption"}),
    "classification": ("classification", {"evaluation_examples": 40}),
    "classification_ends": ("classification", {"evaluation_examples": 40, "too_long": "head_tail"}),
    "classification_bpe": ("classification", {"evaluation_examples": 40, "tokenizer": BPE}),
    "multi_label": ("classification", {"evaluation_examples": 40, "multi_label": True}),
    "said_causal": ("classification", {"evaluation_examples": 40, "form": "causal", "too_long": "head_tail"}),
    "said_prefix": ("classification", {"evaluation_examples": 40, "form": "prefix", "multi_label": True}),
    "said_seq2seq": ("classification", {"evaluation_examples": 40, "form": "seq2seq", "tokenizer": BPE}),
    "translation": ("translation", {"evaluation_examples": 10}),
    "translation_prefix": ("translation", {"evaluation_examples": 10, "form": "prefix"}),
    "translation_seq2seq": ("translation", {"evaluation_examples": 10, "form": "seq2seq"}),
    "translation_bpe": ("translation", {"evaluation_examples": 10, "form": "seq2seq", "tokenizer": BPE}),
    "answers": ("question_answering", {"evaluation_examples": 10}),
    "answers_seq2seq": ("question_answering", {"evaluation_examples": 10, "form": "seq2seq"}),
    "spans": ("question_answering", {"evaluation_examples": 40, "form": "span"}),
    "spans_window": ("question_answering", {"evaluation_examples": 40, "form": "span", "too_long": "window"}),
    "spans_bpe": ("question_answering", {"evaluation_examples": 40, "form": "span", "tokenizer": BPE}),
    "recall": ("recall", {"vocabulary": 32, "length": 96, "pairs": 6, "evaluation_examples": 20}),
    "recall_settings": (
        "recall",
        {
            "vocabulary": 32,
            "train_settings": [[32, 4, 300], [64, 6, 200]],
            "test_settings": [[64, 4], [64, 8], [128, 8]],
            "evaluation_examples": 10,
        },
    ),
    "ruler": ("ruler", {"kind": "niah_multikey", "length": 64, "evaluation_examples": 20}),
    "ruler_kinds": (
        "ruler",
        {
            "kinds": ["niah_single", "niah_multiquery", "variable_tracking"],
            "length": 96,
            "value_tokens": 2,
            "evaluation_examples": 20,
        },
    ),
    "mad": ("mad", {"length": 96, "training_examples": 300, "evaluation_examples": 20}),
    "mad_fresh": ("mad", {"length": 96, "training_examples": 0, "evaluation_examples": 20}),
    "mad_fuzzy": ("mad", {"kind": "fuzzy_recall", "length": 96, "training_examples": 99, "evaluation_examples": 20}),
    "mad_noisy": ("mad", {"kind": "noisy_recall", "length": 96, "training_examples": 99, "evaluation_examples": 20}),
    "mad_copying": (
        "mad",
        {"kind": "selective_copying", "length": 96, "training_examples": 99, "evaluation_examples": 20},
    ),
    "mad_compression": ("mad", {"kind": "compression", "evaluation_examples": 20}),
    "mad_memorization": ("mad", {"kind": "memorization", "length": 96, "evaluation_examples": 20}),
    "listops": ("listops", {"shortest": 20, "longest": 100, "training_examples": 400, "evaluation_examples": 40}),
    "listops_fresh": ("listops", {"shortest": 20, "longest": 100, "training_examples": 0, "evaluation_examples": 40}),
    "listops_ends": (
        "listops",
        {
            "shortest": 20,
            "longest": 100,
            "training_examples": 400,
            "evaluation_examples": 40,
            "too_long": "head_tail",
        },
    ),
}
CONTEXTS = [32, 40, 64, 96, 150]
SPLITS = ["validation", "test"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_text("".join(random.Random(0).choices("etaoin shrdlu\n", k=12_000)))
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "table.jsonl"
    chosen = random.Random(0)
    labels = [chosen.choice("aab") for _ in range(600)]
    rows = [
        {
            "text": "".join(chosen.choices("etaoin" if label == "a" else "shrdlu", k=chosen.randint(3, 120))),
            "label": label,
            "labels": [label, *chosen.sample("xyz", k=chosen.randint(0, 2))],
            "source": (source := "".join(chosen.choices("abcdefghij", k=chosen.randint(6, 9)))),
            "target": source.upper(),
            "question": chosen.choice("?!"),
            "context": "so " + source,
            "answers": [source] if chosen.random() < 0.8 else [],
        }
        for label in labels
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(params=CASES)
def reference(request, corpus, table) -> TaskReference:
    name, given = CASES[request.param]
    options = dict(given)
    if "corpus" in task_spec(name).keys:
        options["corpus"] = str(corpus)
    if "data" in task_spec(name).keys:
        options["data"] = str(table)
    return TaskReference(name=name, options=tuple(sorted(options.items())))


def outputs(task: Task) -> int:
    """Of a model that serves the task."""
    return task.shape.labels or task.shape.vocabulary


def scored(task: Task, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Even logits, targets and examples as metrics take them."""
    if task.scores_sequences:
        return torch.zeros(*batch.inputs_BL.shape, 2), batch.targets_BL, batch.example_B
    targets_N, example_N = flat(batch)
    return torch.zeros(len(targets_N), outputs(task)), targets_N, example_N


def flat(batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Targets and examples of single positions."""
    targets_BL, example_N = batch.targets_BL, batch.example_B
    if targets_BL.ndim == 1 or targets_BL.shape[1] != batch.inputs_BL.shape[1]:
        return targets_BL, example_N
    if example_N is not None:
        example_N = example_N.repeat_interleave(targets_BL.shape[1])
    return targets_BL.flatten(), example_N


@pytest.fixture
def options(reference) -> dict:
    return task_spec(reference.name).complete(dict(reference.options))


@pytest.fixture
def task(reference) -> Task:
    return load_task(reference)


def test_every_task_of_the_catalog_is_covered():
    assert {name for name, _ in CASES.values()} == set(catalog.TASKS)


def test_the_shape_is_that_of_the_specification(task, options):
    assert task.shape.head == task.spec.head_for(options)
    for family in task.spec.families_for(options):
        assert task.shape.head in family_spec(family).heads
    assert task.shape.vocabulary >= 2
    assert task.data_version


def test_a_training_batch_is_a_pure_function_of_its_arguments(task, reference):
    arguments = {"seed": 3, "step": 5, "tokens": 512, "max_context": 128}
    first = task.training_batch(**arguments)
    for step in range(3):
        task.training_batch(**{**arguments, "step": step})
    _load.cache_clear()
    again = load_task(reference).training_batch(**arguments)
    assert torch.equal(first.targets_BL, again.targets_BL)
    for field in fields(first.inputs):
        one, other = getattr(first.inputs, field.name), getattr(again.inputs, field.name)
        assert one is other is None or torch.equal(one, other)


def test_steps_and_seeds_have_batches_of_their_own(task):
    batches = [
        task.training_batch(seed=seed, step=step, tokens=512, max_context=64) for seed in (0, 1) for step in range(4)
    ]
    # Where a source is read, what is read besides may be always the same.
    drawn = [batch.inputs_BL if (source_BS := batch.inputs.source_BS) is None else source_BS for batch in batches]
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


def test_a_training_batch_has_the_tokens_and_the_length_that_were_announced(task):
    for max_context in CONTEXTS:
        for step in range(6):
            batch = task.training_batch(seed=1, step=step, tokens=1000, max_context=max_context)
            length = task.step_length(seed=1, step=step, max_context=max_context)
            shape = task.step_shape(seed=1, step=step, tokens=1000, max_context=max_context)
            assert max(shape.length, shape.source_length) <= length <= max_context
            assert batch.inputs_BL.shape == (shape.sequences, shape.length)
            source_BS = batch.inputs.source_BS
            assert (0 if source_BS is None else source_BS.shape[1]) == shape.source_length
            assert 1000 - shape.tokens_of_one < batch.tokens == shape.tokens <= 1000


def test_tokens_and_targets_are_in_the_vocabulary(task):
    batches = [task.training_batch(seed=0, step=0, tokens=512, max_context=64)]
    batches += [batch for split in SPLITS for batch in task.evaluation_batches(split, context=64, tokens_per_batch=512)]
    for batch in batches:
        assert batch.inputs_BL.dtype == batch.targets_BL.dtype == torch.int64
        for tokens in (batch.inputs.tokens_BL, batch.inputs.source_BS):
            assert tokens is None or 0 <= int(tokens.min()) <= int(tokens.max()) < task.shape.vocabulary
        targets = batch.targets_BL[batch.targets_BL != IGNORED]
        assert len(targets)
        assert 0 <= int(targets.min()) <= int(targets.max()) < outputs(task)


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_targets_are_scored_for_every_context_and_batch_size(task, split):
    first_mark = task.shape.vocabulary if task.tokenizer is None else task.tokenizer.document

    def scored(context: int, tokens_per_batch: int) -> list[int]:
        batches = task.evaluation_batches(split, context=context, tokens_per_batch=tokens_per_batch)
        targets = (target for batch in batches for target in batch.targets_BL.flatten().tolist() if target != IGNORED)
        # Which sentinel ends a span depends on how many come before it: all are one here.
        return sorted(min(target, first_mark) for target in targets)

    expected = scored(64, 1024)
    assert expected
    for context in CONTEXTS:
        assert scored(context, 300) == scored(context, 10_000) == expected


def test_evaluation_batches_keep_to_the_context_and_the_size(task):
    for context in CONTEXTS:
        for batch in task.evaluation_batches("validation", context=context, tokens_per_batch=400):
            source_BS = batch.inputs.source_BS
            assert max(batch.inputs_BL.shape[1], 0 if source_BS is None else source_BS.shape[1]) <= context
            assert batch.tokens <= 400


def test_questions_leave_room_for_their_answers_and_keep_to_the_size(task):
    for context in CONTEXTS:
        numbers = []
        for questions in task.questions("validation", context=context, tokens_per_batch=400):
            tokens_BL, lengths_B = questions.inputs.tokens_BL, questions.inputs.lengths_B
            assert questions.most_tokens >= 1 and tokens_BL.shape[1] + questions.most_tokens <= context
            assert len(tokens_BL) == len(questions.example_B)
            assert len(tokens_BL) == 1 or tokens_BL.numel() <= 400
            assert 0 <= int(tokens_BL.min()) <= int(tokens_BL.max()) < task.shape.vocabulary
            assert lengths_B is None or 1 <= int(lengths_B.min()) <= int(lengths_B.max()) == tokens_BL.shape[1]
            numbers += questions.example_B
        assert len(set(numbers)) == len(numbers)


def test_what_stands_in_the_padding_is_never_scored(task):
    for context in CONTEXTS:
        for batch in task.evaluation_batches("validation", context=context, tokens_per_batch=2000):
            lengths_B = batch.inputs.lengths_B
            if lengths_B is not None and batch.targets_BL.shape[:2] == batch.inputs_BL.shape:
                is_padding_BL = torch.arange(batch.inputs_BL.shape[1]) >= lengths_B[:, None]
                assert (batch.targets_BL[is_padding_BL] == IGNORED).all()
                assert int(lengths_B.min()) >= 1


@pytest.mark.parametrize("split", SPLITS)
def test_metrics_and_baseline_are_those_of_the_specification_and_finite(task, split, options):
    metrics, specs = task.metrics(), task.spec.metrics_for(options)
    for batch in task.evaluation_batches(split, context=64, tokens_per_batch=1024):
        metrics.update(*scored(task, batch))
    for questions in task.questions(split, context=64, tokens_per_batch=1024):
        for example in questions.example_B:
            metrics.answer(example, [])
    found, baseline = {**metrics.compute(), **task.known_scores(split, context=64)}, task.baseline(split)
    assert set(found) == set(baseline) == set(specs) <= set(task.spec.metrics)
    assert all(math.isfinite(value) for value in [*found.values(), *baseline.values()])
    for name, spec in specs.items():
        # Even guessing over the vocabulary is no better than the baseline, which is no better than best.
        sign = 1 if spec.direction == "minimize" else -1
        # Both are the same sum of logarithms in some tasks, rounded in another order.
        assert sign * spec.best <= sign * baseline[name] <= sign * found[name] + 1e-6


def test_the_loss_is_the_mean_over_scored_positions(task):
    if task.labels is not None or task.scores_sequences:
        pytest.skip("a loss of its own, or of few labels")
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
    longest = task.longest_sequence(64)
    few = min(20, longest - 1)
    message = f"{few} tokens are less than {longest}; nearest: {longest} tokens per step"
    with pytest.raises(DataError, match=message):
        task.training_batch(seed=0, step=0, tokens=few, max_context=64)
    task.check(tokens=longest, max_context=64)
    with pytest.raises(DataError, match="max_context must be at least 1 token, not 0"):
        task.check(tokens=20, max_context=0)


def test_a_batch_moves_to_another_device_whole(task):
    batch = task.training_batch(seed=0, step=0, tokens=512, max_context=64)
    moved = batch.to("meta")
    assert moved.targets_BL.device.type == "meta"
    for field in fields(batch.inputs):
        one, other = getattr(batch.inputs, field.name), getattr(moved.inputs, field.name)
        assert one is other is None or (one.shape == other.shape and other.device.type == "meta")
