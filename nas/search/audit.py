"""The audit of early stopping: how often a candidate was stopped that belongs on the front.

In: curves. Out: false-stop rates, overall and by group. A random share of the candidates, drawn
from the study's seed and the candidate's key, is exempt and runs to the end; of those that the
rule would have paused, the share that is on the front estimates how often it is wrong. Where that
exceeds `TOLERATED` the rule stops nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.pareto import non_dominated
from nas.search.rungs import TOLERATED, Curve

OVERALL = "overall"
THIRDS = ("low", "middle", "high")


@dataclass(frozen=True, kw_only=True)
class FalseStops:
    """The audit of one group of candidates.

    Attributes:
        group: "overall", or which candidates.
        audited: exempt candidates that the rule would have paused and that were trained to the end.
        wrong: of these, the ones on the front.
    """

    group: str
    audited: int
    wrong: int

    @property
    def rate(self) -> float | None:
        """The share of stops that were wrong, or None where none was audited."""
        return self.wrong / self.audited if self.audited else None

    @property
    def is_too_high(self) -> bool:
        """Whether the rule stops nobody here."""
        return self.wrong > TOLERATED * self.audited


def is_exempt(seed: int, key: str, share: float) -> bool:
    """Whether a candidate is trained to the end whatever the rule says; the same in every run.

    Args:
        seed: of the study.
        key: of the candidate.
        share: of all candidates that are exempt.
    """
    digest = hashlib.sha256(f"audit/{seed}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2.0**64


def false_stops(curves: Sequence[Curve]) -> list[FalseStops]:
    """The audit overall, which comes first, and of each group of which any candidate was audited."""
    audited = [curve for curve in curves if curve.audited and curve.state == "complete"]
    on_front = front_numbers(curves)
    ends = thirds(curves)
    counts: dict[str, list[bool]] = {OVERALL: []}
    for curve in audited:
        for group in (OVERALL, *groups(curve, ends)):
            counts.setdefault(group, []).append(curve.number in on_front)
    found = [FalseStops(group=group, audited=len(wrong), wrong=sum(wrong)) for group, wrong in counts.items()]
    return found[:1] + sorted(found[1:], key=lambda one: one.group)


def unreliable(candidate: Curve, audits: Sequence[FalseStops], ends: Thirds) -> FalseStops | None:
    """The first of a candidate's groups in which the rule stops nobody, if there is one.

    Args:
        candidate: that the rule would pause.
        audits: of all groups.
        ends: of the thirds of all candidates.
    """
    own = (OVERALL, *groups(candidate, ends))
    return next((one for one in audits if one.is_too_high and one.group in own), None)


def front_numbers(curves: Sequence[Curve]) -> set[int]:
    """Numbers of the complete trials that no other complete one dominates."""
    complete = [curve for curve in curves if curve.state == "complete" and curve.scores and not curve.replicate]
    if not complete:
        return set()
    kept = non_dominated([(*curve.known, *curve.scores[-1]) for curve in complete])
    return {curve.number for curve, is_kept in zip(complete, kept, strict=True) if is_kept}


@dataclass(frozen=True)
class Thirds:
    """The largest context and learning rate of the lower and of the middle third of all candidates."""

    context: tuple[float, float] | None
    learning_rate: tuple[float, float] | None


def thirds(curves: Sequence[Curve]) -> Thirds:
    """Where the thirds of contexts and of learning rates end."""
    curves = [curve for curve in curves if not curve.replicate]
    rates = [curve.learning_rate for curve in curves if curve.learning_rate is not None]
    return Thirds(_ends([curve.context for curve in curves]), _ends(rates))


def groups(curve: Curve, ends: Thirds) -> list[str]:
    """The groups that a candidate belongs to: each of its mixers, a third of contexts, one of learning rates."""
    found = [f"mixer {mixer}" for mixer in sorted(set(curve.mixers))]
    if ends.context is not None:
        found.append(f"context {_third(curve.context, ends.context)}")
    if ends.learning_rate is not None and curve.learning_rate is not None:
        found.append(f"learning rate {_third(curve.learning_rate, ends.learning_rate)}")
    return found


def _ends(values: Sequence[float]) -> tuple[float, float] | None:
    if not values:
        return None
    # Values of candidates themselves, so that a group is named by numbers that occur.
    low, high = np.quantile(values, [1 / 3, 2 / 3], method="lower")
    return float(low), float(high)


def _third(value: float, ends: tuple[float, float]) -> str:
    return THIRDS[sum(value > end for end in ends)]
