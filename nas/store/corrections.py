"""How measured peaks of training compare with predicted ones: the correction of a device.

In: a session. Out: for each device and precision, the ratio of measured to predicted peak over the complete trials of
all studies. Predictions count tensors; a device also holds what libraries take beside them, which differs from one to
the next. The ratios are read from the figures that were stored, so what is shown is what is there.
"""

from __future__ import annotations

import statistics

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from nas.store.entries import Correction
from nas.store.tables import MemoryRow, TrialRow

PREDICTED = "train_peak_bytes"
# What the training of a trial held at most: all of it, while a probe measures one step alone.
MEASURED = "trained_peak_bytes"


def corrections(session: Session) -> list[Correction]:
    """One for each device and precision that a complete trial was measured on, by name."""
    measured, predicted = aliased(MemoryRow), aliased(MemoryRow)
    statement = (
        select(measured.device, measured.dtype, measured.bytes, predicted.bytes)
        .join(TrialRow, TrialRow.id == measured.trial_id)
        .join(predicted, predicted.trial_id == measured.trial_id)
        .where(TrialRow.state == "complete", measured.kind == "measured", predicted.kind == "predicted")
        .where(measured.figure == MEASURED, predicted.figure == PREDICTED, predicted.bytes > 0)
        .where(measured.batch == predicted.batch, measured.context == predicted.context)
    )
    ratios: dict[tuple[str, str], list[float]] = {}
    for device, dtype, of_device, of_formula in session.execute(statement):
        ratios.setdefault((device, dtype), []).append(of_device / of_formula)
    return [
        Correction(
            device=device,
            dtype=dtype,
            ratio=statistics.median(found),
            lowest=min(found),
            highest=max(found),
            trials=len(found),
        )
        for (device, dtype), found in sorted(ratios.items())
    ]
