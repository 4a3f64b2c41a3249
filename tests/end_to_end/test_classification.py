"""From a table of texts and labels to a checkpoint that classifies, with each family that serves the task."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from nas import Study, load_bundle
from nas.cli import main


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "table.csv"
    chosen = random.Random(0)
    rows = ["body,kind"]
    for _ in range(600):
        kind = chosen.choice(["vowels", "consonants"])
        letters = "aeiou" if kind == "vowels" else "bcdfg"
        rows.append("".join(chosen.choices(letters, k=chosen.randint(10, 60))) + f",{kind}")
    path.write_text("\n".join(rows))
    return path


@pytest.mark.parametrize(
    ("family", "form", "memory"),
    [
        ("decoder", "auto", "serve_bytes"),
        ("encoder", "auto", "prefill_peak_bytes"),
        ("decoder", "text_to_text", "serve_bytes"),
        ("prefix_lm", "auto", "serve_bytes"),
        ("encoder_decoder", "auto", "serve_bytes"),
    ],
)
def test_a_classifier_is_found_and_used(
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    family: str,
    form: str,
    memory: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    study = tmp_path / "study.yaml"
    study.write_text(
        f"""
name: kinds
space: search_spaces/{family}.yaml
override: {{width: 32, max_context: {{choice: [32, 64]}}}}
task: {{name: classification, data: "{table}", form: {form}, columns: {{text: body, label: kind}}, contexts: [16, 64]}}
objectives: [accuracy, {memory}, effective_context]
budget: {{tokens: 16_000, rungs: 2, tokens_per_step: 512}}
trials: 2
sampler: random
"""
    )
    found = Study.load(str(study), store="sqlite:///s.db")
    found.run()
    front = found.front()
    assert len(front) and (front["accuracy"] > 0.9).all() and front["effective_context"].isin([16, 64]).all()
    trial = int(front["trial"].iloc[0])
    assert main(["export", "kinds", "--trial", str(trial), "--to", "out", "--store", "sqlite:///s.db"]) == 0
    capsys.readouterr()
    assert main(["predict", "out", "aaeeiioouu" * 3]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[0] == "vowels" and second.split()[0] == "consonants"
    bundle = load_bundle("out")
    shares = bundle.classify("bcdfgbcdfg" * 30)
    assert max(shares, key=lambda label: shares[label]) == "consonants" and sum(shares.values()) == pytest.approx(1)
    measured = {
        (row["metric"], row["context"], row["split"])
        for row in json.loads(Path("out/metrics.json").read_text())["measurements"]
    }
    assert {("accuracy", 16, "test"), ("cut_share", 16, "test"), ("macro_f1", 64, "test")} <= measured
