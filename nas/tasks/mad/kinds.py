"""The six kinds of examples of MAD, drawn some at a time.

In: the settings of a kind, and random numbers. Out: inputs and, at each position, the token to be said
there, −100 where none is.

    in_context_recall   k₁ v₁ k₂ v₂ k₁ [v₁]        of every key that was shown before, the value; a key's value
                                                   is drawn once for each example
    noisy_recall        k₁ v₁ n n k₁ [v₁]          the same; a share of the pairs are two tokens of noise
    fuzzy_recall        _ _ k k v v v k v k k [v]  the same in motifs (see fuzzy.py)
    selective_copying   _ a _ _ b c > [a] [b] [c]  the tokens among blanks, in their order
    compression         a b c >                    all tokens, from the features of the mark
    memorization        k₁ [v₁] k₂ [v₂]            values of a map that is the same in every example; what stands
                                                   in their places is a mark

The recall kinds are trained to say every next token, whether the example tells it or not, and scored on
the values in brackets; the others are trained on what they are scored on.

Source: Poli et al. 2024 (Mechanistic design and scaling of hybrid architectures), and where the paper
leaves it open the authors' code (athms/mad-lab). Of `length` tokens that code's recall reads all but the
last, which here is read and followed by nothing.

Legend: E examples, L positions, P pairs, K keys, V token kinds, N scored positions in one row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.specs.base import Options
from nas.specs.tasks import mad_key_kinds
from nas.tasks.metrics import IGNORED
from nas.tasks.randomness import Purpose, generator

Ints = NDArray[np.int64]
Shares = NDArray[np.float64]

# Streams of Purpose.EXAMPLES: the training set, and the map that memorization asks for.
TRAINING_SET, FACTS = 0, 1


class Kind(ABC):
    """One kind with its settings, which the specification has checked."""

    def __init__(self, options: Options) -> None:
        self.vocabulary, self.length = int(options["vocabulary"]), int(options["length"])

    @abstractmethod
    def draw(self, random: np.random.Generator, examples: int, *, training: bool) -> tuple[Ints, Ints]:
        """Examples, (E, L), and their targets, (E, L).

        Args:
            random: draws them.
            examples: how many.
            training: whether to train on rather than to score: the recall kinds have other targets then, and
                fuzzy recall has shorter keys too.
        """

    @abstractmethod
    def chances(self, inputs_EL: Ints, targets_EL: Ints) -> Shares:
        """How likely a trivial guesser says each scored target, (N,)."""


class Recall(Kind):
    """Pairs of a key and its value, with noise or without."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._keys = mad_key_kinds(options)
        self._noise = int(options.get("noise_tokens", 0))
        self._noise_share = float(options.get("noise_share", 0.0))
        self._values = self.vocabulary - self._noise - self._keys

    def draw(self, random: np.random.Generator, examples: int, *, training: bool) -> tuple[Ints, Ints]:
        pairs = self.length // 2
        value_EK = self._keys + random.integers(self._values, size=(examples, self._keys))
        key_EP = random.integers(self._keys, size=(examples, pairs))
        is_noise_EP = random.random((examples, pairs)) < self._noise_share
        # One pair at least is shown before the last one, which asks for a key that was shown.
        is_noise_EP[np.arange(examples), random.integers(pairs - 1, size=examples)] = False
        is_noise_EP[:, -1] = False
        key_EP[:, -1] = self._shown_key(random, key_EP[:, :-1], is_noise_EP[:, :-1])
        inputs_EL = np.empty((examples, self.length), dtype=np.int64)
        inputs_EL[:, ::2], inputs_EL[:, 1::2] = key_EP, np.take_along_axis(value_EK, key_EP, axis=1)
        if self._noise:
            noise_EL = self.vocabulary - self._noise + random.integers(self._noise, size=inputs_EL.shape)
            inputs_EL = np.where(np.repeat(is_noise_EP, 2, axis=1), noise_EL, inputs_EL)
        if training:
            return inputs_EL, next_tokens(inputs_EL)
        targets_EL = np.full_like(inputs_EL, IGNORED)
        # Noise counts as a key of its own each time.
        named_EP = np.where(is_noise_EP, self._keys + np.arange(pairs), key_EP)
        targets_EL[:, ::2] = np.where(is_repeated(named_EP), inputs_EL[:, 1::2], IGNORED)
        return inputs_EL, targets_EL

    def chances(self, inputs_EL: Ints, targets_EL: Ints) -> Shares:
        """Of a value of one of the example's pairs, which one at random."""
        return share_of_shown(inputs_EL, targets_EL, range(self._keys, self._keys + self._values))

    def _shown_key(self, random: np.random.Generator, key_EP: Ints, is_noise_EP: NDArray[np.bool_]) -> Ints:
        """For each example one of its different keys, all alike."""
        # Noise is put where it marks no key.
        is_shown_EK = np.zeros((len(key_EP), self._keys + 1), dtype=bool)
        np.put_along_axis(is_shown_EK, np.where(is_noise_EP, self._keys, key_EP), True, axis=1)
        drawn_EK = np.where(is_shown_EK[:, :-1], random.random((len(key_EP), self._keys)), -1.0)
        found_E: Ints = drawn_EK.argmax(axis=1)
        return found_E


