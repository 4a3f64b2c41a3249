"""Why trials came to nothing, by class, and why a study's last run ended, in words.

In: a store and a study. Out: lines for terminals, and one text for tables and pages.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

import pandas as pd

from nas.store import Store, StoredStudy, StoredTrial
from nas.units import format_seconds

# What became of the trials of a class, and whose fault it was.
CLASSES: Mapping[str, str] = {
    "diverged": "diverged (infeasible)",
    "out_of_memory": "ran out of memory (infeasible)",
    "timed_out": "took too long (infeasible)",
    "crashed": "failed, for the candidate's evaluation raised an exception",
    "machine": "failed, for a fault of the machine",
}
# Trials that are named for one reason, and reasons that are told for one class.
_MOST_TRIALS = 8
_MOST_REASONS = 5


def failures_in_words(trials: pd.DataFrame) -> str:
    """Why trials came to nothing, the most frequent reason first: "2× diverged: the loss is nan; …"."""
    ended = trials[trials["state"].isin(("failed", "infeasible")) & trials["failure"].notna()]
    counts = Counter(
        (kind.replace("_", " "), reason) for kind, reason in zip(ended["failure"], ended["reason"], strict=True)
    )
    # Reasons of limits begin with their class already.
    return "; ".join(
        f"{count}× {reason if reason.startswith(kind) else f'{kind}: {reason}'}"
        for (kind, reason), count in counts.most_common()
    )


def failure_lines(store: Store, study: StoredStudy) -> list[str]:
    """One line a class of failure, and below it its reasons and their trials, the most frequent first."""
    found: dict[str, list[StoredTrial]] = defaultdict(list)
    for trial in store.trials(study, states=["failed", "infeasible"]):
        if trial.failure is not None:
            found[trial.failure.kind].append(trial)
    lines = []
    for kind in (*(kind for kind in CLASSES if kind in found), *sorted(found.keys() - CLASSES.keys())):
        lines.append(f"{study.name}: {len(found[kind])} {CLASSES.get(kind, kind)}")
        lines += _reason_lines(found[kind])
    return lines


def ended_lines(study: StoredStudy) -> list[str]:
    """Why the last run ended, and how long all of them took; nothing of one that goes on, or was killed."""
    reason = study.resolved.get("ended")
    if reason is None:
        return []
    return [f"{study.name}: ended after {format_seconds(float(study.resolved.get('run_seconds', 0)))}: {reason}"]


def _reason_lines(trials: list[StoredTrial]) -> list[str]:
    by_reason: dict[str, list[int]] = defaultdict(list)
    for trial in trials:
        by_reason[trial.reason].append(trial.number)
    ordered = sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[1]))
    lines = [f"  {_numbers(numbers)}: {reason}" for reason, numbers in ordered[:_MOST_REASONS]]
    left = sum(len(numbers) for _, numbers in ordered[_MOST_REASONS:])
    return [*lines, f"  and {left} more, see nas show"] if left else lines


def _numbers(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:_MOST_TRIALS])) + (", …" if len(numbers) > _MOST_TRIALS else "")
    return f"trial {shown}" if len(numbers) == 1 else f"{len(numbers)} trials ({shown})"
