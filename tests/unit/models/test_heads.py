from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from nas.models.build import build
from nas.models.decoder import SingleStack
from nas.models.encoder_decoder import EncoderDecoder
from nas.models.heads import at_each_position, last_token, mean_token
from nas.space.architecture import Architecture
from nas.specs.tasks import TaskShape
from nas.tasks.inputs import Inputs

WIDTH, VOCABULARY = 16, 30


def model(family: str, head: str, labels: int | None = None, **changes: Any) -> SingleStack:
    layers = [{"mixer": "full"}, {"mixer": "full"}]
    plan = Architecture.from_mapping(
        {"family": family, "width": WIDTH, "max_context": 20, "layers": layers, **changes}
    ).bind(TaskShape(vocabulary=VOCABULARY, head=head, labels=labels))
    made = build(plan, seed=0)
    assert isinstance(made, SingleStack)
    return made


def test_the_last_and_the_mean_token_leave_out_the_padding() -> None:
    x_BLD, lengths_B = torch.randn(3, 5, 2), torch.tensor([1, 5, 3])
    rows = [x_BLD[row, :length] for row, length in enumerate(lengths_B.tolist())]
    torch.testing.assert_close(last_token(x_BLD, lengths_B), torch.stack([row_LD[-1] for row_LD in rows]))
    torch.testing.assert_close(mean_token(x_BLD, lengths_B), torch.stack([row_LD.mean(0) for row_LD in rows]))
    torch.testing.assert_close(last_token(x_BLD, None), x_BLD[:, -1])
    torch.testing.assert_close(mean_token(x_BLD, None), x_BLD.mean(1))


