"""What a study says of its own data: where it lies, what its columns mean, how it is parted.

data: reviews/*.jsonl.gz                         a file, a folder, a glob, or a list of those
data: spam_assassin                              a prepared name (see PREPARED)
data: hf:NAME[:CONFIG]                           a Hugging Face dataset; hf:/path for one saved to disk
columns: {text: body, label: party}              a field of the task -> a column of the data
split: {by: hash, key: author, shares: [0.8, 0.1, 0.1]}
split: {by: column, column: year, train: [1999, 2000], validation: 2001, test: 2002}
split: {by: file, train: "train-*", validation: dev.csv, test: test.csv}
split: {by: position}                            one text file alone: 80 %, 10 %, 10 %

Every record has two columns more: `file`, its file's path below the data's folder, and `folder`, the name
of the folder that holds the file. A text file has the column `text`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from nas.errors import did_you_mean
from nas.specs.base import BrokenRule, Key

FieldKind = Literal["text", "label", "labels", "answers", "integer"]

PREPARED: Final = ("sotu", "stdlib", "spam_assassin", "sotu_party", "fine_foods", "bible_en_es", "manual_qa")
"""Names that scripts/fetch_data knows; `sotu` comes with the package of that name too."""

HUB_PREFIX: Final = "hf:"

PART_NAMES: Final = ("train", "validation", "test")

DATA_PLACES: Final = ("data", "corpus")
"""Keys that say where data lies: what it holds tells versions apart, not its place."""

DEFAULT_SHARES: Final = (0.8, 0.1, 0.1)

DATA_KEYS: Final[Mapping[str, Key]] = {
    "data": Key(
        type=(str, list),
        doc="a text, JSON Lines, JSON, CSV, TSV or Parquet file (also .gz, .zst), a folder, a glob, a list of those, a "
        "prepared name, or a Hugging Face dataset as hf:NAME, hf:NAME:CONFIG or hf:/path",
    ),
    "columns": Key(
        type=dict,
        derived=True,
        doc="a field of the task -> a column of the data; a field that is not named is the column of its own name",
    ),
    "split": Key(
        type=dict,
        derived=True,
        doc="{by: hash, key: COLUMN, shares: [0.8, 0.1, 0.1]}, {by: column, column: COLUMN, train: X, validation: Y, "
        "test: Z}, {by: file, train: GLOB, validation: GLOB, test: GLOB} or {by: position}; without it by the names "
        "train, validation and test of files or folders, else by hash (one text file: by position)",
    ),
}
"""What a task takes that reads the user's own data."""

SPLIT_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "hash": ("key", "shares"),
    "column": ("column", "train", "validation", "test"),
    "file": ("train", "validation", "test"),
    "position": (),
}


@dataclass(frozen=True)
class Field:
    """Something that a task reads of a record.

    Attributes:
        name: the task's own name of it.
        kind: "text"; "label", a name or a whole number; "labels" and "answers", lists of names and of
            texts; "integer".
        optional: whether records may lack it.
        group: whether records that are equal in it stay in one part, where a study names no split.
    """

    name: str
    kind: FieldKind
    optional: bool = False
    group: bool = False


def broken_data(options: Mapping[str, Any], fields: Sequence[Field]) -> Iterator[BrokenRule]:
    """The rules that `data`, `columns` and `split` break; files are not looked at."""
    yield from _broken_place(options.get("data"))
    yield from _broken_columns(options.get("columns"), fields)
    yield from _broken_split(options.get("split"))


def _broken_place(data: Any) -> Iterator[BrokenRule]:
    items = data if isinstance(data, list) else [data]
    if data is not None and not (items and all(isinstance(item, str) and item for item in items)):
        yield BrokenRule("data", f"data must be a name or a path, or a list of them, not {data!r}")
    elif len(items) > 1 and any(item.startswith(HUB_PREFIX) for item in items):
        yield BrokenRule("data", "a Hugging Face dataset must be the only entry of data: it takes no list")


def _broken_columns(columns: Any, fields: Sequence[Field]) -> Iterator[BrokenRule]:
    if not isinstance(columns, Mapping):
        return
    names = [field.name for field in fields]
    for name, column in columns.items():
        if name not in names:
            hint = did_you_mean(name, names)
            yield BrokenRule("columns", f"columns names the field '{name}', which the task does not have: {hint}")
        elif not (isinstance(column, str) and column):
            yield BrokenRule("columns", f"columns must map '{name}' to a column's name, not {column!r}")


def _broken_split(split: Any) -> Iterator[BrokenRule]:
    if not isinstance(split, Mapping):
        return
    by = str(split.get("by"))
    if by not in SPLIT_WORDS:
        what = f"knows no by: {by}" if "by" in split else "needs 'by'"
        yield BrokenRule("split", f"split {what}: {did_you_mean(by, SPLIT_WORDS)}")
        return
    for word in split:
        if word not in ("by", *SPLIT_WORDS[by]):
            hint = did_you_mean(word, ("by", *SPLIT_WORDS[by]))
            yield BrokenRule("split", f"a split by {by} takes no '{word}': {hint}")
    if by == "hash":
        yield from _broken_hash(split)
    elif by != "position":
        yield from _broken_parts(by, split)


def _broken_hash(split: Mapping[str, Any]) -> Iterator[BrokenRule]:
    key = split.get("key")
    columns = key if isinstance(key, list) else [key]
    if key is not None and not (columns and all(isinstance(column, str) and column for column in columns)):
        yield BrokenRule("split", f"the key of a split by hash must be a column or a list of columns, not {key!r}")
    shares = split.get("shares", list(DEFAULT_SHARES))
    numbers = shares if isinstance(shares, list) else []
    if len(numbers) != 3 or not all(_is_number(share) and share > 0 for share in numbers):
        text = f"shares must be three numbers above 0 (train, validation, test), not {shares!r}"
        yield BrokenRule("split", f"{text}: nearest [0.8, 0.1, 0.1]")
    elif not math.isclose(total := math.fsum(numbers), 1, abs_tol=1e-6):
        nearest = [round(share / total, 4) for share in numbers]
        yield BrokenRule("split", f"shares must add up to 1, not {total:g}: nearest {nearest}")


def _broken_parts(by: str, split: Mapping[str, Any]) -> Iterator[BrokenRule]:
    needed = ("column", "train", "test") if by == "column" else ("train", "test")
    for word in needed:
        if split.get(word) in (None, [], ""):
            yield BrokenRule("split", f"a split by {by} needs '{word}' (it has {', '.join(map(str, split))})")
    if by == "column" and not isinstance(split.get("column", ""), str):
        yield BrokenRule("split", f"the column of a split must be a name, not {split['column']!r}")
    seen: dict[str, str] = {}
    for part in ("train", "validation", "test"):
        for value in as_list(split.get(part)):
            if isinstance(value, list | dict) or (by == "file" and not isinstance(value, str)):
                what = "globs" if by == "file" else "values"
                yield BrokenRule("split", f"{part} of a split by {by} must be {what}, not {value!r}")
            elif seen.setdefault(plain(value), part) != part:
                text = f"'{value}' is of two parts of the split, {seen[plain(value)]} and {part}: name it once"
                yield BrokenRule("split", text)


def as_list(value: Any) -> list[Any]:
    """A value or a list of values, as a list."""
    return [] if value is None else value if isinstance(value, list) else [value]


def plain(value: Any) -> str:
    """A value of a column as text, the same from every format: 7 and "7" are one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
