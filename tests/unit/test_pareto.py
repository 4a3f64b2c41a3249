"""Fronts, hypervolume and the knee, against moocore and by hand."""

from __future__ import annotations

import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nas.pareto import Axis, dominated_volume, front, hypervolume, knee, non_dominated

QUICK = settings(max_examples=80, deadline=None, derandomize=True)

UNIT = Axis(direction="minimize", ideal=0.0, reference=1.0)
BYTES = Axis(direction="minimize", ideal=2.0**10, reference=2.0**20, log2=True)
ACCURACY = Axis(direction="maximize", ideal=1.0, reference=0.5)

Points = NDArray[np.float64]


@st.composite
def points(draw: st.DrawFn, most: int = 30) -> Points:
    """Sets on a coarse grid, so that ties and equal rows are common."""
    rows, columns = draw(st.integers(1, most)), draw(st.integers(2, 4))
    cells = st.integers(0, 6).map(lambda cell: cell / 6)
    return np.array(draw(st.lists(st.lists(cells, min_size=columns, max_size=columns), min_size=rows, max_size=rows)))


@given(points())
@QUICK
def test_the_front_is_that_of_moocore_with_all_equal_rows_kept(array: Points) -> None:
    assert (non_dominated(array) == moocore.is_nondominated(array, keep_weakly=True)).all()


@given(points())
@QUICK
def test_the_dominated_volume_is_that_of_moocore(array: Points) -> None:
    expected = moocore.hypervolume(array, ref=np.ones(array.shape[1]))
    assert dominated_volume(array) == pytest.approx(expected, abs=1e-12)
    assert hypervolume(array, [UNIT] * array.shape[1]) == pytest.approx(expected, abs=1e-12)


@given(points(), st.randoms(use_true_random=False))
@QUICK
def test_maximised_axes_are_minimised_ones_turned_round(array: Points, rng: object) -> None:
    turned = Axis(direction="maximize", ideal=1.0, reference=0.0)
    mirrored = array.copy()
    mirrored[:, 0] = 1.0 - mirrored[:, 0]
    axes = [UNIT] * array.shape[1]
    assert front(mirrored, [turned, *axes[1:]]) == front(array, axes)
    assert hypervolume(mirrored, [turned, *axes[1:]]) == pytest.approx(hypervolume(array, axes))


@given(points(), st.data())
@QUICK
def test_another_point_never_shrinks_the_hypervolume(array: Points, data: st.DataObject) -> None:
    axes = [UNIT] * array.shape[1]
    fewer = array[: data.draw(st.integers(0, len(array)))]
    assert hypervolume(fewer, axes) <= hypervolume(array, axes) + 1e-12


def test_the_front_is_sorted_by_the_last_objective_best_first() -> None:
    array = [[0.1, 0.9], [0.9, 0.1], [0.5, 0.5], [0.6, 0.6]]
    assert front(array, [UNIT, UNIT]) == [1, 2, 0]
    assert front(array, [UNIT, Axis(direction="maximize", ideal=1.0, reference=0.0)]) == [0]


def test_equal_rows_are_all_kept_and_dominated_ones_are_not() -> None:
    assert non_dominated([[1, 2], [1, 2], [1, 3], [2, 1], [2, 1], [2, 2]]).tolist() == [
        True,
        True,
        False,
        True,
        True,
        False,
    ]
    assert non_dominated([[1, 2, 3], [1, 2, 3], [1, 2, 4]]).tolist() == [True, True, False]


def test_a_hundred_thousand_points_in_two_objectives() -> None:
    rng = np.random.default_rng(0)
    array = rng.random((100_000, 2)).round(4)
    mask = non_dominated(array)
    assert (mask == moocore.is_nondominated(array, keep_weakly=True)).all()
    assert hypervolume(array, [UNIT, UNIT]) == pytest.approx(moocore.hypervolume(array, ref=[1, 1]))


def test_a_hundred_thousand_equal_points_are_one_front() -> None:
    assert non_dominated(np.ones((100_000, 2))).all()


@pytest.mark.parametrize("row", [[float("nan"), 1.0], [1.0, float("nan")]])
def test_nan_is_refused_everywhere(row: list[float]) -> None:
    array = [[0.5, 0.5], row]
    for refuse in (
        lambda: non_dominated(array),
        lambda: front(array, [UNIT, UNIT]),
        lambda: hypervolume(array, [UNIT, UNIT]),
        lambda: knee(array, [UNIT, UNIT]),
    ):
        with pytest.raises(ValueError, match="NaN"):
            refuse()


