"""Early stopping on recall, end to end: some candidates are paused, the study completes, goes on, and says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas import Store
from nas.cli import main
from nas.files import Files

pytestmark = pytest.mark.slow

# Learning rates so far apart that the low ones are behind at every rung.
STUDY = """\
name: recall
space: decoder
override:
  width: {choice: [16, 32]}
  depth: 1
  max_context: {choice: [16, 32]}
  layers: {window: {choice: [8], when: {mixer: sliding_window}}, heads: 2, kv_heads: 2, mlp_ratio: 2}
  training: {learning_rate: {log_range: [1.0e-5, 3.0e-2]}}
task: {name: recall, vocabulary: 32, length: 32, pairs: 4, evaluation_examples: 64}
objectives: [recall_loss, serve_bytes]
budget: {tokens: 12_288, rungs: 3, tokens_per_step: 512}
early_stopping: true
trials: 18
sampler: random
seed: 0
"""


def test_some_are_paused_and_the_study_completes_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(STUDY)
    assert main(["run", "study.yaml", "--quiet", "--trials", "16"]) == 0
    with Store.open("nas.db") as store:
        study = store.study("recall")
        before = {trial.number: trial for trial in store.trials(study)}
        paused = [trial for trial in before.values() if trial.state == "paused"]
        assert paused and {trial.state for trial in before.values()} <= {"paused", "complete", "infeasible"}
        files = Files(store.files)
        assert all(files.exists(trial.checkpoints[-1].path) and trial.tokens < 12_288 for trial in paused)
        reasons = store.decisions(study, paused[0].number)
        assert reasons["action"].iloc[-1] == "pause" and reasons["reason"].iloc[-1] == paused[0].reason
        assert study.resolved["early_stopping"] == {"margin": 1.0, "audit": 0.05}
    capsys.readouterr()
    assert main(["status"]) == 0
    told = capsys.readouterr().out
    assert f"{len(paused)} of" in told and "candidates are paused" in told and "false stops" in told
    assert main(["show", "recall", str(paused[0].number)]) == 0
    shown = capsys.readouterr().out
    assert "Decisions" in shown and "pause" in shown and "needs no more" in shown
    assert main(["run", "study.yaml", "--quiet"]) == 0
    with Store.open("nas.db") as store:
        after = {trial.number: trial for trial in store.trials(store.study("recall"))}
    begun = [trial for trial in after.values() if trial.state in ("paused", "complete")]
    assert len(begun) == 18
    # What was complete was not touched again.
    assert all(after[number] == trial for number, trial in before.items() if trial.state == "complete")
