"""What every store must do, whatever database it lies in.

PostgreSQL takes part where NAS_TEST_POSTGRES names a database that may be written to; each test
has a schema of its own there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text

from nas.errors import StoreError
from nas.records import Candidate, CheckpointReference, Decision, Environment, Failure, Measurement, Result
from nas.space.architecture import Architecture
from nas.store import Correction, MemoryFigure, Store, StoredObjective, StoredStudy, normalize_url
from nas.store.engine import make_engine
from nas.store.revisions import VERSION_TABLE
from nas.store.tables import Base

OBJECTIVES = (
    StoredObjective(name="bits_per_byte", direction="minimize", unit="bit/byte", reference=8.0, ideal=0.0),
    StoredObjective(
        name="serve_bytes", direction="minimize", unit="byte", known=True, reference=2.0**23, ideal=0.0, log2=True
    ),
)
RESOLVED = {"name": "s", "task": {"name": "language_modeling"}, "budget": {"tokens": 200_000}, "limits": [1, 2.5, None]}


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'nas.db'}"
        return
    server = os.environ.get("NAS_TEST_POSTGRES")
    if server is None:
        pytest.skip("NAS_TEST_POSTGRES names no database")
    schema = f"nas_test_{uuid.uuid4().hex}"
    engine = create_engine(server)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    yield f"{server}?options=-csearch_path%3D{schema}"
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()


@pytest.fixture
def store(url: str, tmp_path: Path) -> Iterator[Store]:
    with Store.open(url, create=True, files=str(tmp_path / "files")) as opened:
        yield opened


@pytest.fixture
def study(store: Store) -> StoredStudy:
    return store.add_study("s", resolved=RESOLVED, objectives=OBJECTIVES)


def candidate(width: int = 64, learning_rate: float = 1e-3) -> Candidate:
    architecture = Architecture.from_mapping(
        {
            "family": "decoder",
            "width": width,
            "max_context": 128,
            "layers": [{"mixer": "full", "heads": 4}, {"mixer": "sliding_window", "heads": 2, "window": 32}],
            "vocabulary": 257,
            "head": "causal_lm",
        }
    )
    return Candidate(architecture, (("learning_rate", learning_rate), ("weight_decay", 0.1)))


def result(step: int, value: float = 3.0) -> Result:
    return Result(
        measurements=tuple(
            Measurement(
                metric="bits_per_byte",
                value=value + context / 1000,
                unit="bit/byte",
                step=step,
                context=context,
                split="validation",
                seed=0,
            )
            for context in (64, 128)
        ),
        checkpoint=CheckpointReference(path=f"s/0/{step}.safetensors", sha256="ab" * 32, bytes=1000 + step, step=step),
        seconds=2.5,
        tokens=1_000,
        flops=1e15,
    )


class TestStudies:
    def test_a_study_is_read_back_as_it_was_stored(self, store: Store, study: StoredStudy) -> None:
        again = store.study("s")
        assert again == study
        assert again.resolved == RESOLVED
        assert again.objectives == OBJECTIVES
        assert again.created_at.utcoffset() == timedelta(0)

    def test_studies_come_in_the_order_in_which_they_were_made(self, store: Store) -> None:
        for name in ("b", "a", "c"):
            store.add_study(name, resolved={}, objectives=OBJECTIVES)
        assert [one.name for one in store.studies()] == ["b", "a", "c"]

    def test_an_unknown_name_is_answered_with_the_nearest(self, store: Store) -> None:
        with pytest.raises(StoreError, match="holds no study yet"):
            store.study("quickstart")
        store.add_study("quickstart", resolved={}, objectives=OBJECTIVES)
        with pytest.raises(StoreError, match=r"no study 'quikstart' in .*: did you mean 'quickstart'\?"):
            store.study("quikstart")

    def test_a_name_is_taken_once(self, store: Store, study: StoredStudy) -> None:
        with pytest.raises(StoreError, match=r"has a study 's' already.*--name"):
            store.add_study("s", resolved={}, objectives=OBJECTIVES)
        assert len(store.studies()) == 1

    def test_the_resolved_study_can_be_replaced(self, store: Store, study: StoredStudy) -> None:
        changed = store.update_resolved(study, {"trials": 48})
        assert changed.resolved == {"trials": 48}
        assert store.study("s") == changed

    def test_what_json_cannot_say_is_refused(self, store: Store, study: StoredStudy) -> None:
        with pytest.raises(StoreError, match="cannot be stored as JSON"):
            store.update_resolved(study, {"limit": float("nan")})
        with pytest.raises(StoreError, match="cannot be stored as JSON"):
            store.add_study("t", resolved={"path": Path()}, objectives=OBJECTIVES)

    def test_duplicate_draws_are_counted(self, store: Store, study: StoredStudy) -> None:
        assert [store.count_duplicate(study) for _ in range(3)] == [1, 2, 3]
        assert store.study("s").duplicates == 3


class TestTrials:
    def test_a_trial_begins_with_its_known_values_alone(self, store: Store, study: StoredStudy) -> None:
        trial = store.add_trial(study, candidate(), seed=7, optuna_number=3, known={"serve_bytes": 512}, reason="new")
        assert (trial.number, trial.state, trial.seed, trial.optuna_number) == (0, "running", 7, 3)
        assert trial.values == {"serve_bytes": 512.0}
        assert trial.candidate == candidate()
        assert trial.candidate.key == candidate().key
        assert (trial.step, trial.tokens, trial.flops, trial.seconds, trial.checkpoints) == (0, 0, 0.0, 0.0, ())
        assert trial.started_at is not None
        assert trial.finished_at is None
        assert store.trial(study, 0) == trial

    def test_numbers_are_consecutive_in_each_study_over_all_states(self, store: Store, study: StoredStudy) -> None:
        other = store.add_study("t", resolved={}, objectives=OBJECTIVES)
        store.add_trial(study, candidate(), seed=0, known={}, reason="")
        store.add_infeasible(study, candidate(), seed=1, known={"serve_bytes": 1e12}, reason="serve_bytes <= 8 MiB")
        assert store.add_trial(other, candidate(), seed=0, known={}, reason="").number == 0
        assert store.add_trial(study, candidate(), seed=2, known={}, reason="").number == 2
        assert [one.state for one in store.trials(study)] == ["running", "infeasible", "running"]
        assert [one.number for one in store.trials(study, states=["infeasible"])] == [1]
        assert store.trial(study, 1).reason == "serve_bytes <= 8 MiB"

    def test_a_candidate_is_tried_once_with_a_seed(self, store: Store, study: StoredStudy) -> None:
        store.add_trial(study, candidate(), seed=0, known={}, reason="")
        with pytest.raises(StoreError, match=f"has tried candidate {candidate().key} with seed 0: it is trial 0"):
            store.add_trial(study, candidate(), seed=0, known={}, reason="")
        with pytest.raises(StoreError, match="has tried"):
            store.add_infeasible(study, candidate(), seed=0, known={}, reason="")
        assert len(store.trials(study)) == 1
        assert store.add_trial(study, candidate(), seed=1, known={}, reason="").number == 1
        assert store.add_trial(study, candidate(learning_rate=2e-3), seed=0, known={}, reason="").number == 2

    def test_a_trial_is_found_by_key_and_seed(self, store: Store, study: StoredStudy) -> None:
        trial = store.add_trial(study, candidate(), seed=5, known={}, reason="")
        assert store.find(study, candidate().key, 5) == trial
        assert store.find(study, candidate().key, 6) is None
        assert store.find(study, candidate(width=32).key, 5) is None

    def test_replicates_stand_apart_from_the_trials_of_the_search(self, store: Store, study: StoredStudy) -> None:
        searched = store.add_trial(study, candidate(), seed=0, known={}, reason="")
        made = [
            store.add_replicate(study, candidate(), seed=1, budget=budget, known={"serve_bytes": 9.0}, reason="why")
            for budget in (1.0, 8.0)
        ]
        assert [(one.number, one.role, one.budget, one.state) for one in made] == [
            (1, "confirm", 1.0, "running"),
            (2, "confirm", 8.0, "running"),
        ]
        with pytest.raises(StoreError, match="has tried"):
            store.add_replicate(study, candidate(), seed=1, budget=8.0, known={}, reason="")
        assert store.trials(study) == [searched] and (searched.role, searched.budget) == ("search", 1.0)
        assert store.trials(study, role="confirm") == made and store.trials(study, role=None) == [searched, *made]
        assert store.find(study, candidate().key, 1) == made[0]
        assert store.find(study, candidate().key, 1, budget=8.0) == made[1]
        assert store.trials_frame(study)["trial"].tolist() == [0]
        assert store.trials_frame(study, role="confirm")["budget"].tolist() == [1.0, 8.0]

    def test_an_unknown_number_is_answered_with_the_range(self, store: Store, study: StoredStudy) -> None:
        with pytest.raises(StoreError, match="'s' has no trial 0: it has none yet"):
            store.trial(study, 0)
        for seed in range(3):
            store.add_trial(study, candidate(), seed=seed, known={}, reason="")
        with pytest.raises(StoreError, match="'s' has no trial 3: it has 0 to 2"):
            store.trial(study, 3)
        with pytest.raises(StoreError, match="it has 0 to 2"):
            store.measurements(study, trial=-1)

    def test_the_mirror_can_be_named_later(self, store: Store, study: StoredStudy) -> None:
        trial = store.add_trial(study, candidate(), seed=0, known={}, reason="")
        assert trial.optuna_number is None
        assert store.set_optuna_number(trial, 12).optuna_number == 12
        assert store.trial(study, 0).optuna_number == 12

    def test_results_add_up(self, store: Store, study: StoredStudy) -> None:
        trial = store.add_trial(study, candidate(), seed=0, known={}, reason="")
        store.record_result(trial, result(10), step=10)
        trial = store.record_result(trial, result(20, value=2.0), step=20)
        assert (trial.step, trial.tokens, trial.flops, trial.seconds) == (20, 2_000, 2e15, 5.0)
        assert [one.step for one in trial.checkpoints] == [10, 20]
        assert trial.checkpoints[1] == result(20).checkpoint
        assert trial == store.trial(study, 0)
        frame = store.measurements(study, trial=0)
        assert frame["value"].tolist() == [3.064, 3.128, 2.064, 2.128]
        assert frame["step"].tolist() == [10, 10, 20, 20]

    def test_a_result_recorded_twice_counts_once_and_the_later_one_stands(
        self, store: Store, study: StoredStudy
    ) -> None:
        trial = store.add_trial(study, candidate(), seed=0, known={}, reason="")
        first = store.record_result(trial, result(10), step=10)
        second = store.record_result(trial, result(10, value=4.0), step=10)
        assert (second.step, second.tokens, second.flops, second.seconds) == (10, 1_000, 1e15, 2.5)
        assert second.checkpoints == first.checkpoints
        assert store.measurements(study)["value"].tolist() == [4.064, 4.128]

    def test_a_result_is_recorded_as_a_whole_or_not_at_all(self, store: Store, study: StoredStudy) -> None:
        trial = store.add_trial(study, candidate(), seed=0, known={}, reason="")
        good = result(10)
        bad = Result(measurements=good.measurements, checkpoint=good.checkpoint, flops=float("nan"))
        with pytest.raises(StoreError, match="'flops' must be a finite number, not nan"):
            store.record_result(trial, bad, step=10)
        assert store.trial(study, 0) == trial
        assert store.measurements(study).empty

    def test_a_complete_trial_has_a_value_of_each_objective(self, store: Store, study: StoredStudy) -> None:
        trial = store.add_trial(study, candidate(), seed=0, known={"serve_bytes": 512}, reason="new")
        with pytest.raises(StoreError, match="cannot be complete without bits_per_byte"):
            store.complete(trial, {}, "last rung")
        with pytest.raises(StoreError, match=r"no objective 'bits_per_bite': did you mean 'bits_per_byte'\?"):
            store.complete(trial, {"bits_per_bite": 2.0}, "last rung")
        with pytest.raises(StoreError, match="finite"):
            store.complete(trial, {"bits_per_byte": float("nan")}, "last rung")
        assert store.trial(study, 0) == trial
        done = store.complete(trial, {"bits_per_byte": 2.0}, "last rung")
        assert (done.state, done.reason) == ("complete", "last rung")
        assert done.values == {"serve_bytes": 512.0, "bits_per_byte": 2.0}
        assert done.finished_at is not None
        assert done == store.trial(study, 0)

    def test_a_failed_trial_keeps_its_failure_and_its_work(self, store: Store, study: StoredStudy) -> None:
        trial = store.add_trial(study, candidate(), seed=0, known={}, reason="")
        store.record_result(trial, result(10), step=10)
        failure = Failure(kind="diverged", reason="the loss is nan at step 14", traceback="Traceback …")
        failed = store.fail(trial, failure)
        assert (failed.state, failed.failure, failed.reason) == ("failed", failure, failure.reason)
        assert (failed.step, len(failed.checkpoints)) == (10, 1)
        assert store.trial(study, 0) == failed

    def test_a_trial_pauses_and_goes_on(self, store: Store, study: StoredStudy) -> None:
        trial = store.add_trial(study, candidate(), seed=0, known={}, reason="")
        assert store.pause(trial, "dominated").state == "paused"
        again = store.resume(trial, "the front moved")
        assert (again.state, again.reason) == ("running", "the front moved")

    def test_a_failed_trial_may_be_tried_again(self, store: Store, study: StoredStudy) -> None:
        trial = store.add_trial(study, candidate(), seed=0, known={}, reason="")
        store.fail(trial, Failure(kind="crashed", reason="the worker died"))
        again = store.resume(trial, "a crash is nobody's fault")
        assert (again.state, again.failure, again.finished_at) == ("running", None, None)

    def test_what_has_come_to_its_end_does_not_change(self, store: Store, study: StoredStudy) -> None:
        trial = store.add_trial(study, candidate(), seed=0, known={"serve_bytes": 1}, reason="")
        done = store.complete(trial, {"bits_per_byte": 2.0}, "last rung")
        barred = store.add_infeasible(study, candidate(), seed=1, known={}, reason="too large")
        for ended in (done, barred):
            with pytest.raises(StoreError, match=f"trial {ended.number} is {ended.state} already"):
                store.fail(ended, Failure(kind="crashed", reason="x"))
            with pytest.raises(StoreError, match="already"):
                store.record_result(ended, result(10), step=10)
            with pytest.raises(StoreError, match="already"):
                store.resume(ended, "x")
            assert store.trial(study, ended.number) == ended

    def test_a_known_value_that_is_not_finite_is_refused(self, store: Store, study: StoredStudy) -> None:
        for wrong in (float("nan"), float("inf")):
            with pytest.raises(StoreError, match="'serve_bytes' must be a finite number"):
                store.add_trial(study, candidate(), seed=0, known={"serve_bytes": wrong}, reason="")
        assert store.trials(study) == []

    def test_writers_at_the_same_moment_get_different_numbers(self, store: Store, study: StoredStudy) -> None:
        with ThreadPoolExecutor(8) as pool:
            added = list(
                pool.map(lambda seed: store.add_trial(study, candidate(), seed=seed, known={}, reason=""), range(24))
            )
        assert sorted(one.number for one in added) == list(range(24))


class TestFrames:
    def test_frames_without_rows_have_the_columns_and_dtypes_of_those_with(
        self, store: Store, study: StoredStudy
    ) -> None:
        names = (
            "front",
            "fronts",
            "trials_frame",
            "measurements",
            "memory",
            "checkpoints",
            "decisions",
            "environments",
        )
        empty = {name: getattr(store, name)(study) for name in names}
        trial = store.add_trial(study, candidate(), seed=0, known={"serve_bytes": 1}, reason="")
        store.record_result(trial, result(10), step=10)
        store.complete(trial, {"bits_per_byte": 2.0}, "")
        store.add_memory(trial, [MEMORY])
        store.add_decision(trial, Decision("start", "new"))
        store.add_environment(study, Environment(versions={"torch": "2.13"}, device="CPU", git_commit="abc"))
        store.add_front(study, members=[0], hypervolume=0.5, trials_done=1, tokens=1_000)
        for name in names:
            full = getattr(store, name)(study)
            assert len(empty[name]) == 0
            assert len(full) >= 1, name
            shared = [column for column in full.columns if not column.startswith("training.")]
            assert list(empty[name].columns) == shared, name
            for column in shared:
                if str(full[column].dtype) not in ("object", "str"):
                    assert full[column].dtype == empty[name][column].dtype, (name, column)

    def test_the_front_is_the_one_recorded_last_best_first(self, store: Store, study: StoredStudy) -> None:
        for number, value in enumerate((3.0, 1.0, 2.0)):
            trial = store.add_trial(study, candidate(), seed=number, known={"serve_bytes": 10 * number}, reason="")
            store.complete(trial, {"bits_per_byte": value}, "")
        assert store.add_front(study, members=[0], hypervolume=0.25, trials_done=1, tokens=10) == 0
        assert store.add_front(study, members=[2, 0, 1], hypervolume=0.5, trials_done=3, tokens=30) == 1
        front = store.front(study)
        assert front.columns.tolist() == ["trial", "fingerprint", "bits_per_byte", "serve_bytes"]
        assert front["trial"].tolist() == [1, 2, 0]
        assert front["bits_per_byte"].tolist() == [1.0, 2.0, 3.0]
        assert set(front["fingerprint"]) == {candidate().architecture.fingerprint}
        history = store.fronts(study)
        assert history["hypervolume"].tolist() == [0.25, 0.5]
        assert history["trials"].tolist() == [[0], [0, 1, 2]]
        assert history["tokens"].tolist() == [10, 30]

    def test_a_front_of_unknown_trials_is_not_recorded(self, store: Store, study: StoredStudy) -> None:
        with pytest.raises(StoreError, match="no trial 4"):
            store.add_front(study, members=[4], hypervolume=0.5, trials_done=1, tokens=0)
        with pytest.raises(StoreError, match="hypervolume"):
            store.add_front(study, members=[], hypervolume=float("nan"), trials_done=1, tokens=0)
        assert store.fronts(study).empty

    def test_trials_are_described_by_architecture_values_and_training(self, store: Store, study: StoredStudy) -> None:
        store.add_trial(study, candidate(width=32), seed=0, known={"serve_bytes": 1}, reason="new")
        row = store.trials_frame(study).iloc[0]
        assert (row["trial"], row["state"], row["width"], row["depth"], row["max_context"]) == (
            0,
            "running",
            32,
            2,
            128,
        )
        assert row["fingerprint"] == candidate(width=32).architecture.fingerprint
        assert row["training.learning_rate"] == 1e-3
        assert row["serve_bytes"] == 1.0

    def test_the_test_part_lies_beside_the_validation_part(self, store: Store, study: StoredStudy) -> None:
        trial = store.add_trial(study, candidate(), seed=0, known={"serve_bytes": 1}, reason="")
        store.record_result(trial, result(10), step=10)
        done = store.complete(trial, {"bits_per_byte": 3.0}, "")
        for value in (3.5, 3.25):
            scored = Measurement(
                metric="bits_per_byte", value=value, unit="bit/byte", step=10, context=None, split="test", seed=0
            )
            store.add_measurements(done, [scored])
        frame = store.measurements(study)
        assert frame["split"].tolist() == ["validation", "validation", "test"]
        assert frame["value"].tolist()[-1] == 3.25
        assert frame["context"].isna().tolist() == [False, False, True]

    def test_memory_of_the_same_circumstances_is_replaced(self, store: Store, study: StoredStudy) -> None:
        trial = store.add_trial(study, candidate(), seed=0, known={}, reason="")
        measured = MemoryFigure(
            figure="serve_bytes",
            kind="measured",
            bytes=5 * 2**30,
            batch=1,
            context=None,
            dtype="bfloat16",
            device="CPU",
        )
        for _ in range(2):
            store.add_memory(trial, [MEMORY, measured])
        frame = store.memory(study, trial=0)
        assert frame["kind"].tolist() == ["predicted", "measured"]
        assert frame["bytes"].tolist() == [4096, 5 * 2**30]

    def test_a_trial_that_ran_out_of_memory_ends_as_infeasible_with_what_it_had(
        self, store: Store, study: StoredStudy
    ) -> None:
        trial = store.add_trial(study, candidate(), seed=0, known={"serve_bytes": 1}, reason="")
        store.record_result(trial, result(10), step=10)
        failure = Failure(kind="out_of_memory", reason="out of memory: 3 GiB", traceback="…")
        ended = store.exclude(trial, failure)
        assert ended == store.trial(study, 0)
        assert (ended.state, ended.reason, ended.failure) == ("infeasible", failure.reason, failure)
        assert ended.step == 10 and ended.checkpoints and ended.finished_at is not None
        with pytest.raises(StoreError, match="infeasible already"):
            store.exclude(trial, failure)

    def test_peaks_correct_predictions_by_device_and_precision(self, store: Store, study: StoredStudy) -> None:
        assert store.corrections() == []
        predicted = replace(MEMORY, figure="train_peak_bytes", bytes=100, batch=4, context=64, dtype="fp32")
        measured = replace(predicted, figure="trained_peak_bytes", kind="measured", device="CPU")
        for number, (size, device) in enumerate([(150, "CPU"), (120, "CPU"), (200, "CPU"), (110, "GPU"), (999, "CPU")]):
            trial = store.add_trial(study, candidate(), seed=number, known={"serve_bytes": 1}, reason="")
            # A prediction of other circumstances is no measure of it, nor is a probe of one step.
            store.add_memory(trial, [predicted, replace(predicted, batch=1, bytes=1)])
            store.add_memory(trial, [replace(measured, bytes=size, device=device)])
            store.add_memory(trial, [replace(measured, figure="train_peak_bytes", bytes=5)])
            if number < 4:
                store.complete(trial, {"bits_per_byte": 1.0}, "")
        cpu = Correction(device="CPU", dtype="fp32", ratio=1.5, lowest=1.2, highest=2.0, trials=3)
        gpu = Correction(device="GPU", dtype="fp32", ratio=1.1, lowest=1.1, highest=1.1, trials=1)
        assert store.corrections() == [cpu, gpu]

    def test_environments_and_decisions_are_kept(self, store: Store, study: StoredStudy) -> None:
        trial = store.add_trial(study, candidate(), seed=0, known={}, reason="")
        store.add_decision(trial, Decision("start", "a new candidate"))
        store.add_decision(trial, Decision("finish", "dominated at rung 1"))
        store.add_environment(study, Environment(versions={"torch": "2.13.0"}, device="CPU", git_commit="abc+changes"))
        assert store.decisions(study, trial=0)["reason"].tolist() == ["a new candidate", "dominated at rung 1"]
        environment = store.environments(study).iloc[0]
        assert environment["versions"] == {"torch": "2.13.0"}
        assert environment["git_commit"] == "abc+changes"


class TestOpening:
    def test_a_store_that_is_opened_again_holds_the_same(self, url: str) -> None:
        with Store.open(url, create=True) as first:
            made = first.add_study("s", resolved=RESOLVED, objectives=OBJECTIVES)
            trial = first.add_trial(made, candidate(), seed=0, known={"serve_bytes": 1}, reason="new")
            trial = first.record_result(trial, result(10), step=10)
        with Store.open(url) as second:
            assert second.study("s") == made
            assert second.trials(made) == [trial]
            assert second.trials(made)[0].candidate.architecture.fingerprint == candidate().architecture.fingerprint

    def test_two_stores_on_one_database_see_each_others_writes(self, url: str) -> None:
        with Store.open(url, create=True) as writer, Store.open(url) as reader:
            made = writer.add_study("s", resolved={}, objectives=OBJECTIVES)
            assert reader.study("s") == made
            reader.count_duplicate(made)
            assert writer.study("s").duplicates == 1

    def test_a_database_without_a_store_is_refused_unless_it_is_to_be_made(self, url: str) -> None:
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE somebody_elses (id INTEGER)"))
        engine.dispose()
        with pytest.raises(StoreError, match="holds no nas store"):
            Store.open(url)
        with Store.open(url, create=True) as made:
            assert made.studies() == []

    def test_the_migrations_make_exactly_the_tables_of_the_models(self, url: str) -> None:
        Store.open(url, create=True).close()
        engine = make_engine(normalize_url(url))
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
            assert compare_metadata(context, Base.metadata) == []
        engine.dispose()

    def test_processes_that_make_the_store_at_the_same_moment_share_it(self, url: str) -> None:
        code = "import sys; from nas.store import Store; Store.open(sys.argv[1], create=True).close()"
        makers = [
            subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.PIPE, text=True) for _ in range(2)
        ]
        assert [maker.communicate()[1] for maker in makers] == [""] * 2
        with Store.open(url) as made:
            assert made.studies() == []


MEMORY = MemoryFigure(figure="serve_bytes", kind="predicted", bytes=4096, batch=1, context=128, dtype="bfloat16")
