"""A bundle: one folder with everything that a trained network needs to run elsewhere.

In: an architecture, its weights, its tokenizer and what was measured. Out: a folder, whole or not
at all; and from the folder the same network, to the bit. No study and no store is needed to load it.

    model.safetensors    the weights in float32; a tied head is the embedding and is not repeated
    architecture.json    the format's version, the network, and what its labels are or how it finds spans
    tokenizer.json       only where the tokens stand for text
    metrics.json         what was measured, and on what
    README.md            the model card; may be edited, nothing is read from it
    checksums.json       SHA-256 of each of the files above
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from nas.cost.estimate import bound
from nas.errors import CheckpointError, InputError, did_you_mean
from nas.export import text as language
from nas.export.answers import answer_in
from nas.export.folder import (
    ARCHITECTURE,
    CARD,
    FORMAT_VERSION,
    METRICS,
    TOKENIZER,
    WEIGHTS,
    parsed,
    pretty,
    read_verified,
    write_whole,
)
from nas.export.prompts import writes_targets
from nas.files import refuse_taken
from nas.models.base import Model
from nas.models.build import build
from nas.models.decoder import Decoder
from nas.space.architecture import Architecture
from nas.tasks.base import Labels, Spans
from nas.tasks.tokenizers import Tokenizer, tokenizer_from_json

DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained network, ready to use.

    Attributes:
        model: in evaluation mode.
        architecture: of the model, bound to its task.
        tokenizer: text to tokens and back; None where the tokens stand for no text.
        metrics: what metrics.json says.
        labels: what a classifier's outputs stand for; None for every other network.
        spans: how a head over spans finds them; None for every other head.
    """

    model: nn.Module
    architecture: Architecture
    tokenizer: Tokenizer | None
    metrics: Mapping[str, Any]
    labels: Labels | None = None
    spans: Spans | None = None

    def generate_text(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> Iterator[str]:
        """Continues a prompt, which counts as the beginning of a document.

        It ends after `max_new_tokens`, where max_context is full, or before the first stop string.

        Args:
            prompt: may be empty.
            max_new_tokens: at most so many are generated.
            temperature: divides the logits; 0 takes the most likely token.
            top_k: keep the k most likely tokens only.
            top_p: keep the fewest most likely tokens that together have this probability.
            seed: of the sampling; the global random state is used where none is given.
            stop: texts that end the continuation and are no part of it.

        Returns:
            Pieces of text as they come, each of whole characters; bytes that form no UTF-8 are U+FFFD.

        Raises:
            InputError: at the call, when the bundle speaks no text or an argument breaks its rule.
        """
        return language.continue_text(
            *self._generator(),
            prompt,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            stop=stop,
        )

    def bits_per_byte(self, text: str) -> float:
        """Negative log2 likelihood of a text, read as a document of its own, per byte of its UTF-8.

        Every byte is scored once, with half of max_context or more before it where there is so much.

        Raises:
            InputError: the bundle speaks no text, or the text is empty or no valid Unicode.
        """
        model, tokenizer = self._language_model()
        return language.bits_per_byte(model, tokenizer, text)

    @property
    def writes_targets(self) -> bool:
        """Whether it was trained to write the target of a source: a translation, an answer."""
        return self.spans is None and self.tokenizer is not None and writes_targets(self.tokenizer)

    def write(self, source: str, question: str = "") -> str:
        """The likeliest target of a source, token by token: its translation, or the answer to a question about it.

        Args:
            source: is read as in training; it ends where max_context is full.
            question: about the source, where it was trained on questions.

        Raises:
            InputError: the bundle was trained on no targets, or source and question are too long.
        """
        model, tokenizer = self._generator()
        if not self.writes_targets:
            raise InputError("this bundle continues texts, generate_text does that: it was trained on no targets")
        pieces = language.continue_text(
            model,
            tokenizer,
            source,
            max_new_tokens=self.architecture.max_context,
            temperature=0,
            top_k=None,
            top_p=None,
            seed=None,
            stop=(),
            question=question,
        )
        return "".join(pieces)

    def answer(self, context: str, question: str) -> str:
        """The span of a context that answers a question, in the context's own letters; "" where none does.

        Raises:
            InputError: the bundle points at no spans, or either text is empty or no valid Unicode.
        """
        if self.spans is None or self.tokenizer is None:
            raise InputError(
                f"this bundle points at no answers: its family is '{self.architecture.family}' and its head "
                f"'{self.architecture.head}'"
            )
        assert isinstance(self.model, Model)
        return answer_in(self.model, self.tokenizer, self.spans, context, question)

    def classify(self, text: str) -> dict[str, float]:
        """The probability of each label, the likeliest first; of a text that may bear several, of each by itself.

        Raises:
            InputError: the bundle is no classifier of texts, or the text is empty or no valid Unicode.
        """
        if self.labels is None or self.tokenizer is None:
            raise InputError(
                f"this bundle classifies no texts: its family is '{self.architecture.family}' and its head "
                f"'{self.architecture.head}'"
            )
        assert isinstance(self.model, Model)
        return language.classify(self.model, self.tokenizer, self.labels, text, self.architecture)

    def _generator(self) -> tuple[Model, Tokenizer]:
        model, tokenizer = self.model, self.tokenizer
        if tokenizer is None:
            raise InputError(
                "this bundle is no language model: its tokens stand for no text; "
                "call its network with tokens instead, bundle.model(tokens)"
            )
        if self.labels is not None and isinstance(model, Model) and model.generates:
            raise InputError("this bundle says labels and continues no texts: classify tells their probabilities")
        if not isinstance(model, Model) or not model.generates:
            raise InputError(
                f"this bundle does not generate: its family is '{self.architecture.family}' and its head "
                f"'{self.architecture.head}'; call its network with tokens instead, bundle.model(tokens)"
            )
        return model, tokenizer

    def _language_model(self) -> tuple[Decoder, Tokenizer]:
        model, tokenizer = self._generator()
        if not isinstance(model, Decoder):
            raise InputError(f"only decoders give a text bits per byte; this is a '{self.architecture.family}'")
        return model, tokenizer


def write_bundle(
    folder: str | Path,
    *,
    architecture: Architecture,
    weights: Mapping[str, Tensor],
    tokenizer: Tokenizer | None,
    metrics: Mapping[str, Any],
    card: str,
    labels: Labels | None = None,
    spans: Spans | None = None,
) -> Path:
    """Writes a bundle, whole or not at all.

    Args:
        folder: new or empty; its parents are made where they are missing.
        architecture: one that no task has bound counts as a byte-level language model.
        weights: by parameter name; stored in float32, as they were trained.
        tokenizer: None where the tokens stand for no text.
        metrics: plain values, every number of them finite.
        card: the model card, Markdown.
        labels: what a classifier's outputs stand for.
        spans: how a head over spans finds them.

    Returns:
        The folder.

    Raises:
        CheckpointError: the folder is not empty or cannot be written, or the parts do not fit
            each other; nothing is written.
    """
    place = Path(folder).resolve()
    refuse_taken(Path(folder))
    architecture = bound(architecture)
    _fill(architecture, weights)
    if tokenizer is not None and tokenizer.vocabulary != architecture.vocabulary:
        raise CheckpointError(
            f"the tokenizer must have the architecture's vocabulary: {tokenizer.vocabulary} is not "
            f"{architecture.vocabulary}"
        )
    network: dict[str, Any] = {"format_version": FORMAT_VERSION, "architecture": architecture.to_mapping()}
    if labels is not None:
        network["labels"] = asdict(labels)
    if spans is not None:
        network["spans"] = asdict(spans)
    contents = {
        WEIGHTS: _weights_file(weights),
        ARCHITECTURE: pretty(network),
        METRICS: pretty(metrics),
        CARD: card.encode(),
    }
    if tokenizer is not None:
        contents[TOKENIZER] = tokenizer.to_json().encode()
    write_whole(place, contents)
    return Path(folder)


def load_bundle(folder: str | Path, *, dtype: str = "fp32", device: str | torch.device = "cpu") -> Bundle:
    """Reads a bundle; the global random state is not touched.

    Args:
        folder: that `write_bundle` wrote.
        dtype: of the weights: "fp32" as they are stored, or cast to "bf16", "fp16" or "fp64".
        device: where the model is put.

    Raises:
        CheckpointError: the folder or a file is missing or damaged, or of a newer format.
        InputError: there is no such dtype or device.
    """
    folder = Path(folder)
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype '{dtype}': {did_you_mean(dtype, DTYPES)}")
    contents = read_verified(folder)
    try:
        network = parsed(folder, ARCHITECTURE, contents[ARCHITECTURE])
        architecture = Architecture.from_mapping(network["architecture"])
        words = network.get("labels")
        labels = Labels(tuple(words["names"]), words["several"], words["too_long"]) if words else None
        found = network.get("spans")
        spans = Spans(found["most_tokens"], found["always_answered"], found["too_long"]) if found else None
        model = _fill(architecture, safetensors.torch.load(contents[WEIGHTS]))
        tokenizer = tokenizer_from_json(contents[TOKENIZER].decode()) if TOKENIZER in contents else None
    except (InputError, SafetensorError, KeyError) as error:
        raise CheckpointError(f"bundle '{folder}' cannot be used here: {error}") from error
    return Bundle(
        model=_moved(model, DTYPES[dtype], device).eval(),
        architecture=architecture,
        tokenizer=tokenizer,
        metrics=parsed(folder, METRICS, contents[METRICS]),
        labels=labels,
        spans=spans,
    )


def _fill(architecture: Architecture, weights: Mapping[str, Tensor]) -> nn.Module:
    """The network with these weights, each of its own and no others."""
    model = build(architecture, seed=0)
    expected = model.state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        if name not in weights:
            raise CheckpointError(f"the weights must be those of the architecture: '{name}' is missing")
        if name not in expected:
            raise CheckpointError(
                f"the weights must be those of the architecture: it has no '{name}', {did_you_mean(name, expected)}"
            )
        found, wanted = tuple(weights[name].shape), tuple(expected[name].shape)
        if found != wanted:
            raise CheckpointError(f"the weights must be those of the architecture: '{name}' is {found}, not {wanted}")
    model.load_state_dict(dict(weights))
    return model


def _weights_file(weights: Mapping[str, Tensor]) -> bytes:
    tensors = {name: tensor.detach().to("cpu", torch.float32).contiguous().clone() for name, tensor in weights.items()}
    return bytes(safetensors.torch.save(tensors, {"format": "pt"}))


def _moved(model: nn.Module, dtype: torch.dtype, device: str | torch.device) -> nn.Module:
    try:
        return model.to(device=device, dtype=dtype)
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).splitlines()[0]
        raise InputError(f"device '{device}' cannot be used, 'cpu' can: {first_line}") from error
