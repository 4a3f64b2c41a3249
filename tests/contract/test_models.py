"""What every family that decodes must do: one function in three forms, and memory as predicted."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nas.errors import SpaceError
from nas.models.build import build
from nas.models.decoder import Decoder
from nas.space.architecture import Architecture
from nas.specs import family_spec, mixer_spec, mlp_spec
from nas.specs.tasks import TaskShape

WIDTH, MAX_CONTEXT = 32, 96

FULL: dict[str, Any] = {"mixer": "full", "heads": 4, "kv_heads": 2, "mlp_ratio": 2}
WINDOW: dict[str, Any] = {"mixer": "sliding_window", "heads": 2, "window": 9, "mlp_ratio": 1.5}

CASES: dict[str, dict[str, Any]] = {
    "one full layer": {"layers": [FULL]},
    "windows of one token": {"layers": [{**WINDOW, "window": 1}] * 2},
    "mixed layers": {"layers": [WINDOW, FULL, {**WINDOW, "window": 40}]},
    "mixed layers with convolutions": {"layers": [{**WINDOW, "short_conv": 3}, FULL, {**FULL, "short_conv": 4}]},
    "no MLP": {"layers": [{"mixer": "full", "heads": 4, "mlp": "none", "short_conv": 3}, WINDOW]},
    "untied, no positions": {"layers": [FULL, WINDOW], "tied_embeddings": False, "positions": "none"},
}

every_case = pytest.mark.parametrize("case", CASES)


def architecture(case: str) -> Architecture:
    mapping = {"family": "decoder", "width": WIDTH, "max_context": MAX_CONTEXT, **CASES[case]}
    return Architecture.from_mapping(mapping).bind(TaskShape(vocabulary=50, head="causal_lm"))


def model(case: str, dtype: torch.dtype = torch.float64) -> Decoder:
    made = build(architecture(case), seed=0)
    assert isinstance(made, Decoder)
    return made.to(dtype)


def tokens(batch: int, length: int) -> torch.Tensor:
    return torch.randint(50, (batch, length), generator=torch.Generator().manual_seed(1))


@every_case
@pytest.mark.parametrize("prompt", [1, 8, 64, 96])
def test_prefill_and_steps_give_the_logits_of_the_parallel_form(case: str, prompt: int) -> None:
    decoder, tokens_BL = model(case), tokens(2, MAX_CONTEXT)
    with torch.inference_mode():
        expected_BLV = decoder(tokens_BL)
        state = decoder.new_state(2, cache_dtype=torch.float64, recurrent_dtype=torch.float64)
        found = [decoder.prefill(tokens_BL[:, :prompt], state)]
        found += [decoder.step(tokens_B, state) for tokens_B in tokens_BL[:, prompt:].unbind(1)]
    assert state.position == MAX_CONTEXT
    torch.testing.assert_close(torch.stack(found, 1), expected_BLV[:, prompt - 1 :], rtol=0.0, atol=1e-10)


@every_case
def test_a_later_token_changes_no_earlier_logits(case: str) -> None:
    decoder, tokens_BL = model(case), tokens(1, MAX_CONTEXT)
    changed_BL = tokens_BL.clone()
    changed_BL[:, 70] = (changed_BL[:, 70] + 1) % 50
    with torch.inference_mode():
        before, after = decoder(tokens_BL), decoder(changed_BL)
    torch.testing.assert_close(after[:, :70], before[:, :70], rtol=0.0, atol=1e-12)
    assert not torch.allclose(after[:, 70], before[:, 70])


@every_case
@pytest.mark.parametrize("context", [1, 16, MAX_CONTEXT])
@pytest.mark.parametrize("cache", [torch.bfloat16, torch.float32])
def test_the_bytes_of_a_state_are_those_of_the_specifications(case: str, context: int, cache: torch.dtype) -> None:
    plan = architecture(case)
    elements = sum(
        mixer_spec(layer.mixer).cache_elements(layer.values, plan.surroundings, context)
        + max(int(layer.values["short_conv"]) - 1, 0) * WIDTH
        for layer in plan.layers
    )
    state = model(case, torch.float32).new_state(3, context, cache_dtype=cache)
    assert state.bytes == 3 * elements * cache.itemsize
    assert state.bytes == sum(tensor.untyped_storage().nbytes() for tensor in state.tensors())


@every_case
def test_parameters_are_as_many_as_the_specifications_say(case: str) -> None:
    plan = architecture(case)
    expected = family_spec("decoder").parameters(width=WIDTH, vocabulary=50, tied_embeddings=plan.tied_embeddings)
    for layer in plan.layers:
        mlp = str(layer.values["mlp"])
        expected += mixer_spec(layer.mixer).parameters(layer.values, plan.surroundings)
        expected += mlp_spec(mlp).parameters(WIDTH, int(layer.values.get("mlp_hidden", 0)))
        expected += WIDTH * (1 if mlp == "none" else 2) + WIDTH * int(layer.values["short_conv"])
    assert sum(parameter.numel() for parameter in model(case).parameters()) == expected
    assert not list(model(case).buffers())


@every_case
@pytest.mark.parametrize(
    ("weights", "cache"),
    [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32)],
)
def test_weights_and_cache_may_have_different_dtypes(case: str, weights: torch.dtype, cache: torch.dtype) -> None:
    decoder, tokens_BL = model(case, weights), tokens(2, 40)
    with torch.inference_mode():
        expected_BV = decoder(tokens_BL)[:, -1]
        state = decoder.new_state(2, cache_dtype=cache)
        decoder.prefill(tokens_BL[:, :-5], state)
        found_BV = [decoder.step(tokens_B, state) for tokens_B in tokens_BL[:, -5:].unbind(1)][-1]
    torch.testing.assert_close(found_BV, expected_BV, rtol=0.0, atol=0.1 * float(expected_BV.float().std()))


@every_case
def test_every_parameter_gets_a_gradient(case: str) -> None:
    decoder = model(case, torch.float32)
    decoder(tokens(2, 30)).logsumexp(-1).sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in decoder.parameters())


@every_case
def test_more_tokens_than_fit_are_refused_with_both_numbers(case: str) -> None:
    decoder = model(case)
    with pytest.raises(SpaceError, match=r"97 tokens.*96"):
        decoder(tokens(1, 97))
    with pytest.raises(SpaceError, match=r"97 tokens.*96"):
        decoder.new_state(1, 97)
    state = decoder.new_state(1, 10, cache_dtype=torch.float64)
    with pytest.raises(SpaceError, match=r"11 tokens.*10"):
        decoder.prefill(tokens(1, 11), state)
    decoder.prefill(tokens(1, 10), state)
    with pytest.raises(SpaceError, match=r"11 tokens.*10"):
        decoder.step(tokens(1, 1)[:, 0], state)
    with pytest.raises(SpaceError, match="holds 10 tokens"):
        decoder.prefill(tokens(1, 1), state)
