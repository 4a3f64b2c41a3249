"""docs/memory.md: how memory is predicted, and how far the predictions are off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from _memory_device import HeldRows
from _memory_draws import Compared

LIMITS = {"attention": (0.01, 0.03), "all mixers": (0.02, 0.05)}
"""Median and worst error that are allowed, by kind of network."""


def kinds_of(rows: Sequence[Compared]) -> list[tuple[str, list[Compared]]]:
    """Networks of softmax attention alone, and all of them."""
    return [("attention", [row for row in rows if row.is_attention]), ("all mixers", list(rows))]


def page(rows: Sequence[Compared], devices: Mapping[str, HeldRows | None]) -> str:
    """The whole page."""
    raise NotImplementedError
