"""Files to rows.

In: a file. Out: its rows as mappings of columns, one by one, whatever the file's size; of a text, its
pieces.

    .jsonl .ndjson    one JSON object a line (RFC 8259, UTF-8)
    .json             a list of objects
    .csv .tsv         comma- or tab-separated with a header (RFC 4180)
    .parquet          by pyarrow
    anything else     one UTF-8 text, without its byte order mark
    .gz .zst behind   packed
"""

from __future__ import annotations

import csv
import io
import json
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from nas.errors import DataError, MissingExtraError
from nas.tasks.data.packing import BROKEN, opened
from nas.tasks.data.places import Source

Row = dict[str, Any]

PIECE: Final = 16 * 2**20
"""Bytes of a text that are read at once."""

# No field of a table is longer than what is read of a text at once, or it is no table.
LONGEST_FIELD: Final = 2**30
PARQUET_ROWS: Final = 1_024
LARGEST_PACKED_TEXT: Final = 2**29
BOM: Final = b"\xef\xbb\xbf"


def rows_of(source: Source) -> Iterator[tuple[int, Row]]:
    """The rows of a table, each with its number: that of its line, or from 1 on.

    Raises:
        DataError: the file is empty or broken; names the line.
        MissingExtraError: the format needs a package that is not installed.
    """
    readers = {".csv": _separated, ".tsv": _separated, ".parquet": _parquet, ".json": _json}
    found = False
    try:
        for number, row in readers.get(source.ending, _json_lines)(source):
            found = True
            yield number, row
    except BROKEN as error:
        raise DataError(f"cannot read {source.path}: {error}") from error
    if not found:
        raise DataError(f"a table must have rows: {source.path} is empty")


@contextmanager
def text_of(source: Source) -> Iterator[mmap.mmap | bytes]:
    """The bytes of a text; those of a file that is not packed are only read where they are looked at."""
    if source.packing:
        try:
            with opened(source) as file:
                text = file.read(LARGEST_PACKED_TEXT + 1)
        except BROKEN as error:
            raise DataError(f"cannot read {source.path}: {error}") from error
        if len(text) > LARGEST_PACKED_TEXT:
            raise DataError(
                f"a packed text may have {LARGEST_PACKED_TEXT:,} bytes: {source.path} has more; unpack it first, "
                f"or take JSON Lines, which are read line by line"
            )
        yield text
        return
    with opened(source) as file:
        # An empty file cannot be mapped.
        if source.path.stat().st_size == 0:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            yield mapped


def pieces_of(source: Source, text: mmap.mmap | bytes, first: int, last: int) -> Iterator[str]:
    """The bytes first..last−1 of a text in checked pieces, cut at line ends where there are some.

    One at least: of no bytes, an empty one.

    Raises:
        DataError: they are not UTF-8, or binary; names the first bad byte.
    """
    if first == 0 and text[:3] == BOM:
        first = 3
    if first >= last:
        yield ""
    while first < last:
        cut = last if last - first <= PIECE else _cut(text, first, first + PIECE)
        yield _checked(source, bytes(text[first:cut]), first)
        _forget(text, cut)
        first = cut


