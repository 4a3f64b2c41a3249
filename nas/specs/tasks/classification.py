"""Specification of classification: a text, and the label or labels that it bears."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Final

from nas.errors import did_you_mean
from nas.specs.base import BrokenRule, Key, Options, Value
from nas.specs.tasks.base import CURVE_KEYS, MetricSpec, TaskSpec, broken_contexts
from nas.specs.tasks.data import DATA_KEYS, Field, broken_data
from nas.specs.tasks.forms import NATURAL_FORMS, PAIR_FORMS
from nas.specs.tasks.tokenizers import TOKENIZER_KEY, broken_tokenizer

CLASS_FORMS: Final[Mapping[str, tuple[frozenset[str], str]]] = {
    "head": (frozenset({"encoder", "decoder"}), "sequence_classification"),
    **{form: (frozenset({family}), head) for form, (family, head) in PAIR_FORMS.items()},
}
"""How a label is told: by a head over the labels, or said as a token, in the form of a pair. The families, and
their head."""

FORM_WORDS: Final = ("auto", "head", "text_to_text")

TOO_LONG: Final = ("truncate", "head_tail", "window")
"""How a text that is longer than the context is read: its beginning; half of the context from its beginning and
half from its end; or windows that advance by half the context, whose opinions are averaged."""

TOO_LONG_KEY: Final = Key(
    type=str,
    default="truncate",
    doc="how a text longer than the context is read: truncate (its beginning), head_tail (beginning and end), or "
    "window (all of it, in windows that advance by half the context; their opinions are averaged)",
)

CUT_SHARE: Final = MetricSpec(
    direction="minimize", unit="", best=0.0, doc="share of the held-out tokens that no context held: they were cut off"
)


def broken_too_long(options: Options) -> Iterator[BrokenRule]:
    """The rule that `too_long` breaks."""
    if options["too_long"] not in TOO_LONG:
        hint = did_you_mean(str(options["too_long"]), TOO_LONG)
        yield BrokenRule("too_long", f"unknown too_long '{options['too_long']}': {hint}")


class Classification(TaskSpec):
    """Classification of texts, by one label each or by any number of them.

    head           a head over the labels reads the mean of an encoder's features, or a decoder's last token
    text_to_text   the label is said behind the text: each label is one token of its own, and its probability is
                   its share among the labels' tokens alone, so that every metric means what it does of a head

    A decoder's text-to-text form is "causal", a prefix language model's "prefix", an encoder–decoder's "seq2seq".
    """

    implementation: ClassVar[str] = "nas.tasks.classification:Classification"
    head: ClassVar[str] = "sequence_classification"
    families: ClassVar[frozenset[str]] = frozenset().union(*(families for families, _ in CLASS_FORMS.values()))
    keys: ClassVar[Mapping[str, Key]] = {
        **CURVE_KEYS,
        **DATA_KEYS,
        "tokenizer": TOKENIZER_KEY,
        "form": Key(
            type=str,
            default="auto",
            doc="head (over the labels; for encoders and decoders) or text_to_text (the label is said, as one token; "
            "for every family but encoders); auto: head where the family has one",
        ),
        "too_long": TOO_LONG_KEY,
        "multi_label": Key(
            type=bool,
            derived=True,
            doc="each text bears any number of labels (field `labels`) instead of one (`label`)",
        ),
        "evaluation_examples": Key(
            type=int,
            minimum=1,
            default=2_000,
            doc="held-out texts that are scored, or all there are; of the test part four times as many",
        ),
    }
    metrics: ClassVar[Mapping[str, MetricSpec]] = {
        "accuracy": MetricSpec(
            direction="maximize",
            unit="",
            best=1.0,
            doc="share of texts whose likeliest label is right; of several labels, whose labels are all right",
        ),
        "macro_f1": MetricSpec(direction="maximize", unit="", best=1.0, doc="F1 of each label, averaged over labels"),
        "calibration_error": MetricSpec(
            direction="minimize",
            unit="",
            best=0.0,
            doc="expected calibration error: what confidence and accuracy differ by, in 15 bins (Guo et al. 2017)",
        ),
        "classification_loss": MetricSpec(
            direction="minimize",
            unit="nat",
            best=0.0,
            doc="mean negative log likelihood of the label; of several labels, of each being there or not",
        ),
        "cut_share": CUT_SHARE,
    }

    def fields(self, options: Options) -> tuple[Field, ...]:
        """What is read of each record."""
        if options.get("multi_label", False):
            return (Field("text", "text", group=True), Field("labels", "labels"))
        return (Field("text", "text", group=True), Field("label", "label"))

    def complete(self, options: Options) -> dict[str, Value]:
        """The options with defaults filled in; no form is named where a head tells the label."""
        filled = super().complete(options)
        if filled["form"] in ("auto", "head"):
            del filled["form"]
        return filled

    def objective_for(self, family: str, options: Options) -> dict[str, Value]:
        """The options, with the family's own form in the place of "auto" and "text_to_text"."""
        form = options.get("form", "auto")
        said = form == "text_to_text" or (form == "auto" and family not in CLASS_FORMS["head"][0])
        if not said or family not in NATURAL_FORMS:
            return dict(options)
        return {**options, "form": NATURAL_FORMS[family]}

    def families_for(self, options: Options) -> frozenset[str]:
        """Those of the form."""
        if options.get("form") == "text_to_text":
            return frozenset(NATURAL_FORMS)
        return self._form(options)[0]

    def head_for(self, options: Options) -> str:
        """That of the form; "text_to_text" without a family is causal."""
        return self._form(options)[1]

    def broken_between(self, options: Options) -> Iterator[BrokenRule]:
        yield from broken_data(options, self.fields(options))
        yield from broken_tokenizer(options.get("tokenizer"))
        yield from broken_too_long(options)
        form = options.get("form", "head")
        if form not in (*FORM_WORDS, *CLASS_FORMS):
            yield BrokenRule("form", f"unknown form '{form}': {did_you_mean(str(form), FORM_WORDS)}")
        if form != "head":
            yield from broken_contexts(options, 2, "a text and its label")

    def _form(self, options: Options) -> tuple[frozenset[str], str]:
        form = str(options.get("form", "head"))
        return CLASS_FORMS["causal" if form == "text_to_text" else form if form in CLASS_FORMS else "head"]
