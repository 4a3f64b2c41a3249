"""The pictures of a study.

In: a store and a study. Out: matplotlib figures, which `canvas.to_png` and `canvas.to_svg` write.
Each says in words when there is nothing to draw yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from nas.report.canvas import (
    BASELINE,
    FRONT,
    INK,
    MARKERS,
    QUIET,
    SERIES,
    count_axis,
    label_axis,
    log2_scale,
    new_figure,
    objective_axis,
    place_ticks,
    show_legend,
    show_note,
)
from nas.report.series import (
    Pair,
    complete_points,
    context_curves,
    headline,
    learning_curves,
    pairs,
    staircase,
)
from nas.report.spread import deviation_column
from nas.report.wording import value_text
from nas.store import Store, StoredObjective, StoredStudy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NO_TRIAL = "no trial is complete yet"
# Beyond so many, numbers beside the points hide more than they say.
MOST_LABELS = 16
# A baseline that would squeeze the points into less than this share of the axis is named at its edge.
SMALLEST_SHARE = 0.25
# With more objectives a picture shows the front's shadow, and members lie off the stairway.
SHADOWLESS = 2
# What a number beside a point covers, across and up.
LABEL_PIXELS = (17.0, 11.0)
# Of the height of the axes.
LABEL_HEIGHT = 0.05


def plot_front(store: Store, study: StoredStudy) -> Figure:
    """Every complete trial, the front as a stairway, and the trivial baseline.

    A trial with replicates stands at its mean, with bars of one standard deviation over seeds.

    With more than two objectives: the first two pairs of a known and a measured one, side by side.
    """
    points, drawn = complete_points(store, study), pairs(study.objectives)
    figure, all_axes = new_figure(columns=max(1, len(drawn)))
    for axes in all_axes[len(drawn) if len(points) else 0 :]:
        show_note(axes, NO_TRIAL)
    for axes, pair in zip(all_axes, drawn if len(points) else [], strict=False):
        _draw_front(axes, points, pair, objectives=len(study.objectives))
    return figure


def plot_hypervolume(store: Store, study: StoredStudy) -> Figure:
    """Hypervolume of each recorded front against the tokens and the trials behind it."""
    fronts = store.fronts(study).dropna(subset=["hypervolume"])
    spent = {"tokens": "training tokens, all trials", "trials_done": "trials begun"}
    # A user's own evaluator counts no tokens.
    shown = {column: text for column, text in spent.items() if fronts[column].any()}
    figure, all_axes = new_figure(columns=max(1, len(shown)))
    if not shown:
        show_note(all_axes[0], NO_TRIAL)
    for axes, (column, text) in zip(all_axes, shown.items(), strict=False):
        axes.step(fronts[column], fronts["hypervolume"], where="post", color=FRONT, linewidth=2)
        axes.plot(fronts[column], fronts["hypervolume"], "o", color=FRONT, markersize=3.5)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        count_axis(axes.xaxis, text)
        label_axis(axes.yaxis, "hypervolume, share of 1 (higher is better)")
    return figure


def plot_learning_curves(store: Store, study: StoredStudy) -> Figure:
    """The first measured objective by training step (rungs), the front's members highlighted."""
    curves, objective = learning_curves(store, study), headline(study)
    figure, (axes,) = new_figure()
    if objective is None or not len(curves):
        show_note(axes, "no trial has reached its first rung yet")
        return figure
    for _, curve in curves[~curves["on_front"]].groupby("trial"):
        axes.plot(curve["step"], curve["value"], "-o", color=QUIET, linewidth=0.9, markersize=2.5, alpha=0.45)
    members = curves[curves["on_front"]]
    for _, curve in members.groupby("trial"):
        axes.plot(curve["step"], curve["value"], "-o", color=FRONT, linewidth=1.8, markersize=4.5)
    _name_groups(axes, others=bool((~curves["on_front"]).any()))
    objective_axis(axes, "y", objective, list(curves["value"]))
    _label_ends(axes, members)
    label_axis(axes.xaxis, "training steps")
    steps = sorted(set(curves["step"]))
    if len(steps) <= MOST_LABELS:
        log2_scale(axes, "x")
        place_ticks(axes.xaxis, steps, lambda step: f"{step:.0f}")
    return figure


def plot_context(store: Store, study: StoredStudy) -> Figure:
    """The first measured objective against context length, for front members measured at several."""
    curves, objective = context_curves(store, study), headline(study)
    figure, (axes,) = new_figure()
    if objective is None or not len(curves):
        show_note(axes, "no member of the front was measured at several context lengths")
        return figure
    for index, ((trial, split), curve) in enumerate(curves.groupby(["trial", "split"])):
        color, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
        line = "--" if split == "test" else "-"
        axes.plot(curve["context"], curve["value"], line, marker=marker, color=color, label=f"trial {trial}, {split}")
    objective_axis(axes, "y", objective, list(curves["value"]))
    log2_scale(axes, "x")
    place_ticks(axes.xaxis, sorted(set(curves["context"])), lambda tokens: f"{tokens:,.0f}")
    label_axis(axes.xaxis, "context in tokens")
    show_legend(axes)
    return figure


