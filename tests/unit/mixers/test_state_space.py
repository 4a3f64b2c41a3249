"""Mamba-2 against the published block, as transformers has it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nas.mixers.base import MixerConfig
from nas.mixers.state_space import Mamba2
from nas.specs import mixer_spec
from nas.specs.base import Surroundings

OPTIONS = {"expand": 2, "head_dim": 8, "state_dim": 16, "groups": 1, "conv": 4}


def make(**options: Any) -> Mamba2:
    around = Surroundings(width=32, max_context=128, positions="none")
    return Mamba2(MixerConfig(options=OPTIONS | options, around=around))


def published(mixer: Mamba2, groups: int) -> Any:
    transformers = pytest.importorskip("transformers")
    block = pytest.importorskip("transformers.models.mamba2.modeling_mamba2")
    config = transformers.Mamba2Config(
        hidden_size=32,
        num_hidden_layers=1,
        num_heads=mixer.heads,
        head_dim=mixer.head_dim,
        state_size=mixer.state_dim,
        expand=2,
        n_groups=groups,
        conv_kernel=4,
        chunk_size=16,
    )
    theirs = block.Mamba2Mixer(config, layer_idx=0)
    weights = dict(mixer.state_dict())
    weights["conv1d.weight"] = weights["conv1d.weight"].squeeze(1)
    theirs.load_state_dict(weights, strict=True)
    return theirs


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("groups", [1, 2])
def test_published_weights_give_the_published_outputs_and_gradients(groups: int) -> None:
    torch.manual_seed(0)
    mixer = make(groups=groups)
    theirs = published(mixer, groups)
    mine_BLD = torch.randn(2, 50, 32, requires_grad=True)
    their_BLD = mine_BLD.detach().clone().requires_grad_()
    found, expected = mixer(mine_BLD), theirs(their_BLD)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    direction = torch.randn_like(found)
    found.backward(direction)
    expected.backward(direction)
    torch.testing.assert_close(mine_BLD.grad, their_BLD.grad, rtol=1e-4, atol=1e-4)
    for name, parameter in theirs.named_parameters():
        mine = dict(mixer.named_parameters())[name].grad
        assert mine is not None
        torch.testing.assert_close(mine.view_as(parameter), parameter.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_prefill_and_steps_equal_the_published_block() -> None:
    torch.manual_seed(0)
    mixer = make()
    theirs = published(mixer, 1)
    x_BLD = torch.randn(2, 40, 32)
    kinds = {"cache_dtype": torch.float32, "recurrent_dtype": torch.float32, "device": torch.device("cpu")}
    with torch.no_grad():
        state = mixer.new_state(2, 40, **kinds)
        parts = [mixer.prefill(x_BLD[:, :30], state)]
        parts += [mixer.step(x_BLD[:, t], state, t)[:, None] for t in range(30, 40)]
        torch.testing.assert_close(torch.cat(parts, 1), theirs(x_BLD), rtol=1e-4, atol=1e-4)


def test_initial_rates_and_time_steps_are_as_published() -> None:
    mixer = make(head_dim=1)
    with torch.no_grad():
        rates, times = mixer.A_log.exp(), torch.nn.functional.softplus(mixer.dt_bias)
    assert 0.99 <= float(rates.min()) < 3 and 14 < float(rates.max()) <= 16.01
    assert 0.99e-3 <= float(times.min()) < float(times.max()) <= 1.01e-1
    assert bool((mixer.D == 1).all()) and bool((mixer.norm.weight == 1).all())


@pytest.mark.parametrize(
    ("options", "words"), [({"head_dim": 7}, "7 does not divide 64"), ({"groups": 3}, "3 does not divide 8")]
)
def test_broken_rules_name_the_numbers(options: dict[str, int], words: str) -> None:
    around = Surroundings(width=32, max_context=8, positions="none")
    (broken,) = mixer_spec("mamba2").broken_rules(OPTIONS | options, around)
    assert words in broken.text
