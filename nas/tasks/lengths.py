"""How long the sequences of a training step are: one rule for all candidates.

In: seed, step and the candidate's max_context. Out: the length of that step's sequences.

A step has sequences of one length, and every step the same number of tokens, so that candidates
differ in nothing but what they make of their tokens. The lengths are max_context and its halves
down to 64: with full length alone, long contexts start far behind at small budgets (width 64,
1 million tokens of speeches: 3.31 bits per byte at context 1024 against 2.85 at 64; mixed lengths
bring the former to 3.0), and growing the length in stages wrecks the scores at the rungs, for an
early rung would then judge a context that was never trained.

Each length has the same share of the tokens: the short ones teach the local statistics cheaply,
and the full one keeps at least a fifth up to context 1024. The lengths are not drawn one by one
but shuffled within each round of steps, because at the few dozen steps of an early rung the luck
of independent draws would be a difference between seeds.
"""

from __future__ import annotations

from functools import lru_cache

from nas.tasks.randomness import Purpose, generator

SHORTEST = 64


def training_lengths(max_context: int, shortest: int = SHORTEST) -> tuple[int, ...]:
    """max_context and its halves, none below 64 unless max_context itself is.

    Args:
        max_context: in tokens.
        shortest: what a task needs, where that is more than 64.

    >>> training_lengths(256), training_lengths(100), training_lengths(16)
    ((256, 128, 64), (100,), (16,))
    >>> training_lengths(256, shortest=100)
    (256, 128)
    """
    lengths = [max_context]
    while lengths[-1] // 2 >= max(shortest, SHORTEST):
        lengths.append(lengths[-1] // 2)
    return tuple(lengths)


def mixed_length(*, seed: int, step: int, max_context: int, shortest: int = SHORTEST) -> int:
    """The length of one step: each run of as many steps as there are lengths holds every length once."""
    lengths = training_lengths(max_context, shortest)
    round_, place = divmod(step, len(lengths))
    return lengths[_order(seed, round_, len(lengths))[place]]


@lru_cache(maxsize=64)
def _order(seed: int, round_: int, count: int) -> tuple[int, ...]:
    return tuple(generator(Purpose.LENGTHS, seed=seed, step=round_).permutation(count).tolist())
