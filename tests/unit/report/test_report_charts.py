"""Charts of text: bars and curves."""

from __future__ import annotations

import re

import pytest

from nas.cost import estimate
from nas.report.canvas import to_png
from nas.report.charts import FULL, LIGHT, curves, histogram
from nas.report.memory_curves import memory_chart, memory_curves, plot_memory
from nas.space.architecture import Architecture
from nas.units import format_bytes


def network(max_context: int = 512, *, positions: str = "rope", family: str = "decoder") -> Architecture:
    layer = {"mixer": "full", "heads": 2}
    return Architecture.from_mapping(
        {"family": family, "width": 32, "max_context": max_context, "positions": positions, "layers": [layer]}
    )


def test_a_histogram_counts_octaves() -> None:
    values = [1, 1.9, 2, 4, 5, 6, 7.9, 31]
    lines = histogram(values, [True] * 6 + [False, False], text=lambda value: f"{value:g}", columns=8)
    found = [re.fullmatch(rf" *(\d+) ({FULL}*)({LIGHT}*) +(\d+)", line) for line in lines]
    assert all(found)
    assert [(int(one[1]), len(one[2]), len(one[3]), int(one[4])) for one in found if one] == [
        (1, 4, 0, 2), (2, 2, 0, 1), (4, 6, 2, 4), (8, 0, 0, 0), (16, 0, 2, 1)
    ]  # fmt: skip


def test_values_within_an_octave_are_told_apart() -> None:
    lines = histogram([16, 17, 20, 24, 28], [True] * 5, text=lambda value: f"{value:.0f}")
    assert len(lines) == 4
    assert [line.split()[0] for line in lines] == ["16", "19", "23", "27"]


def test_equal_values_are_one_bar() -> None:
    assert len(histogram([64.0] * 9, [True] * 9, text=format_bytes)) == 1


def test_curves_rise_from_the_bottom_row_to_the_top() -> None:
    lines = curves([1, 2, 3], {"a": [1, 2, 4], "b": [1, None, 2]}, x_text=str, y_text=lambda y: f"{y:g}", height=3)
    assert [line.split("|")[1].split() for line in lines[:3]] == [["o"], ["o", "+"], ["="]]
    assert [line.split("|")[0].strip() for line in lines[:3]] == ["4", "2", "1"]
    assert lines[-1].strip() == "o a, + b, = several"


@pytest.mark.parametrize(("longest", "last"), [(64, 512), (512, 4096), (1000, 8192)])
def test_contexts_double_to_eight_times_the_longest(longest: int, last: int) -> None:
    serve, train = memory_curves({"trial 0": network(longest), "trial 1": network(32)})
    assert serve.contexts[0] == 32 and serve.contexts[-1] == last
    assert all(b == 2 * a for a, b in zip(serve.contexts, serve.contexts[1:], strict=False))
    costs = [estimate(network(longest), context=context) for context in serve.contexts]
    assert serve.values["trial 0"] == [cost.serve_bytes for cost in costs]
    assert train.values["trial 0"] == [cost.train_peak_bytes for cost in costs]


def test_learned_positions_end_the_curve() -> None:
    both = {"trial 0": network(512, positions="learned"), "trial 1": network(512)}
    serve, _ = memory_curves(both)
    assert [value is None for value in serve.values["trial 0"]] == [False, False, True, True, True]
    shown = "\n".join(memory_chart(both))
    assert "trial 0: max_context 512; its learned positions end there" in shown
    assert "trial 1: max_context 512; beyond it by formula" in shown


def test_an_encoder_is_shown_by_its_prefill() -> None:
    assert memory_curves({"trial 0": network(family="encoder")})[0].figure == "prefill_peak_bytes"


def test_the_picture_shows_the_same_numbers() -> None:
    networks = {"trial 3": network(), "trial 5": network(128)}
    figure = plot_memory(networks)
    for axes, curve in zip(figure.axes, memory_curves(networks), strict=True):
        lines = {str(line.get_label()): line for line in axes.get_lines()}
        for name, values in curve.values.items():
            assert list(lines[name].get_ydata()) == values
    assert to_png(figure).startswith(b"\x89PNG")
