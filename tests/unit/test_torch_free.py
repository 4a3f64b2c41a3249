"""Checking a space or a study, asking for its cost and reading a store import nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "nas"
HEAVY = ("torch", "lightning", "torchmetrics", "optuna", "transformers")
LIGHT_ROOMS = ("specs", "space", "cost")
LIGHT_FILES = ("errors", "units", "catalog", "records", "files", "pareto", "objectives", "config")


def light_modules() -> list[str]:
    files = [PACKAGE / f"{name}.py" for name in LIGHT_FILES]
    files += [path for room in LIGHT_ROOMS for path in sorted((PACKAGE / room).rglob("*.py"))]
    dotted = [".".join(("nas", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in files]
    return [name.removesuffix(".__init__") for name in dotted]


def heavy_after(code: str) -> list[str]:
    """The heavy packages that a new process has imported after running some code."""
    show = f"\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code + show],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_the_torch_free_half_imports_nothing_heavy() -> None:
    modules = light_modules()
    assert len(modules) > 20
    assert heavy_after("import " + ", ".join(modules)) == []


@pytest.mark.parametrize("module", ["nas", "nas.store", "nas.report"])
def test_the_public_face_the_store_and_the_report_import_no_torch(module: str) -> None:
    assert "torch" not in heavy_after(f"import {module}")


def test_drawing_from_a_space_and_estimating_its_cost_imports_nothing_heavy() -> None:
    code = (
        "from nas.space import Space; from nas.cost import estimate; from nas.config import load_study_config\n"
        "space = Space.load('hybrid_decoder'); estimate(space.sample(0)); load_study_config('recall')"
    )
    assert heavy_after(code) == []


def test_the_check_itself_sees_what_is_imported() -> None:
    assert heavy_after("import sys; sys.modules['torch'] = sys") == ["torch"]
