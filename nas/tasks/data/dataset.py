"""Rows to checked records, in three parts.

In: what a study says of its data, and the fields that a task reads. Out: records one by one in a fixed
order, each with its part and the task's own names of fields; a digest of all that was read.

What is wrong with single records and does not make the data useless is counted and said once, with the
first place where it was seen: records without a text, held-out records that equal one of the training
part.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import warnings
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from nas.errors import DataError, DataWarning
from nas.specs.tasks.data import Field, plain
from nas.tasks.data import hub
from nas.tasks.data.formats import Row, pieces_of, rows_of, text_of
from nas.tasks.data.parts import PARTS, Part, Splitter, cuts_by_position, missing_column
from nas.tasks.data.places import Source, cache_home, find_sources

Record = dict[str, Any]

DIGEST_VERSION: Final = 1
_LABELS: Final = re.compile(r"[;,]")
PACKED_FACTOR: Final = 4


class Dataset:
    """Records in three parts.

    Args:
        options: of the task: `data`, `columns`, `split`.
        fields: that the task reads.

    Raises:
        DataError: nothing is there, or its split cannot be made.
        MissingExtraError: it comes with a package that is not installed.

    Attributes:
        fields: likewise.
        name: what the study calls it.
    """

    def __init__(self, options: Mapping[str, Any], fields: Sequence[Field]) -> None:
        data = options["data"]
        self.fields = tuple(fields)
        self._columns = {str(name): str(column) for name, column in (options.get("columns") or {}).items()}
        self._split = options.get("split")
        self._hub = hub.HubData(data) if isinstance(data, str) and data.startswith(hub.PREFIX) else None
        self._sources = self._hub.sources if self._hub else find_sources(data)
        groups = [self._columns.get(field.name, field.name) for field in self.fields if field.group]
        speeches = data == "sotu" and self._split is None
        self._splitter = Splitter(self._split, self._sources, groups, speeches=speeches)
        self.name = str(data)
        self._notes: list[str] = []

    @property
    def digest(self) -> str:
        """SHA-256 of the contents of all files, their parts, the columns and the split."""
        digest = hashlib.sha256()
        split = self._splitter
        facts = [
            DIGEST_VERSION,
            self._columns,
            self._split,
            [(field.name, field.kind, field.group) for field in self.fields],
        ]
        digest.update(json.dumps(facts, sort_keys=True).encode())
        named = {"file", "folder"} & {*self._columns.values(), *map(str, (self._split or {}).values())}
        for source in self._sources:
            part = split.part_of_file(source) if split.by_file else None
            content = self._hub.digest(source) if self._hub else _digest_of(source.path)
            digest.update(json.dumps([part, content, source.name if named else ""]).encode())
        return digest.hexdigest()

    @property
    def size(self) -> int:
        """Bytes of the files, about; of packed ones, four times as many."""
        return sum(
            source.path.stat().st_size * (PACKED_FACTOR if source.packing else 1)
            for source in self._sources
            if self._hub is None
        )

    def stamp(self) -> tuple[object, ...]:
        """What changes when the files do; cheap."""
        if self._hub:
            return self._hub.stamp()
        stats = [(str(source.path), source.path.stat()) for source in self._sources]
        return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)

    def records(self) -> Iterator[tuple[Part, Record]]:
        """Every record with its part, in a fixed order.

        A record has the task's fields (None where an optional one is absent) and "_where", its file
        and row. A text of more than 16 MiB comes in several records, every one but the first with
        "_continues".

        Raises:
            DataError: a file is broken, a column is missing, a field has a wrong value, or a part has no
                records.
        """
        seen = _Seen(self.fields)
        empty: Counter[str] = Counter()
        first_empty: dict[str, str] = {}
        counts: Counter[str] = Counter()
        outside = 0
        for part, record in self._raw():
            if part is None:
                outside += 1
                continue
            missing = next((field.name for field in self.fields if _is_empty(field, record)), None)
            if missing is not None:
                empty[missing] += 1
                first_empty.setdefault(missing, _place(record))
                continue
            counts[part] += 1
            seen.add(part, record)
            yield part, record
        left_out = [
            f"{count:,} records without '{name}' are left out, the first in {first_empty[name]}"
            for name, count in empty.items()
        ]
        if outside:
            left_out.append(f"{outside:,} records belong to no part of the split and are left out")
        for part in PARTS:
            if not counts[part]:
                why = f" ({'; '.join(left_out)})" if left_out else _hint(self._splitter.by)
                raise DataError(f"the {part} part of {self.name} has no records{why}")
        self._notes = [f"{self.name}: {note}" for note in left_out]
        self._notes += seen.shared(self.name)

    def notes(self) -> list[str]:
        """What was counted in the last full pass over `records`: one sentence each."""
        return list(self._notes)

    def _raw(self) -> Iterator[tuple[Part | None, Record]]:
        for source in self._sources:
            part = self._splitter.part_of_file(source) if self._splitter.by_file else None
            if self._splitter.by_file and part is None:
                continue
            if self._hub is not None:
                rows = self._hub.rows(source)
            elif source.is_table:
                rows = rows_of(source)
            else:
                yield from self._texts(source, part)
                continue
            for number, row in rows:
                yield self._splitter.part_of_row(source, part, row, number), self._record(source, number, row)

    def _texts(self, source: Source, part: Part | None) -> Iterator[tuple[Part | None, Record]]:
        with text_of(source) as text:
            if self._splitter.by == "position":
                if not len(text):
                    raise DataError(f"a corpus of one file must hold text: {source.path} is empty")
                cuts = cuts_by_position(text)
            else:
                whole = part if part is not None else self._splitter.part_of_row(source, None, {}, 1)
                cuts = [(whole, 0, len(text))] if whole is not None else []
            for its, first, last in cuts:
                continues = False
                for piece in pieces_of(source, text, first, last):
                    record = self._record(source, 1, {"text": piece})
                    if continues:
                        record["_continues"] = True
                    continues = True
                    yield its, record

    def _record(self, source: Source, number: int, row: Row) -> Record:
        record: Record = {"_where": (source.path, number)}
        for field in self.fields:
            column = self._columns.get(field.name, field.name)
            if column in row:
                value = row[column]
            elif column == "file":
                value = source.name
            elif column == "folder":
                value = source.path.parent.name
            elif field.optional:
                value = _inside(row, column)
            else:
                raise missing_column(source, number, column, row)
            # A table of text has no other way to leave a cell out.
            is_left_out = field.optional and value == ""
            record[field.name] = None if is_left_out else _checked(field, value, source, number)
        return record


def open_dataset(options: Mapping[str, Any], fields: Sequence[Field]) -> Dataset:
    """The data that a study names; errors as of `Dataset`."""
    return Dataset(options, fields)


def say(notes: Sequence[str]) -> None:
    """Warns of each note once."""
    for note in notes:
        warnings.warn(note, DataWarning, stacklevel=3)


class _Seen:
    """Which contents each part has, by 8 bytes of a hash.

    Args:
        fields: of a record; what keeps records together, where something does, is what must not be shared.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        self._together = [field.name for field in fields if field.group]
        self._names = self._together or [field.name for field in fields]
        self._hashes = {part: array("Q") for part in PARTS}
        self._places: dict[Part, array[int]] = {part: array("q") for part in PARTS}
        self._files: dict[Path, int] = {}

    def add(self, part: Part, record: Record) -> None:
        if record.get("_continues"):
            return
        path, number = record["_where"]
        content = "\0".join(str(record[name]) for name in self._names)
        digest = hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self._hashes[part].append(int.from_bytes(digest))
        if part != "train":
            self._places[part].extend((self._files.setdefault(path, len(self._files)), number))

    def shared(self, name: str) -> Iterator[str]:
        train_N = np.frombuffer(self._hashes["train"], dtype=np.uint64) if self._hashes["train"] else np.zeros(0)
        for part in PARTS[1:]:
            if not self._hashes[part]:
                continue
            is_shared_N = np.isin(np.frombuffer(self._hashes[part], dtype=np.uint64), train_N)
            if not is_shared_N.any():
                continue
            first = int(is_shared_N.argmax())
            file, number = self._places[part][2 * first], self._places[part][2 * first + 1]
            path = list(self._files)[file]
            by = f" by their {' and '.join(self._together)}" if self._together else ""
            yield (
                f"{name}: {int(is_shared_N.sum()):,} of {len(is_shared_N):,} records of the {part} part stand in the "
                f"training part too{by}, the first in {path}, row {number}: scores of that part are too good"
            )


