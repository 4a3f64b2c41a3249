"""Tasks: data, batches, losses, metrics. They know nothing of models.

In: a `TaskReference` of a study. Out: a `Task` (see base.py).
"""

from nas.tasks.base import IGNORED, Batch, Task
from nas.tasks.load import load_task
from nas.tasks.metrics import Metrics
from nas.tasks.tokenizers import ByteTokenizer, Tokenizer, tokenizer_from_json

__all__ = ["IGNORED", "Batch", "ByteTokenizer", "Metrics", "Task", "Tokenizer", "load_task", "tokenizer_from_json"]
