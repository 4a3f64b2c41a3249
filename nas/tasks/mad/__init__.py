"""MAD: six synthetic tasks, each of which probes one skill of a sequence model.

In: a kind and its settings. Out: a `Mad` (see task.py).
"""

from nas.tasks.mad.task import Mad

__all__ = ["Mad"]
