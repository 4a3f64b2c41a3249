"""Specification of multi-query associative recall."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from nas.errors import did_you_mean
from nas.specs.base import BrokenRule, Key, Options
from nas.specs.tasks.base import CURVE_KEYS, MetricSpec, TaskSpec

FILLERS = ("zero", "random")


class Recall(TaskSpec):
    """Multi-query associative recall (MQAR; Arora et al. 2023, Zoology)."""

    implementation: ClassVar[str] = "nas.tasks.recall:Recall"
    head: ClassVar[str] = "causal_lm"
    families: ClassVar[frozenset[str]] = frozenset({"decoder"})
    keys: ClassVar[Mapping[str, Key]] = {
        **CURVE_KEYS,
        "vocabulary": Key(type=int, minimum=8, default=128, doc="token kinds; keys and values share them in halves"),
        "length": Key(type=int, minimum=4, default=128, doc="tokens of an example, at least 4 x pairs"),
        "pairs": Key(type=int, minimum=1, default=8, doc="key-value pairs of an example"),
        "filler": Key(type=str, default="zero", doc="what stands between the queries: zero or random"),
        "evaluation_examples": Key(type=int, minimum=1, default=256, doc="held-out examples that are scored"),
    }
    metrics: ClassVar[Mapping[str, MetricSpec]] = {
        "recall_accuracy": MetricSpec(
            direction="maximize", unit="", best=1.0, doc="share of queries answered with their value"
        ),
        "recall_loss": MetricSpec(
            direction="minimize", unit="nat", best=0.0, doc="mean negative log likelihood of a queried value"
        ),
    }

    def broken_between(self, options: Options) -> Iterator[BrokenRule]:
        vocabulary, length, pairs = (int(options[name]) for name in ("vocabulary", "length", "pairs"))
        if vocabulary % 2:
            yield BrokenRule("vocabulary", f"vocabulary must be even, not {vocabulary}: nearest {vocabulary + 1}")
        if length % 2:
            yield BrokenRule("length", f"length must be even, not {length}: nearest {length + 1}")
        if pairs < 1:
            yield BrokenRule("pairs", f"pairs must be at least 1, not {pairs}")
        if 4 * pairs > length:
            yield BrokenRule(
                "length", f"length must be at least 4 x pairs = {4 * pairs}, not {length}: nearest {4 * pairs}"
            )
        # Token 0 is the filler, so one half of the vocabulary has a key less than the other has values.
        if pairs > vocabulary // 2 - 1:
            yield BrokenRule(
                "vocabulary",
                f"pairs must be at most vocabulary / 2 - 1 = {vocabulary // 2 - 1}, not {pairs}: "
                f"nearest vocabulary {2 * (pairs + 1)}",
            )
        if options["filler"] not in FILLERS:
            yield BrokenRule(
                "filler", f"unknown filler '{options['filler']}': {did_you_mean(options['filler'], FILLERS)}"
            )
