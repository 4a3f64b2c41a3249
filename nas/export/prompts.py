"""A text as each family reads it to go on from there.

In: a model, its tokenizer and a prompt. Out: the tokens to read, and those that end what follows. A
text is read as in training, as a document of its own behind the special token `<document>`.
"""

from __future__ import annotations

from collections.abc import Mapping
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


def writes_targets(tokenizer: Tokenizer) -> bool:
    """Whether a model with this tokenizer was trained to write the target of a source."""
    return "<separator>" in tokenizer.specials


def prompt_of(model: Model, tokenizer: Tokenizer, text: str, question: str = "") -> Prompt:
    """The prompt of a text that is to be continued, or of a source whose target is to be written.

    A decoder reads the text. A prefix language model that was trained to fill blanks reads it with a
    blank at its end, and fills that (Du et al. 2022); one that was not takes it as its prefix. An
    encoder–decoder reads it with a missing span at its end, and writes that (Raffel et al. 2020). One that
    was trained on sources and targets reads the source as in training, and writes up to `<end>`.

    Args:
        model: that goes on.
        tokenizer: of the model.
        text: to be continued, or the source.
        question: about the source, if it was trained on such.

    Raises:
        InputError: the text is too long for the model, or a question is asked of one that knows none.
    """
    tokens = [tokenizer.document, *tokenizer.encode(text)]
    marks = {name: tokenizer.special(name) for name in tokenizer.specials}
    if writes_targets(tokenizer):
        return _source(model, marks, [*tokenizer.encode(question), marks["<separator>"]] if question else [], tokens)
    if question:
        raise InputError("this model continues texts: it was not trained on questions")
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


def _source(model: Model, marks: Mapping[str, int], question: list[int], tokens: list[int]) -> Prompt:
    read = [tokens[0], *question, *tokens[1:]]
    _check(model, read, marks=1 if isinstance(model, EncoderDecoder) else 2)
    start, stop = marks["<start>"], frozenset({marks["<end>"]})
    if isinstance(model, EncoderDecoder):
        source_BS = torch.tensor([read], device=model.device)
        return Prompt(Inputs(torch.tensor([[start]], device=model.device), source_BS=source_BS), stop)
    tokens_BL = torch.tensor([[*read, start]], device=model.device)
    if not isinstance(model, PrefixLM):
        return Prompt(Inputs(tokens_BL), stop)
    places = [[place, 0] for place in range(len(read))] + [[len(read) - 1, 1]]
    inputs = Inputs(
        tokens_BL,
        prefix_B=torch.tensor([len(read)], device=model.device),
        positions_BL2=torch.tensor([places], device=model.device),
    )
    return Prompt(inputs, stop)


def _check(model: Model, tokens: list[int], *, marks: int) -> None:
    """Refuses a text that leaves no room for the marks behind it, one new token among them."""
    room = model.max_context - marks - 1
    if len(tokens) - 1 > room:
        raise InputError(
            f"a prompt must have at most {room} tokens, max_context {model.max_context} less <document> and "
            f"{'one new token' if marks == 1 else f'{marks} more'}: this one has {len(tokens) - 1}"
        )
