"""What was learnt of a device's memory, in words: measured peaks of training beside the predicted ones.

In: a store. Out: lines for terminals. The correction changes no figure and no objective: it tells what a device will
hold, and which candidates a study's memory_limit excludes.
"""

from __future__ import annotations

from nas.store import Correction, Store, StoredStudy, StoredTrial
from nas.units import format_bytes


def correction_lines(store: Store) -> list[str]:
    """One line a device and precision on which trials were measured."""
    return [
        f"memory on {found.device}, {found.dtype}: measured peaks of training are {found.ratio:.3g} times "
        f"the predicted ({found.lowest:.3g} to {found.highest:.3g}, {_trials(found)})"
        for found in store.corrections()
    ]


def corrected_lines(store: Store, study: StoredStudy, trial: StoredTrial) -> list[str]:
    """What the trial's predicted peak of training comes to on each device that was measured."""
    figures = store.memory(study, trial.number)
    rows = figures[(figures["figure"] == "train_peak_bytes") & (figures["kind"] == "predicted")]
    if not len(rows):
        return []
    # Its training batches' were stored last.
    row = rows.iloc[-1]
    size = int(row["bytes"])
    return [
        f"train_peak_bytes {format_bytes(size)} (batch {row['batch']}, context {row['context']}) × {found.ratio:.3g} = "
        f"{format_bytes(size * found.ratio)} expected on {found.device}, {found.dtype} ({_trials(found)})"
        for found in store.corrections()
    ]


def _trials(found: Correction) -> str:
    return "1 trial" if found.trials == 1 else f"{found.trials} trials"
