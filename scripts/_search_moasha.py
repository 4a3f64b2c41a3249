"""MOASHA of Syne Tune (Schmucker et al. 2021) as a method of the simulation.

In: a Python that has syne-tune. Out: a `Method`. Their scheduler runs in a process of that Python
(_search_syne.py) and is driven as their own tuner drives it: suggestions, the scores of each rung
with the memory beside it, and its verdict. Whom it stops does not go on. It draws at random, so a
draw that is not new is simply drawn again.
"""

from __future__ import annotations

import json
import subprocess
from collections import deque
from pathlib import Path
from typing import Any

from _search_replay import Replay
from _search_simulate import Method

DRIVER = Path(__file__).resolve().parent / "_search_syne.py"
TRIES = 20_000


class Moasha(Method):
    """Their scheduler in a process beside ours.

    Args:
        replay: that is searched; parameters with a finite number of values.
        python: that has syne-tune.
        seed: of the run.
        reduction_factor: of the rungs.
    """

    def __init__(self, replay: Replay, *, python: str, seed: int, reduction_factor: int) -> None:
        self._replay = replay
        self._process = subprocess.Popen(
            [python, str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._sign = [1.0 if axis.direction == "minimize" else -1.0 for axis in replay.table.axes]
        first = replay.table.rung_tokens[0]
        # Their unit of time: the tokens of the first rung.
        self._times = [round(tokens / first) for tokens in replay.table.rung_tokens]
        choices = {parameter.name: list(parameter.domain.grid or ()) for parameter in replay.table.space.parameters}
        assert all(choices.values()), "MOASHA is given finite spaces alone"
        self._say(do="make", choices=choices, seed=seed, most=self._times[-1], factor=reduction_factor)
        self._begun: set[int] = set()
        self._going: deque[int] = deque()
        self.paused: set[int] = set()

    def next(self) -> int | None:
        """See `Method.next`."""
        if self._going:
            return self._going.popleft()
        for _ in range(TRIES):
            config = self._say(do="suggest")
            row = self._replay.place(config)
            if row is not None and row not in self._begun:
                self._begun.add(row)
                self._say(do="add", trial=row, config=config)
                return row
        return None

    def reached(self, row: int, rung: int, score: float) -> None:
        """See `Method.reached`."""
        values = [sign * value for sign, value in zip(self._sign, (score, self._replay.rows[row].memory), strict=True)]
        last = rung == self._replay.rungs - 1
        verdict = self._say(do="end" if last else "result", trial=row, time=self._times[rung], values=values)
        if verdict == "CONTINUE" and not last:
            self._going.append(row)
        elif not last:
            self.paused.add(row)

    def failed(self, row: int) -> None:
        """See `Method.failed`."""
        self._say(do="remove", trial=row)

    def close(self) -> None:
        """See `Method.close`: lets go of the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)

    def _say(self, **words: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"syne-tune's process ended with {self._process.wait()} at {words['do']}")
        return json.loads(answer)
