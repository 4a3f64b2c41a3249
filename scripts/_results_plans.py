"""What scripts/reproduce_results compares: one section for each claim, each a list of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from _results_run import Row

Words = Mapping[str, Any]
CONTEXTS = (64, 256, 1024)
MILLION = 1_000_000


@dataclass(frozen=True)
class Section:
    """A claim and the rows that it is held against.

    Attributes:
        name: for the command line.
        title: of the page's section.
        rows: in the order of the table.
    """

    name: str
    title: str
    rows: tuple[Row, ...]


def decoder(context: int, *, width: int = 64, depth: int = 2, layers: Words | list[Words] | None = None) -> Words:
    """A small Llama-like decoder."""
    layers = {"mixer": "full", "heads": width // 32, "mlp_ratio": 4} if layers is None else layers
    return {"family": "decoder", "width": width, "depth": depth, "max_context": context, "layers": layers}


def sotu() -> Section:
    """Where longer context begins to pay: bits per byte against max_context at three budgets."""
    rates = (2e-3, 4e-3, 8e-3)
    small = {"budget": {"tokens": MILLION, "rungs": 2, "tokens_per_step": 2048}}
    middle = {"budget": {"tokens": 8 * MILLION, "rungs": 2, "tokens_per_step": 4096}}
    large = {"budget": {"tokens": 30 * MILLION, "rungs": 2, "tokens_per_step": 8192}}
    # The same bytes for all; candidates are scored at the three contexts where these are reported.
    more = {"task.evaluation_bytes": 131_072}
    rows = []
    for words, label, seeds in ((small, "1M", (1, 2, 3)), (middle, "8M", (1, 2, 3)), (large, "30M", (1, 2))):
        for context in CONTEXTS:
            rows.append(
                Row(
                    name=f"sotu-{label}-{context}",
                    label=f"{label} tokens, context {context}",
                    study="studies/quickstart.yaml",
                    space=decoder(context),
                    score="bits_per_byte",
                    rates=rates if label == "1M" or (label == "8M" and context == 256) else (),
                    seeds=seeds,
                    words={**words, **more, "task.contexts": list(CONTEXTS)},
                    search_words={"task.contexts": [context]},
                    rate_of="" if label == "1M" else "sotu-8M-256" if (label, context) != ("8M", 256) else "",
                )
            )
    return Section("sotu", "Where longer context begins to pay", tuple(rows))


BPE = {"kind": "bpe", "vocabulary": 4096}
EVERY = {"task.evaluation_examples": 10_000}


def spam() -> Section:
    """Does the accuracy rise with the context?"""
    rows = tuple(
        Row(
            name=f"spam-{context}",
            label=f"context {context}",
            study="studies/spam_assassin.yaml",
            space=decoder(context),
            score="accuracy",
            rates=(1e-3, 3e-3),
            seeds=(1, 2, 3),
            words={
                "task.tokenizer": BPE,
                "budget": {"tokens": 4 * MILLION, "rungs": 2, "tokens_per_step": 8192},
                **EVERY,
            },
        )
        for context in (32, 128, 512, 2048)
    )
    return Section("spam", "Spam: accuracy against context", rows)


def bible() -> Section:
    """Is a small encoder-decoder far better than copying?"""
    layers = {"mixer": "full", "heads": 4, "mlp_ratio": 3}
    stack = {"depth": 3, "layers": layers}
    space = {
        "family": "encoder_decoder",
        "width": 128,
        "max_context": 128,
        "positions": "relative",
        "encoder": stack,
        "decoder": stack,
    }
    row = Row(
        name="bible",
        label="encoder-decoder, 3 + 3 layers, width 128",
        study="studies/bible_en_es.yaml",
        space=space,
        score="chrf",
        rates=(2e-3, 5e-3),
        seeds=(1, 2),
        words={
            "budget": {"tokens": 12 * MILLION, "rungs": 2, "tokens_per_step": 4096},
            "task.evaluation_examples": 400,
            "task.contexts": [128],
        },
        search_words={"budget": {"tokens": 3 * MILLION, "rungs": 2, "tokens_per_step": 4096}},
    )
    return Section("bible", "Translation: whole held-out books", (row,))


SECTIONS = {found.name: found for found in (sotu(), spam(), bible())}