def _digest_of(path: Path) -> str:
    """SHA-256 of a file, remembered for as long as its size and time stay."""
    stat = path.stat()
    stamp = [str(path.resolve()), stat.st_size, stat.st_mtime_ns]
    memo = cache_home() / "digests" / f"{hashlib.sha256(str(stamp[0]).encode('utf-8', 'surrogateescape')).hexdigest()}"
    try:
        found = json.loads(memo.read_text())
        if found["stamp"] == stamp:
            return str(found["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    # A memo is for large files; of small ones there may be very many. Without room for it, it is made again.
    if stat.st_size >= 2**20:
        with suppress(OSError):
            memo.parent.mkdir(exist_ok=True)
            memo.write_text(json.dumps({"stamp": stamp, "digest": digest}))
    return digest


def _is_empty(field: Field, record: Record) -> bool:
    value = record[field.name]
    if field.optional:
        return False
    return value is None or (field.kind == "text" and not value.strip())


def _checked(field: Field, value: Any, source: Source, number: int) -> Any:
    # Not-a-number is what tables of numbers have in the place of nothing.
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    found = _VALUES[field.kind](value)
    if field.kind == "label" and found == "":
        return None
    if found is None:
        raise DataError(f"{source.path}, row {number}: '{field.name}' must be {_WORDS[field.kind]}, not {value!r:.60}")
    return found


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else str(value) if isinstance(value, int | float) else None


def _label(value: Any) -> str | None:
    if isinstance(value, str):
        return value.strip()
    return plain(value) if isinstance(value, int) or (isinstance(value, float) and value.is_integer()) else None


def _labels(value: Any) -> list[str] | None:
    if isinstance(value, str) and value.lstrip().startswith("["):
        # A list that was written into a column of text.
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if isinstance(value, str):
        return [label.strip() for label in _LABELS.split(value) if label.strip()]
    if not isinstance(value, list):
        return None
    found = [_label(one) for one in value]
    return None if None in found else [label for label in found if label]


def _answers(value: Any) -> list[str] | None:
    if isinstance(value, dict):
        # SQuAD's own layout: {"text": [...], "answer_start": [...]}.
        value = value.get("text")
    if isinstance(value, str):
        return [value] if value else []
    return value if isinstance(value, list) and all(isinstance(one, str) for one in value) else None


def _integer(value: Any) -> int | None:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


_VALUES: Final = {"text": _text, "label": _label, "labels": _labels, "answers": _answers, "integer": _integer}
_WORDS: Final = {
    "text": "a text",
    "label": "a label (a name or a whole number)",
    "labels": "a list of labels (or a text with ; or , between them, or a JSON list)",
    "answers": "a text or a list of texts",
    "integer": "a whole number",
}


def _inside(row: Row, column: str) -> Any:
    """A column of a column, the first of its values: answer_start in SQuAD's {text: [...], answer_start: [...]}."""
    found = next((inner[column] for inner in row.values() if isinstance(inner, dict) and column in inner), None)
    return next(iter(found), None) if isinstance(found, list) else found


def _place(record: Record) -> str:
    path, number = record["_where"]
    return f"{path}, row {number}"


def _hint(by: str) -> str:
    hints = {
        "hash": " (records are split by hash: there are too few, or too few different keys)",
        "year": "",
        "position": "",
        "file": " (no file is named like it)",
        "column": " (no record has its value)",
    }
    return hints[by]
