"""A search space: a flat, fixed set of parameters in; architectures out.

To a sampler a space is always the same set of parameters with the same domains, up to the
maximum depth. `decode` turns any assignment of them into an architecture in canonical form:
inactive parameters are dropped, values that break a rule between keys are repaired to the nearest
one that keeps it, and only what no repair can mend is excluded, with its rule.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from nas.space.architecture import Architecture, stack_problem, whole_model
from nas.space.constraints import Constraint
from nas.space.domains import Domain, Draw
from nas.space.feasibility import limits_of, survey
from nas.space.layers import Layer, layer_keys, make_layer
from nas.space.repair import repaired
from nas.specs import family_spec, mixer_spec
from nas.specs.base import Surroundings, Value
from nas.specs.tasks import TaskShape

MAXIMUM_TRIES = 20_000
# Layers and global values that a space remembers; one whose draws are continuous would otherwise grow without end.
MOST_KEPT = 65_536

_Pairs = tuple[tuple[str, Value], ...]
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Parameter:
    """One parameter of the flat set.

    Attributes:
        name: "width", "layers.heads", "layers.3.mixer", "training.learning_rate", …
        domain: what it can be.
    """

    name: str
    domain: Domain


@dataclass(frozen=True)
class Entry:
    """Layers that share their draws: all of a stack's `layers:`, or one item of its list form.

    Attributes:
        prefix: of the names of its parameters: "layers", "layers[0]", "encoder.layers", …
        draws: key → draw.
        repeat: how many layers.
    """

    prefix: str
    draws: Mapping[str, Draw]
    repeat: Draw

    @property
    def most(self) -> int:
        """The largest number of layers."""
        return max(int(value) for value in self.repeat.domain.grid or ())

    @property
    def repeat_name(self) -> str:
        """The parameter that holds the number of layers."""
        before, _, after = self.prefix.rpartition("layers")
        return f"{self.prefix}.repeat" if after else f"{before}depth"

    @property
    def stack(self) -> str:
        """The stack that the layers are of: "encoder", "decoder", or "" where there is one alone."""
        return self.prefix.rpartition("layers")[0].rstrip(".")

    def parameter_name(self, key: str, layer: int) -> str:
        """The parameter that holds `key` of one layer."""
        scope = self.draws[key].scope
        if scope == "model":
            return f"{self.prefix}.{key}"
        return f"{self.prefix}.{layer if scope == 'layer' else layer % int(scope)}.{key}"


@dataclass(frozen=True)
class Drawn:
    """What came of one assignment of the parameters.

    Attributes:
        architecture: unless no repair could mend the draw.
        training: hyperparameters by name.
        excluded: the rule that excluded it, else "".
        vocabulary: token kinds, where the space says them.
    """

    architecture: Architecture | None
    training: tuple[tuple[str, float], ...]
    excluded: str = ""
    vocabulary: int | None = None


@dataclass(frozen=True)
class Space:
    """A declarative search space; make one with `Space.load` or `Space.from_mapping`.

    Attributes:
        name: its name.
        family: of all of its architectures.
        globals: draws of width, max_context and the other keys of the whole model.
        entries: draws of the layers.
        training: draws of the training hyperparameters.
        constraints: rules that every candidate must keep.
        source: the plain values that it was made from.
    """

    name: str
    family: str
    globals: Mapping[str, Draw]
    entries: tuple[Entry, ...]
    training: Mapping[str, Draw]
    constraints: tuple[Constraint, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @staticmethod
    def load(path: str | Path) -> Space:
        """The space of a YAML file, checked; shipped spaces are found by name too.

        Raises:
            SpaceError: naming file, line, key, rule and the nearest valid name.
        """
        from nas.space.load import load_space

        return load_space(path)

    @staticmethod
    def from_mapping(mapping: Mapping[str, Any]) -> Space:
        """The space of plain values, checked.

        Raises:
            SpaceError: naming key, rule and the nearest valid name.
        """
        from nas.space.load import space_from_mapping

        return space_from_mapping(mapping)

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """The flat set, fixed: what is drawn, up to the maximum depth."""
        found = {name: draw.domain for name, draw in self.globals.items() if draw.fixed is None}
        for entry in self.entries:
            if entry.repeat.fixed is None:
                found[entry.repeat_name] = entry.repeat.domain
            for key, draw in entry.draws.items():
                if draw.fixed is None:
                    found |= {entry.parameter_name(key, layer): draw.domain for layer in range(entry.most)}
        found |= {f"training.{name}": draw.domain for name, draw in self.training.items() if draw.fixed is None}
        return tuple(Parameter(name, domain) for name, domain in found.items())

    @cached_property
    def size(self) -> float:
        """Draws of the architecture, layers beyond the depth not counted; inf where a range is continuous.

        An upper bound on the number of networks: repairs and canonical forms merge some of them.
        """
        outside = math.prod(_count(draw) for draw in self.globals.values())
        repeats = [[int(value) for value in entry.repeat.domain.grid or ()] for entry in self.entries]
        inside = 0.0
        for depths in itertools.product(*repeats):
            inside += math.prod(_entry_size(entry, depth) for entry, depth in zip(self.entries, depths, strict=True))
        return outside * inside

    @property
    def vocabularies(self) -> tuple[int, ...]:
        """The vocabularies that are searched; none where the task gives one or the space fixes it."""
        draw = self.globals.get("vocabulary")
        return () if draw is None or draw.fixed is not None else tuple(int(value) for value in draw.domain.grid or ())

    @property
    def is_finite(self) -> bool:
        """Whether its candidates, training hyperparameters included, can be listed."""
        return all(parameter.domain.grid is not None for parameter in self.parameters)

    def decode(self, values: Mapping[str, Value]) -> Drawn:
        """The candidate of one assignment of `parameters`; never fails on a value of their domains."""
        training = tuple(
            (name, float(values.get(f"training.{name}", draw.fixed or 0))) for name, draw in self.training.items()
        )
        around = {name: _value(draw, name, values) for name, draw in self.globals.items()}
        whole = tuple(around.items())
        stacks: dict[str, list[Layer]] = {entry.stack: [] for entry in self.entries}
        for place, entry in enumerate(self.entries):
            depth = int(_value(entry.repeat, entry.repeat_name, values))
            for index in range(depth):
                mixer = str(_value(entry.draws["mixer"], entry.parameter_name("mixer", index), values))
                names = self._names[place, index, mixer]
                raw = tuple([(key, known if name is None else values[name]) for key, name, known in names])
                layer, problem = self._layer(place, raw, whole)
                if layer is None:
                    return Drawn(None, training, problem)
                stacks[entry.stack].append(layer)
        for layers in stacks.values():
            if problem := stack_problem(layers, str(around["positions"])):
                return Drawn(None, training, problem)
        vocabulary = around.get("vocabulary")
        fields: dict[str, Any] = {
            "encoder_layers" if stack == "encoder" else "layers": tuple(found) for stack, found in stacks.items()
        }
        architecture = Architecture(**self._plain(whole), **fields)
        return Drawn(architecture, training, vocabulary=None if vocabulary is None else int(vocabulary))

    @cached_property
    def _names(self) -> Mapping[tuple[int, int, str], tuple[tuple[str, str | None, Value], ...]]:
        """Of an entry's layer with a mixer: each key that it takes, the parameter that holds it, or its fixed value.

        What a mixer does not take plays no part, and left out it makes equal layers of more draws.
        """
        found = {}
        for place, entry in enumerate(self.entries):
            for mixer in entry.draws["mixer"].domain.grid or ():
                takes = {**layer_keys(entry.stack == "decoder"), **mixer_spec(str(mixer)).keys}
                draws = [(key, draw) for key, draw in entry.draws.items() if key in takes]
                for index in range(entry.most):
                    found[place, index, str(mixer)] = tuple(
                        (key, entry.parameter_name(key, index), "") if draw.fixed is None else (key, None, draw.fixed)
                        for key, draw in draws
                    )
        return found

    @cached_property
    def _made(self) -> dict[Any, Any]:
        """What was made of a part of a draw: layers and the values of the whole model come again and again."""
        return {}

    def _layer(self, place: int, raw: _Pairs, whole: _Pairs) -> tuple[Layer | None, str]:
        """The repaired layer of an entry and "", or None and the rule that could not be mended."""
        key = (place, raw, whole)
        found: tuple[Layer | None, str] | None = self._made.get(key)
        if found is None:
            entry, around = self.entries[place], dict(whole)
            surroundings = self.surroundings(around, entry.stack)
            words, problem = repaired(dict(raw), entry.draws, around, surroundings)
            made = None if problem else make_layer(words, surroundings, family=self.family, where="layer")
            found = self._keep(key, (made, problem))
        return found

    def _plain(self, whole: _Pairs) -> Mapping[str, Any]:
        """The checked fields of an architecture besides its layers."""
        found: Mapping[str, Any] | None = self._made.get(whole)
        if found is None:
            fields = {name: value for name, value in whole if name != "vocabulary"}
            found = self._keep(whole, whole_model({"family": self.family, **fields}))
        return found

    def _keep(self, key: object, made: _Made) -> _Made:
        if len(self._made) >= MOST_KEPT:
            self._made.clear()
        self._made[key] = made
        return made

    def surroundings(self, around: Mapping[str, Value], stack: str) -> Surroundings:
        """What the layers of a stack must know, given the values of the whole model."""
        positions = str(around["positions"])
        return Surroundings(
            width=int(around["width"]),
            max_context=int(around["max_context"]),
            positions=positions,
            looks_ahead=stack == "encoder" or family_spec(self.family).looks_ahead,
            has_source=stack == "decoder",
            rope_dimensions=2 if self.family == "prefix_lm" and positions == "rope" else 1,
        )

    def draw(self, rng: random.Random) -> dict[str, Value]:
        """A random assignment of `parameters`."""
        return {parameter.name: parameter.domain.sample(rng) for parameter in self.parameters}

    def broken_constraints(self, architecture: Architecture) -> list[Constraint]:
        """The constraints that a bound architecture breaks."""
        return [rule for rule in self.constraints if rule.violation(architecture) > 0]

    def sample(self, seed: int, *, shape: TaskShape | None = None) -> Architecture:
        """One architecture that keeps the constraints.

        Args:
            seed: the same seed gives the same architecture.
            shape: the task's, to bind the architecture and to count its memory exactly.

        Raises:
            SpaceError: next to nothing keeps the constraints; names the one that excludes most.
        """
        return next(self.samples(seed, shape=shape))

    def samples(self, seed: int, *, shape: TaskShape | None = None) -> Iterator[Architecture]:
        """As `sample`, one after the other, with repetitions."""
        rng, tries = random.Random(seed), 0
        while True:
            drawn = self.decode(self.draw(rng))
            tries += 1
            if drawn.architecture is not None:
                architecture = self.bind(drawn, shape)
                if not self.broken_constraints(architecture):
                    yield architecture
                    tries = 0
            if tries == MAXIMUM_TRIES:
                tries = 0
                survey(self, limits_of(self), bind=lambda drawn: self.bind(drawn, shape)).refuse_infeasible()

    def bind(self, drawn: Drawn, shape: TaskShape | None) -> Architecture:
        """The architecture of a draw with the task's shape, or with the vocabulary that the space fixes or drew."""
        architecture = drawn.architecture
        assert architecture is not None, "a draw that was excluded has no architecture"
        if drawn.vocabulary is not None and not (shape and self.vocabularies):
            head = shape.head if shape else family_spec(self.family).natural_head
            architecture = replace(architecture, vocabulary=drawn.vocabulary, head=head)
        return architecture.bind(shape) if shape else architecture

    def enumerate(self) -> Iterator[dict[str, Value]]:
        """Every assignment of a finite space, parameters of layers beyond the depth left out."""
        repeats = [entry.repeat.domain.grid or () for entry in self.entries]
        for depths in itertools.product(*repeats):
            inside = tuple(entry.prefix for entry in self.entries)
            names: dict[str, Domain] = {p.name: p.domain for p in self.parameters if not p.name.startswith(inside)}
            fixed: dict[str, Value] = {}
            for entry, depth in zip(self.entries, depths, strict=True):
                names.pop(entry.repeat_name, None)
                fixed[entry.repeat_name] = depth
                for key, draw in entry.draws.items():
                    if draw.fixed is None:
                        names |= {entry.parameter_name(key, layer): draw.domain for layer in range(int(depth))}
            for values in itertools.product(*(domain.grid or () for domain in names.values())):
                yield fixed | dict(zip(names, values, strict=True))

    def contains(self, architecture: Architecture) -> bool:
        """Whether some draw gives this network and the constraints keep it.

        A bound architecture is compared by its network alone; its vocabulary is the task's.
        """
        from nas.space.invert import assignments

        unbound = replace(architecture, vocabulary=None, head=None, labels=None)
        return next(assignments(self, unbound), None) is not None and not self.broken_constraints(architecture)


def _value(draw: Draw, name: str, values: Mapping[str, Value]) -> Value:
    fixed = draw.fixed
    return values[name] if fixed is None else fixed


def _count(draw: Draw) -> float:
    grid = draw.domain.grid
    return math.inf if grid is None else len(grid)


def _entry_size(entry: Entry, depth: int) -> float:
    names = {entry.parameter_name(key, layer): draw for key, draw in entry.draws.items() for layer in range(depth)}
    return math.prod(_count(draw) for draw in names.values())
