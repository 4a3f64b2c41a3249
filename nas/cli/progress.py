"""Live progress of a run: a panel that redraws itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nas.study.progress import Progress
from nas.units import format_bytes


class Display:
    """Shows a run's progress on stderr, so that stdout holds the results alone.

    Args:
        quiet: show nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live: Live | None = None

    def __enter__(self) -> Display:
        if not self._quiet and self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def show(self, progress: Progress) -> None:
        """Called at every event."""
        if self._quiet:
            return
        # On a terminal the panel shows what is under way; elsewhere each line must tell by itself.
        told = (
            " complete",
            " failed",
            " ran out",
            " diverged",
            " took longer",
            "ends:",
            " paused",
            " resumed",
            *(() if self._live is not None else (" started", " goes on")),
        )
        if any(word in progress.event for word in told):
            self._console.print(Text(_line(progress)))
        if self._live is not None:
            self._live.update(Group(Text(_counts(progress), style="bold"), _front(progress)))


def _line(progress: Progress) -> str:
    left = "" if progress.seconds_left is None else f", about {_clock(progress.seconds_left)} left"
    of = "" if progress.target is None else f"/{progress.target}"
    done = f"{progress.complete}{of} done{_paused(progress)}"
    return f"[{_clock(progress.seconds)}, {done}{left}] {progress.event}"


def _counts(progress: Progress) -> str:
    left = "" if progress.seconds_left is None else f", about {_clock(progress.seconds_left)} left"
    volume = "" if progress.hypervolume is None else f", hypervolume {progress.hypervolume:.3f}"
    of = "" if progress.target is None else f" of {progress.target}"
    return (
        f"{progress.complete}{of} done{_paused(progress)}, {progress.running} running, "
        f"{progress.infeasible} infeasible, "
        f"{progress.duplicates} repeated, {progress.failed} failed, {_clock(progress.seconds)} so far{left}{volume}"
    )


def _paused(progress: Progress) -> str:
    return f", {progress.paused} paused" if progress.paused else ""


def _front(progress: Progress) -> Table:
    table = Table(title="front so far", title_justify="left", box=None, pad_edge=False)
    table.add_column("trial", justify="right")
    names = list(progress.front[0][1]) if progress.front else []
    for name in names:
        table.add_column(name, justify="right")
    for number, values in progress.front[:12]:
        table.add_row(str(number), *(_value(name, values[name]) for name in names))
    return table


def _value(name: str, value: float) -> str:
    return format_bytes(value) if name.partition("@")[0].endswith("_bytes") else f"{value:.4g}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
