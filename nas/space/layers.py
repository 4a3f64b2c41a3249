"""One layer of an architecture: its mixer, its MLP and their options, in canonical form.

In: a plain mapping. Out: a frozen `Layer` whose defaults are filled in and whose every rule holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nas.errors import SpaceError, did_you_mean
from nas.space.values import at_place, check_value
from nas.specs import mixer_spec, mlp_spec
from nas.specs.base import BrokenRule, Key, Surroundings, Value

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

# What a layer takes besides, where it attends to a source too.
CROSS_KEYS: Mapping[str, Key] = {
    "cross_heads": Key(
        type=int, minimum=1, derived=True, doc="query heads of the attention to the source (default: heads, else 4)"
    ),
    "cross_kv_heads": Key(
        type=int, minimum=1, derived=True, doc="key/value heads of it (default: kv_heads, else cross_heads)"
    ),
    "cross_head_dim": Key(
        type=int, minimum=1, derived=True, doc="features of one of its heads (default: width / cross_heads)"
    ),
}
_CROSS_HEADS = 4
# What a layer's options must not hide.
_OWN = ("mixer", "options", "values")


@dataclass(frozen=True)
class Layer:
    """One layer; its options read as attributes (`layer.heads`, `layer.mlp_ratio`).

    Attributes:
        mixer: the mixer's name.
        options: every other active key and its value, sorted by key.
    """

    mixer: str
    options: tuple[tuple[str, Value], ...]

    def __post_init__(self) -> None:
        # Attributes that are there are found at once; these are read for every layer of every draw.
        self.__dict__.update({key: value for key, value in self.options if key not in _OWN})

    def __getattr__(self, name: str) -> Value:
        # Only for names that no option has; it is here for the message, and for type checkers.
        raise AttributeError(f"this layer ({self.__dict__.get('mixer')}) has no '{name}'")

    @cached_property
    def values(self) -> dict[str, Value]:
        """The options as a mapping."""
        return dict(self.options)


def layer_keys(has_source: bool) -> Mapping[str, Key]:
    """What every layer takes, whatever its mixer."""
    return {**LAYER_KEYS, **CROSS_KEYS} if has_source else LAYER_KEYS


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
        raise SpaceError(f"{where}: {refusal(name, family)}")
    common_keys = layer_keys(around.has_source)
    valid = {**common_keys, **spec.keys}
    for key, value in entry.items():
        if key in CROSS_KEYS and not around.has_source:
            raise SpaceError(f"{where}: '{key}' is for the decoder of an encoder_decoder: no other layer has a source")
        if key not in valid:
            raise SpaceError(f"{where}: mixer '{name}' takes no '{key}': {did_you_mean(key, valid)}")
        check_value(key, value, valid[key], where)
    if {"mlp_ratio", "mlp_hidden"} <= set(entry):
        raise SpaceError(f"{where}: give mlp_ratio or mlp_hidden, not both")
    options = at_place(where, lambda: complete_layer(entry, around))
    for broken in layer_rules(entry, around):
        raise SpaceError(f"{where}: {broken.text}")
    name, mixer_options = spec.canonical(name, {key: options[key] for key in spec.keys if key in options}, around)
    common = {key: options[key] for key in common_keys if key in options and key != "mixer"}
    return Layer(mixer=name, options=tuple(sorted({**common, **mixer_options}.items())))


def complete_layer(entry: Mapping[str, Any], around: Surroundings) -> dict[str, Value]:
    """The values of a layer with every default filled in.

    Raises:
        InputError: a key that has no default is missing, or there is no such mixer or MLP.
    """
    name = str(entry["mixer"])
    spec = mixer_spec(name)
    options: dict[str, Value] = {}
    for key, known in {**layer_keys(around.has_source), **spec.keys}.items():
        if key in entry:
            # As a float where any number is meant, so that 4 and 4.0 are one value.
            options[key] = float(entry[key]) if known.type is float else entry[key]
        elif known.default is not None:
            options[key] = known.default
        elif key != "mixer" and not known.derived:
            raise SpaceError(f"mixer '{name}' needs '{key}' ({known.doc})")
    options = spec.complete(options, around)
    if name == "none":
        # Nothing follows that would mix what a convolution brings.
        options["short_conv"] = 0
    if mlp_spec(str(options["mlp"])).has_hidden:
        hidden = int(options.get("mlp_hidden", round(float(options["mlp_ratio"]) * around.width)))
        options |= {"mlp_hidden": hidden, "mlp_ratio": hidden / around.width}
    else:
        options.pop("mlp_hidden", None)
        options.pop("mlp_ratio", None)
    if around.has_source:
        _complete_cross(options, around.width)
    return options


def _complete_cross(options: dict[str, Value], width: int) -> None:
    """Attention to the source takes after the layer's own, where that has heads too."""
    own = int(options.get("heads", _CROSS_HEADS))
    takes_after = options.setdefault("cross_heads", own) == own
    kv_heads = options.get("kv_heads") if takes_after else None
    options.setdefault("cross_kv_heads", options["cross_heads"] if kv_heads is None else kv_heads)
    if width % int(options["cross_heads"]) == 0:
        options.setdefault("cross_head_dim", width // int(options["cross_heads"]))


def layer_rules(entry: Mapping[str, Any], around: Surroundings) -> Iterator[BrokenRule]:
    """The rules between the keys of one layer that its values break."""
    options = complete_layer(entry, around)
    yield from mixer_spec(str(entry["mixer"])).broken_rules(options, around)
    if options.get("mlp_hidden", 1) == 0:
        given = entry.get("mlp_ratio", LAYER_KEYS["mlp_ratio"].default)
        yield BrokenRule("mlp_ratio", f"mlp_ratio x width must be at least 1: {given} x {around.width} rounds to 0")
    if around.has_source:
        yield from _cross_rules(options, around.width)


def _cross_rules(options: Mapping[str, Value], width: int) -> Iterator[BrokenRule]:
    heads, kv_heads = int(options["cross_heads"]), int(options["cross_kv_heads"])
    if "cross_head_dim" not in options:
        yield BrokenRule("cross_heads", f"cross_heads must divide width: {heads} does not divide {width}")
    if heads % kv_heads:
        yield BrokenRule(
            "cross_kv_heads", f"cross_kv_heads must divide cross_heads: {kv_heads} does not divide {heads}"
        )


def refusal(mixer: str, family: str) -> str:
    """Why a mixer cannot serve a family."""
    spec = mixer_spec(mixer)
    reason = spec.refusals.get(family, "")
    served = ", ".join(sorted(spec.families))
    return f"mixer '{mixer}' cannot serve family '{family}'{f': {reason}' if reason else ''} (it serves {served})"
