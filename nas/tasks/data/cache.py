"""Arrays in files: made once, mapped into memory by everyone.

In: a key, which is a hash of all that the arrays depend on, and a function that writes them. Out: the
arrays, from the folder of that key.

A folder is written beside its place, synced, and renamed: nobody reads half of one. Whoever comes while
it is written waits. Its facts.json, written last, says how large each file is and what the small ones hash to,
itself included; where that does not hold (a disk that was full, a copy that was cut, a bit that turned), the
folder is thrown away and made again. Of the rows of items, which may be larger than memory, the size alone is
looked at.

Legend: T items of all sequences, N sequences.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from nas.errors import DataError
from nas.tasks.data.places import cache_home

FACTS: Final = "facts.json"
BUFFER: Final = 8 * 2**20
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)


class Ragged:
    """Sequences of unequal length in one row.

    Attributes:
        flat: (T,) all items; lies in a file.
        offsets: (N + 1,) int64: where each sequence begins, and T.
    """

    def __init__(self, flat: NDArray[Any], offsets: NDArray[np.int64]) -> None:
        self.flat, self.offsets = flat, offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[Any]:
        found: NDArray[Any] = self.flat[self.offsets[index] : self.offsets[index + 1]]
        return found

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) items of each sequence."""
        return np.diff(self.offsets)


class RaggedWriter:
    """Writes sequences one behind the other, buffered."""

    def __init__(self, folder: Path, name: str, kind: Any) -> None:
        self._kind = np.dtype(kind)
        self._file: IO[bytes] = (folder / f"{name}.flat").open("wb", buffering=BUFFER)
        self._ends = array("q", [0])

    def append(self, items: NDArray[Any]) -> None:
        """One more sequence."""
        self._write(items)
        self._ends.append(self._ends[-1] + len(items))

    def extend_last(self, items: NDArray[Any]) -> None:
        """More of the last sequence."""
        self._write(items)
        self._ends[-1] += len(items)

    def close(self) -> NDArray[np.int64]:
        """Where the sequences begin and end."""
        _synced(self._file)
        return np.frombuffer(self._ends, dtype=np.int64)

    def abandon(self) -> None:
        """Ends the file; what it could not write is lost."""
        with suppress(OSError):
            self._file.close()

    def _write(self, items: NDArray[Any]) -> None:
        self._file.write(np.ascontiguousarray(items, dtype=self._kind).data)


class CacheWriter:
    """What `cached` hands to the function that writes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ragged: dict[str, RaggedWriter] = {}
        self._kinds: dict[str, str] = {}
        self._facts: dict[str, Any] = {}

    def ragged(self, name: str, kind: Any) -> RaggedWriter:
        """A new row of sequences, of a numpy type."""
        self._ragged[name] = RaggedWriter(self._folder, name, kind)
        self._kinds[name] = np.dtype(kind).name
        return self._ragged[name]

    def array(self, name: str, values: NDArray[Any]) -> None:
        """A whole array."""
        with (self._folder / f"{name}.npy").open("wb") as file:
            np.save(file, values)
            _synced(file)

    def facts(self, facts: Mapping[str, Any]) -> None:
        """What JSON can hold."""
        self._facts |= facts

    def abandon(self) -> None:
        """Ends all files without a word of them."""
        for writer in self._ragged.values():
            writer.abandon()

    def close(self) -> None:
        """Ends all files; the facts last."""
        for name, writer in self._ragged.items():
            self.array(f"{name}.offsets", writer.close())
        paths = sorted(self._folder.iterdir())
        facts = {
            "facts": self._facts,
            "kinds": self._kinds,
            "sizes": {path.name: path.stat().st_size for path in paths},
            "hashes": {path.name: _hash(path.read_bytes()) for path in paths if path.suffix == ".npy"},
        }
        text = json.dumps(facts).encode()
        with (self._folder / FACTS).open("wb") as file:
            file.write(_hash(text).encode() + b"\n" + text)
            _synced(file)


class CacheReader:
    """What was written.

    Attributes:
        facts: likewise.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        said, _, text = (folder / FACTS).read_bytes().partition(b"\n")
        if said.decode() != _hash(text):
            raise ValueError(f"{folder / FACTS} is not what was written")
        found = json.loads(text)
        sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.name != FACTS}
        hashes = {name: _hash((folder / name).read_bytes()) for name in found["hashes"]}
        if sizes != found["sizes"] or hashes != found["hashes"]:
            raise ValueError(f"the files of {folder} are not those that were written")
        self.facts: dict[str, Any] = found["facts"]
        self._kinds: dict[str, str] = found["kinds"]

    def ragged(self, name: str) -> Ragged:
        """A row of sequences; its items are read where they are looked at."""
        offsets = np.load(self._folder / f"{name}.offsets.npy")
        kind = np.dtype(self._kinds[name])
        if offsets[-1] == 0:
            return Ragged(np.zeros(0, dtype=kind), offsets)
        # An array and not its subclass, whose every look costs microseconds.
        return Ragged(np.memmap(self._folder / f"{name}.flat", dtype=kind, mode="r").view(np.ndarray), offsets)

    def array(self, name: str) -> NDArray[Any]:
        """A whole array."""
        found: NDArray[Any] = np.load(self._folder / f"{name}.npy")
        return found


def cached(key: str, write: Callable[[CacheWriter], None]) -> CacheReader:
    """The arrays of a key; written first where they are not there or damaged.

    Args:
        key: hexadecimal.
        write: writes them, the same ones for the same key.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    home = cache_home()
    place = home / key
    with suppress(OSError, ValueError, KeyError):
        return CacheReader(place)
    try:
        with _locked(home / f"{key}.lock") as alone:
            with suppress(OSError, ValueError, KeyError):
                return CacheReader(place)
            if alone:
                # What one left behind that was killed.
                for left in home.glob(f"{key[:16]}-*"):
                    shutil.rmtree(left, ignore_errors=True)
            shutil.rmtree(place, ignore_errors=True)
            _write_beside(place, key, write)
            return CacheReader(place)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise DataError(
            f"cannot write the cache of data in {home}: {error.strerror}; NAS_CACHE names another folder"
        ) from error


def _write_beside(place: Path, key: str, write: Callable[[CacheWriter], None]) -> None:
    beside = Path(tempfile.mkdtemp(prefix=f"{key[:16]}-", dir=place.parent))
    writer = CacheWriter(beside)
    try:
        write(writer)
        writer.close()
        try:
            beside.rename(place)
        except OSError:
            # Where there are no locks, another may have been there first: what it wrote is the same.
            if not place.is_dir():
                raise
    finally:
        writer.abandon()
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """One process at a time, and whether that holds: not where the system has no locks on files."""
    try:
        import fcntl
    except ImportError:
        yield False
        return
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield False
            return
        yield True


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _synced(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
