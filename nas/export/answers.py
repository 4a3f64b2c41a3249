"""The span of a context that answers a question, by a network that was trained to point at it.

In: a network, its tokenizer, a question and a context. Out: the answer, in the context's own letters.
What the network reads, and which span of several windows is the answer, are as in training and scoring
(`nas.tasks.extractive`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch

from nas.errors import InputError
from nas.models.base import Model
from nas.tasks.base import Spans
from nas.tasks.extractive import answers_at, best_spans, grouped_views, padded, question_views, read_view, text_between
from nas.tasks.tokenizers import Tokenizer

TOKENS_PER_BATCH: Final = 16_384


@torch.no_grad()
def answer_in(model: Model, tokenizer: Tokenizer, spans: Spans, context: str, question: str) -> str:
    """See `nas.export.bundle.Bundle.answer`."""
    for name, text in (("context", context), ("question", question)):
        if not text.strip():
            raise InputError(f"an answer needs a question and a context: the {name} is empty")
    asked, placed = tokenizer.encode_many([question])[0], tokenizer.encode_placed([context])[0]
    found = question_views(
        np.zeros(1, dtype=np.int64),
        np.array([len(asked)]),
        np.array([len(placed.ids)]),
        model.max_context,
        spans.too_long,
    )
    best = (-np.inf, 0, 0)
    for group, length in grouped_views(found, TOKENS_PER_BATCH):
        rows = [read_view(tokenizer, asked, placed.ids, group, row) for row in range(len(group.length_W))]
        inputs, said_BL3 = padded(rows, length)
        seen = best_spans(model(inputs.to(model.device)).cpu(), said_BL3, spans.most_tokens)
        columns = (seen.score_B, seen.first_B, seen.end_B)
        best = max(best, *zip(*(column.tolist() for column in columns), strict=True), key=lambda one: one[0])
    score, first, end = best
    if not answers_at(score, always_answered=spans.always_answered):
        return ""
    return text_between(context.encode(), int(placed.first_N[first]), int(placed.end_N[end - 1]))
