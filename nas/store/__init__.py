"""The store of studies: tables, migrations and the only database sessions.

In: what a study's driver learns. Out: frozen entries and pandas frames.
"""

from __future__ import annotations

from nas.store.engine import normalize_url
from nas.store.entries import Correction, MemoryFigure, Role, State, StoredObjective, StoredStudy, StoredTrial
from nas.store.store import Store

__all__ = [
    "Correction",
    "MemoryFigure",
    "Role",
    "State",
    "Store",
    "StoredObjective",
    "StoredStudy",
    "StoredTrial",
    "normalize_url",
]
