"""The tokenizer that a study asks for, and that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from nas.errors import CheckpointError
from nas.specs.tasks.tokenizers import DEFAULT_VOCABULARY
from nas.tasks.tokenizers.base import Tokenizer, parsed
from nas.tasks.tokenizers.byte import ByteTokenizer
from nas.tasks.tokenizers.subword import SubwordTokenizer, load_hugging_face, train_tokenizer

KINDS: Final[Mapping[str, type[ByteTokenizer] | type[SubwordTokenizer]]] = {
    "byte": ByteTokenizer,
    "bpe": SubwordTokenizer,
    "unigram": SubwordTokenizer,
    "hugging_face": SubwordTokenizer,
}


def make_tokenizer(wanted: Any, *, specials: Sequence[str] = (), texts: Iterable[str] = ()) -> Tokenizer:
    """The tokenizer that a study asks for.

    Args:
        wanted: checked by `broken_tokenizer`; None: bytes.
        specials: names of specials besides `<document>`.
        texts: what it is trained on, if it is.

    Raises:
        DataError: there is none, or its vocabulary is too small.
        MissingExtraError: it needs the library `tokenizers`.
    """
    options = dict(wanted) if isinstance(wanted, Mapping) else {"kind": wanted or "byte"}
    kind = str(options["kind"])
    if kind == "byte":
        return ByteTokenizer(specials)
    if kind == "hugging_face":
        return load_hugging_face(Path(str(options["path"])), specials)
    vocabulary = int(options.get("vocabulary", DEFAULT_VOCABULARY))
    return train_tokenizer(kind, texts, vocabulary=vocabulary, specials=specials)


def tokenizer_from_json(text: str) -> Tokenizer:
    """The tokenizer that some `to_json` wrote.

    Raises:
        CheckpointError: the text is no JSON object or names no kind that is known here.
        MissingExtraError: it needs the library `tokenizers`.
    """
    kind = str(parsed(text).get("kind"))
    if kind not in KINDS:
        raise CheckpointError(f"unknown tokenizer kind {kind!r}: valid: {', '.join(KINDS)}")
    return KINDS[kind].from_json(text)
