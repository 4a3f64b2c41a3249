"""docs/results.md: a table and a finding for each section, and two pictures.

In: the sections and the folder of their runs. Out: Markdown. What is not run yet is left out and named.
"""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from _results_plans import CONTEXTS, FINDINGS, INTRODUCTIONS, SECTIONS, Section
from _results_run import Found, Row, finished

HEAD = """<!-- Made by scripts/reproduce_results --write; do not edit. -->
# Results

What small models reach on the tasks of the shipped studies, on two cores of an AMD EPYC without a GPU, each process on
one thread. Every table names its seeds; scores are of the test part, which is looked at once for each finished
training. Where several learning rates were tried, the validation part chose among them at seed 0, not reported here.
Everything here is made again by `scripts/reproduce_results`, which can be interrupted and repeats nothing, and then
`scripts/reproduce_results --write`; what each run scored, along the context too, is in [results.json](results.json).
"""


def page(folder: Path) -> str:
    """The whole page."""
    parts = [HEAD]
    for section in SECTIONS.values():
        found = {row.name: finished(folder, row) for row in section.rows}
        parts.append(
            f"## {section.title}\n\n{textwrap.fill(INTRODUCTIONS[section.name], 118, break_on_hyphens=False)}\n"
        )
        if not any(found.values()):
            parts.append("Not run yet.\n")
            continue
        parts.append("\n".join(_table(section, found)) + "\n")
        if section.name == "sotu" and all(found.values()):
            parts.append("\n".join(_equal_flops(section, found)) + "\n")
            parts.append("![Bits per byte against max_context](images/results_sotu.png)\n")
        missing = [f"{row.name} (seed {seed})" for row in section.rows for seed in _missing(row, found[row.name])]
        if missing:
            parts.append(f"Not run yet: {', '.join(missing)}.\n")
        if section.name in FINDINGS:
            parts.append(textwrap.fill(FINDINGS[section.name], 118, break_on_hyphens=False) + "\n")
    return "\n".join(parts)


def _missing(row: Row, found: Sequence[Found]) -> list[int]:
    return [seed for seed in row.seeds if seed not in {one.seed for one in found}]


def _table(section: Section, found: dict[str, list[Found]]) -> Iterator[str]:
    metrics = section.metrics
    shown = " | ".join(metrics)
    yield f"| | seeds | {shown} | trivial | learning rate | tokens | training FLOPs | serve_bytes | time |"
    yield f"|---|---|{'---|' * len(metrics)}---:|---:|---:|---:|---:|---:|"
    for row in section.rows:
        runs = found[row.name]
        if not runs:
            continue
        scores = " | ".join(_scores(runs, metric) for metric in metrics)
        first = runs[0]
        memory = "" if first.serve_bytes is None else f"{first.serve_bytes / 2**20:.2f} MiB"
        group = f"{section.group_of(row)}, " if section.group_of(row) else ""
        yield (
            f"| {group}{row.label} | {', '.join(str(run.seed) for run in runs)} | {scores} "
            f"| {first.baseline[metrics[0]]:.3f} | {first.learning_rate:g} | {first.tokens / 1e6:.3g}M "
            f"| {first.flops:.2e} | {memory} | {statistics.mean(run.seconds for run in runs) / 60:.1f} min |"
        )


def _scores(runs: Sequence[Found], metric: str) -> str:
    values = [run.score(metric) for run in runs]
    each = ", ".join(f"{value:.3f}" for value in values)
    return each if len(values) == 1 else f"**{statistics.mean(values):.3f}** ({each})"


def _equal_flops(section: Section, found: dict[str, list[Found]]) -> Iterator[str]:
    """The longer contexts at the FLOPs of the shortest one, between the budgets that were run."""
    points: dict[int, list[tuple[float, float]]] = {context: [] for context in CONTEXTS}
    for row in section.rows:
        context = int(row.space["max_context"])
        runs = found[row.name]
        points[context].append((runs[0].flops, statistics.mean(run.score("bits_per_byte") for run in runs)))
    yield "At equal training FLOPs, those of context 64, on straight lines between the budgets (logarithms of both):"
    yield ""
    yield f"| training FLOPs | {' | '.join(f'context {context}' for context in CONTEXTS)} |"
    yield f"|---|{'---:|' * len(CONTEXTS)}"
    for flops, _ in sorted(points[CONTEXTS[0]]):
        cells = [f"{_between(sorted(points[context]), flops):.3f}" for context in CONTEXTS]
        yield f"| {flops:.2e} | {' | '.join(cells)} |"


def _between(points: Sequence[tuple[float, float]], flops: float) -> float:
    """The score at some FLOPs; below the first budget the first line goes on."""
    lower = max((place for place in range(len(points) - 1) if points[place][0] <= flops), default=0)
    (x0, y0), (x1, y1) = points[lower], points[lower + 1]
    share = (math.log(flops) - math.log(x0)) / (math.log(x1) - math.log(x0))
    return math.exp(math.log(y0) + share * (math.log(y1) - math.log(y0)))


def draw_sotu(folder: Path, path: Path) -> None:
    """Bits per byte against max_context, a line for each budget, every seed a point."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    section = SECTIONS["sotu"]
    figure, axes = pyplot.subplots(figsize=(7.5, 4.5), layout="constrained")
    budgets = list(dict.fromkeys(section.group_of(row) for row in section.rows))
    for place, budget in enumerate(budgets):
        rows = [row for row in section.rows if section.group_of(row) == budget]
        by_context = {int(row.space["max_context"]): finished(folder, row) for row in rows}
        color = f"C{place}"
        means = [statistics.mean(run.score("bits_per_byte") for run in runs) for runs in by_context.values()]
        axes.plot(list(by_context), means, marker="o", color=color, label=budget)
        for context, runs in by_context.items():
            axes.scatter(
                [context] * len(runs), [run.score("bits_per_byte") for run in runs], s=12, color=color, alpha=0.5
            )
    axes.set_xscale("log", base=2)
    axes.set_xticks(CONTEXTS, [str(context) for context in CONTEXTS])
    axes.set_xlabel("max_context, tokens (bytes)")
    axes.set_ylabel("bits per byte, test part")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, title="trained on")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
