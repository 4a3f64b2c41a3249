"""Early stopping in the study loop: the curves as they grow, and what is decided at each rung.

In: trials as they move and scores as they come. Out: a `Decision` for each rung, and the paused
trial that should go on, if there is one. All that a decision depends on is in the store, so that a
study that is continued decides as if it had run through, where one worker runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from nas.records import Decision
from nas.report.stopping import curve_of, curves_of, rung_values, scores_of
from nas.search.stopping import StoppingRule
from nas.store import Store, StoredStudy, StoredTrial
from nas.study.plan import Plan


class Stopping:
    """Decides who goes on at a rung.

    Args:
        plan: whose words say whether and how.
        store: that holds what was decided before, and takes what is decided now.
        study: its row.
    """

    def __init__(self, plan: Plan, store: Store, study: StoredStudy) -> None:
        self._plan, self._words = plan, plan.early_stopping
        self._store, self._study = store, study
        self._rung_count: int | None = None
        self._is_settled = False
        words = self._words
        self._rule = StoppingRule(
            () if words is None else curves_of(store, study),
            seed=plan.seed,
            audit=0.0 if words is None else words.audit,
            caution=1.0 if words is None else float(words.margin),
        )
        rows = store.decisions(study)
        # The last row of a trial stands.
        self._last: dict[int, tuple[str, str]] = dict(
            zip(rows["trial"].tolist(), zip(rows["action"], rows["reason"], strict=True), strict=True)
        )

    def moved(self, trial: StoredTrial) -> None:
        """A trial was begun or changed its state."""
        if self._words is None:
            return
        old = self._rule.get(trial.number)
        if trial.state == "infeasible":
            self._rule.drop(trial.number)
        elif old is None:
            self._rule.put(curve_of(trial, self._study, ()))
        elif old.state != trial.state:
            self._rule.put(replace(old, state=trial.state))
        else:
            return
        self._is_settled = False

    def scored(self, trial: StoredTrial, rung: int, measured: Mapping[str, float]) -> None:
        """A rung was reached.

        Args:
            trial: that reached it.
            rung: from 0.
            measured: metric → value at the candidate's own context.
        """
        row, curve = scores_of(self._study, measured), self._rule.get(trial.number)
        # After a checkpoint was lost a rung is reached twice.
        if row is None or curve is None or rung > len(curve.scores):
            return
        self._rule.put(replace(curve, scores=(*curve.scores[:rung], row, *curve.scores[rung + 1 :])))
        self._is_settled = False

    def rungs(self, trial: StoredTrial) -> list[list[float]]:
        """The values of all objectives at each rung that a trial reached; none where nobody is stopped early."""
        curve = self._rule.get(trial.number)
        return [] if curve is None else rung_values(curve, self._study)

    def decide(self, trial: StoredTrial) -> Decision:
        """What becomes of a trial at a rung before the last; stored.

        Args:
            trial: running, with its scores up to that rung.
        """
        curve = self._rule.get(trial.number)
        if curve is None or not 0 < len(curve.scores) < self._rungs(trial):
            decision = Decision("continue", f"rung at step {trial.step} reached")
        else:
            decision = self._rule.decide(curve, self._rungs(trial))
        self.store(trial, decision)
        return decision

    def next_resumed(self, trials: Iterable[StoredTrial]) -> tuple[StoredTrial, Decision] | None:
        """The first paused trial of these that the rule would let go on by now, and why."""
        if self._is_settled:
            return None
        for trial in sorted(trials, key=lambda found: found.number):
            if trial.state == "paused":
                curve = self._rule.get(trial.number)
                assert curve is not None, "whoever is paused was judged by its curve"
                decision = self._rule.decide(curve, self._rungs(trial))
                if decision.action != "pause":
                    return trial, Decision("resume", decision.reason)
        self._is_settled = True
        return None

    def store(self, trial: StoredTrial, decision: Decision) -> None:
        """Keeps a decision, once: after a kill the last one is made again."""
        if self._last.get(trial.number) != (decision.action, decision.reason):
            self._store.add_decision(trial, decision)
        self._last[trial.number] = (decision.action, decision.reason)

    def _rungs(self, trial: StoredTrial) -> int:
        # The same for all candidates, whatever their steps.
        if self._rung_count is None:
            self._rung_count = len(self._plan.schedule(trial.candidate.architecture).rung_steps)
        return self._rung_count
