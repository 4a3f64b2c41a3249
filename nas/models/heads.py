"""Heads: what a model says about its last features.

In: features, and the token embedding. Out: logits over the vocabulary or over a task's labels,
or how well a span begins and ends at each token.

    causal_lm, infilling_lm, seq2seq_lm     linear, tied to the embedding or not
    masked_lm                               dense → gelu → norm → the same, with a bias (Devlin et al. 2019)
    sequence_classification                 after a decoder linear, as Llama's; after an encoder
                                            dense → gelu → norm → linear with bias (Warner et al. 2024)
    token_classification                    linear with bias
    span                                    linear with bias, to the two ends of a span (Devlin et al. 2019)
    autoencoder                             one feature vector of a sequence speaks of all its tokens: position by
                                            position, its sum with a sine wave of the position (Vaswani et al. 2017)
                                            goes through twice dense → gelu → norm, then linear with a bias, tied or
                                            not (after Poli et al. 2024, whose decoder has as many maps)

Shapes: B batch, L length, D width, V outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.models.blocks import make_norm
from nas.space.architecture import Architecture
from nas.specs.families import HEAD_TRANSFORMS, VOCABULARY_HEADS, head_outputs


class Transform(nn.Module):
    """dense → gelu → norm, (…, D) to (…, D)."""

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width, bias=False)
        self.norm = make_norm(norm, width)

    def forward(self, features: Tensor) -> Tensor:
        """(…, D) to (…, D)."""
        return self.norm(functional.gelu(self.dense(features)))  # type: ignore[no-any-return]


class Head(nn.Module):
    """A linear map to V outputs, perhaps after transforms.

    Attributes:
        transform: what comes first, or None; several stand in a row.
        weight: (V, D), or None where the token embedding's is used.
        bias: (V,), zeros at first, or None.
    """

    def __init__(self, architecture: Architecture, *, looks_ahead: bool) -> None:
        super().__init__()
        width, kind = architecture.width, architecture.head
        assert kind is not None, "only a bound architecture can be built"
        speaks_tokens = kind in VOCABULARY_HEADS
        assert architecture.vocabulary is not None
        outputs = head_outputs(kind, vocabulary=architecture.vocabulary, labels=architecture.labels)
        is_tied = speaks_tokens and architecture.tied_embeddings
        one = 1 if kind == "sequence_classification" and looks_ahead else 0
        transforms = [Transform(width, architecture.norm) for _ in range(HEAD_TRANSFORMS.get(kind, one))]
        has_bias = bool(transforms) or kind in ("token_classification", "span")
        self.transform = nn.Sequential(*transforms) if len(transforms) > 1 else next(iter(transforms), None)
        self.weight = None if is_tied else nn.Parameter(torch.empty(outputs, width))
        self.bias = nn.Parameter(torch.zeros(outputs)) if has_bias else None

    def forward(self, features: Tensor, embedding_VD: Tensor) -> Tensor:
        """Features, (…, D), to logits, (…, V)."""
        if self.transform is not None:
            features = self.transform(features)
        return functional.linear(features, embedding_VD if self.weight is None else self.weight, self.bias)


def at_each_position(x_BD: Tensor, length: int) -> Tensor:
    """One feature vector of a sequence, with a sine wave of each position added to it, (B, L, D).

    Half of the features hold sines, half cosines, their wavelengths from 2π to 2π · 10,000 tokens (Vaswani
    et al. 2017): no weights, so any length can be spoken of.
    """
    width = x_BD.shape[1]
    places_L1 = torch.arange(length, device=x_BD.device, dtype=torch.float32)[:, None]
    waves = torch.arange((width + 1) // 2, device=x_BD.device, dtype=torch.float32)
    angles = places_L1 * 10_000.0 ** (-2 * waves / width)
    wave_LD = torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]
    return x_BD[:, None] + wave_LD.to(x_BD.dtype)


def last_token(x_BLD: Tensor, lengths_B: Tensor | None) -> Tensor:
    """The features of each sequence's last token before the padding, (B, D)."""
    if lengths_B is None:
        return x_BLD[:, -1]
    return x_BLD[torch.arange(x_BLD.shape[0], device=x_BLD.device), lengths_B - 1]


def mean_token(x_BLD: Tensor, lengths_B: Tensor | None) -> Tensor:
    """The mean of each sequence's features before the padding, (B, D)."""
    if lengths_B is None:
        return x_BLD.mean(1)
    beyond_BL = torch.arange(x_BLD.shape[1], device=x_BLD.device) >= lengths_B[:, None]
    # In at least float32: a sum of many bfloat16 numbers rounds at every step.
    exact = torch.promote_types(x_BLD.dtype, torch.float32)
    sums_BD = x_BLD.masked_fill(beyond_BL[..., None], 0).sum(1, dtype=exact)
    return (sums_BD / lengths_B[:, None]).to(x_BLD.dtype)
