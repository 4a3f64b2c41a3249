"""nas: neural architecture search for context-efficient sequence models.

    from nas import Study
    study = Study.load("studies/quickstart.yaml", store="sqlite:///nas.db")
    study.run(trials=20)
    study.front()

Names are loaded when they are first used: importing nas imports neither torch nor Optuna.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.cost.estimate import Estimate, estimate
    from nas.errors import NasError
    from nas.export.bundle import Bundle, load_bundle
    from nas.models.beam import beam_search
    from nas.models.build import build
    from nas.models.generate import generate
    from nas.objectives import Objective
    from nas.space.architecture import Architecture
    from nas.space.space import Space
    from nas.store import Store
    from nas.study.study import Study
    from nas.tasks.inputs import Inputs

__all__ = [
    "Architecture",
    "Bundle",
    "Estimate",
    "Inputs",
    "NasError",
    "Objective",
    "Space",
    "Store",
    "Study",
    "beam_search",
    "build",
    "estimate",
    "generate",
    "load_bundle",
]

_HOMES = {
    "Architecture": "nas.space.architecture",
    "Bundle": "nas.export.bundle",
    "Estimate": "nas.cost.estimate",
    "Inputs": "nas.tasks.inputs",
    "NasError": "nas.errors",
    "Objective": "nas.objectives",
    "Space": "nas.space.space",
    "Store": "nas.store",
    "Study": "nas.study.study",
    "beam_search": "nas.models.beam",
    "build": "nas.models.build",
    "estimate": "nas.cost.estimate",
    "generate": "nas.models.generate",
    "load_bundle": "nas.export.bundle",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nas' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
