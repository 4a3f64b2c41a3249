"""Which replicates are wanted: pure functions on trials made by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from nas.records import Candidate, Schedule
from nas.space.architecture import Architecture
from nas.store import StoredObjective, StoredStudy, StoredTrial
from nas.study.replicates import dominated, scaled, spread_evenly, wanted

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STUDY = StoredStudy(
    id=1,
    name="s",
    resolved={},
    objectives=(
        StoredObjective(name="memory", direction="minimize", known=True),
        StoredObjective(name="accuracy", direction="maximize"),
    ),
    duplicates=0,
    created_at=NOW,
)


def trial(number: int, *, width: int | None = None, rate: float = 0.1, accuracy: float = 0.0) -> StoredTrial:
    layer = {"mixer": "full", "heads": 1}
    architecture = Architecture.from_mapping(
        {
            "family": "decoder",
            "width": 8 + 2 * (number if width is None else width),
            "max_context": 16,
            "layers": [layer],
        }
    )
    return StoredTrial(
        id=number,
        study_id=1,
        number=number,
        candidate=Candidate(architecture, (("learning_rate", rate),)),
        seed=7,
        state="complete",
        reason="",
        values={"memory": 1.0, "accuracy": accuracy},
        created_at=NOW,
    )


def test_each_member_is_wanted_with_the_seeds_behind_the_studys_less_those_begun() -> None:
    members = [trial(4), trial(2)]
    failed = replace(trial(2), seed=8, state="failed")
    found = wanted(members, [failed], seeds=2, seed=7)
    assert [(member.number, seed) for member, seed in found] == [(2, 9), (4, 8), (4, 9)]
    assert wanted(members, [failed], seeds=1, seed=7) == [(members[0], 8)]


def test_dominated_ones_are_spread_over_the_ranking_with_its_ends() -> None:
    trials = [trial(number, accuracy=number / 100) for number in range(20)]
    found = dominated(trials, [trials[19]], STUDY, [], count=4)
    assert [one.number for one in found] == [18, 12, 6, 0]
    assert len(dominated(trials[:3], [trials[0]], STUDY, [], count=8)) == 2
    assert dominated(trials, [], STUDY, [], count=0) == []


def test_a_network_is_taken_once_by_its_best_candidate_and_not_if_it_is_on_the_front() -> None:
    better, worse = (trial(number, width=1, rate=number, accuracy=number) for number in (2, 1))
    twin, member = trial(3, width=2, rate=0.1), trial(4, width=2, rate=0.2)
    assert dominated([better, worse, twin, member], [member], STUDY, [], count=8) == [better]


def test_those_that_were_begun_count_also_when_the_ranking_has_changed() -> None:
    trials = [trial(number, accuracy=number / 100) for number in range(20)]
    begun = [trials[11], trials[5]]
    found = dominated(trials, [trials[19]], STUDY, begun, count=4)
    assert [one.number for one in found] == [11, 5, 18, 12]
    # Stopped in the middle of its choice, a confirmation goes on with the same.
    whole = dominated(trials, [trials[19]], STUDY, [], count=4)
    assert sorted(one.number for one in dominated(trials, [trials[19]], STUDY, whole[:2], count=4)) == [0, 6, 12, 18]


@pytest.mark.parametrize(("count", "numbers"), [(0, []), (1, [2]), (2, [0, 4]), (3, [0, 2, 4]), (9, [0, 1, 2, 3, 4])])
def test_a_ranking_is_thinned_evenly(count: int, numbers: list[int]) -> None:
    assert [one.number for one in spread_evenly([trial(number) for number in range(5)], count)] == numbers


@pytest.mark.parametrize(
    ("factor", "steps"), [(1.0, (1, 2, 4)), (8.0, (8, 16, 32)), (1.5, (2, 3, 6)), (1.1, (2, 3, 5))]
)
def test_a_multiple_of_a_budget_has_as_many_rungs(factor: float, steps: tuple[int, ...]) -> None:
    schedule = Schedule(tokens_per_step=64, rung_steps=(1, 2, 4))
    assert scaled(schedule, factor) == Schedule(tokens_per_step=64, rung_steps=steps)
