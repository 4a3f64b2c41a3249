"""Early stopping with several objectives: who goes on at a rung, and why.

In: the curves so far and a candidate that has reached a rung. Out: a `Verdict`: go on or pause, in
words and with the numbers behind it. Pure functions, free of torch and Optuna.

A candidate goes on while it can still reach the front. It is compared, at the same rung, only with
those that need no more of anything known (memory): a rival beats it when it leads in all measured
objectives by more than the margin, and its newest scores dominate what the candidate has reached.
So what is on the front of the newest scores is never paused, and who learns fast because it is
small, or has a short context, beats nobody before the margin says that such leads last.

The margin is counted in standard deviations of the noise between replicates, and is the larger of
(a) what noise alone explains, and (b) the smallest lead of which, among the finished curves, at
most `TOLERATED` were lost by the end, with half a crossing added to those seen (Jeffreys's prior).
So nobody is paused before some ten pairs of finished curves show that leads last.

Successive halving (Jamieson and Talwalkar 2016; asynchronous: Li et al. 2020) keeps a share of each
rung; with several objectives and one of them known there is no one order to keep a share of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
CurveState = Literal["running", "paused", "complete", "failed"]

# The share of stops that may be wrong: of leads lost later, and of the audited false stops.
TOLERATED = 0.05
# Two scores differ by more than this many standard deviations by chance in 5 % of cases, 1.96 · √2.
NOISE_LEAD = 1.96 * math.sqrt(2.0)
# Without replicates the noise is taken as this share of the spread of the finished candidates' scores.
PRIOR_NOISE = 0.1
# Below so many degrees of freedom a standard deviation of replicates is not worth more than the prior.
LEAST_FREEDOM = 3


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What is known of one training; smaller is better in every number.

    Attributes:
        number: of its trial.
        key: of its candidate: replicates share it.
        known: the known objectives.
        scores: the measured objectives at each rung that it reached, the first rung first.
        state: "failed" ones are no rivals.
        audited: whether the rule would have paused it, and it went on as an audit.
        replicate: whether it repeats a candidate with another seed; it tells the noise and is no candidate of its own.
        mixers, context, learning_rate: by which false stops are counted.
    """

    number: int
    key: str
    known: tuple[float, ...]
    scores: tuple[tuple[float, ...], ...]
    state: CurveState
    audited: bool = False
    replicate: bool = False
    mixers: tuple[str, ...] = ()
    context: float = 0.0
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for row in (self.known, *self.scores) for value in row):
            raise ValueError(f"the curve of trial {self.number} holds a number that is not finite")


