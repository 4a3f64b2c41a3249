"""Keeps what was measured of a network beside what is predicted of it."""

from __future__ import annotations

from nas.measure.probe import Probed, Work
from nas.space.architecture import Architecture
from nas.store import MemoryFigure, Store


def keep(store: Store, architecture: Architecture, found: Probed) -> list[tuple[str, int]]:
    """Adds the figures to every trial of the network.

    Args:
        store: to look through.
        architecture: bound.
        found: what was measured of it.

    Returns:
        The name of the study and the number of each trial.
    """
    figures = memory_figures(found)
    kept = []
    for study in store.studies():
        for trial in store.trials(study):
            if trial.candidate.architecture.fingerprint == architecture.fingerprint:
                store.add_memory(trial, figures)
                kept.append((study.name, trial.number))
    return kept


def memory_figures(found: Probed) -> list[MemoryFigure]:
    """What was measured as figures of the store: peaks of tensors by the names of their predictions."""
    figures = [
        *_figures("train", "fp32", found.training, found),
        *_figures("prefill", found.probe.dtype, found.prefill, found),
    ]
    if found.state_bytes:
        figures.append(_figure("state_bytes", found.state_bytes, found.probe.dtype, found))
    return figures


def _figures(name: str, dtype: str, work: Work, found: Probed) -> list[MemoryFigure]:
    kinds = {"peak": work.peak_bytes, "reserved": work.reserved_bytes, "resident": work.resident_bytes}
    return [_figure(f"{name}_{kind}_bytes", size, dtype, found) for kind, size in kinds.items() if size is not None]


def _figure(name: str, size: int, dtype: str, found: Probed) -> MemoryFigure:
    return MemoryFigure(
        figure=name,
        kind="measured",
        bytes=size,
        batch=found.probe.batch,
        context=found.probe.context,
        dtype=dtype,
        device=found.device,
    )
