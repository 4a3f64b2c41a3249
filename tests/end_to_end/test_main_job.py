"""The main job through every room: search, front in SQL, export, text from the checkpoint."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nas import Study, estimate, load_bundle
from nas.cli import main

FRESH = """
import json, sys, torch
from nas import load_bundle
bundle = load_bundle(sys.argv[1])
tokens = torch.arange(32)[None] % 256
with torch.no_grad():
    logits = bundle.model(tokens)
print(json.dumps({"logits": logits.flatten().tolist(), "bits": bundle.bits_per_byte("7 times 7 is 49.")}))
"""


@pytest.fixture
def finished(folder: Path) -> Path:
    assert main(["run", "study.yaml", "--quiet"]) == 0
    return folder


def test_a_study_runs_and_its_front_is_the_same_in_json_and_in_sql(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["front", "study.yaml", "--format", "json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed
    assert all(set(item) == {"trial", "fingerprint", "values", "architecture", "training"} for item in listed)
    with sqlite3.connect(finished / "nas.db") as database:
        rows = database.execute(
            "select trials.number, candidates.fingerprint, 'x' from nas_front_members members "
            "join nas_fronts fronts on fronts.id = members.front_id "
            "join nas_trials trials on trials.id = members.trial_id "
            "join nas_candidates candidates on candidates.key = trials.candidate_key "
            "where fronts.sequence = (select max(sequence) from nas_fronts)"
        ).fetchall()
    database.close()
    assert {(number, fingerprint) for number, fingerprint, _ in rows} == {
        (item["trial"], item["fingerprint"]) for item in listed
    }


def test_running_it_again_trains_nothing(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted((finished / "nas_files").rglob("*.safetensors"))
    stamps = [path.stat().st_mtime_ns for path in before]
    assert main(["run", "study.yaml", "--quiet"]) == 0
    after = sorted((finished / "nas_files").rglob("*.safetensors"))
    assert [path.stat().st_mtime_ns for path in after] == stamps and after == before


def test_the_best_candidate_leaves_as_a_checkpoint_that_runs_in_a_fresh_process(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "tiny", "--best", "bits_per_byte", "--under", "serve_bytes=1MiB", "--to", "out"]) == 0
    bundle = load_bundle("out")
    tokens = torch.arange(32)[None] % 256
    with torch.no_grad():
        here = bundle.model(tokens).flatten()
    done = subprocess.run([sys.executable, "-c", FRESH, "out"], capture_output=True, text=True, check=True)
    fresh = json.loads(done.stdout)
    assert torch.allclose(here, torch.tensor(fresh["logits"]), atol=1e-5)
    assert fresh["bits"] == pytest.approx(bundle.bits_per_byte("7 times 7 is 49."), abs=1e-5)
    splits = {found["split"] for found in bundle.metrics["measurements"]}
    assert splits == {"validation", "test"}
    capsys.readouterr()
    assert main(["generate", "out", "7 times 7", "--tokens", "12", "--temperature", "0"]) == 0
    assert capsys.readouterr().out.startswith("7 times 7")
    assert main(["predict", "out", "7 times 7 is 49."]) == 0
    assert "bits_per_byte" in capsys.readouterr().out


def test_the_test_part_is_stored_as_such_when_a_candidate_is_exported(finished: Path) -> None:
    with Study.load("study.yaml") as study:
        best = study.best("bits_per_byte")
        stored = study.store.study("tiny")
        assert set(study.store.measurements(stored)["split"]) == {"validation"}
        study.export(best, "out")
        found = study.store.measurements(stored, best.number)
        assert set(found[found["split"] == "test"]["metric"]) >= {"bits_per_byte", "perplexity"}


def test_the_exported_checkpoint_scores_on_validation_what_the_search_said(finished: Path) -> None:
    from nas.measure.module import EVALUATION_TOKENS
    from nas.study.plan import plan_from_config
    from nas.tasks.load import load_task

    with Study.load("study.yaml") as study:
        best = study.best("bits_per_byte")
        study.export(best, "out")
        assert study._config is not None
        task = load_task(plan_from_config(study._config).task)
    bundle, metrics = load_bundle("out"), task.metrics()
    context = bundle.architecture.max_context
    with torch.no_grad():
        for batch in task.evaluation_batches("validation", context=context, tokens_per_batch=EVALUATION_TOKENS):
            metrics.update(bundle.model(batch.inputs_BL).flatten(0, 1), batch.targets_BL.flatten())
    assert metrics.compute()["bits_per_byte"] == pytest.approx(best.values["bits_per_byte"], abs=1e-5)


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_serve_bytes_equals_weights_and_cache_counted_from_the_live_objects(
    finished: Path, dtype: str, torch_dtype: torch.dtype
) -> None:
    with Study.load("study.yaml") as study:
        for number in study.front()["trial"]:
            study.export(study.trial(int(number)), f"out-{dtype}-{number}")
            bundle = load_bundle(f"out-{dtype}-{number}", dtype=dtype)
            weights = sum(weight.numel() * weight.element_size() for weight in bundle.model.parameters())
            context = bundle.architecture.max_context
            state = bundle.model.new_state(1, context, cache_dtype=torch_dtype)  # type: ignore[operator]
            cache = sum(tensor.numel() * tensor.element_size() for tensor in state.tensors())
            assert estimate(bundle.architecture, dtype=dtype).serve_bytes == weights + cache
            if dtype == "bf16":
                assert bundle.metrics["memory"]["serve_bytes"] == weights + cache
                assert study.trial(int(number)).values["serve_bytes"] == weights + cache


def test_every_command_that_looks_says_something(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in (
        (["status"], "tiny"),
        (["list"], "tiny"),
        (["front", "tiny"], "trivial baseline"),
        (["front", "tiny", "--format", "csv"], "fingerprint"),
        (["front", "tiny", "--format", "html"], "<table"),
        (["show", "tiny", "0"], "bits_per_byte"),
        (["estimate", "space.yaml"], "serve_bytes"),
        (["estimate", "study.yaml", "--context", "32"], "serve_bytes"),
    ):
        capsys.readouterr()
        assert main(words) == 0, words
        assert expected in capsys.readouterr().out, words


def test_a_report_holds_the_front(finished: Path) -> None:
    assert main(["report", "tiny", "--to", "page"]) == 0
    text = next(Path("page").glob("*.html")).read_text()
    assert "<svg" in text and "serve_bytes" in text


def test_settings_of_the_command_line_make_another_study(finished: Path) -> None:
    words = ["run", "study.yaml", "--quiet", "--name", "other", "--seed", "1", "--trials", "1"]
    assert main([*words, "--set", "budget.rungs=1", "--set", "sampler=random"]) == 0
    with Study.load("other") as study:
        resolved = study.store.study("other").resolved
        assert resolved["seed"] == 1 and resolved["sampler"]["name"] == "random" and resolved["budget"]["rungs"] == 1


def test_a_stored_study_goes_on_by_its_name_alone(finished: Path) -> None:
    assert main(["run", "tiny", "--trials", "6", "--quiet"]) == 0
    with Study.load("tiny") as study:
        assert len(study.store.trials(study.store.study("tiny"), states=["complete"])) == 6


def test_worker_processes_give_the_same_numbers_as_this_one(finished: Path) -> None:
    assert main(["run", "study.yaml", "--quiet", "--store", "sqlite:///two.db", "--workers", "2", "--trials", "4"]) == 0
    with Study.load("tiny") as here, Study.load("tiny", store="sqlite:///two.db") as there:
        ours = {trial.candidate.key: trial.values for trial in here.store.trials(here.store.study("tiny"))}
        theirs = {trial.candidate.key: trial.values for trial in there.store.trials(there.store.study("tiny"))}
    assert len(theirs) == 4
    shared = ours.keys() & theirs.keys()
    assert shared
    for key in shared:
        assert theirs[key]["bits_per_byte"] == pytest.approx(ours[key]["bits_per_byte"], abs=1e-3)
