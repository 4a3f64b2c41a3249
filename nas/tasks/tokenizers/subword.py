"""Pieces of words as tokens, by the library `tokenizers`.

    BPE       byte-pair encoding (Sennrich et al. 2016), on bytes (Radford et al. 2019)
    unigram   the likeliest cut under a unigram model (Kudo 2018), on bytes
    other     any tokenizer.json of the Hugging Face hub

Both that are trained here cut a text at words first and work on bytes: there is no unknown character,
and every text comes back byte for byte. A tokenizer of the hub does so if it works on bytes and leaves
texts as they are; of every other one, `exact_bytes` is false.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from nas.errors import CheckpointError, DataError, MissingExtraError
from nas.tasks.tokenizers.base import Ids, Placed, Tokenizer, parsed, utf8

BYTES: Final = 256
# A long text is encoded in pieces of about so many characters: the library's notes on a piece take
# fifty times its room.
PIECE: Final = 32_768
PIECES_AT_ONCE: Final = 64
# Behind a line's end, before no blank: no tokenizer that cuts at words reaches over it.
BETWEEN_LINES: Final = re.compile(r"(?<=\S\n)(?=\w)")
PROBE: Final = " The Quick\tbröwn  fox’s\r\n\n 12345 水 ﬁ é é \U0001f600 \x00end  "


class SubwordTokenizer(Tokenizer):
    """A tokenizer of the library `tokenizers`, and our specials behind its tokens.

    Args:
        kind: "bpe", "unigram" or "hugging_face".
        library_json: what the library writes for it.
        specials: names of further specials.

    Raises:
        MissingExtraError: the library is not installed.
        CheckpointError: the library cannot read it.
    """

    def __init__(self, kind: str, library_json: str, specials: Sequence[str] = ()) -> None:
        self.kind = kind  # type: ignore[misc]
        self._json = library_json
        try:
            self._library = _library().Tokenizer.from_str(library_json)
        except Exception as error:  # The library raises no type of its own.
            raise CheckpointError(f"the library 'tokenizers' cannot read this tokenizer: {error}") from None
        # A text that spells one of its specials is text.
        self._library.encode_special_tokens = True
        self._library.no_truncation()
        self._library.no_padding()
        super().__init__(max(self._library.get_vocab(with_added_tokens=True).values()) + 1, specials)
        self.exact_bytes = self._is_on_bytes and self._library.normalizer is None and self._gives_back(PROBE)

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for; of a tokenizer that is not on bytes, those of its text alone."""
        return self._token_bytes[token]

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; errors as of `Tokenizer.encode`."""
        return [int(token) for token in self.encode_many([text])[0]]

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """The tokens of each text, long ones encoded in pieces."""
        numbered = ((place, piece) for place, text in enumerate(texts) for piece in self._pieces(text))
        found: list[list[Ids]] = [[] for _ in texts]
        while group := list(islice(numbered, PIECES_AT_ONCE)):
            encoded = self._library.encode_batch_fast([piece for _, piece in group], add_special_tokens=False)
            for (place, _), one in zip(group, encoded, strict=True):
                found[place].append(np.array(one.ids, dtype=self.id_type))
        empty = np.zeros(0, dtype=self.id_type)
        return [parts[0] if len(parts) == 1 else np.concatenate([empty, *parts]) for parts in found]

    def encode_placed(self, texts: Sequence[str]) -> list[Placed]:
        """The tokens of each text and where they stand in it, as the library says where bytes do not tell."""
        if self.exact_bytes:
            return super().encode_placed(texts)
        # The library counts characters.
        byte_at = [np.cumsum([0, *(len(utf8(character)) for character in text)]) for text in texts]
        found = []
        for at, one in zip(byte_at, self._library.encode_batch(list(texts), add_special_tokens=False), strict=True):
            place_N2 = at[np.array(one.offsets, dtype=np.int64).reshape(-1, 2)]
            found.append(Placed(np.array(one.ids, dtype=self.id_type), place_N2[:, 0], place_N2[:, 1]))
        return found

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens; errors as of `Tokenizer.decode`."""
        if self._is_on_bytes:
            return super().decode(ids)
        return str(self._library.decode(list(self._text_of(ids)), skip_special_tokens=True))

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of tokens as they come; errors as of `Tokenizer.decode_stream`."""
        if self._is_on_bytes:
            yield from super().decode_stream(ids)
            return
        # Such a decoder looks at the tokens around: what it says of all so far, less what was given out.
        seen: list[int] = []
        given = ""
        for token in self._text_of(ids):
            seen.append(token)
            text = str(self._library.decode(seen, skip_special_tokens=True))
            if text.startswith(given) and len(text) > len(given) and not text.endswith("\ufffd"):
                yield text[len(given) :]
                given = text
        text = str(self._library.decode(seen, skip_special_tokens=True))
        if text.startswith(given) and len(text) > len(given):
            yield text[len(given) :]

    def with_specials(self, specials: Sequence[str]) -> SubwordTokenizer:
        """The same pieces, and these specials."""
        return SubwordTokenizer(self.kind, self._json, specials)

    def to_json(self) -> str:
        """The kind, the specials, and all that the library writes."""
        return json.dumps(
            {
                "kind": self.kind,
                "vocabulary": self.vocabulary,
                "specials": self._ids,
                "library": json.loads(self._json),
            },
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str) -> SubwordTokenizer:
        """The tokenizer that `to_json` wrote.

        Raises:
            CheckpointError: the text describes none.
            MissingExtraError: the library is not installed.
        """
        found = parsed(text)
        specials, library = found.get("specials"), found.get("library")
        if not isinstance(specials, dict) or not isinstance(library, dict):
            raise CheckpointError("a tokenizer of pieces of words is described by its 'specials' and 'library'")
        made = cls(str(found["kind"]), json.dumps(library, ensure_ascii=False), [*specials][1:])
        if made._ids != specials:
            raise CheckpointError(f"the specials of this tokenizer are {made._ids}, not {specials}")
        return made

    @cached_property
    def _is_on_bytes(self) -> bool:
        """Whether each token stands for bytes, written in the alphabet of byte-level BPE."""
        described = json.loads(self._library.to_str())
        return _has_part(described.get("decoder"), "ByteLevel") and not described["model"].get("byte_fallback")

    @cached_property
    def _token_bytes(self) -> list[bytes]:
        count = max(self._library.get_vocab(with_added_tokens=True).values()) + 1
        if not self._is_on_bytes:
            return [self._library.decode([token], skip_special_tokens=True).encode() for token in range(count)]
        alphabet = {character: byte for byte, character in byte_alphabet().items()}
        added = {token: one.content.encode() for token, one in self._library.get_added_tokens_decoder().items()}
        found = []
        for token in range(count):
            name = self._library.id_to_token(token) or ""
            found.append(added[token] if token in added else bytes(alphabet[character] for character in name))
        return found

    def _pieces(self, text: str) -> Iterator[str]:
        utf8(text)
        at = 0
        # One that is not on bytes may add a blank before each piece, or join across lines.
        while len(text) - at > PIECE and self.exact_bytes:
            cut = BETWEEN_LINES.search(text, at + PIECE)
            if cut is None:
                break
            yield text[at : cut.start()]
            at = cut.start()
        yield text[at:]

    def _gives_back(self, text: str) -> bool:
        ids = self._library.encode(text, add_special_tokens=False).ids
        return b"".join(self._token_bytes[token] for token in ids) == text.encode()


def train_tokenizer(kind: str, texts: Iterable[str], *, vocabulary: int, specials: Sequence[str]) -> SubwordTokenizer:
    """A tokenizer that is made from texts; the same for the same texts.

    Args:
        kind: "bpe" or "unigram".
        texts: what it is trained on.
        vocabulary: token kinds at most, `<document>` and the specials included; fewer come out where
            the texts have no more.
        specials: names of further specials.

    Raises:
        DataError: the vocabulary does not hold the 256 bytes and the specials.
        MissingExtraError: the library is not installed.
    """
    smallest = BYTES + 1 + len(specials)
    if vocabulary < smallest:
        raise DataError(
            f"the vocabulary of a {kind} tokenizer must hold 256 bytes and {1 + len(specials)} specials: "
            f"{vocabulary} is below {smallest}, the nearest valid one"
        )
    library = _library()
    models, trainers = library.models, library.trainers
    alphabet = sorted(library.pre_tokenizers.ByteLevel.alphabet())
    size = vocabulary - 1 - len(specials)
    common: dict[str, Any] = {"vocab_size": size, "initial_alphabet": alphabet, "show_progress": False}
    if kind == "bpe":
        made, trainer = library.Tokenizer(models.BPE()), trainers.BpeTrainer(special_tokens=[], **common)
    else:
        made, trainer = library.Tokenizer(models.Unigram()), trainers.UnigramTrainer(special_tokens=[], **common)
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = library.decoders.ByteLevel()
    made.train_from_iterator((piece for text in texts for piece in _cut(text)), trainer=trainer)
    return SubwordTokenizer(kind, made.to_str(), specials)


def load_hugging_face(path: Path, specials: Sequence[str]) -> SubwordTokenizer:
    """A tokenizer of the hub, from its tokenizer.json or the folder that holds it.

    Raises:
        DataError: there is none.
        MissingExtraError: the library is not installed.
    """
    path = path.expanduser()
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"a Hugging Face tokenizer is a folder with tokenizer.json: there is no {file}")
    try:
        return SubwordTokenizer("hugging_face", file.read_text(encoding="utf-8"), specials)
    except (CheckpointError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: {error}") from None


def byte_alphabet() -> dict[int, str]:
    """The character that byte-level BPE writes for each byte (Radford et al. 2019).

    Printable ones for themselves, the others from U+0100 on in their order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(BYTES) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + place) for place, byte in enumerate(others)}


def _cut(text: str) -> Iterator[str]:
    at = 0
    while len(text) - at > PIECE:
        cut = BETWEEN_LINES.search(text, at + PIECE)
        if cut is None:
            break
        yield text[at : cut.start()]
        at = cut.start()
    yield text[at:]


def _has_part(described: Any, kind: str) -> bool:
    """Whether a part of the library, or one of those that it is a row of, is of a kind."""
    if not isinstance(described, dict):
        return False
    inner = [part for value in described.values() if isinstance(value, list) for part in value]
    return described.get("type") == kind or any(_has_part(part, kind) for part in inner)


def _library() -> ModuleType:
    try:
        import tokenizers
    except ImportError:
        raise MissingExtraError("a tokenizer of pieces of words", "text") from None
    return tokenizers
