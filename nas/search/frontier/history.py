"""What a study knows so far, sorted by what it says of the measured objectives.

In: Optuna's trials and a `Describer`. Out: candidates that were observed, that still run, and that
failed; and the keys of all of them, none of which is suggested again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial, TrialState

from nas.search.frontier.options import Describer, Option
from nas.search.mirror import RUNGS

Rungs = Sequence[Sequence[float]]


@dataclass
class History:
    """The trials of a study, sorted.

    Attributes:
        observed: complete and feasible, each with the values of all objectives.
        curves: of each of these, the values of all objectives at each rung; empty where they are not known.
        partial: unfinished ones that reached a rung, running or stopped, each with such values.
        pending: still running, before the first rung.
        failed: came to nothing, or broke a limit that only trying it showed.
        seen: keys of all of these.
    """

    observed: list[tuple[Option, tuple[float, ...]]] = field(default_factory=list)
    curves: list[Rungs] = field(default_factory=list)
    partial: list[tuple[Option, Rungs]] = field(default_factory=list)
    pending: list[Option] = field(default_factory=list)
    failed: list[Option] = field(default_factory=list)
    seen: set[Hashable] = field(default_factory=set)

    @property
    def count(self) -> int:
        """Candidates that were started."""
        return len(self.observed) + len(self.partial) + len(self.pending) + len(self.failed)

    @property
    def options(self) -> list[Option]:
        """All that came to something or still may."""
        return [*(option for option, _ in self.observed), *(option for option, _ in self.partial), *self.pending]


def read_history(
    trials: Iterable[FrozenTrial],
    describe: Describer,
    known: MutableMapping[int, Option | None],
    *,
    without: int,
    counts: Callable[[FrozenTrial], bool] | None = None,
    learns_of_failed: bool = True,
) -> History:
    """The history of a study.

    Args:
        trials: of it.
        describe: describes assignments.
        known: options by trial number, described before; added to.
        without: number of the trial that a suggestion is made for.
        counts: whether a trial is a candidate that was started, and no bookkeeping; all are by default.
        learns_of_failed: whether a trial that failed without a violated constraint says something of its candidate.
    """
    found = History()
    for trial in trials:
        if trial.number == without or not describe.distributions.keys() <= trial.params.keys():
            continue
        if counts is not None and not counts(trial):
            continue
        if trial.number not in known:
            known[trial.number] = describe({name: trial.params[name] for name in describe.distributions})
        option = known[trial.number]
        if option is not None:
            _sort(found, trial, option, learns_of_failed=learns_of_failed)
    # One that was paused when the study ended once, and went on later, has another trial with more of its curve.
    ended = {option.key for option, _ in found.observed} | {option.key for option in found.pending}
    newest = {option.key: (option, rungs) for option, rungs in found.partial if option.key not in ended}
    found.partial = list(newest.values())
    # A repeat that was refused says nothing: the candidate itself does.
    better = {option.key for option in found.options}
    found.failed = list({option.key: option for option in found.failed if option.key not in better}.values())
    return found


def _sort(found: History, trial: FrozenTrial, option: Option, *, learns_of_failed: bool) -> None:
    found.seen.add(option.key)
    if not option.is_allowed:
        return
    violated = any(value > 0 for value in trial.constraints.values())
    rungs: Rungs = trial.user_attrs.get(RUNGS, ())
    if rungs and trial.state in (TrialState.RUNNING, TrialState.PRUNED) and not violated:
        found.partial.append((option, rungs))
    elif trial.state == TrialState.RUNNING:
        found.pending.append(option)
    elif trial.state == TrialState.COMPLETE and not violated and all(math.isfinite(value) for value in trial.values):
        found.observed.append((option, tuple(trial.values)))
        found.curves.append(rungs)
    elif violated or trial.state == TrialState.COMPLETE or (trial.state == TrialState.FAIL and learns_of_failed):
        found.failed.append(option)
