"""Confirming a study that trains: replicates with their test part, and the ranking at twice the budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nas import Store
from nas.cli import main

pytestmark = pytest.mark.slow


def test_a_study_confirms_its_front_and_its_ranking(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Path("study.yaml")
    study.write_text(study.read_text().replace("trials: 5", "trials: 4") + "confirm: 1\n")
    assert main(["run", "study.yaml", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["front", "tiny", "--format", "json"]) == 0
    front = json.loads(capsys.readouterr().out)
    assert front and all(record["seeds"] == 2 and record["sd"]["bits_per_byte"] > 0 for record in front)
    with Store.open("nas.db") as store:
        stored = store.study("tiny")
        own = {trial.number: trial for trial in store.trials(stored)}
        made = store.trials(stored, role="confirm")
        found = store.measurements(stored)
    assert len(own) == 4 and {trial.seed for trial in made} == {1}
    assert all(trial.state == "complete" and trial.tokens == 5120 and len(trial.checkpoints) == 2 for trial in made)
    # The test part of all trainings of a confirmed candidate is scored, and of no other.
    keys = {trial.candidate.key for trial in made}
    confirmed = {number for number, trial in own.items() if trial.candidate.key in keys}
    scored = found[(found["split"] == "test") & (found["metric"] == "bits_per_byte")]
    assert set(scored["trial"]) == confirmed | {trial.number for trial in made}
    for record in front:
        key = own[record["trial"]].candidate.key
        both = [record["trial"], *(trial.number for trial in made if trial.candidate.key == key)]
        at_own = scored["context"] == own[record["trial"]].candidate.architecture.max_context
        values = scored[at_own & scored["trial"].isin(both)]["value"]
        assert record["test"]["seeds"] == len(values) == 2
        assert record["test"]["mean"]["bits_per_byte"] == pytest.approx(values.mean())

    assert main(["confirm", "tiny", "--seeds", "1", "--budget", "2x", "--dominated", "1", "--quiet"]) == 0
    told = capsys.readouterr().out
    assert "at 2x the budget" in told and "Kendall's tau" in told
    with Store.open("nas.db") as store:
        stored = store.study("tiny")
        large = [trial for trial in store.trials(stored, role="confirm") if trial.budget == 2]
        # An earlier one of the same candidate and seed lies elsewhere.
        paths = store.checkpoints(stored)["path"]
        assert paths.is_unique
        tested = store.measurements(stored)
    assert len(large) == len(front) + min(1, 4 - len(front))
    assert all(trial.state == "complete" and trial.tokens == 10_240 and trial.step == 40 for trial in large)
    assert {trial.number for trial in large} <= set(tested.loc[tested["split"] == "test", "trial"])
    # Once more, there is nothing left to do.
    assert main(["confirm", "tiny", "--seeds", "1", "--budget", "2x", "--dominated", "1", "--quiet"]) == 0
    assert main(["run", "study.yaml", "--quiet"]) == 0
    with Store.open("nas.db") as store:
        assert len(store.trials(store.study("tiny"), role=None)) == 4 + len(made) + len(large)
    assert main(["report", "tiny", "--to", "page"]) == 0
    assert "test_bits_per_byte_mean" in Path("page/index.html").read_text().replace("<wbr>", "")


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["--budget", "0.5x"], "a multiple must be at least 1x"),
        (["--budget", "8"], "'8' is no multiple"),
        (["--seeds", "0"], "at least 1"),
        (["--dominated", "3"], "budget above 1x"),
        ([], "has no front to confirm yet"),
    ],
)
def test_what_cannot_be_confirmed_is_told_in_a_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], rule: str
) -> None:
    assert main(["confirm", "study.yaml", *words]) == 2
    assert rule in capsys.readouterr().err
    assert not Path("nas.db").exists()
