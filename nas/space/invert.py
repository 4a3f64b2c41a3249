"""From an architecture back to assignments of a space's parameters that give it.

In: a space and an unbound architecture. Out: assignments that decode to it, of all parameters but
those of training. One is enough to show that the architecture is in the space, and to tell a
sampler where it lies.

Decoding is no bijection: conditions and mixers drop values, repairs move them, and canonical
forms merge networks. So a parameter is tried at each value that may have led to what is seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.space.architecture import Architecture
from nas.space.domains import Domain, Draw, Range
from nas.space.layers import CROSS_KEYS, LAYER_KEYS, Layer, make_layer
from nas.space.repair import repaired
from nas.specs import mixer_spec
from nas.specs.base import MixerSpec, Surroundings, Value

if TYPE_CHECKING:
    from nas.space.space import Entry, Space


@dataclass(frozen=True)
class _Seen:
    """A layer of the architecture as the `index`th of an entry, and what is around it."""

    entry: Entry
    index: int
    layer: Layer
    surroundings: Surroundings


def assignments(space: Space, architecture: Architecture) -> Iterator[dict[str, Value]]:
    """Assignments that decode to an unbound architecture, one for each way to share its layers out.

    Yields:
        A value for each parameter of the space but those of training.
    """
    if architecture.family != space.family:
        return
    around: dict[str, Value] = {}
    for name, draw in space.globals.items():
        if name == "vocabulary":
            # It plays no part in an unbound network: whoever knows the task knows which one it is.
            continue
        seen = getattr(architecture, name)
        # How rotary positions turn plays no part where nothing rotates.
        plays = not name.startswith("rope_") or architecture.positions == "rope"
        if plays and not draw.domain.contains(seen):
            return
        around[name] = seen if plays else _first(draw.domain)
    for depths in _depths(space, architecture):
        found = _shared_out(space, architecture, depths, around)
        if found is not None:
            fixed = {entry.repeat_name: depth for entry, depth in zip(space.entries, depths, strict=True)}
            values = {**around, **fixed, **found}
            yield {
                parameter.name: values[parameter.name] if parameter.name in values else _first(parameter.domain)
                for parameter in space.parameters
                if not parameter.name.startswith("training.")
            }


def _shared_out(
    space: Space, architecture: Architecture, depths: tuple[int, ...], around: Mapping[str, Value]
) -> dict[str, Value] | None:
    """Values of the layers' parameters, with so many layers to each entry."""
    found: dict[str, Value] = {}
    start = 0
    for entry, depth in zip(space.entries, depths, strict=True):
        placed = architecture.placed_layers[start : start + depth]
        layers = [_Seen(entry, index, layer, surroundings) for index, (layer, surroundings) in enumerate(placed)]
        values = _entry_values(layers, architecture, around)
        if values is None:
            return None
        found |= values
        start += depth
    return found


def _entry_values(
    layers: Sequence[_Seen], architecture: Architecture, around: Mapping[str, Value]
) -> dict[str, Value] | None:
    """Values of one entry's parameters that give its layers: shared ones together, others layer by layer."""
    entry = layers[0].entry
    users: dict[str, list[Layer]] = {}
    for seen in layers:
        for key in entry.draws:
            users.setdefault(entry.parameter_name(key, seen.index), []).append(seen.layer)
    keys = {entry.parameter_name(key, seen.index): key for seen in layers for key in entry.draws}
    tried = {name: _candidates(entry, keys[name], shown, architecture) for name, shown in users.items()}
    shared = [name for name, shown in users.items() if len(shown) > 1]
    for together in itertools.product(*(tried[name] for name in shared)):
        chosen = dict(zip(shared, together, strict=True))
        for seen in layers:
            values = _layer_values(seen, chosen, tried, architecture, around)
            if values is None:
                break
            chosen |= values
        else:
            return chosen
    return None


def _layer_values(
    seen: _Seen,
    chosen: Mapping[str, Value],
    tried: Mapping[str, Sequence[Value]],
    architecture: Architecture,
    around: Mapping[str, Value],
) -> dict[str, Value] | None:
    """Values of one layer's parameters that give it, those of shared ones given."""
    entry = seen.entry
    names = [entry.parameter_name(key, seen.index) for key in entry.draws]
    options = [[chosen[name]] if name in chosen else tried[name] for name in names]
    for values in itertools.product(*options):
        raw = dict(zip(entry.draws, values, strict=True))
        layer, problem = repaired(raw, entry.draws, around, seen.surroundings)
        made = None if problem else make_layer(layer, seen.surroundings, family=architecture.family, where="layer")
        if made == seen.layer:
            return dict(zip(names, values, strict=True))
    return None


def _candidates(entry: Entry, key: str, layers: Sequence[Layer], architecture: Architecture) -> list[Value]:
    """Values of one parameter that may have led to the layers that it is for, the likeliest first."""
    draw = entry.draws[key]
    if draw.fixed is not None:
        return [draw.fixed]
    grid = list(draw.domain.grid or ())
    if key == "mixer":
        own = layers[0].mixer
        return sorted((value for value in grid if value == own or _merges(str(value))), key=lambda value: value != own)
    shown = list(dict.fromkeys(value for layer in layers for value in _shown(draw, key, layer, architecture)))
    conditioned = any(name == key for other in entry.draws.values() for name, _ in other.when)
    if conditioned or len(shown) > 1:
        # Another key hangs on it, or repairs have moved it in some layers.
        return [*shown, *(value for value in grid if value not in shown)]
    # A merged mixer hides its own keys; at the ends of their domains it is merged if it ever is.
    hidden = grid and key not in LAYER_KEYS and key not in CROSS_KEYS and not isinstance(grid[0], str)
    ends = [min(grid), max(grid)] if hidden else []
    return list(dict.fromkeys([*shown, *ends])) or [_first(draw.domain)]


def _shown(draw: Draw, key: str, layer: Layer, architecture: Architecture) -> list[Value]:
    """Values of a key's domain that the layer may show."""
    if key == "mlp_ratio":
        hidden = int(layer.values.get("mlp_hidden", 0))
        tried = draw.domain.grid or (hidden / architecture.width,)
        return [value for value in tried if round(float(value) * architecture.width) == hidden]
    value = layer.values.get(key)
    return [value] if value is not None and draw.domain.contains(value) else []


def _merges(mixer: str) -> bool:
    """Whether a mixer's canonical form may be another mixer."""
    return type(mixer_spec(mixer)).canonical is not MixerSpec.canonical


def _first(domain: Domain) -> Value:
    return domain.low if isinstance(domain, Range) else domain.values[0]


def _depths(space: Space, architecture: Architecture) -> Iterator[tuple[int, ...]]:
    """Numbers of layers for the entries that add up to those of each stack."""
    repeats = [[int(value) for value in entry.repeat.domain.grid or ()] for entry in space.entries]
    # A stack of its own for the encoder, if there is one beside a decoder.
    wanted = {True: len(architecture.encoder_layers), False: len(architecture.layers)}
    for depths in itertools.product(*repeats):
        found = {True: 0, False: 0}
        for entry, depth in zip(space.entries, depths, strict=True):
            found[entry.stack == "encoder"] += depth
        if found == wanted:
            yield depths
