"""YAML in, plain values and the line of every key out.

Spaces and studies are written by hand, so an error must say where. `load_yaml` gives the values
and a `Lines` table that maps a path of keys, such as ("layers", "heads"), to its line.

Numbers such as `1e-3` are numbers here: YAML 1.1 as PyYAML reads it takes them for text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nas.errors import InputError, did_you_mean

Place = tuple[str | int, ...]


class Lines:
    """Where each key of a file stands.

    Attributes:
        file: the file's name, for messages.
        where: "file:line" of each path of keys.
    """

    def __init__(self, file: str, where: Mapping[Place, str] | None = None) -> None:
        self.file = file
        self.where: Mapping[Place, str] = where or {}

    def at(self, place: Iterable[str | int]) -> str:
        """ "file:line" of a path of keys, or of the nearest enclosing one that was written."""
        wanted = tuple(place)
        while wanted and wanted not in self.where:
            wanted = wanted[:-1]
        return self.where.get(wanted, self.file)

    def below(self, key: str) -> Lines:
        """The lines of the mapping at `key`, as if it were a file of its own."""
        return Lines(self.file, {place[1:]: where for place, where in self.where.items() if place[:1] == (key,)})

    def replaced(self, place: Place, where: str) -> Lines:
        """These lines, with everything at and below a place standing elsewhere."""
        kept = {other: known for other, known in self.where.items() if other[: len(place)] != place}
        return Lines(self.file, {**kept, place: where})

    def over(self, other: Lines) -> Lines:
        """These lines where they say something, else those of `other`."""
        return Lines(other.file, {**other.where, **{place: where for place, where in self.where.items() if place}})


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's numbers, all of whose complaints name a line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of a node.

        Raises:
            yaml.constructor.ConstructorError: PyYAML's own, and what it lets through of a value
                that only looks like one, such as the date 2026-13-45.
        """
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, AttributeError, OverflowError) as broken:
            problem = f"'{str(node.value)[:40]}' cannot be read: {broken}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def is_file(path: Path) -> bool:
    """Whether a file is there to be opened; no error for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def parse_value(text: str) -> Any:
    """The value of one YAML text, such as "1e-3", "[1, 2]" or "full".

    Raises:
        yaml.YAMLError: it is no YAML.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def load_yaml(path: Path, error: type[InputError]) -> tuple[dict[str, Any], Lines]:
    """The mapping in a YAML file and the lines of its keys.

    Args:
        path: the file.
        error: the class of error to raise.

    Raises:
        InputError: of the class `error`: no such file, unreadable, not UTF-8, not YAML, no mapping, or a key twice.
    """
    if not is_file(path):
        folder = path.parent if path.parent.is_dir() else Path()
        neighbours = [str(folder / found.name) for found in folder.glob("*.y*ml")]
        raise error(f"no file '{path}'" + (f": {did_you_mean(path, neighbours)}" if neighbours else ""))
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as broken:
        raise error(f"{path}: not UTF-8 text (byte {broken.start})") from None
    except OSError as broken:
        raise error(f"{path}: cannot be read: {broken.strerror}") from None
    return parse_yaml(text, file=str(path), error=error)


def parse_yaml(text: str, *, file: str, error: type[InputError]) -> tuple[dict[str, Any], Lines]:
    """As `load_yaml`, for a text that is at hand."""
    try:
        loader = _Loader(text)
    except yaml.YAMLError as broken:
        raise error(f"{file}: not YAML: {str(broken).splitlines()[0]}") from None
    try:
        root = loader.get_single_node()
        lines: dict[Place, str] = {}
        if root is not None:
            _Noter(file, error, lines).note(root, (), ())
        values = loader.construct_document(root) if root is not None else {}
    except yaml.MarkedYAMLError as broken:
        mark = broken.problem_mark
        where = f"{file}:{mark.line + 1}" if mark is not None else file
        raise error(f"{where}: not YAML: {_in_words(broken)}") from None
    finally:
        loader.dispose()
    if not isinstance(values, dict):
        raise error(f"{file}: the file must hold a mapping (key: value), not {_KINDS.get(type(values), 'one value')}")
    return values, Lines(file, lines)


_KINDS: Mapping[type, str] = {list: "a list", str: "text", type(None): "nothing"}


def _in_words(broken: yaml.MarkedYAMLError) -> str:
    """PyYAML's complaint in one line."""
    problem = str(broken.problem or broken.context)
    if "'\\t'" in problem:
        return "a tab where only spaces may indent"
    if "another document" in problem:
        return "a second document ('---'); a file holds one"
    if "mapping values" in problem:
        return "a second ':' in one line; quote a value that holds one, and indent the keys of a block alike"
    if broken.context and problem.startswith(("expected", "found unexpected")):
        return f"{problem} {broken.context}"
    return problem


@dataclass(frozen=True)
class _Noter:
    """Notes where each key stands, and refuses what the values would not show."""

    file: str
    error: type[InputError]
    lines: dict[Place, str]

    def note(self, node: yaml.Node, place: Place, above: tuple[yaml.Node, ...]) -> None:
        if any(node is outer for outer in above):
            raise self.error(f"{self._at(node)}: an alias (*) stands inside the value that it repeats")
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key_node, value_node in node.value:
                key = str(key_node.value)
                if key in seen:
                    raise self.error(f"{self._at(key_node)}: key '{key}' is given twice")
                seen.add(key)
                self.lines[(*place, key)] = self._at(key_node)
                self.note(value_node, (*place, key), (*above, node))
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.lines[(*place, index)] = self._at(item)
                self.note(item, (*place, index), (*above, node))

    def _at(self, node: yaml.Node) -> str:
        return f"{self.file}:{node.start_mark.line + 1}"
