"""Text to tokens and back.

In: text. Out: token ids, and text again, whole or as it is generated.
"""

from __future__ import annotations

import codecs
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Final

from nas.errors import CheckpointError, DataError, did_you_mean


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
    """The 256 bytes of UTF-8, `<document>` (256), and whatever specials a task needs besides.

    Args:
        specials: names of further specials, which are numbered from 257 on in their order.
    """

    kind: ClassVar[str] = "byte"
    BYTES: Final = 256
    DOCUMENT: Final = "<document>"

    def __init__(self, specials: Sequence[str] = ()) -> None:
        names = (self.DOCUMENT, *specials)
        assert len(set(names)) == len(names), "a special is named once"
        self._ids = {name: self.BYTES + place for place, name in enumerate(names)}

    @property
    def vocabulary(self) -> int:
        """256 bytes and the specials: 257 without further ones."""
        return self.BYTES + len(self._ids)

    @property
    def document(self) -> int:
        """256."""
        return self.BYTES

    @property
    def specials(self) -> tuple[str, ...]:
        """The names of all specials."""
        return tuple(self._ids)

    def special(self, name: str) -> int:
        """The token of a special.

        Raises:
            DataError: there is no such special.
        """
        if name not in self._ids:
            raise DataError(f"unknown special '{name}': {did_you_mean(name, self._ids)}")
        return self._ids[name]

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
            DataError: an id outside the vocabulary.
        """
        return "".join(self.decode_stream(ids))

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of bytes as they come; a character is held back until its last byte is there.

        Raises:
            DataError: an id outside the vocabulary.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for token in ids:
            if not 0 <= token < self.vocabulary:
                raise DataError(f"a token must be in 0..{self.vocabulary - 1}, not {token}")
            if token >= self.BYTES:
                continue
            text = decoder.decode(bytes([token]))
            if text:
                yield text
        rest = decoder.decode(b"", final=True)
        if rest:
            yield rest

    def to_json(self) -> str:
        """The kind and the specials."""
        return json.dumps({"kind": self.kind, "vocabulary": self.vocabulary, "specials": self._ids})

    @classmethod
    def from_json(cls, text: str) -> ByteTokenizer:
        """The tokenizer that `to_json` wrote.

        Raises:
            CheckpointError: the text describes another tokenizer.
        """
        found = _parsed(text)
        specials = found.get("specials")
        names = list(specials) if isinstance(specials, dict) else []
        tokenizer = cls([name for name in dict.fromkeys(names) if name != cls.DOCUMENT])
        expected = json.loads(tokenizer.to_json())
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
