"""The command line: parses, calls, prints.

In: arguments. Out: text, and an exit status: 0 done, 1 the work failed, 2 the input is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nas.errors import NasError

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
