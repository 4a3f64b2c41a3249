"""Constraints: a text in, a rule about an architecture out.

    serve_bytes@context=4096 <= 8 MiB        name[@key=value,…] op number [unit]
    count(mixer=full) <= 1                   count(key=value) op n

A name is a figure of catalog.FIGURES, a field of the architecture (width, depth, max_context), or
the user's own "module:function" of an architecture. All are exact before training. Units of bytes
go with names that end in _bytes and with the user's own.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from nas import catalog
from nas.errors import InputError, SpaceError, did_you_mean
from nas.space.architecture import Architecture
from nas.specs.base import Value
from nas.units import parse_bytes, parse_number, parse_size

OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
FIELDS = ("width", "depth", "max_context")
FIGURE_KEYS: Mapping[str, type] = {
    "context": int,
    "batch": int,
    "dtype": str,
    "cache_dtype": str,
    "recurrent_dtype": str,
    "cache_window": int,
    "train_dtype": str,
    "optimizer": str,
    "checkpointing": bool,
}
# The smallest value of a number that may be 0.
_MINIMA = {"cache_window": 0}

_RULE = re.compile(r"^(?P<left>.+?)\s*(?P<op><=|>=|==|<|>)\s*(?P<right>.+)$")
_COUNT = re.compile(r"^count\(\s*(?P<key>\w+)\s*=\s*(?P<value>[^)]+?)\s*\)$")


class Measure(Protocol):
    """The left side of a rule: an exact number of an architecture."""

    @property
    def takes_bytes(self) -> bool:
        """Whether a limit of it may have a unit of bytes."""
        ...

    def __call__(self, architecture: Architecture) -> float:
        """The number for an architecture."""
        ...


@dataclass(frozen=True)
class Figure:
    """An exact number of an architecture: a name and what it is asked at.

    Attributes:
        name: of catalog.FIGURES, of `FIELDS`, or "module:function".
        settings: of `FIGURE_KEYS`, those that were given.
    """

    name: str
    settings: tuple[tuple[str, Any], ...] = ()

    @staticmethod
    def parse(text: str) -> Figure:
        """The figure of "name[@key=value,…]".

        Raises:
            SpaceError: an unknown name or key, or a value of the wrong kind.
        """
        name, at, rest = text.strip().partition("@")
        name = name.strip()
        if name not in FIELDS and name not in catalog.FIGURES and ":" not in name:
            raise SpaceError(f"unknown name '{name}': {did_you_mean(name, [*catalog.FIGURES, *FIELDS, 'count(…)'])}")
        if at and name not in catalog.FIGURES:
            raise SpaceError(f"'{name}' takes no settings after '@'")
        if ":" in name:
            _check_own(name)
        settings = sorted(_setting(part) for part in rest.split(",")) if at else []
        if len(dict(settings)) < len(settings):
            raise SpaceError(f"'{text}' gives a setting twice")
        return Figure(name, tuple(settings))

    @property
    def is_bytes(self) -> bool:
        """Whether its values are bytes."""
        return self.name.endswith("_bytes")

    @property
    def takes_bytes(self) -> bool:
        """Whether a limit of it may have a unit of bytes: its own values say so, or nobody can know."""
        return self.is_bytes or ":" in self.name

    def __call__(self, architecture: Architecture) -> float:
        """The number for an architecture."""
        if self.name in FIELDS:
            return float(getattr(architecture, self.name))
        if self.name in catalog.FIGURES:
            return float(catalog.load("figure", self.name)(architecture, **dict(self.settings)))
        return float(catalog.load("figure", self.name)(architecture))

    def __str__(self) -> str:
        settings = ",".join(f"{key}={str(value).lower()}" for key, value in self.settings)
        return f"{self.name}@{settings}" if settings else self.name


@dataclass(frozen=True)
class Count:
    """The number of layers whose `key` is `value`.

    Attributes:
        key: "mixer" or a key of its layers.
        value: as it was written; 4 and 4.0 are one number.
    """

    key: str
    value: str
    takes_bytes: ClassVar[bool] = False

    @staticmethod
    def parse(text: str) -> Count | None:
        """The count of "count(key=value)", or None where the text is something else.

        Raises:
            SpaceError: a count that is written otherwise.
        """
        match = _COUNT.match(text.strip())
        if match is None and text.strip().startswith("count("):
            raise SpaceError(f"'{text.strip()}' is no count: write 'count(key=value)', such as 'count(mixer=full)'")
        return Count(match["key"], match["value"]) if match else None

    def __call__(self, architecture: Architecture) -> float:
        """The number of layers."""
        found = (
            layer.mixer if self.key == "mixer" else layer.values.get(self.key) for layer in architecture.all_layers
        )
        return float(sum(value is not None and self.means(value) for value in found))

    def means(self, value: Value) -> bool:
        """Whether a value is the one that was written."""
        if isinstance(value, bool):
            return str(value).lower() == self.value.lower()
        try:
            return float(value) == float(self.value)
        except ValueError:
            return str(value) == self.value


@dataclass(frozen=True)
class Constraint:
    """A rule that every candidate must keep; breaking it costs no training.

    Attributes:
        text: as it was written.
        measure: the left side, a function of an architecture.
        op: one of `OPERATORS`.
        limit: the right side, in bytes where a unit of bytes was given.
    """

    text: str
    measure: Measure
    op: str
    limit: float

    @staticmethod
    def parse(text: str) -> Constraint:
        """The constraint of a text.

        Raises:
            SpaceError: it is no rule, or names something that does not exist.
        """
        match = _RULE.match(text.strip()) if isinstance(text, str) else None
        if match is None:
            raise SpaceError(f"'{text}' is no constraint: write 'name op number', such as 'serve_bytes <= 8 MiB'")
        measure = Count.parse(match["left"]) or Figure.parse(match["left"])
        try:
            limit = parse_limit(measure, match["right"])
        except InputError as error:
            raise SpaceError(f"constraint '{text}': {error}") from None
        return Constraint(text.strip(), measure, match["op"], limit)

    def violation(self, architecture: Architecture) -> float:
        """How far the rule is broken, as a share of the limit; 0 or less where it is kept."""
        value = self.measure(architecture)
        if OPERATORS[self.op](value, self.limit):
            return -abs(value - self.limit) / max(abs(self.limit), 1.0)
        # A strict rule broken by nothing (3 < 3) is broken all the same.
        return max(abs(value - self.limit) / max(abs(self.limit), 1.0), 1e-9)

    def explain(self, architecture: Architecture) -> str:
        """The rule and the value that breaks it."""
        value = self.measure(architecture)
        # Bytes in full: rounded, a value just over a limit would read like the limit.
        return (
            f"{self.text} (it is {value:,.0f} bytes)"
            if self.measure.takes_bytes
            else f"{self.text} (it is {value:,.6g})"
        )


def parse_limit(measure: Figure | Count, text: str | float) -> float:
    """The limit of a figure or a count: a size above 0, a number with or without a unit of bytes, or a plain one.

    Raises:
        InputError: it is none.
    """
    if isinstance(measure, Figure) and measure.is_bytes:
        return parse_size(text)
    # What a function of the user's own gives may be below 0.
    return parse_bytes(text) if measure.takes_bytes else parse_number(text)


def _check_own(name: str) -> None:
    try:
        found = catalog.load("figure", name)
    except InputError as error:
        raise SpaceError(str(error)) from None
    if not callable(found):
        raise SpaceError(f"'{name}' must name a function of an architecture, not {found!r}")


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if key not in FIGURE_KEYS or not equals:
        raise SpaceError(f"unknown setting '{text}': {did_you_mean(key, FIGURE_KEYS)} (written key=value)")
    if FIGURE_KEYS[key] is str:
        return key, value
    if FIGURE_KEYS[key] is bool:
        if value not in ("true", "false"):
            raise SpaceError(f"{key} must be true or false, not '{value}'")
        return key, value == "true"
    minimum = _MINIMA.get(key, 1)
    if not re.fullmatch(r"[0-9]+(_[0-9]+)*", value) or int(value) < minimum:
        raise SpaceError(f"{key} must be a whole number of at least {minimum}, not '{value}'")
    return key, int(value)
