"""Text to tokens and back.

In: text. Out: token ids, and text again, whole or as it is generated.
"""

from __future__ import annotations

import codecs
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, Final

from nas.errors import CheckpointError, DataError


class Tokenizer(ABC):
    """Text to tokens and back.

    Attributes:
        kind: the name that `to_json` writes.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """Token kinds, specials included."""

    @property
    @abstractmethod
    def document(self) -> int:
        """The special that precedes each document."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without specials."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens; specials say nothing, bytes that form no UTF-8 become U+FFFD."""

    @abstractmethod
    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of tokens as they come: whole characters only, together what `decode` gives."""

    @abstractmethod
    def to_json(self) -> str:
        """All that `tokenizer_from_json` needs."""


class ByteTokenizer(Tokenizer):
    """The 256 bytes of UTF-8, and `<document>` (256)."""

    kind: ClassVar[str] = "byte"
    BYTES: Final = 256

    @property
    def vocabulary(self) -> int:
        """257."""
        return self.BYTES + 1

    @property
    def document(self) -> int:
        """256."""
        return self.BYTES

    def encode(self, text: str) -> list[int]:
        """The UTF-8 bytes of a text.

        Raises:
            DataError: the text holds half a surrogate pair, which UTF-8 cannot express.
        """
        try:
            return list(text.encode())
        except UnicodeEncodeError as error:
            raise DataError(f"a text must be valid Unicode; character {error.start} is {text[error.start]!r}") from None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of bytes.

        Raises:
            DataError: an id outside 0..256.
        """
        return "".join(self.decode_stream(ids))

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of bytes as they come; a character is held back until its last byte is there.

        Raises:
            DataError: an id outside 0..256.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for token in ids:
            if not 0 <= token <= self.document:
                raise DataError(f"a token must be in 0..{self.document}, not {token}")
            if token == self.document:
                continue
            text = decoder.decode(bytes([token]))
            if text:
                yield text
        rest = decoder.decode(b"", final=True)
        if rest:
            yield rest

    def to_json(self) -> str:
        """The kind and the specials."""
        return json.dumps({"kind": self.kind, "vocabulary": self.vocabulary, "specials": {"<document>": self.document}})

    @classmethod
    def from_json(cls, text: str) -> ByteTokenizer:
        """The tokenizer that `to_json` wrote.

        Raises:
            CheckpointError: the text describes another tokenizer.
        """
        tokenizer = cls()
        expected = json.loads(tokenizer.to_json())
        found = _parsed(text)
        if found != expected:
            raise CheckpointError(f"a byte tokenizer is described by {expected}, not by {found}")
        return tokenizer


KINDS: Final[Mapping[str, type[ByteTokenizer]]] = {ByteTokenizer.kind: ByteTokenizer}


def tokenizer_from_json(text: str) -> Tokenizer:
    """The tokenizer that some `to_json` wrote.

    Raises:
        CheckpointError: the text is no JSON object or names no kind that is known here.
    """
    kind = str(_parsed(text).get("kind"))
    if kind not in KINDS:
        raise CheckpointError(f"unknown tokenizer kind {kind!r}: valid: {', '.join(KINDS)}")
    return KINDS[kind].from_json(text)


def _parsed(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise CheckpointError(f"a tokenizer is a JSON object; line {error.lineno}: {error.msg}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"a tokenizer is a JSON object, not {type(found).__name__}")
    return found
