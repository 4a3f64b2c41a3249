"""Which part a record belongs to: training, validation or test.

In: what a study says of its split, and the files. Out: for each file either a part for all of it or a
rule for its records.

Every rule is a pure function of the record or the file's name, so adding data moves nothing that was
there, and no group is cut: all records of one key land in one part.

Where a study says nothing: files whose path holds a part's name (train.csv, dev/a.txt) belong to it;
one text alone is cut by position; several texts go by the hash of their names; records of tables by the
hash of what the task says keeps them together: the text, the source, the context of a question.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import mmap
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from nas.errors import DataError, did_you_mean
from nas.specs.tasks.data import PART_NAMES, plain
from nas.tasks.data.formats import Row, char_start
from nas.tasks.data.places import Source

Part = Literal["train", "validation", "test"]
PARTS: Final[tuple[Part, ...]] = ("train", "validation", "test")
SHARES: Final = (0.8, 0.1, 0.1)
# Of the training part, where a split names no validation.
VALIDATION_SHARE: Final = 0.1

_NAMES: Final[Mapping[str, Part]] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    "test": "test",
}


class Splitter:
    """A rule.

    Args:
        split: what the study says, or None.
        sources: the files.
        groups: columns; where the study says nothing, records that are equal in all of them stay together.
        speeches: whether they are the State of the Union speeches.

    Attributes:
        by: "hash", "column", "file" or "position"; "year" for the speeches.
        by_file: whether the name of a file alone decides.
    """

    def __init__(
        self, split: Mapping[str, Any] | None, sources: Sequence[Source], groups: Sequence[str], *, speeches: bool
    ) -> None:
        self._groups = groups
        self._split = dict(split) if split is not None else _default(sources, speeches)
        self.by = str(self._split["by"])
        self._named = {part: _as_list(self._split[part]) for part in PART_NAMES if part in self._split}
        key = self._split.get("key")
        self._keys = [str(name) for name in _as_list(key)] if key is not None else []
        texts = not any(source.is_table for source in sources)
        if self.by == "position" and (len(sources) != 1 or not texts):
            raise DataError(f"a split by position is for one text file alone, not for {len(sources)} files")
        only_names = set(self._keys) <= {"file", "folder"} and bool(self._keys)
        # A text has no columns: what tells its part is its name.
        self.by_file = self.by in ("file", "year") or (self.by == "hash" and (only_names or texts))

    def part_of_file(self, source: Source) -> Part | None:
        """The part of all that a file holds; None where it is left out.

        Only for rules `by_file`.
        """
        if self.by == "year":
            year = int(source.name[:4])
            return "train" if year < 1980 else "validation" if year < 2000 else "test"
        if self.by == "hash":
            return self._by_hash(_pseudo(source), source)
        found = _named_part(source) if "named" in self._split else self._matching(source)
        if found == "train" and not self._has_validation and not source.is_table:
            return "validation" if _fraction(source.name) < VALIDATION_SHARE else "train"
        return found

    def part_of_row(self, source: Source, part: Part | None, row: Row, number: int) -> Part | None:
        """The part of a record; None where it is left out.

        Args:
            source: its file.
            part: what `part_of_file` says, where the rule is `by_file`.
            row: its columns.
            number: of its line or row, for messages.
        """
        if self.by_file:
            if part == "train" and not self._has_validation and self.by == "file":
                return "validation" if _fraction(_content(row)) < VALIDATION_SHARE else "train"
            return part
        if self.by == "hash":
            return self._by_hash({**row, **_pseudo(source)}, source, number)
        column = str(self._split["column"])
        columns = {**row, **_pseudo(source)}
        if column not in columns:
            raise missing_column(source, number, column, columns)
        for name, values in self._named.items():
            if plain(columns[column]) in map(plain, values):
                if name == "train" and not self._has_validation:
                    return "validation" if _fraction(_content(row)) < VALIDATION_SHARE else "train"
                return _NAMES[name]
        return None

    @property
    def _has_validation(self) -> bool:
        return "validation" in self._named or self.by == "year" or "validation" in self._split.get("named", ())

    def _by_hash(self, columns: Mapping[str, Any], source: Source, number: int = 0) -> Part:
        if not self._keys:
            # Texts by their names (every tenth hash), rows by all that is in them.
            if not source.is_table:
                return part_of_name(source.name)
            kept = [name for name in self._groups if name in columns] or [*columns.keys() - {"file", "folder"}]
            key = _content({name: columns[name] for name in kept})
        else:
            for name in self._keys:
                if name not in columns:
                    raise missing_column(source, number, name, columns)
            if self._keys == ["file"] and "shares" not in self._split:
                return part_of_name(source.name)
            key = json.dumps([str(columns[name]) for name in self._keys])
        train, validation, _ = self._split.get("shares", SHARES)
        fraction = _fraction(key)
        return "train" if fraction < train else "validation" if fraction < train + validation else "test"

    def _matching(self, source: Source) -> Part | None:
        for name, globs in self._named.items():
            if any(fnmatch.fnmatchcase(source.name, str(pattern)) for pattern in globs):
                return _NAMES[name]
        return None


def part_of_name(name: str) -> Part:
    """The part that a file of a folder belongs to, by its name alone: 80 % train, 10 %, 10 %."""
    bucket = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8]) % 10
    return "validation" if bucket == 0 else "test" if bucket == 1 else "train"


def cuts_by_position(text: mmap.mmap | bytes) -> list[tuple[Part, int, int]]:
    """One text by position: 80 % train, 10 % validation, 10 % test, cut where paragraphs or lines end."""
    first = _cut_near(text, len(text) * 8 // 10)
    second = _cut_near(text, len(text) * 9 // 10)
    return [("train", 0, first), ("validation", first, second), ("test", second, len(text))]


def missing_column(source: Source, number: int, column: str, columns: Mapping[str, Any]) -> DataError:
    """The error for a record without a column."""
    only = [name for name in columns if name not in ("file", "folder")]
    hint = did_you_mean(column, columns)
    if source.ending in (".csv", ".tsv") and len(only) == 1 and any(mark in only[0] for mark in ",;\t|"):
        hint = f"the only one, {only[0]!r:.60}, looks like several (.csv is separated by commas, .tsv by tabs)"
    return DataError(f"{source.path}, row {number}: there is no column '{column}': {hint}")


def _default(sources: Sequence[Source], speeches: bool) -> dict[str, Any]:
    if speeches:
        return {"by": "year"}
    named = {part for source in sources if (part := _named_part(source)) is not None}
    if {"train", "test"} <= named:
        return {"by": "file", "named": sorted(named)}
    if len(sources) == 1 and not sources[0].is_table:
        return {"by": "position"}
    return {"by": "hash"}


def _named_part(source: Source) -> Part | None:
    *folders, file = source.name.lower().split("/")
    for name in (file.split(".")[0], *reversed(folders)):
        if name in _NAMES:
            return _NAMES[name]
    return None


def _pseudo(source: Source) -> dict[str, str]:
    return {"file": source.name, "folder": source.path.parent.name}


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _content(row: Mapping[str, Any]) -> str:
    return json.dumps(row, sort_keys=True, default=str, ensure_ascii=False)


def _fraction(key: str) -> float:
    """A number of [0, 1) that the key alone decides."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[:8]) / 2**64


def _cut_near(text: mmap.mmap | bytes, target: int) -> int:
    """A cut at the paragraph's or the line's end nearest to `target`, within 1 % of the text."""
    reach = len(text) // 100
    for end in (b"\n\n", b"\n"):
        before = text.rfind(end, target - reach, target)
        after = text.find(end, target, target + reach)
        cuts = [at + len(end) for at in (before, after) if at >= 0]
        if cuts:
            return min(cuts, key=lambda cut: abs(cut - target))
    return char_start(text, target)
