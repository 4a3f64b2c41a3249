"""What of a text a context holds, and the order in which texts are read."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.tasks.data import Ragged
from nas.tasks.texts import Epochs, cut_share, drawn_views, grouped, held_out, read_views, views

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


def ragged(lengths: list[int]) -> Ragged:
    """Texts whose tokens are all different."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Ragged(np.arange(offsets[-1]), offsets)


def read(lengths: list[int], context: int, how: str) -> list[tuple[int, list[int]]]:
    """Each view's text, and its tokens as places in the text."""
    texts = ragged(lengths)
    found = []
    for group, length in grouped(views(np.arange(len(lengths)), texts.lengths, context, how), 200):
        inputs = read_views(texts, group, length)
        assert inputs.tokens_BL.shape[1] == length <= context
        sizes = [length] * len(group.text_W) if inputs.lengths_B is None else inputs.lengths_B.tolist()
        for text, tokens, size in zip(group.text_W.tolist(), inputs.tokens_BL.tolist(), sizes, strict=True):
            assert not any(tokens[size:])
            found.append((text, [token - int(texts.offsets[text]) for token in tokens[:size]]))
    return sorted(found)


@given(LENGTHS, st.integers(1, 50))
@settings(deadline=None)
def test_a_text_is_cut_as_the_study_says(lengths: list[int], context: int) -> None:
    expected = [(text, list(range(min(size, context)))) for text, size in enumerate(lengths)]
    assert read(lengths, context, "truncate") == expected
    half = context // 2
    ends = [
        (text, [*range(size)] if size <= context else [*range(context - half), *range(size - half, size)])
        for text, size in enumerate(lengths)
    ]
    assert read(lengths, context, "head_tail") == ends
    kept = sum(len(tokens) for _, tokens in ends)
    for how in ("truncate", "head_tail"):
        assert cut_share(np.array(lengths), context, how) == pytest.approx(1 - kept / sum(lengths))


@given(LENGTHS, st.integers(1, 50))
@settings(deadline=None)
def test_windows_hold_every_token_and_advance_by_half_the_context(lengths: list[int], context: int) -> None:
    seen = read(lengths, context, "window")
    for text, size in enumerate(lengths):
        windows = [tokens for its, tokens in seen if its == text]
        assert {token for tokens in windows for token in tokens} == set(range(size))
        assert all(len(tokens) == min(size, context) for tokens in windows)
        assert all(tokens == list(range(tokens[0], tokens[-1] + 1)) for tokens in windows)
        steps = np.diff([tokens[0] for tokens in windows])
        assert (steps <= max(context // 2, 1)).all()
        assert (steps[:-1] == max(context // 2, 1)).all()
    assert cut_share(np.array(lengths), context, "window") == 0


@given(LENGTHS, st.integers(1, 50), st.sampled_from(["truncate", "head_tail", "window"]))
@settings(deadline=None)
def test_training_reads_one_of_the_views(lengths: list[int], context: int, how: str) -> None:
    texts = ragged(lengths)
    drawn = drawn_views(np.random.default_rng(0), np.arange(len(lengths)), texts.lengths, context, how)
    assert drawn.length_W.tolist() == [min(size, context) for size in lengths]
    if how != "window":
        fixed = views(np.arange(len(lengths)), texts.lengths, context, how)
        assert (
            read_views(texts, drawn, context).tokens_BL.tolist() == read_views(texts, fixed, context).tokens_BL.tolist()
        )


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(1, 80), st.integers(0, 3))
@settings(deadline=None)
def test_an_epoch_reads_every_text_and_hardly_one_twice(lengths: list[int], context: int, seed: int) -> None:
    epochs = Epochs(np.array(lengths))
    tokens = 2 * min(context, max(lengths)) + 3
    steps = next(step for step in range(10**6) if step and epochs._place(seed, step, tokens, context)[1] == 1)
    orders = []
    for epoch in range(2):
        seen: Counter[int] = Counter()
        order = []
        for step in range(epoch * steps, (epoch + 1) * steps):
            taken = epochs.step(seed=seed, step=step, tokens=tokens, max_context=context)
            shape = epochs.shape(seed=seed, step=step, tokens=tokens, max_context=context)
            assert (len(taken.text_B), taken.length) == (shape.sequences, shape.length)
            assert tokens - taken.length < len(taken.text_B) * taken.length <= tokens
            assert max(min(lengths[text], context) for text in taken.text_B) <= taken.length <= context
            seen.update(taken.text_B.tolist())
            order.append(taken.text_B.tolist())
        assert set(seen) == set(range(len(lengths)))
        orders.append(order)
    if len(lengths) > 30:
        assert orders[0] != orders[1]


def test_padding_is_little_where_texts_are_of_any_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 1000, size=5000)
    epochs = Epochs(lengths)
    real = padded = 0
    for step in range(300):
        taken = epochs.step(seed=0, step=step, tokens=16_384, max_context=2000)
        real += int(lengths[taken.text_B].sum())
        padded += len(taken.text_B) * taken.length
    assert real / padded > 0.93


def test_held_out_texts_are_evenly_spaced_and_of_the_test_part_four_times_as_many() -> None:
    assert held_out(10, 5, "validation").tolist() == [0, 2, 4, 6, 8]
    assert held_out(10, 2, "test").tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert held_out(10, 50, "validation").tolist() == list(range(10))
