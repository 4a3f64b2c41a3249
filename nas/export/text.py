"""What a language model does with text: continue it, and say how likely it is, or what it is.

In: a network, its tokenizer and a text. Out: a stream of pieces of text, bits per byte, or
the probabilities of labels. A text is read as in training, as a document of its own behind the special token
`<document>`.

Shapes: T tokens of a text, B windows of a batch, L positions, D width, N scored positions, W views, C labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import torch

from nas.errors import InputError
from nas.export.prompts import prompt_of
from nas.models.base import Model
from nas.models.decoder import Decoder
from nas.models.generate import generate
from nas.models.heads import last_token
from nas.space.architecture import Architecture
from nas.specs.tasks import CLASS_FORMS
from nas.tasks.answers import asked, first_label, marks
from nas.tasks.base import Labels
from nas.tasks.data import Ragged
from nas.tasks.metrics import IGNORED, summed_nats
from nas.tasks.texts import grouped, read_views, views
from nas.tasks.tokenizers import Tokenizer
from nas.tasks.windows import batches, scored_windows

TOKENS_PER_BATCH: Final = 16_384


def continue_text(
    model: Model,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    stop: Sequence[str],
    question: str = "",
) -> Iterator[str]:
    """See `nas.export.bundle.Bundle.generate_text`."""
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    if "" in stops:
        raise InputError("a stop string must not be empty: leave it out to generate without one")
    read = prompt_of(model, tokenizer, prompt, question)
    generated = generate(
        model,
        read.inputs,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        stop_tokens=read.stop_tokens,
        seed=seed,
    )
    return until_stop(tokenizer.decode_stream(int(token_B) for token_B in generated), stops)


def until_stop(pieces: Iterable[str], stops: Sequence[str]) -> Iterator[str]:
    """The text up to the stop string that is complete first, however the text is cut into pieces.

    What may be the beginning of a stop string is held back until that is decided.
    """
    held = ""
    for piece in pieces:
        held += piece
        # Where two are complete at once, the longer one began earlier and is cut off whole.
        found = [(held.index(stop) + len(stop), held.index(stop)) for stop in stops if stop in held]
        if found:
            held = held[: min(found)[1]]
            break
        safe = len(held) - max((_overlap(held, stop) for stop in stops), default=0)
        if safe:
            yield held[:safe]
            held = held[safe:]
    if held:
        yield held


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of the text that the stop string begins with."""
    sizes = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(stop[:size])), 0)


@torch.inference_mode()
def bits_per_byte(model: Decoder, tokenizer: Tokenizer, text: str) -> float:
    """See `nas.export.bundle.Bundle.bits_per_byte`."""
    if not text:
        raise InputError("there is nothing to score: the text is empty")
    tokens_T = np.array([tokenizer.document, *tokenizer.encode(text)], dtype=np.int64)
    inputs_T, targets_T = tokens_T[:-1], tokens_T[1:]
    windows = scored_windows(0, len(targets_T), context=model.max_context)
    device, nats = model.device, 0.0
    for batch in batches(inputs_T, targets_T, windows, tokens_per_batch=TOKENS_PER_BATCH):
        inputs_BL, targets_BL = batch.inputs_BL.to(device), batch.targets_BL.to(device)
        scored_BL = targets_BL != IGNORED
        logits_NV = model.head(model.features(inputs_BL)[scored_BL])
        nats += float(summed_nats(logits_NV, targets_BL[scored_BL])[0])
    return nats / math.log(2) / len(text.encode())


def classify(
    model: Model, tokenizer: Tokenizer, labels: Labels, text: str, architecture: Architecture
) -> dict[str, float]:
    """See `nas.export.bundle.Bundle.classify`."""
    if not text:
        raise InputError("there is nothing to classify: the text is empty")
    form = next(form for form, (_, head) in CLASS_FORMS.items() if head == architecture.head)
    first = first_label(form, tokenizer)
    tokens_T = np.array([tokenizer.document, *tokenizer.encode(text)], dtype=np.int64)
    rows = Ragged(tokens_T, np.array([0, len(tokens_T)]))
    found = views(np.zeros(1, np.int64), rows.lengths, architecture.max_context - marks(form), labels.too_long)
    shares = []
    with torch.no_grad():
        for group, length in grouped(found, TOKENS_PER_BATCH):
            inputs = asked(read_views(rows, group, length), form, tokenizer).to(model.device)
            features = model.features(inputs)
            if features.ndim == 3:
                features = last_token(features, inputs.lengths_B)
            logits_WC = model.head(features)[:, first : first + len(labels.names)].float()
            shares.append(logits_WC.sigmoid() if labels.several else logits_WC.softmax(1))
    share_C = torch.cat(shares).double().mean(0).tolist()
    return dict(sorted(zip(labels.names, share_C, strict=True), key=lambda pair: -pair[1]))
