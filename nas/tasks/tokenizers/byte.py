"""The bytes of UTF-8 as tokens: no file, no training, every text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import ClassVar, Final

import numpy as np

from nas.errors import CheckpointError
from nas.tasks.tokenizers.base import Ids, Tokenizer, parsed, utf8


class ByteTokenizer(Tokenizer):
    """The 256 bytes of UTF-8, `<document>` (256), and whatever specials a task needs besides.

    Args:
        specials: names of further specials, which are numbered from 257 on in their order.
    """

    kind: ClassVar[str] = "byte"
    BYTES: Final = 256

    def __init__(self, specials: Sequence[str] = ()) -> None:
        super().__init__(self.BYTES, specials)

    def token_bytes(self, token: int) -> bytes:
        """The byte itself."""
        return bytes([token])

    def encode(self, text: str) -> list[int]:
        """The UTF-8 bytes of a text; errors as of `Tokenizer.encode`."""
        return list(utf8(text))

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """The UTF-8 bytes of each text."""
        return [np.frombuffer(utf8(text), dtype=np.uint8).astype(np.uint16) for text in texts]

    def with_specials(self, specials: Sequence[str]) -> ByteTokenizer:
        """Bytes, and these specials."""
        return ByteTokenizer(specials)

    def to_json(self) -> str:
        """The kind and the specials."""
        return json.dumps({"kind": self.kind, "vocabulary": self.vocabulary, "specials": self._ids})

    @classmethod
    def from_json(cls, text: str) -> ByteTokenizer:
        """The tokenizer that `to_json` wrote.

        Raises:
            CheckpointError: the text describes another tokenizer.
        """
        found = parsed(text)
        specials = found.get("specials")
        names = list(specials) if isinstance(specials, dict) else []
        tokenizer = cls([name for name in dict.fromkeys(names) if name != cls.DOCUMENT])
        expected = json.loads(tokenizer.to_json())
        if found != expected:
            raise CheckpointError(f"a byte tokenizer is described by {expected}, not by {found}")
        return tokenizer
