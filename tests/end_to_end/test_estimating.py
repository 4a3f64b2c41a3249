"""nas estimate and nas show: what a user sees of cost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests_support import is_one_or_two_lines

from nas.cli import main
from nas.cost import estimate
from nas.space import Architecture, Space


@pytest.fixture
def network(folder: Path) -> Architecture:
    """An architecture in a file."""
    values = {"family": "decoder", "width": 32, "max_context": 64, "layers": [{"mixer": "full", "heads": 2}]}
    found = Architecture.from_mapping(values)
    (folder / "network.json").write_text(found.to_json())
    learned = Architecture.from_mapping(values | {"positions": "learned"})
    (folder / "learned.json").write_text(learned.to_json())
    return found


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main([*words]) == 0
    return capsys.readouterr().out


def test_a_space_shows_what_its_limits_exclude_and_where_its_draws_lie(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = folder / "space.yaml"
    space.write_text(space.read_text() + "constraints: [width <= 16, depth <= 1]\n")
    out = shown(capsys, "estimate", "space.yaml", "--draws", "400")
    feasible = re.search(r"(\d+) of 400 draws are feasible \((.+)%\)", out)
    alone = re.search(r"  width <= 16 +(.+)% +(.+)%", out)
    assert feasible is not None and alone is not None
    assert 15 < float(feasible[2]) < 35 and 40 < float(alone[1]) < 60 and 15 < float(alone[2]) < 35
    sections = re.split(r"^(?=\w.*, draws from each)", out, flags=re.MULTILINE)[1:]
    assert [section.split()[0] for section in sections] == ["serve_bytes,", "train_peak_bytes,", "training"]
    for section in sections:
        bars = section.splitlines()[1:]
        assert sum(int(line.split()[-1]) for line in bars) == 400
        assert any("░" in line for line in bars) and any("█" in line for line in bars)


def test_an_encoder_is_shown_by_its_prefill(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "estimate", "encoder", "--draws", "50")
    assert "prefill_peak_bytes, draws" in out and "serve_bytes, draws" not in out


def test_the_time_of_a_study_is_its_flops_over_a_known_speed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unknown = shown(capsys, "estimate", "study.yaml", "--draws", "200")
    assert "no speed known: give --speed" in unknown and "about" not in unknown
    costs = [estimate(network) for network in (Space.load("space.yaml").sample(seed) for seed in range(200))]
    mean = 5120 * sum(cost.flops_per_token for cost in costs) / len(costs)
    out = shown(capsys, "estimate", "study.yaml", "--draws", "200", "--speed", "1M")
    about = re.search(r"about ([\d.]+) min, one candidate at a time, at 1M FLOP/s: as --speed says", out)
    assert about is not None
    assert float(about[1]) == pytest.approx(5 * mean / 1e6 / 60, rel=0.1)


def test_the_speed_is_that_of_finished_trials_or_of_a_few_steps(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "study.yaml", "--quiet", "--trials", "1"]) == 0
    out = shown(capsys, "estimate", "study.yaml", "--draws", "20", "--store", "sqlite:///nas.db")
    assert "FLOP/s: 1 finished trial of study 'tiny' on " in out
    study = folder / "study.yaml"
    study.write_text(study.read_text().replace("name: tiny\n", "name: other\n"))
    out = shown(capsys, "estimate", "study.yaml", "--draws", "20", "--store", "sqlite:///nas.db")
    assert "1 finished trial of other studies (tiny)" in out
    out = shown(capsys, "estimate", "study.yaml", "--draws", "20", "--measure")
    assert re.search(r"at [\d.]+[kMGT]? FLOP/s: 3 training steps of the median draw on ", out)


def test_the_longest_context_within_a_limit(network: Architecture, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "estimate", "network.json", "--max-memory", "1 MiB", "--batch", "2")
    for name in ("serve_bytes", "prefill_peak_bytes", "train_peak_bytes"):
        found = re.search(rf"{name} +([\d,]+) tokens \(.*\)(, beyond max_context 64)?", out)
        assert found is not None
        tokens = int(found[1].replace(",", ""))
        within, beyond = (getattr(estimate(network, context=tokens + more, batch=2), name) for more in (0, 1))
        assert within <= 2**20 < beyond
        assert (found[2] is not None) == (tokens > 64)
    learned = shown(capsys, "estimate", "learned.json", "--max-memory", "1 GiB")
    assert learned.count("64 tokens") == 3 and learned.count("learned positions end there") == 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["network.json", "--max-memory", "1 KiB"], ["below the weights", "the nearest limit"]),
        (["network.json", "--max-memory", "1 mb"], ["'MB'", "'MiB'"]),
        (["network.json", "--max-memory", "-1 MiB"], ["above 0 bytes"]),
        (["network.json", "--max-memory", "1 MiB", "--context", "8"], ["leave one out"]),
        (["learned.json", "--context", "65"], ["end at 64 tokens", "at most 64"]),
        (["space.yaml", "--max-memory", "1 MiB"], ["one network"]),
        (["space.yaml", "--speed", "1G"], ["a space has no budget"]),
        (["study.yaml", "--speed", "0"], ["above 0"]),
        (["study.yaml", "--speed", "1X"], ["unknown unit 'X'"]),
        (["study.yaml", "--store", "sqlite:///none.db"], ["none.db"]),
        (["study.yaml", "--draws", "0"], ["at least 1"]),
    ],
)
def test_bad_input_names_the_nearest_that_is_valid(
    network: Architecture, capsys: pytest.CaptureFixture[str], words: list[str], expected: list[str]
) -> None:
    assert main(["estimate", *words]) == 2
    said = capsys.readouterr()
    assert is_one_or_two_lines(said.err, expected), said.err
    assert not said.out


def test_a_hint_of_the_nearest_limit_holds_one_token(network: Architecture, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "network.json", "--max-memory", "1 KiB"]) == 2
    nearest = re.search(r"holds one token is (\d+) B", capsys.readouterr().err)
    assert nearest is not None
    out = shown(capsys, "estimate", "network.json", "--max-memory", f"{nearest[1]} B")
    assert re.search(r"serve_bytes +1 tokens", out)


def test_trials_are_shown_together_with_their_memory_by_context(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "study.yaml", "--quiet", "--trials", "2"]) == 0
    out = shown(capsys, "show", "tiny", "0", "1", "--plot", "memory.png")
    assert out.count("Measurements") == 2
    assert "serve_bytes by context in tokens" in out and "train_peak_bytes by context in tokens" in out
    assert "o trial 0, + trial 1" in out
    assert (folder / "memory.png").read_bytes().startswith(b"\x89PNG")
    assert main(["show", "tiny", "0", "--plot", "memory.svg"]) == 2
    assert "memory.png" in capsys.readouterr().err
