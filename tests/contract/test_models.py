"""What every family must do with every mixer: one function in all its forms, and memory as predicted.

A network is tried as whole sequences, as a padded batch of them, and, where the family decodes, as
prompts of unequal length that are continued step by step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from nas import catalog
from nas.cost.estimate import count_parameters, estimate
from nas.errors import InputError, SpaceError
from nas.models.base import Model
from nas.models.build import build
from nas.models.generate import generate
from nas.space.architecture import Architecture
from nas.specs import family_spec
from nas.specs.tasks import TaskShape
from nas.tasks.inputs import Inputs

WIDTH, MAX_CONTEXT, VOCABULARY, LABELS = 32, 96, 50, 3
EXACT = 1e-10
"""Error relative to the largest logit, in float64."""

NEEDED: dict[str, dict[str, Any]] = {"sliding_window": {"window": 9}}
"""Keys that a mixer has no default for."""
LOOKS_BACK_ONLY = {"gated_conv", "none"}
"""Mixers in which an earlier token sees no later one in any layout."""

FULL: dict[str, Any] = {"mixer": "full", "heads": 4, "kv_heads": 2, "mlp_ratio": 2}
WINDOW: dict[str, Any] = {"mixer": "sliding_window", "heads": 4, "window": 9, "mlp_ratio": 1.5}
GATED: dict[str, Any] = {"mixer": "gated_delta", "mlp_ratio": 1}

MIXED: dict[str, dict[str, Any]] = {
    "windows of one token": {"layers": [{**WINDOW, "window": 1}] * 2},
    "mixed layers": {"layers": [WINDOW, FULL, {**WINDOW, "window": 40}]},
    "mixed layers with convolutions": {"layers": [{**WINDOW, "short_conv": 3}, FULL, {**FULL, "short_conv": 4}]},
    "hybrid": {"layers": [{**GATED, "short_conv": 4}, WINDOW, {"mixer": "lstm", "mlp": "none"}, FULL]},
    "no MLP": {"layers": [{"mixer": "full", "heads": 4, "mlp": "none", "short_conv": 3}, WINDOW]},
    "an MLP alone": {"layers": [{"mixer": "none", "mlp": "gelu"}, FULL, {"mixer": "none", "mlp": "geglu"}]},
    "untied, no positions": {"layers": [FULL, WINDOW], "tied_embeddings": False, "positions": "none"},
    "layer norms": {"layers": [FULL, WINDOW], "norm": "layer"},
    "a norm on the embedding": {"layers": [{**FULL, "short_conv": 3}, WINDOW], "embedding_norm": True},
    "alibi": {"layers": [FULL, WINDOW], "positions": "alibi"},
    "relative": {"layers": [FULL, GATED, WINDOW], "positions": "relative"},
    "learned": {"layers": [FULL, WINDOW], "positions": "learned", "norm": "layer", "embedding_norm": True},
    "yarn": {"layers": [FULL, WINDOW], "rope_scaling": "yarn", "rope_factor": 4},
}
NETWORKS: dict[str, dict[str, Any]] = {
    **{
        mixer: {"layers": [{"mixer": mixer, "short_conv": 3, "mlp_ratio": 1, **NEEDED.get(mixer, {})}] * 2}
        for mixer in catalog.MIXERS
    },
    **MIXED,
}
DECODING = [family for family in catalog.FAMILIES if family_spec(family).decodes]

every_network = pytest.mark.parametrize("network", NETWORKS)
every_family = pytest.mark.parametrize("family", catalog.FAMILIES)
every_decoding_family = pytest.mark.parametrize("family", DECODING)


def mapping(family: str, network: str) -> dict[str, Any]:
    parts = dict(NETWORKS[network])
    if family == "encoder_decoder":
        layers = parts.pop("layers")
        parts |= {"encoder": {"layers": layers}, "decoder": {"layers": layers}}
    return {"family": family, "width": WIDTH, "max_context": MAX_CONTEXT, **parts}


def architecture(family: str, network: str, head: str | None = None) -> Architecture:
    head = family_spec(family).natural_head if head is None else head
    labels = LABELS if head.endswith("classification") else None
    return Architecture.from_mapping(mapping(family, network)).bind(
        TaskShape(vocabulary=VOCABULARY, head=head, labels=labels)
    )


def model(family: str, network: str, dtype: torch.dtype = torch.float64, head: str | None = None) -> Model:
    made = build(architecture(family, network, head), seed=0)
    assert isinstance(made, Model)
    return made.to(dtype)


def tokens(batch: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def whole(family: str, tokens_BL: Tensor) -> Inputs:
    """A batch of sequences as a family reads it, each family looking ahead where it can."""
    batch, length = tokens_BL.shape
    if family == "encoder_decoder":
        return Inputs(tokens_BL, source_BS=tokens(batch, 30, seed=2))
    if family == "prefix_lm":
        return infilling(tokens_BL, max(1, length // 2))
    return Inputs(tokens_BL)


def infilling(tokens_BL: Tensor, prefix: int) -> Inputs:
    """A prefix, and a blank at its end that the other tokens fill."""
    batch, length = tokens_BL.shape
    place_L = torch.arange(length)
    places_L2 = torch.stack([place_L.clamp(max=prefix - 1), (place_L - prefix + 1).clamp(min=0)], 1)
    return Inputs(tokens_BL, prefix_B=torch.full((batch,), prefix), positions_BL2=places_L2.expand(batch, length, 2))


def looks_ahead(network: str) -> bool:
    """Whether a mixer of the network sees the next token, where it may."""
    mixers = {layer["mixer"] for layer in NETWORKS[network]["layers"]}
    return bool(mixers - LOOKS_BACK_ONLY) and network != "windows of one token"


def assert_equal(found: Tensor, expected: Tensor, *, within: float = EXACT) -> None:
    torch.testing.assert_close(found, expected, rtol=0.0, atol=within * max(1.0, float(expected.detach().abs().max())))


@every_network
@every_decoding_family
@pytest.mark.parametrize("prompt", [1, 40, MAX_CONTEXT])
def test_prefill_and_steps_give_the_logits_of_the_parallel_form(family: str, network: str, prompt: int) -> None:
    net, tokens_BL = model(family, network), tokens(2, MAX_CONTEXT)
    inputs = infilling(tokens_BL, prompt) if family == "prefix_lm" else whole(family, tokens_BL)
    begin = Inputs(tokens_BL[:, :prompt], source_BS=inputs.source_BS)
    with torch.inference_mode():
        expected_BLV = net(inputs)
        state = net.new_state(2, cache_dtype=torch.float64, recurrent_dtype=torch.float64)
        found = [net.prefill(begin, state)]
        found += [net.step(tokens_B, state) for tokens_B in tokens_BL[:, prompt:].unbind(1)]
    assert state.position == state.longest == MAX_CONTEXT
    assert_equal(torch.stack(found, 1), expected_BLV[:, prompt - 1 :])


@every_network
@every_decoding_family
def test_prompts_of_unequal_length_are_continued_as_each_alone(family: str, network: str) -> None:
    net, tokens_BL, lengths = model(family, network), tokens(4, 60), (1, 40, 13, 25)
    source_BS, source_lengths_B = tokens(4, 20, seed=2), torch.tensor([20, 1, 7, 13])
    begin = Inputs(tokens_BL[:, :40], lengths_B=torch.tensor(lengths))
    if family == "encoder_decoder":
        begin = replace(begin, source_BS=source_BS, source_lengths_B=source_lengths_B)
    with torch.inference_mode():
        state = net.new_state(4, 60, cache_dtype=torch.float64, recurrent_dtype=torch.float64)
        found = [net.prefill(begin, state)]
        found += [net.step(tokens_B, state) for tokens_B in tokens_BL[:, 40:].unbind(1)]
        for row, length in enumerate(lengths):
            joined_1L = torch.cat([tokens_BL[row, :length], tokens_BL[row, 40:]])[None]
            alone = infilling(joined_1L, length) if family == "prefix_lm" else Inputs(joined_1L)
            if family == "encoder_decoder":
                alone = replace(alone, source_BS=source_BS[row : row + 1, : source_lengths_B[row]])
            expected_LV = net(alone)[0, length - 1 :]
            assert_equal(torch.stack([logits_BV[row] for logits_BV in found]), expected_LV)


@every_network
@every_family
def test_what_stands_in_the_padding_changes_nothing(family: str, network: str) -> None:
    net, tokens_BL, lengths = model(family, network), tokens(4, 70), (70, 1, 33, 64)
    inputs = Inputs(tokens_BL, lengths_B=torch.tensor(lengths))
    if family == "prefix_lm":
        inputs = replace(inputs, prefix_B=torch.tensor([0, 1, 20, 64]))
    if family == "encoder_decoder":
        inputs = replace(inputs, source_BS=tokens(4, 20, seed=2), source_lengths_B=torch.tensor([3, 20, 1, 11]))
    with torch.inference_mode():
        found_BLV = net(inputs)
        assert bool(found_BLV.isfinite().all())
        for row, length in enumerate(lengths):
            one = slice(row, row + 1)
            alone = Inputs(tokens_BL[one, :length])
            if inputs.prefix_B is not None:
                alone = replace(alone, prefix_B=inputs.prefix_B[one])
            if inputs.source_BS is not None and inputs.source_lengths_B is not None:
                alone = replace(alone, source_BS=inputs.source_BS[one, : inputs.source_lengths_B[row]])
            assert_equal(found_BLV[row, :length], net(alone)[0])


@every_network
@every_family
def test_a_later_token_changes_earlier_logits_only_where_the_family_looks_ahead(family: str, network: str) -> None:
    net, tokens_BL = model(family, network), tokens(1, MAX_CONTEXT)
    changed_BL = tokens_BL.clone()
    changed_BL[:, 70] = (changed_BL[:, 70] + 1) % VOCABULARY
    with torch.inference_mode():
        before, after = net(whole(family, tokens_BL)), net(whole(family, changed_BL))
    assert not torch.allclose(after[:, 70], before[:, 70])
    if family != "encoder":
        assert_equal(after[:, :70], before[:, :70], within=1e-12)
    elif looks_ahead(network):
        assert not torch.allclose(after[:, 69], before[:, 69], rtol=0.0, atol=1e-13)


@every_network
def test_a_prefix_is_seen_in_both_directions_and_what_follows_it_in_one(network: str) -> None:
    net, tokens_BL = model("prefix_lm", network), tokens(1, 80)
    changed_BL = tokens_BL.clone()
    changed_BL[:, 7] = (changed_BL[:, 7] + 1) % VOCABULARY
    with torch.inference_mode():
        for prefix, sees in ((8, True), (7, False)):
            before, after = (net(Inputs(read, prefix_B=torch.tensor([prefix]))) for read in (tokens_BL, changed_BL))
            if not sees:
                assert_equal(after[:, :7], before[:, :7], within=1e-12)
            elif looks_ahead(network):
                assert not torch.allclose(after[:, 6], before[:, 6], rtol=0.0, atol=1e-13)


@every_network
@every_decoding_family
@pytest.mark.parametrize("context", [1, 16, MAX_CONTEXT])
@pytest.mark.parametrize(("name", "cache"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_the_bytes_of_a_state_are_those_of_the_formulas(
    family: str, network: str, context: int, name: str, cache: torch.dtype
) -> None:
    state = model(family, network, torch.float32).new_state(3, context, source_context=context, cache_dtype=cache)
    expected = estimate(architecture(family, network), context=context, batch=3, dtype=name).state_bytes
    assert state.bytes == expected
    assert state.bytes == sum(tensor.untyped_storage().nbytes() for tensor in state.tensors())


@every_network
@every_family
def test_parameters_are_as_many_as_the_formulas_say(family: str, network: str) -> None:
    net = model(family, network)
    assert sum(parameter.numel() for parameter in net.parameters()) == count_parameters(architecture(family, network))
    assert not list(net.buffers())


@every_family
@pytest.mark.parametrize("changes", [{}, {"tied_embeddings": False}, {"norm": "layer"}, {"embedding_norm": True}])
@pytest.mark.parametrize("positions", ["rope", "learned", "relative"])
def test_every_head_has_its_shape_and_its_parameters(family: str, changes: dict[str, Any], positions: str) -> None:
    for head in sorted(family_spec(family).heads):
        labels = LABELS if head.endswith("classification") else None
        plan = Architecture.from_mapping({**mapping(family, "mixed layers"), "positions": positions, **changes})
        plan = plan.bind(TaskShape(vocabulary=VOCABULARY, head=head, labels=labels))
        net = build(plan, seed=0)
        assert sum(parameter.numel() for parameter in net.parameters()) == count_parameters(plan)
        shape = net(whole(family, tokens(2, 12))).shape
        places = (2,) if head == "sequence_classification" else (2, 12)
        assert shape == (*places, 2 if head == "span" else labels or VOCABULARY)


@pytest.mark.parametrize("family", ["decoder", "encoder"])
@pytest.mark.parametrize("head", ["sequence_classification", "token_classification", "autoencoder", "span"])
def test_labels_of_a_padded_batch_are_those_of_each_sequence_alone(family: str, head: str) -> None:
    net, tokens_BL, lengths = model(family, "mixed layers", head=head), tokens(3, 30), (30, 1, 17)
    found = net(Inputs(tokens_BL, lengths_B=torch.tensor(lengths)))
    for row, length in enumerate(lengths):
        expected = net(tokens_BL[row : row + 1, :length])[0]
        assert_equal(found[row] if head == "sequence_classification" else found[row, :length], expected)


@every_network
@every_decoding_family
@pytest.mark.parametrize(
    ("weights", "cache"),
    [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32)],
)
def test_weights_and_cache_may_have_different_dtypes(
    family: str, network: str, weights: torch.dtype, cache: torch.dtype
) -> None:
    net, tokens_BL = model(family, network, weights), tokens(2, 40)
    inputs = infilling(tokens_BL, 35) if family == "prefix_lm" else whole(family, tokens_BL)
    with torch.inference_mode():
        expected_BV = net(inputs)[:, -1]
        state = net.new_state(2, cache_dtype=cache)
        net.prefill(Inputs(tokens_BL[:, :-5], source_BS=inputs.source_BS), state)
        found_BV = [net.step(tokens_B, state) for tokens_B in tokens_BL[:, -5:].unbind(1)][-1]
    assert found_BV.dtype == weights
    torch.testing.assert_close(found_BV, expected_BV, rtol=0.0, atol=0.1 * float(expected_BV.float().std()))


@every_network
@every_family
def test_every_parameter_gets_a_gradient(family: str, network: str) -> None:
    net = model(family, network, torch.float32)
    net(whole(family, tokens(2, 30))).logsumexp(-1).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not bool((p.grad != 0).any())] == []


@every_network
@every_decoding_family
def test_a_state_goes_on_with_the_rows_that_are_selected(family: str, network: str) -> None:
    net, tokens_BL, rows_B = model(family, network), tokens(3, 20), torch.tensor([2, 0, 0])
    begin = replace(whole(family, tokens_BL), lengths_B=torch.tensor([20, 5, 11]), prefix_B=None, positions_BL2=None)
    with torch.inference_mode():
        state = net.new_state(3, 30, cache_dtype=torch.float64, recurrent_dtype=torch.float64)
        net.prefill(begin, state)
        wide = net.new_state(6, 30, cache_dtype=torch.float64, recurrent_dtype=torch.float64)
        wide.take_over(state, torch.tensor([0, 0, 1, 1, 2, 2]))
        plain = [net.step(tokens_B, state) for tokens_B in tokens(3, 4, seed=3).unbind(1)]
        doubled = [net.step(tokens_B.repeat_interleave(2), wide) for tokens_B in tokens(3, 4, seed=3).unbind(1)]
        assert_equal(torch.stack(doubled)[:, ::2], torch.stack(plain))
        next_B = tokens(3, 1, seed=4)[:, 0]
        wide.select(2 * rows_B.repeat(2))
        state.select(rows_B)
        chosen = net.step(next_B, state)
        assert_equal(net.step(next_B.repeat(2), wide)[:3], chosen)
        assert not torch.allclose(chosen[1], chosen[2]) or bool(next_B[1] == next_B[2])


@every_decoding_family
def test_more_tokens_than_fit_are_refused_with_both_numbers(family: str) -> None:
    net = model(family, "mixed layers")
    with pytest.raises(SpaceError, match=r"97 tokens.*96"):
        net(whole(family, tokens(1, 97)))
    with pytest.raises(SpaceError, match=r"97 tokens.*96"):
        net.new_state(1, 97)
    state = net.new_state(1, 10, cache_dtype=torch.float64)
    with pytest.raises(SpaceError, match=r"11 tokens.*10"):
        net.prefill(whole(family, tokens(1, 11)), state)
    net.prefill(whole(family, tokens(1, 10)), state)
    with pytest.raises(SpaceError, match=r"11 tokens.*10"):
        net.step(tokens(1, 1)[:, 0], state)
    with pytest.raises(SpaceError, match="holds 10 tokens"):
        net.prefill(whole(family, tokens(1, 1)), state)


@every_decoding_family
@pytest.mark.parametrize("lengths", [[0, 5], [5, 6]])
def test_lengths_beyond_the_batch_are_refused(family: str, lengths: list[int]) -> None:
    net = model(family, "mixed layers")
    with pytest.raises(InputError, match="lengths_B must be"):
        net.prefill(replace(whole(family, tokens(2, 5)), lengths_B=torch.tensor(lengths)), net.new_state(2, 10))


def test_a_source_that_does_not_fit_is_refused() -> None:
    net = model("encoder_decoder", "mixed layers")
    with pytest.raises(SpaceError, match=r"97 tokens.*96"):
        net(Inputs(tokens(1, 3), source_BS=tokens(1, 97)))
    with pytest.raises(SpaceError, match=r"9 tokens.*source_context allows 1 to 8"):
        net.prefill(Inputs(tokens(1, 3), source_BS=tokens(1, 9)), net.new_state(1, 10, source_context=8))


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("decoder", {"source_BS": tokens(1, 3)}, "a decoder reads no source_BS"),
        ("decoder", {"prefix_B": torch.tensor([1])}, "a decoder reads no prefix_B"),
        ("encoder", {"positions_BL2": torch.zeros(1, 3, 2)}, "an encoder reads no positions_BL2"),
        ("prefix_lm", {"source_BS": tokens(1, 3)}, "a prefix language model reads no source_BS"),
        ("encoder_decoder", {}, "an encoder–decoder reads a source"),
    ],
)
def test_inputs_of_another_family_are_refused(family: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        model(family, "mixed layers")(Inputs(tokens(1, 3), **changes))


def test_an_encoder_does_not_generate() -> None:
    net = model("encoder", "mixed layers")
    for call in (
        lambda: net.new_state(1),
        lambda: net.prefill(tokens(1, 3), None),  # type: ignore[arg-type]
        lambda: net.step(tokens(1, 1)[:, 0], None),  # type: ignore[arg-type]
        lambda: generate(net, tokens(1, 3), max_new_tokens=1),
    ):
        with pytest.raises(InputError, match=r"an encoder .*does not generate"):
            call()


@pytest.mark.parametrize("head", ["token_classification", "autoencoder"])
def test_a_decoder_that_says_nothing_of_a_next_token_does_not_generate(head: str) -> None:
    with pytest.raises(InputError, match="does not generate"):
        generate(model("decoder", "mixed layers", head=head), tokens(1, 3), max_new_tokens=1)
