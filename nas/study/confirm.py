"""Confirms a front: trains its members with further seeds, and scores the test part of what was trained.

In: a study whose search has come to its end. Out: replicates in the store, and the front of the means. Replicates are
trained by the study's one loop, which takes up what was left running and begins what is wanted; everything that is
decided here follows from the store, so a confirmation that was stopped goes on where it was.

The front is made of the mean over all seeds where a candidate has replicates: the value by which a member was chosen is
the luckiest of many, and gives a front that its members do not hold when they are trained again. A mean may let others
onto the front, which are then confirmed in turn, until every member has its replicates. Hypervolume stays that of the
search's own values, one seed each, so that its history is comparable whether or not a study was confirmed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd

from nas.config import ConfirmWords
from nas.errors import StudyError
from nas.files import Files
from nas.measure.function import FunctionEvaluator
from nas.report.spread import means
from nas.search.mirror import Mirror
from nas.store import Store, StoredStudy, StoredTrial
from nas.study.ending import Ending
from nas.study.interrupts import Interrupts
from nas.study.loop import Executor, Loop
from nas.study.plan import Plan
from nas.study.progress import Progress
from nas.study.replicates import Replicates, dominated, scaled, wanted
from nas.study.scoring import score_test_part
from nas.study.standing import front_members


def refuse_unconfirmable(plan: Plan, words: ConfirmWords) -> None:
    """Refuses what no replicate could be made of.

    Raises:
        StudyError: a user's own evaluator that takes no seed, or a larger budget of one.
    """
    if plan.shape is not None:
        return
    if isinstance(plan.evaluator, FunctionEvaluator) and not plan.evaluator.takes_seed:
        raise StudyError(
            f"study '{plan.name}': its evaluator takes no seed, so further seeds would repeat its values: give the "
            "function a parameter 'seed', or leave confirm out"
        )
    if words.factor > 1:
        raise StudyError(
            f"study '{plan.name}': an evaluator of your own has no budget that {words.budget} could multiply: "
            "confirm with further seeds alone"
        )


@dataclass
class Confirmation:
    """One confirmation of a study's front.

    Attributes:
        plan: of the study.
        store: that everything is written to.
        study: its row.
        words: seeds, budget and how many dominated candidates.
        mirror: of samplers and dashboard, which hear nothing of it.
        executor: where jobs run.
        report: called at every event.
        interrupts: whether the user asked to stop.
        ending: when nothing further is begun.
    """

    plan: Plan
    store: Store
    study: StoredStudy
    words: ConfirmWords
    mirror: Mirror
    executor: Executor
    report: Callable[[Progress], None]
    interrupts: Interrupts
    ending: Ending
    _begun_at: float = 0.0

    def run(self) -> bool:
        """Trains until every member of the front has its replicates, and scores their test part.

        Returns:
            Whether that is done; False where the time was over before.

        Raises:
            InputError: a job could not be done as asked; everything finished is kept.
        """
        self._begun_at = time.monotonic()
        plan = replace(
            self.plan,
            early_stopping=None,
            time_limit=None if self.plan.time_limit is None else self.plan.time_limit * self.words.factor,
            schedule=lambda architecture: scaled(self.plan.schedule(architecture), self.words.factor),
        )
        # What an earlier confirmation had trained when it was stopped counts too.
        self._settle()
        while (replicates := self._replicates()) is not None:
            loop = Loop(
                plan,
                self.store,
                self.study,
                self.mirror,
                self.executor,
                self.report,
                self.interrupts,
                self.ending,
                replicates=replicates,
            )
            try:
                loop.run(self._count("running", "complete", "failed") + len(replicates.wanted))
            finally:
                self._settle()
            if not loop.finished:
                return False
        score_test_part(
            self.store,
            plan,
            self._unscored(),
            executor=self.executor,
            interrupts=self.interrupts,
            deadline=self.ending.deadline,
            say=self._say,
        )
        return not self._unscored()

    def _replicates(self) -> Replicates | None:
        """What is to be trained now, or None where nothing is left."""
        budget, trials, made = self.words.factor, self.store.trials(self.study), self._made()
        front = front_members(trials, self.study, means(self.store, self.study))
        chosen = list(front)
        if budget > 1:
            chosen += dominated(trials, front, self.study, made, count=self.words.dominated)
        left = wanted(chosen, made, seeds=self.words.seeds, seed=self.plan.seed)
        is_running = any(trial.state == "running" for trial in made)
        return Replicates(budget, left, front) if left or is_running else None

    def _made(self) -> list[StoredTrial]:
        """Replicates at the budget, in any state."""
        found = self.store.trials(self.study, role="confirm")
        return [trial for trial in found if trial.budget == self.words.factor]

    def _count(self, *states: str) -> int:
        return sum(trial.state in states for trial in self._made())

    def _settle(self) -> None:
        """Records the front of the means, where it is another one than was recorded last."""
        members = front_members(self.store.trials(self.study), self.study, means(self.store, self.study))
        numbers = sorted(trial.number for trial in members)
        if numbers == sorted(self.store.front(self.study)["trial"].tolist()):
            return
        last = self.store.fronts(self.study).iloc[-1]
        self.store.add_front(
            self.study,
            members=numbers,
            hypervolume=None if pd.isna(last["hypervolume"]) else float(last["hypervolume"]),
            trials_done=int(last["trials_done"]),
            tokens=int(last["tokens"]),
        )

    def _unscored(self) -> list[StoredTrial]:
        """Complete replicates at the budget, and what they replicate, without a score on the test part."""
        if self.plan.shape is None:
            return []
        files, found = Files(self.store.files), self.store.measurements(self.study)
        scored = set(found.loc[found["split"] == "test", "trial"].tolist())
        keys = {trial.candidate.key for trial in self._made() if trial.state == "complete"}
        return [
            trial
            for trial in self.store.trials(self.study, states=["complete"], role=None)
            if trial.candidate.key in keys
            and trial.budget == self.words.factor
            and trial.number not in scored
            # Of one whose checkpoint was deleted nothing can be told any more.
            and trial.checkpoints
            and files.exists(trial.checkpoints[-1].path)
        ]

    def _say(self, event: str) -> None:
        self.report(
            Progress(
                event=event,
                target=len(self._made()),
                complete=self._count("complete"),
                running=self._count("running"),
                failed=self._count("failed"),
                infeasible=self._count("infeasible"),
                duplicates=0,
                seconds=time.monotonic() - self._begun_at,
                seconds_left=None,
                hypervolume=None,
                front=(),
            )
        )
