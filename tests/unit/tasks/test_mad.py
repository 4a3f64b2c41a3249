"""MAD as a task: settings, training sets, contexts, scores and baselines."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy

from nas.errors import DataError
from nas.specs import family_spec, task_spec
from nas.specs.tasks import MAD_KINDS
from nas.tasks import IGNORED
from nas.tasks.mad import Mad
from nas.tasks.mad.task import MacroAccuracy

SPEC = task_spec("mad")
SMALL = {"length": 48, "training_examples": 40, "evaluation_examples": 30}


def small(kind: str, **changes) -> Mad:
    own = {"copied_tokens": 6} if kind == "selective_copying" else {}
    return Mad({"kind": kind, **SMALL, **own, **changes})


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("in_context_recall", {"vocabulary": 16, "length": 128, "training_examples": 12_800}),
        ("fuzzy_recall", {"vocabulary": 16, "length": 128, "key_tokens": 3, "value_tokens": 3}),
        ("noisy_recall", {"vocabulary": 32, "length": 128, "noise_tokens": 16, "noise_share": 0.2}),
        ("selective_copying", {"vocabulary": 16, "length": 256, "copied_tokens": 16, "training_examples": 12_800}),
        ("compression", {"vocabulary": 16, "length": 32, "training_examples": 12_800}),
        ("memorization", {"vocabulary": 256, "length": 32, "training_examples": 256}),
    ],
)
def test_the_defaults_are_the_published_baseline(kind: str, settings: dict) -> None:
    found = SPEC.complete({"kind": kind})
    assert settings.items() <= found.items()
    assert found["evaluation_examples"] == 1280
    assert not list(SPEC.broken_rules({"kind": kind}))


@pytest.mark.parametrize("kind", MAD_KINDS)
def test_the_families_of_a_kind_have_its_head(kind: str) -> None:
    options = {"kind": kind}
    families = SPEC.families_for(options)
    assert families == ({"decoder", "encoder"} if kind == "compression" else {"decoder"})
    assert all(SPEC.head_for(options) in family_spec(family).heads for family in families)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "noisy_recal"}, "unknown kind 'noisy_recal': did you mean 'noisy_recall'"),
        ({"copied_tokens": 4}, "'copied_tokens' is for selective_copying, not for in_context_recall"),
        ({"length": 33}, "length must be even, not 33: nearest 34"),
        ({"length": 2}, "length must be at least 4, 2 pairs of two tokens, not 2: nearest 4"),
        (
            {"kind": "noisy_recall", "vocabulary": 16},
            "vocabulary must be at least 20, two keys, two values and the noise, not 16: nearest 20",
        ),
        ({"kind": "noisy_recall", "noise_share": 1.0}, "noise_share must be at most 0.99, not 1.0"),
        ({"kind": "fuzzy_recall", "length": 18}, "length must be at least 19, .* nearest 19"),
        ({"kind": "fuzzy_recall", "key_tokens": 8}, "vocabulary must be at least 17, .* not 16: nearest 17"),
        ({"kind": "selective_copying", "length": 33}, "length must be at least 34, .* nearest 34"),
        ({"kind": "memorization", "vocabulary": 4}, "vocabulary must be at least 5, .* nearest 5"),
        ({"training_examples": -1}, "training_examples must be at least 0, not -1"),
    ],
)
def test_what_is_wrong_is_said_with_the_nearest_valid_value(options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Mad(options)


def rows_of(task: Mad, steps: range, *, seed: int = 0, tokens: int = 480) -> list[tuple[int, ...]]:
    batches = [task.training_batch(seed=seed, step=step, tokens=tokens, max_context=48) for step in steps]
    return [tuple(row) for batch in batches for row in batch.inputs_BL.tolist()]


@pytest.mark.parametrize("kind", MAD_KINDS)
def test_a_training_set_is_read_once_before_it_is_read_again(kind: str) -> None:
    task = small(kind)
    first, second = rows_of(task, range(4)), rows_of(task, range(4, 8))
    assert sorted(first) == sorted(second) and first != second
    assert len(set(first)) == 40
    # It is one set for every seed, in another order.
    other = rows_of(task, range(4), seed=1)
    assert sorted(other) == sorted(first) and other != first
    held_out = {tuple(row) for split in ("validation", "test") for row in task.held_out(split)[0].tolist()}
    assert len(held_out) == 60 and not held_out & set(first)


@pytest.mark.parametrize("kind", MAD_KINDS)
def test_fresh_examples_are_never_the_same_again(kind: str) -> None:
    rows = rows_of(small(kind, training_examples=0), range(20))
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("kind", [kind for kind in MAD_KINDS if kind != "compression"])
def test_a_context_too_short_reads_windows_that_each_have_a_target(kind: str) -> None:
    task = small(kind)
    whole = {tuple(row) for row in rows_of(task, range(4))}
    for context in (7, 16, 47):
        batch = task.training_batch(seed=0, step=0, tokens=480, max_context=context)
        assert (batch.targets_BL != IGNORED).any(1).all()
        for row, targets in zip(batch.inputs_BL.tolist(), batch.targets_BL.tolist(), strict=True):
            # A window at the end of an example may be shorter than the others.
            last = max(at for at, target in enumerate(targets) if target != IGNORED)
            text = ",".join(map(str, row[: last + 1]))
            assert any(text in ",".join(map(str, example)) for example in whole)


def test_compression_is_read_whole_or_not_at_all() -> None:
    message = "must be at least length = 32, for compression reads examples whole, not 31: nearest 32"
    task = Mad({"kind": "compression"})
    with pytest.raises(DataError, match="max_context " + message):
        task.check(tokens=1024, max_context=31)
    with pytest.raises(DataError, match="a context " + message):
        next(task.evaluation_batches("test", context=31, tokens_per_batch=1024))
    with pytest.raises(DataError, match="a context " + message):
        Mad({"kind": "compression", "contexts": [64, 31]})
    assert task.curve_contexts(32) == (64,)
    assert Mad({}).curve_contexts(128) == (32, 64, 256)


def test_accuracy_is_the_mean_of_the_accuracies_of_token_kinds() -> None:
    targets = torch.tensor([1, 1, 1, 1, 2, IGNORED, 3, 3])
    said = torch.tensor([1, 1, 1, 0, 2, 4, 2, 3])
    metric = MacroAccuracy(6)
    for part in (slice(0, 3), slice(3, 8)):
        metric.update(torch.nn.functional.one_hot(said[part], 6).float(), targets[part])
    assert float(metric.compute()) == pytest.approx((3 / 4 + 1 + 1 / 2) / 3)


def test_where_only_kinds_are_said_that_are_right_somewhere_it_is_the_authors() -> None:
    torch.manual_seed(0)
    targets, logits = torch.randint(5, (400,)), torch.randn(400, 5)
    metric = MacroAccuracy(9)
    metric.update(torch.cat([logits, torch.full((400, 4), -9.0)], dim=1), targets)
    assert float(metric.compute()) == pytest.approx(float(MulticlassAccuracy(5, average="macro")(logits, targets)))


def shown_to(kind: str, tokens: list[int]) -> list[int]:
    """What the guesser of a kind draws from."""
    if kind == "selective_copying":
        return [token for token in tokens[: tokens.index(15)] if token < 14]
    low, high = {"in_context_recall": (8, 16), "noisy_recall": (8, 16), "fuzzy_recall": (7, 15)}[kind]
    return [token for token in tokens if low <= token < high]


@pytest.mark.parametrize("kind", [kind for kind in MAD_KINDS if kind not in ("compression", "memorization")])
def test_the_baseline_is_what_a_guesser_scores_that_knows_the_example(kind: str) -> None:
    task = small(kind, evaluation_examples=300)
    chosen = random.Random(0)
    asked: dict[int, list[float]] = {}
    nats = []
    inputs_EL, targets_EL = task.held_out("validation")
    for tokens, targets in zip(inputs_EL.tolist(), targets_EL.tolist(), strict=True):
        stock = shown_to(kind, tokens)
        for target in (found for found in targets if found != IGNORED):
            asked.setdefault(target, []).append(np.mean([chosen.choice(stock) == target for _ in range(200)]))
            nats.append(-math.log(stock.count(target) / len(stock)))
    found = task.baseline("validation")
    each = [np.mean(part) for part in asked.values()]
    assert found["mad_accuracy"] == pytest.approx(np.mean(each), abs=0.01)
    assert found["mad_token_accuracy"] == pytest.approx(np.mean([s for part in asked.values() for s in part]), abs=0.01)
    assert found["mad_loss"] == pytest.approx(np.mean(nats))


def test_the_baselines_of_the_other_kinds_are_known() -> None:
    compression = Mad({"kind": "compression"}).baseline("test")
    # The mark is one kind of 16 and one token of 32, and always right.
    assert compression["mad_accuracy"] == pytest.approx((1 + 15 / 15) / 16)
    assert compression["mad_token_accuracy"] == pytest.approx((1 + 31 / 15) / 32)
    assert compression["mad_loss"] == pytest.approx(31 / 32 * math.log(15))
    memorization = Mad({"kind": "memorization"}).baseline("test")
    assert memorization["mad_accuracy"] == pytest.approx(1 / 127)
    assert memorization["mad_loss"] == pytest.approx(math.log(127))


def test_the_version_of_the_data_follows_the_settings_and_not_the_curve() -> None:
    versions = [Mad({"kind": kind}).data_version for kind in MAD_KINDS] + [Mad({"length": 64}).data_version]
    assert len(set(versions)) == len(versions)
    assert Mad({"contexts": [64]}).data_version == Mad({}).data_version
