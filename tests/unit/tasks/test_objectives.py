"""Masked, infilling, prefix and span-corruption modelling of a corpus: what is read and what is scored."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.errors import DataError
from nas.records import TaskReference
from nas.tasks import IGNORED, Task, load_task
from nas.tasks.data.parts import part_of_name

DOCUMENT, MASK = 256, 257
CORRUPTING = ["masked", "infilling", "span_corruption"]
CONTEXTS = [32, 48, 100, 256, 1000, 20_000]


def speech(seed: int, size: int) -> str:
    return "".join(random.Random(seed).choices("etaoinshr dlu\né", weights=range(15, 0, -1), k=size))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus")
    for number in range(60):
        (path / f"{number}.txt").write_text(speech(number, 300 + 37 * number))
    return path


def load(corpus: Path, objective: str, **options: object) -> Task:
    given = {"corpus": str(corpus), "objective": objective, **options}
    return load_task(TaskReference(name="language_modeling", options=tuple(sorted(given.items()))))


def stream(folder: Path, part: str) -> str:
    """The documents of a part, one character for each token."""
    files = [path for path in sorted(folder.glob("*.txt")) if part_of_name(path.name) == part]
    return "".join(chr(DOCUMENT) + path.read_bytes().decode("latin-1") for path in files)


def rows(task: Task, split: str, context: int, tokens_per_batch: int = 4096):
    """Every held-out sequence as plain lists: read, to be said, length, inputs of its batch, its row."""
    for batch in task.evaluation_batches(split, context=context, tokens_per_batch=tokens_per_batch):
        batch_size, width = batch.inputs_BL.shape
        lengths = batch.inputs.lengths_B
        for row in range(batch_size):
            length = width if lengths is None else int(lengths[row])
            yield batch.inputs_BL[row].tolist(), batch.targets_BL[row].tolist(), length, batch.inputs, row


def said(task: Task, split: str, context: int, tokens_per_batch: int = 4096) -> Counter[int]:
    """The bytes that are scored, and marks as one."""
    found: Counter[int] = Counter()
    for _, targets, *_ in rows(task, split, context, tokens_per_batch):
        found.update(min(target, DOCUMENT) for target in targets if target != IGNORED)
    return found


@pytest.mark.parametrize("objective", CORRUPTING)
def test_every_context_and_batch_size_scores_the_same_tokens(folder: Path, objective: str) -> None:
    task = load(folder, objective, evaluation_bytes=1500)
    expected = said(task, "validation", 64)
    # A share of the bytes; of few blanks, more or less.
    assert sum(expected[byte] for byte in range(256)) == pytest.approx(0.15 * 1500, rel=0.25)
    for context in CONTEXTS:
        for tokens_per_batch in (50, 100_000):
            assert said(task, "validation", context, tokens_per_batch) == expected


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_masked_text_is_that_of_the_part_with_the_same_holes_in_every_context(folder: Path, context: int) -> None:
    task, text = load(folder, "masked", evaluation_bytes=10**9, cross_documents=True), stream(folder, "validation")
    places: Counter[int] = Counter()
    for read, targets, length, _, _ in rows(task, "validation", context):
        assert length == min(context, len(text)) and not any(read[length:])
        assert all(target == IGNORED for target in targets[length:])
        scored = [at for at in range(length) if targets[at] != IGNORED]
        if scored and context >= 100:
            # Where the window lies is where most of what it shows agrees with the text.
            shown = np.array(read[:length])
            tokens = np.frombuffer(text.encode("utf-32-le"), np.uint32)
            fits = (np.lib.stride_tricks.sliding_window_view(tokens, length) == shown).mean(axis=1)
            start = int(fits.argmax())
            assert 0.7 < fits[start] < 0.98
            assert all(ord(text[start + at]) == targets[at] for at in scored)
            places.update(start + at for at in scored)
    if places:
        assert set(places.values()) == {1}
        assert len(places) == pytest.approx(0.15 * len(text), rel=0.01)


@pytest.mark.parametrize("context", CONTEXTS)
def test_infilled_windows_are_stretches_of_the_part(folder: Path, context: int) -> None:
    task, text = load(folder, "infilling", evaluation_bytes=3000, cross_documents=True), stream(folder, "validation")
    for read, targets, length, inputs, row in rows(task, "validation", context):
        assert length <= context
        prefix, positions = int(inputs.prefix_B[row]), inputs.positions_BL2[row].tolist()
        blanks: dict[int, list[int]] = {}
        for at in range(prefix, length):
            assert targets[at] != IGNORED or read[at + 1] == DOCUMENT
            blanks.setdefault(positions[at][0], []).append(read[at])
        assert blanks
        # Blanks that another window scores stay open here: what is between them is whole.
        pieces, current = [], ""
        for place, token in enumerate(read[:prefix]):
            if token != MASK:
                current += chr(token)
            elif place in blanks:
                current += "".join(map(chr, blanks[place][1:]))
            else:
                pieces, current = [*pieces, current], ""
        at = 0
        for piece in [*pieces, current]:
            at = text.find(piece, at)
            assert at >= 0
            at += len(piece)
        if context >= 100:
            assert length >= 0.8 * min(context, len(text))


@pytest.mark.parametrize("context", CONTEXTS)
def test_sources_and_targets_make_stretches_of_the_part(folder: Path, context: int) -> None:
    task, text = load(folder, "span_corruption", evaluation_bytes=3000), stream(folder, "validation")
    for read, targets, length, inputs, row in rows(task, "validation", context):
        lengths = inputs.source_lengths_B
        source = inputs.source_BS[row].tolist()[: None if lengths is None else int(lengths[row])]
        assert len(source) <= context and length <= context
        spans: list[str] = []
        for token in read[1:length]:
            if token > MASK:
                spans.append("")
            else:
                spans[-1] += chr(token)
        pieces, current, place = [], "", 0
        for token in source:
            if token <= DOCUMENT:
                current += chr(token)
                continue
            assert token == 258 + place % 100
            if place < len(spans):
                current += spans[place]
            else:
                pieces, current = [*pieces, current], ""
            place += 1
        assert all(piece in text for piece in [*pieces, current])
        # The target goes up to what is scored: it ends in a scored sentinel.
        assert targets[length - 1] == 258 + len(spans) % 100
        assert targets[0] == IGNORED


@pytest.mark.parametrize("objective", ["infilling", "span_corruption"])
@pytest.mark.parametrize("rate", [0.05, 0.5])
@pytest.mark.parametrize("mean", [1.0, 2.0, 20.0])
def test_any_rate_and_mean_span_scores_the_same_in_every_context(
    folder: Path, objective: str, rate: float, mean: float
) -> None:
    task = load(folder, objective, mask_rate=rate, mean_span=mean, evaluation_bytes=2000)
    expected = said(task, "validation", 1000)
    assert expected.total() > expected[DOCUMENT] > 0
    for context in (math.ceil(8 * mean) + 8, 200, 20_000):
        assert said(task, "validation", context, 500) == expected
        for batch in task.evaluation_batches("validation", context=context, tokens_per_batch=500):
            source_BS = batch.inputs.source_BS
            assert max(batch.inputs_BL.shape[1], 0 if source_BS is None else source_BS.shape[1]) <= context


@pytest.mark.parametrize("objective", CORRUPTING)
@pytest.mark.parametrize("context", [32, 100, 1000])
def test_no_sequence_holds_two_documents(folder: Path, objective: str, context: int) -> None:
    task = load(folder, objective, evaluation_bytes=10**9)
    crossing = load(folder, objective, evaluation_bytes=10**9, cross_documents=True)
    held_out = list(task.evaluation_batches("test", context=context, tokens_per_batch=4096))
    training = [task.training_batch(seed=0, step=step, tokens=4096, max_context=context) for step in range(4)]
    for batch in [*held_out, *training]:
        for read_BL in (batch.inputs_BL, batch.inputs.source_BS):
            if read_BL is not None:
                assert (read_BL == DOCUMENT).sum(1).max() <= 1
                assert not (read_BL[:, 1:] == DOCUMENT).any() or objective == "infilling"
    assert said(task, "test", context) == said(crossing, "test", context)


def test_a_part_without_a_span_to_score_is_refused(folder: Path) -> None:
    task = load(folder, "span_corruption", mask_rate=0.01, mean_span=64.0, evaluation_bytes=256)
    with pytest.raises(DataError, match="no span begins in the 256 bytes that are scored: raise evaluation_bytes"):
        task.baseline("validation")


@pytest.mark.parametrize("objective", CORRUPTING)
def test_the_test_part_is_read_four_times_as_far(folder: Path, objective: str) -> None:
    task = load(folder, objective, evaluation_bytes=1000)
    found = said(task, "test", 128)
    assert sum(found[byte] for byte in range(256)) == pytest.approx(600, rel=0.15)


def test_a_prefix_scores_what_a_causal_model_scores_of_the_same_windows(folder: Path) -> None:
    causal, prefix = (load(folder, objective, evaluation_bytes=1000) for objective in ("causal", "prefix"))
    for context in (1, 16, 100):
        ours = list(prefix.evaluation_batches("validation", context=context, tokens_per_batch=1000))
        theirs = list(causal.evaluation_batches("validation", context=context, tokens_per_batch=1000))
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one.inputs_BL, other.inputs_BL) and torch.equal(one.targets_BL, other.targets_BL)
            first_B = (one.targets_BL != IGNORED).int().argmax(1)
            assert one.inputs.prefix_B is not None
            # No token is seen from before the place that says it.
            assert torch.equal(one.inputs.prefix_B - 1, first_B) or context == 1
    assert prefix.baseline("test") == causal.baseline("test")


def test_a_prefix_is_of_any_length_and_what_follows_is_scored(folder: Path) -> None:
    task = load(folder, "prefix")
    seen: set[int] = set()
    for step in range(8):
        batch = task.training_batch(seed=0, step=step, tokens=4096, max_context=64)
        prefix_B, positions_BL2 = batch.inputs.prefix_B, batch.inputs.positions_BL2
        assert prefix_B is not None and positions_BL2 is not None
        seen.update(prefix_B.tolist())
        at_L = torch.arange(64)
        before_BL = at_L < prefix_B[:, None] - 1
        assert (batch.targets_BL[before_BL] == IGNORED).all()
        after_BL = ~before_BL & (at_L < 63)
        following_BL = batch.inputs_BL.roll(-1, 1)
        said_BL = torch.where(following_BL == DOCUMENT, IGNORED, following_BL)
        assert torch.equal(batch.targets_BL[after_BL], said_BL[after_BL])
        # Inside the prefix a text, behind it a blank at its end.
        assert torch.equal(positions_BL2[..., 0], torch.minimum(at_L, prefix_B[:, None] - 1))
        assert torch.equal(positions_BL2.sum(2), at_L.expand(len(prefix_B), 64))
    assert seen == set(range(1, 64))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_examples_continues_a_text(folder: Path, share: float) -> None:
    task, text = load(folder, "infilling", generation_share=share), stream(folder, "train")
    long, short = 0, 0
    for step in range(20):
        batch = task.training_batch(seed=1, step=step, tokens=4096, max_context=64)
        assert batch.inputs.lengths_B is None and batch.inputs_BL.shape == (64, 64)
        for row in range(64):
            prefix = int(batch.inputs.prefix_B[row])
            tokens, targets = batch.inputs_BL[row].tolist(), batch.targets_BL[row].tolist()
            if prefix <= 32 and targets[-1] == IGNORED:
                long += 1
                assert tokens[prefix - 1] == MASK and tokens[prefix] == MASK + 1
                assert "".join(map(chr, tokens[: prefix - 1] + tokens[prefix + 1 :])) in text
            else:
                short += 1
                assert tokens[:prefix].count(MASK) == targets.count(MASK + 2)
    assert long / (long + short) == pytest.approx(share, abs=0.05)


def test_a_masked_training_batch_masks_whole_windows_of_the_training_part(folder: Path) -> None:
    task, text = load(folder, "masked"), stream(folder, "train")
    for step in range(4):
        batch = task.training_batch(seed=1, step=step, tokens=2048, max_context=128)
        whole_BL = torch.where(batch.targets_BL == IGNORED, batch.inputs_BL, batch.targets_BL)
        assert all("".join(map(chr, row)) in text for row in whole_BL.tolist())
        chosen_B = (batch.targets_BL != IGNORED).sum(1)
        assert (chosen_B - 0.15 * batch.inputs_BL.shape[1]).abs().max() < 1
    first, second = (task.training_batch(seed=1, step=step, tokens=2048, max_context=64) for step in (0, 1))
    assert not torch.equal(first.targets_BL != IGNORED, second.targets_BL != IGNORED)


@pytest.mark.parametrize("objective", ["infilling", "span_corruption"])
def test_a_context_that_the_longest_span_may_not_fit_in_is_refused(folder: Path, objective: str) -> None:
    task = load(folder, objective)
    with pytest.raises(DataError, match="max_context 31 is below 32, the nearest valid one"):
        task.check(tokens=1000, max_context=31)
    with pytest.raises(DataError, match="a context of at least 32 tokens, not 31"):
        next(task.evaluation_batches("validation", context=31, tokens_per_batch=1000))
    with pytest.raises(DataError, match=r"contexts must be at least 32 tokens, for the longest span .*, not 31"):
        load(folder, objective, contexts=[31, 64])


@pytest.mark.parametrize("objective", ["infilling", "span_corruption"])
def test_finished_candidates_are_scored_at_no_context_that_the_longest_span_may_not_fit_in(
    folder: Path, objective: str
) -> None:
    assert load(folder, objective).curve_contexts(64) == (32, 128)
    assert load(folder, "masked").curve_contexts(64) == (16, 32, 128)


def test_a_source_longer_than_the_training_part_is_refused_with_the_nearest(folder: Path) -> None:
    task, size = load(folder, "span_corruption", cross_documents=True), len(stream(folder, "train"))
    with pytest.raises(DataError, match=r"is above \d+, the nearest valid one") as caught:
        task.check(tokens=10**6, max_context=size)
    nearest = int(str(caught.value).split("is above ")[1].split(",")[0])
    task.check(tokens=10**6, max_context=nearest)
    with pytest.raises(DataError, match="is above"):
        task.check(tokens=10**6, max_context=nearest + 1)


def test_a_step_holds_a_source_and_its_target(folder: Path) -> None:
    task = load(folder, "span_corruption")
    with pytest.raises(DataError, match="79 tokens are less than 80; nearest: 80"):
        task.check(tokens=79, max_context=64)
    batch = task.training_batch(seed=0, step=0, tokens=80, max_context=64)
    assert batch.inputs.source_BS is not None and batch.inputs.source_BS.shape == (1, 64)
    assert batch.inputs_BL.shape == (1, 16)


@pytest.mark.parametrize("objective", CORRUPTING)
def test_the_baseline_is_what_frequencies_alone_score(folder: Path, objective: str) -> None:
    task = load(folder, objective, evaluation_bytes=10**9)
    counts = said(task, "validation", 64)
    if objective == "masked":
        counts = Counter(map(ord, stream(folder, "validation")))
        del counts[DOCUMENT]
    total = counts.total()
    bits = -sum(count / total * math.log2(count / total) for count in counts.values())
    prefix = {"masked": "masked_", "infilling": "infilling_", "span_corruption": "span_"}[objective]
    assert task.baseline("validation") == pytest.approx(
        {
            f"{prefix}bits_per_byte": bits * total / (total - counts[DOCUMENT]),
            f"{prefix}perplexity": 2**bits,
            f"{prefix}token_accuracy": max(counts.values()) / total,
        }
    )


def test_bits_are_counted_per_byte_of_text_where_marks_are_said_too(folder: Path) -> None:
    task = load(folder, "infilling")
    metrics = task.metrics()
    targets = torch.tensor([97, 98, 259, IGNORED, 97, 259])
    metrics.update(torch.zeros(6, task.shape.vocabulary), targets)
    found = metrics.compute()
    assert found["infilling_bits_per_byte"] == pytest.approx(math.log2(260) * 5 / 3)
    assert found["infilling_perplexity"] == pytest.approx(260, rel=1e-5)
    assert found["infilling_token_accuracy"] == 0.0


def test_vocabularies_and_data_versions_are_those_of_the_objective(folder: Path) -> None:
    tasks = {name: load(folder, name) for name in ("causal", "masked", "infilling", "prefix", "span_corruption")}
    sizes = {name: task.shape.vocabulary for name, task in tasks.items()}
    assert sizes == {"causal": 257, "masked": 258, "infilling": 260, "prefix": 257, "span_corruption": 358}
    assert len({task.data_version for task in tasks.values()}) == 5
    assert load(folder, "span_corruption", sentinels=8).shape.vocabulary == 266
    plain = TaskReference(name="language_modeling", options=(("corpus", str(folder)),))
    assert load_task(plain) is load(folder, "causal") is load(folder, "auto")
