"""The stopping rule: whom it pauses, whom it never pauses, and what it costs on curves that cross."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.pareto import dominated_volume, non_dominated
from nas.search.audit import false_stops, front_numbers, is_exempt, thirds, unreliable
from nas.search.rungs import Curve, CurveState, judge, margin_at, noise_at

STATES: tuple[CurveState, ...] = ("running", "paused", "complete", "failed")
RUNGS = 3
# Few values, so that ties are common, and some far apart.
NUMBERS = st.one_of(st.integers(0, 4).map(float), st.floats(-1e3, 1e3))


@st.composite
def studies(draw: st.DrawFn) -> tuple[Curve, list[Curve]]:
    """A candidate at a rung before the last, and the curves of others; 2 to 4 objectives, 0 or more known."""
    measured = draw(st.integers(1, 4))
    known = draw(st.integers(max(0, 2 - measured), 4 - measured))
    row, point = st.tuples(*[NUMBERS] * measured), st.tuples(*[NUMBERS] * known)
    curves = []
    for number in range(draw(st.integers(0, 14))):
        state = draw(st.sampled_from(STATES)) if draw(st.booleans()) else "complete"
        reached = RUNGS if state == "complete" else draw(st.integers(0, RUNGS - 1))
        scores = tuple(draw(row) for _ in range(reached))
        key = f"{number % 10}"
        curves.append(Curve(number=number, key=key, known=draw(point), scores=scores, state=state))
    scores = tuple(draw(row) for _ in range(draw(st.integers(1, RUNGS - 1))))
    return Curve(number=99, key="own", known=draw(point), scores=scores, state="running"), curves


@given(studies())
def test_what_is_on_the_front_of_the_newest_scores_goes_on(study: tuple[Curve, list[Curve]]) -> None:
    candidate, curves = study
    others = [curve for curve in curves if curve.scores and curve.state != "failed"]
    points = [(*curve.known, *curve.scores[-1]) for curve in [candidate, *others]]
    if non_dominated(points)[0]:
        assert judge(candidate, curves, rungs=RUNGS).can_reach


@given(studies(), st.lists(st.floats(0, 100), min_size=4, max_size=4))
def test_a_better_score_or_less_memory_never_turns_going_on_into_a_pause(
    study: tuple[Curve, list[Curve]], gains: list[float]
) -> None:
    candidate, curves = study
    reached = tuple(score - gain for score, gain in zip(candidate.scores[-1], gains, strict=False))
    better = replace(candidate, scores=(*candidate.scores[:-1], reached))
    smaller = replace(candidate, known=tuple(value - gains[0] for value in candidate.known))
    if judge(candidate, curves, rungs=RUNGS).can_reach:
        assert judge(better, curves, rungs=RUNGS).can_reach
        assert judge(smaller, curves, rungs=RUNGS).can_reach


@given(studies(), st.floats(1, 10))
def test_every_number_is_a_number_and_more_caution_pauses_no_more(
    study: tuple[Curve, list[Curve]], caution: float
) -> None:
    candidate, curves = study
    verdict = judge(candidate, curves, rungs=RUNGS)
    numbers = [verdict.lead, verdict.margin.lead, *verdict.margin.noise]
    assert not any(math.isnan(value) for value in numbers if value is not None)
    assert verdict.reason and "nan" not in verdict.reason
    assert verdict.margin.crossed <= verdict.margin.pairs
    if verdict.can_reach:
        assert judge(candidate, curves, rungs=RUNGS, caution=caution).can_reach


@given(studies())
def test_a_pause_names_a_rival_that_needs_no_more_and_leads_beyond_the_margin(
    study: tuple[Curve, list[Curve]],
) -> None:
    candidate, curves = study
    verdict = judge(candidate, curves, rungs=RUNGS)
    if verdict.can_reach:
        return
    rival = next(curve for curve in curves if curve.number == verdict.rival)
    rung = len(candidate.scores) - 1
    assert rival.state != "failed"
    assert all(theirs <= own for theirs, own in zip(rival.known, candidate.known, strict=True))
    assert all(theirs < own for theirs, own in zip(rival.scores[rung], candidate.scores[rung], strict=True))
    assert verdict.lead is not None and verdict.margin.lead is not None and verdict.lead >= verdict.margin.lead


def ladder(count: int, *, state: CurveState = "complete", rungs: int = RUNGS) -> list[Curve]:
    """Curves that never cross: the first is the best at every rung and needs least."""
    return [
        Curve(
            number=number,
            key=str(number),
            known=(float(number),),
            scores=tuple((3.0 - rung + number,) for rung in range(rungs)),
            state=state,
        )
        for number in range(count)
    ]


def newcomer(memory: float, score: float) -> Curve:
    return Curve(number=50, key="new", known=(memory,), scores=((score,),), state="running")


def test_one_far_behind_a_smaller_one_is_paused_once_finished_curves_show_that_leads_last() -> None:
    assert judge(newcomer(9.0, 60.0), ladder(3), rungs=RUNGS).can_reach
    verdict = judge(newcomer(9.0, 60.0), ladder(6), rungs=RUNGS)
    assert not verdict.can_reach and verdict.rival == 0
    assert "trial 0" in verdict.reason and "0 of" in verdict.reason


def test_one_that_needs_less_than_all_others_goes_on_however_it_scores() -> None:
    assert judge(newcomer(-1.0, 1e6), ladder(8), rungs=RUNGS).can_reach


def test_where_leads_were_lost_later_nobody_is_paused() -> None:
    # The smaller, the faster at first and the worse in the end.
    crossing = [
        replace(curve, scores=((3.0 + curve.number,), (4.0,), (2.0 - 0.1 * curve.number,))) for curve in ladder(8)
    ]
    verdict = judge(newcomer(9.0, 60.0), crossing, rungs=RUNGS)
    assert verdict.can_reach and verdict.margin.crossed == verdict.margin.pairs > 0


def test_a_rival_whose_newest_score_is_worse_than_what_the_candidate_reached_beats_nobody() -> None:
    spoilt = Curve(number=20, key="spoilt", known=(0.0,), scores=((1.0,), (90.0,)), state="running")
    assert judge(newcomer(0.5, 60.0), [*far(6), spoilt], rungs=RUNGS).can_reach
    steady = replace(spoilt, scores=((1.0,), (1.0,)))
    assert not judge(newcomer(0.5, 60.0), [*far(6), steady], rungs=RUNGS).can_reach


def test_one_that_failed_beats_nobody() -> None:
    rival = Curve(number=20, key="rival", known=(0.0,), scores=((1.0,),), state="paused")
    assert not judge(newcomer(0.5, 60.0), [*far(6), rival], rungs=RUNGS).can_reach
    assert judge(newcomer(0.5, 60.0), [*far(6), replace(rival, state="failed")], rungs=RUNGS).can_reach


def far(count: int) -> list[Curve]:
    """Finished curves that show that leads last, and need too much to be anybody's rivals."""
    return [replace(curve, known=(1000.0 + curve.number,)) for curve in ladder(count)]


