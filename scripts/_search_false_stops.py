"""How often a stop was wrong, exactly: a table knows what a stopped training would have come to.

In: what a search finished and what it stopped. Out: a count, of the same form as the audit's estimate.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from _search_replay import Replay

from nas.search.audit import FalseStops, front_numbers


def exact_false_stops(replay: Replay, finished: Sequence[int], stopped: Collection[int]) -> FalseStops:
    """Of the stopped candidates those that would be on the final front, had they been trained to the end.

    Each is held against what the search finished, by the scores of the seed that the search saw.

    Args:
        replay: that was searched.
        finished: rows that were trained to the end.
        stopped: rows that were not, because the search stopped them.
    """
    done = [replay.curve(row, replay.rungs, "complete") for row in finished]
    wrong = 0
    for row in stopped:
        if replay.score(row, replay.rungs - 1) is not None:
            wrong += row in front_numbers([*done, replay.curve(row, replay.rungs, "complete")])
    return FalseStops(group="exact", audited=len(stopped), wrong=wrong)
