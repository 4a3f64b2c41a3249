"""Fuzzy recall of MAD: keys and values are motifs of several tokens.

In: the settings, and random numbers. Out: inputs and targets (see kinds.py).

    _ _ k k k v v k k k v v v … k k k [v] [v]

A motif is a row of different tokens, of keys or of values. Pairs follow each other until there is room for
no other one; the pair that is asked for last is put between them, and the rest is filled up on the left.
Motifs to train on have every size, keys that are scored have the largest.

One thing differs from the authors' code: there the pair that is asked for last may find no place before
the end, and then nothing tells its value; here it always finds one.

Legend: E examples, L positions, P motifs, M tokens of the longest motif.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nas.specs.base import Options
from nas.specs.tasks import mad_key_kinds
from nas.tasks.mad.kinds import Ints, Kind, Shares, share_of_shown
from nas.tasks.metrics import IGNORED

# Most motifs that are drawn at once.
AT_ONCE = 16_384

Motif = tuple[int, ...]
Pair = tuple[Motif, Motif]


class FuzzyRecall(Kind):
    """Recall of motifs."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._most_key, self._most_value = int(options["key_tokens"]), int(options["value_tokens"])
        self.padding = self.vocabulary - 1
        keys = mad_key_kinds(options)
        self._keys, self._values = range(keys), range(keys, self.padding)

    def draw(self, random: np.random.Generator, examples: int, *, training: bool) -> tuple[Ints, Ints]:
        smallest_key = 1 if training else self._most_key
        # About as many as the examples take: pairs of middling size.
        at_once = examples * (2 * self.length // (smallest_key + self._most_key + 1 + self._most_value) + 1)
        keys = _motifs(random, self._keys, smallest_key, self._most_key, min(at_once, AT_ONCE))
        values = _motifs(random, self._values, 1, self._most_value, min(at_once, AT_ONCE))
        pairs = zip(keys, values, strict=True)
        all_EL = np.full((examples, self.length + 1), self.padding, dtype=np.int64)
        is_asked_EL = np.zeros(all_EL.shape, dtype=bool)
        for row, place in enumerate(random.random(examples).tolist()):
            tokens, is_asked = self._example(pairs, place)
            all_EL[row, -len(tokens) :] = tokens
            is_asked_EL[row, -len(tokens) :] = is_asked
        inputs_EL = all_EL[:, :-1].copy()
        if training:
            return inputs_EL, all_EL[:, 1:].copy()
        return inputs_EL, np.where(is_asked_EL, all_EL, IGNORED)[:, 1:]

    def chances(self, inputs_EL: Ints, targets_EL: Ints) -> Shares:
        """Of a token of the example's values at random."""
        return share_of_shown(inputs_EL, targets_EL, self._values)

    def _example(self, pairs: Iterator[Pair], place: float) -> tuple[list[int], list[bool]]:
        """The tokens of an example, and which of them are asked for.

        Args:
            pairs: endless; the first that is taken is asked for last.
            place: from 0 to 1, where that pair stands among the others.
        """
        asked_key, asked_value = next(pairs)
        longest = self._most_key + self._most_value
        room = self.length - len(asked_key) - len(asked_value) - longest
        # Pairs begin no further apart than `longest`, so one of them begins between here and the end.
        first_place = int(place * (room - longest + 1))
        said: dict[Motif, Motif] = {}
        tokens: list[int] = []
        is_asked: list[bool] = []

        def append(key: Motif, value: Motif) -> None:
            is_repeated = key in said
            value = asked_value if key == asked_key else said.setdefault(key, value)
            said[key] = value
            tokens.extend((*key, *value))
            is_asked.extend([False] * len(key) + [is_repeated] * len(value))

        while len(tokens) < room:
            is_due = len(tokens) >= first_place and asked_key not in said
            append(*((asked_key, asked_value) if is_due else next(pairs)))
        append(asked_key, asked_value)
        return tokens, is_asked


def _motifs(random: np.random.Generator, tokens: range, smallest: int, largest: int, at_once: int) -> Iterator[Motif]:
    """Motifs without end: rows of different tokens, all rows of a size alike, drawn so many at once."""
    while True:
        size_P = random.integers(smallest, largest + 1, size=at_once)
        chosen: list[Ints] = []
        for place in range(largest):
            # One of those that are left, counted in order: past every smaller one that was taken.
            token_P = random.integers(len(tokens) - place, size=at_once)
            for taken_P in np.sort(np.array(chosen, dtype=np.int64).reshape(place, at_once), axis=0):
                token_P = token_P + (token_P >= taken_P)
            chosen.append(token_P)
        motif_PM = tokens.start + np.stack(chosen, axis=1)
        for motif, size in zip(motif_PM.tolist(), size_P.tolist(), strict=True):
            yield tuple(motif[:size])
