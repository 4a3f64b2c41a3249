import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import DataError
from nas.tasks.base import IGNORED
from nas.tasks.windows import batches, join, read, scored_windows, surrounded_windows

stretches = st.tuples(st.integers(0, 50), st.integers(1, 80)).map(lambda pair: (pair[0], sum(pair)))


@given(stretches, st.integers(1, 200))
@settings(deadline=None)
def test_each_position_is_scored_once_and_in_order(stretch, context):
    windows = scored_windows(*stretch, context=context)
    scored = [
        position for first, end in zip(windows.scored_W, windows.end_W, strict=True) for position in range(first, end)
    ]
    assert scored == list(range(*stretch))


@given(stretches, st.integers(1, 200))
@settings(deadline=None)
def test_a_scored_position_sees_half_a_context_up_to_a_whole_one(stretch, context):
    windows = scored_windows(*stretch, context=context)
    assert np.all(windows.end_W - windows.start_W <= context)
    assert np.all(windows.start_W >= 0)
    seen = windows.scored_W - windows.start_W
    at_the_start = windows.start_W == 0
    assert np.all(at_the_start | (seen == context - max(context // 2, 1)))
    # From the start of a sequence everything before is seen.
    assert np.all(windows.scored_W[at_the_start] <= context)


def test_a_context_that_covers_the_sequence_is_one_window():
    windows = scored_windows(0, 10, context=10)
    assert (windows.start_W.tolist(), windows.scored_W.tolist(), windows.end_W.tolist()) == ([0], [0], [10])


def test_a_window_advances_by_half_the_context():
    windows = scored_windows(0, 12, context=4)
    assert windows.start_W.tolist() == [0, 2, 4, 6, 8]
    assert windows.scored_W.tolist() == [0, 4, 6, 8, 10]


@given(st.lists(stretches, min_size=1, max_size=4), st.integers(1, 40), st.integers(1, 500))
@settings(deadline=None)
def test_batches_hold_every_window_once_within_their_size(several, context, tokens_per_batch):
    inputs_T = np.arange(1000)
    windows = join(
        [scored_windows(first + 140 * k, last + 140 * k, context=context) for k, (first, last) in enumerate(several)]
    )
    scored = []
    for batch in batches(inputs_T, inputs_T + 1000, windows, tokens_per_batch=tokens_per_batch):
        assert batch.tokens <= max(tokens_per_batch, context)
        inputs, targets = batch.inputs_BL.numpy(), batch.targets_BL.numpy()
        at = targets != IGNORED
        assert np.array_equal(inputs[at] + 1000, targets[at])
        scored += inputs[at].tolist()
    assert sorted(scored) == [p + 140 * k for k, stretch in enumerate(several) for p in range(*stretch)]


def test_a_short_window_is_filled_up_with_unscored_zeros():
    tokens = np.array([7, 8, 9])
    batch = read(tokens, tokens, scored_windows(0, 3, context=3), length=5)
    assert batch.inputs_BL.tolist() == [[7, 8, 9, 0, 0]]
    assert batch.targets_BL.tolist() == [[7, 8, 9, IGNORED, IGNORED]]


def test_a_batch_says_where_its_rows_end_if_it_is_asked_to():
    tokens = np.arange(10)
    windows = join([surrounded_windows(0, 4, context=8, size=4), surrounded_windows(4, 5, context=6, size=10)])
    batch = read(tokens, tokens, windows, length=6, bounded=True)
    assert batch.inputs_BL.tolist() == [[0, 1, 2, 3, 0, 0], [3, 4, 5, 6, 7, 8]]
    assert batch.inputs.lengths_B.tolist() == [4, 6]
    assert read(tokens, tokens, windows.take(np.array([1])), length=6, bounded=True).inputs.lengths_B is None
    assert read(tokens, tokens, windows, length=6).inputs.lengths_B is None


@given(stretches, st.integers(1, 200), st.integers(0, 100))
@settings(deadline=None)
def test_surrounded_positions_are_scored_once_with_text_on_both_sides(stretch, context, rest):
    size = stretch[1] + rest
    windows = surrounded_windows(*stretch, context=context, size=size)
    scored = [p for first, end in zip(windows.scored_W, windows.until_W, strict=True) for p in range(first, end)]
    assert scored == list(range(*stretch))
    assert np.all(windows.end_W - windows.start_W == min(context, size))
    assert np.all((windows.start_W >= 0) & (windows.end_W <= size))
    assert np.all((windows.start_W <= windows.scored_W) & (windows.until_W <= windows.end_W))
    quarter = (context - max(context // 2, 1)) // 2
    assert np.all((windows.start_W == 0) | (windows.scored_W - windows.start_W >= quarter))
    assert np.all((windows.end_W == size) | (windows.end_W - windows.until_W >= quarter))


@pytest.mark.parametrize("make", [scored_windows, lambda *a, context: surrounded_windows(*a, context=context, size=9)])
def test_a_context_of_nothing_is_refused(make):
    with pytest.raises(DataError, match="at least 1 token, not 0"):
        make(0, 3, context=0)
