"""Drives Syne Tune's MOASHA for another process: one JSON line in, one out.

Run by a Python that has syne-tune and need have nothing of ours: see _search_moasha.py.
"""

from __future__ import annotations

import datetime
import json
import logging
import random
import sys
from typing import Any


class Driver:
    """Their scheduler and the trials that it knows."""

    def __init__(self, words: dict[str, Any]) -> None:
        import numpy as np
        from syne_tune.backend.trial_status import Trial
        from syne_tune.config_space import choice
        from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

        # Its draws are of the global generators.
        random.seed(words["seed"])
        np.random.seed(words["seed"])
        self._make_trial = Trial
        self._trials: dict[int, Any] = {}
        self._scheduler = MOASHA(
            {name: choice(values) for name, values in words["choices"].items()},
            metrics=["score", "memory"],
            time_attr="time",
            max_t=words["most"],
            grace_period=1,
            reduction_factor=words["factor"],
            random_seed=words["seed"],
        )

    def answer(self, words: dict[str, Any]) -> Any:
        """What the scheduler says to one event."""
        kind, number = words["do"], words.get("trial")
        if kind == "suggest":
            return self._scheduler.suggest().config
        if kind == "add":
            self._trials[number] = self._make_trial(number, words["config"], datetime.datetime.now())
            return self._scheduler.on_trial_add(self._trials[number])
        if kind == "remove":
            return self._scheduler.on_trial_remove(self._trials[number])
        score, memory = words["values"]
        result = {"time": words["time"], "score": score, "memory": memory}
        if kind == "end":
            return self._scheduler.on_trial_complete(self._trials[number], result)
        return str(self._scheduler.on_trial_result(self._trials[number], result))


def main() -> None:
    logging.disable(logging.WARNING)
    driver: Driver | None = None
    for line in sys.stdin:
        words = json.loads(line)
        if driver is None:
            driver = Driver(words)
            answer = None
        else:
            answer = driver.answer(words)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
