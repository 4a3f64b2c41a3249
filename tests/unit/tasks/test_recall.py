import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import DataError
from nas.records import TaskReference
from nas.tasks import IGNORED, Task, load_task
from nas.tasks.recall import mqar


@st.composite
def shapes(draw):
    pairs = draw(st.integers(1, 12))
    return {
        "pairs": pairs,
        "length": 4 * pairs + 2 * draw(st.integers(0, 20)),
        "vocab_size": 2 * (pairs + 1) + 2 * draw(st.integers(0, 40)),
        "examples": draw(st.integers(1, 5)),
        "seed": draw(st.integers(-5, 2**40)),
        "filler": draw(st.sampled_from(["zero", "random"])),
    }


def recall(**options) -> Task:
    return load_task(TaskReference(name="recall", options=tuple(sorted(options.items()))))


@given(shapes())
@settings(max_examples=60, deadline=None)
def test_examples_follow_the_specification(shape):
    inputs, labels = mqar(**shape)
    pairs, length, half = shape["pairs"], shape["length"], shape["vocab_size"] // 2
    assert inputs.shape == labels.shape == (shape["examples"], length)
    assert inputs.dtype == labels.dtype == torch.int64
    for row, label in zip(inputs.tolist(), labels.tolist(), strict=True):
        keys, values = row[0 : 2 * pairs : 2], row[1 : 2 * pairs : 2]
        assert len(set(keys)) == pairs
        assert all(1 <= key < half for key in keys)
        assert len(set(values)) == pairs
        assert all(half <= value < 2 * half for value in values)
        queries = [at for at, target in enumerate(label) if target != IGNORED]
        assert all(at >= 2 * pairs and at % 2 == 0 for at in queries)
        assert sorted(row[at] for at in queries) == sorted(keys)
        answer = dict(zip(keys, values, strict=True))
        assert all(label[at] == answer[row[at]] for at in queries)
        others = [row[at] for at in range(2 * pairs, length) if at not in queries]
        assert all(0 <= token < 2 * half for token in others)
        if shape["filler"] == "zero":
            assert not any(others)


@given(shapes())
@settings(max_examples=20, deadline=None)
def test_equal_seeds_give_equal_examples(shape):
    first, second = mqar(**shape), mqar(**shape)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_different_seeds_give_different_examples():
    kind = {"vocab_size": 128, "length": 64, "pairs": 8, "examples": 4}
    drawn = [mqar(**kind, seed=seed)[0] for seed in (-1, 0, 1, 2**32, 2**32 + 1)]
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


def test_the_slots_of_a_single_query_follow_the_power_law():
    examples, slots = 20_000, 16
    _, labels = mqar(vocab_size=8, length=2 + 2 * slots, pairs=1, examples=examples, seed=3)
    positions = (labels != IGNORED).nonzero()[:, 1].numpy()
    found = np.bincount((positions - 2) // 2, minlength=slots) / examples
    law = 0.01 * np.arange(1, slots + 1) ** (0.01 - 1.0)
    law /= law.sum()
    assert np.all(np.abs(found - law) < 5 * np.sqrt(law / examples))


def test_the_first_of_several_pairs_has_the_law_and_the_next_what_is_left():
    examples = 20_000
    inputs, labels = mqar(vocab_size=64, length=12, pairs=2, examples=examples, seed=4)
    slot = [((inputs[:, 4::2] == inputs[:, [key]]) & (labels[:, 4::2] != IGNORED)).float().argmax(1) for key in (0, 2)]
    law = np.arange(1, 5) ** (0.01 - 1.0)
    law /= law.sum()
    second = [sum(law[j] * law[i] / (1 - law[j]) for j in range(4) if j != i) for i in range(4)]
    for found, expected in zip(slot, (law, np.array(second)), strict=True):
        share = np.bincount(found.numpy(), minlength=4) / examples
        assert np.all(np.abs(share - expected) < 5 * np.sqrt(expected / examples))


def test_keys_and_values_are_drawn_evenly():
    inputs, _ = mqar(vocab_size=16, length=8, pairs=2, examples=14_000, seed=5)
    keys = np.bincount(inputs[:, 0].numpy(), minlength=16)[1:8] / 14_000
    values = np.bincount(inputs[:, 1].numpy(), minlength=16)[8:] / 14_000
    assert np.all(np.abs(keys - 1 / 7) < 5 * math.sqrt(1 / 7 / 14_000))
    assert np.all(np.abs(values - 1 / 8) < 5 * math.sqrt(1 / 8 / 14_000))


def test_examples_drawn_in_several_portions_keep_the_specification(monkeypatch):
    monkeypatch.setattr("nas.tasks.recall.MOST_DRAWS", 100)
    inputs, labels = mqar(vocab_size=64, length=32, pairs=4, examples=11, seed=0)
    assert inputs.shape == (11, 32)
    assert ((labels != IGNORED).sum(1) == 4).all()
    assert len({tuple(row) for row in inputs.tolist()}) == 11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 30}, "length must be at least 4 x pairs = 32, not 30: nearest 32"),
        ({"length": 33}, "length must be even, not 33: nearest 34"),
        ({"vocab_size": 127}, "vocabulary must be even, not 127: nearest 128"),
        ({"vocab_size": 16}, "at most vocabulary / 2 - 1 = 7, not 8: nearest vocabulary 18"),
        ({"pairs": 0}, "pairs must be at least 1, not 0"),
        ({"examples": 0}, "examples must be at least 1, not 0"),
        ({"filler": "zeros"}, "unknown filler 'zeros': did you mean 'zero'"),
    ],
)
def test_a_broken_rule_names_the_nearest_valid_value(change, message):
    with pytest.raises(DataError, match=message):
        mqar(**{"vocab_size": 128, "length": 64, "pairs": 8, "examples": 2, "seed": 0, **change})