class SelectiveCopying(Kind):
    """Tokens among blanks; behind a mark they are to be said again."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._copied = int(options["copied_tokens"])
        self.blank, self.mark = self.vocabulary - 2, self.vocabulary - 1

    def draw(self, random: np.random.Generator, examples: int, *, training: bool) -> tuple[Ints, Ints]:
        copied_EC = random.integers(self.vocabulary - 2, size=(examples, self._copied))
        blanks = self.length - 2 * self._copied - 1
        # Each blank stands before one of the tokens, whichever: as many before each as it was drawn.
        before_EB = np.sort(random.integers(self._copied, size=(examples, blanks)), axis=1)
        blanks_EC = np.stack([(before_EB <= place).sum(axis=1) for place in range(self._copied)], axis=1)
        inputs_EL = np.full((examples, self.length), self.blank, dtype=np.int64)
        np.put_along_axis(inputs_EL, blanks_EC + np.arange(self._copied), copied_EC, axis=1)
        inputs_EL[:, self._copied + blanks] = self.mark
        targets_EL = np.full_like(inputs_EL, IGNORED)
        targets_EL[:, -self._copied :] = copied_EC
        return inputs_EL, targets_EL

    def chances(self, inputs_EL: Ints, targets_EL: Ints) -> Shares:
        """Of one of the example's tokens at random."""
        return share_of_shown(inputs_EL, targets_EL, range(self.blank))


class Compression(Kind):
    """Random tokens, and a mark whose features have to hold them all."""

    def draw(self, random: np.random.Generator, examples: int, *, training: bool) -> tuple[Ints, Ints]:
        inputs_EL = random.integers(self.vocabulary - 1, size=(examples, self.length))
        inputs_EL[:, -1] = self.vocabulary - 1
        return inputs_EL, inputs_EL.copy()

    def chances(self, inputs_EL: Ints, targets_EL: Ints) -> Shares:
        """Of any token but the mark, and surely of the mark, whose place is known."""
        return np.where(targets_EL == self.vocabulary - 1, 1.0, 1 / (self.vocabulary - 1)).ravel()


class Memorization(Kind):
    """Keys whose values no example tells."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._keys, self.mark = mad_key_kinds(options), self.vocabulary - 1
        # Every key has a value of its own; where values are one more than keys, one of them is nobody's.
        values = self._keys + np.arange(self.vocabulary - 1 - self._keys)
        self.value_K = generator(Purpose.EXAMPLES, seed=0, step=FACTS).permutation(values)[: self._keys]

    def draw(self, random: np.random.Generator, examples: int, *, training: bool) -> tuple[Ints, Ints]:
        key_EP = random.integers(self._keys, size=(examples, self.length // 2))
        inputs_EL = np.full((examples, self.length), self.mark, dtype=np.int64)
        inputs_EL[:, ::2] = key_EP
        targets_EL = np.full_like(inputs_EL, IGNORED)
        targets_EL[:, 1::2] = self.value_K[key_EP]
        return inputs_EL, targets_EL

    def chances(self, inputs_EL: Ints, targets_EL: Ints) -> Shares:
        """Of one of the map's values at random."""
        return np.full(int((targets_EL != IGNORED).sum()), 1 / self._keys)


def next_tokens(inputs_EL: Ints) -> Ints:
    """At each position the token behind it; −100 at the last."""
    targets_EL = np.full_like(inputs_EL, IGNORED)
    targets_EL[:, :-1] = inputs_EL[:, 1:]
    return targets_EL


def is_repeated(name_EP: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Whether the same name stood before in the row, (E, P)."""
    order_EP = np.argsort(name_EP, axis=1, kind="stable")
    sorted_EP = np.take_along_axis(name_EP, order_EP, axis=1)
    found_EP = np.zeros(name_EP.shape, dtype=bool)
    np.put_along_axis(found_EP, order_EP[:, 1:], sorted_EP[:, 1:] == sorted_EP[:, :-1], axis=1)
    return found_EP


def share_of_shown(inputs_EL: Ints, targets_EL: Ints, shown: range) -> Shares:
    """For each target its share of the example's tokens of a range, (N,)."""
    examples, kinds = len(inputs_EL), len(shown)
    example_N, _ = np.nonzero(targets_EL != IGNORED)
    example_S, place_S = np.nonzero((inputs_EL >= shown.start) & (inputs_EL < shown.stop))
    token_S = inputs_EL[example_S, place_S] - shown.start
    count_EV = np.bincount(example_S * kinds + token_S, minlength=examples * kinds).reshape(examples, kinds)
    share_EV = count_EV / count_EV.sum(axis=1, keepdims=True)
    found: Shares = share_EV[example_N, targets_EL[targets_EL != IGNORED] - shown.start]
    return found
