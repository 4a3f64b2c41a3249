"""An architecture: the network alone, frozen, in canonical form.

In: a plain mapping (from a space's draw, a JSON file, or a published model's card).
Out: an `Architecture` whose `fingerprint` is equal for equal networks: inactive keys are dropped,
defaults filled in, a window that covers max_context is full attention.

Every rule about networks is checked here, when the architecture is made and never deep inside a
forward pass.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

from nas.errors import InputError, SpaceError, did_you_mean
from nas.specs import family_spec, mixer_spec, mlp_spec
from nas.specs.base import BrokenRule, Key, Surroundings, Value
from nas.specs.tasks import TaskShape

POSITIONS = ("rope", "none")

_Found = TypeVar("_Found")

_DEFAULT_THETA = 10_000.0

# What every layer takes, whatever its mixer.
LAYER_KEYS: Mapping[str, Key] = {
    "mixer": Key(type=str, doc="how the layer moves information between positions"),
    "short_conv": Key(
        type=int, minimum=0, default=0, doc="kernel of a causal depthwise convolution before the mixer; 0: none"
    ),
    "mlp": Key(type=str, default="swiglu", doc="the layer's position-wise network"),
    "mlp_ratio": Key(type=float, minimum=0, default=4, doc="hidden features of the MLP as a multiple of width"),
    "mlp_hidden": Key(type=int, minimum=1, derived=True, doc="hidden features of the MLP (instead of mlp_ratio)"),
}


@dataclass(frozen=True)
class Layer:
    """One layer; its options read as attributes (`layer.heads`, `layer.mlp_ratio`).

    Attributes:
        mixer: the mixer's name.
        options: every other active key and its value, sorted by key.
    """

    mixer: str
    options: tuple[tuple[str, Value], ...]

    def __getattr__(self, name: str) -> Value:
        if not name.startswith("_") and name != "options":
            for key, value in self.options:
                if key == name:
                    return value
        raise AttributeError(f"this layer ({self.__dict__.get('mixer')}) has no '{name}'")

    @cached_property
    def values(self) -> dict[str, Value]:
        """The options as a mapping."""
        return dict(self.options)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network, before (unbound) or after (bound) a task has given it a vocabulary and a head.

    Make one with `Architecture.from_mapping` or `Architecture.from_json`; both check every rule.

    Attributes:
        family: "decoder".
        width: features of the residual stream.
        max_context: longest context in tokens.
        layers: from the first (next to the embedding) to the last.
        positions: "rope" or "none".
        rope_theta: base of the rotary frequencies (Su et al. 2021).
        tied_embeddings: whether the head shares the embedding's weights.
        vocabulary: token kinds, or None while unbound.
        head: the kind of output, or None while unbound.
    """

    family: str
    width: int
    max_context: int
    layers: tuple[Layer, ...]
    positions: str = "rope"
    rope_theta: float = _DEFAULT_THETA
    tied_embeddings: bool = True
    vocabulary: int | None = None
    head: str | None = None

    @property
    def depth(self) -> int:
        """The number of layers."""
        return len(self.layers)

    @property
    def surroundings(self) -> Surroundings:
        """What the specifications of the layers must know of the whole."""
        return Surroundings(width=self.width, max_context=self.max_context, positions=self.positions)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits, equal for equal networks."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def bind(self, shape: TaskShape) -> Architecture:
        """This architecture with the vocabulary and the head of a task.

        Raises:
            SpaceError: the family has no such head, or the architecture is bound otherwise.
        """
        if self.vocabulary is not None and (self.vocabulary, self.head) != (shape.vocabulary, shape.head):
            raise SpaceError(
                f"the architecture is bound to {self.vocabulary} tokens and head '{self.head}', "
                f"the task has {shape.vocabulary} and '{shape.head}'"
            )
        heads = family_spec(self.family).heads
        if shape.head not in heads:
            raise SpaceError(f"family '{self.family}' has no head '{shape.head}': {did_you_mean(shape.head, heads)}")
        return replace(self, vocabulary=shape.vocabulary, head=shape.head)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, as they stand in JSON; unbound fields are left out."""
        mapping: dict[str, Any] = {
            "family": self.family,
            "width": self.width,
            "max_context": self.max_context,
            "positions": self.positions,
            "rope_theta": self.rope_theta,
            "tied_embeddings": self.tied_embeddings,
            "layers": [
                {"mixer": layer.mixer, **{key: value for key, value in layer.options if key != "mlp_ratio"}}
                for layer in self.layers
            ],
        }
        if self.vocabulary is not None:
            mapping |= {"vocabulary": self.vocabulary, "head": self.head}
        return mapping

    def to_json(self) -> str:
        """One line of JSON with sorted keys; `from_json` gives the same architecture back."""
        return json.dumps(self.to_mapping(), sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Architecture:
        """The architecture of a JSON text.

        Raises:
            SpaceError: the text is no JSON object, or the network breaks a rule.
        """
        try:
            mapping = json.loads(text)
        except json.JSONDecodeError as error:
            raise SpaceError(f"an architecture is a JSON object; line {error.lineno}: {error.msg}") from None
        except (ValueError, RecursionError) as error:
            raise SpaceError(f"an architecture is a JSON object: {error}") from None
        if not isinstance(mapping, dict):
            raise SpaceError(f"an architecture is a JSON object, not {type(mapping).__name__}")
        return Architecture.from_mapping(mapping)

    @staticmethod
    def from_mapping(mapping: Mapping[str, Any]) -> Architecture:
        """The canonical architecture of plain values.

        Raises:
            SpaceError: the network breaks a rule; the message names the layer, the key, the rule.
        """
        valid = Architecture.__dataclass_fields__
        for key in mapping:
            if key not in valid:
                raise SpaceError(f"unknown key '{key}' of an architecture: {did_you_mean(key, valid)}")
        for key in ("family", "width", "max_context", "layers"):
            if key not in mapping:
                raise SpaceError(f"an architecture needs '{key}'")
        _check_globals(mapping)
        around = Surroundings(
            width=mapping["width"], max_context=mapping["max_context"], positions=mapping.get("positions", "rope")
        )
        layers = tuple(
            make_layer(entry, around, family=mapping["family"], where=f"layers[{index}]")
            for index, entry in enumerate(mapping["layers"])
        )
        # One base of the rotary frequencies where nothing rotates, and one way to write it.
        theta = mapping.get("rope_theta", _DEFAULT_THETA) if around.positions == "rope" else _DEFAULT_THETA
        return Architecture(**{**mapping, "layers": layers, "rope_theta": float(theta)})


def make_layer(entry: Mapping[str, Any], around: Surroundings, *, family: str, where: str) -> Layer:
    """The canonical layer of plain values.

    Args:
        entry: `mixer` and any of its keys; keys that the mixer does not take are errors.
        around: width, max_context and positions of the model.
        family: the family that the layer must serve.
        where: the place, for messages.

    Raises:
        SpaceError: the layer breaks a rule.
    """
    if not isinstance(entry, Mapping) or "mixer" not in entry:
        raise SpaceError(f"{where}: a layer is a mapping with the key 'mixer', not {entry!r}")
    name = str(entry["mixer"])
    spec = at_place(where, lambda: mixer_spec(name))
    if family not in spec.families:
        raise SpaceError(f"{where}: mixer '{name}' cannot serve family '{family}'")
    valid = {**LAYER_KEYS, **spec.keys}
    for key, value in entry.items():
        if key not in valid:
            raise SpaceError(f"{where}: mixer '{name}' takes no '{key}': {did_you_mean(key, valid)}")
        check_value(key, value, valid[key], where)
    if {"mlp_ratio", "mlp_hidden"} <= set(entry):
        raise SpaceError(f"{where}: give mlp_ratio or mlp_hidden, not both")
    options = at_place(where, lambda: complete_layer(entry, around))
    for broken in layer_rules(entry, around):
        raise SpaceError(f"{where}: {broken.text}")
    name, mixer_options = spec.canonical(name, {key: options[key] for key in spec.keys}, around)
    common = {key: options[key] for key in LAYER_KEYS if key in options and key != "mixer"}
    return Layer(mixer=name, options=tuple(sorted({**common, **mixer_options}.items())))


def complete_layer(entry: Mapping[str, Any], around: Surroundings) -> dict[str, Value]:
    """The values of a layer with every default filled in.

    Raises:
        InputError: a key that has no default is missing, or there is no such mixer or MLP.
    """
    name = str(entry["mixer"])
    spec = mixer_spec(name)
    options: dict[str, Value] = {}
    for key, known in {**LAYER_KEYS, **spec.keys}.items():
        if key in entry:
            # As a float where any number is meant, so that 4 and 4.0 are one value.
            options[key] = float(entry[key]) if known.type is float else entry[key]
        elif known.default is not None:
            options[key] = known.default
        elif key != "mixer" and not known.derived:
            raise SpaceError(f"mixer '{name}' needs '{key}' ({known.doc})")
    options = spec.complete(options, around)
    if mlp_spec(str(options["mlp"])).has_hidden:
        hidden = int(options.get("mlp_hidden", round(float(options["mlp_ratio"]) * around.width)))
        options |= {"mlp_hidden": hidden, "mlp_ratio": hidden / around.width}
    else:
        options.pop("mlp_hidden", None)
        options.pop("mlp_ratio", None)
    return options


def layer_rules(entry: Mapping[str, Any], around: Surroundings) -> Iterator[BrokenRule]:
    """The rules between the keys of one layer that its values break."""
    options = complete_layer(entry, around)
    yield from mixer_spec(str(entry["mixer"])).broken_rules(options, around)
    if options.get("mlp_hidden", 1) == 0:
        given = entry.get("mlp_ratio", LAYER_KEYS["mlp_ratio"].default)
        yield BrokenRule("mlp_ratio", f"mlp_ratio x width must be at least 1: {given} x {around.width} rounds to 0")


def check_value(name: str, value: object, key: Key, where: str) -> None:
    """Refuses a value of the wrong type or beyond the key's bounds.

    Raises:
        SpaceError: with the place, the rule and the value.
    """
    accepted: tuple[type, ...] = (int, float) if key.type is float else (key.type,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and key.type is not bool):
        raise SpaceError(f"{where}: {name} must be {_article(key.type)}, not {value!r}")
    if not isinstance(value, int | float):
        return
    if not _is_finite(value):
        raise SpaceError(f"{where}: {name} must be a finite number, not {value!r}")
    if key.minimum is not None and value < key.minimum:
        raise SpaceError(f"{where}: {name} must be at least {key.minimum:g}, not {value!r}")
    if key.maximum is not None and value > key.maximum:
        raise SpaceError(f"{where}: {name} must be at most {key.maximum:g}, not {value!r}")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        # An integer beyond every float.
        return False


def at_place(where: str, find: Callable[[], _Found]) -> _Found:
    """What `find` finds, its errors told with the place.

    Raises:
        SpaceError: it found nothing.
    """
    try:
        return find()
    except InputError as error:
        raise SpaceError(f"{where}: {error}") from None


def _check_globals(mapping: Mapping[str, Any]) -> None:
    family = at_place("architecture", lambda: family_spec(str(mapping["family"])))
    layers = mapping["layers"]
    if not isinstance(layers, Sequence) or isinstance(layers, str) or not layers:
        raise SpaceError("layers must be a list of at least one layer")
    for key, known in GLOBAL_KEYS.items():
        if key in mapping and (mapping[key] is not None or key != "vocabulary"):
            check_value(key, mapping[key], known, "architecture")
    vocabulary, head = mapping.get("vocabulary"), mapping.get("head")
    if (vocabulary is None) != (head is None):
        raise SpaceError("a bound architecture has 'vocabulary' and 'head', an unbound one neither")
    if head is not None:
        check_value("head", head, Key(type=str, doc="the kind of output"), "architecture")
    if head is not None and head not in family.heads:
        raise SpaceError(f"family '{mapping['family']}' has no head '{head}': {did_you_mean(head, family.heads)}")
    positions = mapping.get("positions", "rope")
    if positions not in POSITIONS:
        raise SpaceError(f"unknown positions '{positions}': {did_you_mean(positions, POSITIONS)}")


def _article(kind: type) -> str:
    names = {int: "an integer", float: "a number", str: "a name", bool: "true or false"}
    return names.get(kind, kind.__name__)


GLOBAL_KEYS: Mapping[str, Key] = {
    "width": Key(type=int, minimum=1, doc="features of the residual stream"),
    "max_context": Key(type=int, minimum=1, doc="longest context in tokens"),
    "positions": Key(type=str, default="rope", doc="how positions are told apart: rope or none"),
    "rope_theta": Key(type=float, minimum=1, default=10_000.0, doc="base of the rotary frequencies"),
    "tied_embeddings": Key(type=bool, default=True, doc="whether the head shares the embedding's weights"),
    "vocabulary": Key(type=int, minimum=2, doc="token kinds; given by the task"),
}
