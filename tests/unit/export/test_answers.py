"""An exported network points at what it pointed at when it was scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nas.errors import InputError
from nas.export.bundle import Bundle, load_bundle, write_bundle
from nas.models.build import build
from nas.records import TaskReference
from nas.space.architecture import Architecture
from nas.tasks import load_task
from nas.tasks.base import Spans
from nas.tasks.extractive import SpanQuestions
from nas.tasks.extractive.metrics import SpanMetrics

ROWS = [
    {
        "question": f"wörter {n % 7}?",
        "context": f"{'filler, ' * (n % 9)}naïve 水 {n} and {n + 1}; {'more ' * (n % 11)}",
        "answers": [f"{n} and"] if n % 5 else [],
    }
    for n in range(200)
]


def asked(folder: Path, family: str, **options: object) -> tuple[SpanQuestions, Bundle]:
    """A task, and a bundle of a network that nobody trained."""
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    given = {"data": str(folder / "a.jsonl"), "form": "span", **options}
    task = load_task(TaskReference(name="question_answering", options=tuple(sorted(given.items()))))
    assert isinstance(task, SpanQuestions)
    layers = [{"mixer": "full", "heads": 2, "short_conv": 3}]
    network = Architecture.from_mapping({"family": family, "width": 16, "max_context": 48, "layers": layers})
    network = network.bind(task.shape)
    weights = build(network, seed=3).state_dict()
    written = write_bundle(
        folder / "out",
        architecture=network,
        weights=weights,
        tokenizer=task.tokenizer,
        spans=task.spans,
        metrics={},
        card="",
    )
    return task, load_bundle(written)


@pytest.mark.parametrize("family", ["decoder", "encoder"])
@pytest.mark.parametrize("too_long", ["truncate", "head_tail", "window"])
def test_a_bundle_answers_as_its_network_was_scored(tmp_path: Path, family: str, too_long: str) -> None:
    task, bundle = asked(tmp_path, family, too_long=too_long)
    assert bundle.spans == task.spans == Spans(task.spans.most_tokens, False, too_long)
    metrics = task.metrics()
    assert isinstance(metrics, SpanMetrics)
    for batch in task.evaluation_batches("test", context=48, tokens_per_batch=300):
        with torch.no_grad():
            metrics.update(bundle.model(batch.inputs), batch.targets_BL, batch.example_B)
    records = {(row["question"], row["context"]) for row in ROWS}
    answers = []
    for number in task._held_out("test").tolist():
        part = task._parts["test"]
        question, context = (task.tokenizer.decode(tokens.tolist()) for tokens in part.tokens(number))
        assert (question, context) in records
        answers.append(bundle.answer(context, question))
        assert answers[-1] == metrics._answer(-1 - number)
        assert answers[-1] in context
    assert len(set(answers)) > 1


def test_what_is_no_question_about_a_text_is_refused(tmp_path: Path) -> None:
    _, bundle = asked(tmp_path, "encoder")
    with pytest.raises(InputError, match="the context is empty"):
        bundle.answer("", "who?")
    with pytest.raises(InputError, match="the question is empty"):
        bundle.answer("they did", "\n")
    with pytest.raises(InputError, match=r"does not generate: its family is 'encoder' and its head 'span'"):
        list(bundle.generate_text("who?"))
    with pytest.raises(InputError, match=r"classifies no texts: .* head 'span'"):
        bundle.classify("who?")
    assert not bundle.writes_targets


def test_a_bundle_without_spans_points_at_nothing(tmp_path: Path) -> None:
    plan = Architecture.from_mapping(
        {"family": "decoder", "width": 16, "max_context": 48, "layers": [{"mixer": "full"}]}
    )
    written = write_bundle(
        tmp_path / "out", architecture=plan, weights=build(plan).state_dict(), tokenizer=None, metrics={}, card=""
    )
    with pytest.raises(InputError, match=r"points at no answers: its family is 'decoder' and its head 'causal_lm'"):
        load_bundle(written).answer("they did", "who?")
