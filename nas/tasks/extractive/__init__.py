"""Questions whose answers are pointed at: the span of a context that answers them.

places.py    answers to runs of tokens, and runs of tokens to the context's own text
prepared.py  what is kept of a data set
reading.py   what of a question and a context is read at once, and what is to be said of it
search.py    the loss of a span's two ends, and the best span of a sequence
metrics.py   SQuAD's scores of the best spans
task.py      the task: batches, held-out views, baselines
"""

from nas.tasks.extractive.places import text_between
from nas.tasks.extractive.reading import grouped_views, padded, question_views, read_view
from nas.tasks.extractive.search import answers_at, best_spans
from nas.tasks.extractive.task import SpanQuestions

__all__ = [
    "SpanQuestions",
    "answers_at",
    "best_spans",
    "grouped_views",
    "padded",
    "question_views",
    "read_view",
    "text_between",
]
