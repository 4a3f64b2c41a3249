"""What a table shows: its front, and whether it is a front that a search has to look for.

In: tables, complete or not. Out: lines for the screen: the front of the mean score; how many kinds of mixer each of
its networks has; the best learning rate of networks; and how often two curves cross between a rung and the last one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np
from _table_read import Table, TableCandidate, read_table

from nas.pareto import front, hypervolume


def shown(path: Path) -> Iterator[str]:
    """What to print of a table."""
    table = read_table(path)
    finished = [found for found in table.candidates if final(table, found)]
    yield f"{table.name}: {len(finished)} candidates with a whole curve, seeds {table.seeds}"
    if not finished:
        return
    yield from _front(table, finished)
    yield from _rates(table, finished)
    yield from _crossings(table, finished)
    yield from _noise(table, finished)


def final(table: Table, found: TableCandidate) -> list[float]:
    """The scores at the last rung, of each seed that came to it."""
    return [curve[-1] for curve in found.curves.values() if len(curve) == len(table.rung_tokens)]


def mixers(found: TableCandidate) -> str:
    """The layers of a candidate, in short."""
    return "-".join(layer.mixer for layer in found.architecture.layers)


def rate(found: TableCandidate) -> float:
    return float(found.params["training.learning_rate"])


def _front(table: Table, finished: Sequence[TableCandidate]) -> Iterator[str]:
    points = [(fmean(final(table, found)), found.memory) for found in finished]
    rows = front(points, table.axes)
    yield f"  front of {len(rows)}, hypervolume {hypervolume(points, table.axes):.4f}"
    for row in rows:
        found = finished[row]
        scores = ", ".join(f"{score:.3f}" for score in final(table, found))
        width = found.architecture.width
        yield f"    {found.memory / 1024:7.1f} KiB  {scores}  width {width}, {mixers(found)}, rate {rate(found):g}"
    kinds = Counter(len({layer.mixer for layer in finished[row].architecture.layers}) for row in rows)
    yield "  kinds of mixer on the front: " + ", ".join(f"{kind}: {kinds[kind]}" for kind in sorted(kinds))


def _rates(table: Table, finished: Sequence[TableCandidate]) -> Iterator[str]:
    by_network: dict[str, dict[float, float]] = {}
    for found in finished:
        by_network.setdefault(found.architecture.fingerprint, {})[rate(found)] = fmean(final(table, found))
    most = max(len(tried) for tried in by_network.values())
    # A network of which a rate is missing has no best one yet.
    tried = [scores for scores in by_network.values() if len(scores) == most]
    sign = 1.0 if table.axes[0].direction == "maximize" else -1.0
    best = Counter(max(scores, key=lambda name: sign * scores[name]) for scores in tried)
    yield f"  best learning rate of {len(tried)} networks: " + ", ".join(f"{r:g}: {best[r]}" for r in sorted(best))


def _crossings(table: Table, finished: Sequence[TableCandidate]) -> Iterator[str]:
    """The share of pairs that end in another order than they had at a rung, by the first seed."""
    seed = table.seeds[0]
    curves = [found.curves[seed] for found in finished if len(found.curves.get(seed, ())) == len(table.rung_tokens)]
    scores = np.array(curves)
    shares = []
    for rung in range(len(table.rung_tokens) - 1):
        before, after = (np.sign(scores[:, None, at] - scores[None, :, at]) for at in (rung, -1))
        shares.append(float((before * after < 0).sum() / max(1, (before * after != 0).sum())))
    yield "  pairs that end in another order than at rung 1, 2, …: " + ", ".join(f"{share:.1%}" for share in shares)


def _noise(table: Table, finished: Sequence[TableCandidate]) -> Iterator[str]:
    spread = [pstdev(final(table, found)[:2]) * 2**0.5 for found in finished if len(final(table, found)) > 1]
    if spread:
        low, middle, high = np.quantile(spread, [0.25, 0.5, 0.75])
        yield f"  between two seeds, quartiles of the standard deviation: {low:.4f}, {middle:.4f}, {high:.4f}"
    seconds = [found.seconds[seed][-1] for found in finished for seed in found.curves if found.seconds[seed]]
    yield f"  training seconds of the processor: mean {fmean(seconds):.2f}, largest {max(seconds):.2f}"
