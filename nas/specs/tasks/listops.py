"""Specification of ListOps: nested lists of digits and operators, and the digit that they come to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from nas.specs.base import BrokenRule, Key, Options
from nas.specs.tasks.base import CURVE_KEYS, MetricSpec, TaskSpec
from nas.specs.tasks.classification import TOO_LONG_KEY, Classification, broken_too_long

LISTOPS_OPERATORS = ("MIN", "MAX", "MED", "SM")
"""Smallest, largest, median (of two middle ones the mean, rounded down), sum modulo 10."""

SHORTEST_LIST = 4
"""Tokens of the shortest list: an operator, two digits, a bracket."""


class ListOps(TaskSpec):
    """ListOps (Nangia and Bowman 2018) at the lengths of the Long Range Arena (Tay et al. 2021).

    A list is an operator that opens it, 2 to `max_arguments` digits or lists, and a bracket that closes it;
    above max_depth an argument is a list with probability 1/4. A token is one of these symbols. The label
    is the digit that the whole comes to. An encoder speaks from the mean of its features, a decoder from
    its last token's.
    """

    implementation: ClassVar[str] = "nas.tasks.listops:ListOps"
    head: ClassVar[str] = "sequence_classification"
    families: ClassVar[frozenset[str]] = frozenset({"encoder", "decoder"})
    keys: ClassVar[Mapping[str, Key]] = {
        **CURVE_KEYS,
        "shortest": Key(
            type=int, minimum=SHORTEST_LIST, default=501, doc="tokens of the shortest list (the arena's: over 500)"
        ),
        "longest": Key(
            type=int, minimum=SHORTEST_LIST, default=1999, doc="tokens of the longest list (the arena's: under 2000)"
        ),
        "max_depth": Key(
            type=int, minimum=2, maximum=32, default=10, doc="depth of the deepest digit, the whole list having depth 1"
        ),
        "max_arguments": Key(type=int, minimum=2, maximum=64, default=10, doc="most arguments of an operator"),
        "training_examples": Key(
            type=int, minimum=0, default=96_000, doc="of a fixed training set; 0: fresh ones at every step"
        ),
        "evaluation_examples": Key(
            type=int, minimum=1, default=2_000, doc="held-out lists that are scored, in each part"
        ),
        "too_long": TOO_LONG_KEY,
    }
    metrics: ClassVar[Mapping[str, MetricSpec]] = Classification.metrics

    def broken_between(self, options: Options) -> Iterator[BrokenRule]:
        shortest, longest = int(options["shortest"]), int(options["longest"])
        if longest < shortest:
            yield BrokenRule(
                "longest", f"longest must be at least shortest = {shortest}, not {longest}: nearest {shortest}"
            )
        depth, arguments = int(options["max_depth"]), int(options["max_arguments"])
        possible = _longest_possible(depth, arguments)
        if shortest > possible:
            yield BrokenRule(
                "shortest",
                f"shortest must be at most {possible}, the longest list of max_depth {depth} and max_arguments "
                f"{arguments}, not {shortest}: nearest {possible}",
            )
        yield from broken_too_long(options)


def _longest_possible(depth: int, arguments: int) -> int:
    """Tokens of the list in which every argument is a list down to the last depth.

    >>> _longest_possible(2, 10), _longest_possible(3, 2)
    (12, 10)
    """
    tokens = 1
    for _ in range(depth - 1):
        tokens = 2 + arguments * tokens
    return tokens