@dataclass(frozen=True, kw_only=True)
class Margin:
    """How large a lead at a rung must be to last.

    Attributes:
        lead: in standard deviations of the noise; None where too few finished curves tell.
        noise: standard deviation of each measured objective between replicates.
        pairs: finished pairs of which one led by as much, needing no more of anything known.
        crossed: of these, the ones in which the other was not dominated in the end.
        is_prior: whether the noise is assumed, for want of replicates.
    """

    lead: float | None
    noise: tuple[float, ...]
    pairs: int
    crossed: int
    is_prior: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the rule makes of a candidate at a rung.

    Attributes:
        can_reach: whether it can still reach the front.
        reason: in words, with the numbers.
        rival: number of the trial that leads by most, if any does.
        lead: of that rival, in standard deviations of the noise; None without a rival or a margin.
        margin: that the lead was held against.
    """

    can_reach: bool
    reason: str
    rival: int | None = None
    lead: float | None = None
    margin: Margin


def judge(
    candidate: Curve,
    curves: Sequence[Curve],
    *,
    rungs: int,
    caution: float = 1.0,
    margin: Margin | None = None,
) -> Verdict:
    """Whether a candidate can still reach the front.

    Args:
        candidate: with a score at one rung or more, but not at the last.
        curves: all of the study; the candidate's own is left out.
        rungs: of a whole training.
        caution: what the margin is multiplied by; above 1 fewer are paused.
        margin: what `margin_at` gives for this rung, where it is known already.
    """
    rung = len(candidate.scores) - 1
    assert 0 <= rung < rungs - 1
    margin = margin or margin_at(curves, rung, rungs=rungs, caution=caution)
    rivals = [curve for curve in curves if _is_rival(curve, candidate, rung)]
    place = f"rung {rung + 1} of {rungs}"
    if not rivals:
        return Verdict(can_reach=True, reason=f"{place}: on the front of the scores so far", margin=margin)
    if margin.lead is None:
        reason = f"{place}: {margin.pairs} finished pairs do not tell yet which leads last"
        return Verdict(can_reach=True, reason=reason, margin=margin)
    leads = [_lead(curve.scores[rung], candidate.scores[rung], margin.noise) for curve in rivals]
    best = max(range(len(rivals)), key=leads.__getitem__)
    lead, rival = leads[best], rivals[best].number
    beaten = lead > 0 and lead >= margin.lead
    noise = ", ".join(f"{value:.2g}" for value in margin.noise)
    reason = (
        f"{place}: trial {rival} needs no more and leads by {lead:.3g} × the {'assumed ' if margin.is_prior else ''}"
        f"noise ({noise}), {'at or beyond' if beaten else 'within'} the margin of {margin.lead:.3g} "
        f"({margin.crossed} of {margin.pairs} such leads were lost later)"
    )
    return Verdict(can_reach=not beaten, reason=reason, rival=rival, lead=lead, margin=margin)


def margin_at(curves: Sequence[Curve], rung: int, *, rungs: int, caution: float = 1.0) -> Margin:
    """How large a lead at a rung must be to last, from the finished curves.

    Args:
        curves: of the study; only complete ones count.
        rung: from 0, not the last.
        rungs: of a whole training.
        caution: what the margin is multiplied by.
    """
    finished = [curve for curve in curves if curve.state == "complete" and len(curve.scores) == rungs]
    replicated, finished = finished, [curve for curve in finished if not curve.replicate]
    if len(finished) < 2:
        return Margin(lead=None, noise=(), pairs=0, crossed=0, is_prior=True)
    noise, is_prior = noise_at(replicated, rung)
    early, late = (np.array([curve.scores[place] for curve in finished]) for place in (rung, rungs - 1))
    known = np.array([curve.known for curve in finished])
    # [p, c]: how p stands to c.
    lead = np.min([_in_noise(_gaps(early[:, at]), sigma) for at, sigma in enumerate(noise)], axis=0)
    needs_no_more = np.all(known[:, None] <= known[None, :], axis=-1)
    keys = np.array([curve.key for curve in finished])
    ahead = (lead > 0) & needs_no_more & (keys[:, None] != keys[None, :])
    whole = np.concatenate([known, late], axis=1)
    dominates = np.all(whole[:, None] <= whole[None, :], axis=-1) & np.any(whole[:, None] < whole[None, :], axis=-1)
    return _margin(lead[ahead], ~dominates[ahead], noise, is_prior, caution)


def noise_at(finished: Sequence[Curve], rung: int) -> tuple[tuple[float, ...], bool]:
    """The standard deviation of each measured objective between replicates at a rung.

    Returns:
        The deviations, and whether they are the prior: `PRIOR_NOISE` of the spread of the finished
        candidates' scores at this rung or a later one, whichever spread is largest (at the first
        rung all may still guess, and differ by noise alone).
    """
    groups: dict[str, list[tuple[float, ...]]] = {}
    for curve in finished:
        groups.setdefault(curve.key, []).append(curve.scores[rung])
    replicates = [np.array(rows) for rows in groups.values() if len(rows) > 1]
    freedom = sum(len(rows) - 1 for rows in replicates)
    if freedom >= LEAST_FREEDOM:
        squares = np.sum([((rows - rows.mean(axis=0)) ** 2).sum(axis=0) for rows in replicates], axis=0)
        return tuple(float(value) for value in np.sqrt(squares / freedom)), False
    scores = np.array([curve.scores[rung:] for curve in finished])
    return tuple(float(value) for value in PRIOR_NOISE * scores.std(axis=0).max(axis=0)), True


def _margin(
    leads: Array, crossed: NDArray[np.bool_], noise: tuple[float, ...], is_prior: bool, caution: float
) -> Margin:
    """The smallest lead of which at most `TOLERATED` were lost, not below what noise explains."""
    order = np.argsort(-leads, kind="stable")
    leads, lost = leads[order], np.cumsum(crossed[order])
    count = np.arange(1, len(leads) + 1)
    # Leads of one size stand or fall together.
    ends_a_tie = np.append(leads[1:] < leads[:-1], True) if len(leads) else np.zeros(0, dtype=bool)
    places = np.flatnonzero(((lost + 0.5) / (count + 1) <= TOLERATED) & ends_a_tie)
    if len(places) == 0:
        total = int(lost[-1]) if len(lost) else 0
        return Margin(lead=None, noise=noise, pairs=len(leads), crossed=total, is_prior=is_prior)
    last = int(places[-1])
    return Margin(
        lead=max(float(leads[last]), NOISE_LEAD) * caution,
        noise=noise,
        pairs=last + 1,
        crossed=int(lost[last]),
        is_prior=is_prior,
    )


def _is_rival(curve: Curve, candidate: Curve, rung: int) -> bool:
    """Whether a curve needs no more, was scored at the rung, and dominates by its newest scores."""
    if curve.state == "failed" or curve.replicate or curve.key == candidate.key or len(curve.scores) <= rung:
        return False
    needs_no_more = all(theirs <= own for theirs, own in zip(curve.known, candidate.known, strict=True))
    theirs, own = (*curve.known, *curve.scores[-1]), (*candidate.known, *candidate.scores[rung])
    return needs_no_more and theirs != own and all(one <= other for one, other in zip(theirs, own, strict=True))


def _lead(theirs: Sequence[float], own: Sequence[float], noise: Sequence[float]) -> float:
    gaps = (_in_noise(np.array(mine - their), sigma) for mine, their, sigma in zip(own, theirs, noise, strict=True))
    return min(float(gap) for gap in gaps)


def _gaps(scores: Array) -> Array:
    """[p, c]: by how much p's score is the better (smaller) one."""
    gaps: Array = scores[None, :] - scores[:, None]
    return gaps


def _in_noise(gaps: Array, sigma: float) -> Array:
    """Gaps in standard deviations; without noise every gap is infinitely many."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(gaps == 0, 0.0, gaps / sigma)
