"""From pairs of texts to a checkpoint that writes, with each family that serves the tasks."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from nas import Study, load_bundle
from nas.cli import main

FAMILIES = ["decoder", "prefix_lm", "encoder_decoder"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A translation letter by letter, and a question that says which letter of two is meant."""
    path = tmp_path_factory.mktemp("data") / "table.jsonl"
    chosen = random.Random(0)
    rows = []
    for number in range(1500):
        source = "".join(chosen.choices("abcd", k=12))
        answer = chosen.choice(["left", "right"])
        rows.append(
            {
                "en": source,
                "xx": source.upper(),
                "question": f"where {number % 7}",
                "context": f"it is {answer} {source}",
                "answers": [answer],
            }
        )
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def searched(folder: Path, family: str, task: str, objective: str, tokens: int) -> Study:
    (folder / "study.yaml").write_text(
        f"""
name: pairs
space: search_spaces/{family}.yaml
override: {{width: 64, max_context: 64}}
task: {task}
objectives: [{objective}, serve_bytes]
budget: {{tokens: {tokens}, tokens_per_step: 1024, rungs: 1}}
trials: 1
sampler: random
"""
    )
    study = Study.load(str(folder / "study.yaml"), store="sqlite:///s.db")
    study.run()
    return study


@pytest.mark.parametrize("family", FAMILIES)
def test_a_translator_is_found_and_used(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], family: str
) -> None:
    monkeypatch.chdir(tmp_path)
    task = f'{{name: translation, data: "{table}", columns: {{source: en, target: xx}}, evaluation_examples: 20}}'
    # An encoder–decoder takes longer to find the turn of each letter.
    tokens = 900_000 if family == "encoder_decoder" else 300_000
    front = searched(tmp_path, family, task, "chrf", tokens).front()
    # Copying the source has not one letter right.
    assert front["chrf"].iloc[0] > 30
    assert main(["export", "pairs", "--trial", "0", "--to", "out", "--store", "sqlite:///s.db"]) == 0
    capsys.readouterr()
    assert main(["predict", "out", "abcdabcdabcd"]) == 0
    written = capsys.readouterr().out.strip()
    assert written and set(written) <= set("ABCD")
    assert load_bundle("out").write("abcdabcdabcd") == written
    rows = json.loads(Path("out/metrics.json").read_text())["measurements"]
    assert {"chrf", "bleu", "target_bits_per_byte", "cut_share"} <= {row["metric"] for row in rows}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answerer_is_found_and_used(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], family: str
) -> None:
    monkeypatch.chdir(tmp_path)
    task = f'{{name: question_answering, data: "{table}", evaluation_examples: 20}}'
    front = searched(tmp_path, family, task, "exact_match", 60_000).front()
    assert front["exact_match"].iloc[0] >= 0.3
    assert main(["export", "pairs", "--trial", "0", "--to", "out", "--store", "sqlite:///s.db"]) == 0
    capsys.readouterr()
    assert main(["predict", "out", "it is left abcdabcdabcd", "--question", "where 3"]) == 0
    assert capsys.readouterr().out.strip() in {"left", "right"}
