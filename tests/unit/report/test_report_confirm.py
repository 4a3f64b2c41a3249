"""What replicates at larger budgets say of a ranking, on a store made by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nas.records import Failure, Measurement
from nas.report.confirm import confirm_lines, confirmed_table, scalings, study_lines
from nas.report.html import write_report
from nas.report.series import complete_points
from nas.report.spread import front_with_spread, spreads, spreads_on_test_part
from nas.report.tables import front_csv, front_records, front_table
from nas.store import Store, StoredStudy, StoredTrial

from .conftest import MEMORY, QUALITY, finish

# Of the five complete trials of the small study, whose own are 2.9, 2.6, 2.4, 3.1 and 2.7; 0, 1 and 2 are its front.
SAME = {0: 2.5, 1: 2.2, 2: 2.0, 3: 2.7, 4: 2.3}
# Trial 2, the largest, falls behind trial 4, which is as large.
OTHER = {0: 2.0, 1: 2.1, 2: 2.5, 3: 1.9, 4: 2.2}


def replicate(store: Store, study: StoredStudy, number: int, value: float, *, seed: int, budget: float) -> StoredTrial:
    trial = store.trial(study, number)
    made = store.add_replicate(
        study, trial.candidate, seed=seed, budget=budget, known={MEMORY.name: trial.values[MEMORY.name]}, reason=""
    )
    return finish(store, made, {QUALITY.name: value})


def score_on_test_part(store: Store, trial: StoredTrial, value: float) -> None:
    question = {"metric": QUALITY.name, "unit": "", "step": trial.step, "context": 256, "split": "test"}
    store.add_measurements(trial, [Measurement(value=value, seed=trial.seed, **question)])


def test_a_larger_budget_that_agrees_has_a_tau_of_one_and_keeps_the_front(store: Store, study: StoredStudy) -> None:
    for number, value in SAME.items():
        replicate(store, study, number, value, seed=8, budget=8.0)
    (found,) = scalings(store, study)
    assert (found.budget, found.candidates, found.members, found.kept) == (8.0, 5, 3, 3)
    assert found.taus == {QUALITY.name: pytest.approx(1.0)}
    told = "\n".join(study_lines(store, study))
    assert "at 8x the budget, 5 candidates: 3 of 3 of the front are still on it" in told
    assert "Kendall's tau with the ranking at the study's budget: bits_per_byte 1.00" in told
    assert "warning" not in told


def test_a_larger_budget_that_disagrees_is_warned_of(store: Store, study: StoredStudy, tmp_path: Path) -> None:
    for number, value in OTHER.items():
        # The mean of two seeds is what is ranked.
        replicate(store, study, number, value - 0.3, seed=8, budget=4.0)
        replicate(store, study, number, value + 0.3, seed=9, budget=4.0)
    (found,) = scalings(store, study)
    # Own order: 2 1 4 0 3; there: 3 0 1 4 2. Of ten pairs, only 1 before 4 is the same.
    assert found.taus == {QUALITY.name: pytest.approx((1 - 9) / 10)}
    assert (found.members, found.kept) == (3, 1)
    (warning,) = [line for line in confirm_lines(store) if "warning" in line]
    assert re.search(r"^small: warning: at 4x the budget the ranking by bits_per_byte .*tau -0.80, below 0.6", warning)
    page = write_report(store, "small", tmp_path / "page").read_text()
    assert "tau -0.80, below 0.6" in page and "4x" in page
    # At another budget it is another training, and says nothing of the spread at the study's own.
    assert spreads(store, study) == {} and "seeds" not in front_with_spread(store, study)
    assert confirmed_table(store, study)["seeds"].tolist() == [2] * 5


def test_means_and_deviations_stand_beside_the_values_of_the_trial(store: Store, study: StoredStudy) -> None:
    before = front_table(store, study)
    # The study's own of trial 1 is 2.6.
    replicate(store, study, 1, 2.7, seed=8, budget=1.0)
    replicate(store, study, 1, 2.8, seed=9, budget=1.0)
    table = front_table(store, study).set_index("trial")
    assert [name for name in table.reset_index() if name not in before] == [
        "bits_per_byte_mean",
        "bits_per_byte_sd",
        "seeds",
    ]
    row = table.loc[1]
    assert (row["bits_per_byte"], row["seeds"]) == (2.6, 3)
    assert row["bits_per_byte_mean"] == pytest.approx(2.7) and row["bits_per_byte_sd"] == pytest.approx(0.1)
    assert table.loc[0, "bits_per_byte_mean"] == 2.9 and table["bits_per_byte_sd"].isna().sum() == 2
    assert "bits_per_byte_sd" in front_csv(table)
    records = {record["trial"]: record for record in front_records(store, study)}
    assert records[1]["values"][QUALITY.name] == 2.6 and records[1]["seeds"] == 3
    assert records[1]["mean"] == {QUALITY.name: pytest.approx(2.7)}
    assert "mean" not in records[0] and "test" not in records[1]
    points = complete_points(store, study).set_index("trial")
    assert points.loc[1, "bits_per_byte"] == pytest.approx(2.7) and points.loc[0, "bits_per_byte"] == 2.9
    assert len(points) == 5
    assert any("1 of 3 on the front have replicates" in line for line in study_lines(store, study))


def test_the_test_part_is_shown_over_the_seeds_that_were_scored_there(store: Store, study: StoredStudy) -> None:
    first = replicate(store, study, 1, 2.7, seed=8, budget=1.0)
    replicate(store, study, 1, 2.8, seed=9, budget=1.0)
    score_on_test_part(store, first, 3.0)
    assert spreads_on_test_part(store, study)[1].seeds == 1
    (record,) = [found for found in front_records(store, study) if found["trial"] == 1]
    assert record["test"] == {"seeds": 1, "mean": {QUALITY.name: 3.0}}
    score_on_test_part(store, store.trial(study, 1), 2.0)
    (row,) = confirmed_table(store, study).to_dict("records")
    assert row["trial"] == 1 and row["on_front"] and row["budget"] == "1x" and row["seeds"] == 3
    assert row["test_bits_per_byte_mean"] == 2.5 and row["test_bits_per_byte_sd"] == pytest.approx(0.5**0.5)
    assert row["tokens"] == 300_000


def test_replicates_that_came_to_nothing_are_named(store: Store, study: StoredStudy) -> None:
    made = store.add_replicate(
        study, store.trial(study, 2).candidate, seed=8, budget=1.0, known={MEMORY.name: 1.0}, reason=""
    )
    assert any("1 replicate is not finished" in line for line in study_lines(store, study))
    store.fail(made, Failure(kind="diverged", reason="the loss is nan"))
    lines = study_lines(store, study)
    assert lines == [f"replicate {made.number} of trial 2 (seed 8) failed: the loss is nan"]
    assert scalings(store, study) == [] and not len(confirmed_table(store, study))


def test_a_study_without_replicates_says_nothing_of_them(store: Store, study: StoredStudy, tmp_path: Path) -> None:
    assert confirm_lines(store) == []
    assert "Confirmation" not in write_report(store, "small", tmp_path / "page").read_text()