def test_the_smallest_valid_shape_is_accepted():
    inputs, labels = mqar(vocab_size=4, length=4, pairs=1, examples=3, seed=0)
    assert inputs[:, 2].tolist() == [1, 1, 1]
    assert torch.equal(labels[:, 2], inputs[:, 1])


def test_held_out_examples_share_none_with_training():
    task = recall(vocabulary=64, length=64, pairs=8, evaluation_examples=64)
    seen = set()
    for seed in (0, 1):
        for step in range(20):
            seen |= {
                tuple(row)
                for row in task.training_batch(seed=seed, step=step, tokens=512, max_context=64).inputs_BL.tolist()
            }
    held_out = {}
    for split in ("validation", "test"):
        batches = task.evaluation_batches(split, context=64, tokens_per_batch=1024)
        held_out[split] = {tuple(row) for batch in batches for row in batch.inputs_BL.tolist()}
        assert len(held_out[split]) == 64
    assert not seen & (held_out["validation"] | held_out["test"])
    assert not held_out["validation"] & held_out["test"]


@pytest.mark.parametrize("context", [1, 5, 16, 63, 64, 100, 1000])
def test_every_query_is_scored_once_whatever_the_context(context):
    task = recall(vocabulary=64, length=64, pairs=8, evaluation_examples=10)
    whole = next(iter(task.evaluation_batches("validation", context=64, tokens_per_batch=10_000)))
    expected = sorted(zip(whole.inputs_BL.flatten().tolist(), whole.targets_BL.flatten().tolist(), strict=True))
    found = []
    for batch in task.evaluation_batches("validation", context=context, tokens_per_batch=300):
        assert batch.inputs_BL.shape[1] <= min(context, 64)
        found += zip(batch.inputs_BL.flatten().tolist(), batch.targets_BL.flatten().tolist(), strict=True)
    scored = sorted(pair for pair in found if pair[1] != IGNORED)
    assert scored == [pair for pair in expected if pair[1] != IGNORED]
    assert len(scored) == 80


def test_every_training_window_of_a_short_context_holds_a_query():
    task = recall(vocabulary=64, length=256, pairs=4)
    batch = task.training_batch(seed=0, step=0, tokens=4096, max_context=16)
    assert batch.inputs_BL.shape == (256, 16)
    assert (batch.targets_BL != IGNORED).any(1).all()


def test_a_context_as_long_as_the_example_sees_it_whole():
    task = recall(length=64, pairs=8)
    batch = task.training_batch(seed=0, step=0, tokens=640, max_context=1000)
    assert batch.inputs_BL.shape == (10, 64)
    assert ((batch.targets_BL != IGNORED).sum(1) == 8).all()


def test_a_reader_of_the_whole_example_is_perfect_and_a_guesser_is_at_the_baseline():
    task = recall(vocabulary=64, length=64, pairs=8, evaluation_examples=400)
    perfect, guess = task.metrics(), task.metrics()
    for batch in task.evaluation_batches("validation", context=64, tokens_per_batch=4096):
        targets = batch.targets_BL.flatten()
        perfect.update(torch.nn.functional.one_hot(targets.clamp(min=0), 64) * 100.0, targets)
        values = torch.nn.functional.one_hot(batch.inputs_BL[:, 1:16:2], 64).sum(1)
        noise = torch.rand(values.shape, generator=torch.Generator().manual_seed(0)) * 1e-3
        guess.update((values * 100.0 + noise).repeat_interleave(64, 0), targets)
    assert perfect.compute() == pytest.approx({"recall_accuracy": 1.0, "recall_loss": 0.0}, abs=1e-6)
    baseline = task.baseline("validation")
    assert baseline == {"recall_accuracy": 1 / 8, "recall_loss": math.log(8)}
    assert guess.compute()["recall_loss"] == pytest.approx(baseline["recall_loss"], abs=1e-3)
    assert guess.compute()["recall_accuracy"] == pytest.approx(baseline["recall_accuracy"], abs=0.03)


def test_the_data_version_knows_every_option():
    versions = {recall(**options).data_version for options in ({}, {"pairs": 4}, {"length": 64}, {"filler": "random"})}
    assert len(versions) == 4
