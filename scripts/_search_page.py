"""docs/search.md: the searches that were compared, and what each reached for its training tokens."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from _search_checks import (
    FIRST,
    LEVEL,
    OURS,
    PEERS,
    Spread,
    Target,
    best_peer,
    number,
    shares_at,
    spread,
    stops,
    targets,
    tokens_to_level,
)
from _search_findings import FINDINGS
from _search_live_page import live_lines
from _search_methods import AUDIT, FRUITLESS_DRAWS
from _search_plots import draw_table, draw_wide
from _search_record import Entry, Record
from _search_run import SPEED_PARAMETERS, SPEED_TRIALS, TRAININGS, table_of
from _search_simulate import WORKERS
from _search_ways import GP_DRAWS, REPORTED, TUNING, WAYS, names_of
from _search_wide import NAMES, NOISE

from nas.search.rungs import TOLERATED

BUDGETS = (10, 25, 50, 100)
WIDE_BUDGETS = (10, 25, 50, 100)

HEAD = f"""<!-- Made by scripts/bench_search --write; do not edit. -->
# Search

What a search is worth is the front that it finds for the training that it spends. Three comparisons: on **tables** of
trainings that were made once, every candidate of a small space with its whole curve; in **wide spaces** of up to
{SPEED_PARAMETERS} parameters with a made-up quality; and **live**, with searches that train.

`scripts/bench_search --report` runs what the record beside this page lacks and writes the page. MOASHA is run where
`--with-syne PYTHON` names a Python that has Syne Tune, the GP where scipy is there.

## How tables are searched

- A search runs in simulated time with {WORKERS} workers: a job is one rung of one candidate and takes the seconds that
  the table has for it. **What is spent are training tokens**, of every rung of every candidate, those that were stopped
  or came to nothing included. A run ends when the tokens of {TRAININGS} whole trainings are given out.
