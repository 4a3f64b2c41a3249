"""Questions whose answers are pointed at, from records to scores."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.errors import DataError
from nas.records import Split, TaskReference
from nas.specs import task_spec
from nas.tasks import IGNORED, Task, load_task
from nas.tasks.base import Batch
from nas.tasks.extractive import SpanQuestions
from nas.tasks.extractive.reading import ENDS, PLACE, STARTS

ROWS = [
    {
        "question": f"q{n}?",
        "context": f"filler naïve 水 {'x' * (n % 40)} the {n} and {n + 1}. {'y' * (n % 23)}",
        "answers": [f"{n}", f"{n + 1}"] if n % 4 else [],
    }
    for n in range(400)
]
ANSWERED = [row for row in ROWS if row["answers"]]


def load(path: Path, rows: list[dict[str, Any]], **options: Any) -> SpanQuestions:
    path.write_text("\n".join(map(json.dumps, rows)))
    given = {"data": str(path), "form": "span", "evaluation_examples": 40, **options}
    task: Task = load_task(TaskReference(name="question_answering", options=tuple(sorted(given.items()))))
    assert isinstance(task, SpanQuestions)
    return task


def pointing(batch: Batch) -> Tensor:
    """The logits of one who knows what is to be said."""
    return 20.0 * (batch.targets_BL[..., :PLACE] == 1)


def scores(task: SpanQuestions, split: Split, context: int, logits: Any = pointing) -> dict[str, float]:
    metrics = task.metrics()
    for batch in task.evaluation_batches(split, context=context, tokens_per_batch=500):
        metrics.update(logits(batch), batch.targets_BL, batch.example_B)
    return metrics.compute()


def spelt(task: SpanQuestions, batch: Batch, row: int) -> str:
    """The text of the span that is to be said."""
    said_L3 = batch.targets_BL[row]
    starts, ends = (int((said_L3[:, what] == 1).nonzero()) for what in (STARTS, ENDS))
    return task.tokenizer.decode(batch.inputs_BL[row, starts:ends].tolist()).strip()


@pytest.mark.parametrize("tokenizer", ["byte", {"kind": "bpe", "vocabulary": 500}])
def test_the_first_answer_is_what_is_said_of_a_question(tmp_path: Path, tokenizer: Any) -> None:
    if tokenizer != "byte":
        pytest.importorskip("tokenizers")
    rows = [{**row, "answers": row["answers"][:1]} for row in ROWS]
    task = load(tmp_path / "a.jsonl", rows, tokenizer=tokenizer)
    first_of = {row["question"]: (row["answers"] or [""])[0] for row in rows}
    batches = [task.training_batch(seed=0, step=step, tokens=1000, max_context=128) for step in range(6)]
    batches += list(task.evaluation_batches("test", context=128, tokens_per_batch=600))
    seen = set()
    for batch in batches:
        for row in range(len(batch.inputs_BL)):
            tokens = batch.inputs_BL[row].tolist()
            question = task.tokenizer.decode(tokens[1 : tokens.index(task.tokenizer.special("<separator>"))])
            assert spelt(task, batch, row) == first_of[question]
            seen.add(first_of[question] == "")
    assert seen == {True, False}


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("too_long", ["truncate", "head_tail", "window"])
def test_who_points_right_has_every_answer_that_is_in_reach(tmp_path: Path, split: Split, too_long: str) -> None:
    task = load(tmp_path / "a.jsonl", ROWS, too_long=too_long)
    for context in (128, 40):
        found, known = scores(task, split, context), task.known_scores(split, context=context)
        numbers = task._held_out(split).tolist()
        answered = [number for number in numbers if task._parts[split].span(number)[0] >= 0]
        share = 1 - len(answered) / len(numbers) * (1 - known["answer_in_reach"])
        assert found["exact_match"] == pytest.approx(share)
        assert (known["answer_in_reach"] == 1.0) == (context == 128 or too_long == "window")
        assert (known["cut_share"] == 0.0) == (context == 128 or too_long == "window")
        assert found["span_loss"] < 1e-3


def test_nothing_is_the_answer_where_nothing_is_better(tmp_path: Path) -> None:
    task = load(tmp_path / "a.jsonl", ROWS)
    numbers = task._held_out("test").tolist()
    none = sum(task._parts["test"].right(number) == [""] for number in numbers) / len(numbers)
    assert 0 < none < 0.5

    def empty(batch: Batch) -> Tensor:
        logits_BL2 = torch.randn(*batch.inputs_BL.shape, 2)
        is_last_BL = batch.inputs_BL == task.tokenizer.special("<end>")
        return logits_BL2 + 50.0 * is_last_BL[..., None]

    found = scores(task, "test", 128, empty)
    assert found["exact_match"] == found["answer_f1"] == pytest.approx(none)


def test_where_every_question_has_an_answer_nothing_is_none(tmp_path: Path) -> None:
    assert not load(tmp_path / "a.jsonl", ROWS).spans.always_answered
    task = load(tmp_path / "b.jsonl", ANSWERED, too_long="window")
    assert task.spans.always_answered and task.spans.most_tokens == 3

    def modest(batch: Batch) -> Tensor:
        """Points right, but believes in no answer even more."""
        is_last_BL = batch.inputs_BL == task.tokenizer.special("<end>")
        return pointing(batch) * ~is_last_BL[..., None] + 50.0 * is_last_BL[..., None]

    assert scores(task, "validation", 40, modest)["exact_match"] == 1.0


def test_every_right_answer_counts_and_the_best_of_them(tmp_path: Path) -> None:
    task = load(tmp_path / "a.jsonl", ANSWERED)

    def second(batch: Batch) -> Tensor:
        """Points at the second answer: what stands behind "and "."""
        logits_BL2 = torch.zeros(*batch.inputs_BL.shape, 2)
        for row, tokens in enumerate(batch.inputs_BL.tolist()):
            text = bytes(token if token < 256 else 0 for token in tokens)
            at = text.index(b" and ") + 5
            logits_BL2[row, at, STARTS] = logits_BL2[row, text.index(b".", at), ENDS] = 20.0
        return logits_BL2

    def everything(batch: Batch) -> Tensor:
        """Points from the first answer to the end of the second, longer than any answer of the training part."""
        logits_BL2 = second(batch)
        starts_BL = torch.zeros_like(logits_BL2[..., STARTS])
        is_first_BL = batch.targets_BL[..., STARTS] == 1
        return torch.stack([starts_BL + 20.0 * is_first_BL, logits_BL2[..., ENDS]], dim=2)

    assert scores(task, "validation", 128, second)["exact_match"] == 1.0
    # No such span is looked for.
    assert task.spans.most_tokens == 3
    assert scores(task, "validation", 128, everything)["answer_f1"] < 1.0


def test_a_window_that_knows_more_wins_over_one_that_is_louder(tmp_path: Path) -> None:
    task = load(tmp_path / "a.jsonl", ROWS, too_long="window")

    def loud(batch: Batch) -> Tensor:
        """Right; and every window has a constant of its own, which no softmax sees."""
        return pointing(batch) + 100.0 * torch.randn(len(batch.inputs_BL), 1, 2)

    assert scores(task, "validation", 40, loud)["exact_match"] == 1.0


def test_the_baselines_are_the_most_frequent_answer_and_ends_anywhere(tmp_path: Path) -> None:
    rows = [{"question": "q", "context": "yes or no", "answers": ["yes" if n % 3 else "no"]} for n in range(300)]
    rows = [{**row, "context": f"{row['context']} {n:03}"} for n, row in enumerate(rows)]
    task = load(tmp_path / "a.jsonl", rows)
    right = [task._parts["test"].right(number) for number in task._held_out("test").tolist()]
    share = sum(answers == ["yes"] for answers in right) / len(right)
    found = task.baseline("test")
    assert share > 0.5 and found["exact_match"] == found["answer_f1"] == pytest.approx(share)
    assert found["span_loss"] == pytest.approx(math.log(13 + 1))
    assert (found["cut_share"], found["answer_in_reach"]) == (0.0, 1.0)


def test_an_answer_stands_where_its_column_or_squads_own_layout_says(tmp_path: Path) -> None:
    rows = [
        {"question": f"q{n}", "context": f"cat {n} naïve cat {n}", "answers": [f"cat {n}"], "answer_start": None}
        for n in range(200)
    ]
    plain = load(tmp_path / "a.jsonl", rows)
    column = load(tmp_path / "b.jsonl", [{**row, "answer_start": len(f"cat {n} naïve ")} for n, row in enumerate(rows)])
    squad = [
        {**row, "answers": {"text": row["answers"], "answer_start": [len(f"cat {n} naïve ")]}}
        for n, row in enumerate(rows)
    ]
    for row in squad:
        del row["answer_start"]
    nested = load(tmp_path / "c.jsonl", squad)
    for task, behind in ((plain, False), (column, True), (nested, True)):
        train = task._parts["train"]
        # Between two equal halves lie 7 characters, which are 8 bytes.
        expected = [size // 2 + 4 if behind else 0 for size in train.context_N.tolist()]
        assert train.span_N2[:, 0].tolist() == expected
    rows[5]["answer_start"] = 3
    with pytest.raises(DataError, match=r"d.jsonl, row 6: .*the answer 'cat 5' does not stand at 3: it does at 0"):
        load(tmp_path / "d.jsonl", rows)


def test_a_cell_of_a_table_may_be_left_out(tmp_path: Path) -> None:
    lines = [f"q{n},it is {n} and {n},{n},{'' if n % 2 else 6}" for n in range(100)]
    (tmp_path / "a.csv").write_text("\n".join(["question,context,answers,answer_start", *lines]))
    task = load_task(
        TaskReference(name="question_answering", options=(("data", str(tmp_path / "a.csv")), ("form", "span")))
    )
    assert isinstance(task, SpanQuestions)
    assert (task._parts["train"].span_N2[:, 0] == 6).all()


def test_a_context_is_kept_once_however_many_questions_are_about_it(tmp_path: Path) -> None:
    rows = [
        {
            "question": f"number {n % 5}",
            "context": f"page {n // 5} says {n // 5}{n % 5}",
            "answers": [f"{n // 5}{n % 5}"],
        }
        for n in range(1000)
    ]
    rows = [{**row, "context": " ".join(f"{n // 5}{k}" for k in range(5))} for n, row in enumerate(rows)]
    task = load(tmp_path / "a.jsonl", rows)
    for part in task._parts.values():
        assert len(part._context) * 5 == len(part.context_N)
    assert scores(task, "validation", 128)["exact_match"] == 1.0


def test_answers_that_no_tokens_fit_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    rows = [
        {"question": "q", "context": f"running running running {n}", "answers": ["unn" if n < 30 else "running"]}
        for n in range(300)
    ]
    options = {"tokenizer": {"kind": "bpe", "vocabulary": 300}}
    with pytest.warns(
        UserWarning, match=r"30 of 300 answers do not begin and end where tokens do, the first in .*row 1"
    ):
        task = load(tmp_path / "a.jsonl", rows, **options)
    # Blanks before a word are no part of the answer, and no reason to count it.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(tmp_path / "b.jsonl", [{**row, "answers": ["running"]} for row in rows], **options)
    assert (task._parts["train"].span_N2 == [0, 1]).all()


def test_a_part_without_an_answer_teaches_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no question of the training part of .* has an answer"):
        load(tmp_path / "a.jsonl", [{**row, "answers": []} for row in ROWS])
    with pytest.raises(DataError, match=r"b.jsonl, row 401: the answer 'something' does not stand in its context"):
        load(tmp_path / "b.jsonl", [*ROWS, {"question": "q", "context": "nothing here", "answers": ["something"]}])


def test_padding_is_never_said_and_examples_of_the_test_part_are_negative(tmp_path: Path) -> None:
    task = load(tmp_path / "a.jsonl", ROWS)
    for split, sign in (("validation", 1), ("test", -1)):
        for batch in task.evaluation_batches(split, context=60, tokens_per_batch=700):
            assert batch.example_B is not None and (batch.example_B.sign() * sign >= 0).all()
            lengths_B = batch.inputs.lengths_B
            if lengths_B is not None:
                assert (
                    batch.targets_BL[torch.arange(batch.targets_BL.shape[1]) >= lengths_B[:, None]] == IGNORED
                ).all()


def test_the_form_decides_families_head_metrics_and_cuts() -> None:
    spec = task_spec("question_answering")
    given = {"data": "a.jsonl"}
    assert spec.objective_for("encoder", given) == {**given, "form": "span"}
    for family, form in (("decoder", "causal"), ("prefix_lm", "prefix"), ("encoder_decoder", "seq2seq")):
        assert spec.objective_for(family, given)["form"] == form
        assert "span_loss" not in spec.metrics_for(spec.complete({**given, "form": form}))
    span = spec.complete({**given, "form": "span"})
    assert spec.families_for(span) == {"encoder", "decoder"} and spec.head_for(span) == "span"
    assert span["evaluation_examples"] == 2_000 and spec.complete(given)["evaluation_examples"] == 200
    assert set(spec.metrics_for(span)) == {"exact_match", "answer_f1", "span_loss", "answer_in_reach", "cut_share"}
    assert not list(spec.broken_rules({**span, "too_long": "window"}))
    (broken,) = spec.broken_rules({**given, "form": "causal", "too_long": "window"})
    assert "unknown too_long 'window'" in broken.text
    (broken,) = spec.broken_rules({**given, "form": "spam"})
    assert "unknown form 'spam': did you mean 'span'" in broken.text
    (broken,) = task_spec("translation").broken_rules({**given, "form": "span"})
    assert "unknown form 'span'" in broken.text
