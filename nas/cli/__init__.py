"""The command line: parses, calls, prints.

In: arguments. Out: text, and an exit status: 0 done, 1 the work failed, 2 the input is wrong.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from nas.errors import DataWarning, NasError

__all__ = ["main"]

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: without the program's name; those of the process by default.

    Returns:
        The exit status.
    """
    from nas.cli.parser import make_parser

    parsed = make_parser().parse_args(arguments)
    try:
        with _plain_warnings():
            status = parsed.command(parsed)
        sys.stdout.flush()
        return int(status or 0)
    except NasError as error:
        if parsed.debug:
            raise
        print(f"nas: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("nas: stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output (head, less) has seen enough.
        sys.stderr.close()
        return 0


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """What is to be said of the data is said once and like an error, without the place in our code."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, DataWarning):
            usual(message, category, filename, lineno, file, line)
        elif str(message) not in said:
            said.add(str(message))
            print(f"nas: {message}", file=sys.stderr)

    said: set[str] = set()
    with warnings.catch_warnings():
        usual = warnings.showwarning
        warnings.showwarning = show
        warnings.simplefilter("always", DataWarning)
        yield
