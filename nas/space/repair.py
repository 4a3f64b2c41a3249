"""Repairs of a drawn layer: values that break a rule between keys move to the nearest one that keeps it.

In: a value for each key of a layer. Out: the layer's active values, or the rule that no repair could mend.
"""

from __future__ import annotations

from collections.abc import Mapping

from nas.space.domains import Draw
from nas.space.layers import layer_keys, layer_rules
from nas.specs import mixer_spec
from nas.specs.base import Surroundings, Value


def repaired(
    raw: Mapping[str, Value], draws: Mapping[str, Draw], around: Mapping[str, Value], surroundings: Surroundings
) -> tuple[dict[str, Value], str]:
    """The active values of one layer, each that breaks a rule moved to the nearest one that keeps it.

    Args:
        raw: a value for each key of `draws`, active or not.
        draws: of the layer's entry.
        around: values of the whole model.
        surroundings: what the layer must know of them.

    Returns:
        The layer and "", or the layer as far as it came and the rule that could not be mended.
    """
    has_source = surroundings.has_source
    layer = _active(raw, draws, around, has_source)
    moved: set[str] = set()
    while broken := next(layer_rules(layer, surroundings), None):
        # A key that was moved before would only be moved to and fro.
        value = None if broken.key in moved else _nearest(broken.key, layer, draws, surroundings)
        if value is None:
            return layer, broken.text
        moved.add(broken.key)
        # Another value may switch other keys on or off.
        layer = _active({**raw, **layer, broken.key: value}, draws, around, has_source)
    return layer, ""


def _nearest(key: str, layer: Mapping[str, Value], draws: Mapping[str, Draw], around: Surroundings) -> Value | None:
    """The value of a key's domain nearest to the layer's that breaks no rule of the key, if there is one."""
    if key not in layer or isinstance(layer[key], str):
        return None
    before = float(layer[key])
    for value in sorted(draws[key].domain.grid or (), key=lambda option: (abs(float(option) - before), option)):
        if all(rule.key != key for rule in layer_rules({**layer, key: value}, around)):
            return value
    return None


def _active(
    raw: Mapping[str, Value], draws: Mapping[str, Draw], around: Mapping[str, Value], has_source: bool
) -> dict[str, Value]:
    """The values that the layer's mixer takes and whose conditions hold."""
    takes = {**layer_keys(has_source), **mixer_spec(str(raw["mixer"])).keys}
    active = {key: value for key, value in raw.items() if key in takes}
    # A condition may hang on a value that is itself inactive, so drop until nothing changes.
    while True:
        known = {**around, **active}
        kept = {key: value for key, value in active.items() if draws[key].is_active(known)}
        if len(kept) == len(active):
            return active
        active = kept
