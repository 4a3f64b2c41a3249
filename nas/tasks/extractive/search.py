"""The loss of a span's two ends, and the best span of a sequence.

In: of each position, a number for "a span begins here" and one for "a span ends before this"; and what
stands there (`nas.tasks.extractive.reading`). Out: nats; and the span whose two numbers add up to the
most, with how much that is above the empty span's.

That difference is the logarithm of how much likelier the span is than no answer, as the two softmaxes
have it; a constant added to all numbers of a sequence changes neither. So the spans of several windows are
compared by it: the best one is the answer where it is above 0, as of Devlin et al. (2019), section 4.3,
with a threshold of 0.

Legend: B sequences, L positions, M tokens of the longest span.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import max_pool1d, pad

from nas.tasks.extractive.reading import ENDS, PLACE, STARTS
from nas.tasks.metrics import IGNORED

NEVER = float("-inf")


@dataclass(frozen=True)
class BestSpans:
    """The best span of each sequence that is not empty.

    Attributes:
        score_B: how far it is above the empty one; -inf where there is no other.
        first_B: its first token, as a place in the context.
        end_B: the place behind its last token.
    """

    score_B: Tensor
    first_B: Tensor
    end_B: Tensor


def span_nats(logits_BL2: Tensor, said_BL3: Tensor) -> Tensor:
    """Mean negative log likelihood of the two ends of each sequence's span, (B,), in at least float32."""
    exact = torch.promote_types(logits_BL2.dtype, torch.float32)
    said_BL2 = said_BL3[..., [STARTS, ENDS]]
    shares_BL2 = logits_BL2.to(exact).masked_fill(said_BL2 == IGNORED, NEVER).log_softmax(1)
    at_B12 = (said_BL2 == 1).long().argmax(1, keepdim=True)
    return -shares_BL2.gather(1, at_B12).mean((1, 2))


def best_spans(logits_BL2: Tensor, said_BL3: Tensor, most_tokens: int) -> BestSpans:
    """The best span of at most so many tokens in each sequence; none reaches over what was cut out.

    Args:
        logits_BL2: of beginning at a position, and of ending before it.
        said_BL3: of which nothing is looked at but what stands where, and where the last token is.
        most_tokens: M.
    """
    place_BL = said_BL3[..., PLACE]
    starts_BL, ends_BL = logits_BL2.float().unbind(2)
    length = place_BL.shape[1]
    at_L = torch.arange(length, device=place_BL.device)
    last_B1 = ((said_BL3[..., STARTS] != IGNORED) * at_L).amax(1, keepdim=True)
    empty_B = (starts_BL.gather(1, last_B1) + ends_BL.gather(1, last_B1))[:, 0]
    is_text_BL = place_BL != IGNORED
    # From here on a span ends at its last token: the number for that stands behind it.
    ends_BL = ends_BL.roll(-1, 1)
    jumps_BL = place_BL.diff(dim=1, prepend=place_BL[:, :1]) != 1
    piece_BL = (jumps_BL & is_text_BL).cumsum(1)
    score_B = torch.full_like(empty_B, NEVER)
    first_B, end_B = torch.zeros_like(last_B1[:, 0]), torch.zeros_like(last_B1[:, 0])
    for piece in range(1, int(piece_BL.max()) + 1):
        inside_BL = is_text_BL & (piece_BL == piece)
        found_B, from_B, to_B = _best(
            starts_BL.masked_fill(~inside_BL, NEVER), ends_BL.masked_fill(~inside_BL, NEVER), min(most_tokens, length)
        )
        better_B = found_B > score_B
        score_B = torch.where(better_B, found_B, score_B)
        first_B = torch.where(better_B, place_BL.gather(1, from_B[:, None])[:, 0], first_B)
        end_B = torch.where(better_B, place_BL.gather(1, to_B[:, None])[:, 0] + 1, end_B)
    return BestSpans(score_B - empty_B, first_B, end_B)


def answers_at(score: float, *, always_answered: bool) -> bool:
    """Whether a best span with this score is the answer, and not the empty one."""
    return score > (NEVER if always_answered else 0.0)


def _best(starts_BL: Tensor, ends_BL: Tensor, most_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """The largest sum of a start and an end that is 0 to M − 1 positions behind it, and where both are."""
    before = most_tokens - 1
    reach_BL, from_BL = max_pool1d(
        pad(starts_BL, (before, 0), value=NEVER)[:, None], most_tokens, stride=1, return_indices=True
    )
    score_B, to_B = (reach_BL[:, 0] + ends_BL).max(1)
    # Where no span can begin, the best place may lie before the sequence.
    from_B = (from_BL[:, 0].gather(1, to_B[:, None])[:, 0] - before).clamp(min=0)
    return score_B, from_B, to_B
