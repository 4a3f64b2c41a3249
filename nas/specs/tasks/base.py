"""What the specification of a task is: its options, metrics, and whom it serves.

A metric's direction and unit are fixed here, so that an objective named in a study needs no
more than its name.

A task may train in several ways, each for families of its own; `TaskSpec.objective_for` picks the one
that is natural to a family, and the methods that take options say what it needs and measures.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from nas.errors import did_you_mean
from nas.specs.base import BrokenRule, Key, Options, Value

Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """What a metric means.

    Attributes:
        direction: which way is better.
        unit: the unit of its values ("" for a share).
        best: the value that nothing can beat; scales the hypervolume.
        doc: one line for tables and the generated reference.
        counts_tokens: whether it is a mean over tokens, so that tokenizers of different vocabularies cannot be
            compared by it.
    """

    direction: Direction
    unit: str
    best: float
    doc: str
    counts_tokens: bool = False


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


EFFECTIVE_CONTEXT = "effective_context"

CURVE_KEYS: Mapping[str, Key] = {
    "contexts": Key(
        type=list,
        derived=True,
        doc="tokens at which finished candidates are scored besides their max_context, those beyond it included where "
        "their positions allow (default: a quarter, a half and twice of it)",
    ),
    "effective_share": Key(
        type=float,
        minimum=0.01,
        maximum=1,
        derived=True,
        doc="effective_context is the longest of the contexts whose score keeps this share of the best (default: 0.9)",
    ),
    "effective_score": Key(
        type=float,
        derived=True,
        doc="effective_context is the longest of the contexts that scores at least as well as this (RULER: 0.856)",
    ),
}
"""How scores are taken along the context; every task takes them."""

EFFECTIVE_SHARE = 0.9


def effective_context_spec(longest: int) -> MetricSpec:
    """The metric of the whole curve, for contexts up to the longest."""
    return MetricSpec(
        direction="maximize",
        unit="token",
        best=float(longest),
        doc="the longest of the contexts whose score keeps a share of the best, or reaches a score; 0 if none does",
    )


class TaskSpec(ABC):
    """A job that models are trained and measured on.

    Attributes:
        implementation: the torch class, as "module:Class", where the options do not change it.
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

    def implementation_for(self, options: Options) -> str:
        """The torch class that does what these options ask for."""
        return self.implementation

    def families_for(self, options: Options) -> frozenset[str]:
        """The families that these options serve."""
        return self.families

    def head_for(self, options: Options) -> str:
        """The output that these options need of a model."""
        return self.head

    def measured(self, options: Options) -> Mapping[str, MetricSpec]:
        """The metrics that these options measure at one context; the first is the task's own score."""
        return self.metrics

    def curve_score(self, options: Options) -> str:
        """The metric whose values along the contexts tell effective_context: the task's own score."""
        return next(iter(self.measured(options)))

    def metrics_for(self, options: Options) -> Mapping[str, MetricSpec]:
        """The metrics that these options measure, those of the whole curve included."""
        contexts = options.get("contexts")
        if not isinstance(contexts, list) or not contexts:
            return self.measured(options)
        return {**self.measured(options), EFFECTIVE_CONTEXT: effective_context_spec(max(contexts))}

    def data_options(self, options: Options) -> dict[str, Any]:
        """The options that data and its scores at one context depend on."""
        return {key: value for key, value in options.items() if key not in CURVE_KEYS}

    def broken_rules(self, options: Options) -> Iterator[BrokenRule]:
        """The rules that these options break, defaults filled in or not."""
        alone = list(self._broken_alone(options))
        yield from alone or self.broken_between(self.complete(options))

    def broken_between(self, options: Options) -> Iterator[BrokenRule]:
        """The rules between keys that these complete and by themselves valid options break."""
        return iter(())

    def _broken_alone(self, options: Options) -> Iterator[BrokenRule]:
        task = type(self).__name__
        yield from _broken_curve(options)
        for name, value in options.items():
            if name not in self.keys:
                yield BrokenRule(name, f"task {task} takes no '{name}': {did_you_mean(name, self.keys)}")
                continue
            key = self.keys[name]
            if not key.admits(value):
                yield BrokenRule(name, f"{name} must be {key.words}, not {value!r}")
            elif key.minimum is not None and isinstance(value, int | float) and value < key.minimum:
                yield BrokenRule(name, f"{name} must be at least {key.minimum:g}, not {value!r}")
            elif key.maximum is not None and isinstance(value, int | float) and value > key.maximum:
                yield BrokenRule(name, f"{name} must be at most {key.maximum:g}, not {value!r}")
        for name, key in self.keys.items():
            if key.default is None and not key.derived and name not in options:
                yield BrokenRule(name, f"task {task} needs '{name}' ({key.doc})")


def broken_contexts(options: Options, shortest: int, why: str) -> Iterator[BrokenRule]:
    """The rule that contexts break which are shorter than what a task can be scored at."""
    contexts = options.get("contexts")
    if isinstance(contexts, list) and min(contexts) < shortest:
        text = f"contexts must be at least {shortest} tokens, for {why}, not {min(contexts)}: nearest {shortest}"
        yield BrokenRule("contexts", text)


def _broken_curve(options: Options) -> Iterator[BrokenRule]:
    contexts = options.get("contexts")
    if isinstance(contexts, list):
        wrong = [context for context in contexts if not isinstance(context, int) or context < 1]
        if wrong or not contexts:
            text = f"contexts must be whole numbers of tokens from 1 on, not {wrong[0] if wrong else contexts!r}"
            yield BrokenRule("contexts", text)
    both = {"effective_share", "effective_score"} & set(options)
    if len(both) > 1:
        yield BrokenRule("effective_score", "effective_share and effective_score exclude each other: give one")
    if both and contexts is None:
        name = min(both)
        yield BrokenRule(name, f"{name} needs 'contexts', the tokens at which effective_context is looked for")
