"""What is special about linear attention, retention and gated linear attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nas import catalog
from nas.mixers.base import Layout, Mixer, MixerConfig
from nas.mixers.gating import GatedRMSNorm
from nas.specs import mixer_spec
from nas.specs.base import Surroundings


def make(name: str, *, looks_ahead: bool = False, width: int = 64, **options: Any) -> Mixer[Any]:
    torch.manual_seed(0)
    around = Surroundings(width=width, max_context=128, positions="none", looks_ahead=looks_ahead)
    spec = mixer_spec(name)
    given = {key: entry.default for key, entry in spec.keys.items() if entry.default is not None} | options
    complete = spec.complete(given, around)
    assert not list(spec.broken_rules(complete, around))
    mixer: Mixer[Any] = catalog.load_target(spec.implementation, what="mixer")(
        MixerConfig(options=complete, around=around)
    )
    return mixer


def test_defaults_are_derived_from_the_width() -> None:
    around = Surroundings(width=96, max_context=8, positions="rope")
    heads = {"heads": 4}
    assert mixer_spec("linear").complete({**heads, "feature_map": "elu"}, around)["key_dim"] == 24
    assert mixer_spec("linear").complete({**heads, "feature_map": "taylor"}, around)["key_dim"] == 16
    assert mixer_spec("retention").complete({**heads, "key_dim": 8}, around)["value_dim"] == 8
    gated = mixer_spec("gated_linear").complete(heads, around)
    assert (gated["key_dim"], gated["value_dim"]) == (12, 24)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("linear", {"heads": 5, "feature_map": "elu"}, "5 does not divide 64"),
        ("linear", {"heads": 5, "feature_map": "taylor"}, "5 does not divide 64"),
        ("linear", {"heads": 4, "feature_map": "cosine"}, "elu or taylor, not cosine"),
        ("retention", {"heads": 5, "output_gate": True}, "5 does not divide 64"),
        ("retention", {"heads": 64, "output_gate": True}, "64 / 64 = 1"),
        ("retention", {"heads": 4, "key_dim": 7, "output_gate": True}, "multiple of 2, not 7"),
        ("gated_linear", {"heads": 5, "output_gate": True, "conv": 0}, "5 does not divide 64"),
    ],
)
def test_broken_rules_name_the_numbers(name: str, options: dict[str, Any], words: str) -> None:
    spec, around = mixer_spec(name), Surroundings(width=64, max_context=8, positions="rope")
    (broken,) = spec.broken_rules(spec.complete(options, around), around)
    assert words in broken.text


def test_heads_need_not_divide_the_width_where_their_features_are_given() -> None:
    spec, around = mixer_spec("gated_linear"), Surroundings(width=64, max_context=8, positions="rope")
    options = {"heads": 5, "key_dim": 3, "value_dim": 4, "output_gate": True, "conv": 0}
    assert not list(spec.broken_rules(spec.complete(options, around), around))


def test_outputs_of_linear_attention_are_means_of_values() -> None:
    for feature_map in ("elu", "taylor"):
        mixer = make("linear", feature_map=feature_map).double()
        x_BLD = torch.randn(2, 100, 64).double()
        with torch.no_grad():
            mixer.o_proj.weight.copy_(torch.eye(64))
            y_BLD, v_BLD = mixer(x_BLD), mixer.v_proj(x_BLD)
        assert bool((y_BLD <= v_BLD.cummax(1).values + 1e-5).all())
        assert bool((y_BLD >= v_BLD.cummin(1).values - 1e-5).all())


def test_gates_that_forget_as_fast_as_can_be_stay_finite_and_exact() -> None:
    mixer = make("gated_linear")
    nn.init.constant_(mixer.gk_proj[1].bias, -1e4)
    x_BLD = torch.randn(1, 100, 64)
    with torch.no_grad():
        single = mixer(x_BLD)
        double = mixer.double()(x_BLD.double())
    torch.testing.assert_close(single.double(), double, rtol=0.0, atol=1e-5 * float(double.abs().max()))


def test_lengths_as_prefix_are_the_same_as_equal_numbers() -> None:
    # An encoder gives the lengths themselves, which spares linear attention its causal scan.
    lengths_B = torch.tensor([50, 3])
    for name in ("linear", "retention", "gated_linear"):
        mixer, x_BLD = make(name, looks_ahead=True), torch.randn(2, 50, 64)
        same = mixer(x_BLD, Layout(prefix=lengths_B, lengths_B=lengths_B))
        copied = mixer(x_BLD, Layout(prefix=lengths_B.clone(), lengths_B=lengths_B))
        for row, length in enumerate(lengths_B.tolist()):
            torch.testing.assert_close(same[row, :length], copied[row, :length])


@pytest.mark.parametrize("gate_first", [False, True])
@pytest.mark.parametrize("weights", [0, 4, 12])
def test_gated_norm_equals_its_formula(gate_first: bool, weights: int) -> None:
    torch.manual_seed(0)
    norm = GatedRMSNorm(4, weights=weights, gate_first=gate_first).double()
    x, gate = (torch.randn(2, 5, 12).double().requires_grad_() for _ in range(2))
    weight = nn.init.normal_(norm.weight).repeat(12 // weights) if norm.weight is not None else 1

    def normed(y: torch.Tensor) -> torch.Tensor:
        y = y.unflatten(-1, (3, 4))
        return (y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt()).flatten(-2) * weight

    swish = nn.functional.silu(gate)
    expected = normed(x * swish) if gate_first else normed(x) * swish
    torch.testing.assert_close(norm(x, gate), expected)
    torch.testing.assert_close(norm(x, None), normed(x))
    assert torch.autograd.gradcheck(lambda *parts: norm(*parts), (x, gate))
    if norm.weight is not None:
        found = torch.autograd.grad(norm(x, gate).square().sum(), norm.weight)
        torch.testing.assert_close(found, torch.autograd.grad(expected.square().sum(), norm.weight))
