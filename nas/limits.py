"""What ends a study before its trials are used up, and a candidate before its budget is: `stop` and `time_limit`.

In: the words of a study file, of the command line or of Python. Out: a `Stop`, whose limits count all runs of a
study together, and seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from nas.errors import InputError, StudyError
from nas.space.schema import Words, validate
from nas.space.yaml_lines import Lines
from nas.units import format_count, format_seconds, parse_count, parse_seconds

DEFAULT_GROWTH = 0.01


class HypervolumeWords(Words):
    """`{patience: 20, growth: 0.01}`."""

    patience: int = Field(ge=1)
    growth: float | int = Field(DEFAULT_GROWTH, gt=0)


class StopWords(Words):
    """`stop: {tokens: 50M, flops: 1e15, time: 30m, hypervolume: {patience: 20}}`."""

    tokens: float | int | str | None = None
    flops: float | int | str | None = None
    time: float | int | str | None = None
    hypervolume: HypervolumeWords | None = None


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Where a study ends, whichever is reached first; what is running is finished up to its next rung.

    Attributes:
        tokens: that were trained on, of all trials; None for no such limit, here and below.
        flops: that training took, of all trials.
        seconds: of wall time, of all runs.
        patience: candidates over which the hypervolume must have grown.
        growth: by at least this share of what it was.
    """

    tokens: float | None = None
    flops: float | None = None
    seconds: float | None = None
    patience: int | None = None
    growth: float = DEFAULT_GROWTH

    @property
    def is_of_time_alone(self) -> bool:
        """Whether it is time and nothing else that it limits."""
        return self.seconds is not None and self.tokens is None and self.flops is None and self.patience is None

    @property
    def is_set(self) -> bool:
        """Whether it says anything at all."""
        return any(limit is not None for limit in (self.tokens, self.flops, self.seconds, self.patience))

    def with_limits(self, *, tokens: str | float | None = None, flops: str | float | None = None) -> Stop:
        """These limits, those that are given in place of the same of before.

        Raises:
            StudyError: one that is no number above 0.
        """
        return replace(
            self,
            tokens=self.tokens if tokens is None else _count("tokens", tokens),
            flops=self.flops if flops is None else _count("flops", flops),
        )

    def in_words(self) -> str:
        """What ends the study, such as "50M tokens or 2 h"; "" where nothing does."""
        parts = [
            *([] if self.tokens is None else [f"{format_count(self.tokens)} tokens"]),
            *([] if self.flops is None else [f"{format_count(self.flops)} FLOPs"]),
            *([] if self.seconds is None else [format_seconds(self.seconds)]),
            *([] if self.patience is None else [f"{self.patience} candidates without growth of the hypervolume"]),
        ]
        return " or ".join(parts)

    def to_mapping(self) -> dict[str, Any]:
        """The same as the words of a study file."""
        found: dict[str, Any] = {
            "tokens": self.tokens,
            "flops": self.flops,
            "time": self.seconds,
            "hypervolume": None if self.patience is None else {"patience": self.patience, "growth": self.growth},
        }
        return {name: value for name, value in found.items() if value is not None}


def parse_stop(words: Mapping[str, Any] | None, lines: Lines | None = None) -> Stop:
    """The limits of a `stop:` mapping; none where there is no mapping.

    Raises:
        StudyError: an unknown key, no key at all, or a value that is no limit.
    """
    if words is None:
        return Stop()
    lines = lines or Lines("stop", {})
    read: StopWords = validate(StopWords, words, lines, StudyError)
    hypervolume = read.hypervolume
    try:
        found = Stop(
            tokens=None if read.tokens is None else _count("tokens", read.tokens),
            flops=None if read.flops is None else _count("flops", read.flops),
            seconds=None if read.time is None else parse_time(read.time, "time"),
            patience=None if hypervolume is None else hypervolume.patience,
            growth=DEFAULT_GROWTH if hypervolume is None else float(hypervolume.growth),
        )
    except StudyError as error:
        raise StudyError(f"{lines.at(())}: stop: {error}") from None
    if not found.is_set:
        names = ", ".join(StopWords.model_fields)
        raise StudyError(f"{lines.at(())}: stop: give at least one of {names}, or leave it out")
    return found


def parse_time(text: str | float, name: str = "time_limit") -> float:
    """The seconds of "10m".

    Raises:
        StudyError: no time, or none above 0.
    """
    try:
        seconds = parse_seconds(text)
    except InputError as error:
        raise StudyError(f"{name}: {error}") from None
    if not 0 < seconds < float("inf"):
        raise StudyError(f"{name} must be a time above 0, such as 10m, not {text!r}")
    return seconds


def _count(name: str, value: str | float) -> float:
    try:
        return parse_count(value)
    except InputError as error:
        raise StudyError(f"{name}: {error}") from None
