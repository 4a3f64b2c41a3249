"""Sources and targets as each family reads them; metrics of what is generated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.errors import DataError
from nas.records import TaskReference
from nas.tasks import IGNORED, Task, load_task
from nas.tasks.text_metrics import answer_scores, translation_scores

DOCUMENT, START, END, SEPARATOR = 256, 257, 258, 259
PAIRS = [{"source": f"source {n} " + "s" * (n % 30), "target": f"target {n} " + "t" * (n % 17)} for n in range(300)]
QUESTIONS = [
    {"question": f"q{n}?", "context": f"context {n} " + "c" * (n % 40), "answers": [f"{n}"] if n % 4 else []}
    for n in range(300)
]


def load(path: Path, name: str, rows: list[dict[str, Any]], **options: Any) -> Task:
    path.write_text("\n".join(map(json.dumps, rows)))
    return load_task(TaskReference(name=name, options=tuple(sorted({"data": str(path), **options}.items()))))


def text(tokens: list[int]) -> str:
    return bytes(token for token in tokens if token < 256).decode()


@pytest.mark.parametrize("form", ["causal", "prefix", "seq2seq"])
def test_a_target_is_said_behind_its_source(tmp_path: Path, form: str) -> None:
    task = load(tmp_path / "a.jsonl", "translation", PAIRS, form=form, evaluation_examples=30)
    target_of = {row["source"]: row["target"] for row in PAIRS}
    batches = [task.training_batch(seed=0, step=step, tokens=1000, max_context=128) for step in range(6)]
    batches += list(task.evaluation_batches("test", context=128, tokens_per_batch=600))
    for batch in batches:
        inputs = batch.inputs
        for row in range(len(batch.inputs_BL)):
            size = batch.inputs_BL.shape[1] if inputs.lengths_B is None else int(inputs.lengths_B[row])
            read, said = batch.inputs_BL[row, :size].tolist(), batch.targets_BL[row].tolist()
            assert all(target == IGNORED for target in said[size:])
            start = read.index(START)
            if form == "seq2seq":
                assert start == 0 and inputs.source_BS is not None
                lengths_B = inputs.source_lengths_B
                source = inputs.source_BS[row, : None if lengths_B is None else int(lengths_B[row])].tolist()
            else:
                source = read[:start]
                assert all(target == IGNORED for target in said[:start])
            assert source[0] == DOCUMENT
            # Teacher forcing: what is said at a place is read at the next one.
            assert said[start:size] == [*read[start + 1 :], END]
            assert target_of[text(source)] == text(said[start:size])
            if form == "prefix":
                assert inputs.prefix_B is not None and inputs.positions_BL2 is not None
                assert int(inputs.prefix_B[row]) == start
                places = inputs.positions_BL2[row, :size].tolist()
                assert places == [[min(at, start - 1), max(at - start + 1, 0)] for at in range(size)]


@pytest.mark.parametrize("form", ["causal", "prefix", "seq2seq"])
def test_questions_are_the_sources_and_have_room_for_the_answers(tmp_path: Path, form: str) -> None:
    task = load(tmp_path / "a.jsonl", "question_answering", QUESTIONS, form=form, evaluation_examples=40)
    contexts = {f"{row['question']}": row for row in QUESTIONS}
    seen = 0
    for questions in task.questions("validation", context=100, tokens_per_batch=800):
        assert questions.stop_tokens == {END} and questions.most_tokens >= 8
        for row, example in enumerate(questions.example_B):
            assert example >= 0
            inputs = questions.inputs
            read_BL, lengths_B = (
                (inputs.source_BS, inputs.source_lengths_B)
                if form == "seq2seq"
                else (inputs.tokens_BL, inputs.lengths_B)
            )
            assert read_BL is not None
            tokens = read_BL[row, : None if lengths_B is None else int(lengths_B[row])].tolist()
            assert inputs.tokens_BL[row, 0 if form == "seq2seq" else len(tokens) - 1] == START
            cut = tokens.index(SEPARATOR)
            asked = contexts[text(tokens[:cut])]
            assert text(tokens[cut:]) == asked["context"]
            seen += 1
    assert seen == len(task._held_out("validation"))  # type: ignore[attr-defined]
    assert all(
        example < 0 for q in task.questions("test", context=100, tokens_per_batch=800) for example in q.example_B
    )


def test_right_answers_score_all_and_silence_nothing(tmp_path: Path) -> None:
    task = load(tmp_path / "a.jsonl", "question_answering", QUESTIONS, evaluation_examples=40)
    for split, silent in (("validation", False), ("test", False), ("validation", True)):
        metrics = task.metrics()
        for batch in task.evaluation_batches(split, context=100, tokens_per_batch=800):
            kept = batch.targets_BL[batch.targets_BL != IGNORED]
            metrics.update(torch.zeros(len(kept), task.shape.vocabulary), kept)
        references = task._references(split)  # type: ignore[attr-defined]
        for questions in task.questions(split, context=100, tokens_per_batch=800):
            for example in questions.example_B:
                metrics.answer(example, [] if silent else [*task.tokenizer.encode(references[example][0])])
        found = metrics.compute()
        unanswerable = sum(right == [""] for right in references.values()) / len(references)
        assert found["exact_match"] == pytest.approx(unanswerable if silent else 1.0)
        assert found["answer_f1"] == pytest.approx(unanswerable if silent else 1.0)


def test_the_scores_are_those_of_their_definitions() -> None:
    # Case, punctuation and articles do not count; the best of several right answers does.
    found = answer_scores(["The Cat!", "a dog ran", "", "x"], [["cat"], ["the dog", "dog"], [""], [""]])
    assert found["exact_match"] == pytest.approx(2 / 4)
    assert found["answer_f1"] == pytest.approx((1 + 2 / 3 + 1 + 0) / 4)
    same = translation_scores(["the cat sat on the mat"], [["the cat sat on the mat"]])
    assert same == {"chrf": pytest.approx(100), "bleu": pytest.approx(100)}
    other = translation_scores(["qqqq"], [["the cat sat on the mat"]])
    assert other["chrf"] == other["bleu"] == 0


def test_copying_and_the_most_frequent_answer_are_the_baselines(tmp_path: Path) -> None:
    rows = [{"source": f"same {n}", "target": f"same {n}"} for n in range(200)]
    assert load(tmp_path / "a.jsonl", "translation", rows).baseline("test")["chrf"] == pytest.approx(100)
    answers = [
        {"question": "q", "context": f"yes or no {n}", "answers": ["yes" if n % 3 else "no"]} for n in range(300)
    ]
    task = load(tmp_path / "b.jsonl", "question_answering", answers)
    references = task._references("test")  # type: ignore[attr-defined]
    share = sum(right == ["yes"] for right in references.values()) / len(references)
    assert share > 0.5 and task.baseline("test")["exact_match"] == pytest.approx(share)


@pytest.mark.parametrize("how", ["truncate", "head_tail"])
def test_what_does_not_fit_is_cut_and_counted(tmp_path: Path, how: str) -> None:
    rows = [{"source": f"{n:03}" + "a" * 50 + "z" * 50, "target": "t" * 5} for n in range(200)]
    task = load(tmp_path / "a.jsonl", "translation", rows, too_long=how)
    (batch, *_) = task.evaluation_batches("validation", context=40, tokens_per_batch=40)
    source = text(batch.inputs_BL[0].tolist()).split("t")[0]
    # 40 tokens less <document>, <start> and the target.
    assert len(source) == 33
    assert source.endswith("a" * 10 if how == "truncate" else "z" * 16)
    assert task.known_scores("validation", context=40)["cut_share"] == pytest.approx(70 / 109)
    assert task.known_scores("validation", context=200)["cut_share"] == 0


@pytest.mark.parametrize("form", ["causal", "prefix", "seq2seq"])
@pytest.mark.parametrize("context", [8, 9, 16, 33])
def test_a_context_that_a_source_fills_leaves_room_to_say_nothing(tmp_path: Path, form: str, context: int) -> None:
    rows = [{"question": f"what {n}?", "context": f"{n} " + "c" * 50, "answers": []} for n in range(100)]
    task = load(tmp_path / "a.jsonl", "question_answering", rows, form=form, evaluation_examples=9)
    for questions in task.questions("validation", context=context, tokens_per_batch=100):
        inputs = questions.inputs
        assert inputs.tokens_BL.shape[1] + questions.most_tokens <= context
        assert inputs.source_BS is None or inputs.source_BS.shape[1] <= context


def test_an_answer_that_is_not_in_its_context_is_named(tmp_path: Path) -> None:
    rows = [*QUESTIONS[:20], {"question": "q", "context": "nothing here", "answers": ["something"]}]
    with pytest.raises(DataError, match=r"a.jsonl, row 21: the answer 'something' does not stand in its context"):
        load(tmp_path / "a.jsonl", "question_answering", rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "cuasal"}, "unknown form 'cuasal': did you mean 'causal'"),
        ({"too_long": "window"}, "unknown too_long 'window'"),
        ({"contexts": [64, 4]}, "at least 8 tokens, for a source and a target, not 4: nearest 8"),
        ({"columns": {"text": "a"}}, "'text', which the task does not have"),
    ],
)
def test_broken_options_are_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path / "a.jsonl", "translation", PAIRS, **options)
