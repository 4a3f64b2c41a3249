"""Contexts and memory, the other way round: the longest context that a limit allows.

In: an architecture, a figure of its memory and a limit in bytes. Out: how many tokens fit. Figures grow with the
context but for small steps down, where another number of blocks or segments takes less: the context is found by
doubling and bisection, and then every one a little further on is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nas.cost.estimate import Estimate
from nas.errors import SpaceError
from nas.space.architecture import Architecture
from nas.specs import family_spec

# So many contexts beyond the one that bisection finds are looked at, a step of a block or segment far.
STEP_TOKENS = 256
# What fits at this many tokens is taken not to grow with them, as a recurrent state does not.
FARTHEST = 2**30


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How far a context may go within a limit.

    Attributes:
        figure: of memory, that the limit is on.
        limit: in bytes.
        tokens: the longest context; 0: not even one token fits.
        bytes: the figure at `tokens`, or at one token where none fits.
        is_endless: whether more than `FARTHEST` tokens fit.
        is_table_end: whether learned positions end there, and not the memory.
    """

    figure: str
    limit: float
    tokens: int
    bytes: int
    is_endless: bool = False
    is_table_end: bool = False


def figures_of(architecture: Architecture) -> tuple[str, ...]:
    """The figures of memory that grow with the context: serving, where the family decodes, prefill and training."""
    decodes = family_spec(architecture.family).decodes
    return (*(("serve_bytes",) if decodes else ()), "prefill_peak_bytes", "train_peak_bytes")


def longest_context(architecture: Architecture, figure: str, limit: float, cost: Callable[[int], Estimate]) -> Reach:
    """The longest context at which a figure of memory stays within a limit.

    Args:
        architecture: contexts beyond its max_context count too, unless its positions are learned.
        figure: of `figures_of`.
        limit: in bytes.
        cost: of the architecture at a context in tokens, at whatever batch and dtypes are meant.
    """

    def needed(tokens: int) -> int:
        return int(getattr(cost(tokens), figure))

    farthest = FARTHEST if architecture.extends else architecture.max_context
    if (least := needed(1)) > limit:
        return Reach(figure=figure, limit=limit, tokens=0, bytes=least)
    fits, beyond = 1, 2
    while beyond <= farthest and needed(beyond) <= limit:
        fits, beyond = beyond, 2 * beyond
    beyond = min(beyond, farthest + 1)
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        fits, beyond = (middle, beyond) if needed(middle) <= limit else (fits, middle)
    # A step down may lie just beyond: each is looked at until a whole stretch is over the limit.
    looked = fits
    while looked < min(fits + STEP_TOKENS, farthest):
        looked += 1
        fits = looked if needed(looked) <= limit else fits
    ends = fits == farthest
    return Reach(
        figure=figure,
        limit=limit,
        tokens=fits,
        bytes=needed(fits),
        is_endless=ends and architecture.extends,
        is_table_end=ends and not architecture.extends,
    )


def check_context(architecture: Architecture, context: int | None) -> None:
    """Refuses a context that the positions of a network do not reach.

    Raises:
        SpaceError: learned positions end before it.
    """
    if context is not None and context > architecture.max_context and not architecture.extends:
        end = architecture.max_context
        raise SpaceError(f"learned positions end at {end} tokens: a context must be at most {end}, not {context}")
