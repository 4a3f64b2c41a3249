"""A text as each family reads it to go on from there.

In: a model, its tokenizer and a prompt. Out: the tokens to read, and those that end what follows. A
text is read as in training, as a document of its own behind the special token `<document>`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nas.errors import InputError
from nas.models.base import Model
from nas.models.encoder_decoder import EncoderDecoder
from nas.models.prefix_lm import PrefixLM
from nas.tasks.inputs import Inputs
from nas.tasks.tokenizers import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """What a model reads before it goes on.

    Attributes:
        inputs: one sequence, on the model's device.
        stop_tokens: tokens that end the continuation and are no part of it.
    """

    inputs: Inputs
    stop_tokens: frozenset[int] = frozenset()


def prompt_of(model: Model, tokenizer: Tokenizer, text: str) -> Prompt:
    """The prompt of a text that is to be continued.

    A decoder reads the text. A prefix language model that was trained to fill blanks reads it with a
    blank at its end, and fills that (Du et al. 2022); one that was not takes it as its prefix. An
    encoder–decoder reads it with a missing span at its end, and writes that (Raffel et al. 2020).

    Raises:
        InputError: the text is too long for the model.
    """
    tokens = [tokenizer.document, *tokenizer.encode(text)]
    marks = {name: tokenizer.special(name) for name in tokenizer.specials}
    if isinstance(model, EncoderDecoder):
        start, missing = marks["<start>"], marks["<sentinel_0>"]
        _check(model, tokens, marks=1)
        source_BS = torch.tensor([[*tokens, missing]], device=model.device)
        after = frozenset({marks["<sentinel_1>"]} if "<sentinel_1>" in marks else ())
        return Prompt(Inputs(torch.tensor([[start, missing]], device=model.device), source_BS=source_BS), after)
    if isinstance(model, PrefixLM) and "<mask>" in marks:
        mask, start, end = marks["<mask>"], marks["<start>"], marks["<end>"]
        _check(model, tokens, marks=3)
        seen = len(tokens) + 1
        places = [[place, 0] for place in range(seen)] + [[seen - 1, 1]]
        inputs = Inputs(
            torch.tensor([[*tokens, mask, start]], device=model.device),
            prefix_B=torch.tensor([seen], device=model.device),
            positions_BL2=torch.tensor([places], device=model.device),
        )
        return Prompt(inputs, frozenset({end}))
    _check(model, tokens, marks=1)
    return Prompt(Inputs(torch.tensor([tokens], device=model.device)))


def _check(model: Model, tokens: list[int], *, marks: int) -> None:
    """Refuses a text that leaves no room for the marks behind it, one new token among them."""
    room = model.max_context - marks - 1
    if len(tokens) - 1 > room:
        raise InputError(
            f"a prompt must have at most {room} tokens, max_context {model.max_context} less <document> and "
            f"{'one new token' if marks == 1 else f'{marks} more'}: this one has {len(tokens) - 1}"
        )
