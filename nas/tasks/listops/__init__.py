"""ListOps: nested lists of digits and operators, and the digit that they come to.

In: lengths, depth and arguments. Out: a `ListOps` (see task.py).
"""

from nas.tasks.listops.task import ListOps

__all__ = ["ListOps"]
