"""One token that answers a text: where a model says it, as each family reads the text.

In: texts as rows of tokens. Out: the same with the place of the answer behind them. Whatever the form, the
answer is said after the last token of a sequence.

    head      <document> text                         a head over the labels answers
    causal    <document> text <start>                 the answer is the next token
    prefix    the same; the text is seen in both directions, `<start>` stands in a blank at its end
    seq2seq   <document> text | <start>               encoder | decoder

Each label is one special token, whatever its name: what a model thinks of a text is then one distribution over
the labels, read at one place, and needs no generation. (Names in several tokens would make their shares depend
on how many tokens each has.)

Legend: B sequences, L positions.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from nas.tasks.inputs import Inputs
from nas.tasks.tokenizers import Tokenizer

START: Final = "<start>"


def label_specials(labels: int) -> tuple[str, ...]:
    """The specials that say so many labels, and the one that asks for them."""
    return (START, *(f"<label_{number}>" for number in range(labels)))


def marks(form: str) -> int:
    """Tokens of a context that a text leaves to the place of its answer."""
    return 1 if form in ("causal", "prefix") else 0


def first_label(form: str, tokenizer: Tokenizer) -> int:
    """Of a model's outputs, the first one that speaks of a label; the others follow it."""
    return 0 if form == "head" else tokenizer.special(label_specials(1)[1])


def asked(read: Inputs, form: str, tokenizer: Tokenizer) -> Inputs:
    """Texts as they are read, with the place of the answer behind them.

    Args:
        read: tokens of texts, and their lengths.
        form: "head", "causal", "prefix" or "seq2seq".
        tokenizer: with `label_specials`, unless a head answers.
    """
    if form == "head":
        return read
    tokens_BL, lengths_B, start = read.tokens_BL, read.lengths_B, tokenizer.special(START)
    rows, length = tokens_BL.shape
    if form == "seq2seq":
        start_B1 = tokens_BL.new_full((rows, 1), start)
        return Inputs(start_B1, source_BS=tokens_BL, source_lengths_B=lengths_B)
    size_B = tokens_BL.new_full((rows,), length) if lengths_B is None else lengths_B
    tokens_BL = torch.cat([tokens_BL, tokens_BL.new_zeros((rows, 1))], dim=1)
    tokens_BL[torch.arange(rows, device=tokens_BL.device), size_B] = start
    lengths_B = None if lengths_B is None else lengths_B + 1
    if form == "causal":
        return Inputs(tokens_BL, lengths_B)
    return Inputs(tokens_BL, lengths_B, size_B, blank_positions(size_B, length + 1))


def blank_positions(prefix_B: Tensor, length: int) -> Tensor:
    """Positions, (B, L, 2), of prefixes and what fills a blank at the end of each."""
    at_L, last_B1 = torch.arange(length, device=prefix_B.device), prefix_B[:, None] - 1
    return torch.stack([torch.minimum(at_L, last_B1), (at_L - last_B1).clamp(min=0)], dim=2)