def _forget(text: mmap.mmap | bytes, until: int) -> None:
    """Gives what was read back to the system: of a mapped file, all would stay resident where there is room."""
    if isinstance(text, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        pages = until // mmap.PAGESIZE * mmap.PAGESIZE
        if pages:
            text.madvise(mmap.MADV_DONTNEED, 0, pages)


def _cut(text: mmap.mmap | bytes, first: int, most: int) -> int:
    end = text.rfind(b"\n", first + PIECE // 2, most)
    if end >= 0:
        return end + 1
    return char_start(text, most)


def char_start(text: mmap.mmap | bytes, at: int) -> int:
    """The next place from `at` on that is not inside a character, whose later bytes are 0b10xxxxxx."""
    while at < len(text) and text[at] & 0xC0 == 0x80:
        at += 1
    return at


def _checked(source: Source, raw: bytes, offset: int) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"a corpus must be UTF-8 text: {source.path} has byte 0x{raw[error.start]:02x} at offset "
            f"{offset + error.start} ({error.reason})"
        ) from None
    zero = raw.find(0)
    if zero >= 0:
        raise DataError(f"a corpus must be text, not binary: {source.path} has byte 0x00 at offset {offset + zero}")
    return text


def _json_lines(source: Source) -> Iterator[tuple[int, Row]]:
    with opened(source) as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(BOM) if number == 1 else line
            if line.strip():
                yield number, _object(source, number, line)


def _object(source: Source, number: int, line: bytes) -> Row:
    row = _parsed(line.rstrip(b"\r\n"), f"{source.path}, line {number}")
    if not isinstance(row, dict):
        raise DataError(f"{source.path}, line {number}: a line must be a JSON object, not {type(row).__name__}")
    return row


def _json(source: Source) -> Iterator[tuple[int, Row]]:
    with opened(source) as file:
        found = _parsed(file.read().removeprefix(BOM), str(source.path), hint=" (one object a line is .jsonl)")
    if not isinstance(found, list):
        raise DataError(f"{source.path}: a .json file of data must be a list of objects, not {type(found).__name__}")
    for number, row in enumerate(found, 1):
        if not isinstance(row, dict):
            raise DataError(f"{source.path}, item {number}: must be an object, not {type(row).__name__}")
        yield number, row


def _parsed(raw: bytes, where: str, hint: str = "") -> Any:
    """The value of a JSON text in UTF-8 (the library itself would guess other encodings)."""
    try:
        found = json.loads(raw.decode())
        # Half a surrogate pair can be written as an escape, and as nothing else.
        if b"\\u" in raw and b"\\ud" in raw.lower():
            json.dumps(found, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 at byte {error.start} ({error.reason}){_other_encoding(raw)}") from None
    except UnicodeEncodeError as error:
        half = str(error.object)[error.start]
        raise DataError(f"{where}: a text must be valid Unicode, and {half!r} is half a character") from None
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}"
        raise DataError(f"{where}: not JSON: {error.msg} at {place}{hint}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON that can be read: {error}") from None
    return found


def _other_encoding(raw: bytes) -> str:
    is_other = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    return ": it looks like UTF-16, save it as UTF-8" if is_other else ""


def _separated(source: Source) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(LONGEST_FIELD)
    comma = "\t" if source.ending == ".tsv" else ","
    with opened(source) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, delimiter=comma, strict=True)
        try:
            header = next(reader, None)
            if header is None:
                return
            if len(set(header)) < len(header):
                raise DataError(f"{source.path}, line 1: two columns have one name: {', '.join(header)}")
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(
                        f"{source.path}, line {reader.line_num}: {len(row)} fields, but the header has {len(header)}: "
                        f"{', '.join(header)}"
                    )
                if any("\0" in field for field in row):
                    raise DataError(
                        f"{source.path}, line {reader.line_num}: a table must be text, not binary: byte 0x00"
                    )
                yield reader.line_num, dict(zip(header, row, strict=True))
        except csv.Error as error:
            raise DataError(f"{source.path}, line {reader.line_num}: {error}") from None
        except UnicodeDecodeError:
            raise _not_utf8(source) from None


def _not_utf8(source: Source) -> DataError:
    """The error of a table whose reader, which decodes far ahead, has met bytes that are not UTF-8."""
    with opened(source) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                hint = _other_encoding(line) if number == 1 else ""
                return DataError(
                    f"{source.path}, line {number}: not UTF-8 at byte {error.start} ({error.reason}){hint}"
                )
    raise AssertionError("a line of the file is not UTF-8")


def _parquet(source: Source) -> Iterator[tuple[int, Row]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise MissingExtraError(f"{source.path.name}, a Parquet file,", "data") from None
    number = 0
    try:
        with parquet.ParquetFile(source.path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (ArrowException, OSError) as error:
        raise DataError(f"{source.path}: broken Parquet file behind row {number}: {error}") from None
