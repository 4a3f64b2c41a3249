"""The spans that are dropped have the published shares, lengths and places."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.tasks.spans import (
    corrupted_sizes,
    noise_size,
    noise_spans,
    poisson_spans,
    random_segments,
    tail_spans,
)

rates = st.floats(0.01, 0.5)
means = st.floats(1, 20)


def rng(seed=0):
    return np.random.default_rng(seed)


def gaps(spans, row):
    start, length = spans.start_K[spans.row_K == row], spans.length_K[spans.row_K == row]
    return start[1:] - (start + length)[:-1]


@given(st.integers(3, 200), rates, means, st.sampled_from([0, 2]), st.integers(0, 1000))
@settings(deadline=None, max_examples=200)
def test_poisson_spans_lie_in_their_text_and_never_touch(length, rate, mean, added, seed):
    spans, size_B = poisson_spans(rng(seed), rows=7, length=length, rate=rate, mean=mean, added=added)
    count_B = np.bincount(spans.row_K, minlength=7)
    assert (count_B >= 1).all() and (size_B == length - added * count_B).all()
    assert (np.diff(spans.row_K) >= 0).all()
    assert (spans.length_K >= 1).all() and (spans.start_K >= 0).all()
    assert (spans.start_K + spans.length_K <= size_B[spans.row_K]).all()
    assert all((gaps(spans, row) >= 1).all() for row in range(7))


def test_poisson_spans_cover_the_share_and_stop_there():
    spans, size_B = poisson_spans(rng(), rows=300, length=1024, rate=0.15, mean=3)
    covered_B = np.bincount(spans.row_K, weights=spans.length_K)
    last_B = spans.length_K[np.searchsorted(spans.row_K, np.arange(300), "right") - 1]
    assert (covered_B >= 0.15 * size_B).all()
    # Without its last span a text would not be covered (its own two tokens more then being text).
    assert (covered_B - last_B < 0.15 * (size_B + 2)).all()


def test_lengths_follow_a_poisson_law_without_zero():
    spans, _ = poisson_spans(rng(), rows=3000, length=512, rate=0.15, mean=3)
    found = np.bincount(spans.length_K, minlength=12)[1:12] / len(spans.length_K)
    law = np.array([3.0**k / math.factorial(k) for k in range(1, 12)]) / (math.e**3 - 1)
    # Sampling until enough is covered favours no length but slightly the long ones, in the last span.
    assert np.abs(found - law).max() < 0.006


def test_a_single_blank_may_stand_anywhere():
    spans, size_B = poisson_spans(rng(), rows=60_000, length=12, rate=0.05, mean=1)
    alone = spans.length_K == 1
    counts = np.bincount(spans.start_K[alone], minlength=10)
    assert (size_B == 10).all() and len(counts) == 10
    assert np.abs(counts / counts.sum() - 0.1).max() < 0.005


def test_tail_spans_cover_half_a_text_up_to_all():
    spans = tail_spans(rng(), rows=20_000, size=20)
    assert (spans.start_K + spans.length_K == 20).all()
    counts = np.bincount(spans.length_K, minlength=21)
    assert not counts[:10].any()
    assert np.abs(counts[10:] / 20_000 - 1 / 11).max() < 0.01


@given(st.integers(2, 200), rates, means)
@settings(deadline=None, max_examples=200)
def test_noise_alternates_with_text_and_has_a_fixed_size(size, rate, mean):
    noise, count = noise_size(size, rate, mean)
    spans = noise_spans(rng(1), rows=5, size=size, rate=rate, mean=mean)
    assert 1 <= noise < size and abs(noise - rate * size) <= max(0.5, 1 - rate * size)
    assert (np.bincount(spans.row_K) == count).all()
    assert (np.bincount(spans.row_K, weights=spans.length_K) == noise).all()
    for row in range(5):
        assert (gaps(spans, row) >= 1).all()
        of_row = spans.row_K == row
        # As published, a text begins with a kept token and ends with a dropped one.
        assert spans.start_K[of_row][0] >= 1
        assert (spans.start_K + spans.length_K)[of_row][-1] == size


def test_every_segmentation_is_equally_likely():
    found = random_segments(rng(), rows=60_000, items=5, segments=3)
    assert (found.sum(axis=1) == 5).all() and found.min() == 1
    _, counts = np.unique(found, axis=0, return_counts=True)
    assert len(counts) == math.comb(4, 2)
    assert np.abs(counts / 60_000 - 1 / 6).max() < 0.006


def test_the_mean_span_is_as_asked():
    noise, count = noise_size(10_000, 0.15, 3.0)
    assert (noise, count) == (1500, 500)


def test_a_text_is_as_long_as_its_source_allows():
    # As published: 568 tokens become 512 and 114, the source with an end-of-sequence token of its
    # own; where theirs ends the target, there is our last sentinel.
    assert corrupted_sizes(511, 0.15, 3.0) == (568, 511, 114)
    assert corrupted_sizes(64, 0.15, 3.0) == (71, 64, 16)


@given(st.integers(8, 300), rates, means)
@settings(deadline=None)
def test_the_longest_text_that_fits_is_taken(length, rate, mean):
    def fits(size):
        noise, count = noise_size(size, rate, mean)
        return max(size - noise + count, noise + count + 1) <= length

    size, source, target = corrupted_sizes(length, rate, mean)
    assert fits(size) and max(source, target) <= length
    assert not any(fits(longer) for longer in range(size + 1, 2 * length + 20))
