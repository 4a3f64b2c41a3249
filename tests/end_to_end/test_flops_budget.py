"""A budget of FLOPs gives large candidates fewer steps; too few are infeasible, and the study goes on."""

from __future__ import annotations

from pathlib import Path

from nas import Study
from nas.cli import main


def test_candidates_whose_budget_holds_too_few_steps_cost_no_training(folder: Path) -> None:
    text = (folder / "study.yaml").read_text().replace("tokens: 5_120", "flops: 7e7").replace("rungs: 2", "rungs: 3")
    (folder / "study.yaml").write_text(text)
    assert main(["run", "study.yaml", "--quiet", "--trials", "4", "--set", "sampler=random"]) == 0
    with Study.load("tiny") as study:
        trials = study.store.trials(study.store.study("tiny"))
    complete = [trial for trial in trials if trial.state == "complete"]
    assert len(complete) == 4
    assert all(trial.flops <= 7.7e7 for trial in complete)
    assert len({trial.step for trial in complete}) > 1
    assert any(trial.state == "infeasible" and "too few for 3 rungs" in trial.reason for trial in trials)
