"""Whole models with recurrent mixers against transformers' and against torch's own networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity.comparing import DOUBLE_TOLERANCE, VOCABULARY, assert_same, bound, built, filled, tokens, valid
from parity.renaming import State, from_mamba2, from_qwen3_5
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import Mamba2Config, Mamba2ForCausalLM
from transformers.models.qwen3_5 import Qwen3_5ForCausalLM, Qwen3_5TextConfig

from nas.tasks.inputs import Inputs

WIDTH, HIDDEN, CONTEXT, DEPTH = 48, 80, 256, 3
LENGTHS = [150, 3, 70]


def mamba2(groups: int) -> tuple[Any, nn.Module]:
    config = Mamba2Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        expand=2,
        num_heads=6,
        head_dim=16,
        state_size=20,
        n_groups=groups,
        conv_kernel=4,
        chunk_size=32,
        layer_norm_epsilon=1e-6,
        tie_word_embeddings=False,
        use_cache=False,
    )
    theirs = filled(Mamba2ForCausalLM(config))
    for layer in theirs.backbone.layers:
        layer.mixer.norm.variance_epsilon = 1e-5  # as published; here the norms of the blocks have 1e-6
    ours = {
        "mixer": "mamba2",
        "expand": 2,
        "head_dim": 16,
        "state_dim": 20,
        "groups": groups,
        "conv": 4,
        "mlp": "none",
    }
    architecture = bound(
        family="decoder",
        width=WIDTH,
        max_context=CONTEXT,
        layers=[ours] * DEPTH,
        positions="none",
        tied_embeddings=False,
    )
    return built(architecture, from_mamba2(theirs.state_dict())), theirs


def qwen3_5(key_heads: int) -> tuple[Any, nn.Module]:
    config = Qwen3_5TextConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=DEPTH,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=16,
        max_position_embeddings=CONTEXT,
        linear_conv_kernel_dim=4,
        linear_num_key_heads=key_heads,
        linear_num_value_heads=4,
        linear_key_head_dim=10,
        linear_value_head_dim=12,
        layer_types=["linear_attention"] * DEPTH,
        tie_word_embeddings=False,
        use_cache=False,
    )
    theirs = filled(Qwen3_5ForCausalLM(config), gain=0.8)
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if name.endswith("A_log"):
                # Were all forgotten at once, a read would be q·k times a value, and its norm would leave
                # of that the sign, which rounding decides where the product is small.
                weight.copy_(torch.linspace(-5, -1, len(weight)))
    layer = {
        "mixer": "gated_delta",
        "heads": 4,
        "key_heads": key_heads,
        "key_dim": 10,
        "value_dim": 12,
        "conv": 4,
        "output_gate": True,
        "mlp_hidden": HIDDEN,
    }
    architecture = bound(
        family="decoder",
        width=WIDTH,
        max_context=CONTEXT,
        layers=[layer] * DEPTH,
        positions="none",
        tied_embeddings=False,
    )
    return built(architecture, from_qwen3_5(theirs.state_dict(), keys=10 * key_heads)), theirs


MODELS = {
    "mamba2": lambda: mamba2(1),
    "mamba2-groups": lambda: mamba2(3),
    "qwen3.5": lambda: qwen3_5(4),
    "qwen3.5-groups": lambda: qwen3_5(2),
}


@pytest.fixture(params=MODELS)
def pair(request: pytest.FixtureRequest) -> tuple[Any, nn.Module]:
    return MODELS[request.param]()


@torch.no_grad()
def test_logits(pair: tuple[Any, nn.Module]) -> None:
    ours, theirs = pair
    tokens_BL = tokens(2, 150)
    assert_same(ours(tokens_BL), theirs(tokens_BL).logits)
    assert_same(ours.double()(tokens_BL), theirs.double()(tokens_BL).logits, DOUBLE_TOLERANCE)


@torch.no_grad()
def test_logits_with_padding(pair: tuple[Any, nn.Module]) -> None:
    ours, theirs = pair
    tokens_BL, valid_BL = tokens(3, 150), valid(LENGTHS, 150)
    expected = theirs(tokens_BL, attention_mask=valid_BL).logits
    ours_BLV = ours(Inputs(tokens_BL, lengths_B=torch.tensor(LENGTHS)))
    assert_same(ours_BLV[valid_BL.bool()], expected[valid_BL.bool()])


@torch.no_grad()
def test_state(pair: tuple[Any, nn.Module]) -> None:
    """A prompt and then single tokens give what theirs gives for the whole sequence."""
    ours, theirs = pair
    tokens_BL = tokens(2, 60)
    expected = theirs(tokens_BL).logits
    state = ours.new_state(2, 60, cache_dtype=torch.float32)
    found = [ours.prefill(tokens_BL[:, :45], state)]
    found += [ours.step(tokens_B, state) for tokens_B in tokens_BL[:, 45:].unbind(1)]
    assert_same(torch.stack(found, 1), expected[:, 44:])


def test_gradients(pair: tuple[Any, nn.Module]) -> None:
    ours, theirs = pair
    tokens_BL = tokens(2, 100)
    grads = []
    for logits_BLV, embedding in (
        (ours(tokens_BL), ours.embed_tokens),
        (theirs(tokens_BL).logits, theirs.get_input_embeddings()),
    ):
        nn.functional.cross_entropy(logits_BLV[:, :-1].flatten(0, 1), tokens_BL[:, 1:].flatten()).backward()
        grads.append(embedding.weight.grad)
    assert (grads[0] - grads[1]).abs().max() < 1e-4 * grads[1].abs().max()


class TorchNetwork(nn.Module):
    """Pre-norm layers x + W_o·rnn(norm(x)) of torch's own parts, one direction or two."""

    def __init__(self, kind: type[nn.RNNBase], hidden: int, *, both_ways: bool) -> None:
        super().__init__()
        each = hidden // 2 if both_ways else hidden
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.norms = nn.ModuleList(nn.RMSNorm(WIDTH, eps=1e-6) for _ in range(DEPTH))
        self.networks = nn.ModuleList(
            kind(WIDTH, each, batch_first=True, bidirectional=both_ways) for _ in range(DEPTH)
        )
        self.outs = nn.ModuleList(nn.Linear(hidden, WIDTH, bias=False) for _ in range(DEPTH))
        self.norm = nn.RMSNorm(WIDTH, eps=1e-6)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens_BL: Tensor, lengths_B: Tensor) -> Tensor:
        x_BLD = self.embedding(tokens_BL)
        for norm, network, out in zip(self.norms, self.networks, self.outs, strict=True):
            packed = pack_padded_sequence(norm(x_BLD), lengths_B, batch_first=True, enforce_sorted=False)
            y_BLH, _ = pad_packed_sequence(network(packed)[0], batch_first=True, total_length=tokens_BL.shape[1])
            x_BLD = x_BLD + out(y_BLH)
        return self.head(self.norm(x_BLD))  # type: ignore[no-any-return]

    def renamed(self) -> State:
        """Its weights under our names."""
        found: State = {"embed_tokens.weight": self.embedding.weight, "norm.weight": self.norm.weight}
        found |= {f"score.{name}": weight for name, weight in self.head.named_parameters()}
        for layer in range(DEPTH):
            found[f"layers.{layer}.mixer_norm.weight"] = self.norms[layer].weight
            found[f"layers.{layer}.mixer.o_proj.weight"] = self.outs[layer].weight
            for name, weight in self.networks[layer].named_parameters():
                way = "rnn_reverse" if name.endswith("_reverse") else "rnn"
                found[f"layers.{layer}.mixer.{way}.{name.removesuffix('_reverse')}"] = weight
        return found


