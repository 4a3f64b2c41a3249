"""The learning rate and the averaging of weights, as pure functions of the step.

Warm-up, constant, cool-down in the last rung (Hu et al. 2024, MiniCPM; Hägele et al. 2024): a
candidate that is scored at an early rung and goes on loses nothing, for the schedule does not
depend on where it was stopped. Rungs are scored on averaged weights, which stand for the
cool-down that an early rung has not had.
"""

from __future__ import annotations

from nas.records import Schedule

WARM_UP_SHARE = 0.05
AVERAGING_SHARE = 0.04


def learning_rate_factor(step: int, schedule: Schedule) -> float:
    """The share of the peak learning rate that a step uses, in (0, 1].

    Args:
        step: from 0.
        schedule: of the whole budget.
    """
    total = schedule.total_steps
    warm_up = max(1, round(WARM_UP_SHARE * total))
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    cool_down_from = schedule.rung_steps[-2] if len(schedule.rung_steps) > 1 else total // 2
    if step < cool_down_from:
        return 1.0
    return (total - step) / (total - cool_down_from + 1)


def averaging_weight(step: int, schedule: Schedule) -> float:
    """How far the averaged weights move towards the current ones after a step, in (0, 1].

    A plain mean of the first steps that turns into an exponential one whose horizon is a fixed
    share of the budget, so that the average is never dominated by the initial weights.
    """
    horizon = max(1.0, AVERAGING_SHARE * schedule.total_steps)
    return 1.0 / min(step + 1.0, horizon)
