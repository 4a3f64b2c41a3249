"""Words that look like words, made of syllables.

In: nothing. Out: the same list everywhere, so that no data comes with the package.

A word is never a part of another, for an answer is searched for the words that it should hold: the
short words and the long ones have different consonants, and words of one length are different.
"""

from __future__ import annotations

from functools import cache
from itertools import product

WORDS = 8192
_VOWELS = "aeiou"
_SHORT, _LONG = "bdfgklm", "nprstvz"


@cache
def word_list() -> tuple[bytes, ...]:
    """8192 different words of 2 or 3 syllables, 4 or 6 letters, in alphabetical order.

    >>> word_list()[:2], word_list()[-1]
    ((b'baba', b'babe'), b'zuzuzu')
    """
    short = _words(_SHORT, syllables=2)
    long = _words(_LONG, syllables=3)
    # As many long words as are missing, evenly from the whole alphabet, its end included.
    wanted = WORDS - len(short)
    chosen = [long[(place * (len(long) - 1)) // (wanted - 1)] for place in range(wanted)]
    return tuple(sorted(word.encode() for word in short + chosen))


def _words(consonants: str, *, syllables: int) -> list[str]:
    heard = [consonant + vowel for consonant, vowel in product(consonants, _VOWELS)]
    return ["".join(parts) for parts in product(heard, repeat=syllables)]
