"""Figures as all pictures share them: colours, axes with units, SVG and PNG.

In: axes to dress, figures to write. Out: bytes. Matplotlib's object-oriented interface alone is
used: no pyplot, no state that others see. The colours are those of Okabe and Ito (2008), which
people with any colour vision can tell apart; markers and labels say the same again.

An SVG is meant to stand inside a page: its colours are the page's CSS variables, so that it is
right on light and on dark, and its text is text.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from nas.errors import MissingExtraError
from nas.report.wording import axis_label, is_bytes
from nas.store import StoredObjective
from nas.units import format_bytes, format_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Side = Literal["x", "y"]

INK = "#24292f"
QUIET = "#6e7781"
GRID = "#d8dee4"
FRONT = "#0072b2"
BASELINE = "#d55e00"
SERIES = (FRONT, "#e69f00", "#009e73", "#cc79a7", "#56b4e9", BASELINE)
MARKERS = ("o", "s", "^", "D", "v", "P")

# Colour in the figure → variable of the page's CSS.
CSS_VARIABLES = {INK: "--ink", QUIET: "--quiet", GRID: "--grid"} | {
    color: f"--series-{index}" for index, color in enumerate(SERIES)
}

# A little above the true 96: pages are read from farther away than paper.
CSS_PIXELS_PER_INCH = 106
SMALLEST_SCALE = 0.62
MOST_TICKS = 8
FEWEST_TICKS = 3


def new_figure(*, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """A figure and its axes side by side.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("a picture", "report") from None
    figure = Figure(figsize=(6.8 if columns == 1 else 9.6, 4.2), layout="constrained", facecolor="white")
    axes = [figure.add_subplot(1, columns, column + 1) for column in range(columns)]
    for one in axes:
        _dress(one)
    return figure, axes


def label_axis(axis: Axis, text: str) -> None:
    """Labels an axis; names are the user's and never mathematics."""
    axis.set_label_text(text, color=INK, fontsize=10, parse_math=False)


def objective_axis(axes: Axes, side: Side, objective: StoredObjective, values: Sequence[float]) -> None:
    """Label, scale and limits of an axis for an objective: bytes in powers of two.

    Args:
        axes: of the figure.
        side: which of its two axes.
        objective: what it shows.
        values: all that must be visible; at least one.
    """
    axis = axes.xaxis if side == "x" else axes.yaxis
    label_axis(axis, axis_label(objective))
    low, high = min(values), max(values)
    if is_bytes(objective.name, objective.unit) and low > 0:
        log2_scale(axes, side)
        place_ticks(axis, byte_ticks(low, high), format_bytes)
        low, high = low / (high / low) ** 0.06, high * (high / low) ** 0.06
        if low == high:
            low, high = low / 2**0.5, high * 2**0.5
    else:
        margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        low, high = low - margin, high + margin
    set_limits = axes.set_xlim if side == "x" else axes.set_ylim
    set_limits(low, high)


def log2_scale(axes: Axes, side: Side) -> None:
    """Makes equal factors equally long on an axis."""
    set_scale = axes.set_xscale if side == "x" else axes.set_yscale
    set_scale("log", base=2)


def count_axis(axis: Axis, text: str) -> None:
    """Label and ticks of an axis that counts things from zero."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    label_axis(axis, text)
    axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_count(value)))


def byte_ticks(low: float, high: float) -> list[float]:
    """Sizes between two others that people know: powers of two, or parts of them in a narrow range."""
    powers = range(math.floor(math.log2(low)) - 1, math.ceil(math.log2(high)) + 1)
    found: list[float] = []
    for parts in ((1.0,), (1.0, 1.5), (1.0, 1.25, 1.5, 1.75), tuple(1 + eighth / 8 for eighth in range(8))):
        found = [part * 2.0**power for power in powers for part in parts if low <= part * 2.0**power <= high]
        # Parts of a few bytes would be written alike.
        found = list({format_bytes(tick): tick for tick in found}.values())
        if len(found) >= FEWEST_TICKS:
            break
    return found[:: -(-len(found) // MOST_TICKS)] if found else [low]


def place_ticks(axis: Axis, ticks: Sequence[float], text: Callable[[float], str]) -> None:
    """Ticks at these values alone, written by a function of the value."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis.set_major_locator(FixedLocator(list(ticks)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))


def show_legend(axes: Axes) -> None:
    """The legend above the axes, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            handles, labels, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, labelcolor=INK, fontsize=9
        )


def show_note(axes: Axes, text: str) -> None:
    """A sentence in place of a picture."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=QUIET, parse_math=False)


def to_png(figure: Figure) -> bytes:
    """The figure as a file for documents: white ground, 200 dots per inch."""
    return _saved(figure, "png")


def to_svg(figure: Figure, *, name: str) -> str:
    """The figure as an element for a page.

    Args:
        figure: whose colours become the page's CSS variables.
        name: unique in the page; prefixes every id of the element.
    """
    text = _saved(figure, "svg").decode()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", text)
    # The viewBox keeps the proportions; a narrower page shrinks the element as far as it can be read.
    width = figure.get_figwidth() * CSS_PIXELS_PER_INCH
    style = f'style="max-width: {width:.0f}px; min-width: {SMALLEST_SCALE * width:.0f}px"'
    text = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', rf"\1 {style}", text, count=1)
    for color, variable in CSS_VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    return text


def _saved(figure: Figure, file_format: Literal["png", "svg"]) -> bytes:
    import matplotlib

    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nas"}):
        if file_format == "svg":
            figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
        else:
            figure.savefig(stream, format="png", dpi=200)
    return stream.getvalue()


def _dress(axes: Axes) -> None:
    axes.set_facecolor("white")
    axes.grid(visible=True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9, length=0, pad=5, which="both")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GRID)
