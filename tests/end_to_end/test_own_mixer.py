"""The page on mixers: its example of a user's own mixer runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tests_support import write_study

from nas import Space, build, estimate
from nas.cli import main
from nas.space.architecture import Architecture
from nas.specs.tasks import TaskShape
from nas.tasks.inputs import Inputs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "mixers.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    spec, module = blocks("python")
    (tmp_path / "running_mean.py").write_text(spec, encoding="utf-8")
    (tmp_path / "running_mean_torch.py").write_text(module, encoding="utf-8")
    (tmp_path / "with_mine.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "with_mine.yaml"


def network(family: str = "decoder", head: str = "causal_lm") -> Architecture:
    layers = [{"mixer": "running_mean:RunningMean"}, {"mixer": "full", "heads": 2}]
    mapping: dict[str, Any] = {"family": family, "width": 32, "max_context": 64, "layers": layers}
    return Architecture.from_mapping(mapping).bind(TaskShape(vocabulary=50, head=head))


def test_a_space_may_choose_it(space: Path) -> None:
    drawn = {layer.mixer for seed in range(20) for layer in Space.load(space).sample(seed).layers}
    assert drawn == {"full", "running_mean:RunningMean"}
    assert main(["check", str(space)]) == 0
    assert main(["estimate", str(space)]) == 0


def test_its_three_forms_agree_and_its_state_has_the_size_it_claims(space: Path) -> None:
    model = build(network(), seed=0).double()
    tokens_BL = torch.randint(50, (3, 20), generator=torch.Generator().manual_seed(0))
    state = model.new_state(3, 20, cache_dtype=torch.float64, recurrent_dtype=torch.float64)
    with torch.inference_mode():
        expected = model(tokens_BL)
        found = [model.prefill(tokens_BL[:, :7], state)]
        found += [model.step(tokens_B, state) for tokens_B in tokens_BL[:, 7:].unbind(1)]
    torch.testing.assert_close(torch.stack(found, 1), expected[:, 6:], rtol=0.0, atol=1e-10)
    assert build(network(), seed=0).new_state(1, 20).bytes == estimate(network(), context=20).state_bytes
    assert sum(weight.numel() for weight in model.parameters()) == estimate(network()).parameters


def test_it_serves_an_encoder_too(space: Path) -> None:
    model = build(network("encoder", "masked_lm"), seed=0).double()
    tokens_BL = torch.randint(50, (1, 20), generator=torch.Generator().manual_seed(0))
    padded_BL = torch.cat([tokens_BL, torch.zeros(1, 5, dtype=torch.int64)], 1)
    with torch.inference_mode():
        alone = model.features(Inputs(tokens_BL))
        padded = model.features(Inputs(padded_BL, lengths_B=torch.tensor([20])))
    torch.testing.assert_close(padded[:, :20], alone, rtol=0.0, atol=1e-10)


def test_a_study_trains_it(space: Path) -> None:
    write_study(space.parent)
    study = (space.parent / "study.yaml").read_text(encoding="utf-8")
    (space.parent / "study.yaml").write_text(re.sub(r"(?m)^space:.*$", "space: with_mine.yaml", study))
    assert main(["run", "study.yaml", "--quiet", "--trials", "4"]) == 0
