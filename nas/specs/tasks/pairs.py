"""Specifications of text-to-text tasks: translation, and questions with answers that are generated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Final

from nas.errors import did_you_mean
from nas.specs.base import BrokenRule, Key, Options, Value
from nas.specs.tasks.base import CURVE_KEYS, MetricSpec, TaskSpec, broken_contexts
from nas.specs.tasks.classification import CUT_SHARE
from nas.specs.tasks.data import DATA_KEYS, Field, broken_data
from nas.specs.tasks.forms import NATURAL_FORMS, PAIR_FORMS
from nas.specs.tasks.tokenizers import TOKENIZER_KEY, broken_tokenizer

SHORTEST_PAIR: Final = 8
"""Tokens that a source and a target need at least, marks included."""

SOURCE_CUTS: Final = ("truncate", "head_tail")


def _bits(what: str) -> MetricSpec:
    return MetricSpec(
        direction="minimize", unit="bit/byte", best=0.0, doc=f"negative log2 likelihood per byte of {what}"
    )


class TextToText(TaskSpec):
    """A source is read and a target written.

    causal    source and target in one sequence; for decoders
    prefix    the source as a prefix seen in both directions; for prefix language models
    seq2seq   the source by the encoder, the target by the decoder; for encoder–decoders
    """

    head: ClassVar[str] = "causal_lm"
    families: ClassVar[frozenset[str]] = frozenset(family for family, _ in PAIR_FORMS.values())
    keys: ClassVar[Mapping[str, Key]] = {
        **CURVE_KEYS,
        **DATA_KEYS,
        "tokenizer": TOKENIZER_KEY,
        "form": Key(
            type=str, default="auto", doc=f"{', '.join(PAIR_FORMS)}; auto: the one that is natural to the family"
        ),
        "too_long": Key(
            type=str,
            default="truncate",
            doc="how a source longer than its room is read: truncate (its beginning) or head_tail (both ends)",
        ),
        "evaluation_examples": Key(
            type=int,
            minimum=1,
            default=200,
            doc="held-out examples whose targets are generated and scored; of the test part four times as many",
        ),
    }
    fields: ClassVar[tuple[Field, ...]]

    def complete(self, options: Options) -> dict[str, Value]:
        """The options with defaults filled in; without a family the form is causal."""
        filled = super().complete(options)
        return {**filled, "form": "causal" if filled["form"] == "auto" else filled["form"]}

    def objective_for(self, family: str, options: Options) -> dict[str, Value]:
        """The options, with the form that is natural to the family in the place of "auto"."""
        if options.get("form", "auto") != "auto" or family not in NATURAL_FORMS:
            return dict(options)
        return {**options, "form": NATURAL_FORMS[family]}

    def families_for(self, options: Options) -> frozenset[str]:
        """That of the form."""
        return frozenset({PAIR_FORMS.get(str(options.get("form", "causal")), PAIR_FORMS["causal"])[0]})

    def head_for(self, options: Options) -> str:
        """That of the form."""
        return PAIR_FORMS.get(str(options.get("form", "causal")), PAIR_FORMS["causal"])[1]

    def broken_between(self, options: Options) -> Iterator[BrokenRule]:
        yield from broken_data(options, self.fields)
        yield from broken_tokenizer(options.get("tokenizer"))
        yield from broken_contexts(options, SHORTEST_PAIR, "a source and a target")
        if options["form"] not in PAIR_FORMS:
            hint = did_you_mean(str(options["form"]), ["auto", *PAIR_FORMS])
            yield BrokenRule("form", f"unknown form '{options['form']}': {hint}")
        if options["too_long"] not in SOURCE_CUTS:
            hint = did_you_mean(str(options["too_long"]), SOURCE_CUTS)
            yield BrokenRule("too_long", f"unknown too_long '{options['too_long']}': {hint}")


class Translation(TextToText):
    """A text into another: translation, or any pairs of texts."""

    implementation: ClassVar[str] = "nas.tasks.pairs:Translation"
    fields: ClassVar[tuple[Field, ...]] = (Field("source", "text", group=True), Field("target", "text"))
    metrics: ClassVar[Mapping[str, MetricSpec]] = {
        "chrf": MetricSpec(
            direction="maximize", unit="", best=100.0, doc="chrF (Popović 2015) of the generated targets, of 100"
        ),
        "bleu": MetricSpec(
            direction="maximize", unit="", best=100.0, doc="BLEU (Papineni et al. 2002; tokens of 13a), of 100"
        ),
        "target_bits_per_byte": _bits("the target, given the source"),
        "cut_share": CUT_SHARE,
    }


class QuestionAnswering(TextToText):
    """A question about a context, and the answer that is written; "" where the context has none."""

    implementation: ClassVar[str] = "nas.tasks.pairs:QuestionAnswering"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("question", "text"),
        Field("context", "text", group=True),
        Field("answers", "answers"),
    )
    metrics: ClassVar[Mapping[str, MetricSpec]] = {
        "exact_match": MetricSpec(
            direction="maximize", unit="", best=1.0, doc="share of answers that equal a right one, as SQuAD counts"
        ),
        "answer_f1": MetricSpec(
            direction="maximize", unit="", best=1.0, doc="F1 of the words of answers and right ones, as SQuAD counts"
        ),
        "answer_bits_per_byte": _bits("the right answer"),
        "cut_share": CUT_SHARE,
    }
