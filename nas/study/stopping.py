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
from nas.search.audit import FalseStops, Thirds, false_stops, is_exempt, thirds, unreliable
from nas.search.rungs import Curve, Margin, Verdict, judge, margin_at
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
        self._curves: dict[int, Curve] = {}
        self._margins: dict[int, Margin] = {}
        self._audits: tuple[list[FalseStops], Thirds] | None = None
        self._is_settled = False
        if self._words is not None:
            self._curves = {curve.number: curve for curve in curves_of(store, study)}
        rows = store.decisions(study)
        # The last row of a trial stands.
        self._last: dict[int, tuple[str, str]] = dict(
            zip(rows["trial"].tolist(), zip(rows["action"], rows["reason"], strict=True), strict=True)
        )

    def moved(self, trial: StoredTrial) -> None:
        """A trial was begun or changed its state."""
        if self._words is None:
            return
        old = self._curves.get(trial.number)
        if trial.state == "infeasible":
            self._curves.pop(trial.number, None)
        elif old is None:
            self._curves[trial.number] = curve_of(trial, self._study, ())
        elif old.state != trial.state:
            self._curves[trial.number] = replace(old, state=trial.state)
        else:
            return
        self._forget()

    def scored(self, trial: StoredTrial, rung: int, measured: Mapping[str, float]) -> None:
        """A rung was reached.

        Args:
            trial: that reached it.
            rung: from 0.
            measured: metric → value at the candidate's own context.
        """
        row, curve = scores_of(self._study, measured), self._curves.get(trial.number)
        # After a checkpoint was lost a rung is reached twice.
        if row is None or curve is None or rung > len(curve.scores):
            return
        self._curves[trial.number] = replace(curve, scores=(*curve.scores[:rung], row, *curve.scores[rung + 1 :]))
        self._forget()

    def rungs(self, trial: StoredTrial) -> list[list[float]]:
        """The values of all objectives at each rung that a trial reached; none where nobody is stopped early."""
        curve = self._curves.get(trial.number)
        return [] if curve is None else rung_values(curve, self._study)

    def decide(self, trial: StoredTrial) -> Decision:
        """What becomes of a trial at a rung before the last; stored.

        Args:
            trial: running, with its scores up to that rung.
        """
        curve = self._curves.get(trial.number)
        if curve is None or not 0 < len(curve.scores) < self._rungs(trial):
            decision = Decision("continue", f"rung at step {trial.step} reached")
        else:
            decision = self._decision(curve, self._rungs(trial))
        self.store(trial, decision)
        return decision

    def next_resumed(self, trials: Iterable[StoredTrial]) -> tuple[StoredTrial, Decision] | None:
        """The first paused trial of these that the rule would let go on by now, and why."""
        if self._is_settled:
            return None
        for trial in sorted(trials, key=lambda found: found.number):
            if trial.state == "paused":
                decision = self._decision(self._curves[trial.number], self._rungs(trial))
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

    def _decision(self, curve: Curve, rungs: int) -> Decision:
        verdict = self._judged(curve, rungs)
        if verdict.can_reach:
            return Decision("continue", verdict.reason)
        assert self._words is not None
        if is_exempt(self._plan.seed, curve.key, self._words.audit):
            self._curves[curve.number] = replace(curve, audited=True)
            self._audits = None
            return Decision(
                "audit", f"{verdict.reason}; goes on, as one of the {self._words.audit:.0%} that audit the rule"
            )
        wrong = self._unreliable(curve)
        if wrong is None:
            return Decision("pause", verdict.reason)
        return Decision(
            "continue",
            f"{verdict.reason}; goes on, for {wrong.wrong} of {wrong.audited} audited stops were wrong ({wrong.group})",
        )

    def _judged(self, curve: Curve, rungs: int) -> Verdict:
        assert self._words is not None
        curves, rung, caution = list(self._curves.values()), len(curve.scores) - 1, float(self._words.margin)
        if rung not in self._margins:
            self._margins[rung] = margin_at(curves, rung, rungs=rungs, caution=caution)
        return judge(curve, curves, rungs=rungs, margin=self._margins[rung])

    def _unreliable(self, curve: Curve) -> FalseStops | None:
        if self._audits is None:
            curves = list(self._curves.values())
            self._audits = (false_stops(curves), thirds(curves))
        return unreliable(curve, *self._audits)

    def _forget(self) -> None:
        """What was concluded from the curves no longer holds."""
        self._margins = {}
        self._audits = None
        self._is_settled = False
