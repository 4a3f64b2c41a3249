"""What a model reads of a corrupted text, and that with what it is to say the text is whole again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.tasks.corruption import BlankTokens, SpanTokens, infill, mask_tokens, span_corrupt
from nas.tasks.metrics import IGNORED
from nas.tasks.spans import Spans, noise_spans, poisson_spans, tail_spans

DOCUMENT, MASK, START, END = 256, 257, 258, 259
BLANKS = BlankTokens(mask=MASK, start=START, end=END, unsaid=DOCUMENT)
SENTINELS = SpanTokens(start=257, sentinel=258, sentinels=3, unsaid=DOCUMENT)


def rng(seed=0):
    return np.random.default_rng(seed)


def texts(random, rows, size):
    return random.integers(257, size=(rows, size))


def masked(rate=0.15):
    random = rng()
    text = texts(random, 400, 500)
    return text, *mask_tokens(random, text, text != DOCUMENT, rate=rate, mask=MASK, kinds=256)


def test_the_share_of_each_row_is_chosen_and_documents_never_are():
    text, inputs, targets = masked()
    chosen = targets != IGNORED
    assert (chosen.sum(axis=1) == np.rint(0.15 * (text != DOCUMENT).sum(axis=1))).all()
    assert not chosen[text == DOCUMENT].any()
    assert (targets[chosen] == text[chosen]).all() and (inputs[~chosen] == text[~chosen]).all()
    # All places alike.
    assert np.abs(chosen.mean(axis=0) - 0.15).max() < 0.09


def test_of_the_chosen_80_percent_are_masked_10_random_10_kept():
    text, inputs, targets = masked(rate=0.5)
    chosen = targets != IGNORED
    seen, was = inputs[chosen], text[chosen]
    assert np.mean(seen == MASK) == pytest.approx(0.8, abs=0.005)
    # A random byte is the old one once in 256 times.
    assert np.mean(seen == was) == pytest.approx(0.1 + 0.1 / 256, abs=0.005)
    other = seen[(seen != MASK) & (seen != was)]
    assert other.max() == 255 and np.abs(np.bincount(other, minlength=256) / len(other) - 1 / 256).max() < 0.002


def test_at_least_one_token_of_a_row_is_chosen_if_there_is_one():
    text = np.array([[1, DOCUMENT, DOCUMENT], [DOCUMENT] * 3])
    _, targets = mask_tokens(rng(), text, text != DOCUMENT, rate=0.01, mask=MASK, kinds=256)
    assert targets.tolist() == [[1, IGNORED, IGNORED], [IGNORED] * 3]


def filled_in(tokens, targets, positions, prefix, length):
    """The text of one infilled row, worked out from positions alone."""
    part_a = tokens[:prefix].tolist()
    blanks: dict[int, list[int]] = {place: [] for place, token in enumerate(part_a) if token == MASK}
    for at in range(prefix, length):
        place, inside = positions[at]
        assert inside == len(blanks[place]) + 1
        assert (tokens[at] == START) == (inside == 1)
        if inside > 1:
            assert tokens[at] == targets[at - 1] or (tokens[at] == DOCUMENT and targets[at - 1] == IGNORED)
        blanks[place].append(int(tokens[at]))
    text = []
    for place, token in enumerate(part_a):
        text += blanks[place][1:] if token == MASK else [token]
    return text


@given(st.integers(3, 120), st.floats(0.01, 0.5), st.floats(1, 10), st.integers(0, 1000))
@settings(deadline=None, max_examples=150)
def test_filling_in_the_blanks_gives_the_text_back(length, rate, mean, seed):
    random = rng(seed)
    spans, size_B = poisson_spans(random, rows=6, length=length, rate=rate, mean=mean)
    text = texts(random, 6, int(size_B.max()))
    made = infill(text, size_B, spans, BLANKS, random=random)
    # Masks and starts are what the spans were said to add: no padding.
    assert made.tokens_BL.shape == (6, length) and (made.lengths_B == length).all()
    for row in range(6):
        parts = (part[row] for part in (made.tokens_BL, made.targets_BL, made.positions_BL2))
        assert filled_in(*parts, made.prefix_B[row], length) == text[row, : size_B[row]].tolist()
        prefix = made.prefix_B[row]
        assert (made.positions_BL2[row, :prefix, 0] == np.arange(prefix)).all()
        assert not made.positions_BL2[row, :prefix, 1].any()
        assert (made.targets_BL[row, :prefix] == IGNORED).all()
        assert (made.targets_BL[row] == END).sum() == (spans.row_K == row).sum()


def test_a_row_of_infilling_by_hand():
    text = np.array([list(b"abcdefgh")])
    spans = Spans.of(np.array([0, 0]), np.array([1, 5]), np.array([2, 3]))
    made = infill(text, np.array([8]), spans, BLANKS)
    a, b, c, d, e, f, g, h = b"abcdefgh"
    assert made.tokens_BL.tolist() == [[a, MASK, d, e, MASK, START, b, c, START, f, g, h]]
    assert made.targets_BL.tolist() == [[IGNORED] * 5 + [b, c, END, f, g, h, END]]
    assert made.positions_BL2[0, :, 0].tolist() == [0, 1, 2, 3, 4, 1, 1, 1, 4, 4, 4, 4]
    assert made.positions_BL2[0, :, 1].tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 1, 2, 3, 4]
    assert made.prefix_B.tolist() == [5] and made.lengths_B.tolist() == [12]


def test_blanks_are_filled_in_in_random_order():
    text = np.tile(np.arange(40), (500, 1))
    spans = Spans.of(np.repeat(np.arange(500), 2), np.tile([3, 20], 500), np.full(1000, 2))
    made = infill(text, np.full(500, 40), spans, BLANKS, random=rng())
    first = made.tokens_BL[np.arange(500), made.prefix_B + 1]
    assert set(first.tolist()) == {3, 20} and np.mean(first == 3) == pytest.approx(0.5, abs=0.07)


def test_an_open_blank_has_no_end():
    random = rng()
    text = texts(random, 4, 10)
    spans = tail_spans(random, rows=4, size=10)
    is_open_B = np.array([True, False, True, False])
    made = infill(text, np.full(4, 10), spans, BLANKS, open_B=is_open_B)
    assert made.tokens_BL.shape == (4, 12)
    assert made.targets_BL[:, -1].tolist() == [IGNORED, END, IGNORED, END]


def test_spans_that_are_not_scored_stay_blank():
    text = np.array([list(b"abcdefgh")])
    spans = Spans(np.array([0, 0]), np.array([1, 5]), np.array([2, 3]), np.array([False, True]))
    made = infill(text, np.array([8]), spans, BLANKS)
    a, _, _, d, e, f, g, h = b"abcdefgh"
    assert made.tokens_BL.tolist() == [[a, MASK, d, e, MASK, START, f, g, h]]


def joined(source, source_length, tokens, length, targets):
    """The text of one source and target."""
    spans: list[list[int]] = []
    for token in tokens[1:length].tolist():
        if token >= SENTINELS.sentinel:
            assert token == SENTINELS.sentinel + len(spans) % SENTINELS.sentinels
            spans.append([])
        else:
            spans[-1].append(token)
    assert targets[length - 1] == SENTINELS.sentinel + len(spans) % SENTINELS.sentinels
    text, place = [], 0
    for token in source[:source_length].tolist():
        if token >= SENTINELS.sentinel:
            assert token == SENTINELS.sentinel + place % SENTINELS.sentinels
            text, place = text + spans[place], place + 1
        else:
            text.append(token)
    assert place == len(spans)
    return text


@given(st.integers(2, 150), st.floats(0.01, 0.5), st.floats(1, 10), st.integers(0, 1000))
@settings(deadline=None, max_examples=150)
def test_putting_the_spans_back_gives_the_text_back(size, rate, mean, seed):
    random = rng(seed)
    text = texts(random, 5, size)
    spans = noise_spans(random, rows=5, size=size, rate=rate, mean=mean)
    made = span_corrupt(text, np.full(5, size), spans, SENTINELS)
    assert (made.lengths_B == made.tokens_BL.shape[1]).all()
    assert (made.source_lengths_B == made.source_BS.shape[1]).all()
    for row in range(5):
        found = joined(
            made.source_BS[row],
            made.source_lengths_B[row],
            made.tokens_BL[row],
            made.lengths_B[row],
            made.targets_BL[row],
        )
        assert found == text[row].tolist()
        # What is read is what was to be said one step before.
        said = made.targets_BL[row, :-1]
        assert ((said == made.tokens_BL[row, 1:]) | (made.tokens_BL[row, 1:] == DOCUMENT)).all()


def test_a_source_and_target_by_hand():
    text = np.array([list(b"abcdefgh"), list(b"ABCDEFGH")])
    spans = Spans.of(np.array([0, 0, 1]), np.array([1, 5, 7]), np.array([2, 3, 1]))
    made = span_corrupt(text, np.array([8, 8]), spans, SENTINELS)
    a, b, c, d, e, f, g, h = b"abcdefgh"
    assert made.source_BS.tolist() == [[a, 258, d, e, 259, 0, 0, 0], [*b"ABCDEFG", 258]]
    assert made.source_lengths_B.tolist() == [5, 8]
    assert made.tokens_BL.tolist() == [[257, 258, b, c, 259, f, g, h], [257, 258, ord("H"), 0, 0, 0, 0, 0]]
    assert made.targets_BL.tolist() == [[258, b, c, 259, f, g, h, 260], [258, ord("H"), 259] + [IGNORED] * 5]
    assert made.lengths_B.tolist() == [8, 3]


def test_a_target_scores_the_scored_spans_and_the_sentinels_that_end_them():
    text = np.array([list(b"abcdefgh")])
    flags = np.array([False, True, False])
    spans = Spans(np.array([0, 0, 0]), np.array([1, 3, 6]), np.array([1, 2, 1]), flags)
    made = span_corrupt(text, np.array([8]), spans, SENTINELS, says_first=False)
    _, b, _, d, e, *_ = b"abcdefgh"
    assert made.source_BS[0].tolist() == [ord("a"), 258, ord("c"), 259, ord("f"), 260, ord("h")]
    assert made.tokens_BL[0].tolist() == [257, 258, b, 259, d, e]
    assert made.targets_BL[0].tolist() == [IGNORED, IGNORED, IGNORED, d, e, 260]
