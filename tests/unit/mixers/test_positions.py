from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.mixers.positions import RelativeBias, alibi_slopes, rope_frequencies, rope_temperature, rotate
from nas.specs.base import Rope

YARN = Rope(theta=10_000.0, scaling="yarn", factor=4.0, original_context=2048.0)


def llama_rotation(x_BLHF: Tensor, start: int, theta: float) -> Tensor:
    """x·cos + rotate_half(x)·sin, as Llama's authors and their followers write it."""
    half = x_BLHF.shape[-1] // 2
    angles = torch.outer(
        torch.arange(start, start + x_BLHF.shape[1], dtype=x_BLHF.dtype),
        1 / theta ** (torch.arange(half, dtype=x_BLHF.dtype) / half),
    )
    angles = torch.cat([angles, angles], -1)[None, :, None]
    rotated_half = torch.cat([-x_BLHF[..., half:], x_BLHF[..., :half]], -1)
    return x_BLHF * angles.cos() + rotated_half * angles.sin()


def test_the_rotation_is_llamas() -> None:
    x = torch.randn(2, 9, 3, 8, dtype=torch.float64)
    expected = llama_rotation(x, 5, 500_000.0)
    torch.testing.assert_close(rotate(x, 5, Rope(theta=500_000.0), time_axis=1), expected, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("rope", [Rope(theta=100.0), Rope(theta=100.0, dimensions=2), YARN])
def test_time_may_be_the_first_axis(rope: Rope) -> None:
    x = torch.randn(2, 9, 3, 8)
    places = torch.randint(0, 50, (2, 9, rope.dimensions))
    for positions in (4, places):
        batch_first = rotate(x, positions, rope, time_axis=1)
        time_first = rotate(x.transpose(0, 1), positions, rope, time_axis=0)
        assert torch.equal(time_first.transpose(0, 1), batch_first)


def test_scores_depend_on_the_distance_alone() -> None:
    q, k = (torch.randn(1, 1, 1, 8, dtype=torch.float64) for _ in range(2))

    def score(query_at: int, key_at: int) -> float:
        turned = [rotate(x, at, Rope(theta=10.0), time_axis=1) for x, at in ((q, query_at), (k, key_at))]
        return float((turned[0] * turned[1]).sum())

    assert abs(score(7, 3) - score(104, 100)) < 1e-12
    assert abs(score(7, 3) - score(8, 3)) > 1e-6


@pytest.mark.parametrize("rope", [Rope(theta=100.0), Rope(theta=100.0, dimensions=2), YARN])
def test_decoded_tokens_turn_as_those_of_a_pass_do(rope: Rope) -> None:
    x = torch.randn(2, 150, 3, 8)
    together = rotate(x, 0, rope, time_axis=1)
    with torch.inference_mode():
        in_steps = [rotate(x[:, at : at + 1], at, rope, time_axis=1) for at in range(150)]
    with torch.no_grad():
        again = rotate(x[:, 63:64], 63, rope, time_axis=1)
    torch.testing.assert_close(torch.cat(in_steps, 1), together, rtol=0.0, atol=1e-6)
    assert torch.equal(again, in_steps[63])
    assert not again.is_inference()


@pytest.mark.parametrize("scaling", ["none", "linear", "yarn"])
@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("time_axis", [0, 1])
@pytest.mark.parametrize("given", [False, True])
def test_the_gradient_is_the_rotation_back(scaling: str, dimensions: int, time_axis: int, given: bool) -> None:
    x = torch.randn(2, 4, 3, 8, dtype=torch.float64, requires_grad=True)
    rope = Rope(theta=10.0, scaling=scaling, factor=4.0, original_context=64.0, dimensions=dimensions)
    batch_and_time = (2, 4) if time_axis == 1 else (4, 2)
    positions = torch.randint(0, 100, (*batch_and_time, dimensions)) if given else 3
    assert torch.autograd.gradcheck(lambda x: rotate(x, positions, rope, time_axis=time_axis), x)


def test_bfloat16_keeps_far_positions_apart() -> None:
    x = torch.ones(1, 2, 1, 8, dtype=torch.bfloat16)
    turned = rotate(x, 50_000, Rope(theta=10_000.0), time_axis=1)
    exact = rotate(x.float(), 50_000, Rope(theta=10_000.0), time_axis=1)
    torch.testing.assert_close(turned.float(), exact, rtol=0.0, atol=0.02)


@pytest.mark.parametrize("rope", [Rope(), Rope(dimensions=2), YARN])
def test_given_positions_turn_as_counted_ones_do(rope: Rope) -> None:
    x = torch.randn(2, 9, 3, 8)
    counted = rotate(x, 5, rope, time_axis=1)
    places_BL = torch.arange(5, 14).expand(2, 9)
    torch.testing.assert_close(rotate(x, places_BL, rope, time_axis=1), counted, rtol=0.0, atol=1e-6)
    in_full = torch.stack([places_BL, torch.zeros_like(places_BL)], -1)[..., : rope.dimensions]
    torch.testing.assert_close(rotate(x, in_full, rope, time_axis=1), counted, rtol=0.0, atol=1e-6)


def test_each_token_turns_by_its_own_position() -> None:
    x = torch.randn(2, 5, 3, 8, dtype=torch.float64)
    places_BL = torch.tensor([[0, 7, 7, 2, 1000], [4, 3, 2, 1, 0]])
    turned = rotate(x, places_BL, Rope(), time_axis=1)
    for row in range(2):
        for time in range(5):
            alone = rotate(x[row : row + 1, time : time + 1], int(places_BL[row, time]), Rope(), time_axis=1)
            torch.testing.assert_close(turned[row, time], alone[0, 0], rtol=0.0, atol=1e-12)


def test_two_numbers_turn_a_half_of_the_features_each() -> None:
    x = torch.randn(2, 5, 3, 8, dtype=torch.float64)
    places = torch.randint(0, 100, (2, 5, 2))
    turned = rotate(x, places, Rope(dimensions=2), time_axis=1)
    halves = [rotate(x[..., 4 * i : 4 * i + 4], places[..., i], Rope(), time_axis=1) for i in range(2)]
    torch.testing.assert_close(turned, torch.cat(halves, -1), rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("scaling", ["default", "linear", "yarn"])
@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize("head_dim", [8, 64, 128])
@pytest.mark.parametrize("factor", [1.0, 4.0, 40.0])
@pytest.mark.parametrize("original", [64, 2048, 4096])
def test_frequencies_are_those_of_transformers(
    scaling: str, theta: float, head_dim: int, factor: float, original: int
) -> None:
    transformers = pytest.importorskip("transformers")
    utils = pytest.importorskip("transformers.modeling_rope_utils")
    parameters = {"rope_type": scaling, "rope_theta": theta}
    if scaling != "default":
        parameters |= {"factor": factor}
    if scaling == "yarn":
        parameters |= {"original_max_position_embeddings": original}
    config = transformers.LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        head_dim=head_dim,
        rope_parameters=parameters,
        max_position_embeddings=int(original * factor),
    )
    rope = Rope(
        theta=theta, scaling=scaling.replace("default", "none"), factor=factor, original_context=float(original)
    )
    if scaling == "default":
        expected, temperature = theta ** (-torch.arange(0, head_dim, 2) / head_dim), 1.0
    else:
        expected, temperature = utils.ROPE_INIT_FUNCTIONS[scaling](config, torch.device("cpu"))
    made = rope_frequencies(rope, head_dim, dtype=torch.float32, device=torch.device("cpu"))
    torch.testing.assert_close(made, expected, rtol=1e-6, atol=0.0)
    assert rope_temperature(rope) == pytest.approx(temperature)


def test_yarn_grows_queries_and_keys() -> None:
    x = torch.randn(1, 3, 1, 64)
    assert rotate(x, 0, YARN, time_axis=1).norm() / x.norm() == pytest.approx(0.1 * math.log(4) + 1)


def test_yarn_lives_with_a_theta_of_one() -> None:
    frequencies = rope_frequencies(
        Rope(theta=1.0, scaling="yarn", factor=2.0, original_context=64.0),
        8,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    assert frequencies.isfinite().all()


def test_alibis_slopes_are_those_of_the_paper() -> None:
    assert alibi_slopes(8, torch.device("cpu")).tolist() == [2.0**-i for i in range(1, 9)]
    # The 8 of the power below, then every other one of the 16 of the power above.
    twelve = alibi_slopes(12, torch.device("cpu"))
    torch.testing.assert_close(twelve[8:], torch.tensor([2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]))
    assert torch.equal(twelve[:8], alibi_slopes(8, torch.device("cpu")))
    assert alibi_slopes(1, torch.device("cpu")).tolist() == [2.0**-8]
    assert all(len(alibi_slopes(heads, torch.device("cpu"))) == heads for heads in range(1, 40))


@pytest.fixture(scope="module")
def t5() -> Any:
    pytest.importorskip("transformers")
    return pytest.importorskip("transformers.models.t5.modeling_t5")


@pytest.mark.parametrize("looks_ahead", [True, False])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (16, 40), (64, 1000)])
def test_biases_are_t5s(t5: Any, looks_ahead: bool, buckets: int, max_distance: int) -> None:
    config = t5.T5Config(
        num_heads=3,
        d_model=12,
        d_kv=4,
        relative_attention_num_buckets=buckets,
        relative_attention_max_distance=max_distance,
        is_decoder=not looks_ahead,
    )
    theirs = t5.T5Attention(config, has_relative_attention_bias=True)
    ours = RelativeBias(3, looks_ahead=looks_ahead, buckets=buckets, max_distance=max_distance)
    ours.load_state_dict({"relative_attention_bias.weight": theirs.relative_attention_bias.weight.detach()})
    length = 2 * max_distance + 300
    bias_HLS = ours(torch.arange(length), torch.arange(length))
    assert torch.equal(bias_HLS, theirs.compute_bias(length, length)[0])
    later_HLS = ours(torch.arange(7, 9), torch.arange(length))
    assert torch.equal(later_HLS, theirs.compute_bias(2, length, past_seen_tokens=7)[0])


def test_the_gradient_of_biases() -> None:
    bias = RelativeBias(2, looks_ahead=True, buckets=8, max_distance=10).double()
    queries, keys = torch.arange(3, 8), torch.arange(30)
    upstream_HLS = torch.randn(2, 5, 30, dtype=torch.float64)
    (bias(queries, keys) * upstream_HLS).sum().backward()
    weight = bias.relative_attention_bias.weight
    buckets_LS = bias._buckets_of(keys - queries[:, None])
    expected = torch.zeros_like(weight).index_add(0, buckets_LS.flatten(), upstream_HLS.flatten(1).T)
    torch.testing.assert_close(weight.grad, expected, rtol=1e-12, atol=1e-12)
