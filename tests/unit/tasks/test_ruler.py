"""RULER as a task: what is seen at which context, what is scored, and which options are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from nas.errors import DataError
from nas.measure.train import _effective
from nas.records import TaskReference
from nas.specs.tasks import RULER_KINDS
from nas.tasks import IGNORED, load_task
from nas.tasks.ruler import Ruler
from nas.tasks.ruler.forms import FORMS
from nas.tasks.ruler.held_out import recall

MIXED = ["niah_single", "niah_multiquery", "variable_tracking"]
SMALL = {"length": 64, "evaluation_examples": 12}
NIAH = [name for name in RULER_KINDS if name.startswith("niah")]
NEEDLE, ANSWER = 1, 7


def ruler(**options) -> Ruler:
    task = load_task(TaskReference(name="ruler", options=tuple(sorted(options.items()))))
    assert isinstance(task, Ruler)
    return task


def asked(task: Ruler, split: str, context: int, tokens_per_batch: int = 2000) -> dict[int, list[int]]:
    """The prompt of each question, by its number."""
    found = {}
    for questions in task.questions(split, context=context, tokens_per_batch=tokens_per_batch):
        tokens_BL, lengths_B = questions.inputs.tokens_BL, questions.inputs.lengths_B
        assert tokens_BL.shape[1] + questions.most_tokens <= context
        assert len(tokens_BL) == 1 or len(tokens_BL) * (tokens_BL.shape[1] + questions.most_tokens) <= tokens_per_batch
        lengths = [tokens_BL.shape[1]] * len(tokens_BL) if lengths_B is None else lengths_B.tolist()
        for number, row, length in zip(questions.example_B, tokens_BL.tolist(), lengths, strict=True):
            assert number not in found and not any(row[length:])
            found[number] = row[:length]
    return found


@pytest.mark.parametrize("form", FORMS)
def test_training_mixes_lengths_and_each_example_is_made_at_the_length_of_its_step(form):
    task = ruler(kind="niah_multikey", form=form, length=512)
    longest, shortest = (512, 64) if form == "tokens" else (2048, 512)
    seen = set()
    for step in range(8):
        batch = task.training_batch(seed=0, step=step, tokens=4096, max_context=longest)
        length = batch.inputs_BL.shape[1]
        seen.add(length)
        used = (batch.targets_BL != IGNORED).int().flip(1).argmax(1)
        assert (used == 1).all() if form == "tokens" else ((used >= 1) & (used < 40)).all()
        assert ((batch.targets_BL != IGNORED).sum(1) == (1 if form == "tokens" else 9)).all()
    assert max(seen) == longest and min(seen) == shortest and len(seen) == (4 if form == "tokens" else 3)


def test_the_target_of_each_token_is_the_next_one_of_the_answer():
    task = ruler(kind="niah_multivalue", length=64, value_tokens=2)
    batch = task.training_batch(seed=0, step=0, tokens=640, max_context=64)
    for row, targets in zip(batch.inputs_BL.tolist(), batch.targets_BL.tolist(), strict=True):
        at = row.index(ANSWER)
        assert targets[at:-1] == row[at + 1 :] and len(row[at + 1 :]) == 8
        assert all(target == IGNORED for target in [*targets[:at], targets[-1]])


def test_kinds_have_equal_shares():
    task = ruler(kinds=MIXED, **SMALL)
    steps = [task.training_batch(seed=0, step=step, tokens=64 * 10, max_context=64) for step in range(60)]
    marks = torch.cat([batch.inputs_BL[:, :] for batch in steps])
    chains = int((marks == 4).any(1).sum())
    queries = int(((marks == NEEDLE).sum(1) == 4).sum())
    single = int(((marks == NEEDLE).sum(1) == 1).sum())
    assert chains + queries + single == 600
    assert all(180 <= count <= 220 for count in (chains, queries, single))
    assert task.held_out("test", 64).kinds_E == tuple(MIXED) * 4


@pytest.mark.parametrize("form", FORMS)
def test_depths_are_even_and_say_where_the_needle_stands(form):
    task = ruler(form=form, length=200 if form == "tokens" else 700, evaluation_examples=2000)
    found = task.held_out("validation", task._length)
    depths = np.array(found.depths_E)[:, 0]
    assert depths.min() == 0 and depths.max() == 1
    shares = np.histogram(depths, bins=4, range=(0, 1))[0] / 2000
    # A needle may stand before the first and behind the last unit: words have some 20 such places.
    assert np.all(np.abs(shares - 0.25) < 0.08)
    for start, end, depth in zip(found.prompt_E[:50], found.answer_E[:50], depths[:50], strict=True):
        prompt = found.tokens_T[start:end].tolist()
        if form == "tokens":
            assert prompt.index(NEEDLE) == round(depth * (200 - 7))
        else:
            before, after = bytes(prompt).split(b"\n")[1].split(b"One of the special")
            assert depth == pytest.approx(before.count(b". ") / (before.count(b". ") + after.count(b". ") - 1))


@pytest.mark.parametrize("context", [32, 50, 64, 200])
def test_a_short_context_sees_the_end_of_the_same_examples(context):
    task = ruler(kinds=MIXED, **SMALL)
    found = task.held_out("validation", 64)
    wholes = [found.tokens_T[a:b].tolist() for a, b in zip(found.prompt_E, found.end_E, strict=True)]
    rows = []
    for batch in task.evaluation_batches("validation", context=context, tokens_per_batch=500):
        assert batch.inputs_BL.shape[1] <= context
        rows += batch.inputs_BL.tolist()
    assert sorted(rows) == sorted(whole[-context:] for whole in wholes)
    own = {
        number: prompt for number, prompt in asked(task, "validation", context).items() if task._asked(number).is_own
    }
    prompts = [found.tokens_T[a:b].tolist() for a, b in zip(found.prompt_E, found.answer_E, strict=True)]
    rooms = [whole[len(prompt) :] for whole, prompt in zip(wholes, prompts, strict=True)]
    expected = [prompt[-(context - len(room)) :] for prompt, room in zip(prompts, rooms, strict=True)]
    assert sorted(own.values()) == sorted(expected)


@pytest.mark.parametrize("form", FORMS)
def test_besides_its_own_examples_a_context_is_asked_about_some_of_its_length(form):
    length, contexts = (64, [32, 64, 200]) if form == "tokens" else (512, [400, 512, 1000])
    task = ruler(kind="variable_tracking", form=form, hops=2, length=length, evaluation_examples=12)
    numbers = {}
    for context in contexts:
        prompts = asked(task, "test", context)
        others = {number: prompt for number, prompt in prompts.items() if not task._asked(number).is_own}
        assert len(prompts) - len(others) == 12
        assert len(others) == (0 if context == length else 12)
        room = 3 if form == "tokens" else 22
        assert all(context - room - 24 <= len(prompt) <= context - room for prompt in others.values())
        if form == "tokens":
            assert all(len(prompt) == context - room for prompt in others.values())
        numbers[context] = set(others)
    assert not numbers[contexts[0]] & numbers[contexts[2]]


def test_what_is_expected_is_what_the_prompt_says_in_every_part_and_at_every_length():
    task = ruler(**SMALL)
    prompts, answers = {}, {}
    for split in ("validation", "test"):
        for context in (64, 96, 128):
            found = asked(task, split, context)
            for number, prompt in found.items():
                key = prompt.index(NEEDLE) + 1
                assert prompt[key] == prompt[-2] and task._asked(number).expected == ((prompt[key + 1],),)
            others = {number: prompt for number, prompt in found.items() if len(prompt) == context - 1}
            prompts[split, context] = {tuple(prompt) for prompt in others.values()}
            answers[split, context] = [task._asked(number).expected for number in others]
    assert all(len(found) == 12 for found in prompts.values())
    # Examples of every part and length are drawn by themselves.
    assert not prompts["validation", 64] & prompts["test", 64]
    assert len({tuple(found) for found in answers.values()}) == 6
    assert len({answers["validation", context][0] for context in (64, 96, 128)}) > 1


@pytest.mark.parametrize("form", FORMS)
def test_who_says_the_right_answers_is_perfect_and_who_says_some_of_them_less_so(form):
    kinds = ["niah_multivalue", "niah_multiquery"]
    task = ruler(kinds=kinds, form=form, length=1024, evaluation_examples=6)
    perfect, partial = task.metrics(), task.metrics()
    for batch in task.evaluation_batches("validation", context=600, tokens_per_batch=4096):
        targets = batch.targets_BL.flatten()
        logits = one_hot(targets.clamp(min=0), task.shape.vocabulary) * 100.0
        perfect.update(logits, targets)
        partial.update(logits, targets)
    for number in asked(task, "validation", 600):
        known = task._asked(number)
        said = [token for piece in reversed(known.expected) for token in (*piece, 44)]
        perfect.answer(number, said)
        partial.answer(number, list(known.expected[0]) if known.is_own and known.kind == kinds[0] else [])
    names = ["ruler_recall", "ruler_recall_by_length", *(f"ruler_recall_{kind}" for kind in kinds)]
    assert perfect.compute() == pytest.approx(dict.fromkeys(names, 1.0) | {"ruler_loss": 0.0}, abs=1e-6)
    assert partial.compute() == pytest.approx(
        {
            "ruler_recall": 1 / 8,
            "ruler_recall_by_length": 0.0,
            "ruler_recall_niah_multivalue": 1 / 4,
            "ruler_recall_niah_multiquery": 0.0,
            "ruler_loss": 0.0,
        },
        abs=1e-6,
    )
    assert set(perfect.compute()) == set(task.spec.measured({"kinds": kinds}))


def test_at_its_own_length_both_recalls_are_the_same():
    task = ruler(**SMALL)
    metrics = task.metrics()
    metrics.update(torch.zeros(1, 128), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(DataError, match="no answer was given"):
        metrics.compute()
    for place, number in enumerate(asked(task, "validation", 64)):
        metrics.answer(number, list(task._asked(number).expected[0]) if place % 3 == 0 else [3])
    found = metrics.compute()
    assert found["ruler_recall"] == found["ruler_recall_by_length"] == pytest.approx(1 / 3)
    assert set(found) == {"ruler_recall", "ruler_recall_by_length", "ruler_loss"}


def test_recall_is_the_share_of_pieces_that_stand_in_one_row():
    assert recall([1, 2, 3], [[2, 3]]) == 1
    assert recall([1, 3, 2], [[2, 3]]) == 0
    assert recall([], [[2]]) == 0
    assert recall(list(b" 12345678\n"), [b"1234567", b"2345678", b"9"]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("options", "share", "nats"),
    [
        # The value shown is the answer: a guesser among all 60.
        ({"kind": "niah_single"}, 1 / 60, math.log(60)),
        ({"kind": "niah_multikey", "needles": 5}, 1 / 5, math.log(5)),
        ({"kind": "niah_multikey", "needles": 5, "value_tokens": 2}, 1 / 5, math.log(5) / 2),
        ({"kind": "niah_multivalue", "needles": 2}, 2 / 60, (math.log(60) + math.log(59)) / 2),
        ({"kind": "variable_tracking", "chains": 3, "hops": 1}, 1 / 3, (math.log(6) + math.log(5)) / 2),
        ({"kind": "variable_tracking", "hops": 1}, 2 / 30, (math.log(30) + math.log(29)) / 2),
        ({"kind": "common_words", "common": 2, "length": 128}, 2 / 23, (math.log(23) + math.log(22)) / 2),
    ],
)
def test_the_baseline_guesses_among_what_is_shown(options, share, nats):
    baseline = ruler(**options).baseline("test")
    assert baseline["ruler_recall"] == baseline["ruler_recall_by_length"] == pytest.approx(share)
    assert baseline["ruler_loss"] == pytest.approx(nats)


def test_the_baseline_of_mixed_kinds_is_the_mean_and_that_of_each():
    options = {"evaluation_examples": 10, "length": 128}
    one = ruler(kind="niah_single", **options).baseline("test")
    other = ruler(kind="niah_multiquery", **options).baseline("test")
    both = ruler(kinds=["niah_single", "niah_multiquery"], **options).baseline("test")
    assert both["ruler_recall_niah_single"] == pytest.approx(one["ruler_recall"])
    assert both["ruler_recall_niah_multiquery"] == pytest.approx(other["ruler_recall"])
    assert both["ruler_recall"] == pytest.approx((one["ruler_recall"] + other["ruler_recall"]) / 2)
    # Five answers of one token each for every two examples.
    assert both["ruler_loss"] == pytest.approx((one["ruler_loss"] + 4 * other["ruler_loss"]) / 5)


def test_the_effective_context_is_told_by_examples_as_long_as_the_context():
    task = ruler(contexts=[32, 64, 128, 256], effective_score=0.856)
    own, by_length = [0.2, 0.5, 0.8, 0.8], [1.0, 0.9, 0.86, 0.85]
    scores = {
        context: {"ruler_recall": one, "ruler_recall_by_length": other}
        for context, one, other in zip((32, 64, 128, 256), own, by_length, strict=True)
    }
    options = {"contexts": [32, 64, 128, 256], "effective_score": 0.856}
    assert _effective(task, options, scores) == 128
    assert set(task.spec.metrics_for(options)) >= {"effective_context", "ruler_recall_by_length"}
    assert task.curve_contexts(128) == (32, 64, 256) and task.curve_contexts(32) == (16, 64)


def test_a_context_that_holds_no_example_is_refused():
    task = ruler(kind="niah_multikey", length=64)
    for call in (
        lambda: task.longest_sequence(16),
        lambda: list(task.evaluation_batches("test", context=16, tokens_per_batch=100)),
        lambda: list(task.questions("test", context=16, tokens_per_batch=100)),
    ):
        with pytest.raises(DataError, match="must be at least 17 tokens to hold niah_multikey, not 16: nearest 17"):
            call()
    assert task.longest_sequence(17) == 17
    assert task.curve_contexts(64) == (32, 128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "niah_sinlge"}, "unknown kind 'niah_sinlge': did you mean 'niah_single'"),
        ({"kind": "niah_single", "kinds": ["niah_single"]}, "kind and kinds exclude each other: give one"),
        ({"kinds": []}, "kinds must name at least one kind: valid: common_words"),
        ({"kinds": ["niah_single", "niah_single"]}, "kinds must name each kind once, not niah_single, niah_single"),
        ({"kinds": ["niah_single", 3]}, "unknown kind '3': valid: common_words"),
        ({"kind": 3}, "kind must be a name, not 3"),
        ({"form": "token"}, "unknown form 'token': did you mean 'tokens'"),
        ({"form": "words", "vocabulary": 64}, "'vocabulary' is for form tokens, not for words"),
        ({"haystack": "noise"}, "'haystack' is for form words, not for tokens"),
        ({"form": "words", "haystack": "nose"}, "unknown haystack 'nose': did you mean 'noise'"),
        ({"hops": 3}, "'hops' is for variable_tracking, not for niah_single"),
        ({"kinds": ["niah_single", "niah_multikey"], "hops": 3}, "not for niah_single and niah_multikey"),
        ({"kind": "common_words", "common_times": 3}, "common_times must be above other_times = 3, not 3: nearest 4"),
        ({"kinds": list(NIAH), "evaluation_examples": 3}, "evaluation_examples must be at least 4, one of each kind"),
        (
            {"kind": "niah_multikey", "needles": 40},
            "niah_multikey needs 40 keys and 40 values, but of vocabulary 128 30 and 60 .*: nearest vocabulary 168",
        ),
        (
            {"kind": "variable_tracking", "chains": 8},
            "needs 40 keys and 8 values, .* nearest vocabulary 168",
        ),
        ({"length": 7}, "length must be at least 8 tokens to hold niah_single, not 7: nearest 8"),
        (
            {"kinds": ["niah_single", "common_words"], "length": 200},
            "length must be at least 315 tokens to hold common_words, not 200: nearest 315",
        ),
        (
            {"kind": "common_words", "length": 500},
            "length must be at most 464 tokens, for common_words has only 60 words, not 500: nearest 464",
        ),
        ({"form": "words", "length": 128}, "length must be at least 240 bytes to hold niah_single, not 128"),
        ({"contexts": [4, 64]}, "a context must be at least 8 tokens to hold niah_single, not 4: nearest 8"),
    ],
)
def test_options_that_break_a_rule_are_refused(options, message):
    with pytest.raises(DataError, match=message):
        ruler(**options)


@pytest.mark.parametrize("key", ["needles", "chains", "hops", "common", "common_times", "other_times"])
def test_a_nearest_vocabulary_is_valid(key):
    name = next(name for name, keys in RULER_KINDS.items() if key in keys)
    options = {"kind": name, key: 40}
    texts = [broken.text for broken in Ruler.spec.broken_rules(options)]
    for text in texts:
        if "nearest vocabulary" in text:
            options["vocabulary"] = int(text.split()[-1])
            assert not [broken.text for broken in Ruler.spec.broken_rules(options) if broken.key == "vocabulary"]
            options["vocabulary"] -= 1
            assert [broken.text for broken in Ruler.spec.broken_rules(options) if broken.key == "vocabulary"]


def test_complete_options_name_what_matters_and_nothing_else():
    assert Ruler.spec.complete({}) == {
        "kind": "niah_single",
        "form": "tokens",
        "length": 128,
        "vocabulary": 128,
        "value_tokens": 1,
        "evaluation_examples": 200,
    }
    words = Ruler.spec.complete({"kinds": ["niah_multikey", "variable_tracking"], "form": "words"})
    assert words == {
        "kinds": ["niah_multikey", "variable_tracking"],
        "form": "words",
        "length": 1024,
        "haystack": "noise",
        "needles": 4,
        "chains": 1,
        "hops": 4,
        "evaluation_examples": 200,
    }
    for options in ({}, words):
        once = Ruler.spec.complete(options)
        assert Ruler.spec.complete(once) == once and not list(Ruler.spec.broken_rules(once))


def test_the_data_version_knows_every_option_but_the_contexts():
    given = ({}, {"length": 64}, {"value_tokens": 2}, {"kind": "niah_multikey"}, {"form": "words"}, {"vocabulary": 64})
    assert len({ruler(**options).data_version for options in given}) == len(given)
    assert ruler(contexts=[32, 64], effective_score=0.856).data_version == ruler().data_version
