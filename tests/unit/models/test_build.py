from __future__ import annotations

import pytest
import torch
from torch import nn

from nas.errors import SpaceError
from nas.models.build import build
from nas.models.decoder import Decoder
from nas.space.architecture import Architecture
from nas.specs.tasks import TaskShape


def architecture(**changes: object) -> Architecture:
    layers = [{"mixer": "full", "short_conv": 3}, {"mixer": "sliding_window", "window": 8}]
    return Architecture.from_mapping({"family": "decoder", "width": 64, "max_context": 64, "layers": layers, **changes})


BOUND = architecture().bind(TaskShape(vocabulary=300, head="causal_lm"))


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return model.state_dict()


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(weights(one)[name], tensor) for name, tensor in weights(other).items())


def test_an_unbound_architecture_is_a_byte_level_language_model() -> None:
    model = build(architecture())
    assert model(torch.zeros(1, 4, dtype=torch.int64)).shape == (1, 4, 257)


def test_a_seed_fixes_the_weights() -> None:
    assert equal(build(BOUND, seed=3), build(BOUND, seed=3))
    assert not equal(build(BOUND, seed=3), build(BOUND, seed=4))


def test_a_seeded_build_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    build(BOUND, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_a_seed_the_global_random_state_fixes_the_weights() -> None:
    torch.manual_seed(3)
    unseeded = build(BOUND)
    assert equal(unseeded, build(BOUND, seed=3))


def test_initial_weights_shrink_with_width_and_into_the_residual_stream_with_depth() -> None:
    model = build(BOUND, seed=0)
    assert isinstance(model, Decoder)
    std = 0.02 * (1024 / 64) ** 0.5
    assert model.embed_tokens.weight.std().item() == pytest.approx(std, rel=0.05)
    found = {name: tensor.std().item() for name, tensor in model.layers[0].state_dict().items()}
    assert found["mixer.q_proj.weight"] == pytest.approx(std, rel=0.05)
    assert found["mlp.gate_proj.weight"] == pytest.approx(std, rel=0.05)
    assert found["mixer.o_proj.weight"] == pytest.approx(std / 2, rel=0.05)
    assert found["mlp.down_proj.weight"] == pytest.approx(std / 2, rel=0.05)


def test_initial_logits_are_near_to_uniform() -> None:
    model = build(BOUND, seed=0)
    tokens_BL = torch.randint(300, (4, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = nn.functional.cross_entropy(model(tokens_BL).flatten(0, 1), tokens_BL.roll(-1, 1).flatten())
    assert loss.item() == pytest.approx(torch.tensor(300.0).log().item(), abs=0.5)


def test_a_network_can_be_built_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = build(BOUND, seed=0)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_an_implementation_that_is_no_mixer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.specs.mixers.softmax.FullAttention.implementation", "builtins:repr")
    with pytest.raises(SpaceError, match=r"builtins:repr must derive from nas\.mixers\.base\.Mixer"):
        build(BOUND)
