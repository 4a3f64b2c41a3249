"""The limit of the device that a study is run on.

In: a plan whose study leaves its memory to the device, or says it. Out: the plan with that limit among the
constraints of its space, and what was found in its resolved form and in the environment of the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nas.config import StudyConfig, checkpoints
from nas.measure.device_memory import device_memory_bytes
from nas.records import Environment
from nas.study.plan import Plan
from nas.units import format_bytes

# Where a resolved study keeps the bytes that its device was found to have for one candidate, when it was run last.
FOUND = "device_memory_bytes"


def on_device(plan: Plan, config: StudyConfig, workers: int) -> Plan:
    """The plan within what its device has; as it is where the study says how much, or nothing of it.

    Args:
        plan: of the study.
        config: of the study.
        workers: processes of this machine, which share its device; 0 is one.

    Raises:
        InputError: the study's reserve leaves nothing of the device.
    """
    if config.device is None or config.device.bytes is not None:
        return plan
    found = device_memory_bytes(dict(plan.trainer)) // max(workers, 1)
    rule = config.device.constraint(
        config.budget.tokens_per_step, found, checkpointing=checkpoints(dict(config.trainer))
    )
    space = replace(plan.space, constraints=(*plan.space.constraints, rule))
    return replace(plan, space=space, resolved={**plan.resolved, FOUND: found})


def with_memory(environment: Environment, resolved: Mapping[str, Any]) -> Environment:
    """The environment of a run, with the memory that its resolved study found."""
    if FOUND not in resolved:
        return environment
    return replace(environment, device=f"{environment.device}, {format_bytes(float(resolved[FOUND]))} for a candidate")
