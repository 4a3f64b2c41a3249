"""How fast training is, from whatever the user says that it be known from.

In: the options of `nas estimate`. Out: FLOPs a second and what they are based on, or nothing: no number is invented.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.config import StudyConfig
from nas.errors import InputError
from nas.space.architecture import Architecture
from nas.units import parse_speed

if TYPE_CHECKING:
    from nas.store import Store, StoredStudy, StoredTrial
    from nas.study.plan import Plan


@dataclass(frozen=True)
class Speed:
    """How fast training is.

    Attributes:
        flops_per_second: by the formulas.
        basis: what that is known from, in words.
    """

    flops_per_second: float
    basis: str


def given_speed(arguments: argparse.Namespace, name: str) -> Speed | None:
    """The speed that is stated, or known from a store; None where neither says one.

    Args:
        arguments: with `store` and `speed`.
        name: of the study.

    Raises:
        InputError: no speed, or a store that cannot be opened.
    """
    if arguments.store is not None:
        return _of_store(arguments.store, name)
    if arguments.speed is None:
        return None
    try:
        return Speed(parse_speed(arguments.speed), "as --speed says; scoring comes on top")
    except InputError as error:
        raise InputError(f"--speed: {error}") from None


def measured_speed(config: StudyConfig, plan: Plan, network: Architecture) -> Speed:
    """The speed of a few training steps of a network on this machine.

    Args:
        config: of the study.
        plan: of the study.
        network: bound by the plan.
    """
    from nas.measure.speed import TIMED_STEPS, training_speed

    found = training_speed(
        network,
        plan.task_of(network),
        tokens_per_step=config.budget.tokens_per_step,
        seed=config.seed,
        trainer=config.trainer,
    )
    basis = f"{TIMED_STEPS} training steps of the median draw on {found.device}; scoring comes on top"
    return Speed(found.flops_per_second, basis)


def _of_store(url: str, name: str) -> Speed | None:
    """The mean of the finished trials of the study in a store, else of all studies there."""
    from nas.store import Store

    with Store.open(url) as store:
        studies = store.studies()
        own = [study for study in studies if study.name == name and _finished(store, study)]
        chosen = own or [study for study in studies if _finished(store, study)]
        trials = [trial for study in chosen for trial in _finished(store, study)]
        if not trials:
            return None
        devices = {str(store.environments(study)["device"].iloc[-1]) for study in chosen}
    of = f"of study '{name}'" if own else f"of other studies ({', '.join(study.name for study in chosen)})"
    words = f"{len(trials)} finished trial{'s' * (len(trials) > 1)} {of} on {'; '.join(sorted(devices))}"
    speed = sum(trial.flops for trial in trials) / sum(trial.seconds for trial in trials)
    return Speed(speed, f"{words}, scoring included")


def _finished(store: Store, study: StoredStudy) -> list[StoredTrial]:
    # A user's own evaluator counts no FLOPs.
    return [trial for trial in store.trials(study, states=["complete"]) if trial.flops > 0 and trial.seconds > 0]
