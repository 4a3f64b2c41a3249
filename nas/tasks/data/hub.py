"""Data sets of the Hugging Face hub, by name or saved to disk, through the library `datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from nas.errors import DataError, MissingExtraError
from nas.tasks.data.formats import Row
from nas.tasks.data.places import Source

PREFIX: Final = "hf:"


class HubData:
    """A data set of the hub.

    Args:
        name: "hf:NAME", "hf:NAME:CONFIG" or "hf:/path" of one that was saved to disk.
    """

    def __init__(self, name: str) -> None:
        self._name = name.removeprefix(PREFIX)

    @property
    def sources(self) -> list[Source]:
        """One for each of its splits."""
        return [Source(f"{split}.parquet", Path(split)) for split in self._splits]

    def digest(self, source: Source) -> str:
        """The library's own fingerprint of a split."""
        return str(self._splits[str(source.path)]._fingerprint)

    def rows(self, source: Source) -> Iterator[tuple[int, Row]]:
        """The rows of a split."""
        for number, row in enumerate(self._splits[str(source.path)], 1):
            yield number, dict(row)

    def stamp(self) -> tuple[object, ...]:
        """The fingerprints."""
        return tuple((split, data._fingerprint) for split, data in self._splits.items())

    @cached_property
    def _splits(self) -> dict[str, Any]:
        try:
            import datasets
        except ImportError:
            raise MissingExtraError(f"data '{PREFIX}{self._name}'", "hub") from None
        path = Path(self._name).expanduser()
        if path.is_absolute() and not path.is_dir():
            raise DataError(f"{PREFIX} and a path must name a data set saved to disk: there is no folder {path}")
        try:
            if path.is_dir():
                found = datasets.load_from_disk(str(path))
            else:
                name, _, config = self._name.partition(":")
                found = datasets.load_dataset(name, config or None)
        except Exception as error:  # The library raises what its many parts raise.
            first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(f"cannot load '{self._name}' with the library 'datasets': {first_line}") from error
        return dict(found) if isinstance(found, dict) else {"data": found}
