"""Whether the words of a space make sense together.

In: a `Space` whose file had the right shape. Out: nothing, or an error that names file, line,
key, rule and the nearest valid name. What passes here cannot fail in a trial.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from nas.catalog import MIXERS
from nas.errors import SpaceError, did_you_mean
from nas.space.architecture import CHOICES, GLOBAL_KEYS, Architecture
from nas.space.constraints import Count, Figure
from nas.space.domains import Domain, Draw, Range
from nas.space.layers import CROSS_KEYS, LAYER_KEYS, layer_keys, layer_rules, refusal
from nas.space.learning_rate_rule import BASE_WIDTH, RULE
from nas.space.space import Entry, Space
from nas.space.values import at_place, check_value
from nas.space.yaml_lines import Lines, Place
from nas.specs import family_spec, mixer_spec, mlp_spec
from nas.specs.base import Key, Surroundings, Value

# Combinations tried to find one that a value is valid in; beyond it a value is given the benefit of the doubt.
_MOST_COMBINATIONS = 20_000
# Draws tried to find a network on which the constraints can be evaluated.
_TRIAL_DRAWS = 100
# How far from a value that breaks a rule its nearest valid neighbour is looked for.
_FARTHEST_HINT = 4_096


def check_space(space: Space, lines: Lines, places: Mapping[str, Place]) -> None:
    """Checks everything that the schema cannot.

    Args:
        space: to check.
        lines: of its file.
        places: prefix of an entry → where it stands in the file.

    Raises:
        SpaceError: the first rule that is broken.
    """
    at_place(lines.at(("family",)), lambda: family_spec(space.family))
    for name, draw in space.globals.items():
        _check_values(name, draw, GLOBAL_KEYS[name], lines, (name,))
        _check_plain(draw, lines, (name,))
    for name, allowed in CHOICES.items():
        for value in space.globals[name].domain.grid or ():
            if value not in allowed:
                raise SpaceError(f"{lines.at((name,))}: unknown {name} '{value}': {did_you_mean(value, allowed)}")
    _check_rope(space, lines)
    for entry in space.entries:
        _check_entry(space, entry, lines, places[entry.prefix])
    for name, draw in space.training.items():
        if name == BASE_WIDTH:
            # Checked by the schema; no word of its own.
            continue
        place = ("training", name)
        _check_plain(draw, lines, place)
        _check_values(name, draw, TRAINING_KEYS.get(name) or _unknown_training(name, lines), lines, place)
    for index, rule in enumerate(space.constraints):
        where = lines.at(("constraints", index))
        if isinstance(rule.measure, Count):
            check_count(space, rule.measure, where)
        check_known(space, rule.measure, where)


def _check_rope(space: Space, lines: Lines) -> None:
    factor, scaling = (space.globals[name].domain for name in ("rope_factor", "rope_scaling"))
    if factor.grid != (1.0,) and scaling.contains("none"):
        raise SpaceError(f"{lines.at(('rope_factor',))}: rope_factor needs a rope_scaling: linear or yarn")


def check_known(space: Space, known: Callable[[Architecture], float], where: str) -> None:
    """Refuses an exact figure that cannot be had of every architecture of a space.

    Raises:
        SpaceError: with the place and the figure's own words.
    """
    if isinstance(known, Figure):
        _check_context(space, known, where)
    rng = random.Random(0)
    for _ in range(_TRIAL_DRAWS):
        drawn = space.decode(space.draw(rng))
        if drawn.architecture is not None:
            network = space.bind(drawn, None)
            at_place(where, lambda network=network: known(network))  # type: ignore[misc]
            return


def _check_context(space: Space, figure: Figure, where: str) -> None:
    """A table of learned positions ends where it was trained."""
    context = dict(figure.settings).get("context")
    if context is None or "learned" not in (space.globals["positions"].domain.grid or ()):
        return
    shortest = min(int(value) for value in space.globals["max_context"].domain.grid or (context,))
    if context > shortest:
        raise SpaceError(
            f"{where}: '{figure}': learned positions end at max_context, here at {shortest} tokens or later: "
            f"a context must be at most {shortest}, not {context}"
        )


def check_count(space: Space, count: Count, where: str) -> None:
    """Refuses a count of a key or a value that no layer of a space has.

    Raises:
        SpaceError: with the place and the nearest valid name.
    """
    mixers = {str(name) for entry in space.entries for name in entry.draws["mixer"].domain.grid or ()}
    keys = {**LAYER_KEYS, **CROSS_KEYS}
    for name in mixers:
        keys |= mixer_spec(name).keys
    if count.key not in keys:
        raise SpaceError(f"{where}: unknown key '{count.key}' in count(…): {did_you_mean(count.key, keys)}")
    # A key that is not drawn has its default, which only the specifications know.
    drawn = [entry.draws[count.key].domain for entry in space.entries if count.key in entry.draws]
    if len(drawn) < len(space.entries) or any(_could_mean(count, domain) for domain in drawn):
        return
    # Canonical forms may show a mixer or a value that no draw holds.
    if count.key == "mixer" and count.value in MIXERS:
        return
    values = mixers if count.key == "mixer" else [value for domain in drawn for value in domain.grid or ()]
    raise SpaceError(f"{where}: no layer has {count.key} '{count.value}': {did_you_mean(count.value, values)}")


def _could_mean(count: Count, domain: Domain) -> bool:
    return domain.grid is None or any(count.means(value) for value in domain.grid)


TRAINING_KEYS: Mapping[str, Key] = {
    "learning_rate": Key(type=float, minimum=1e-8, default=3e-3, doc="peak learning rate of AdamW"),
    "weight_decay": Key(type=float, minimum=0, default=0.1, doc="decoupled weight decay of the matrices"),
    "beta2": Key(type=float, minimum=0, maximum=0.999999, default=0.95, doc="decay of AdamW's second moment"),
    "gradient_clip": Key(type=float, minimum=0, default=1.0, doc="largest norm of the gradient; 0: not clipped"),
}


def _unknown_training(name: str, lines: Lines) -> Key:
    hint = did_you_mean(name, [*TRAINING_KEYS, RULE])
    raise SpaceError(f"{lines.at(('training', name))}: unknown key 'training.{name}': {hint}")


def _check_entry(space: Space, entry: Entry, lines: Lines, place: Place) -> None:
    _check_repeat(entry, lines, place)
    if "mixer" not in entry.draws:
        raise SpaceError(f"{lines.at(place)}: layers need 'mixer'")
    mixers = [str(name) for name in entry.draws["mixer"].domain.grid or ()]
    for name in mixers:
        spec = at_place(lines.at((*place, "mixer")), partial(mixer_spec, name))
        if space.family not in spec.families:
            raise SpaceError(f"{lines.at((*place, 'mixer'))}: {refusal(name, space.family)}")
    keys: dict[str, Key] = dict(layer_keys(entry.stack == "decoder"))
    for name in mixers:
        keys |= mixer_spec(name).keys
    for key, draw in entry.draws.items():
        here = (*place, key)
        if key in CROSS_KEYS and key not in keys:
            raise SpaceError(
                f"{lines.at(here)}: '{key}' is for the decoder of an encoder_decoder: no other layer has a source"
            )
        if key not in keys:
            known = {**keys, "depth": None}
            where = f"{lines.at(here)}: unknown key 'layers.{key}'"
            raise SpaceError(f"{where} for mixer {' or '.join(mixers)}: {did_you_mean(key, known)}")
        _check_values(key, draw, keys[key], lines, here)
        _check_when(space, entry, key, draw, lines, here)
    for mlp in entry.draws["mlp"].domain.grid or () if "mlp" in entry.draws else ():
        at_place(lines.at((*place, "mlp")), partial(mlp_spec, str(mlp)))
    if {"mlp_ratio", "mlp_hidden"} <= set(entry.draws):
        raise SpaceError(f"{lines.at((*place, 'mlp_hidden'))}: give mlp_ratio or mlp_hidden, not both")
    for name in mixers:
        _check_required(entry, name, lines, place)
        _check_rules(space, entry, name, lines, place)


def _check_repeat(entry: Entry, lines: Lines, place: Place) -> None:
    where = (*place, "repeat") if entry.repeat_name.endswith("repeat") else (*place[:-1], "depth")
    _check_values(where[-1], entry.repeat, Key(type=int, minimum=1, doc=""), lines, where)
    _check_plain(entry.repeat, lines, where)


def _check_values(name: object, draw: Draw, key: Key, lines: Lines, place: Place) -> None:
    domain = draw.domain
    if isinstance(domain, Range) and key.type not in (int, float):
        raise SpaceError(f"{lines.at(place)}: {name} is a name; give a choice, not a range")
    if isinstance(domain, Range) and key.type is int and not domain.is_integer:
        raise SpaceError(
            f"{lines.at(place)}: {name} takes whole numbers; its range is {domain.low:g} to {domain.high:g}"
        )
    values = (domain.low, domain.high) if isinstance(domain, Range) else domain.values
    for value in values:
        check_value(str(name), value, key, lines.at(place))


def _check_plain(draw: Draw, lines: Lines, place: Place) -> None:
    if draw.scope != "model" or draw.when:
        raise SpaceError(f"{lines.at(place)}: {place[-1]}: per, period and when are for the keys of layers")


def _check_when(space: Space, entry: Entry, key: str, draw: Draw, lines: Lines, place: Place) -> None:
    names = {**space.globals, **entry.draws}
    for name, allowed in draw.when:
        where = lines.at((*place, "when", name))
        if name == key:
            raise SpaceError(f"{where}: {key} cannot hang on itself")
        if name not in names:
            raise SpaceError(f"{where}: unknown name '{name}' in 'when': {did_you_mean(name, names)}")
        for value in allowed:
            domain = names[name].domain
            if not domain.contains(value):
                hint = did_you_mean(value, domain.grid or ())
                raise SpaceError(f"{where}: impossible condition: {name} is never {value!r}: {hint}")
    if key == "mixer" and draw.when:
        raise SpaceError(f"{lines.at(place)}: the mixer must always be drawn; it takes no 'when'")
    if key not in LAYER_KEYS and key not in CROSS_KEYS:
        takers = [str(name) for name in entry.draws["mixer"].domain.grid or () if key in mixer_spec(str(name)).keys]
        if not any(_allows(draw, name) for name in takers):
            where = lines.at((*place, "when", "mixer"))
            raise SpaceError(f"{where}: impossible condition: {key} is a key of mixer {' or '.join(takers)} alone")


def _check_required(entry: Entry, mixer: str, lines: Lines, place: Place) -> None:
    for key, known in mixer_spec(mixer).keys.items():
        if known.default is None and not known.derived:
            draw = entry.draws.get(key)
            if draw is None or not _allows(draw, mixer):
                raise SpaceError(f"{lines.at((*place, 'mixer'))}: mixer '{mixer}' needs '{key}' ({known.doc})")
            others = [name for name, _ in draw.when if name != "mixer"]
            if others:
                where = lines.at((*place, key, "when", others[0]))
                raise SpaceError(
                    f"{where}: mixer '{mixer}' always needs '{key}': it may hang on mixer, not on {others[0]}"
                )


def _check_rules(space: Space, entry: Entry, mixer: str, lines: Lines, place: Place) -> None:
    """Refuses a value that breaks a rule between keys in every draw that it is in."""
    unused: dict[tuple[str, Value], str] = {}
    ruled = {*mixer_spec(mixer).keys, "mlp_ratio", *CROSS_KEYS}
    active = [key for key in entry.draws if key in ruled and _allows(entry.draws[key], mixer)]
    for tries, (around, values) in enumerate(_combinations(space, entry, active)):
        if tries >= _MOST_COMBINATIONS:
            return
        broken = list(layer_rules({"mixer": mixer, **values}, around))
        for key, value in values.items():
            found = next((rule.text for rule in broken if rule.key == key), "")
            if not found:
                unused[key, value] = ""
            elif unused.get((key, value), found):
                unused[key, value] = found
    for (key, value), rule in unused.items():
        if rule:
            raise SpaceError(
                f"{lines.at((*place, key))}: {key} {value} is valid in no draw: {rule}"
                f"{_hint(key, value, mixer, _combinations(space, entry, active))}"
            )


def _hint(key: str, value: Value, mixer: str, combinations: Iterable[tuple[Surroundings, dict[str, Value]]]) -> str:
    """The nearest whole number that breaks no rule beside the first other values, in words."""
    around, values = next(found for found in combinations if found[1][key] == value)
    if not isinstance(value, int):
        return ""
    for distance in range(1, _FARTHEST_HINT):
        for near in (value - distance, value + distance):
            options = {"mixer": mixer, **values, key: near}
            if near >= 1 and all(rule.key != key for rule in layer_rules(options, around)):
                return f"; nearest {near}"
    return ""


def _allows(draw: Draw, mixer: str) -> bool:
    return all(mixer in allowed for name, allowed in draw.when if name == "mixer")


def _combinations(space: Space, entry: Entry, keys: list[str]) -> Iterator[tuple[Surroundings, dict[str, Value]]]:
    names = ("width", "max_context", "positions")
    around = [_listed(space.globals[name].domain) for name in names]
    values = [_listed(entry.draws[key].domain) for key in keys]
    for whole in itertools.product(*around):
        surroundings = space.surroundings(dict(zip(names, whole, strict=True)), entry.stack)
        for combination in itertools.product(*values):
            yield surroundings, dict(zip(keys, combination, strict=True))


def _listed(domain: Domain) -> tuple[Value, ...]:
    """Every value, or the ends where there are too many to list."""
    if domain.grid is not None:
        return domain.grid
    assert isinstance(domain, Range)
    return (domain.low, domain.high)