- A search sees the scores of one training seed. **What it trained is scored on the mean of the other training seeds**:
  luck with one seed earns nothing. Hypervolume is relative to that of the true front, of all candidates on the seeds
  that score; its reference is the one that a study stores (the task's trivial guesser; the largest memory of the
  space's draws), memory in powers of two. *As picked* is the same of the front alone that a search reports, which the
  one seed that it sees picks; what a search of everything would have that picks so is the table's *ceiling*. Where
  seeds differ much a lucky candidate hides its betters, and no search can pick well by one seed: that is what `confirm`
  is for.
- A candidate counts once it was trained to the end. A draw that is not new, or that the space excludes, costs nothing;
  after {FRUITLESS_DRAWS} of them in a row ({GP_DRAWS} of the GP's) a new candidate is drawn from the space. Samplers
  are told as in a study.
- Settings are chosen on *{TUNING.tables[0]}* with seeds {TUNING.seeds[0]} to {TUNING.seeds[-1]} (`--tune`). What is
  reported is seeds {REPORTED.seeds[0]} to {REPORTED.seeds[-1]}; *sotu* was used for no choice.
- Figures are medians over seeds with their quartiles in brackets. Ratios are against the best of
  {", ".join(WAYS[name].label for name in PEERS)}.
"""

WIDE = f"""## Wide spaces

A made-up quality of width, depth, tied embeddings and each layer's heads and MLP ratio, with diminishing returns and
layers that like or dislike their neighbours, measured with noise of {NOISE:.1%} of its range; memory by formula. One
evaluation after the other, no rungs. Share of the hypervolume of the best known front, which a long evolution on the
noiseless function found; the front of a search is scored without noise.
"""


def write_page(record: Record, path: Path) -> None:
    """The page, and its pictures in images/ beside it."""
    pictures = path.parent / "images"
    pictures.mkdir(parents=True, exist_ok=True)
    parts = [HEAD, "\n".join(_targets(list(targets(record))))]
    for name in record.names("table"):
        found = record.of("table", name)
        shown = {way: WAYS[way].label for way in (*PEERS, OURS)}
        draw_table(found, shown, pictures / f"search_{name}.png")
        parts.append("\n".join(_table(name, found)))
    parts.append(_findings("tables"))
    if record.names("wide"):
        draw_wide(record, pictures / "search_wide.png")
        parts.append("\n".join(_wide(record)))
    parts.append("\n".join(_speed(record)))
    parts.append("\n".join(live_lines(record)))
    parts += ["## Learnt on the way\n", _findings("sampler").rstrip("\n"), _findings("stopping"), _cost(record)]
    path.write_text("\n".join(part for part in parts if part), encoding="utf-8")


def _targets(found: Sequence[Target]) -> Iterator[str]:
    yield "## Targets\n"
    if not found:
        yield "Not run yet: `scripts/bench_search --report`.\n"
        return
    yield "| target | reached | |"
    yield "|---|---|---|"
    for one in found:
        verdict = "not known" if one.is_met is None else "met" if one.is_met else "**missed**"
        yield f"| {one.text} | {one.reached} | {verdict} |"
    yield ""


def _table(name: str, found: Mapping[str, Sequence[Entry]]) -> Iterator[str]:
    table = table_of(name)
    yield f"## Table: {name}\n"
    runs = next(iter(found.values()))
    ceilings = " and ".join(f"{ceiling:.3f}" for ceiling in sorted({run["ceiling"] for run in runs}))
    seeds = ", ".join(str(seed) for seed in table.seeds)
    words = f"{len(table.candidates)} candidates, training seeds {seeds}, rungs at "
    words += ", ".join(f"{tokens:,}" for tokens in table.rung_tokens) + f" tokens; ceiling {ceilings}."
    if name == "synthetic":
        words += " Its curves are made up: it stands in for a real table."
    elif not table.header.get("is_complete", True):
        words += " **The table is not complete yet: these figures will change.**"
    if len(table.seeds) == 1:
        words += " **One training seed alone: it scores what it was chosen by.**"
    yield textwrap.fill(words, 118, break_on_hyphens=False) + "\n"
    peer = best_peer(found)
    yield from _columns()
    for way in names_of("ours", "peer", "baseline"):
        if found.get(way):
            yield _row(WAYS[way].label, found[way], peer)
    yield ""
    if peer is not None and found.get(OURS):
        yield (
            "Against the best peer at each budget: " + ", ".join(_against(found, budget) for budget in BUDGETS) + ".\n"
        )
    yield f"![Hypervolume against training tokens](images/search_{name}.png)\n"
    yield from _ablations(found, peer)
    yield from _false_stops(found)


def _columns() -> Iterator[str]:
    shown = " | ".join(f"at {budget}" for budget in BUDGETS)
    yield (
        f"| | seeds | trainings' tokens to {LEVEL:.0%} | best peer's over its | hypervolume {shown} "
        "| as picked in the end | begun | trained whole |"
    )
    yield f"|---|---:|---:|---:|{'---:|' * len(BUDGETS)}---:|---:|---:|"


def _row(label: str, runs: Sequence[Entry], peer: tuple[str, float] | None) -> str:
    spent = tokens_to_level(runs)
    ratio = "" if peer is None else _ratio(peer[1], spent[1])
    shares = " | ".join(_spread(shares_at(runs, budget)) for budget in BUDGETS)
    begun, whole = (spread([run[word] for run in runs])[1] for word in ("begun", "finished"))
    picked = _spread(spread([run["picked"] for run in runs]))
    counts = f"{begun:.0f} | {whole:.0f}"
    return f"| {label} | {len(runs)} | {_spread(spent, number)} | {ratio} | {shares} | {picked} | {counts} |"


def _against(found: Mapping[str, Sequence[Entry]], budget: float) -> str:
    peer = best_peer(found, at=budget)
    assert peer is not None
    own = shares_at(found[OURS], budget)[1]
    left = (1.0 - peer[1]) / (1.0 - own) if own < 1.0 else float("inf")
    return f"at {budget:g} {own:.3f} and {peer[1]:.3f} ({WAYS[peer[0]].label}; it lacks {number(left)} times as much)"


def _ablations(found: Mapping[str, Sequence[Entry]], peer: tuple[str, float] | None) -> Iterator[str]:
    names = [name for name in names_of("ablation") if found.get(name)]
    if not names or not found.get(OURS):
        return
    yield "Ours without one of its parts:\n"
    yield from _columns()
    for name in [OURS, *names]:
        yield _row("all of it" if name == OURS else WAYS[name].label, found[name], peer)
    yield ""


def _false_stops(found: Mapping[str, Sequence[Entry]]) -> Iterator[str]:
    names = [name for name, way in WAYS.items() if found.get(name) and (way.stops or way.sampler is None)]
    if not names:
        return
    yield textwrap.fill(
        "False stops: of the candidates that were stopped, those that would be on the run's final front had they been "
        f"trained to the end, which a table knows exactly; and what the audit of {AUDIT:.0%} of the candidates "
        f"estimates (it has the rule stop nobody above {TOLERATED:.0%}). All seeds together.",
        118,
    )
    yield "\n| | stopped | wrong, exactly | audited | wrong, of these |"
    yield "|---|---:|---:|---:|---:|"
    for name in names:
        runs = found[name]
        exact, audit = stops(runs, "stops"), stops(runs, "audit")
        audited = f"{audit[0]} | {_rate(*audit)}" if WAYS[name].stops else "| has none"
        yield f"| {WAYS[name].label} | {exact[0]} | {_rate(*exact)} | {audited} |"
    yield ""


def _rate(count: int, wrong: int) -> str:
    return f"{wrong} ({wrong / count:.1%})" if count else "none"


def _wide(record: Record) -> Iterator[str]:
    yield WIDE
    shown = " | ".join(f"after {budget}" for budget in WIDE_BUDGETS)
    yield f"| parameters | | seeds | {shown} | s a suggestion, at the end |"
    yield f"|---:|---|---:|{'---:|' * len(WIDE_BUDGETS)}---:|"
    for size in sorted(record.names("wide"), key=int):
        found = record.of("wide", size)
        for name in (name for name in NAMES if name in found):
            runs = found[name]
            cells = " | ".join(_spread(spread([run["curve"][at - FIRST] for run in runs])) for at in WIDE_BUDGETS)
            took = spread([run["suggestion_seconds"] for run in runs])[1]
            yield f"| {size} | {name} | {len(runs)} | {cells} | {took:.2f} |"
    yield "\n![Hypervolume against evaluations](images/search_wide.png)\n"


def _speed(record: Record) -> Iterator[str]:
    if not record.names("speed"):
        return
    yield "## Time of a suggestion\n"
    yield f"Seconds of one core, {SPEED_PARAMETERS} parameters, medians of three, behind so many random trials.\n"
    yield f"| | {' | '.join(f'{count:,} trials' for count in SPEED_TRIALS)} |"
    yield f"|---|{'---:|' * len(SPEED_TRIALS)}"
    by_count = {count: record.of("speed", str(count)) for count in SPEED_TRIALS}
    for name in (name for name in NAMES if any(name in found for found in by_count.values())):
        cells = [
            f"{by_count[count][name][0]['seconds']:.3f}" if name in by_count[count] else "" for count in SPEED_TRIALS
        ]
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""


def _findings(section: str) -> str:
    lines = [
        textwrap.fill(text, 118, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
        for text in FINDINGS.get(section, ())
    ]
    return "\n".join(lines) + "\n" if lines else ""


def _cost(record: Record) -> str:
    hours = sum(entry["processor_seconds"] for _, entry in record) / 3600
    return f"The runs of this page took {hours:.1f} hours of one core.\n"


def _spread(found: Spread, shown: Any = lambda value: f"{value:.3f}") -> str:
    low, middle, high = found
    return f"**{shown(middle)}** ({shown(low)} to {shown(high)})"


def _ratio(other: float, own: float) -> str:
    """How many times fewer tokens than another method takes."""
    if math.isinf(own):
        return "" if math.isinf(other) else f"below {other / TRAININGS:.2g}"
    return f"more than {TRAININGS / own:.3g}" if math.isinf(other) else f"{other / own:.3g}"
