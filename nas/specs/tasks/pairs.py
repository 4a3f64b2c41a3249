"""Specifications of text-to-text tasks: translation, and questions whose answers are written or pointed at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Final

from nas.errors import did_you_mean
from nas.specs.base import BrokenRule, Key, Options, Value
from nas.specs.tasks.base import CURVE_KEYS, MetricSpec, TaskSpec, broken_contexts
from nas.specs.tasks.classification import CUT_SHARE, TOO_LONG
from nas.specs.tasks.data import DATA_KEYS, Field, broken_data
from nas.specs.tasks.forms import NATURAL_FORMS, PAIR_FORMS
from nas.specs.tasks.tokenizers import TOKENIZER_KEY, broken_tokenizer

SHORTEST_PAIR: Final = 8
"""Tokens that a source and a target need at least, marks included."""

SOURCE_CUTS: Final = ("truncate", "head_tail")

SPAN_FORM: Final = "span"
SPAN_FAMILIES: Final = frozenset({"encoder", "decoder"})
"""Families that point at answers; a prefix language model whose prefix is all that is read is an encoder."""

SPAN_EXAMPLES: Final = 2_000
"""Held-out questions that are scored where answers are pointed at, unless a study says otherwise."""


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
    forms: ClassVar[tuple[str, ...]] = tuple(PAIR_FORMS)

    def cuts(self, options: Options) -> tuple[str, ...]:
        """What `too_long` may be."""
        return SOURCE_CUTS

    def fields_for(self, options: Options) -> tuple[Field, ...]:
        """What is read of each record."""
        return self.fields

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
        yield from broken_data(options, self.fields_for(options))
        yield from broken_tokenizer(options.get("tokenizer"))
        yield from broken_contexts(options, SHORTEST_PAIR, "a source and a target")
        if options["form"] not in self.forms:
            hint = did_you_mean(str(options["form"]), ["auto", *self.forms])
            yield BrokenRule("form", f"unknown form '{options['form']}': {hint}")
        if options["too_long"] not in self.cuts(options):
            hint = did_you_mean(str(options["too_long"]), self.cuts(options))
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
    """A question about a context, and its answer: written, or pointed at in the context; "" where it has none.

    span      question and context in one sequence, of which every token says how well an answer begins there
              and ends before it; for encoders and decoders
    """

    implementation: ClassVar[str] = "nas.tasks.pairs:QuestionAnswering"
    families: ClassVar[frozenset[str]] = TextToText.families | SPAN_FAMILIES
    forms: ClassVar[tuple[str, ...]] = (*TextToText.forms, SPAN_FORM)
    keys: ClassVar[Mapping[str, Key]] = {
        **TextToText.keys,
        "form": Key(
            type=str,
            default="auto",
            doc=f"{', '.join(PAIR_FORMS)}: the answer is written; {SPAN_FORM}: it is pointed at in the context, by an "
            "encoder or a decoder; auto: the one that is natural to the family (span for an encoder)",
        ),
        "too_long": Key(
            type=str,
            default="truncate",
            doc="how a context longer than its room is read: truncate (its beginning) or head_tail (both ends); for "
            "spans also window (all of it, in windows that advance by half the room; the best span of all counts)",
        ),
        "evaluation_examples": Key(
            type=int,
            minimum=1,
            derived=True,
            doc="held-out questions that are answered and scored (default: 200 where answers are written, "
            f"{SPAN_EXAMPLES:,} where they are pointed at); of the test part four times as many",
        ),
    }
    fields: ClassVar[tuple[Field, ...]] = (
        Field("question", "text"),
        Field("context", "text", group=True),
        Field("answers", "answers"),
    )
    # Read where answers are pointed at: the first one's first character in the context.
    span_fields: ClassVar[tuple[Field, ...]] = (*fields, Field("answer_start", "integer", optional=True))
    metrics: ClassVar[Mapping[str, MetricSpec]] = {
        "exact_match": MetricSpec(
            direction="maximize", unit="", best=1.0, doc="share of answers that equal a right one, as SQuAD counts"
        ),
        "answer_f1": MetricSpec(
            direction="maximize", unit="", best=1.0, doc="F1 of the words of answers and right ones, as SQuAD counts"
        ),
        "answer_bits_per_byte": _bits("the right answer, where it is written"),
        "span_loss": MetricSpec(
            direction="minimize",
            unit="nat",
            best=0.0,
            doc="mean negative log likelihood of where the answer begins and ends, in what is read at once (spans)",
        ),
        "answer_in_reach": MetricSpec(
            direction="maximize",
            unit="",
            best=1.0,
            doc="share of the held-out answers that stand whole in something that is read at once (spans)",
        ),
        "cut_share": CUT_SHARE,
    }

    def complete(self, options: Options) -> dict[str, Value]:
        """The options with defaults filled in; how many examples are scored depends on the form."""
        filled = super().complete(options)
        written = TextToText.keys["evaluation_examples"].default
        assert written is not None
        return {"evaluation_examples": SPAN_EXAMPLES if filled["form"] == SPAN_FORM else written, **filled}

    def objective_for(self, family: str, options: Options) -> dict[str, Value]:
        """The options, with the form that is natural to the family in the place of "auto"."""
        if options.get("form", "auto") == "auto" and family == "encoder":
            return {**options, "form": SPAN_FORM}
        return super().objective_for(family, options)

    def implementation_for(self, options: Options) -> str:
        """That of the form."""
        return "nas.tasks.extractive:SpanQuestions" if _points(options) else self.implementation

    def families_for(self, options: Options) -> frozenset[str]:
        """That of the form, or those."""
        return SPAN_FAMILIES if _points(options) else super().families_for(options)

    def head_for(self, options: Options) -> str:
        """That of the form."""
        return "span" if _points(options) else super().head_for(options)

    def cuts(self, options: Options) -> tuple[str, ...]:
        """What `too_long` may be: of a context that answers are pointed at in, windows too."""
        return TOO_LONG if _points(options) else SOURCE_CUTS

    def measured(self, options: Options) -> Mapping[str, MetricSpec]:
        """The metrics of the form; exact match is its own score."""
        others = {"answer_bits_per_byte"} if _points(options) else {"span_loss", "answer_in_reach"}
        return {name: spec for name, spec in self.metrics.items() if name not in others}

    def fields_for(self, options: Options) -> tuple[Field, ...]:
        """What is read of each record."""
        return self.span_fields if _points(options) else self.fields


def _points(options: Options) -> bool:
    return options.get("form") == SPAN_FORM