def test_the_noise_is_that_of_replicates_and_without_them_a_stated_share_of_the_spread() -> None:
    alone = ladder(5)
    noise, is_prior = noise_at(alone, 0)
    assert is_prior and noise == pytest.approx((0.1 * np.std(range(5)),))
    again = [replace(curve, scores=tuple((score + 0.2,) for (score,) in curve.scores)) for curve in alone]
    noise, is_prior = noise_at([*alone, *again], 0)
    assert not is_prior and noise == pytest.approx((0.2 / math.sqrt(2),))


def test_larger_noise_widens_the_margin() -> None:
    calm = margin_at([*ladder(6), *ladder(6)], 0, rungs=RUNGS)
    wild = [replace(curve, scores=tuple((score + 3.0,) for (score,) in curve.scores)) for curve in ladder(6)]
    loud = margin_at([*ladder(6), *wild], 0, rungs=RUNGS)
    assert calm.noise[0] == 0.0 < loud.noise[0]


def test_numbers_that_are_not_finite_are_refused_at_the_door() -> None:
    with pytest.raises(ValueError, match="trial 3"):
        Curve(number=3, key="a", known=(1.0,), scores=((math.nan,),), state="running")


# A study on made-up curves that cross: small ones learn fast, large ones end better.

LIMIT = 4


