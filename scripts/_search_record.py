"""What was run: one entry for each run, in a JSON file that grows line by line.

In: entries. Out: a file, replaced whole at each entry, so that a run can be killed at any moment.
An entry holds the words that its run depends on; one of other words counts as not run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Entry = Mapping[str, Any]


@dataclass(frozen=True, order=True)
class Task:
    """One run.

    Attributes:
        kind: "table", "wide", "speed", "live" or "ranks".
        seed: first, so that the runs of one seed stand together.
        on: name of the table or task, or the number of parameters.
        method: that searches.
    """

    kind: str
    seed: int
    on: str
    method: str

    @property
    def key(self) -> str:
        """Under which it is kept."""
        return f"{self.kind}/{self.on}/{self.method}/{self.seed}"

    @staticmethod
    def of(key: str) -> Task:
        """The task of a key."""
        kind, on, method, seed = key.split("/")
        return Task(kind, int(seed), on, method)


class Record:
    """The entries of a file.

    Args:
        path: of it; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self._entries: dict[str, Entry] = found

    def find(self, task: Task, words: str) -> Entry | None:
        """The entry of a run of the same words."""
        entry = self._entries.get(task.key)
        return entry if entry is not None and entry["words"] == words else None

    def add(self, task: Task, entry: Entry) -> None:
        """Keeps an entry at once."""
        self._entries[task.key] = entry
        lines = [f"{json.dumps(key)}: {json.dumps(self._entries[key])}" for key in sorted(self._entries)]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".tmp")
        beside.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        beside.replace(self.path)

    def __iter__(self) -> Iterator[tuple[Task, Entry]]:
        return iter((Task.of(key), entry) for key, entry in sorted(self._entries.items()))

    def of(self, kind: str, on: str) -> dict[str, list[Entry]]:
        """Method → its entries, by ascending seed."""
        found: dict[str, list[Entry]] = {}
        for task, entry in sorted(self, key=lambda pair: pair[0]):
            if (task.kind, task.on) == (kind, on):
                found.setdefault(task.method, []).append(entry)
        return found

    def names(self, kind: str) -> list[str]:
        """On what there are runs of a kind."""
        return sorted({task.on for task, _ in self if task.kind == kind})
