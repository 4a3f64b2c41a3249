"""How a text and what is said of it are read by each family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PAIR_FORMS: Final[Mapping[str, tuple[str, str]]] = {
    "causal": ("decoder", "causal_lm"),
    "prefix": ("prefix_lm", "infilling_lm"),
    "seq2seq": ("encoder_decoder", "seq2seq_lm"),
}
"""How a source and a target are read: the family, and its head."""

NATURAL_FORMS: Final[Mapping[str, str]] = {family: form for form, (family, _) in PAIR_FORMS.items()}
"""The form of a pair that is natural to a family."""