def test_points_of_other_objectives_are_refused() -> None:
    with pytest.raises(ValueError, match="3 columns do not fit 2 objectives"):
        hypervolume([[1, 2, 3]], [UNIT, UNIT])


def test_no_point_has_an_empty_front_and_no_knee() -> None:
    for empty in ([], np.zeros((0, 2))):
        assert non_dominated(empty).tolist() == []
        assert front(empty, [UNIT, UNIT]) == []
        assert hypervolume(empty, [UNIT, UNIT]) == 0.0
        with pytest.raises(ValueError, match="no points"):
            knee(empty, [UNIT, UNIT])


def test_one_point_is_its_own_front_and_knee() -> None:
    assert front([[0.5, 0.25]], [UNIT, UNIT]) == [0]
    assert knee([[0.5, 0.25]], [UNIT, UNIT]) == 0
    assert hypervolume([[0.5, 0.25]], [UNIT, UNIT]) == pytest.approx(0.5 * 0.75)


def test_scaling_runs_from_ideal_to_reference_in_either_direction() -> None:
    assert UNIT.scale([0.0, 0.5, 1.0]).tolist() == [0.0, 0.5, 1.0]
    assert ACCURACY.scale([1.0, 0.75, 0.5, 0.25]).tolist() == [0.0, 0.5, 1.0, 1.5]
    assert BYTES.scale([2.0**10, 2.0**15, 2.0**20]).tolist() == [0.0, 0.5, 1.0]


def test_no_bytes_count_as_one_byte() -> None:
    from_one = Axis(direction="minimize", ideal=0.0, reference=2.0**20, log2=True)
    assert from_one.scale([0.0, 1.0, 2.0**10]).tolist() == [0.0, 0.0, 0.5]


def test_an_axis_of_one_value_costs_nothing_at_or_beyond_its_ideal() -> None:
    for direction, better, worse in (("minimize", 1.0, 3.0), ("maximize", 3.0, 1.0)):
        axis = Axis(direction=direction, ideal=2.0, reference=2.0)  # type: ignore[arg-type]
        assert axis.scale([2.0, better, worse]).tolist() == [0.0, 0.0, np.inf]
    single = Axis(direction="minimize", ideal=2.0, reference=2.0)
    assert hypervolume([[0.5, 2.0], [0.1, 3.0]], [UNIT, single]) == pytest.approx(0.5)


def test_hypervolume_is_one_at_the_ideal_and_nothing_at_the_reference_or_beyond() -> None:
    axes = [ACCURACY, BYTES]
    assert hypervolume([[1.0, 2.0**10]], axes) == 1.0
    assert hypervolume([[0.5, 2.0**10], [1.0, 2.0**20], [0.4, 2.0**21]], axes) == 0.0
    assert hypervolume([[0.75, 2.0**15]], axes) == pytest.approx(0.25)
    # Better than the ideal is no better than it.
    assert hypervolume([[1.5, 2.0**5]], axes) == 1.0


def test_the_knee_is_the_point_that_bends_most() -> None:
    array = [[0.0, 1.0], [0.2, 0.3], [0.5, 0.25], [1.0, 0.0], [0.9, 0.9]]
    assert knee(array, [UNIT, UNIT]) == 1


def test_the_knee_counts_bytes_in_powers_of_two() -> None:
    array = [[1.0, 2.0**10], [0.60, 2.0**11], [0.5, 2.0**19], [0.45, 2.0**20]]
    assert knee(array, [UNIT, BYTES]) == 1
    array = [[1.0, 2.0**10], [0.95, 2.0**15], [0.5, 2.0**16], [0.45, 2.0**20]]
    assert knee(array, [UNIT, BYTES]) == 2


def test_the_knee_does_not_hang_on_where_the_reference_lies() -> None:
    array = [[0.9, 4.0], [0.7, 5.0], [0.6, 9.0]]
    far = [ACCURACY, Axis(direction="minimize", ideal=0.0, reference=1e9)]
    near = [ACCURACY, Axis(direction="minimize", ideal=4.0, reference=4.0)]
    mirrored = [[1 - first, second] for first, second in array]
    assert knee(mirrored, far) == knee(mirrored, near)


def test_of_two_points_the_knee_is_nearer_the_ideal() -> None:
    assert knee([[0.0, 0.9], [0.4, 0.4]], [UNIT, UNIT]) == 1
    assert knee([[0.1, 0.2], [0.2, 0.9]], [UNIT, UNIT]) == 0