def _draw_front(axes: Axes, points: pd.DataFrame, pair: Pair, *, objectives: int) -> None:
    members, others = points[points["on_front"]], points[~points["on_front"]]
    objective_axis(axes, "x", pair.x, _reached(points, pair.x))
    shown = _reached(points, pair.y)
    baseline = None if pair.y.known else pair.y.reference
    spread, reach = max(shown) - min(shown), max([*shown, baseline or 0.0]) - min([*shown, baseline or shown[0]])
    visible = baseline is not None and spread >= SMALLEST_SHARE * reach
    objective_axis(axes, "y", pair.y, [*shown, baseline] if visible and baseline is not None else shown)
    if len(others):
        xs, ys = others[pair.x.name], others[pair.y.name]
        axes.plot(xs, ys, "o", color=QUIET, alpha=0.45, markersize=4.5, label="other trials")
        _draw_bars(axes, others, pair, QUIET)
    x, y = staircase(members, pair)
    # What costs more in x is never worse in y than the best before it, up to the edge of the picture.
    rising = pair.x.direction == "minimize"
    edge = axes.get_xlim()[1 if rising else 0]
    steps_x, steps_y = ([*x, edge], [*y, y[-1]]) if rising else ([edge, *x], [y[0], *y])
    where = "post" if rising else "pre"
    axes.step(steps_x, steps_y, where=where, color=FRONT, linewidth=1.6, alpha=0.8)  # type: ignore[arg-type]
    label = "front (numbers are trials)" if objectives <= SHADOWLESS else f"front in all {objectives} objectives"
    axes.plot(members[pair.x.name], members[pair.y.name], "o", color=FRONT, markersize=7, label=label)
    _draw_bars(axes, members, pair, FRONT, "sd over seeds")
    _label_points(axes, members, pair)
    if baseline is not None:
        _draw_baseline(axes, pair, baseline, visible=visible)
    show_legend(axes)


def _reached(points: pd.DataFrame, objective: StoredObjective) -> list[float]:
    """The values of an objective, and where their bars end."""
    values, column = list(points[objective.name]), deviation_column(objective.name)
    if column not in points:
        return values
    bars = points[points[column].notna()]
    return [*values, *(bars[objective.name] - bars[column]), *(bars[objective.name] + bars[column])]


def _draw_bars(axes: Axes, points: pd.DataFrame, pair: Pair, color: str, label: str | None = None) -> None:
    """Bars of one standard deviation on the points that have one."""
    columns = [deviation_column(one.name) for one in (pair.x, pair.y)]
    if columns[1] not in points:
        return
    points = points[points[columns].notna().any(axis=1)]
    if not len(points):
        return
    across, up = (points[column].fillna(0.0) for column in columns)
    axes.errorbar(
        points[pair.x.name],
        points[pair.y.name],
        xerr=across if across.any() else None,
        yerr=up,
        fmt="none",
        ecolor=color,
        elinewidth=1.2,
        capsize=3,
        label=label,
    )


def _draw_baseline(axes: Axes, pair: Pair, baseline: float, *, visible: bool) -> None:
    text = f"trivial baseline {value_text(pair.y, baseline)}"
    if visible:
        axes.axhline(baseline, color=BASELINE, linestyle=":", linewidth=1.6)
    below = pair.y.direction == "maximize"
    words = text if visible else f"{text} {'↓' if below else '↑'}"
    anchor = (1, baseline) if visible else (1, 0 if below else 1)
    axes.annotate(
        words,
        anchor,
        xycoords=("axes fraction", "data" if visible else "axes fraction"),
        xytext=(-2, 4 if visible or below else -4),
        textcoords="offset points",
        ha="right",
        va="bottom" if visible or below else "top",
        color=BASELINE,
        fontsize=9,
        parse_math=False,
    )


def _label_points(axes: Axes, members: pd.DataFrame, pair: Pair) -> None:
    if len(members) > MOST_LABELS:
        return
    named: list[tuple[float, float]] = []
    for trial, x, y in zip(members["trial"], members[pair.x.name], members[pair.y.name], strict=True):
        across, up = axes.transData.transform((x, y))
        # Two numbers on top of each other say less than one.
        if any(abs(across - one) < LABEL_PIXELS[0] and abs(up - other) < LABEL_PIXELS[1] for one, other in named):
            continue
        named.append((across, up))
        axes.annotate(str(trial), (x, y), xytext=(5, 5), textcoords="offset points", color=INK, fontsize=8.5)


def _label_ends(axes: Axes, members: pd.DataFrame) -> None:
    """Trial numbers to the right of the curves' ends, moved apart where they would overlap."""
    ends = members.groupby("trial").tail(1).sort_values("value")
    if not 0 < len(ends) <= MOST_LABELS:
        return
    heights = (axes.transScale + axes.transLimits).transform(ends[["step", "value"]].to_numpy(dtype=float))
    right = axes.get_xlim()[1]
    for trial, height in zip(
        ends["trial"], _apart([float(height) for height in heights[:, 1]], LABEL_HEIGHT), strict=True
    ):
        axes.annotate(
            str(trial),
            (right, height),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            fontsize=8.5,
        )


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights, each raised until it is a gap above the one below."""
    found: list[float] = []
    for height in heights:
        found.append(max(height, found[-1] + gap) if found else height)
    return found


def _name_groups(axes: Axes, *, others: bool) -> None:
    axes.plot([], [], "-o", color=FRONT, label="front (numbers are trials)")
    if others:
        axes.plot([], [], "-o", color=QUIET, alpha=0.6, markersize=3, label="other trials")
    show_legend(axes)
