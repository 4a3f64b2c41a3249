"""Lists of ListOps, many at a time.

In: random numbers and the sizes that lists may have. Out: rows of tokens, and the digit that each comes to.

    [MAX 2 9 [MIN 4 7 ] 0 ]  =  9

Trees grow level by level, all lists of a portion at once, and those that are longer or shorter than was
asked for are thrown away before symbols are drawn. The tokens of a list are written by sizes alone: what
stands before an argument is its list's opening and the arguments before it.

Source: Nangia and Bowman 2018 (the operators, and arguments that are lists with probability 1/4); Tay et
al. 2021 (Long Range Arena) for sizes. As there, an argument is a list with probability 1/4 above the
deepest level, brackets of the tree's own form are no tokens, and of an even number of digits the median is
the mean of the middle two, rounded down.

Legend: N nodes of a level, P lists (parents) of a level, E whole lists, T tokens of all of them, A arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.specs.tasks import LISTOPS_OPERATORS

Ints = NDArray[np.int64]
Tokens = NDArray[np.uint8]

DIGITS = 10
OPEN = DIGITS
"""The token of the first operator; the others follow."""
CLOSE = OPEN + len(LISTOPS_OPERATORS)
VOCABULARY = CLOSE + 1
SYMBOLS = (*map(str, range(DIGITS)), *(f"[{name}" for name in LISTOPS_OPERATORS), "]")
"""What the tokens stand for."""

LIST_SHARE = 0.25


@dataclass(frozen=True)
class Sizes:
    """What lists may be drawn.

    Attributes:
        shortest: tokens of the shortest.
        longest: tokens of the longest.
        max_depth: depth of the deepest digit; the whole list has depth 1.
        max_arguments: most arguments of an operator.
    """

    shortest: int
    longest: int
    max_depth: int
    max_arguments: int


@dataclass(frozen=True)
class Level:
    """The nodes of one depth, those of one list after the other.

    Attributes:
        tree_N: the whole list that each is part of.
        list_P: which of them are lists.
        arguments_P: how many arguments each of those has; they are the nodes of the next level.
    """

    tree_N: Ints
    list_P: Ints
    arguments_P: Ints


def lists(random: np.random.Generator, sizes: Sizes, count: int) -> tuple[list[Tokens], NDArray[np.uint8]]:
    """The lists of one draw of `count`, those of them that have the sizes asked for, and their values.

    A draw of which the whole list were a digit is none: it would be too short.
    """
    levels = _grown(random, sizes, count)
    length_E = _lengths(levels, count)
    levels, kept = _pruned(levels, np.flatnonzero((length_E >= sizes.shortest) & (length_E <= sizes.longest)))
    if not kept:
        return [], np.zeros(0, dtype=np.uint8)
    size_of, starts_T = _laid_out(levels, kept)
    tokens_T = np.empty(int(starts_T[-1]), dtype=np.uint8)
    value_E = _written(random, levels, size_of, tokens_T, starts_T)
    return np.split(tokens_T, starts_T[1:-1]), value_E


def text_of(tokens: Tokens) -> str:
    """The symbols of a list, as the arena writes them."""
    return " ".join(SYMBOLS[token] for token in tokens.tolist())


def _grown(random: np.random.Generator, sizes: Sizes, count: int) -> list[Level]:
    """Trees of which no list has become longer than the longest."""
    levels: list[Level] = []
    tree_N = np.arange(count)
    list_P = np.arange(count)
    length_E = np.ones(count, dtype=np.int64)
    for depth in range(1, sizes.max_depth + 1):
        arguments_P = random.integers(2, sizes.max_arguments + 1, size=len(list_P))
        levels.append(Level(tree_N, list_P, arguments_P))
        # A list is as long as its arguments, its operator and its bracket; as a node it counted as 1.
        length_E += np.bincount(tree_N[list_P], weights=arguments_P + 1, minlength=count).astype(np.int64)
        tree_N = np.repeat(tree_N[list_P], arguments_P)
        if depth + 1 == sizes.max_depth or not len(tree_N):
            levels.append(Level(tree_N, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)))
            break
        # What is too long already grows no further, and is thrown away in the end.
        is_list_N = random.random(len(tree_N)) < LIST_SHARE
        list_P = np.flatnonzero(is_list_N & (length_E[tree_N] <= sizes.longest))
    return levels


def _lengths(levels: list[Level], count: int) -> Ints:
    """Tokens of each whole list."""
    length_E = np.zeros(count, dtype=np.int64)
    for level in levels:
        length_E += np.bincount(level.tree_N, minlength=count)
        length_E += np.bincount(level.tree_N[level.list_P], minlength=count)
    return length_E


def _pruned(levels: list[Level], kept_E: Ints) -> tuple[list[Level], int]:
    """The levels of some of the trees alone, and how many these are."""
    place_E = np.full(1 + max(int(level.tree_N.max(initial=-1)) for level in levels), -1)
    place_E[kept_E] = np.arange(len(kept_E))
    found: list[Level] = []
    for level in levels:
        is_kept_N = place_E[level.tree_N] >= 0
        is_kept_P = is_kept_N[level.list_P]
        place_N = np.cumsum(is_kept_N) - 1
        found.append(
            Level(
                place_E[level.tree_N[is_kept_N]],
                place_N[level.list_P[is_kept_P]],
                level.arguments_P[is_kept_P],
            )
        )
    return found, len(kept_E)


def _laid_out(levels: list[Level], trees: int) -> tuple[list[Ints], Ints]:
    """Tokens of each node of each level, and where the whole lists begin and end, (E + 1,)."""
    size_of: list[Ints] = []
    below_N = np.zeros(0, dtype=np.int64)
    for level in reversed(levels):
        size_N = np.ones(len(level.tree_N), dtype=np.int64)
        if len(level.list_P):
            size_N[level.list_P] = 2 + np.add.reduceat(below_N, first_of(level.arguments_P))
        size_of.append(size_N)
        below_N = size_N
    return size_of[::-1], np.concatenate([[0], np.cumsum(below_N)])


def _written(
    random: np.random.Generator, levels: list[Level], size_of: list[Ints], tokens_T: Tokens, starts_T: Ints
) -> NDArray[np.uint8]:
    """Draws the symbols of lists, writes them to their places, and gives the digit that each list comes to."""
    start_N = starts_T[:-1]
    operators: list[Ints] = []
    digits: list[NDArray[np.uint8]] = []
    for depth, (level, size_N) in enumerate(zip(levels, size_of, strict=True)):
        operator_P = random.integers(len(LISTOPS_OPERATORS), size=len(level.list_P))
        digit_N = random.integers(DIGITS, size=len(level.tree_N), dtype=np.uint8)
        operators.append(operator_P)
        digits.append(digit_N)
        # Where a node is a list, its digit plays no part.
        tokens_T[start_N] = digit_N
        start_P = start_N[level.list_P]
        tokens_T[start_P] = OPEN + operator_P
        tokens_T[start_P + size_N[level.list_P] - 1] = CLOSE
        if depth + 1 < len(levels):
            start_N = 1 + np.repeat(start_P, level.arguments_P) + _before(size_of[depth + 1], level.arguments_P)
    value_N = digits[-1]
    for level, operator_P, digit_N in list(zip(levels, operators, digits, strict=True))[-2::-1]:
        digit_N[level.list_P] = values_of(operator_P, value_N, level.arguments_P)
        value_N = digit_N
    return value_N


def values_of(operator_P: Ints, value_N: NDArray[np.uint8], arguments_P: Ints) -> NDArray[np.uint8]:
    """The digit that each list comes to, (P,).

    Args:
        operator_P: the place of each list's operator among `LISTOPS_OPERATORS`.
        value_N: the digits of all arguments, list after list.
        arguments_P: how many each list has, at least 1.
    """
    found_P = np.zeros(len(operator_P), dtype=np.uint8)
    if not len(found_P):
        return found_P
    first_P = first_of(arguments_P)
    smallest, largest, median, total = range(len(LISTOPS_OPERATORS))
    for operator, fold in ((smallest, np.minimum), (largest, np.maximum)):
        is_its_P = operator_P == operator
        found_P[is_its_P] = fold.reduceat(value_N, first_P)[is_its_P]
    is_its_P = operator_P == total
    found_P[is_its_P] = np.add.reduceat(value_N, first_P, dtype=np.int64)[is_its_P] % DIGITS
    is_its_P = operator_P == median
    first_P, arguments_P = first_P[is_its_P], arguments_P[is_its_P]
    at_PA = first_P[:, None] + np.arange(int(arguments_P.max(initial=0)))
    is_beyond_PA = at_PA >= (first_P + arguments_P)[:, None]
    # Behind every digit, so that they are sorted to the end.
    value_PA = np.where(is_beyond_PA, DIGITS, value_N[np.where(is_beyond_PA, 0, at_PA)])
    value_PA.sort(axis=1)
    middle_P2 = np.stack([(arguments_P - 1) // 2, arguments_P // 2], axis=1)
    found_P[is_its_P] = np.take_along_axis(value_PA, middle_P2, axis=1).sum(axis=1) // 2
    return found_P


def first_of(count_P: Ints) -> Ints:
    """Where each of the groups begins that lie one behind the other."""
    found: Ints = np.cumsum(count_P) - count_P
    return found


def _before(size_N: Ints, arguments_P: Ints) -> Ints:
    """How many tokens of each argument's list stand before it, the list's opening left out."""
    before_N = np.cumsum(size_N) - size_N
    found: Ints = before_N - np.repeat(before_N[first_of(arguments_P)], arguments_P)
    return found
