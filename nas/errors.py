"""Every error that nas raises on purpose.

    NasError
    ├── InputError                 the user's input is wrong         exit status 2
    │   ├── SpaceError             a space, a draw or an architecture
    │   ├── StudyError             a study file, a name, an option
    │   ├── DataError              a corpus or a file of examples
    │   ├── StoreError             the database or what it holds
    │   ├── CheckpointError        a checkpoint or an exported bundle
    │   └── MissingExtraError      an optional package is not installed
    └── WorkError                  the work itself failed            exit status 1
        ├── DivergedError          the loss is no longer a number: the candidate's fault
        ├── OutOfMemoryError       the candidate does not fit the device: the candidate's fault
        ├── TimedOutError          the candidate took longer than its time_limit: the candidate's fault
        └── WorkerError            a process died or evaluators raise: nobody's, the machine's or the evaluator's fault
            └── KilledForMemoryError   the kernel killed the process because the machine's memory ran out

    DataWarning (a UserWarning)    what is wrong with single records, counted; the others are used

An `InputError` states the rule, the value that breaks it and the nearest valid choice, in one or
two lines: the command line prints it as it is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NasError(Exception):
    """Root of the tree; catch it to catch everything that nas raises on purpose."""

    exit_status = 1


class InputError(NasError, ValueError):
    """The user's input breaks a rule; nothing was written."""

    exit_status = 2


class SpaceError(InputError):
    """A search space, a draw from it or an architecture breaks a rule."""


class StudyError(InputError):
    """A study file, a study's name or an option of a run breaks a rule."""


class DataError(InputError):
    """A corpus or a file of examples cannot be used as asked."""


class DataWarning(UserWarning):
    """Something of the data that does not make it useless; names how much, where first, and the rule."""


class StoreError(InputError):
    """The store cannot be opened, is of another version or lacks what was asked of it."""


class CheckpointError(InputError):
    """A checkpoint or a bundle is missing, damaged or of another version."""


class MissingExtraError(InputError, ImportError):
    """An optional package is needed.

    Args:
        what: the thing asked for, for the message.
        extra: the extra of the distribution that brings it.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional package: pip install 'context-nas[{extra}]'")
        self._made_from = (what, extra)

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        # Errors travel between processes, and pickle would call this class with the message alone.
        return type(self), self._made_from


class WorkError(NasError, RuntimeError):
    """The input was right and the work failed all the same."""


class DivergedError(WorkError):
    """The loss of a candidate is no longer a finite number."""


class OutOfMemoryError(WorkError):
    """A candidate needs more memory than its device has."""


class TimedOutError(WorkError):
    """A candidate took longer than the study allows one."""


class WorkerError(WorkError):
    """A worker process died, or an evaluator raised."""


class KilledForMemoryError(WorkerError):
    """The kernel killed a worker process because the machine's memory ran out; whose fault it was, it does not say."""


def did_you_mean(word: object, valid: Iterable[object]) -> str:
    """The nearest valid choice in words, or all of them when none is near.

    >>> did_you_mean("widht", ["width", "depth"])
    "did you mean 'width'?"
    >>> did_you_mean("x", ["width", "depth"])
    'valid: depth, width'
    """
    names = sorted({str(choice) for choice in valid})
    # Case aside: 'mib' is near to 'MiB'.
    folded = {name.casefold(): name for name in reversed(names)}
    near = difflib.get_close_matches(str(word).casefold(), folded, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{folded[near[0]]}'?"
    return f"valid: {', '.join(names)}" if names else "nothing is valid here"
