"""Metrics of generated texts beside those of the right texts' tokens.

In: logits at the tokens of right answers, and the texts that were generated. Out: bits per byte of the
right answers, and how much the generated ones agree with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torchmetrics.text import CHRFScore, SacreBLEUScore, SQuAD

from nas.errors import DataError
from nas.tasks.metrics import BitsPerByte, Metrics, finite
from nas.tasks.tokenizers import Tokenizer

Score = Callable[[Sequence[str], Sequence[Sequence[str]]], dict[str, float]]
"""Of generated texts and what is right for each."""


class TextMetrics(Metrics):
    """Bits per byte of the right answers, and scores of generated ones.

    Args:
        loss: the name of the former.
        score: of the latter.
        references: what is right, by number of the example; an example without an answer counts as an
            empty one.
        tokenizer: of the answers.
    """

    def __init__(self, loss: str, score: Score, references: Mapping[int, Sequence[str]], tokenizer: Tokenizer) -> None:
        super().__init__({loss: BitsPerByte(tokenizer.byte_lengths_V)})
        self._score, self._references, self._tokenizer = score, references, tokenizer
        self._answers: dict[int, str] = {}

    def answer(self, example: int, tokens: list[int]) -> None:
        """Takes in one generated answer."""
        self._answers[example] = self._tokenizer.decode(tokens)

    def compute(self) -> dict[str, float]:
        """Every metric by name; errors as of `Metrics.compute`."""
        examples = sorted(self._references)
        if not examples:
            raise DataError("no answer was asked for: a metric needs at least one")
        answers = [self._answers.get(example, "") for example in examples]
        found = self._score(answers, [self._references[example] for example in examples])
        return {**finite(found, len(examples)), **super().compute()}


def translation_scores(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """chrF (Popović 2015: characters up to 6, β 2) and BLEU (Papineni et al. 2002, tokens of 13a), of 100."""
    chrf = CHRFScore(n_char_order=6, n_word_order=0, beta=2.0)
    bleu = SacreBLEUScore(tokenize="13a")
    return {
        "chrf": 100 * float(chrf(list(answers), [list(right) for right in references])),
        "bleu": 100 * float(bleu(list(answers), [list(right) for right in references])),
    }


def answer_scores(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Exact match and F1 as SQuAD has them (Rajpurkar et al. 2016, 2018), of 1.

    Lower case, no punctuation, no articles; the best of several right answers. Where a question has
    none, nothing but an empty answer is right.
    """
    squad = SQuAD()
    # Of a question without an answer the empty text is the one right answer.
    predictions = [{"prediction_text": text, "id": str(place)} for place, text in enumerate(answers)]
    targets = [
        {"answers": {"answer_start": [0] * max(len(right), 1), "text": list(right) or [""]}, "id": str(place)}
        for place, right in enumerate(references)
    ]
    found = squad(predictions, targets)
    return {"exact_match": float(found["exact_match"]) / 100, "answer_f1": float(found["f1"]) / 100}
