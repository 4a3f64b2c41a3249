"""RULER: synthetic examples of any length that say how much of its context a model uses.

In: a kind and a form. Out: a `Ruler` (see task.py).
"""

from nas.tasks.ruler.task import Ruler

__all__ = ["Ruler"]
