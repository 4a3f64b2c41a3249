import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import DataError
from nas.tasks.base import IGNORED
from nas.tasks.windows import batches, join, read, scored_windows

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


def test_a_context_of_nothing_is_refused():
    with pytest.raises(DataError, match="at least 1 token, not 0"):
        scored_windows(0, 3, context=0)
