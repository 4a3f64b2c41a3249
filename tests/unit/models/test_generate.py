from __future__ import annotations

from typing import Any

import pytest
import torch

from nas.errors import InputError
from nas.models.base import Model
from nas.models.build import build
from nas.models.decoder import Decoder
from nas.models.generate import Ends, generate
from nas.space.architecture import Architecture
from nas.specs.tasks import TaskShape
from nas.tasks.inputs import Inputs

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


def continuation(model: Model, prompt: torch.Tensor | Inputs, **options: Any) -> torch.Tensor:
    return torch.stack(list(generate(model, prompt, **options)), 1)


def family(name: str, **changes: Any) -> Model:
    layers = {"layers": [{"mixer": "sliding_window", "window": 6, "short_conv": 3}, {"mixer": "full"}]}
    stacks = {"encoder": layers, "decoder": layers} if name == "encoder_decoder" else layers
    plan = Architecture.from_mapping({"family": name, "width": 32, "max_context": MAX_CONTEXT, **stacks, **changes})
    made = build(plan, seed=0)
    assert isinstance(made, Model)
    return made.double()


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


LENGTHS = torch.tensor([4, 11, 1])


def left_padded(tokens_BL: torch.Tensor, lengths_B: torch.Tensor, pad: int) -> torch.Tensor:
    padded_BL = torch.full_like(tokens_BL, pad)
    for row, length in enumerate(lengths_B.tolist()):
        padded_BL[row, tokens_BL.shape[1] - length :] = tokens_BL[row, :length]
    return padded_BL


@pytest.mark.parametrize("name", ["decoder", "prefix_lm", "encoder_decoder"])
@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_prompts_of_unequal_length_are_continued_as_each_alone_wherever_their_padding_is(
    name: str, positions: str
) -> None:
    model, tokens_BL = family(name, positions=positions), prompt(3, 11)
    source = {"source_BS": prompt(3, 7)} if name == "encoder_decoder" else {}
    options: dict[str, Any] = {"max_new_tokens": 8, "temperature": 0}
    found_BL = continuation(model, Inputs(tokens_BL, lengths_B=LENGTHS, **source), **options)
    left_BL = left_padded(tokens_BL, LENGTHS, pad=33)
    mask_BL = torch.arange(11) >= 11 - LENGTHS[:, None]
    assert torch.equal(found_BL, continuation(model, Inputs(left_BL, **source), attention_mask_BL=mask_BL, **options))
    assert torch.equal(found_BL, continuation(model, Inputs(left_BL, **source), pad_token=33, **options))
    for row, length in enumerate(LENGTHS.tolist()):
        one = slice(row, row + 1)
        alone = Inputs(tokens_BL[one, :length], **{key: tensor[one] for key, tensor in source.items()})
        assert torch.equal(found_BL[one], continuation(model, alone, **options))


def test_an_encoder_decoder_reads_its_source_and_greedy_tokens_are_those_of_full_passes() -> None:
    model, source_BS = family("encoder_decoder"), prompt(2, 9)
    seen_BL = torch.zeros(2, 1, dtype=torch.long)
    found_BL = continuation(model, Inputs(seen_BL, source_BS=source_BS), max_new_tokens=6, temperature=0)
    for _ in range(6):
        logits_BLV = model(Inputs(seen_BL, source_BS=source_BS))
        seen_BL = torch.cat([seen_BL, logits_BLV[:, -1:].argmax(-1)], 1)
    assert torch.equal(found_BL, seen_BL[:, 1:])


def test_a_blank_inside_the_text_is_filled_where_the_mask_stands() -> None:
    model, tokens_BL = family("prefix_lm"), prompt(1, 8)
    # Seven tokens of text, the third of which is the mask, and the token that begins the filling.
    places_BL2 = torch.tensor([[[place, 0] for place in range(7)] + [[2, 1]]])
    begin = Inputs(tokens_BL, prefix_B=torch.tensor([7]), positions_BL2=places_BL2)
    found_BL = continuation(model, begin, max_new_tokens=5, temperature=0)
    for count in range(1, 6):
        filled_BL2 = torch.tensor([[2, 2 + place] for place in range(count - 1)], dtype=torch.long).view(1, -1, 2)
        grown_BL2 = torch.cat([places_BL2, filled_BL2], 1)
        seen_BL = torch.cat([tokens_BL, found_BL[:, : count - 1]], 1)
        expected = model(Inputs(seen_BL, prefix_B=begin.prefix_B, positions_BL2=grown_BL2))[:, -1].argmax(-1)
        assert torch.equal(found_BL[:, count - 1], expected)


def spelled(tokens: Any) -> str:
    return "".join(chr(ord("a") + token) for token in tokens)


def test_a_sequence_ends_with_the_token_that_completes_a_stop_string() -> None:
    decoder, prompt_BL = model(), prompt(6, 2)
    free_BL = continuation(decoder, prompt_BL, max_new_tokens=30, seed=0)
    stop = spelled(free_BL[0, 4:6].tolist())
    found_BL = continuation(decoder, prompt_BL, max_new_tokens=30, seed=0, stop_strings=[stop], decode=spelled)
    for row in found_BL.tolist():
        text = spelled(row)
        end = text.find(stop) + len(stop) if stop in text else len(text)
        assert set(text[end:]) <= {text[end - 1]}
    assert stop in spelled(found_BL[0].tolist())
    alone = continuation(decoder, prompt_BL[:1], max_new_tokens=30, temperature=0)
    first = spelled(alone[0, :3].tolist())
    ended = continuation(decoder, prompt_BL[:1], max_new_tokens=30, temperature=0, stop_strings=first, decode=spelled)
    assert spelled(ended[0].tolist()).endswith(first)
    assert ended.shape[1] <= 3


def test_a_stop_string_is_found_however_long_the_text_is_and_however_it_is_cut() -> None:
    ends = Ends(set(), ["abc"], lambda tokens: bytes(tokens).decode(errors="replace"))
    text = ("é" * 200 + "ab" * 50 + "c").encode()
    reached = [bool(ends.reached(torch.tensor([token]))) for token in text]
    assert reached.index(True) == len(text) - 1


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
        ({"stop_strings": ["a"]}, "need `decode`"),
        ({"stop_strings": [""], "decode": spelled}, "must not be empty"),
        ({"pad_token": 0, "attention_mask_BL": torch.ones(1, 3)}, "one of them"),
        ({"prompt_BL": torch.zeros(1, 3, dtype=torch.long), "pad_token": 0}, "at least one token"),
        ({"attention_mask_BL": torch.ones(1, 4)}, r"\(1, 4\) is not \(1, 3\)"),
        ({"attention_mask_BL": torch.tensor([[1, 0, 1]])}, "without a gap"),
        ({"prompt_BL": Inputs(prompt(2, 3), lengths_B=torch.tensor([3, 4]))}, "from 1 to 3"),
        ({"prompt_BL": Inputs(prompt(2, 3), lengths_B=torch.tensor([3]))}, "for each prompt"),
        ({"prompt_BL": Inputs(prompt(1, 3), lengths_B=torch.tensor([3])), "pad_token": 1}, "padding on the right"),
        ({"prompt_BL": Inputs(prompt(1, 3), source_BS=prompt(1, 3))}, "reads no source_BS"),
    ],
)
def test_bad_arguments_are_refused_at_the_call(changes: dict[str, Any], message: str) -> None:
    options = {"prompt_BL": prompt(1, 3), "max_new_tokens": 5, **changes}
    prompt_BL = options.pop("prompt_BL")
    with pytest.raises(InputError, match=message):
        generate(model(), prompt_BL, **options)