def grown(number: int, rng: np.random.Generator) -> Curve:
    """A whole curve: its end falls with its memory, and so does its speed; half of the candidates are mediocre."""
    memory = rng.uniform(0.0, 1.0)
    end = 2.0 - memory + (0.0 if rng.uniform() < 0.5 else rng.exponential(0.5))
    speed = 2.5 - 1.5 * memory
    rows = tuple((end + 4.0 * math.exp(-speed * (rung + 1)) + rng.normal(0, 0.01),) for rung in range(LIMIT))
    return Curve(number=number, key=f"{number}", known=(memory,), scores=rows, state="complete", mixers=("full",))


def searched(whole: list[Curve], seed: int, audit: float = 0.05) -> tuple[list[Curve], int]:
    """What a study with one worker makes of the curves, and how many rungs it trains."""
    curves: list[Curve] = []
    for curve in whole:
        state: CurveState = "complete"
        audited = False
        reached = LIMIT
        for rung in range(1, LIMIT):
            now = replace(curve, scores=curve.scores[:rung], state="running")
            if judge(now, curves, rungs=LIMIT).can_reach:
                continue
            if is_exempt(seed, curve.key, audit) or unreliable(now, false_stops(curves), thirds(curves)):
                audited = audited or is_exempt(seed, curve.key, audit)
                continue
            state, reached = "paused", rung
            break
        curves.append(replace(curve, scores=curve.scores[:reached], state=state, audited=audited))
    return curves, sum(len(curve.scores) for curve in curves)


def volume(curves: list[Curve]) -> float:
    points = np.array([(curve.known[0], curve.scores[-1][0] / 4.0) for curve in curves if curve.state == "complete"])
    return dominated_volume(points)


def test_on_curves_that_cross_it_saves_a_seventh_of_the_training_and_keeps_the_front() -> None:
    spent, kept, wrong, stopped = [], [], 0, 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        whole = [grown(number, rng) for number in range(60)]
        curves, rungs = searched(whole, seed)
        spent.append(rungs / (60 * LIMIT))
        kept.append(volume(curves) / volume(whole))
        paused = {curve.number for curve in curves if curve.state == "paused"}
        wrong += len(paused & front_numbers(whole))
        stopped += len(paused)
    assert np.median(spent) < 6 / 7
    assert np.median(kept) > 0.99
    assert wrong <= 0.05 * stopped


def test_the_large_and_slow_reach_the_front_where_keeping_the_best_half_of_a_rung_would_stop_them() -> None:
    rng = np.random.default_rng(1)
    whole = [grown(number, rng) for number in range(60)]
    best = {number for number in front_numbers(whole) if whole[number].known[0] > 0.5}
    half = np.median([curve.scores[0][0] for curve in whole])
    assert any(whole[number].scores[0][0] > half for number in best)
    curves, _ = searched(whole, seed=1)
    assert all(curves[number].state == "complete" for number in best)


def test_the_audit_finds_the_false_stops_that_there_are() -> None:
    rng = np.random.default_rng(3)
    curves, _ = searched([grown(number, rng) for number in range(200)], seed=3, audit=0.3)
    (overall, *rest) = false_stops(curves)
    assert overall.audited >= 10 and overall.rate is not None and overall.rate <= 0.05
    assert {one.group for one in rest} >= {"mixer full", "context low"}


def test_replicates_tell_the_noise_and_are_neither_rivals_nor_pairs_nor_on_the_front() -> None:
    def made(number: int, key: str, score: float, *, replicate: bool = False) -> Curve:
        scores = tuple((score,) for _ in range(RUNGS))
        return Curve(number=number, key=key, known=(1.0,), scores=scores, state="complete", replicate=replicate)

    plain = [made(number, f"{number}", float(number)) for number in range(6)]
    again = [made(10 + number, "0", -5.0 + number, replicate=True) for number in range(4)]
    before, after = (margin_at(curves, 0, rungs=RUNGS) for curves in (plain, [*plain, *again]))
    assert before.is_prior and not after.is_prior
    assert after.noise[0] == pytest.approx(np.std([0.0, -5.0, -4.0, -3.0, -2.0], ddof=1))
    assert before.pairs <= 15 and after.pairs <= 15
    candidate = Curve(number=99, key="own", known=(1.0,), scores=((-0.5,),), state="running")
    assert judge(candidate, [*plain, *again], rungs=RUNGS).rival is None
    assert front_numbers([*plain, *again]) == {0}
    assert thirds([*plain, *again]) == thirds(plain)
