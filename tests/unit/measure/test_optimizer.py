"""The learning rates of an optimizer's groups, with and without a rule for the width."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.files import Files
from nas.measure.checkpoints import read_checkpoint
from nas.measure.optimizer import make_optimizer, set_learning_rate
from nas.measure.train import TrainingEvaluator
from nas.models.build import build
from nas.records import Candidate, Job, Schedule, TaskReference
from nas.space import Architecture
from nas.space.learning_rate_rule import BASE_WIDTH
from nas.tasks.load import load_task

CHOSEN = {"learning_rate": 1e-2, "weight_decay": 0.1, "beta2": 0.95}
LAYERS = [{"mixer": "full", "heads": 2, "short_conv": 3}, {"mixer": "lstm", "hidden": 32}]


def architecture(width: int = 32, **words: Any) -> Architecture:
    values = {"family": "decoder", "width": width, "max_context": 32, "layers": LAYERS, **words}
    return Architecture.from_mapping(values)


def groups(network: Architecture, base: float | None) -> dict[str, tuple[float, float]]:
    """Name of each weight → its learning rate and its decay."""
    model = build(network)
    chosen = CHOSEN if base is None else {**CHOSEN, BASE_WIDTH: base}
    optimizer = make_optimizer(model, chosen, width=network.width, fused=False)
    names = {id(weight): name for name, weight in model.named_parameters()}
    found = {
        names[id(weight)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    assert len(found) == len(names) == sum(len(group["params"]) for group in optimizer.param_groups)
    return found


def test_without_a_rule_all_weights_have_one_rate_and_matrices_alone_decay() -> None:
    found = groups(architecture(), None)
    assert {rate for rate, _ in found.values()} == {1e-2}
    assert found["embed_tokens.weight"][1] == 0.1 and found["norm.weight"][1] == 0.0


def test_the_rule_scales_linear_maps_and_recurrent_cells_alone() -> None:
    found = groups(architecture(32), 8)
    scaled = {name for name, (rate, _) in found.items() if rate == pytest.approx(1e-2 * 8 / 32)}
    constant = {name for name, (rate, _) in found.items() if rate == 1e-2}
    assert scaled | constant == set(found)
    assert {"layers.0.mixer.q_proj.weight", "layers.0.mlp.down_proj.weight"} <= scaled
    assert {"layers.1.mixer.rnn.weight_ih_l0", "layers.1.mixer.rnn.weight_hh_l0"} <= scaled
    assert {"embed_tokens.weight", "norm.weight", "layers.1.mixer.rnn.bias_ih_l0"} <= constant
    assert any("conv" in name for name in constant) and not any("conv" in name for name in scaled)


def test_a_head_of_its_own_is_scaled_and_a_tied_one_is_the_embedding() -> None:
    assert "lm_head.weight" not in groups(architecture(32), 8)
    untied = groups(architecture(32, tied_embeddings=False), 8)
    assert untied["lm_head.weight"][0] == pytest.approx(1e-2 / 4) and untied["embed_tokens.weight"][0] == 1e-2


def test_a_narrower_network_than_the_base_gets_larger_rates() -> None:
    assert groups(architecture(16), 64)["layers.0.mixer.q_proj.weight"][0] == pytest.approx(4e-2)


def test_the_rate_of_a_step_keeps_each_groups_share() -> None:
    optimizer = make_optimizer(build(architecture(32)), {**CHOSEN, BASE_WIDTH: 8.0}, width=32, fused=False)
    set_learning_rate(optimizer, 2e-2)
    assert {group["lr"] for group in optimizer.param_groups} == {2e-2, 5e-3}


def trained(tmp_path: Path, training: dict[str, float], folder: str) -> dict[str, torch.Tensor]:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("".join(f"{number} times {number} is {number * number}.\n" for number in range(400)))
    task = TaskReference(name="language_modeling", options=(("corpus", str(corpus)), ("evaluation_bytes", 256)))
    network = architecture(16).bind(load_task(task).shape)
    job = Job(
        kind="train",
        candidate=Candidate(network, tuple(training.items())),
        task=task,
        seed=1,
        schedule=Schedule(tokens_per_step=128, rung_steps=(2, 6)),
        from_step=0,
        to_step=2,
        files=str(tmp_path / "files"),
        folder=folder,
        trainer=(("accelerator", "cpu"),),
    )
    first = TrainingEvaluator().evaluate(job)
    last = TrainingEvaluator().evaluate(replace(job, from_step=2, to_step=6, checkpoint=first.checkpoint))
    assert last.failure is None and last.checkpoint is not None, last.failure
    return dict(read_checkpoint(last.checkpoint, Files(str(tmp_path / "files"))).weights)


def test_at_the_base_width_training_is_that_without_a_rule_bit_for_bit(tmp_path: Path) -> None:
    plain = trained(tmp_path, {"learning_rate": 5e-3}, "plain")
    at_base = trained(tmp_path, {"learning_rate": 5e-3, BASE_WIDTH: 16.0}, "base")
    beyond = trained(tmp_path, {"learning_rate": 5e-3, BASE_WIDTH: 8.0}, "beyond")
    assert all(torch.equal(plain[name], at_base[name]) for name in plain)
    assert not all(torch.equal(plain[name], beyond[name]) for name in plain)
