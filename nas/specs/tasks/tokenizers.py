"""What a study says of its tokenizer.

tokenizer: byte                                  the bytes of UTF-8; what is taken where none is named
tokenizer: {kind: bpe, vocabulary: 4096}         trained on the training part of the corpus
tokenizer: {kind: unigram, vocabulary: 4096}     the same
tokenizer: {kind: hugging_face, path: DIR}       a folder with tokenizer.json, or that file
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from nas.errors import did_you_mean
from nas.specs.base import BrokenRule, Key

TOKENIZER_KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "byte": (),
    "bpe": ("vocabulary",),
    "unigram": ("vocabulary",),
    "hugging_face": ("path",),
}
TRAINED_KINDS: Final = ("bpe", "unigram")
"""Those that are trained on the corpus, with any vocabulary."""
DEFAULT_VOCABULARY: Final = 4_096
SMALLEST_VOCABULARY: Final = 258
"""256 bytes, `<document>` and one more."""

TOKENIZER_KEY: Final = Key(
    type=(str, dict),
    derived=True,
    doc="byte (default); {kind: bpe or unigram, vocabulary: N}, trained on the training part; "
    "{kind: hugging_face, path: a folder with tokenizer.json}",
)


def broken_tokenizer(value: Any) -> Iterator[BrokenRule]:
    """The rules that the value of `tokenizer` breaks."""
    if value is None:
        return
    options = value if isinstance(value, Mapping) else {"kind": value}
    kind = options.get("kind")
    if kind not in TOKENIZER_KINDS:
        hint = did_you_mean(str(kind), TOKENIZER_KINDS)
        yield BrokenRule("tokenizer", f"unknown kind of tokenizer {kind!r}: {hint}")
        return
    wanted = TOKENIZER_KINDS[str(kind)]
    for key in options:
        if key not in ("kind", *wanted):
            hint = did_you_mean(str(key), ["kind", *wanted])
            yield BrokenRule("tokenizer", f"a tokenizer of kind {kind} takes no '{key}': {hint}")
    vocabulary = options.get("vocabulary", DEFAULT_VOCABULARY)
    if not isinstance(vocabulary, int) or isinstance(vocabulary, bool) or vocabulary < SMALLEST_VOCABULARY:
        text = f"the vocabulary of a tokenizer must be a whole number from {SMALLEST_VOCABULARY} on, not {vocabulary!r}"
        yield BrokenRule("tokenizer", text)
    if "path" in wanted and not (isinstance(options.get("path"), str) and options["path"]):
        yield BrokenRule("tokenizer", "a tokenizer of kind hugging_face needs 'path', a folder with tokenizer.json")
