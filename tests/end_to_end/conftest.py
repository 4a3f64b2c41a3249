"""A working directory with a study that trains in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests_support import write_study


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a space, a study and a corpus."""
    write_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
