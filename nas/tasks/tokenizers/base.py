"""What a tokenizer is.

In: text. Out: token ids, and text again, whole or as it is generated.

The tokens of text come first, then the specials, of which `<document>` is the first: no text spells a
special.

Legend: V token kinds, N tokens of a text.
"""

from __future__ import annotations

import codecs
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from nas.errors import CheckpointError, DataError, did_you_mean

Ids = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Placed:
    """A text in tokens, and where in it each of them stands.

    Attributes:
        ids: the tokens.
        first_N: the first byte of the text's UTF-8 that each stands for.
        end_N: the byte behind the last.
    """

    ids: Ids
    first_N: NDArray[np.int64]
    end_N: NDArray[np.int64]


class Tokenizer(ABC):
    """Text to tokens and back.

    Args:
        text_tokens: how many kinds of token stand for text: those from 0 on.
        specials: names of further specials, which are numbered behind `<document>` in their order.

    Attributes:
        kind: the name that `to_json` writes.
        exact_bytes: whether every text comes back from its tokens, byte for byte, so that
            `byte_lengths_V` of its tokens add up to its length.
    """

    kind: ClassVar[str]
    DOCUMENT: Final = "<document>"
    exact_bytes: bool = True

    def __init__(self, text_tokens: int, specials: Sequence[str]) -> None:
        names = (self.DOCUMENT, *specials)
        assert len(set(names)) == len(names), "a special is named once"
        self._ids = {name: text_tokens + place for place, name in enumerate(names)}
        self._text_tokens = text_tokens

    @property
    def vocabulary(self) -> int:
        """Token kinds, specials included."""
        return self._text_tokens + len(self._ids)

    @property
    def document(self) -> int:
        """The special that precedes each document; all tokens of text are below it."""
        return self._text_tokens

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

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """The bytes of text that a token of text stands for."""

    @cached_property
    def byte_lengths_V(self) -> NDArray[np.int64]:  # noqa: N802
        """How many bytes of text each token stands for; 0 for specials."""
        lengths = [len(self.token_bytes(token)) for token in range(self._text_tokens)]
        return np.array([*lengths, *([0] * len(self._ids))], dtype=np.int64)

    def bytes_per_token(self, tokens_T: NDArray[Any]) -> float:
        """Bytes of text for each of some tokens, on average, specials counted as tokens of none.

        Args:
            tokens_T: at least one that stands for text; of very many, the first sixteen million count.
        """
        counts_V = np.bincount(tokens_T[: 2**24], minlength=self.vocabulary)
        return float(counts_V @ self.byte_lengths_V / counts_V.sum())

    @property
    def id_type(self) -> type[np.uint16] | type[np.uint32]:
        """The smallest type that holds every token."""
        return np.uint16 if self.vocabulary <= 2**16 else np.uint32

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without specials.

        Raises:
            DataError: the text holds half a surrogate pair, which UTF-8 cannot express.
        """

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """The tokens of each text, as `encode` gives them, of type `id_type`."""
        return [np.array(self.encode(text), dtype=self.id_type) for text in texts]

    def encode_placed(self, texts: Sequence[str]) -> list[Placed]:
        """The tokens of each text, as `encode` gives them, and where they stand in it."""
        assert self.exact_bytes, "the bytes of its tokens are not those of the text"
        found = []
        for ids in self.encode_many(texts):
            end_N = np.cumsum(self.byte_lengths_V[ids])
            found.append(Placed(ids, end_N - self.byte_lengths_V[ids], end_N))
        return found

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens; specials say nothing, bytes that form no UTF-8 become U+FFFD.

        Raises:
            DataError: an id outside the vocabulary.
        """
        return "".join(self.decode_stream(ids))

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of tokens as they come: whole characters only, together what `decode` gives.

        Raises:
            DataError: an id outside the vocabulary.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for token in self._text_of(ids):
            text = decoder.decode(self.token_bytes(token))
            if text:
                yield text
        rest = decoder.decode(b"", final=True)
        if rest:
            yield rest

    @abstractmethod
    def with_specials(self, specials: Sequence[str]) -> Tokenizer:
        """The same tokens of text, and these specials behind `<document>` instead."""

    @abstractmethod
    def to_json(self) -> str:
        """All that `tokenizer_from_json` needs, without a file beside it."""

    def _text_of(self, ids: Iterable[int]) -> Iterator[int]:
        for token in ids:
            if not 0 <= token < self.vocabulary:
                raise DataError(f"a token must be in 0..{self.vocabulary - 1}, not {token}")
            if token < self._text_tokens:
                yield token


def utf8(text: str) -> bytes:
    """The UTF-8 bytes of a text.

    Raises:
        DataError: it holds half a surrogate pair, which UTF-8 cannot express.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"a text must be valid Unicode; character {error.start} is {text[error.start]!r}") from None


def parsed(text: str) -> dict[str, object]:
    """The JSON object of a tokenizer.

    Raises:
        CheckpointError: it is none.
    """
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise CheckpointError(f"a tokenizer is a JSON object; line {error.lineno}: {error.msg}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"a tokenizer is a JSON object, not {type(found).__name__}")
    return found
