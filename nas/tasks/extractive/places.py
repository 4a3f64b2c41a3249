"""From an answer's characters to a run of a context's tokens, and from a run of tokens to text.

In: a context in tokens, with the bytes that each stands for. Out: the fewest tokens that cover an
answer; and for any run of tokens the context's own text, in whole characters, without blanks around it.

Tokens need not begin and end where an answer does: a piece of a word brings the blank before it, or
letters behind it. Blanks are no part of an answer; where more is added, `is_exact` says so.

Legend: N tokens of a context.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas.errors import DataError
from nas.tasks.tokenizers import Placed


def right_answers(record: Mapping[str, Any]) -> list[str]:
    """All right answers of a record; none where its context has none.

    Raises:
        DataError: one does not stand in the context.
    """
    answers = [answer for answer in record["answers"] if answer.strip()]
    for answer in answers:
        if answer not in record["context"]:
            raise DataError(f"{_place(record)}: the answer {answer!r:.60} does not stand in its context")
    return answers


def first_character(record: Mapping[str, Any], answer: str) -> int:
    """Where in the context an answer begins: where the record says, else where it stands first.

    Raises:
        DataError: it does not stand where the record says.
    """
    given, context = record["answer_start"], record["context"]
    stands = context.find(answer)
    if given is None:
        return int(stands)
    if given < 0 or not context.startswith(answer, given):
        raise DataError(
            f"{_place(record)}: answer_start counts characters of the context, and the answer {answer!r:.60} does not "
            f"stand at {given}: it does at {stands}"
        )
    return int(given)


def covering(placed: Placed, first_byte: int, end_byte: int) -> tuple[int, int] | None:
    """The fewest tokens that hold all bytes from one to another: the first, and the one behind the last.

    None where no token stands for any of them.
    """
    first = int(placed.end_N.searchsorted(first_byte, side="right"))
    end = int(placed.first_N.searchsorted(end_byte, side="left"))
    return (first, end) if first < end else None


def text_between(text: bytes, first_byte: int, end_byte: int) -> str:
    """The text between two bytes, grown to whole characters, without blanks around it."""
    while first_byte > 0 and _continues(text[first_byte : first_byte + 1]):
        first_byte -= 1
    while _continues(text[end_byte : end_byte + 1]):
        end_byte += 1
    return text[first_byte:end_byte].decode().strip()


def _continues(byte: bytes) -> bool:
    """Whether a byte of UTF-8 is not the first of its character."""
    return bool(byte) and byte[0] & 0xC0 == 0x80


def _place(record: Mapping[str, Any]) -> str:
    path, row = record["_where"]
    return f"{path}, row {row}"
