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
from nas.specs.tasks.classification import CLASS_FORMS, TOO_LONG, Classification
from nas.specs.tasks.data import DATA_PLACES
from nas.specs.tasks.forms import PAIR_FORMS
from nas.specs.tasks.language_modeling import (
    LONGEST_SPAN,
    NATURAL_OBJECTIVES,
    TEXT_OBJECTIVES,
    LanguageModeling,
    TextObjective,
    shortest_context,
)
from nas.specs.tasks.listops import LISTOPS_OPERATORS, SHORTEST_LIST, ListOps
from nas.specs.tasks.mad import MAD_KINDS, Mad, mad_key_kinds
from nas.specs.tasks.pairs import SHORTEST_PAIR, QuestionAnswering, TextToText, Translation
from nas.specs.tasks.recall import FILLERS, RECALL_VARIANTS, Recall, RecallSetting, recall_settings
from nas.specs.tasks.ruler import FREQUENT_WORDS, RULER_KINDS, RULER_MARKS, Ruler, ruler_kinds, token_ranges

__all__ = [
    "CLASS_FORMS",
    "CURVE_KEYS",
    "DATA_PLACES",
    "EFFECTIVE_CONTEXT",
    "EFFECTIVE_SHARE",
    "FILLERS",
    "FREQUENT_WORDS",
    "LISTOPS_OPERATORS",
    "LONGEST_SPAN",
    "MAD_KINDS",
    "NATURAL_OBJECTIVES",
    "PAIR_FORMS",
    "RECALL_VARIANTS",
    "RULER_KINDS",
    "RULER_MARKS",
    "SHORTEST_LIST",
    "SHORTEST_PAIR",
    "TEXT_OBJECTIVES",
    "TOO_LONG",
    "Classification",
    "Direction",
    "LanguageModeling",
    "ListOps",
    "Mad",
    "MetricSpec",
    "QuestionAnswering",
    "Recall",
    "RecallSetting",
    "Ruler",
    "TaskShape",
    "TaskSpec",
    "TextObjective",
    "TextToText",
    "Translation",
    "mad_key_kinds",
    "recall_settings",
    "ruler_kinds",
    "shortest_context",
    "token_ranges",
]
