"""From a study of MAD or ListOps to a checkpoint, with each family that serves the kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nas import Study, load_bundle
from nas.cli import main

TASKS = {
    "recall": ("{name: mad, length: 32, training_examples: 200, evaluation_examples: 40, contexts: [16, 64]}", 16),
    "memorization": ("{name: mad, kind: memorization, vocabulary: 20, evaluation_examples: 40}", 20),
    "compression": (
        "{name: mad, kind: compression, length: 16, training_examples: 0, evaluation_examples: 40, contexts: [64]}",
        16,
    ),
    "listops": (
        "{name: listops, shortest: 8, longest: 60, training_examples: 500, evaluation_examples: 60, "
        "contexts: [16, 64]}",
        10,
    ),
}


@pytest.mark.parametrize(
    ("task", "family", "objective"),
    [
        ("recall", "decoder", "mad_accuracy"),
        ("memorization", "decoder", "mad_loss"),
        ("compression", "decoder", "mad_accuracy"),
        ("compression", "encoder", "mad_token_accuracy"),
        ("listops", "decoder", "accuracy"),
        ("listops", "encoder", "macro_f1"),
    ],
)
def test_a_network_is_found_scored_along_the_context_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, family: str, objective: str
) -> None:
    monkeypatch.chdir(tmp_path)
    options, outputs = TASKS[task]
    memory = "serve_bytes" if family == "decoder" else "prefill_peak_bytes"
    study = tmp_path / "study.yaml"
    study.write_text(
        f"""
name: synthetic
space: search_spaces/{family}.yaml
override: {{width: 32, depth: 2, max_context: {{choice: [32, 64]}}}}
task: {options}
objectives: [{objective}, {memory}]
budget: {{tokens: 8_192, rungs: 2, tokens_per_step: 1024}}
trials: 1
sampler: random
"""
    )
    found = Study.load(str(study), store="sqlite:///s.db")
    found.run()
    front = found.front()
    assert len(front) and front[objective].notna().all()
    trial = int(front["trial"].iloc[0])
    assert main(["export", "synthetic", "--trial", str(trial), "--to", "out", "--store", "sqlite:///s.db"]) == 0
    measured = {
        (row["metric"], row["context"])
        for row in json.loads(Path("out/metrics.json").read_text())["measurements"]
        if row["split"] == "test"
    }
    contexts = {"recall": {16, 64}, "compression": {64}, "listops": {16, 64}, "memorization": set()}[task]
    assert {(objective, context) for context in contexts} <= measured
    model = load_bundle("out").model
    shape = model(torch.zeros(3, 16, dtype=torch.int64)).shape
    assert shape == ((3, outputs) if task == "listops" else (3, 16, outputs))
