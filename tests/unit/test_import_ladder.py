"""Imports go down the ladder only, and third parties have owners.

Read from the source, imports inside functions included; those for the type checker alone are left
out, since they do not run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "nas"

# From the bottom to the top; rooms of one step never import each other.
LADDER = (
    ("errors",),
    ("units",),
    ("catalog",),
    ("specs",),
    ("space",),
    ("cost",),
    ("records",),
    ("files",),
    ("pareto",),
    ("objectives",),
    ("limits",),
    ("config",),
    ("tasks", "mixers"),
    ("models",),
    ("measure", "search", "store", "executors"),
    ("export", "report"),
    ("study",),
    ("cli",),
)
STEP = {room: step for step, rooms in enumerate(LADDER) for room in rooms}

# The public face and the entry point reach anywhere.
EXEMPT = ("__init__.py", "__main__.py")

# Who may import a third party: files and folders of the package.
OWNERS = {
    "optuna": ("search/", "report/dashboard.py"),
    "optuna_dashboard": ("report/dashboard.py",),
    "lightning": ("measure/",),
    "torchmetrics": ("tasks/",),
    "sqlalchemy": ("store/",),
    "alembic": ("store/",),
    "pandas": ("store/", "report/", "study/"),
    "yaml": ("space/", "config.py"),
    "pydantic": ("space/", "config.py", "limits.py"),
    "pydantic_core": ("space/", "config.py"),
    "dask": ("executors/dask.py",),
    "distributed": ("executors/dask.py",),
    "transformers": ("export/",),
    "tokenizers": ("tasks/tokenizers/",),
    "pyarrow": ("tasks/data/",),
    "zstandard": ("tasks/data/",),
    "datasets": ("tasks/data/hub.py",),
    "torch": ("tasks/", "mixers/", "models/", "measure/", "export/", "study/", "executors/"),
}


def violations(package: Path) -> list[str]:
    """What breaks the rules in a package, one line each."""
    found = []
    for path in sorted(package.rglob("*.py")):
        file = path.relative_to(package).as_posix()
        for name in imported(path, package):
            parts = name.split(".")
            owners = OWNERS.get(parts[0])
            if parts[0] == package.name:
                found += step_broken(file, parts[1] if len(parts) > 1 else "")
            elif owners is not None and not file.startswith(owners):
                found.append(f"{file} imports {parts[0]}, which belongs to {', '.join(owners)}")
    return found


def step_broken(file: str, imported_room: str) -> Iterator[str]:
    """The rule of the ladder that a file breaks by importing a room."""
    room = file.split("/")[0].removesuffix(".py")
    if file in EXEMPT or room == imported_room:
        return
    if room not in STEP:
        yield f"{file} is in no room of the ladder"
    elif imported_room not in STEP:
        yield f"{file} imports '{imported_room}', which is no room of the ladder"
    elif STEP[imported_room] >= STEP[room]:
        yield f"{file} imports {imported_room}, which is not below {room}"


def imported(path: Path, package: Path) -> Iterator[str]:
    """Dotted names of the modules that a file imports when it runs."""
    inside = [package.name, *path.relative_to(package).parent.parts]
    for node in running(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = inside[: len(inside) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            # "from nas import space" imports the module nas.space.
            yield from (f"{module}.{alias.name}" for alias in node.names) if module == package.name else [module]


def running(node: ast.AST) -> Iterator[ast.AST]:
    """A node and everything below it but what is for the type checker alone."""
    yield node
    for field, value in ast.iter_fields(node):
        children = value if isinstance(value, list) else [value]
        if field == "body" and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        for child in children:
            if isinstance(child, ast.AST):
                yield from running(child)


def test_imports_go_down_the_ladder_and_third_parties_have_owners() -> None:
    assert violations(PACKAGE) == []


def test_every_room_of_the_package_is_on_the_ladder() -> None:
    rooms = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert rooms - {"__init__", "__main__", "__pycache__", "py.typed", "shipped"} == set(STEP)


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("space/a.py", "import nas.cost", "space/a.py imports cost, which is not below space"),
        ("space/a.py", "from nas.cost import estimate", "space/a.py imports cost, which is not below space"),
        ("space/a.py", "from nas.cost.estimate import estimate", "space/a.py imports cost, which is not below space"),
        ("space/a.py", "from nas import cost", "space/a.py imports cost, which is not below space"),
        ("space/a.py", "from ..cost import estimate", "space/a.py imports cost, which is not below space"),
        ("space/a.py", "from .. import cost", "space/a.py imports cost, which is not below space"),
        (
            "space/a.py",
            "def f():\n    from nas.study import Study",
            "space/a.py imports study, which is not below space",
        ),
        ("space/a.py", "from nas import Space", "space/a.py imports 'Space', which is no room of the ladder"),
        ("space/a.py", "import nas", "space/a.py imports '', which is no room of the ladder"),
        ("tasks/a.py", "from nas.mixers import base", "tasks/a.py imports mixers, which is not below tasks"),
        (
            "store/deep/a.py",
            "from nas.search import mirror",
            "store/deep/a.py imports search, which is not below store",
        ),
        ("report/a.py", "from nas.export import card", "report/a.py imports export, which is not below report"),
        ("units.py", "from nas.catalog import load", "units.py imports catalog, which is not below units"),
        ("attic/a.py", "from nas.errors import NasError", "attic/a.py is in no room of the ladder"),
        (
            "space/a.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    from nas.cost import estimate",
            "space/a.py imports cost, which is not below space",
        ),
        (
            "study/loop.py",
            "import optuna",
            "study/loop.py imports optuna, which belongs to search/, report/dashboard.py",
        ),
        ("report/plots.py", "from optuna.trial import Trial", "report/plots.py imports optuna, which belongs to"),
        ("store/a.py", "import torch", "store/a.py imports torch, which belongs to"),
        ("space/a.py", "def f():\n    import torch.nn as nn", "space/a.py imports torch, which belongs to"),
        ("executors/local.py", "import dask", "executors/local.py imports dask, which belongs to executors/dask.py"),
        ("__init__.py", "import pandas", "__init__.py imports pandas, which belongs to store/, report/, study/"),
    ],
)
def test_the_checker_sees_what_breaks_a_rule(tmp_path: Path, file: str, text: str, complaint: str) -> None:
    found = violations(made_up(tmp_path, file, text))
    assert len(found) == 1
    assert found[0].startswith(complaint)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("space/a.py", "from nas.specs import mixer_spec\nfrom nas.errors import SpaceError\nfrom nas import catalog"),
        ("space/a.py", "from nas.space.b import c\nfrom .b import c\nfrom . import b\nfrom ..specs import base"),
        ("space/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from nas.cost import estimate"),
        ("space/a.py", "import typing\nif typing.TYPE_CHECKING:\n    import torch"),
        ("report/dashboard.py", "import optuna"),
        ("__init__.py", "from nas.study import Study"),
        ("__main__.py", "from nas.cli import main"),
        ("config.py", "import yaml\nfrom nas.objectives import Objective"),
        ("models/a.py", "import torch\nfrom nas.mixers import base"),
    ],
)
def test_the_checker_lets_the_rest_pass(tmp_path: Path, file: str, text: str) -> None:
    assert violations(made_up(tmp_path, file, text)) == []


def made_up(folder: Path, file: str, text: str) -> Path:
    """A package of one file."""
    package = folder / "nas"
    path = package / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return package
