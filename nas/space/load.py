"""From a YAML file, or a plain mapping, to a checked `Space`.

Shipped spaces lie in search_spaces/ beside the package in a checkout and inside it in a wheel;
their names, such as "hybrid_decoder", work wherever a path does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nas.errors import SpaceError, did_you_mean
from nas.space.architecture import GLOBAL_KEYS
from nas.space.check import check_space
from nas.space.constraints import Constraint
from nas.space.domains import Draw
from nas.space.learning_rate_rule import training_draws
from nas.space.schema import LAYERS_RULE, LayersWords, LayerWords, SpaceFile, Word, as_draw, validate
from nas.space.space import Entry, Space
from nas.space.yaml_lines import Lines, Place, is_file, load_yaml

PACKAGE = Path(__file__).resolve().parent.parent


def shipped_folder(kind: str) -> Path:
    """The folder of shipped files ("search_spaces" or "studies"): in the wheel or in the checkout."""
    inside = PACKAGE / "shipped" / kind
    return inside if inside.is_dir() else PACKAGE.parent / kind


def find_file(name: str | Path, *, kind: str, beside: Iterable[Path], error: type[SpaceError] | type[Any]) -> Path:
    """A file by path, relative to the folders in `beside`, or by its shipped name.

    Raises:
        InputError: of the class `error`, with the nearest name.
    """
    path = Path(name)
    for folder in beside:
        for found in (folder / path, folder / f"{path}.yaml"):
            if is_file(found):
                return found
    shipped = shipped_folder(kind)
    for found in (shipped / path.name, shipped / f"{path.name}.yaml"):
        if is_file(found) and path.parent.name in ("", kind):
            return found
    near = [str(path.parent / item.name) for item in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    names = [*near, *(item.stem for item in shipped.glob("*.yaml"))]
    raise error(f"no file '{name}': {did_you_mean(name, names)}")


def load_space(path: str | Path) -> Space:
    """See `Space.load`."""
    found = find_file(path, kind="search_spaces", beside=[Path()], error=SpaceError)
    values, lines = load_yaml(found, SpaceError)
    return space_from_mapping(values, lines)


def space_from_mapping(mapping: Mapping[str, Any], lines: Lines | None = None) -> Space:
    """See `Space.from_mapping`; `lines` says where each key stands, for messages."""
    lines = lines or Lines(f"space '{mapping.get('name', '?')}'", {})
    file: SpaceFile = validate(SpaceFile, mapping, lines, SpaceError)
    entries, places = _entries(file, lines)
    drawn = {name: as_draw(getattr(file, name)) for name in GLOBAL_KEYS if name not in ("vocabulary", "labels")}
    if file.vocabulary is not None:
        drawn["vocabulary"] = as_draw(file.vocabulary)
    space = Space(
        name=file.name,
        family=file.family,
        globals=drawn,
        entries=entries,
        training=training_draws(file.training, lines),
        constraints=_constraints(file.constraints, lines),
        source=mapping,
    )
    check_space(space, lines, places)
    return space


def _entries(file: SpaceFile, lines: Lines) -> tuple[tuple[Entry, ...], dict[str, Place]]:
    stacks = {"encoder": file.encoder, "decoder": file.decoder}
    if file.family != "encoder_decoder":
        for name, stack in stacks.items():
            if stack is not None:
                raise SpaceError(
                    f"{lines.at((name,))}: '{name}' is for family encoder_decoder; family {file.family} has 'layers'"
                )
        if file.layers is None:
            if "layers" in file.model_fields_set:
                raise SpaceError(f"{lines.at(('layers',))}: layers {LAYERS_RULE}")
            raise SpaceError(f"{lines.at(())}: 'layers' is missing")
        return _stack_entries(file.layers, file.depth, (), lines)
    for name, words in (("layers", file.layers), ("depth", file.depth)):
        if words is not None:
            raise SpaceError(
                f"{lines.at((name,))}: family encoder_decoder has 'encoder' and 'decoder', each with depth and layers, "
                f"and no '{name}' of its own"
            )
    entries: tuple[Entry, ...] = ()
    places: dict[str, Place] = {}
    for name, stack in stacks.items():
        if stack is None:
            raise SpaceError(
                f"{lines.at(())}: '{name}' is missing: family encoder_decoder has an encoder and a decoder"
            )
        found, where = _stack_entries(stack.layers, stack.depth, (name,), lines)
        entries, places = entries + found, places | where
    return entries, places


def _stack_entries(
    layers: LayersWords, depth: Word, place: Place, lines: Lines
) -> tuple[tuple[Entry, ...], dict[str, Place]]:
    prefix = ".".join([*map(str, place), "layers"])
    if isinstance(layers, dict):
        if depth is None:
            raise SpaceError(f"{lines.at((*place, 'layers'))}: 'depth' is missing: how many layers there are")
        return (Entry(prefix, _draws(layers), as_draw(depth)),), {prefix: (*place, "layers")}
    if depth is not None:
        where = lines.at((*place, "depth"))
        raise SpaceError(f"{where}: depth is the sum of the repeats of a list of layers; leave it out")
    if not layers:
        raise SpaceError(f"{lines.at((*place, 'layers'))}: layers: the list needs at least one layer")
    entries: list[Entry] = []
    places: dict[str, Place] = {}
    for index, words in enumerate(layers):
        repeat = as_draw(words.get("repeat", 1))
        draws = _draws({key: word for key, word in words.items() if key != "repeat"})
        entries.append(Entry(f"{prefix}[{index}]", draws, repeat))
        places[f"{prefix}[{index}]"] = (*place, "layers", index)
    return tuple(entries), places


def _draws(words: LayerWords) -> dict[str, Draw]:
    return {key: as_draw(value) for key, value in words.items()}


def _constraints(texts: list[str], lines: Lines) -> tuple[Constraint, ...]:
    found = []
    for index, text in enumerate(texts):
        try:
            found.append(Constraint.parse(text))
        except SpaceError as error:
            raise SpaceError(f"{lines.at(('constraints', index))}: {error}") from None
    return tuple(found)
