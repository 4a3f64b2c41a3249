"""A batch is the same in every process: with other hashes of strings, and with a cache made anew."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

CASES = [
    *(("language_modeling", {"objective": name}) for name in ("causal", "masked", "infilling", "span_corruption")),
    ("language_modeling", {"tokenizer": {"kind": "bpe", "vocabulary": 300}}),
    ("classification", {"too_long": "window"}),
    ("classification", {"multi_label": True, "form": "prefix"}),
    ("translation", {"form": "seq2seq", "tokenizer": {"kind": "bpe", "vocabulary": 300}}),
    ("question_answering", {}),
]
CODE = """
import hashlib, json, sys
from dataclasses import fields
from nas.records import TaskReference
from nas.specs import task_spec
from nas.tasks import load_task

def parts(batch):
    for field in fields(batch.inputs):
        yield getattr(batch.inputs, field.name)
    yield from (batch.targets_BL, batch.example_B)

def digest(batches):
    found = hashlib.sha256()
    for batch in batches:
        for part in parts(batch):
            found.update(b"-" if part is None else part.numpy().tobytes())
    return found.hexdigest()

folder, cases = sys.argv[1], json.loads(sys.argv[2])
for name, given in cases:
    place = {"corpus": folder + "/texts"} if "corpus" in task_spec(name).keys else {"data": folder + "/table.jsonl"}
    options = tuple(sorted({**place, **given}.items()))
    task = load_task(TaskReference(name=name, options=options))
    drawn = [
        task.training_batch(seed=seed, step=step, tokens=512, max_context=context)
        for seed, step, context in ((0, 0, 64), (0, 7, 64), (3, 7, 100))
    ]
    held = task.evaluation_batches("test", context=48, tokens_per_batch=500)
    print(name, task.data_version, digest(drawn), digest(held))
"""


def write_data(folder: Path) -> None:
    chosen = random.Random(0)
    words = ["".join(chosen.choices("abcdefgh", k=chosen.randint(2, 6))) for _ in range(40)]
    (folder / "texts").mkdir()
    for number in range(40):
        (folder / "texts" / f"{number}.txt").write_text(" ".join(chosen.choices(words, k=60)))
    rows = []
    for number in range(300):
        text = " ".join(chosen.choices(words, k=chosen.randint(3, 20)))
        labels = chosen.sample("abcde", k=chosen.randint(0, 3))
        pair = {"source": text, "target": text.upper(), "question": f"{number}?", "context": text}
        answers = [text.split()[0]]
        rows.append({"text": text, "label": chosen.choice("xyz"), "labels": labels, **pair, "answers": answers})
    (folder / "table.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_batches_do_not_depend_on_the_process(tmp_path: Path) -> None:
    write_data(tmp_path)
    processes = []
    for seed in ("1", "2"):
        around = {**os.environ, "PYTHONHASHSEED": seed, "NAS_CACHE": str(tmp_path / f"cache-{seed}")}
        words = [sys.executable, "-c", CODE, str(tmp_path), json.dumps(CASES)]
        processes.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=around))
    one, other = (process.communicate()[0].splitlines() for process in processes)
    assert one == other and len(set(one)) == len(CASES)