@pytest.mark.parametrize("norm", ["rms", "layer"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_masked_head_is_dense_gelu_norm_and_a_biased_map(norm: str, tied: bool) -> None:
    net = model("encoder", "masked_lm", norm=norm, tied_embeddings=tied)
    weights = net.state_dict()
    with torch.no_grad():
        net.get_parameter("lm_head.bias").normal_()
        x = torch.randn(4, WIDTH)
        h = functional.gelu(x @ weights["lm_head.transform.dense.weight"].T)
        scale = weights["lm_head.transform.norm.weight"]
        if norm == "rms":
            h = functional.rms_norm(h, (WIDTH,), scale, eps=1e-6)
        else:
            h = functional.layer_norm(h, (WIDTH,), scale, eps=1e-5)
        matrix = weights["embed_tokens.weight" if tied else "lm_head.weight"]
        torch.testing.assert_close(net.head(x), h @ matrix.T + weights["lm_head.bias"])


@pytest.mark.parametrize(
    ("family", "head", "names"),
    [
        ("decoder", "causal_lm", []),
        ("decoder", "sequence_classification", ["score.weight"]),
        ("decoder", "token_classification", ["score.bias", "score.weight"]),
        ("decoder", "span", ["score.bias", "score.weight"]),
        ("encoder", "span", ["score.bias", "score.weight"]),
        ("encoder", "masked_lm", ["lm_head.bias", "lm_head.transform.dense.weight", "lm_head.transform.norm.weight"]),
        ("encoder", "token_classification", ["score.bias", "score.weight"]),
        (
            "encoder",
            "sequence_classification",
            ["score.bias", "score.transform.dense.weight", "score.transform.norm.weight", "score.weight"],
        ),
        ("prefix_lm", "infilling_lm", []),
        *(
            (
                family,
                "autoencoder",
                [
                    "lm_head.bias",
                    *(f"lm_head.transform.{place}.{part}.weight" for place in (0, 1) for part in ("dense", "norm")),
                ],
            )
            for family in ("decoder", "encoder")
        ),
    ],
)
def test_a_head_has_these_weights(family: str, head: str, names: list[str]) -> None:
    labels = 3 if head.endswith("classification") else None
    weights = model(family, head, labels).state_dict()
    assert sorted(name for name in weights if name.startswith(("lm_head", "score"))) == names


def test_a_decoder_classifies_by_its_last_token_and_an_encoder_by_the_mean() -> None:
    inputs = Inputs(torch.randint(VOCABULARY, (2, 9)), lengths_B=torch.tensor([9, 4]))
    for family, pool in (("decoder", last_token), ("encoder", mean_token)):
        whole = model(family, "sequence_classification", labels=3)
        each = model(family, "token_classification", labels=3)
        each.load_state_dict({k: v for k, v in whole.state_dict().items() if "score" not in k}, strict=False)
        torch.testing.assert_close(whole.features(inputs), pool(each.features(inputs), inputs.lengths_B))


@pytest.mark.parametrize("family", ["decoder", "encoder"])
@pytest.mark.parametrize("tied", [True, False])
def test_an_autoencoder_says_every_token_from_the_features_of_the_last(family: str, tied: bool) -> None:
    net = model(family, "autoencoder", tied_embeddings=tied, norm="layer")
    with torch.no_grad():
        net.get_parameter("lm_head.bias").normal_()
    inputs = Inputs(torch.randint(VOCABULARY, (3, 9)), lengths_B=torch.tensor([9, 1, 4]))
    logits_BLV = net(inputs)
    for row, length in enumerate(inputs.lengths_B.tolist() if inputs.lengths_B is not None else []):
        x_LD = net.enter(net.embed_tokens(inputs.tokens_BL[row : row + 1, :length]))
        last_D = net.norm(net.run(x_LD, net.layout(Inputs(inputs.tokens_BL[row : row + 1, :length])))[0, -1])
        for place in range(length):
            waves = [place / 10_000 ** (2 * pair / WIDTH) for pair in range(WIDTH // 2)]
            wave_D = torch.tensor([*map(math.sin, waves), *map(math.cos, waves)])
            said_V = net.head(last_D + wave_D)
            torch.testing.assert_close(logits_BLV[row, place], said_V)
    assert not net.generates


def test_the_head_of_an_autoencoder_is_two_dense_maps_with_norms_and_a_biased_map() -> None:
    net = model("decoder", "autoencoder", norm="layer")
    weights = net.state_dict()
    with torch.no_grad():
        net.get_parameter("lm_head.bias").normal_()
        h = x = torch.randn(4, WIDTH)
        for place in (0, 1):
            h = functional.gelu(h @ weights[f"lm_head.transform.{place}.dense.weight"].T)
            h = functional.layer_norm(h, (WIDTH,), weights[f"lm_head.transform.{place}.norm.weight"], eps=1e-5)
        torch.testing.assert_close(net.head(x), h @ weights["embed_tokens.weight"].T + weights["lm_head.bias"])


def test_a_wave_fits_an_odd_width_and_keeps_the_dtype() -> None:
    x_BD = torch.zeros(2, 5, dtype=torch.float64)
    found_BLD = at_each_position(x_BD, 7)
    assert found_BLD.shape == (2, 7, 5) and found_BLD.dtype == torch.float64
    torch.testing.assert_close(found_BLD[0, :, 0], torch.arange(7.0).sin().double())
    assert len({tuple(row) for row in found_BLD[0].tolist()}) == 7


@pytest.mark.parametrize("family", ["decoder", "encoder"])
def test_a_span_head_says_two_things_of_each_token(family: str) -> None:
    net = model(family, "span")
    with torch.no_grad():
        net.get_parameter("score.bias").normal_()
    inputs = Inputs(torch.randint(VOCABULARY, (2, 9)), lengths_B=torch.tensor([9, 4]))
    weights, features_BLD = net.state_dict(), net.features(inputs)
    assert weights["score.weight"].shape == (2, WIDTH) and features_BLD.shape == (2, 9, WIDTH)
    torch.testing.assert_close(net(inputs), features_BLD @ weights["score.weight"].T + weights["score.bias"])
    assert not net.generates


def test_a_normalised_embedding_spares_the_first_layer_its_norm() -> None:
    names = set(model("decoder", "causal_lm", embedding_norm=True).state_dict())
    assert {"embedding_norm.weight", "layers.1.mixer_norm.weight", "layers.0.mlp_norm.weight"} <= names
    assert "layers.0.mixer_norm.weight" not in names


def test_learned_positions_are_added_to_the_embedding() -> None:
    net = model("prefix_lm", "infilling_lm", positions="learned")
    tokens_BL = torch.randint(VOCABULARY, (1, 5))
    places_BL2 = torch.tensor([[[0, 0], [1, 0], [2, 0], [1, 1], [1, 2]]])
    texts, blanks = (net.get_parameter(f"embed_positions.{table}.weight") for table in (0, 1))
    x_BLD = net.embed_tokens(tokens_BL)
    expected = x_BLD + texts[[0, 1, 2, 1, 1]] + blanks[[0, 0, 0, 1, 2]]
    torch.testing.assert_close(net.enter(x_BLD, places_BL2), expected)
    torch.testing.assert_close(net.enter(x_BLD), x_BLD + texts[:5] + blanks[0])


def test_the_stacks_of_an_encoder_decoder_share_the_embedding_and_nothing_else() -> None:
    layers = {"layers": [{"mixer": "full"}, {"mixer": "full"}]}
    plan = {"family": "encoder_decoder", "width": WIDTH, "max_context": 20, "encoder": layers, "decoder": layers}
    net = build(Architecture.from_mapping({**plan, "positions": "relative"}), seed=0)
    assert isinstance(net, EncoderDecoder)
    names = [name for name in net.state_dict() if "layers" not in name]
    assert names == [
        "embed_tokens.weight",
        "encoder.relative.relative_attention_bias.weight",
        "encoder.norm.weight",
        "decoder.relative.relative_attention_bias.weight",
        "decoder.norm.weight",
    ]
    assert net.encoder.relative is not None and net.encoder.relative.looks_ahead
    assert net.decoder.relative is not None and not net.decoder.relative.looks_ahead


def test_a_third_branch_shrinks_the_weights_into_the_residual_stream_further() -> None:
    layers = {"layers": [{"mixer": "full"}, {"mixer": "full"}]}
    plan = {"family": "encoder_decoder", "width": 64, "max_context": 20, "encoder": layers, "decoder": layers}
    weights = build(Architecture.from_mapping(plan), seed=0).state_dict()
    std = 0.02 * (1024 / 64) ** 0.5
    for name, terms in (("encoder.layers.0.mixer", 4), ("decoder.layers.0.mixer", 6), ("decoder.layers.0.cross", 6)):
        assert weights[f"{name}.o_proj.weight"].std().item() == pytest.approx(std * terms**-0.5, rel=0.05)
        assert weights[f"{name}.q_proj.weight"].std().item() == pytest.approx(std, rel=0.05)
