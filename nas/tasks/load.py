"""A task from its reference, read once per process.

In: a `TaskReference`. Out: the task, with its data read and checked against the version that a
study was made with.
"""

from __future__ import annotations

import json
from functools import lru_cache

from nas import catalog
from nas.errors import DataError, InputError
from nas.records import TaskReference
from nas.specs import task_spec
from nas.tasks.base import Task


def load_task(reference: TaskReference) -> Task:
    """The task of a reference; a warm process reads its data once, and again when its files change.

    Raises:
        DataError: an option breaks a rule, the data cannot be used, or it is not what it was when
            the study was made.
        MissingExtraError: the data comes with a package that is not installed.
    """
    spec = task_spec(reference.name)
    for broken in spec.broken_rules(dict(reference.options)):
        raise DataError(broken.text)
    options = spec.complete(dict(reference.options))
    kind = _implementation(spec.implementation_for(options))
    task = _load(kind, json.dumps(options, sort_keys=True), kind.source_stamp(options))
    if reference.data_version and reference.data_version != task.data_version:
        raise DataError(
            f"the data of task '{reference.name}' must stay as it was when the study was made: "
            f"version {reference.data_version} then, {task.data_version} now; restore it or start another study"
        )
    return task


@lru_cache(maxsize=4)
def _load(kind: type[Task], options: str, stamp: tuple[object, ...]) -> Task:
    return kind(json.loads(options))


def _implementation(target: str) -> type[Task]:
    found = catalog.load_target(target, what="task")
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise InputError(f"task '{target}' must name a class derived from nas.tasks.base.Task")
    return found