@torch.no_grad()
@pytest.mark.parametrize("family", ["decoder", "encoder"])
@pytest.mark.parametrize(("mixer", "kind"), [("lstm", nn.LSTM), ("gru", nn.GRU), ("rnn", nn.RNN)])
def test_torch_networks(mixer: str, kind: type[nn.RNNBase], family: str) -> None:
    theirs = filled(TorchNetwork(kind, HIDDEN, both_ways=family == "encoder"))
    architecture = bound(
        family=family,
        head="token_classification",
        labels=VOCABULARY,
        width=WIDTH,
        max_context=CONTEXT,
        layers=[{"mixer": mixer, "hidden": HIDDEN, "mlp": "none"}] * DEPTH,
        positions="none",
    )
    ours = built(architecture, theirs.renamed())  # type: ignore[operator]
    tokens_BL, valid_BL, lengths_B = tokens(3, 150), valid(LENGTHS, 150).bool(), torch.tensor(LENGTHS)
    for dtype in (torch.float32, torch.float64):
        found = ours.to(dtype)(Inputs(tokens_BL, lengths_B=lengths_B))
        tolerance = 1e-4 if dtype == torch.float32 else 1e-10
        assert_same(found[valid_BL], theirs.to(dtype)(tokens_BL, lengths_B)[valid_BL], tolerance)
