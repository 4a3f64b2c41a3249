"""Specifications of the tasks; one module for each, base.py for what they share."""

from __future__ import annotations

from nas.specs.tasks.base import (
    CURVE_KEYS,
    EFFECTIVE_CONTEXT,
    EFFECTIVE_SHARE,
    Direction,
    MetricSpec,
    TaskShape,
    TaskSpec,
)
from nas.specs.tasks.language_modeling import (
    LONGEST_SPAN,
    NATURAL_OBJECTIVES,
    TEXT_OBJECTIVES,
    LanguageModeling,
    TextObjective,
    shortest_context,
)
from nas.specs.tasks.recall import FILLERS, Recall

__all__ = [
    "CURVE_KEYS",
    "EFFECTIVE_CONTEXT",
    "EFFECTIVE_SHARE",
    "FILLERS",
    "LONGEST_SPAN",
    "NATURAL_OBJECTIVES",
    "TEXT_OBJECTIVES",
    "Direction",
    "LanguageModeling",
    "MetricSpec",
    "Recall",
    "TaskShape",
    "TaskSpec",
    "TextObjective",
    "shortest_context",
]
