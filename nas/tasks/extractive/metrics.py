"""SQuAD's scores of the best spans, and their loss.

In: the two numbers of every position of every view of an example. Out: exact match and F1 of the
best span over all views, and the mean loss of the views.

Legend: B views, L positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nas.errors import DataError
from nas.tasks.extractive.search import answers_at, best_spans, span_nats
from nas.tasks.metrics import Metrics, finite
from nas.tasks.text_metrics import answer_scores


class SpanMetrics(Metrics):
    """Exact match, F1 and loss.

    Args:
        most_tokens: of a span.
        always_answered: whether the empty span is no answer, however good it looks.
        text_of: the text of a span, by example, first token and the one behind the last.
        right: all that is right, by example; an empty text where there is no answer.
    """

    def __init__(
        self,
        *,
        most_tokens: int,
        always_answered: bool,
        text_of: Callable[[int, int, int], str],
        right: Callable[[int], Sequence[str]],
    ) -> None:
        super().__init__({})
        self._most_tokens, self._always_answered = most_tokens, always_answered
        self._text_of, self._right = text_of, right
        self._nats: list[Tensor] = []
        self._best: dict[int, tuple[float, int, int]] = {}

    @torch.no_grad()
    def update(self, logits_NV: Tensor, targets_N: Tensor, example_N: Tensor | None = None) -> None:
        """Takes in the logits of views, (B, L, 2), what was to be said, (B, L, 3), and their examples, (B,)."""
        assert example_N is not None, "a span is scored as the answer to a question"
        self._nats.append(span_nats(logits_NV, targets_N).double().cpu())
        found = best_spans(logits_NV, targets_N, self._most_tokens)
        columns = (example_N, found.score_B, found.first_B, found.end_B)
        for example, score, first, end in zip(*(column.tolist() for column in columns), strict=True):
            if example not in self._best or score > self._best[example][0]:
                self._best[example] = (score, first, end)
        self._scored += len(example_N)

    def compute(self) -> dict[str, float]:
        """Every metric by name.

        Raises:
            DataError: nothing was scored.
            DivergedError: a metric is no finite number.
        """
        if not self._scored:
            raise DataError("no question was answered: a metric needs at least one")
        loss = finite({"span_loss": float(torch.cat(self._nats).mean())}, self._scored)
        examples = sorted(self._best)
        answers = [self._answer(example) for example in examples]
        return {**answer_scores(answers, [self._right(example) for example in examples]), **loss}

    def _answer(self, example: int) -> str:
        score, first, end = self._best[example]
        if not answers_at(score, always_answered=self._always_answered):
            return ""
        return self._text_of(example, first, end)
