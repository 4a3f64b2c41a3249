"""`nas --help` and `nas check` import no torch, and every shipped file is valid."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = sorted([*ROOT.glob("search_spaces/*.yaml"), *ROOT.glob("studies/*.yaml")])
PROGRAM = """
import sys
from nas.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as error:
    status = error.code
heavy = [name for name in ("torch", "lightning", "torchmetrics", "optuna", "sqlalchemy") if name in sys.modules]
print("imported:", heavy, file=sys.stderr)
sys.exit(status or (3 if heavy else 0))
"""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=False, cwd=ROOT
    )


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["--version"]])
def test_help_is_torch_free(words: list[str]) -> None:
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_check_is_torch_free_and_every_shipped_file_is_valid() -> None:
    assert SHIPPED
    done = run("check", *map(str, SHIPPED))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is valid") == len(SHIPPED)


def test_estimate_is_torch_free() -> None:
    done = run("estimate", "hybrid_decoder")
    assert done.returncode == 0, done.stderr
    assert "serve_bytes" in done.stdout


def test_shipped_files_are_found_by_name() -> None:
    done = run("check", "quickstart", "hybrid_decoder")
    assert done.returncode == 0, done.stderr


def test_errors_of_several_files_are_all_shown(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("name: x\nfamilly: decoder\n")
    done = run("check", str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"))
    assert done.returncode == 2
    assert "a.yaml:2" in done.stderr and "b.yaml:2" in done.stderr and "did you mean 'family'" in done.stderr


def test_an_unknown_command_names_the_nearest() -> None:
    done = run("chekc")
    assert done.returncode == 2
    assert "did you mean 'check'" in done.stderr
