"""Specifications of the model families."""

from __future__ import annotations

from typing import ClassVar

from nas.specs.base import FamilySpec


class Decoder(FamilySpec):
    """GPT-like: causal layers between an embedding and a vocabulary head."""

    implementation: ClassVar[str] = "nas.models.decoder:Decoder"
    heads: ClassVar[frozenset[str]] = frozenset({"causal_lm"})
    decodes: ClassVar[bool] = True

    def parameters(self, *, width: int, vocabulary: int, tied_embeddings: bool) -> int:
        final_norm = width
        return vocabulary * width * (1 if tied_embeddings else 2) + final_norm
