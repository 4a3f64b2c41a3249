"""A candidate that is too large for the memory limit of a worker is a result, and the study is completed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests_support import write_study

from nas import Store

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resource limits of Linux")

SPACE = """\
name: two_sizes
family: decoder
width:       {choice: [16, 1024]}
depth:       2
max_context: 32
layers:      {mixer: full, heads: 2, mlp_ratio: 4}
training:
  learning_rate: {log_range: [2e-3, 2e-2]}
"""


def nas(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nas", *arguments], cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_candidate_that_runs_out_of_memory_is_infeasible_and_the_study_is_completed(
    tmp_path: Path, workers: str
) -> None:
    write_study(tmp_path)
    (tmp_path / "space.yaml").write_text(SPACE)
    words = ("memory_limit=96 MiB", "sampler=random", "budget.tokens=512", "trainer.accelerator=cpu")
    settings = [part for word in words for part in ("--set", word)]
    done = nas(tmp_path, "run", "study.yaml", "--workers", workers, "--trials", "2", *settings)
    assert done.returncode == 0, done.stderr
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        study = store.study("tiny")
        complete, infeasible = (store.trials(study, states=[state]) for state in ("complete", "infeasible"))
        assert not store.trials(study, states=["failed"])
        figures = store.memory(study, infeasible[0].number)
        corrections = store.corrections()
    assert len(complete) == 2 and {trial.candidate.architecture.width for trial in complete} == {16}
    first = infeasible[0]
    assert first.candidate.architecture.width == 1024
    # The first was begun, for nothing was known of this device.
    assert first.started_at is not None and first.failure is not None and first.failure.kind == "out_of_memory"
    for word in ("out of memory", "memory_limit 96 MiB", "train_peak_bytes", "predicted"):
        assert word in first.reason
    assert "train_peak_bytes" in set(figures["figure"][figures["kind"] == "predicted"])
    assert [found.trials for found in corrections] == [2]
    shown = nas(tmp_path, "show", "tiny", str(first.number)).stdout
    assert f"infeasible ({first.reason})" in shown
    status = nas(tmp_path, "status").stdout
    assert "ran out of memory" in status and "measured peaks of training" in status
