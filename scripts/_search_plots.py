"""The pictures of docs/search.md: hypervolume against what was spent, median and quartiles over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _search_checks import share_at
from _search_record import Entry, Record
from _search_run import FIRST, TRAININGS

STEP = 0.5


def draw_table(found: Mapping[str, Sequence[Entry]], labels: Mapping[str, str], path: Path) -> None:
    """One line for each method."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    spent = np.arange(1.0, TRAININGS + STEP, STEP)
    for place, name in enumerate(name for name in labels if found.get(name)):
        curves = np.array([[share_at(run["curve"], at) for at in spent] for run in found[name]])
        _line(axes, spent, curves, f"C{place}", labels[name])
    axes.axhline(0.95, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("training tokens, in whole trainings")
    axes.set_ylabel("hypervolume, share of the true front's")
    axes.set_ylim(bottom=max(0.0, _bottom(found, labels) - 0.02))
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_wide(record: Record, path: Path) -> None:
    """One panel for each size."""
    pyplot = _pyplot()
    sizes = sorted(record.names("wide"), key=int)
    figure, panels = pyplot.subplots(
        1, len(sizes), figsize=(4.2 * len(sizes), 4), layout="constrained", sharey=True, squeeze=False
    )
    for axes, size in zip(panels[0], sizes, strict=True):
        for place, (name, runs) in enumerate(sorted(record.of("wide", size).items())):
            curves = np.array([run["curve"] for run in runs])
            _line(axes, np.arange(FIRST, FIRST + curves.shape[1]), curves, f"C{place}", name)
        axes.set_title(f"{size} parameters")
        axes.set_xlabel("evaluations")
    panels[0][0].set_ylabel("hypervolume, share of the best known")
    panels[0][0].legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _line(axes: Any, places: Any, curves: Any, color: str, label: str) -> None:
    low, middle, high = np.quantile(curves, [0.25, 0.5, 0.75], axis=0)
    axes.plot(places, middle, color=color, label=label, drawstyle="steps-post")
    axes.fill_between(places, low, high, color=color, alpha=0.15, step="post", linewidth=0)
    axes.grid(alpha=0.3)


def _bottom(found: Mapping[str, Sequence[Entry]], labels: Mapping[str, str]) -> float:
    """Where the lowest quartile stands at the first budget that is compared."""
    firsts = [
        float(np.quantile([share_at(run["curve"], FIRST) for run in found[name]], 0.25))
        for name in labels
        if found.get(name)
    ]
    return min(firsts, default=0.0)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
