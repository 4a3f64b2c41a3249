"""What the tables say of a store."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pandas as pd

from nas.records import Failure
from nas.report.tables import (
    front_csv,
    front_html,
    front_records,
    front_table,
    render_front,
    render_table,
    status_table,
)
from nas.space.architecture import Architecture
from nas.store import Store, StoredObjective, StoredStudy


class TestTheFront:
    def test_it_has_one_row_a_member_with_everything_that_tells_them_apart(
        self, store: Store, study: StoredStudy
    ) -> None:
        frame = front_table(store, study)
        assert list(frame.columns) == [
            *("trial", "fingerprint", "bits_per_byte", "serve_bytes", "width", "depth", "mixers", "max_context"),
            *("parameters", "learning_rate", "tokens", "flops"),
        ]
        assert list(frame["trial"]) == [2, 1, 0]
        assert list(frame["serve_bytes"]) == [2**21, 1.5 * 2**19, 2**18]
        assert list(frame["mixers"]) == ["F×4", "F×2 SW32", "F SW32"]
        assert list(frame["tokens"]) == [150_000] * 3
        assert list(frame["flops"]) == [6e11] * 3
        assert frame["learning_rate"].iloc[0] == 3e-3

    def test_the_trivial_baseline_of_measured_objectives_goes_with_it(self, store: Store, study: StoredStudy) -> None:
        assert front_table(store, study).attrs["baselines"] == {"bits_per_byte": 4.9}

    def test_an_objective_that_is_a_field_of_the_architecture_has_one_column(
        self, store: Store, wide_study: StoredStudy
    ) -> None:
        frame = front_table(store, wide_study)
        assert list(frame.columns).count("max_context") == 1
        assert sorted(frame["max_context"]) == [256, 256, 512]

    def test_text_shows_units_in_about_a_hundred_columns(self, store: Store, study: StoredStudy) -> None:
        text = render_front(store, study)
        assert all(len(line) <= 105 for line in text.splitlines())
        for word in ("256 KiB", "768 KiB", "2 MiB", "600G", "150k", "trivial baseline: bits_per_byte 4.9"):
            assert word in text
        assert "SW sliding_window" in text
        assert not any(line != line.rstrip() for line in text.splitlines())
        assert "\x1b" not in text

    def test_text_keeps_every_number_of_a_table_that_is_wider_than_a_terminal(
        self, store: Store, wide_study: StoredStudy
    ) -> None:
        rows = [line for line in render_front(store, wide_study).splitlines() if line.strip().startswith("2 ")]
        assert len(rows) == 1
        for word in ("2.7", "0.5", "1 MiB", "512", "600G"):
            assert word in rows[0]

    def test_csv_has_raw_numbers_and_whole_fingerprints(self, store: Store, study: StoredStudy) -> None:
        header, first, *_ = front_csv(front_table(store, study)).splitlines()
        assert header.startswith("trial,fingerprint,bits_per_byte,serve_bytes,")
        assert first.startswith(f"2,{store.trial(study, 2).candidate.architecture.fingerprint},2.4,2097152.0,128,4,")

    def test_html_is_escaped(self, store: Store) -> None:
        frame = pd.DataFrame({"trial": [0], "reason": ["<script>alert(1)</script>"]})
        frame.attrs["notes"] = ["a < b"]
        text = front_html(frame)
        assert "<script>" not in text
        assert "&lt;script&gt;" in text
        assert "a &lt; b" in text

    def test_records_are_plain_and_build_the_same_network(self, store: Store, study: StoredStudy) -> None:
        records = json.loads(json.dumps(front_records(store, study)))
        assert [record["trial"] for record in records] == [2, 1, 0]
        for record in records:
            assert list(record) == ["trial", "fingerprint", "values", "architecture", "training"]
            assert Architecture.from_mapping(record["architecture"]).fingerprint == record["fingerprint"]
        assert records[2]["values"] == {"bits_per_byte": 2.9, "serve_bytes": 262144.0}
        assert records[2]["training"] == {"learning_rate": 1e-3}

    def test_a_study_without_a_complete_trial_says_so(self, store: Store, study: StoredStudy) -> None:
        empty = store.add_study("new", resolved={}, objectives=study.objectives)
        assert render_front(store, empty) == "no trial of study 'new' is complete yet"
        assert front_records(store, empty) == []
        assert list(front_table(store, empty)["trial"]) == []


class TestTheStatus:
    def test_each_state_is_counted(self, store: Store, study: StoredStudy) -> None:
        (row,) = status_table(store).to_dict("records")
        assert (row["study"], row["planned"]) == ("small", 12)
        assert [row[state] for state in ("complete", "running", "paused", "failed", "infeasible")] == [5, 1, 1, 1, 1]
        assert row["duplicates"] == 1
        assert math.isclose(row["hypervolume"], 0.4)

    def test_failures_are_counted_by_reason_the_most_frequent_first(self, store: Store, study: StoredStudy) -> None:
        for trial in store.trials(study, states=["running", "paused"]):
            store.fail(trial, Failure(kind="out_of_memory", reason="needs 3 GiB"))
        assert status_table(store)["failures"].iloc[0] == (
            "2× out of memory: needs 3 GiB; 1× diverged: the loss is <nan> at step 60"
        )

    def test_a_study_that_was_never_run_has_a_row(self, store: Store) -> None:
        store.add_study("new", resolved={}, objectives=[StoredObjective(name="loss", direction="minimize")])
        (row,) = status_table(store).to_dict("records")
        assert row["complete"] == 0
        assert math.isnan(row["hypervolume"])
        assert "–" in render_table(status_table(store))

    def test_an_empty_store_says_so(self, store: Store) -> None:
        assert render_table(status_table(store)) == "the store holds no study yet"


class TestText:
    def test_brackets_are_no_markup_and_control_characters_do_not_reach_the_terminal(self) -> None:
        text = render_table(pd.DataFrame({"reason": ["[bold]x[/bold] \x1b[31mred"]}))
        assert "[bold]x[/bold]" in text
        assert "\x1b" not in text

    def test_prose_wraps_and_names_do_not(self) -> None:
        path = "folder/" * 20 + "weights.safetensors"
        text = render_table(pd.DataFrame({"path": [path], "reason": ["word " * 40]}))
        assert path in text
        assert len(text.splitlines()) > 4

    def test_different_values_are_shown_as_different(self) -> None:
        text = render_table(pd.DataFrame({"loss": [2.34991, 2.34988, 2.5]}))
        assert len({line.strip() for line in text.splitlines()[2:]}) == 3

    def test_missing_values_are_dashes(self) -> None:
        frame = pd.DataFrame({"context": pd.array([128, None], dtype="Int64"), "device": ["CPU", None]})
        assert render_table(frame).splitlines()[-1].split() == ["–", "–"]


def test_reading_a_store_for_tables_and_a_page_imports_no_torch(
    store: Store, study: StoredStudy, tmp_path: Path
) -> None:
    program = f"""
import sys
import nas.report.dashboard, nas.report.html, nas.report.plots, nas.report.tables
from pathlib import Path
from nas.store import Store
with Store.open({store.url!r}) as store:
    nas.report.tables.render_front(store, store.study("small"))
    nas.report.html.write_report(store, "small", Path({str(tmp_path / "page")!r}))
assert "torch" not in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=120)
