"""A run that is killed loses nothing and repeats nothing."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from nas.cli import main

pytestmark = pytest.mark.slow


def start(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "nas", "run", "study.yaml", "--quiet", *words],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def rows(folder: Path, query: str) -> list[tuple[object, ...]]:
    if not (folder / "nas.db").exists():
        return []
    database = sqlite3.connect(folder / "nas.db", timeout=30)
    try:
        return database.execute(query).fetchall()
    except sqlite3.OperationalError:
        # The tables are not there yet.
        return []
    finally:
        database.close()


def wait_for(folder: Path, process: subprocess.Popen[bytes], *, complete: int) -> None:
    limit = time.monotonic() + 240
    query = "select count(*) from nas_trials where state = 'complete'"
    while time.monotonic() < limit and process.poll() is None:
        found = rows(folder, query)
        if found and int(str(found[0][0])) >= complete:
            return
        time.sleep(0.02)
    raise AssertionError("the run ended or stalled before it could be stopped")


def finished(folder: Path) -> dict[object, tuple[object, ...]]:
    found = rows(
        folder,
        "select c.key, t.number, t.seed, t.tokens, v.value from nas_trials t join nas_candidates c on "
        "c.key = t.candidate_key join nas_values v on v.trial_id = t.id "
        "where t.state = 'complete' and v.objective = 'bits_per_byte'",
    )
    return {row[0]: row[1:] for row in found}


@pytest.mark.parametrize("workers", ["0", "2"])
def test_killed_and_run_again_it_ends_with_the_asked_number_and_no_candidate_trained_twice(
    folder: Path, workers: str
) -> None:
    for complete in (1, 3):
        process = start(folder, "--workers", workers, "--trials", "8")
        wait_for(folder, process, complete=complete)
        before = finished(folder)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert finished(folder).items() >= before.items()
    kept = finished(folder)
    assert main(["run", "study.yaml", "--quiet", "--trials", "8"]) == 0
    states = Counter(str(row[0]) for row in rows(folder, "select state from nas_trials"))
    assert states["complete"] == 8 and not states["running"] and not states["failed"]
    assert finished(folder).items() >= kept.items()
    pairs = rows(folder, "select candidate_key, seed from nas_trials")
    assert len(set(pairs)) == len(pairs)
    # 5,120 tokens each, in 20 steps of 256: nothing was trained beyond its budget.
    assert {row[0] for row in rows(folder, "select tokens from nas_trials where state = 'complete'")} == {5120}
    optuna = Counter(str(row[0]) for row in rows(folder, "select state from trials"))
    assert optuna["COMPLETE"] >= 8 and not optuna["RUNNING"]


def test_workers_of_a_killed_run_leave_too(folder: Path) -> None:
    process = start(folder, "--workers", "2", "--trials", "50")
    wait_for(folder, process, complete=1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    limit = time.monotonic() + 30
    while time.monotonic() < limit and _members(process.pid):
        time.sleep(0.1)
    assert not _members(process.pid)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(folder: Path, workers: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "nas", "run", "study.yaml", "--trials", "50", "--workers", workers],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests themselves run in the background, SIGINT is ignored and that is inherited.
        preexec_fn=_mind_ctrl_c,
    )
    limit = time.monotonic() + 240
    while time.monotonic() < limit and not finished(folder):
        time.sleep(0.02)
    # As a terminal does it: to the whole group, workers included.
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on" in errors and "Traceback" not in errors
    kept = finished(folder)
    assert kept
    assert main(["run", "study.yaml", "--quiet", "--trials", str(len(kept) + 2)]) == 0
    assert finished(folder).items() >= kept.items() and len(finished(folder)) == len(kept) + 2


def _mind_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _members(group: int) -> list[str]:
    """Processes of a process group that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(path.parent.name)
    return found
