"""Specifications of the model families: how layers become a model, and what that takes.

In: an outline of a model. Out: the exact number of weights outside its layers.

A model is one stack of layers, or two (an encoder and a decoder). A stack ends in a norm, and may
have a norm on its embedding, a table of learned positions and the heads' bucketed biases. The
token embedding is one for all stacks; a head turns the last features into the model's output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nas.specs.base import FamilySpec

RELATIVE_BUCKETS = 32
"""Distances that T5's biases tell apart (Raffel et al. 2020)."""

VOCABULARY_HEADS = frozenset({"causal_lm", "masked_lm", "infilling_lm", "seq2seq_lm", "autoencoder"})
"""Heads whose output is one number for each token of the vocabulary."""

HEAD_TRANSFORMS = {"masked_lm": 1, "autoencoder": 2}
"""Dense maps with a norm that stand before the output of a head over the vocabulary."""

SPAN_OUTPUTS = 2
"""What a head over spans says of each token: how well one begins there, and how well one ends before it."""


def head_outputs(head: str, *, vocabulary: int, labels: int | None) -> int:
    """Numbers that a head gives for whatever it speaks about: tokens, labels, or the two ends of a span.

    Args:
        head: a name of some family's `heads`.
        vocabulary: token kinds.
        labels: of a classification head; plays no part in the others.
    """
    if head in VOCABULARY_HEADS:
        return vocabulary
    if head == "span":
        return SPAN_OUTPUTS
    assert labels is not None, f"head '{head}' needs labels"
    return labels


@dataclass(frozen=True, kw_only=True)
class ModelOutline:
    """What a family must know of a bound architecture to count the weights outside its layers.

    Attributes:
        width: features of the residual stream.
        vocabulary: token kinds.
        max_context: the longest context in tokens.
        tied_embeddings: whether a head over the vocabulary shares the embedding's weights.
        positions: a name of `nas.specs.base.POSITIONS`.
        norm: "rms" or "layer"; both have one weight for each feature.
        embedding_norm: whether a norm stands on the embedding. It is counted here; the first
            layer of each stack then has no norm before its mixer, which whoever counts the layers
            has to know.
        head: a name of the family's `heads`.
        labels: outputs of a classification head; None for the others.
        relative_heads: for each stack, the heads that its bucketed biases serve (0: none of its
            layers takes them); plays no part unless `positions` is "relative".
    """

    width: int
    vocabulary: int
    max_context: int
    tied_embeddings: bool
    positions: str
    norm: str = "rms"
    embedding_norm: bool = False
    head: str
    labels: int | None = None
    relative_heads: tuple[int, ...] = ()


class StackedFamily(FamilySpec):
    """What every family here shares: an embedding, stacks of layers, and a head.

    Attributes:
        looks_ahead: whether the layers of its (last) stack see a prefix, or all, in both directions.
        has_source: whether a second stack, an encoder, reads a source.
        position_tables: tables of a stack where positions are learned.
    """

    looks_ahead: ClassVar[bool] = False
    has_source: ClassVar[bool] = False
    position_tables: ClassVar[int] = 1

    def parameters(self, outline: ModelOutline) -> int:
        """Trainable elements outside the layers; exact."""
        stacks = 2 if self.has_source else 1
        norms = 2 if outline.embedding_norm else 1
        total = outline.vocabulary * outline.width + stacks * norms * outline.width
        if outline.positions == "learned":
            total += stacks * self.position_tables * outline.max_context * outline.width
        if outline.positions == "relative":
            total += RELATIVE_BUCKETS * sum(outline.relative_heads)
        return total + self.head_parameters(outline)

    def head_parameters(self, outline: ModelOutline) -> int:
        """Trainable elements of the head; shared weights are not counted again."""
        width = outline.width
        outputs = head_outputs(outline.head, vocabulary=outline.vocabulary, labels=outline.labels)
        if outline.head in VOCABULARY_HEADS:
            untied = 0 if outline.tied_embeddings else outputs * width
            # A dense map and its norm each, and with them a bias for each token.
            transforms = HEAD_TRANSFORMS.get(outline.head, 0)
            return untied + transforms * (width * width + width) + (outputs if transforms else 0)
        if outline.head in ("token_classification", "span"):
            return outputs * width + outputs
        if not self.looks_ahead:
            return outputs * width
        return width * width + width + outputs * width + outputs


class Decoder(StackedFamily):
    """GPT-like: causal layers between an embedding and a head."""

    implementation: ClassVar[str] = "nas.models.decoder:Decoder"
    heads: ClassVar[frozenset[str]] = frozenset(
        {"causal_lm", "autoencoder", "sequence_classification", "token_classification", "span"}
    )
    natural_head: ClassVar[str] = "causal_lm"
    decodes: ClassVar[bool] = True


class Encoder(StackedFamily):
    """BERT-like: every token sees the whole sequence; generates nothing."""

    implementation: ClassVar[str] = "nas.models.encoder:Encoder"
    heads: ClassVar[frozenset[str]] = frozenset(
        {"masked_lm", "autoencoder", "sequence_classification", "token_classification", "span"}
    )
    natural_head: ClassVar[str] = "masked_lm"
    decodes: ClassVar[bool] = False
    looks_ahead: ClassVar[bool] = True


class PrefixLM(StackedFamily):
    """GLM-like (Du et al. 2022): a prefix seen in both directions, then tokens one by one.

    A position is two numbers, the place in the text and the place inside a blank; where positions
    are learned, each has a table of its own.
    """

    implementation: ClassVar[str] = "nas.models.prefix_lm:PrefixLM"
    heads: ClassVar[frozenset[str]] = frozenset({"infilling_lm"})
    natural_head: ClassVar[str] = "infilling_lm"
    decodes: ClassVar[bool] = True
    looks_ahead: ClassVar[bool] = True
    position_tables: ClassVar[int] = 2


class EncoderDecoder(StackedFamily):
    """T5-like (Raffel et al. 2020): an encoder reads a source, a causal decoder attends to it."""

    implementation: ClassVar[str] = "nas.models.encoder_decoder:EncoderDecoder"
    heads: ClassVar[frozenset[str]] = frozenset({"seq2seq_lm"})
    natural_head: ClassVar[str] = "seq2seq_lm"
    decodes: ClassVar[bool] = True
    has_source: ClassVar[bool] = True
