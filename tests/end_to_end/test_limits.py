"""Limits that exclude most of a space: nothing over them is trained, and one that excludes all is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests_support import is_one_or_two_lines

from nas import Study
from nas.cli import main
from nas.measure import device_memory
from nas.space import Architecture, Space
from nas.space.constraints import Figure
from nas.space.device import StepPeak
from nas.space.feasibility import survey

# Of the study that `tests_support` writes.
TOKENS_PER_STEP = 256
RUN = ["run", "study.yaml", "--quiet", "--trials", "3", "--set", "sampler=random"]


def tenth(measure: Callable[[Architecture], float]) -> int:
    """The limit that a tenth of the draws keep, or somewhat more where draws are equal, in a space of many sizes."""
    space = Path("space.yaml")
    text = space.read_text().replace("[16, 32]", "[16, 20, 24, 28, 32, 40]")
    space.write_text(text.replace("mlp_ratio:  2", "mlp_ratio:  {range: [1, 4]}"))
    seen = survey(Space.load("space.yaml"), [], draws=1000)
    values = sorted(measure(network) for network in seen.networks)
    limit = values[99]
    assert 0.8 < sum(value > limit for value in values) / 1000 <= 0.9
    return int(limit)


@pytest.mark.parametrize(
    ("measure", "setting"),
    [
        (Figure.parse("serve_bytes@context=512"), "constraints=['serve_bytes@context=512 <= {} B']"),
        (StepPeak(TOKENS_PER_STEP), "device_memory={} B"),
    ],
    ids=["constraint", "device"],
)
def test_a_limit_that_excludes_nine_draws_in_ten_trains_none_of_them(
    folder: Path, capsys: pytest.CaptureFixture[str], measure: Callable[[Architecture], float], setting: str
) -> None:
    limit = tenth(measure)
    words = ["--set", setting.format(limit), *(["--set", "device_reserve=0%"] if "device" in setting else [])]
    assert main([*RUN, *words]) == 0
    with Study.load("tiny") as study:
        trials = study.store.trials(study.store.study("tiny"))
    trained = [trial for trial in trials if trial.tokens]
    assert len(trained) == 3
    assert all(trial.state == "complete" and measure(trial.candidate.architecture) <= limit for trial in trained)
    over = [trial for trial in trials if measure(trial.candidate.architecture) > limit]
    assert over, "the sampler knew nothing of the limit, so some draw must have been over it"
    assert all(trial.state == "infeasible" and f"<= {limit} B" in trial.reason for trial in over)
    capsys.readouterr()
    assert main(["status"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.strip().splitlines()]
    header, row = lines[0], next(line for line in lines if line[0] == "tiny")
    counted = dict(zip(header, row, strict=True))
    assert (counted["complete"], counted["infeasible"]) == ("3", str(len(over)))


@pytest.mark.parametrize(
    "setting",
    ["constraints=['serve_bytes <= 1 KiB']", "device_memory=64 KiB",
     "objectives=[bits_per_byte, {name: serve_bytes, limit: 1 KiB}]"],
)  # fmt: skip
def test_an_impossible_limit_is_refused_with_the_nearest_that_is_not(
    folder: Path, capsys: pytest.CaptureFixture[str], setting: str
) -> None:
    assert main([*RUN, "--set", setting]) == 2
    shown = capsys.readouterr()
    words = ["0 of 4,096 draws are feasible", "excludes most of them", "that was drawn is", "the nearest limit"]
    assert is_one_or_two_lines(shown.err, words), shown.err
    assert not list(folder.glob("nas.db*"))


def test_the_nearest_limit_is_one_that_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "--set", "constraints=['serve_bytes <= 1 KiB']"]) == 2
    nearest = capsys.readouterr().err.partition("feasible: ")[2].splitlines()[0].partition(" (")[0]
    assert nearest.startswith("serve_bytes <= ")
    assert main([*RUN, "--trials", "1", "--set", f"constraints=['{nearest}']"]) == 0


def test_check_and_estimate_refuse_an_impossible_limit_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = folder / "study.yaml"
    study.write_text(study.read_text() + "constraints: [serve_bytes <= 1 KiB]\n")
    for command in ("check", "estimate"):
        assert main([command, "study.yaml"]) == 2
        assert is_one_or_two_lines(capsys.readouterr().err, ["feasible", "the nearest limit"])


def test_a_budget_of_flops_that_no_candidate_can_use_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = folder / "study.yaml"
    study.write_text(study.read_text().replace("tokens: 5_120", "flops: 1e3"))
    for command in ("estimate", "run"):
        assert main([command, "study.yaml"]) == 2
        words = ["'budget.flops for 2 steps <= 1000' excludes most", "the nearest limit"]
        assert is_one_or_two_lines(capsys.readouterr().err, words)


def test_the_memory_of_the_device_is_read_at_each_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    study = folder / "study.yaml"
    study.write_text(study.read_text() + "device_memory: auto\n")
    for trials, memory in ((1, 2**30), (2, 2**31)):
        monkeypatch.setattr(device_memory, "available_bytes", lambda memory=memory: memory)
        assert main(["run", "study.yaml", "--quiet", "--trials", str(trials)]) == 0
        with Study.load("tiny") as found:
            stored = found.store.study("tiny")
            assert stored.resolved["device_memory"] == "auto"
            assert stored.resolved["device_memory_bytes"] == memory
            devices = list(found.store.environments(stored)["device"])
    assert [device.rpartition(", ")[2] for device in devices] == ["1 GiB for a candidate", "2 GiB for a candidate"]
    monkeypatch.setattr(device_memory, "available_bytes", lambda: 2**17)
    capsys.readouterr()
    assert main(["run", "tiny", "--quiet", "--trials", "3"]) == 2
    assert "device_memory 128 KiB, 10% kept free" in capsys.readouterr().err
