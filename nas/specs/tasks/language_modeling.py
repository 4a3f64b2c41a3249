"""Specification of language modelling: objectives that are natural to the families, and their metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from nas.errors import did_you_mean
from nas.specs.base import BrokenRule, Key, Options, Value
from nas.specs.tasks.base import CURVE_KEYS, MetricSpec, TaskSpec, broken_contexts
from nas.specs.tasks.data import DATA_KEYS, Field, broken_data
from nas.specs.tasks.tokenizers import TOKENIZER_KEY, broken_tokenizer


@dataclass(frozen=True, kw_only=True)
class TextObjective:
    """A way to train a language model.

    Attributes:
        head: the output that it needs of a model.
        families: those that it serves.
        prefix: of the names of its metrics: what is told apart by it is not comparable.
        keys: the task's keys that belong to it beside those of every objective.
        scored: what its metrics are taken over, for their docs.
    """

    head: str
    families: frozenset[str]
    prefix: str
    keys: tuple[str, ...]
    scored: str


TEXT_OBJECTIVES: Mapping[str, TextObjective] = {
    "causal": TextObjective(
        head="causal_lm",
        families=frozenset({"decoder"}),
        prefix="",
        keys=(),
        scored="of a byte, given those before it",
    ),
    "masked": TextObjective(
        head="masked_lm",
        families=frozenset({"encoder"}),
        prefix="masked_",
        keys=("mask_rate",),
        scored="of a chosen byte, given the text on both sides",
    ),
    "infilling": TextObjective(
        head="infilling_lm",
        families=frozenset({"prefix_lm"}),
        prefix="infilling_",
        keys=("mask_rate", "mean_span", "generation_share"),
        scored="of what fills the blanks (their bytes, and where they end), given the text around them",
    ),
    # The same bytes as "causal", given the same bytes before them: the same metrics.
    "prefix": TextObjective(
        head="infilling_lm",
        families=frozenset({"prefix_lm"}),
        prefix="",
        keys=(),
        scored="of a byte, given those before it",
    ),
    "span_corruption": TextObjective(
        head="seq2seq_lm",
        families=frozenset({"encoder_decoder"}),
        prefix="span_",
        keys=("mask_rate", "mean_span", "sentinels"),
        scored="of the dropped spans (their bytes, and the sentinel after each), given the text around them",
    ),
}
"""Ways to train a language model, the natural one of each family first."""

NATURAL_OBJECTIVES: Mapping[str, str] = {
    "decoder": "causal",
    "encoder": "masked",
    "prefix_lm": "infilling",
    "encoder_decoder": "span_corruption",
}
LONGEST_SPAN = 8
"""The longest blank or dropped span, as a multiple of the mean."""


def shortest_context(options: Options) -> int:
    """The shortest context in tokens that complete options of `LanguageModeling` can be scored at.

    The longest span has to fit with its marks.
    """
    if "mean_span" not in options:
        return 1
    return math.ceil(LONGEST_SPAN * float(options["mean_span"])) + 8


TEXT_KEYS = ("corpus", "columns", "split", "tokenizer", "cross_documents", "evaluation_bytes")
"""The keys of every objective."""

FIELDS = (Field("text", "text", group=True),)

_PLAIN_METRICS: Mapping[str, MetricSpec] = {
    "bits_per_byte": MetricSpec(
        direction="minimize", unit="bit/byte", best=0.0, doc="negative log2 likelihood per byte"
    ),
    "perplexity": MetricSpec(
        direction="minimize",
        unit="",
        best=1.0,
        doc="exp of the mean negative log likelihood of a token",
        counts_tokens=True,
    ),
    "token_accuracy": MetricSpec(
        direction="maximize",
        unit="",
        best=1.0,
        doc="share of tokens whose most likely guess is right",
        counts_tokens=True,
    ),
}


def _metrics(objective: TextObjective) -> dict[str, MetricSpec]:
    if not objective.prefix:
        return dict(_PLAIN_METRICS)
    return {
        objective.prefix + name: replace(spec, doc=f"{spec.doc}, {objective.scored}")
        for name, spec in _PLAIN_METRICS.items()
    }


class LanguageModeling(TaskSpec):
    """Language modelling on text, in the way that is natural to the family.

        causal           next-byte prediction; for decoders
        masked           BERT's (Devlin et al. 2019); for encoders
        infilling        GLM's blanks, and continuing a text (Du et al. 2022); for prefix language models
        prefix           next-byte prediction behind a prefix seen in both directions; for the same
        span_corruption  T5's (Raffel et al. 2020); for encoder–decoders

    Scores of different losses have different names. Causal modelling is what the task is where
    nothing else is said: its complete options name no objective.
    """

    implementation: ClassVar[str] = "nas.tasks.language_modeling:LanguageModeling"
    head: ClassVar[str] = "causal_lm"
    families: ClassVar[frozenset[str]] = frozenset().union(*(found.families for found in TEXT_OBJECTIVES.values()))
    keys: ClassVar[Mapping[str, Key]] = {
        **CURVE_KEYS,
        "corpus": replace(DATA_KEYS["data"], doc=f"the text: {DATA_KEYS['data'].doc}"),
        "columns": DATA_KEYS["columns"],
        "split": DATA_KEYS["split"],
        "tokenizer": TOKENIZER_KEY,
        "cross_documents": Key(
            type=bool,
            derived=True,
            doc="read all documents of a part as one, marks between them (default: no sequence holds two documents)",
        ),
        "evaluation_bytes": Key(
            type=int,
            minimum=256,
            default=65_536,
            doc="bytes of the held-out part that are scored; of a corrupted text, those of which mask_rate are",
        ),
        "objective": Key(
            type=str,
            default="auto",
            doc=f"{', '.join(TEXT_OBJECTIVES)}; auto: the one that is natural to the family",
        ),
        "mask_rate": Key(
            type=float,
            minimum=0.01,
            maximum=0.5,
            default=0.15,
            doc="share of a text to be guessed (masked, infilling, span_corruption)",
        ),
        "mean_span": Key(
            type=float,
            minimum=1,
            maximum=64,
            default=3.0,
            doc="mean tokens of a blank (infilling: of the Poisson law they are drawn from; span_corruption)",
        ),
        "generation_share": Key(
            type=float,
            minimum=0,
            maximum=1,
            default=0.5,
            doc="share of examples with one long blank at the end, so that texts are continued (infilling)",
        ),
        "sentinels": Key(
            type=int,
            minimum=2,
            maximum=16_384,
            default=100,
            doc="tokens that stand for dropped spans; a text with more spans uses them again in turn (span_corruption)",
        ),
    }
    metrics: ClassVar[Mapping[str, MetricSpec]] = {
        name: spec for objective in TEXT_OBJECTIVES.values() for name, spec in _metrics(objective).items()
    }

    def complete(self, options: Options) -> dict[str, Value]:
        """The options of the objective alone, defaults filled in; none is named where it is causal."""
        name, objective = self._objective(options)
        filled = super().complete(options)
        wanted = {*TEXT_KEYS, *CURVE_KEYS, *objective.keys} | (set() if name == "causal" else {"objective"})
        return {key: value for key, value in filled.items() if key in wanted}

    def objective_for(self, family: str, options: Options) -> dict[str, Value]:
        """The options, with the objective that is natural to the family in the place of "auto"."""
        if options.get("objective", "auto") != "auto" or family not in NATURAL_OBJECTIVES:
            return dict(options)
        return {**options, "objective": NATURAL_OBJECTIVES[family]}

    def families_for(self, options: Options) -> frozenset[str]:
        """Those of the objective; "auto" without a family is causal."""
        return self._objective(options)[1].families

    def head_for(self, options: Options) -> str:
        """That of the objective."""
        return self._objective(options)[1].head

    def measured(self, options: Options) -> Mapping[str, MetricSpec]:
        """Those of the objective."""
        return _metrics(self._objective(options)[1])

    def broken_between(self, options: Options) -> Iterator[BrokenRule]:
        if not options["corpus"]:
            yield BrokenRule("corpus", f"corpus must not be empty: it is {self.keys['corpus'].doc}")
        yield from broken_data(options, FIELDS)
        yield from broken_tokenizer(options.get("tokenizer"))
        yield from broken_contexts(options, shortest_context(options), "the longest span and its marks")

    def _broken_alone(self, options: Options) -> Iterator[BrokenRule]:
        yield from super()._broken_alone(options)
        named = options.get("objective", "auto")
        if isinstance(named, str) and named != "auto" and named not in TEXT_OBJECTIVES:
            hint = did_you_mean(named, ["auto", *TEXT_OBJECTIVES])
            yield BrokenRule("objective", f"unknown objective '{named}': {hint}")
            return
        name, objective = self._objective(options)
        for key in options:
            users = [other for other, found in TEXT_OBJECTIVES.items() if key in found.keys]
            if users and key not in objective.keys:
                yield BrokenRule(key, f"objective '{name}' takes no '{key}': it is for {', '.join(users)}")

    def _objective(self, options: Options) -> tuple[str, TextObjective]:
        name = str(options.get("objective", "auto"))
        if name not in TEXT_OBJECTIVES:
            name = "causal"
        return name, TEXT_OBJECTIVES[name]
