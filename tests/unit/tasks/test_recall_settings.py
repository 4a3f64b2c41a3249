"""Several sizes of recall examples: the published lists, fixed sets in epochs, and the score of each size."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import one_hot

from nas.errors import DataError
from nas.records import TaskReference
from nas.specs import task_spec
from nas.specs.tasks import RecallSetting
from nas.tasks import IGNORED, load_task
from nas.tasks.recall import Recall, _draw_different
from nas.tasks.recall_settings import turn

SPEC = task_spec("recall")
FIXED = {"vocabulary": 32, "train_settings": [[16, 2, 30], [32, 4, 20]], "evaluation_examples": 10}
FRESH = {"vocabulary": 32, "train_settings": [[16, 2], [32, 4], [32, 8]], "evaluation_examples": 10}


def recall(**options) -> Recall:
    task = load_task(TaskReference(name="recall", options=tuple(sorted(options.items()))))
    assert isinstance(task, Recall)
    return task


def rows_of(task: Recall, steps: range, *, seed: int = 0, tokens: int = 64, max_context: int = 64) -> dict:
    """The training examples by length, in the order of the steps."""
    rows: dict[int, list[tuple[int, ...]]] = {}
    for step in steps:
        batch = task.training_batch(seed=seed, step=step, tokens=tokens, max_context=max_context)
        rows.setdefault(batch.inputs_BL.shape[1], []).extend(map(tuple, batch.inputs_BL.tolist()))
    return rows


def check_example(row: list[int], labels: list[int], pairs: int, vocabulary: int) -> None:
    keys, values = row[0 : 2 * pairs : 2], row[1 : 2 * pairs : 2]
    assert len(set(keys)) == len(set(values)) == pairs
    assert all(1 <= key < vocabulary // 2 for key in keys)
    assert all(vocabulary // 2 <= value < vocabulary for value in values)
    answers = dict(zip(keys, values, strict=True))
    asked = {at: label for at, label in enumerate(labels) if label != IGNORED}
    assert len(asked) == pairs and sorted(row[at] for at in asked) == sorted(keys)
    assert all(at >= 2 * pairs and answers[row[at]] == label for at, label in asked.items())


def test_the_published_settings_are_those_of_the_papers():
    based = SPEC.complete({"variant": "based"})
    assert based == {
        "vocabulary": 8192,
        "filler": "zero",
        "train_settings": [
            [64, 4, 100_000],
            *([length, pairs, 20_000] for length, pairs in ((128, 8), (256, 16), (256, 32), (256, 64))),
        ],
        "test_settings": [[64, 4], [64, 8], [64, 16], [128, 32], [256, 64], [512, 128], [1024, 256]],
        "evaluation_examples": 1000,
    }
    zoology = SPEC.complete({"variant": "zoology", "vocabulary": 512})
    sizes = [[64, 4], [128, 8], [256, 16], [512, 64]]
    assert zoology["test_settings"] == sizes
    assert zoology["train_settings"] == [[*size, 100_000] for size in sizes]
    assert zoology["evaluation_examples"] == 3000 and zoology["vocabulary"] == 512
    for options in (based, zoology):
        assert SPEC.complete(options) == options and not list(SPEC.broken_rules(options))
        names = {f"recall_accuracy_{length}x{pairs}" for length, pairs in options["test_settings"]}
        assert set(SPEC.measured(options)) == {"recall_accuracy", "recall_loss"} | names
        assert names <= set(SPEC.metrics)


def test_one_size_has_the_options_and_the_data_that_it_always_had():
    assert SPEC.complete({}) == {
        "vocabulary": 128,
        "length": 128,
        "pairs": 8,
        "filler": "zero",
        "evaluation_examples": 256,
    }
    assert recall().data_version == "82511de82acc3135"


def test_what_is_trained_on_is_tested_on_where_nothing_else_is_said():
    options = SPEC.complete(FIXED)
    assert options["test_settings"] == [[16, 2], [32, 4]]
    assert "length" not in options and "pairs" not in options
    alone = SPEC.measured({"train_settings": [[16, 2, 30], [32, 4, 20]], "test_settings": [[32, 4]]})
    assert set(alone) == {"recall_accuracy", "recall_loss"}


def test_every_example_of_a_fixed_set_is_seen_once_in_an_epoch():
    # 30 examples of 16 tokens and 20 of 32: steps of 64 tokens take 4 of the one or 2 of the other.
    task = recall(**FIXED)
    rows = rows_of(task, range(70))
    for length, size in ((16, 30), (32, 20)):
        epochs = [rows[length][at : at + size] for at in range(0, len(rows[length]) - size + 1, size)]
        assert len(epochs) >= 3
        assert all(len(set(epoch)) == size and set(epoch) == set(epochs[0]) for epoch in epochs)
        assert epochs[0] != epochs[1]


def test_another_seed_sees_the_same_set_in_another_order():
    task = recall(**FIXED)
    one, other = rows_of(task, range(70)), rows_of(task, range(70), seed=1)
    for length in (16, 32):
        assert set(one[length]) == set(other[length]) and one[length] != other[length]


def test_fresh_examples_come_once():
    task = recall(**FRESH)
    rows = rows_of(task, range(90))
    assert all(len(set(found)) == len(found) for found in rows.values())
    steps = Counter(turn(task._train, seed=0, step=step, max_context=64)[0] for step in range(90))
    assert steps == {0: 30, 1: 30, 2: 30}


@pytest.mark.parametrize("max_context", [16, 64])
def test_the_examples_of_all_settings_are_seen_equally_often(max_context):
    found = [RecallSetting(16, 2, 30), RecallSetting(32, 4, 20), RecallSetting(64, 4, 10)]
    sizes = np.array([min(max_context, setting.length) * setting.examples for setting in found])
    round_ = int(sizes.sum() // math.gcd(*sizes.tolist()))
    turns = [turn(found, seed=3, step=step, max_context=max_context) for step in range(5 * round_)]
    for start in range(0, len(turns), round_):
        steps = Counter(place for place, _ in turns[start : start + round_])
        assert [steps[place] / round_ for place in range(3)] == pytest.approx(sizes / sizes.sum())
    # Each turn of a setting is the next one of it.
    for place in range(3):
        assert [before for chosen, before in turns if chosen == place] == list(
            range(5 * round_ * sizes[place] // sizes.sum())
        )
    assert turns != [turn(found, seed=4, step=step, max_context=max_context) for step in range(5 * round_)]


def test_a_round_of_awkward_sizes_is_short_and_nearly_right():
    found = [RecallSetting(64, 4, 99_991), RecallSetting(128, 8, 1_009), RecallSetting(256, 8, 10_007)]
    turns = [turn(found, seed=0, step=step, max_context=256) for step in range(2000)]
    shares = np.bincount([place for place, _ in turns], minlength=3) / 2000
    sizes = np.array([64 * 99_991, 128 * 1_009, 256 * 10_007])
    assert np.all(np.abs(shares - sizes / sizes.sum()) < 0.01)


def test_the_examples_of_every_setting_follow_the_specification():
    task = recall(**{**FIXED, "test_settings": [[24, 6], [64, 12]]})
    pairs = {16: 2, 32: 4, 24: 6, 64: 12}
    batches = [task.training_batch(seed=0, step=step, tokens=64, max_context=64) for step in range(10)]
    batches += task.evaluation_batches("test", context=64, tokens_per_batch=500)
    seen = set()
    for batch in batches:
        length = batch.inputs_BL.shape[1]
        seen.add(length)
        for row, labels in zip(batch.inputs_BL.tolist(), batch.targets_BL.tolist(), strict=True):
            check_example(row, labels, pairs[length], 32)
    assert seen == set(pairs)


def test_the_examples_of_every_setting_are_drawn_by_themselves():
    task = recall(vocabulary=64, train_settings=[[16, 4, 40], [32, 4, 40]], evaluation_examples=40)
    trained = rows_of(task, range(100))
    held_out: dict[int, list] = {16: [], 32: []}
    for batch in task.evaluation_batches("test", context=32, tokens_per_batch=400):
        held_out[batch.inputs_BL.shape[1]] += batch.inputs_BL.tolist()
    for rows in (trained, held_out):
        pairs = [{tuple(row[:8]) for row in rows[length]} for length in (16, 32)]
        assert len(pairs[0]) == len(pairs[1]) == 40 and not pairs[0] & pairs[1]


@given(st.integers(1, 300), st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_drawn_quickly_is_different(choices, data):
    count = data.draw(st.integers(1, choices))
    drawn = _draw_different(np.random.default_rng(data.draw(st.integers(0, 99))), choices, 7, count)
    assert drawn.shape == (7, count) and 0 <= drawn.min() <= drawn.max() < choices
    assert all(len(set(row)) == count for row in drawn.tolist())


def test_what_is_drawn_quickly_is_drawn_evenly():
    drawn = _draw_different(np.random.default_rng(0), 6, 60_000, 3)
    orders = Counter(map(tuple, drawn.tolist()))
    assert len(orders) == 120
    assert all(abs(count - 500) < 5 * math.sqrt(500) for count in orders.values())


def test_each_setting_has_a_score_and_all_of_them_count_the_same():
    task = recall(**{**FIXED, "test_settings": [[16, 2], [32, 8]]})
    metrics = task.metrics()
    for batch in task.evaluation_batches("validation", context=64, tokens_per_batch=100):
        knows_B = batch.example_B < 10
        assert knows_B.all() or not knows_B.any()
        targets_N = batch.targets_BL.flatten()
        said_N = targets_N.clamp(min=0) if knows_B.all() else torch.zeros_like(targets_N)
        example_N = batch.example_B.repeat_interleave(batch.targets_BL.shape[1])
        metrics.update(one_hot(said_N, 32) * 50.0, targets_N, example_N)
    assert metrics.scored == 10 * 2 + 10 * 8
    assert metrics.compute() == pytest.approx(
        {
            "recall_accuracy": 0.5,
            "recall_loss": 25.0,
            "recall_accuracy_16x2": 1.0,
            "recall_accuracy_32x8": 0.0,
        },
        abs=1e-5,
    )
    assert task.baseline("test") == pytest.approx(
        {
            "recall_accuracy": (1 / 2 + 1 / 8) / 2,
            "recall_loss": math.log(16) / 2,
            "recall_accuracy_16x2": 1 / 2,
            "recall_accuracy_32x8": 1 / 8,
        }
    )


def test_the_numbers_of_examples_tell_which_example_a_window_is_of():
    task = recall(**FIXED)
    whole = {}
    for batch in task.evaluation_batches("test", context=64, tokens_per_batch=100):
        for number, row in zip(batch.example_B.tolist(), batch.inputs_BL.tolist(), strict=True):
            assert number not in whole
            whole[number] = row
    assert set(whole) == set(range(20))
    assert [len(whole[number]) for number in range(20)] == [16] * 10 + [32] * 10
    for batch in task.evaluation_batches("test", context=8, tokens_per_batch=100):
        for number, row in zip(batch.example_B.tolist(), batch.inputs_BL.tolist(), strict=True):
            example = whole[number]
            assert any(example[at : at + 8] == row for at in range(len(example) - 7))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "basd"}, "unknown variant 'basd': did you mean 'based'"),
        ({"variant": "based", "pairs": 3}, "variant and pairs exclude each other: give one"),
        ({"variant": "based", "test_settings": [[64, 4]]}, "variant and test_settings exclude each other"),
        ({"train_settings": [[64, 4]], "length": 64}, "train_settings and length exclude each other: give one"),
        ({"test_settings": [[64, 4]]}, "test_settings needs train_settings, what is trained on"),
        (
            {"train_settings": []},
            r"train_settings must hold at least one \[length, pairs\] or \[length, pairs, examples\]",
        ),
        ({"train_settings": [[64]]}, r"holds \[length, pairs\] or .* in whole numbers from 1 on, not \[64\]"),
        ({"train_settings": [[64, 0]]}, r"in whole numbers from 1 on, not \[64, 0\]"),
        ({"train_settings": [[64, True]]}, r"in whole numbers from 1 on, not \[64, True\]"),
        ({"train_settings": [64, 4]}, r"in whole numbers from 1 on, not 64"),
        ({"train_settings": [[64, 4, 10], [64, 8]]}, "must give the examples of every setting or of none"),
        ({"train_settings": [[64, 4, 10], [64, 4, 20]]}, r"train_settings must hold \[64, 4\] once"),
        (
            {"train_settings": [[64, 4]], "test_settings": [[64, 4, 9]]},
            r"test_settings holds \[length, pairs\] in whole numbers from 1 on, not \[64, 4, 9\]",
        ),
        (
            {"train_settings": [[64, 4], [62, 16]]},
            r"train_settings \[62, 16\]: length must be at least 4 x pairs = 64, not 62: nearest 64",
        ),
        (
            {"variant": "based", "vocabulary": 128},
            r"train_settings \[256, 64\]: pairs must be at most vocabulary / 2 - 1 = 63, .* nearest vocabulary 130",
        ),
    ],
)
def test_options_that_break_a_rule_are_refused(options, message):
    with pytest.raises(DataError, match=message):
        recall(**options)


def test_a_small_fixed_set_is_a_part_of_the_step_all_the_same():
    task = recall(vocabulary=32, train_settings=[[16, 2, 3]], evaluation_examples=5)
    batch = task.training_batch(seed=0, step=0, tokens=128, max_context=16)
    counts = Counter(map(tuple, batch.inputs_BL.tolist()))
    assert sorted(counts.values()) == [2, 3, 3]


def test_the_published_sets_hold_examples_of_every_setting():
    task = recall(variant="based", evaluation_examples=1)
    lengths = set()
    for step in range(38):
        batch = task.training_batch(seed=0, step=step, tokens=4096, max_context=1024)
        lengths.add(batch.inputs_BL.shape[1])
        row, labels = batch.inputs_BL[0].tolist(), batch.targets_BL[0].tolist()
        check_example(row, labels, sum(label != IGNORED for label in labels), 8192)
    assert lengths == {64, 128, 256}
