"""Memory against context, beyond what a network was trained for.

In: architectures. Out: the formulas' figures at doubling contexts, as text and as a matplotlib figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.cost.estimate import estimate
from nas.report.canvas import (
    MARKERS,
    QUIET,
    SERIES,
    byte_ticks,
    label_axis,
    log2_scale,
    new_figure,
    place_ticks,
    show_legend,
)
from nas.report.charts import curves
from nas.space.architecture import Architecture
from nas.specs import family_spec
from nas.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIRST_CONTEXT = 256
# How many times the longest max_context is shown.
BEYOND = 8


@dataclass(frozen=True)
class MemoryCurve:
    """One figure of memory of several networks over common contexts.

    Attributes:
        figure: its name.
        contexts: in tokens.
        values: name of a network → bytes at each context, None where it has no such context.
    """

    figure: str
    contexts: tuple[int, ...]
    values: Mapping[str, Sequence[float | None]]


def memory_curves(networks: Mapping[str, Architecture]) -> tuple[MemoryCurve, ...]:
    """What serving (prefill, where a family does not decode) and a training step take, at batch 1.

    Args:
        networks: by name; at least one.
    """
    longest = max(network.max_context for network in networks.values())
    # The networks' own contexts are among those that are shown.
    contexts = [min(FIRST_CONTEXT, *(network.max_context for network in networks.values()))]
    while contexts[-1] < BEYOND * longest:
        contexts.append(2 * contexts[-1])
    decode = all(family_spec(network.family).decodes for network in networks.values())
    costs = {
        name: [
            estimate(network, context=context) if network.extends or context <= network.max_context else None
            for context in contexts
        ]
        for name, network in networks.items()
    }
    # Learned positions of all networks may end before the first context.
    shown = [place for place in range(len(contexts)) if any(found[place] is not None for found in costs.values())]
    return tuple(
        MemoryCurve(
            figure=figure,
            contexts=tuple(contexts[place] for place in shown),
            values={
                name: [None if (cost := found[place]) is None else float(getattr(cost, figure)) for place in shown]
                for name, found in costs.items()
            },
        )
        for figure in ("serve_bytes" if decode else "prefill_peak_bytes", "train_peak_bytes")
    )


def memory_chart(networks: Mapping[str, Architecture]) -> list[str]:
    """`memory_curves` as text, and what there is to say of the contexts."""
    lines = []
    for curve in memory_curves(networks):
        what = "fp32 with AdamW" if curve.figure == "train_peak_bytes" else "weights and cache in bf16"
        lines += ["", f"{curve.figure} by context in tokens (batch 1, {what})"]
        if curve.contexts:
            lines += curves(curve.contexts, curve.values, x_text=lambda tokens: f"{tokens:.0f}", y_text=format_bytes)
    lines.append("")
    for name, network in networks.items():
        beyond = "beyond it by formula" if network.extends else "its learned positions end there"
        lines.append(f"{name}: max_context {network.max_context:,}; {beyond}")
    return lines


def plot_memory(networks: Mapping[str, Architecture]) -> Figure:
    """`memory_curves` as a picture, one pane for each figure; a dotted line is a network's max_context.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    drawn = memory_curves(networks)
    figure, panes = new_figure(columns=len(drawn))
    for axes, curve in zip(panes, drawn, strict=True):
        log2_scale(axes, "x")
        log2_scale(axes, "y")
        known = [value for values in curve.values.values() for value in values if value is not None]
        for index, (name, values) in enumerate(curve.values.items()):
            color, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
            # A missing value is a gap in the line.
            ys = [float("nan") if value is None else value for value in values]
            axes.plot(curve.contexts, ys, "-", marker=marker, markersize=4, color=color, label=name)
            axes.axvline(networks[name].max_context, color=QUIET, linestyle=":", linewidth=1)
        place_ticks(axes.xaxis, curve.contexts[::2], lambda tokens: f"{tokens:,.0f}")
        if known:
            place_ticks(axes.yaxis, byte_ticks(min(known), max(known)), format_bytes)
        label_axis(axes.xaxis, "context in tokens")
        label_axis(axes.yaxis, f"{curve.figure}, batch 1")
        show_legend(axes)
    return figure
