"""What the pictures show, read from their series and artists rather than from pixels."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nas.errors import MissingExtraError
from nas.records import Measurement, Split
from nas.report.canvas import byte_ticks, to_png, to_svg
from nas.report.plots import plot_context, plot_front, plot_hypervolume, plot_learning_curves
from nas.report.series import Pair, complete_points, context_curves, learning_curves, pairs, staircase
from nas.store import Store, StoredObjective, StoredStudy
from nas.units import format_bytes

Plot = Callable[[Store, StoredStudy], Figure]
PLOTS: tuple[Plot, ...] = (plot_front, plot_hypervolume, plot_learning_curves, plot_context)


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def line(axes: Axes, label: str) -> tuple[list[float], list[float]]:
    (found,) = [line for line in axes.get_lines() if str(line.get_label()).startswith(label)]
    return [float(x) for x in found.get_xdata()], [float(y) for y in found.get_ydata()]


def scores(store: Store, study: StoredStudy, trial: int, split: Split, values: dict[int, float], step: int) -> None:
    store.add_measurements(
        store.trial(study, trial),
        [
            Measurement(metric="bits_per_byte", value=value, unit="", step=step, context=context, split=split, seed=7)
            for context, value in values.items()
        ],
    )


class TestFront:
    def test_members_stand_out_from_the_other_complete_trials(self, store: Store, study: StoredStudy) -> None:
        (axes,) = plot_front(store, study).axes
        assert line(axes, "front") == ([2**18, 1.5 * 2**19, 2**21], [2.9, 2.6, 2.4])
        assert line(axes, "other trials") == ([2**19, 2**21], [3.1, 2.7])
        assert {"0", "1", "2"} <= set(texts(axes))

    def test_axes_say_unit_and_direction_and_bytes_are_in_powers_of_two(self, store: Store, study: StoredStudy) -> None:
        figure = plot_front(store, study)
        (axes,) = figure.axes
        assert axes.get_xlabel() == "serve_bytes (lower is better)"
        assert axes.get_ylabel() == "bits_per_byte (bit/byte, lower is better)"
        assert axes.get_xscale() == "log"
        figure.draw_without_rendering()
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["256 KiB", "512 KiB", "1 MiB", "2 MiB"]

    def test_the_trivial_baseline_is_a_dotted_line_with_its_value(self, store: Store, study: StoredStudy) -> None:
        (axes,) = plot_front(store, study).axes
        dotted = [found for found in axes.get_lines() if found.get_linestyle() == ":"]
        assert [list(found.get_ydata()) for found in dotted] == [[4.9, 4.9]]
        assert "trivial baseline 4.900" in texts(axes)

    def test_a_baseline_far_away_is_named_at_the_edge_and_does_not_squeeze_the_points(
        self, store: Store, wide_study: StoredStudy
    ) -> None:
        axes = plot_front(store, wide_study).axes[0]
        assert "trivial baseline 4.900 ↑" in texts(axes)
        assert axes.get_ylim()[1] < 3.0

    def test_more_than_two_objectives_give_the_first_two_pairs(self, store: Store, wide_study: StoredStudy) -> None:
        drawn = [(pair.x.name, pair.y.name) for pair in pairs(wide_study.objectives)]
        assert drawn == [("serve_bytes", "bits_per_byte"), ("max_context", "bits_per_byte")]
        assert [axes.get_xlabel() for axes in plot_front(store, wide_study).axes] == [
            "serve_bytes (lower is better)",
            "max_context (higher is better)",
        ]

    def test_objectives_of_one_kind_are_drawn_against_each_other(self) -> None:
        loss, latency = (StoredObjective(name=name, direction="minimize") for name in ("loss", "latency_ms"))
        assert pairs([loss, latency]) == [Pair(latency, loss)]


class TestStaircase:
    @pytest.mark.parametrize(
        ("directions", "corners"),
        [
            (("minimize", "minimize"), [(1, 3), (2, 1)]),
            (("maximize", "minimize"), [(2, 1), (3, 2)]),
            (("minimize", "maximize"), [(1, 3)]),
            (("maximize", "maximize"), [(1, 3), (3, 2)]),
        ],
    )
    def test_its_corners_are_the_undominated_points(
        self, directions: tuple[str, str], corners: list[tuple[float, float]]
    ) -> None:
        x, y = (StoredObjective(name=name, direction=way) for name, way in zip("xy", directions, strict=True))  # type: ignore[arg-type]
        found = staircase(pd.DataFrame({"x": [3, 1, 2], "y": [2, 3, 1]}), Pair(x, y))
        assert list(zip(*(values.tolist() for values in found), strict=True)) == corners


class TestCurves:
    def test_learning_curves_hold_every_rung_of_every_trained_trial(self, store: Store, study: StoredStudy) -> None:
        curves = learning_curves(store, study)
        assert list(curves[curves["trial"] == 0]["step"]) == [50, 100, 200]
        assert set(curves["trial"]) == {0, 1, 2, 3, 4, 5}
        assert set(curves[curves["on_front"]]["trial"]) == {0, 1, 2}

    def test_learning_curves_leave_out_other_contexts_and_the_test_part(self, store: Store, study: StoredStudy) -> None:
        before = learning_curves(store, study)
        scores(store, study, 0, "test", {256: 9.0}, step=200)
        scores(store, study, 0, "validation", {64: 9.0}, step=200)
        pd.testing.assert_frame_equal(learning_curves(store, study), before)

    def test_the_front_is_labelled_at_the_end_of_its_curves(self, store: Store, study: StoredStudy) -> None:
        (axes,) = plot_learning_curves(store, study).axes
        assert sorted(texts(axes)) == ["0", "1", "2"]

    def test_context_curves_are_of_members_measured_at_several_contexts_after_their_last_step(
        self, store: Store, study: StoredStudy
    ) -> None:
        assert len(context_curves(store, study)) == 0
        scores(store, study, 0, "test", {64: 3.2, 128: 3.0}, step=200)
        scores(store, study, 0, "test", {32: 9.0}, step=100)
        scores(store, study, 3, "test", {64: 3.2, 128: 3.0}, step=200)
        curves = context_curves(store, study)
        assert curves.to_dict("list") == {
            "trial": [0, 0],
            "split": ["test", "test"],
            "context": [64, 128],
            "value": [3.2, 3.0],
        }
        (axes,) = plot_context(store, study).axes
        assert line(axes, "trial 0, test") == ([64, 128], [3.2, 3.0])

    def test_hypervolume_is_drawn_against_tokens_and_trials(self, store: Store, study: StoredStudy) -> None:
        tokens, trials = plot_hypervolume(store, study).axes
        assert list(tokens.get_lines()[0].get_xdata()) == [150_000 * number for number in range(1, 6)]
        assert list(trials.get_lines()[0].get_xdata()) == [1, 2, 3, 4, 5]
        assert [round(y, 6) for y in trials.get_lines()[0].get_ydata()] == [0.2, 0.3, 0.4, 0.4, 0.4]

    def test_a_study_that_counts_no_tokens_has_no_axis_of_them(self, store: Store, study: StoredStudy) -> None:
        mine = store.add_study("mine", resolved={}, objectives=study.objectives)
        store.add_front(mine, members=[], hypervolume=0.5, trials_done=1, tokens=0)
        assert [axes.get_xlabel() for axes in plot_hypervolume(store, mine).axes] == ["trials begun"]


class TestEveryPicture:
    @pytest.mark.parametrize("plot", PLOTS)
    def test_it_says_in_words_that_there_is_nothing_to_draw(self, store: Store, study: StoredStudy, plot: Plot) -> None:
        empty = store.add_study("new", resolved={}, objectives=study.objectives)
        assert texts(plot(store, empty).axes[0])

    @pytest.mark.parametrize("plot", PLOTS)
    def test_it_can_be_written(self, store: Store, study: StoredStudy, plot: Plot) -> None:
        figure = plot(store, study)
        assert to_png(figure).startswith(b"\x89PNG")
        assert to_svg(figure, name="p").startswith("<svg")

    def test_names_are_no_mathematics(self, store: Store) -> None:
        objectives = [
            StoredObjective(name="a$_{b$", direction="minimize"),
            StoredObjective(name="c$^$", direction="maximize", known=True),
        ]
        made = store.add_study("odd", resolved={}, objectives=objectives)
        assert complete_points(store, made).empty
        assert "a$_{b$" in to_svg(plot_front_with_one_trial(store, made), name="p")

    def test_an_svg_takes_its_colours_from_the_page_and_its_ids_are_its_own(
        self, store: Store, study: StoredStudy
    ) -> None:
        text = to_svg(plot_front(store, study), name="front")
        assert "var(--series-0)" in text
        assert "#0072b2" not in text
        assert 'id="front-' in text
        assert 'id="axes_1"' not in text
        assert "<metadata" not in text
        assert text == to_svg(plot_front(store, study), name="front")

    def test_a_missing_matplotlib_names_the_extra(
        self, store: Store, study: StoredStudy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(MissingExtraError, match=r"context-nas\[report\]"):
            plot_front(store, study)


def plot_front_with_one_trial(store: Store, study: StoredStudy) -> Figure:
    from nas.records import Candidate
    from nas.space.architecture import Architecture

    mapping = {"family": "decoder", "width": 8, "max_context": 16, "layers": [{"mixer": "full", "heads": 2}]}
    names = [objective.name for objective in study.objectives]
    trial = store.add_trial(
        study, Candidate(Architecture.from_mapping(mapping)), seed=0, known={names[1]: 1.0}, reason="r"
    )
    store.complete(trial, {names[0]: 2.0}, reason="r")
    store.add_front(study, members=[0], hypervolume=None, trials_done=1, tokens=0)
    return plot_front(store, study)


@pytest.mark.parametrize("low", [1.0, 300.0, 2.0**18, 3.3e9])
@pytest.mark.parametrize("factor", [1.0, 1.2, 2.0, 37.0, 1e6])
def test_ticks_of_bytes_are_few_within_range_and_read_as_different_sizes(low: float, factor: float) -> None:
    ticks = byte_ticks(low, low * factor)
    assert 1 <= len(ticks) <= 8
    assert all(low <= tick <= low * factor for tick in ticks)
    assert len({format_bytes(tick) for tick in ticks}) == len(ticks)
