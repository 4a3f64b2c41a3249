"""A live search on recall: many are stopped early, and random draws of the same training tokens are behind."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from nas import Store
from nas.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# Large enough for some to learn the task and for most not to.
STUDY = """\
name: recall
space: decoder
override:
  width: {{choice: [16, 32, 64]}}
  depth: {{range: [1, 2]}}
  max_context: {{choice: [16, 32]}}
  layers:
    window: {{choice: [4, 8], when: {{mixer: sliding_window}}}}
    heads: 2
    kv_heads: 2
    mlp_ratio: 2
    short_conv: 3
  training: {{learning_rate: {{log_range: [3.0e-4, 3.0e-2]}}}}
task: {{name: recall, vocabulary: 32, length: 32, pairs: 4, evaluation_examples: 128}}
objectives: [recall_accuracy, serve_bytes]
budget: {{tokens: 98_304, rungs: 4, tokens_per_step: 512}}
{search}
seed: 0
"""


def searched(folder: Path, search: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Counter[str], float, int]:
    """How many trials are in each state, the hypervolume and the training tokens in the end."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    Path("study.yaml").write_text(STUDY.format(search=search))
    assert main(["run", "study.yaml", "--quiet"]) == 0
    with Store.open("nas.db") as store:
        study = store.study("recall")
        trials = store.trials(study)
        volume = float(store.fronts(study)["hypervolume"].iloc[-1])
    return Counter(trial.state for trial in trials), volume, sum(trial.tokens for trial in trials)


def test_a_third_is_stopped_early_and_random_draws_of_the_same_tokens_are_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states, volume, tokens = searched(
        tmp_path / "ours", "trials: 30\nsampler: frontier\nearly_stopping: true", monkeypatch
    )
    assert states["paused"] >= 10 and states["paused"] + states["complete"] == 30
    _, random_volume, random_tokens = searched(
        tmp_path / "random", f"stop: {{tokens: {tokens}}}\nsampler: random", monkeypatch
    )
    assert random_tokens >= tokens
    assert volume > random_volume
