"""From questions to a checkpoint that points at answers, with each family that serves it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from nas import Study, load_bundle
from nas.cli import main
from nas.errors import InputError


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A word in brackets of one kind, another one in those of another; one in four questions is about a third kind."""
    path = tmp_path_factory.mktemp("data") / "table.jsonl"
    chosen = random.Random(0)

    def word(letters: int) -> str:
        return "".join(chosen.choices("abcdefgh", k=letters))

    rows = []
    for _ in range(1500):
        inside = [word(chosen.randint(2, 4)) for _ in range(2)]
        pieces = [f"({inside[0]})", f"<{inside[1]}>"]
        chosen.shuffle(pieces)
        asked, answers = chosen.choice([("(", inside[:1]), ("(", inside[:1]), ("<", inside[1:]), ("[", [])])
        context = " ".join([word(3), pieces[0], word(5), pieces[1], word(3)])
        rows.append({"q": asked, "context": context, "answers": answers})
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize(("family", "memory"), [("decoder", "serve_bytes"), ("encoder", "prefill_peak_bytes")])
def test_one_who_points_is_found_and_used(
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    family: str,
    memory: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    # An encoder points unless it is told otherwise.
    form = "form: span, " if family == "decoder" else ""
    (tmp_path / "space.yaml").write_text(
        f"""
name: small
family: {family}
width: 64
max_context: 48
layers: [{{mixer: full, heads: 2, mlp_ratio: 2, short_conv: 3, repeat: 2}}]
training: {{learning_rate: 3e-3}}
"""
    )
    (tmp_path / "study.yaml").write_text(
        f"""
name: spans
space: space.yaml
task: {{name: question_answering, {form}too_long: window, data: "{table}", columns: {{question: q}},
       contexts: [24, 48]}}
objectives: [exact_match, {memory}]
budget: {{tokens: 120_000, rungs: 2, tokens_per_step: 1024}}
trials: 1
sampler: random
"""
    )
    study = Study.load(str(tmp_path / "study.yaml"), store="sqlite:///s.db")
    study.run()
    # The most frequent answer, that there is none, is right once in four times.
    assert study.front()["exact_match"].iloc[0] > 0.8
    assert main(["export", "spans", "--trial", "0", "--to", "out", "--store", "sqlite:///s.db"]) == 0
    rows = json.loads(Path("out/metrics.json").read_text())["measurements"]
    measured = {(row["metric"], row["context"]) for row in rows if row["split"] == "test"}
    names = {"exact_match", "answer_f1", "span_loss", "answer_in_reach", "cut_share"}
    assert measured == {(name, context) for name in names for context in (24, 48)} | {("effective_context", None)}
    assert 'bundle.answer("a context"' in Path("out/README.md").read_text()
    capsys.readouterr()
    text = "abc (fade) ghabc <beg> fab"
    expected = {"(": "fade", "<": "beg", "[": ""}
    bundle = load_bundle("out")
    found = {question: bundle.answer(text, question) for question in expected}
    assert sum(found[question] == expected[question] for question in expected) >= 2
    for question, answer in found.items():
        assert main(["predict", "out", text, "--question", question]) == 0
        shown = capsys.readouterr()
        assert shown.out == f"{answer}\n" and (shown.err == "") == (answer != "")
    # Longer than the context: in one window of several.
    assert len(bundle.answer("xyz " * 40 + text, "(")) <= 4
    assert main(["predict", "out", text]) == 2
    assert "give one with --question" in capsys.readouterr().err
    assert main(["generate", "out", text]) == 2
    assert not bundle.writes_targets
    with pytest.raises(InputError, match="the question is empty"):
        bundle.answer(text, " ")
