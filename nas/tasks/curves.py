"""What a score along the context says about how much of it a model uses.

In: scores by context. Out: the effective context.

Source: Hsieh et al. 2024 (RULER), whose effective length is the longest at which a model scores at
least what a reference model scored at 4K, 85.6 %.
"""

from __future__ import annotations

from collections.abc import Mapping

from nas.errors import DataError
from nas.specs.tasks import Direction


def effective_context(
    scores: Mapping[int, float], *, direction: Direction, share: float | None = None, score: float | None = None
) -> int:
    """The longest context whose score is still good.

    Args:
        scores: score by context in tokens; those of a direction "maximize" must not be negative.
        direction: which way is better.
        share: good is what keeps this share of the best score; of one that is minimized, what is
            at most the best divided by it.
        score: or: good is what is at least as good as this.

    Returns:
        tokens; 0 where no context is good.

    >>> effective_context({64: 0.90, 128: 0.88, 256: 0.52}, direction="maximize", share=0.9)
    128
    >>> effective_context({64: 0.90, 128: 0.88, 256: 0.52}, direction="maximize", score=0.95)
    0

    Raises:
        DataError: no scores, or neither or both of share and score.
    """
    if not scores:
        raise DataError("an effective context needs the score of at least one context")
    if (share is None) == (score is None):
        raise DataError("an effective context is told by a share of the best score or by a score: give one")
    is_higher_better = direction == "maximize"
    if score is None:
        assert share is not None
        score = max(scores.values()) * share if is_higher_better else min(scores.values()) / share
    good = [context for context, value in scores.items() if (value >= score if is_higher_better else value <= score)]
    return max(good, default=0)
