"""The ten lines of the README: one's own evaluator and known objective, in an unguarded script."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def ten_lines() -> str:
    """The README's Python block that defines an evaluator."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (found,) = [block for block in blocks if "evaluate=" in block]
    return str(found)


def test_the_readmes_ten_lines_run_as_they_stand(tmp_path: Path) -> None:
    script = ten_lines()
    assert "__main__" not in script
    assert len([line for line in script.splitlines() if line.strip()]) <= 12
    (tmp_path / "mine.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "mine.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "perplexity" in done.stdout and "memory_mib" in done.stdout
    assert (tmp_path / "mine.db").exists()
