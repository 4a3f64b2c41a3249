"""Examples of MAD are what they claim, checked by readers that know nothing of how they are made."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.specs.tasks import MAD_KINDS
from nas.tasks import IGNORED
from nas.tasks.mad import Mad
from nas.tasks.mad.task import KINDS

OWN_RANGES = {
    "noise_tokens": st.integers(1, 20),
    "noise_share": st.floats(0.0, 0.99),
    "key_tokens": st.integers(1, 4),
    "value_tokens": st.integers(1, 4),
    "copied_tokens": st.integers(1, 20),
}
PAIRED = ("in_context_recall", "noisy_recall")


def options_of(draw, kind: str) -> dict:
    """Valid options of a kind, near the least as often as far from it."""
    own = {key: draw(OWN_RANGES[key]) for key in MAD_KINDS[kind].defaults if key in OWN_RANGES}
    more_kinds, more_tokens = draw(st.integers(0, 40)), draw(st.integers(0, 30))
    least = {
        "in_context_recall": (4, 4),
        "noisy_recall": (own.get("noise_tokens", 0) + 4, 4),
        "fuzzy_recall": (
            1 + max(2 * own.get("key_tokens", 0), 2 * own.get("value_tokens", 0) - 1, 3),
            3 * (own.get("key_tokens", 0) + own.get("value_tokens", 0)) + 1,
        ),
        "selective_copying": (4, 2 * own.get("copied_tokens", 0) + 2),
        "compression": (4, 2),
        "memorization": (5, 2),
    }[kind]
    return Mad.spec.complete(
        {"kind": kind, "vocabulary": least[0] + more_kinds, "length": least[1] + 2 * more_tokens, **own}
    )


@st.composite
def drawn(draw, *kinds: str, training: bool = False):
    """Options of one of the kinds, and examples with their targets."""
    options = options_of(draw, draw(st.sampled_from(kinds)))
    assert not list(Mad.spec.broken_rules(options))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = KINDS[str(options["kind"])](options)
    inputs_EL, targets_EL = kind.draw(random, draw(st.integers(1, 6)), training=training)
    assert inputs_EL.shape == targets_EL.shape and inputs_EL.shape[1] == options["length"]
    assert inputs_EL.min() >= 0 and inputs_EL.max() < options["vocabulary"]
    return options, list(zip(inputs_EL.tolist(), targets_EL.tolist(), strict=True))


@given(drawn(*PAIRED))
@settings(max_examples=100, deadline=None)
def test_recall_asks_for_the_value_of_every_key_that_was_shown_before(found) -> None:
    options, examples = found
    noise = range(options["vocabulary"] - options.get("noise_tokens", 0), options["vocabulary"])
    keys = range(noise.start // 2)
    for tokens, targets in examples:
        shown: dict[int, int] = {}
        for key, value, asked, silent in zip(tokens[::2], tokens[1::2], targets[::2], targets[1::2], strict=True):
            assert silent == IGNORED
            if key in noise:
                assert value in noise and asked == IGNORED
                continue
            assert key in keys and value not in keys and value not in noise
            assert asked == shown.get(key, IGNORED)
            assert shown.setdefault(key, value) == value
        assert targets[-2] != IGNORED


def fuzzy_pairs(tokens: list[int], options: dict) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The keys and values of a row behind its padding; keys are the smaller half of the tokens."""
    padding = options["vocabulary"] - 1
    keys = range(padding // 2)
    behind = list(tokens)
    while behind[0] == padding:
        behind.pop(0)
    assert padding not in behind and behind[0] in keys
    starts = [0, *(at for at, (a, b) in enumerate(pairwise(behind), 1) if a not in keys and b in keys), len(behind)]
    found = []
    for first, last in pairwise(starts):
        pair = behind[first:last]
        size = sum(token in keys for token in pair)
        found.append((tuple(pair[:size]), tuple(pair[size:])))
    return found


@given(drawn("fuzzy_recall"))
@settings(max_examples=100, deadline=None)
def test_fuzzy_recall_asks_for_every_token_of_a_value_whose_key_was_shown_before(found) -> None:
    options, examples = found
    for tokens, targets in examples:
        assert tokens[0] == options["vocabulary"] - 1
        # The last token of the last value is asked for and not read.
        whole = [*tokens, targets[-1]]
        expected: list[int] = []
        shown: dict[tuple[int, ...], tuple[int, ...]] = {}
        for key, value in fuzzy_pairs(whole, options):
            assert len(set(key)) == len(key) == options["key_tokens"]
            assert 1 <= len(set(value)) == len(value) <= options["value_tokens"]
            expected += [IGNORED] * len(key) + (list(value) if key in shown else [IGNORED] * len(value))
            assert shown.setdefault(key, value) == value
        assert expected == targets[len(targets) - len(expected) :]
        assert set(targets[: len(targets) - len(expected)]) <= {IGNORED}
        assert targets[-1] != IGNORED


@given(drawn("fuzzy_recall", training=True))
@settings(max_examples=50, deadline=None)
def test_fuzzy_recall_is_trained_on_motifs_of_every_size(found) -> None:
    options, examples = found
    for tokens, targets in examples:
        shown: dict[tuple[int, ...], tuple[int, ...]] = {}
        for key, value in fuzzy_pairs([*tokens, targets[-1]], options):
            assert 1 <= len(set(key)) == len(key) <= options["key_tokens"]
            assert 1 <= len(set(value)) == len(value) <= options["value_tokens"]
            assert shown.setdefault(key, value) == value
        assert targets[:-1] == tokens[1:]


@given(drawn("selective_copying"))
@settings(max_examples=50, deadline=None)
def test_selective_copying_asks_for_the_tokens_between_the_blanks_in_their_order(found) -> None:
    options, examples = found
    blank, mark = options["vocabulary"] - 2, options["vocabulary"] - 1
    copied = options["copied_tokens"]
    for tokens, targets in examples:
        at = tokens.index(mark)
        assert at == options["length"] - copied - 1
        assert tokens[at + 1 :] == [blank] * copied
        assert targets == [IGNORED] * (at + 1) + [token for token in tokens[:at] if token != blank]
        assert tokens[at - 1] != blank


@given(drawn("compression"))
@settings(max_examples=30, deadline=None)
def test_compression_asks_for_everything_that_was_read(found) -> None:
    options, examples = found
    mark = options["vocabulary"] - 1
    for tokens, targets in examples:
        assert targets == tokens and tokens.index(mark) == len(tokens) - 1


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_memorization_has_one_map_for_all_parts(data) -> None:
    options = options_of(data.draw, "memorization")
    mark, keys = options["vocabulary"] - 1, range((options["vocabulary"] - 1) // 2)
    facts: dict[int, int] = {}
    task = Mad({**options, "evaluation_examples": 5})
    training = task.training_batch(seed=0, step=0, tokens=5 * options["length"], max_context=options["length"])
    parts = [task.held_out("validation"), task.held_out("test")]
    parts += [(training.inputs_BL.numpy(), training.targets_BL.numpy())]
    for inputs_EL, targets_EL in parts:
        assert (inputs_EL[:, 1::2] == mark).all() and (targets_EL[:, ::2] == IGNORED).all()
        for key, value in zip(inputs_EL[:, ::2].ravel().tolist(), targets_EL[:, 1::2].ravel().tolist(), strict=True):
            assert key in keys and keys.stop <= value < mark
            assert facts.setdefault(key, value) == value
    assert len(set(facts.values())) == len(facts)


@given(drawn(*PAIRED, training=True))
@settings(max_examples=30, deadline=None)
def test_recall_is_trained_on_every_next_token(found) -> None:
    for tokens, targets in found[1]:
        assert targets == [*tokens[1:], IGNORED]


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_the_share_of_noise_is_the_one_that_was_asked_for(share: float) -> None:
    options = Mad.spec.complete({"kind": "noisy_recall", "noise_share": share})
    inputs_EL, _ = KINDS["noisy_recall"](options).draw(np.random.default_rng(0), 4000, training=False)
    is_noise_EP = inputs_EL[:, ::2] >= 16
    # Of 64 pairs the last is none, and another one is spared.
    expected, pairs = 62 * share, 62
    assert abs(is_noise_EP.sum(1).mean() - expected) < 5 * (pairs * share * (1 - share) / 4000) ** 0.5
    assert len(np.unique(inputs_EL[inputs_EL >= 16])) == 16


def test_keys_values_and_what_is_asked_last_are_drawn_evenly() -> None:
    options = Mad.spec.complete({"kind": "in_context_recall", "length": 8})
    inputs_EL, _ = KINDS["in_context_recall"](options).draw(np.random.default_rng(0), 40_000, training=False)
    for column in (inputs_EL[:, 0], inputs_EL[:, 1] - 8, inputs_EL[:, 4], inputs_EL[:, 5] - 8):
        assert np.abs(np.bincount(column, minlength=8) / 40_000 - 1 / 8).max() < 5 * (1 / 8 / 40_000) ** 0.5
    # Of two different keys that were shown, one of them twice, either is asked for as often.
    twice = inputs_EL[(inputs_EL[:, 0] == inputs_EL[:, 2]) & (inputs_EL[:, 0] != inputs_EL[:, 4])]
    assert abs((twice[:, 6] == twice[:, 0]).mean() - 0.5) < 5 * (0.25 / len(twice)) ** 0.5


def test_blanks_stand_before_any_of_the_copied_tokens_alike() -> None:
    options = Mad.spec.complete({"kind": "selective_copying", "length": 13, "copied_tokens": 4})
    inputs_EL, _ = KINDS["selective_copying"](options).draw(np.random.default_rng(0), 20_000, training=False)
    before = Counter(tuple(int(gap) for gap in np.diff([-1, *np.flatnonzero(row[:8] < 14)]) - 1) for row in inputs_EL)
    # Four blanks, each before one of four tokens at random: a multinomial distribution.
    assert abs(before[4, 0, 0, 0] / 20_000 - 1 / 256) < 5 * (1 / 256 / 20_000) ** 0.5
    assert abs(before[1, 1, 1, 1] / 20_000 - 24 / 256) < 5 * (24 / 256 / 20_000) ** 0.5
    assert abs(before[0, 2, 0, 2] / 20_000 - 6 / 256) < 5 * (6 / 256 / 20_000) ** 0.5


def test_motifs_are_rows_of_different_tokens_all_alike() -> None:
    options = Mad.spec.complete({"kind": "fuzzy_recall", "vocabulary": 10, "length": 20})
    inputs_EL, targets_EL = KINDS["fuzzy_recall"](options).draw(np.random.default_rng(0), 6000, training=False)
    whole = np.concatenate([inputs_EL, targets_EL[:, -1:]], axis=1).tolist()
    first = Counter(fuzzy_pairs(row, options)[-1][0] for row in whole)
    # Four tokens of keys: 24 rows of three.
    assert len(first) == 24
    assert max(abs(count / 6000 - 1 / 24) for count in first.values()) < 5 * (1 / 24 / 6000) ** 0.5


def test_motifs_have_every_size_alike_and_keys_that_are_scored_the_largest() -> None:
    options = Mad.spec.complete({"kind": "fuzzy_recall", "value_tokens": 2, "length": 40})
    for training, key_sizes in ((True, {1, 2, 3}), (False, {3})):
        random = np.random.default_rng(0)
        inputs_EL, targets_EL = KINDS["fuzzy_recall"](options).draw(random, 3000, training=training)
        whole = np.concatenate([inputs_EL, targets_EL[:, -1:]], axis=1).tolist()
        # The pair that is asked for last is drawn before all others, so its size depends on nothing.
        last = [fuzzy_pairs(row, options)[-1] for row in whole]
        for sizes, wanted in (
            (Counter(len(key) for key, _ in last), key_sizes),
            (Counter(len(v) for _, v in last), {1, 2}),
        ):
            assert set(sizes) == wanted
            share = 1 / len(wanted)
            assert max(abs(count / 3000 - share) for count in sizes.values()) < 5 * (share / 3000) ** 0.5
