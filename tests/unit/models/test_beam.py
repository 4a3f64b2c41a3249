from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from nas.errors import InputError
from nas.models.base import Model
from nas.models.beam import beam_search
from nas.models.build import build
from nas.models.generate import generate
from nas.space.architecture import Architecture
from nas.specs import family_spec
from nas.specs.tasks import TaskShape
from nas.tasks.inputs import Inputs

VOCABULARY, NEW, STOP = 4, 3, 2

every_family = pytest.mark.parametrize("family", ["decoder", "prefix_lm", "encoder_decoder"])


def model(family: str, vocabulary: int = VOCABULARY) -> Model:
    layers = {"layers": [{"mixer": "sliding_window", "window": 3, "short_conv": 3}, {"mixer": "full"}]}
    stacks = {"encoder": layers, "decoder": layers} if family == "encoder_decoder" else layers
    plan = Architecture.from_mapping({"family": family, "width": 32, "max_context": 40, **stacks})
    made = build(plan.bind(TaskShape(vocabulary=vocabulary, head=family_spec(family).natural_head)), seed=1)
    assert isinstance(made, Model)
    return made.double()


def prompt(family: str, vocabulary: int = VOCABULARY) -> Inputs:
    random = torch.Generator().manual_seed(2)
    tokens_BL = torch.randint(vocabulary, (3, 6), generator=random)
    if family != "encoder_decoder":
        return Inputs(tokens_BL, lengths_B=torch.tensor([6, 1, 4]))
    source_BS = torch.randint(vocabulary, (3, 9), generator=random)
    return Inputs(torch.zeros(3, 1, dtype=torch.long), source_BS=source_BS, source_lengths_B=torch.tensor([9, 2, 5]))


def row(inputs: Inputs, number: int) -> Inputs:
    one = slice(number, number + 1)
    if inputs.source_BS is not None and inputs.source_lengths_B is not None:
        return Inputs(inputs.tokens_BL[one], source_BS=inputs.source_BS[one, : inputs.source_lengths_B[number]])
    assert inputs.lengths_B is not None
    return Inputs(inputs.tokens_BL[one, : inputs.lengths_B[number]])


def log_probability(net: Model, inputs: Inputs, tokens: tuple[int, ...]) -> float:
    """By prefill and steps alone."""
    with torch.inference_mode():
        state = net.new_state(1, cache_dtype=torch.float64, recurrent_dtype=torch.float64)
        logits_BV, total = net.prefill(inputs, state), 0.0
        for token in tokens:
            total += float(logits_BV[0].log_softmax(-1)[token])
            logits_BV = net.step(torch.tensor([token]), state)
    return total


def continuations() -> list[tuple[int, ...]]:
    """All that end with the stop token, or are NEW long."""
    found = {
        tokens[: tokens.index(STOP) + 1] if STOP in tokens else tokens
        for tokens in product(range(VOCABULARY), repeat=NEW)
    }
    return sorted(found)


@every_family
@pytest.mark.parametrize("penalty", [0.0, 1.0, -0.5])
def test_with_enough_beams_the_search_is_exhaustive(family: str, penalty: float) -> None:
    net, inputs = model(family), prompt(family)
    found = beam_search(
        net, inputs, max_new_tokens=NEW, beams=VOCABULARY**NEW, length_penalty=penalty, stop_tokens={STOP}
    )
    for number, best in enumerate(found):
        scores = {
            tokens: log_probability(net, row(inputs, number), tokens) / len(tokens) ** penalty
            for tokens in continuations()
        }
        expected = sorted(scores, key=lambda tokens: -scores[tokens])
        assert [one.tokens for one in best] == expected
        assert [one.score for one in best] == pytest.approx([scores[tokens] for tokens in expected], abs=1e-9)


@every_family
def test_one_beam_is_greedy(family: str) -> None:
    net, inputs = model(family, 30), prompt(family, 30)
    free_BL = torch.stack(list(generate(net, inputs, max_new_tokens=12, temperature=0)), 1)
    stop = int(free_BL[0, 5])
    greedy = torch.stack(list(generate(net, inputs, max_new_tokens=12, temperature=0, stop_tokens={stop})), 1).tolist()
    found = beam_search(net, inputs, max_new_tokens=12, beams=1, stop_tokens={stop})
    for (best,), expected in zip(found, greedy, strict=True):
        end = expected.index(stop) + 1 if stop in expected else 12
        assert best.tokens == tuple(expected[:end])


@every_family
@pytest.mark.parametrize("options", [{}, {"stop_early": True}, {"length_penalty": 2.0}])
def test_a_batch_is_searched_as_each_prompt_alone(family: str, options: dict[str, Any]) -> None:
    net, inputs = model(family, 30), prompt(family, 30)
    options = {"max_new_tokens": 10, "beams": 3, "stop_tokens": {1, 7}, **options}
    for number, best in enumerate(beam_search(net, inputs, **options)):
        (alone,) = beam_search(net, row(inputs, number), **options)
        assert [one.tokens for one in best] == [one.tokens for one in alone]
        assert [one.score for one in best] == pytest.approx([one.score for one in alone], abs=1e-9)


def test_scores_are_those_of_the_tokens_and_best_comes_first() -> None:
    net, inputs = model("decoder", 30), prompt("decoder", 30)
    for number, best in enumerate(beam_search(net, inputs, max_new_tokens=8, beams=4, stop_tokens={3})):
        scores = [log_probability(net, row(inputs, number), one.tokens) / len(one.tokens) for one in best]
        assert [one.score for one in best] == pytest.approx(scores, abs=1e-9)
        assert scores == sorted(scores, reverse=True)
        assert len({one.tokens for one in best}) == len(best) == 4


def test_more_beams_than_tokens_and_a_full_context_are_no_trouble() -> None:
    net = model("decoder", 2)
    (best,) = beam_search(net, torch.zeros(1, 38, dtype=torch.long), max_new_tokens=9, beams=7)
    assert sorted(one.tokens for one in best) == [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize("changes", [{"beams": 0}, {"max_new_tokens": 0}])
def test_bad_arguments_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(InputError, match="must be at least 1"):
        beam_search(model("decoder"), torch.zeros(1, 3, dtype=torch.long), **{"max_new_tokens": 3, **changes})
