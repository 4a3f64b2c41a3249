"""A corpus in tokens, in three parts, made once and mapped into memory.

In: a corpus's name or path, what splits it, and a tokenizer. Out: the training, validation and test
part as rows of tokens in files, and how often bytes follow each other in the held-out ones.

    tokens        <document> and the tokens of the first document, <document> and those of the second, …
    cache         a folder for each pair of contents and tokenizer (see nas.tasks.data.cache), shared by
                  all candidates, workers and studies

Legend: V token kinds, D documents.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nas.errors import DataError
from nas.records import Split
from nas.specs.tasks.data import Field
from nas.tasks.data import CacheWriter, Dataset, cached, open_dataset, say
from nas.tasks.stream import Stream
from nas.tasks.tokenizers import Tokenizer, make_tokenizer, tokenizer_from_json

PARTS: Final = ("train", "validation", "test")
FIELDS: Final = (Field("text", "text", group=True),)
SMALLEST_CORPUS = 2_048
SMALLEST_PART = 128
# A change of what is written is a change of this number.
CACHE_VERSION = 1
# Texts are encoded in groups of about so many characters.
GROUP = 4 * 2**20
# A tokenizer is trained on at most so many bytes of the training part, taken evenly from all of it.
TOKENIZER_SAMPLE = 200 * 2**20
BYTES = 256


@dataclass(frozen=True)
class Counts:
    """How often tokens and bytes occur in a held-out part.

    Attributes:
        tokens_V: each token.
        pairs: (256, 256): a byte, and the one behind it in the same document.
    """

    tokens_V: NDArray[np.int64]
    pairs: NDArray[np.int64]


class Corpus:
    """The parts of a corpus.

    Args:
        options: complete, of language modelling.
        specials: tokens that are needed besides `<document>`.

    Raises:
        DataError: the data cannot be read or is too short; the tokenizer loses bytes of a text.
        MissingExtraError: it needs a package that is not installed.
    """

    def __init__(self, options: Mapping[str, Any], specials: tuple[str, ...]) -> None:
        dataset = open_corpus(options)
        self.digest = dataset.digest
        self.tokenizer = tokenizer_for(options.get("tokenizer"), dataset, specials)
        if not self.tokenizer.exact_bytes:
            raise DataError(
                "bits per byte need a tokenizer that gives every byte of a text back: this one changes texts before "
                "it cuts them (lower case, accents or spaces); take byte, bpe or unigram"
            )
        self._crossing = bool(options.get("cross_documents", False))
        text_key = json.dumps([CACHE_VERSION, dataset.digest, self.tokenizer.to_json()])
        name = str(options["corpus"])
        self._reader = cached(
            hashlib.sha256(text_key.encode()).hexdigest(),
            lambda writer: _write(writer, dataset, self.tokenizer),
        )
        _check_sizes(name, self._reader.facts["bytes"])
        say(self._reader.facts["notes"])
        self._streams: dict[str, Stream] = {}

    def stream(self, part: Split | str) -> Stream:
        """A part in one row."""
        if part not in self._streams:
            ragged = self._reader.ragged(part)
            is_byte = self.tokenizer.kind == "byte"
            self._streams[part] = Stream(
                ragged.flat,
                ragged.offsets,
                self.tokenizer.document,
                byte_lengths_V=None if is_byte else self.tokenizer.byte_lengths_V,
                begins_word=None if is_byte else lambda at: _begins_word(self.tokenizer, ragged.flat, at),
                crossing=self._crossing,
            )
        return self._streams[part]

    def counts(self, split: Split) -> Counts:
        """What a trivial guesser knows of a held-out part."""
        return Counts(self._reader.array(f"{split}_tokens"), self._reader.array(f"{split}_pairs"))


def open_corpus(options: Mapping[str, Any]) -> Dataset:
    """The documents of a corpus; errors as of `open_dataset`."""
    return open_dataset({**options, "data": options["corpus"]}, FIELDS)


def tokenizer_for(wanted: Any, dataset: Dataset, specials: tuple[str, ...]) -> Tokenizer:
    """The tokenizer that a study asks for; one that is trained is kept in the cache.

    Args:
        wanted: the option of the study, or None for bytes.
        dataset: where it is trained, on its training part alone.
        specials: tokens that are needed besides `<document>`.
    """
    kind = wanted.get("kind", "byte") if isinstance(wanted, Mapping) else wanted or "byte"
    if kind not in ("bpe", "unigram"):
        return make_tokenizer(wanted, specials=specials)
    key = json.dumps(["tokenizer", CACHE_VERSION, dataset.digest, dict(wanted), specials], sort_keys=True)

    def train(writer: CacheWriter) -> None:
        made = make_tokenizer(wanted, specials=specials, texts=_sample(dataset))
        writer.facts({"tokenizer": made.to_json()})

    return tokenizer_from_json(str(cached(hashlib.sha256(key.encode()).hexdigest(), train).facts["tokenizer"]))


def _sample(dataset: Dataset) -> Iterator[str]:
    """Texts of the training part: all of them, or of each so many characters as TOKENIZER_SAMPLE allows."""
    names = [field.name for field in dataset.fields if field.kind == "text"]
    share = min(1.0, TOKENIZER_SAMPLE / max(dataset.size, 1))
    given = seen = 0
    for part, record in dataset.records():
        if part != "train":
            continue
        texts = [record[name] for name in names if record[name]]
        size = sum(map(len, texts))
        seen += size
        if given <= share * seen:
            given += size
            yield from texts


def _write(writer: CacheWriter, dataset: Dataset, tokenizer: Tokenizer) -> None:
    kind = np.uint16 if tokenizer.vocabulary <= 2**16 else np.uint32
    rows = {part: writer.ragged(part, kind) for part in PARTS}
    mark = np.array([tokenizer.document], dtype=kind)
    sizes = dict.fromkeys(PARTS, 0)
    tokens_V = {part: np.zeros(tokenizer.vocabulary, dtype=np.int64) for part in PARTS[1:]}
    pairs = {part: np.zeros(BYTES * BYTES, dtype=np.int64) for part in PARTS[1:]}
    for group in _groups(dataset):
        encoded = tokenizer.encode_many([text for _, text, _ in group])
        for (part, text, continues), ids in zip(group, encoded, strict=True):
            if continues:
                rows[part].extend_last(ids)
            else:
                rows[part].append(np.concatenate([mark, ids]))
            raw = text.encode()
            sizes[part] += len(raw)
            if part != "train":
                tokens_V[part] += np.bincount(ids, minlength=tokenizer.vocabulary)
                bytes_N = np.frombuffer(raw, dtype=np.uint8).astype(np.int64)
                pairs[part] += np.bincount(bytes_N[:-1] * BYTES + bytes_N[1:], minlength=BYTES * BYTES)
    for part in PARTS[1:]:
        writer.array(f"{part}_tokens", tokens_V[part])
        writer.array(f"{part}_pairs", pairs[part].reshape(BYTES, BYTES))
    writer.facts({"bytes": sizes, "notes": dataset.notes()})


def _groups(dataset: Dataset) -> Iterator[list[tuple[str, str, bool]]]:
    """Part, text and whether it continues the one before, in groups that are encoded at once."""
    group: list[tuple[str, str, bool]] = []
    size = 0
    for part, record in dataset.records():
        text = record["text"]
        if not text:
            continue
        group.append((part, text, bool(record.get("_continues"))))
        size += len(text)
        if size >= GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def _begins_word(tokenizer: Tokenizer, tokens_T: NDArray[Any], at: int) -> bool:
    """Whether a document begins or ends at a place, or a blank behind a word does.

    There every vocabulary that cuts texts at words has a token's edge.
    """
    here, before = int(tokens_T[at]), int(tokens_T[at - 1]) if at else tokenizer.document
    if here >= tokenizer.document or before >= tokenizer.document:
        return True
    return tokenizer.token_bytes(here)[:1] == b" " and not tokenizer.token_bytes(before)[-1:].isspace()


def _check_sizes(corpus: str, sizes: Mapping[str, int]) -> None:
    total = sum(sizes.values())
    if total < SMALLEST_CORPUS:
        raise DataError(f"a corpus must have at least {SMALLEST_CORPUS:,} bytes: {corpus} has {total:,}")
    for part, size in sizes.items():
        if size < SMALLEST_PART:
            raise DataError(
                f"each part of a corpus must have at least {SMALLEST_PART} bytes: the {part} part of {corpus} "
                f"has {size} (a folder is split by file names: add files, or join them in one file)"
            )
