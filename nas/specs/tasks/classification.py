"""Specification of classification: a text, and the label or labels that it bears."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Final

from nas.errors import did_you_mean
from nas.specs.base import BrokenRule, Key, Options
from nas.specs.tasks.base import CURVE_KEYS, MetricSpec, TaskSpec
from nas.specs.tasks.data import DATA_KEYS, Field, broken_data
from nas.specs.tasks.tokenizers import TOKENIZER_KEY, broken_tokenizer

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

    An encoder speaks from the mean of its features, a decoder from its last token's.
    """

    implementation: ClassVar[str] = "nas.tasks.classification:Classification"
    head: ClassVar[str] = "sequence_classification"
    families: ClassVar[frozenset[str]] = frozenset({"encoder", "decoder"})
    keys: ClassVar[Mapping[str, Key]] = {
        **CURVE_KEYS,
        **DATA_KEYS,
        "tokenizer": TOKENIZER_KEY,
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

    def broken_between(self, options: Options) -> Iterator[BrokenRule]:
        yield from broken_data(options, self.fields(options))
        yield from broken_tokenizer(options.get("tokenizer"))
        yield from broken_too_long(options)
