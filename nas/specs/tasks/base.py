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
from typing import ClassVar, Literal

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
