"""Classification: labels, metrics of whole texts, baselines, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.errors import DataError
from nas.records import TaskReference
from nas.tasks import Batch, Task, load_task
from nas.tasks.class_metrics import ClassMetrics

ROWS = [{"text": f"text number {n} " + "x" * (n % 50), "label": "abc"[(n * n) % 3], "n": n} for n in range(400)]


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def load(path: Path, **options: Any) -> Task:
    given = {"data": str(path), **options}
    return load_task(TaskReference(name="classification", options=tuple(sorted(given.items()))))


def by_part(parts: dict[str, list[dict[str, Any]]], path: Path) -> dict[str, Any]:
    rows = [{**row, "part": part} for part, found in parts.items() for row in found]
    table(path, rows)
    return {"split": {"by": "column", "column": "part", "train": "train", "validation": "dev", "test": "test"}}


def test_inputs_are_the_texts_behind_a_mark_and_targets_their_labels(tmp_path: Path) -> None:
    task = load(table(tmp_path / "a.jsonl", ROWS))
    assert task.labels is not None and task.labels.names == ("a", "b")
    assert (task.shape.labels, task.shape.vocabulary, task.shape.head) == (2, 257, "sequence_classification")
    label_of = {row["text"]: row["label"] for row in ROWS}
    held_out = list(task.evaluation_batches("validation", context=100, tokens_per_batch=900))
    training = [task.training_batch(seed=0, step=step, tokens=900, max_context=100) for step in range(10)]
    for batch in [*held_out, *training]:
        lengths_B = batch.inputs.lengths_B
        sizes = [batch.inputs_BL.shape[1]] * len(batch.inputs_BL) if lengths_B is None else lengths_B.tolist()
        for tokens, size, target in zip(batch.inputs_BL.tolist(), sizes, batch.targets_BL.tolist(), strict=True):
            assert tokens[0] == 256
            assert label_of[bytes(tokens[1:size]).decode()] == task.labels.names[target]


@pytest.mark.parametrize("form", ["causal", "prefix", "seq2seq"])
def test_a_label_is_asked_for_behind_the_text_which_is_read_as_for_a_head(tmp_path: Path, form: str) -> None:
    path = table(tmp_path / "a.jsonl", ROWS)
    head, said = load(path), load(path, form=form)
    assert said.labels == head.labels and said.shape.labels is None
    assert said.tokenizer is not None and said.tokenizer.specials == ("<document>", "<start>", "<label_0>", "<label_1>")
    start, room = said.tokenizer.special("<start>"), 30 if form == "seq2seq" else 29
    expected = {
        int(example): row[:size]
        for batch in head.evaluation_batches("test", context=room, tokens_per_batch=500)
        for example, row, size in zip(batch.example_B, batch.inputs_BL.tolist(), sizes(batch), strict=True)
    }
    seen = set()
    for batch in said.evaluation_batches("test", context=30, tokens_per_batch=500):
        read, inputs = batch.inputs.source_BS, batch.inputs
        lengths_B = inputs.lengths_B if read is None else inputs.source_lengths_B
        for row, example in enumerate(batch.example_B.tolist()):
            text = (inputs.tokens_BL if read is None else read)[row].tolist()
            text = text if lengths_B is None else text[: int(lengths_B[row])]
            asked = text.pop() if read is None else int(inputs.tokens_BL[row, 0])
            assert (text, asked) == (expected[example], start)
            if form == "prefix":
                size = len(text)
                assert int(inputs.prefix_B[row]) == size
                assert inputs.positions_BL2[row, size].tolist() == [size - 1, 1]
            seen.add(example)
    assert seen == set(expected)


def sizes(batch: Batch) -> list[int]:
    lengths_B = batch.inputs.lengths_B
    return [batch.inputs_BL.shape[1]] * len(batch.inputs_BL) if lengths_B is None else lengths_B.tolist()


@pytest.mark.parametrize("multi_label", [False, True])
def test_what_is_likely_besides_the_labels_counts_for_nothing(tmp_path: Path, multi_label: bool) -> None:
    rows = [{**row, "labels": [row["label"]]} for row in ROWS]
    path = table(tmp_path / "a.jsonl", rows)
    head, said = (load(path, multi_label=multi_label, **given) for given in ({}, {"form": "causal"}))
    torch.manual_seed(0)
    targets = torch.randint(2, (50, 2)) if multi_label else torch.randint(2, (50,))
    logits_NC = torch.randn(50, 2)
    logits_NV = 9 * torch.randn(50, said.shape.vocabulary)
    logits_NV[:, -2:] = logits_NC
    assert torch.equal(said.loss(logits_NV, targets), head.loss(logits_NC, targets))
    of_head, of_said = head.metrics(), said.metrics()
    of_head.update(logits_NC, targets)
    of_said.update(logits_NV, targets)
    assert of_said.compute() == pytest.approx(of_head.compute(), abs=1e-6)
    assert said.baseline("test") == head.baseline("test")


def test_both_forms_share_their_cache_and_not_their_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path / "a.jsonl", ROWS)
    head = load(path)
    monkeypatch.setattr("nas.tasks.classification._write", lambda *given, **named: pytest.fail("written again"))
    versions = [load(path, form=form).data_version for form in ("causal", "prefix", "seq2seq")]
    assert len({head.data_version, *versions}) == 4


def test_a_text_and_its_label_need_two_tokens(tmp_path: Path) -> None:
    task = load(table(tmp_path / "a.jsonl", ROWS), form="causal")
    with pytest.raises(DataError, match="at least 2 tokens, not 1: nearest 2"):
        task.check(tokens=100, max_context=1)
    assert task.longest_sequence(2) == 2
    load(tmp_path / "a.jsonl", form="seq2seq").check(tokens=100, max_context=1)


def test_metrics_are_those_of_the_mean_of_a_texts_windows() -> None:
    metrics = ClassMetrics(2, multi_label=False)
    # Text 5 is read in two windows, text 7 in one.
    logits = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]).log()
    metrics.update(logits[:2], torch.tensor([0, 1]), torch.tensor([5, 7]))
    metrics.update(logits[2:], torch.tensor([0]), torch.tensor([5]))
    found = metrics.compute()
    # Shares: text 5 (0.6, 0.4), label 0; text 7 (0.2, 0.8), label 1: both right.
    assert found["accuracy"] == 1.0 and found["macro_f1"] == 1.0
    assert found["classification_loss"] == pytest.approx(-(math.log(0.6) + math.log(0.8)) / 2)
    assert found["calibration_error"] == pytest.approx((0.4 + 0.2) / 2)


def test_metrics_of_several_labels() -> None:
    metrics = ClassMetrics(3, multi_label=True)
    shares = torch.tensor([[0.9, 0.2, 0.6], [0.4, 0.7, 0.1]])
    targets = torch.tensor([[1, 0, 1], [1, 1, 0]])
    metrics.update(shares.logit(), targets)
    found = metrics.compute()
    assert found["accuracy"] == 0.5
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 + 1) / 3)
    likelihoods = [0.9, 0.8, 0.6, 0.4, 0.7, 0.9]
    assert found["classification_loss"] == pytest.approx(-sum(map(math.log, likelihoods)) / 6)


def test_the_baseline_knows_how_frequent_the_labels_are(tmp_path: Path) -> None:
    task = load(table(tmp_path / "a.jsonl", ROWS))
    targets = torch.cat(
        [batch.targets_BL for batch in task.evaluation_batches("test", context=10, tokens_per_batch=100)]
    )
    share = targets.double().mean().item()
    most = max(share, 1 - share)
    baseline = task.baseline("test")
    assert baseline["accuracy"] == pytest.approx(most)
    assert baseline["macro_f1"] == pytest.approx((2 * most / (1 + most)) / 2)
    assert baseline["classification_loss"] == pytest.approx(
        -(share * math.log(share) + (1 - share) * math.log(1 - share))
    )


def test_what_is_cut_is_a_metric(tmp_path: Path) -> None:
    task = load(table(tmp_path / "a.jsonl", ROWS))
    lengths = [
        int(batch.inputs.lengths_B[row]) if batch.inputs.lengths_B is not None else batch.inputs_BL.shape[1]
        for batch in task.evaluation_batches("validation", context=1000, tokens_per_batch=1000)
        for row in range(len(batch.inputs_BL))
    ]
    cut = sum(max(length - 30, 0) for length in lengths) / sum(lengths)
    assert task.known_scores("validation", context=30)["cut_share"] == pytest.approx(cut)
    assert cut > 0.1
    assert load(tmp_path / "a.jsonl", too_long="window").known_scores("validation", context=30)["cut_share"] == 0


def test_a_text_that_is_too_long_is_read_in_windows_as_one_example(tmp_path: Path) -> None:
    task = load(table(tmp_path / "a.jsonl", ROWS), too_long="window")
    numbers: dict[int, set[int]] = {}
    for batch in task.evaluation_batches("test", context=20, tokens_per_batch=200):
        assert batch.example_B is not None
        for example, target in zip(batch.example_B.tolist(), batch.targets_BL.tolist(), strict=True):
            numbers.setdefault(example, set()).add(target)
    assert all(len(targets) == 1 for targets in numbers.values())
    whole = sum(len(b.inputs_BL) for b in task.evaluation_batches("test", context=1000, tokens_per_batch=500))
    assert len(numbers) == whole


def test_several_labels_have_a_loss_of_their_own(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "labels": ["xy"[n % 2]] + (["z"] if n % 3 else [])} for n in range(300)]
    task = load(table(tmp_path / "a.jsonl", rows), multi_label=True)
    assert task.labels is not None and task.labels.names == ("x", "y", "z") and task.labels.several
    logits, targets = torch.randn(4, 3), torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 0], [0, 1, 1]])
    shares = logits.sigmoid()
    expected = -torch.where(targets == 1, shares, 1 - shares).log().mean()
    assert torch.allclose(task.loss(logits, targets), expected)


def test_the_data_version_follows_what_is_read(tmp_path: Path) -> None:
    path = table(tmp_path / "a.jsonl", ROWS)
    versions = {load(path).data_version, load(table(tmp_path / "b.jsonl", ROWS)).data_version}
    assert len(versions) == 1
    others = [load(path, too_long="window"), load(path, columns={"text": "n"})]
    assert len(versions | {task.data_version for task in others}) == 3


def test_labels_that_training_never_shows_are_refused_with_their_place(tmp_path: Path) -> None:
    parts = {"train": ROWS[:50], "dev": ROWS[50:60], "test": [*ROWS[60:70], {"text": "odd", "label": "aa", "n": 0}]}
    options = by_part(parts, tmp_path / "a.jsonl")
    with pytest.raises(DataError, match=r"a.jsonl, row 71: the label 'aa' of the test part does not occur .*'a'"):
        load(tmp_path / "a.jsonl", **options)


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": "only"} for n in range(100)]
    with pytest.raises(DataError, match=r"needs at least two labels: the texts of .* have only 'only'"):
        load(table(tmp_path / "a.jsonl", rows))


def test_records_that_stand_in_two_parts_are_said(tmp_path: Path) -> None:
    options = by_part({"train": ROWS[:50], "dev": ROWS[50:60], "test": ROWS[45:55]}, tmp_path / "a.jsonl")
    with pytest.warns(UserWarning, match="5 of 10 records of the test part stand in the training part too"):
        load(tmp_path / "a.jsonl", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"too_long": "cut"}, "unknown too_long 'cut'"),
        ({"columns": {"lable": "x"}}, "did you mean 'label'"),
        ({"tokenizer": "bype"}, "unknown kind of tokenizer 'bype': did you mean"),
        ({"tokenizer": {"kind": "bpe", "vocabulary": 100}}, "from 258 on, not 100"),
        ({"evaluation_examples": 0}, "at least 1"),
        ({"labels": 3}, "takes no 'labels'"),
        ({"form": "text_2_text"}, "unknown form 'text_2_text': did you mean 'text_to_text'"),
        ({"form": "text_to_text", "contexts": [1, 8]}, "at least 2 tokens, for a text and its label, not 1"),
    ],
)
def test_broken_options_are_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(table(tmp_path / "a.jsonl", ROWS), **options)
