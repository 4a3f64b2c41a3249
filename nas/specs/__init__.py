"""Torch-free descriptions of mixers, MLPs, families and tasks, looked up by name.

In: a name. Out: the one shared instance of its specification.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from nas import catalog
from nas.errors import InputError
from nas.specs.base import FamilySpec, MixerSpec, MLPSpec
from nas.specs.tasks import TaskSpec

__all__ = ["family_spec", "mixer_spec", "mlp_spec", "task_spec"]

_Spec = TypeVar("_Spec")


@cache
def mixer_spec(name: str) -> MixerSpec:
    """The specification of a mixer of catalog.MIXERS, or of the user's own "module:Class"."""
    return _instance("mixer", name, MixerSpec)


@cache
def mlp_spec(name: str) -> MLPSpec:
    """The specification of an MLP of catalog.MLPS, or of the user's own "module:Class"."""
    return _instance("mlp", name, MLPSpec)


@cache
def family_spec(name: str) -> FamilySpec:
    """The specification of a family of catalog.FAMILIES, or of the user's own "module:Class"."""
    return _instance("family", name, FamilySpec)


@cache
def task_spec(name: str) -> TaskSpec:
    """The specification of a task of catalog.TASKS, or of the user's own "module:Class"."""
    return _instance("task", name, TaskSpec)


def _instance(kind: str, name: str, base: type[_Spec]) -> _Spec:
    found: Any = catalog.load(kind, name)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(f"{kind} '{name}' must name a class derived from nas.specs.base.{base.__name__}")
    return found()
