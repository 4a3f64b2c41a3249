"""Files that commands are given: spaces, studies and architectures, by path or by shipped name."""

from __future__ import annotations

from pathlib import Path

from nas.errors import SpaceError, StudyError
from nas.space.architecture import Architecture
from nas.space.load import find_file
from nas.space.space import Space


def find(name: str) -> Path:
    """The file of a study or a space.

    Raises:
        StudyError: there is none, with the nearest name.
    """
    try:
        return find_file(name, kind="studies", beside=[Path()], error=StudyError)
    except StudyError:
        return find_file(name, kind="search_spaces", beside=[Path()], error=StudyError)


def architecture_of(path: Path) -> Architecture:
    """The architecture of a JSON file.

    Raises:
        SpaceError: no such file, or no architecture.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpaceError(f"no file '{path}'") from None
    except UnicodeDecodeError as broken:
        raise SpaceError(f"{path}: not UTF-8 text (byte {broken.start})") from None
    except OSError as broken:
        raise SpaceError(f"{path}: cannot be read: {broken.strerror}") from None
    return Architecture.from_json(text)


def size_in_words(space: Space) -> str:
    """How many networks a space has, and in how many parameters."""
    names = [parameter.name for parameter in space.parameters if parameter.name.startswith("training.")]
    networks = "continuous" if space.size == float("inf") else f"{space.size:,.0f} architectures"
    return f"{networks} in {len(space.parameters)} parameters" + (f" ({', '.join(names)} included)" if names else "")
