"""The part of docs/search.md on searches that really train."""

from __future__ import annotations

from collections.abc import Iterator

from _search_checks import live_pairs, live_ratio
from _search_live import BUDGET, DOMINATED, OURS, SEEDS, STUDY, TOKENS
from _search_record import Record


def live_lines(record: Record) -> Iterator[str]:
    """Both sections, as far as there are runs of them."""
    if live_pairs(record):
        yield from _pairs(record)
    if record.of("ranks", "recall"):
        yield from _ranks(record)


def _pairs(record: Record) -> Iterator[str]:
    yield "## Live searches\n"
    yield (
        f"Associative recall, a space of five mixers drawn layer by layer and of continuous learning rates, {TOKENS} "
        f"whole\ntrainings' tokens ({TOKENS * STUDY['budget']['tokens']:,}) for each search, one worker. NSGA-II "
        "(population 16) trains everything to the\nend. Hypervolume of the study itself: one training seed.\n"
    )
    yield "| seed | frontier | NSGA-II | ratio | frontier begun | of these to the end | NSGA-II's |"
    yield "|---:|---:|---:|---:|---:|---:|---:|"
    for seed, (ours, other) in live_pairs(record).items():
        volumes = [one["hypervolume"] for one in (ours, other)]
        ratio = f"{volumes[0] / volumes[1]:.3f}" if volumes[1] > 0 else ""
        begun = sum(count for state, count in ours["states"].items() if state != "infeasible")
        whole = [one["states"].get("complete", 0) for one in (ours, other)]
        yield f"| {seed} | {volumes[0]:.3f} | {volumes[1]:.3f} | {ratio} | {begun} | {whole[0]} | {whole[1]} |"
    ratio_found = live_ratio(record)
    if ratio_found is not None:
        yield (
            f"\nThe ratio's geometric mean is **{ratio_found.middle:.3f}**, its interval of 95 % (Student's t on the "
            f"logarithms of {ratio_found.pairs}\npairs) {ratio_found.low:.3f} to {ratio_found.high:.3f}.\n"
        )


def _ranks(record: Record) -> Iterator[str]:
    yield "## Do ranks survive a larger budget?\n"
    yield (
        f"The front of a live search and {DOMINATED} candidates that it dominates, trained with {BUDGET.rstrip('x')} "
        f"times the budget and {SEEDS} seeds\n(`confirm: {{budget: {BUDGET}, seeds: {SEEDS}}}`).\n"
    )
    for found in record.of("ranks", "recall")[OURS]:
        tau = "not defined" if found["tau"] is None else f"{found['tau']:.2f}"
        yield (
            f"Kendall's tau of recall between both budgets is **{tau}** over {found['candidates']} candidates; "
            f"{found['kept']} of {found['members']} members\nof the front are on the front there.\n"
        )
