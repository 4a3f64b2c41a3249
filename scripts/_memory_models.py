"""Published models, as docs/models/ describes them: our exact figures beside what others count.

In: the models of `_memory_published` and their files. Out: rows, and the Markdown table of them. What of a model is
not in our blocks is counted to the last element, so that ours and what is left out always make the reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from _memory_published import HUB, PUBLISHED, LeftOut, Published, State

from nas.cost.estimate import Estimate, estimate
from nas.space.architecture import Architecture
from nas.space.space import Space
from nas.units import format_bytes

MODELS = Path(__file__).resolve().parent.parent / "docs" / "models"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        model: its title.
        figure: "parameters" or "state_bytes".
        at: context, batch and dtype of a state.
        ours: of nas.
        reference: published, or counted by hand.
        source: of the reference.
        left_out: what ours lacks.
    """

    model: str
    figure: str
    at: str
    ours: int
    reference: int
    source: str
    left_out: LeftOut

    @property
    def ratio(self) -> float:
        """Ours, as a share of the reference."""
        return self.ours / self.reference

    @property
    def is_explained(self) -> bool:
        """Whether ours and what is left out make the reference, to the last one."""
        return self.ours + self.left_out.amount == self.reference


@lru_cache
def architecture_of(name: str) -> Architecture:
    """That of a file in docs/models."""
    space = Space.load(MODELS / f"{name}.yaml")
    assert space.size == 1, f"{name} is more than one architecture"
    return space.sample(0)


def cost_of(model: Published, asked: State) -> Estimate:
    """Our figures of a model."""
    settings: dict[str, Any] = dict(asked.dtypes)
    return estimate(architecture_of(model.name), context=asked.context, batch=asked.batch, **settings)


def rows() -> list[Row]:
    """Every figure that has a reference."""
    return [row for model in PUBLISHED for row in _rows_of(model)]


def _rows_of(model: Published) -> Iterator[Row]:
    yield Row(
        model=model.title,
        figure="parameters",
        at="",
        ours=cost_of(model, model.states[0]).parameters,
        reference=model.parameters,
        source=_checkpoint(model),
        left_out=model.left_out,
    )
    for asked in model.states:
        yield Row(
            model=model.title,
            figure="state_bytes",
            at=asked.words,
            ours=cost_of(model, asked).state_bytes,
            reference=asked.reference,
            source=asked.source,
            left_out=asked.left_out,
        )


def _checkpoint(model: Published) -> str:
    link = f"[checkpoint]({HUB}{model.repository})"
    return f"transformers' model of the {link}, published as {model.approximate}" if model.approximate else link


def table() -> str:
    """The rows in Markdown."""
    lines = ["| model | figure | nas | reference | ratio | source of the reference | not in ours |"]
    lines.append("|---|---|---:|---:|---:|---|---|")
    shown = ""
    for row in rows():
        title, shown = ("" if row.model == shown else row.model), row.model
        figure = f"`{row.figure}`" + (f" at {row.at}" if row.at else "")
        size = f" ({format_bytes(row.ours)})" if row.figure == "state_bytes" else ""
        lines.append(
            f"| {title} | {figure} | {row.ours:,}{size} | {row.reference:,} | {_ratio(row)} | {row.source} "
            f"| {_left_out(row)} |"
        )
    return "\n".join(lines) + "\n"


def _ratio(row: Row) -> str:
    """Exactly 1 is written without decimals."""
    return "1" if row.ours == row.reference else f"{row.ratio:.8f}".rstrip("0")


def _left_out(row: Row) -> str:
    amount, what = row.left_out.amount, row.left_out.what
    return f"{what} ({abs(amount):,}{' more in ours' if amount < 0 else ''})" if amount else "–"


if __name__ == "__main__":
    print(table(), end="")
