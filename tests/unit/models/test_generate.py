from __future__ import annotations

from typing import Any

import pytest
import torch

from nas.errors import InputError
from nas.models.build import build
from nas.models.decoder import Decoder
from nas.models.generate import generate
from nas.space.architecture import Architecture
from nas.specs.tasks import TaskShape

MAX_CONTEXT, VOCABULARY = 40, 20


def model() -> Decoder:
    layers = [{"mixer": "sliding_window", "window": 6, "short_conv": 3}, {"mixer": "full"}]
    plan = Architecture.from_mapping(
        {"family": "decoder", "width": 32, "max_context": MAX_CONTEXT, "layers": layers, "tied_embeddings": False}
    )
    made = build(plan.bind(TaskShape(vocabulary=VOCABULARY, head="causal_lm")), seed=0)
    assert isinstance(made, Decoder)
    return made


def prompt(batch: int, length: int) -> torch.Tensor:
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(1))


def continuation(decoder: Decoder, prompt_BL: torch.Tensor, **options: Any) -> torch.Tensor:
    return torch.stack(list(generate(decoder, prompt_BL, **options)), 1)


@pytest.mark.parametrize("length", [1, 5, 30])
def test_greedy_tokens_are_the_argmax_of_repeated_full_passes(length: int) -> None:
    decoder, seen_BL = model().double(), prompt(3, length)
    found_BL = continuation(decoder, seen_BL, max_new_tokens=9, temperature=0)
    for _ in range(9):
        seen_BL = torch.cat([seen_BL, decoder(seen_BL)[:, -1:].argmax(-1)], 1)
    assert torch.equal(found_BL, seen_BL[:, length:])


def test_prompt_and_continuation_together_end_at_max_context() -> None:
    assert continuation(model(), prompt(2, 33), max_new_tokens=1000).shape == (2, MAX_CONTEXT - 33)


def test_a_seed_fixes_the_tokens_and_leaves_the_global_random_state_alone() -> None:
    decoder = model()
    before = torch.random.get_rng_state()
    one, same, other = (continuation(decoder, prompt(4, 3), max_new_tokens=20, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_samples_follow_the_tempered_distribution() -> None:
    decoder, count = model(), 20_000
    prompt_BL = prompt(1, 4).expand(count, 4)
    drawn_BL = continuation(decoder, prompt_BL, max_new_tokens=1, temperature=0.5, seed=0)
    with torch.no_grad():
        expected_V = (decoder(prompt_BL[:1])[0, -1] / 0.5).softmax(-1)
    found_V = torch.bincount(drawn_BL[:, 0], minlength=VOCABULARY) / count
    torch.testing.assert_close(found_V, expected_V, rtol=0.0, atol=0.015)


def test_top_k_keeps_the_k_most_likely_tokens() -> None:
    decoder, prompt_BL = model(), prompt(1, 4).expand(2000, 4)
    drawn = continuation(decoder, prompt_BL, max_new_tokens=1, top_k=3, seed=0)
    with torch.no_grad():
        best = decoder(prompt_BL[:1])[0, -1].topk(3).indices
    assert set(drawn.flatten().tolist()) == set(best.tolist())


@pytest.mark.parametrize("top_p", [1e-9, 0.3, 0.7, 1.0])
def test_top_p_keeps_the_fewest_tokens_that_reach_it(top_p: float) -> None:
    decoder, prompt_BL = model(), prompt(1, 4).expand(5000, 4)
    drawn = continuation(decoder, prompt_BL, max_new_tokens=1, top_p=top_p, seed=0)
    with torch.no_grad():
        shares, order = decoder(prompt_BL[:1])[0, -1].softmax(-1).sort(descending=True)
    needed = min(int((shares.cumsum(0) < top_p).sum()) + 1, VOCABULARY)
    assert set(drawn.flatten().tolist()) == set(order[:needed].tolist())


def test_a_sequence_that_met_a_stop_token_repeats_it_until_all_have() -> None:
    decoder, prompt_BL = model(), prompt(8, 2)
    free_BL = continuation(decoder, prompt_BL, max_new_tokens=38, seed=0)
    stop = int(free_BL[0, 2])
    found_BL = continuation(decoder, prompt_BL, max_new_tokens=38, seed=0, stop_tokens={stop})
    for row in found_BL.tolist():
        first = row.index(stop) if stop in row else len(row) - 1
        assert set(row[first + 1 :]) <= {stop}
    alone = continuation(decoder, prompt_BL[:1], max_new_tokens=38, temperature=0)
    first = int(alone[0, 0])
    assert continuation(decoder, prompt_BL[:1], max_new_tokens=38, temperature=0, stop_tokens={first}).shape == (1, 1)


def test_tokens_come_one_at_a_time_and_outside_inference_mode() -> None:
    stream = generate(model(), prompt(1, 2), max_new_tokens=3)
    token = next(stream)
    assert token.shape == (1,)
    assert not torch.is_inference_mode_enabled()
    assert not token.is_inference()


def test_a_bfloat16_cache_of_float32_weights_generates() -> None:
    tokens_BL = continuation(model(), prompt(1, 3), max_new_tokens=10, temperature=0, cache_dtype=torch.bfloat16)
    assert tokens_BL.shape == (1, 10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -0.1}, r"temperature .* -0\.1"),
        ({"temperature": float("nan")}, "temperature .* nan"),
        ({"top_p": 0.0}, r"top_p .* 0\.0"),
        ({"top_p": 1.1}, r"top_p .* 1\.1"),
        ({"top_k": 0}, "top_k .* 0"),
        ({"seed": -1}, r"seed must be between 0 and 2\*\*63 - 1, not -1"),
        ({"seed": 2**63}, "seed must be between"),
        ({"max_new_tokens": 0}, "max_new_tokens .* 0"),
        ({"prompt_BL": torch.zeros(1, 0, dtype=torch.long)}, "prompt is empty"),
        ({"prompt_BL": torch.zeros(3, dtype=torch.long)}, r"\(B, L\)"),
        ({"prompt_BL": torch.zeros(1, 3)}, "integers"),
        ({"prompt_BL": torch.tensor([[1, 20]])}, "from 0 to 19"),
        ({"prompt_BL": torch.zeros(1, 40, dtype=torch.long)}, "40 tokens .* at most 39"),
    ],
)
def test_bad_arguments_are_refused_at_the_call(changes: dict[str, Any], message: str) -> None:
    options = {"prompt_BL": prompt(1, 3), "max_new_tokens": 5, **changes}
    prompt_BL = options.pop("prompt_BL")
    with pytest.raises(InputError, match=message):
        generate(model(), prompt_BL, **options)
