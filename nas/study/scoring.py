"""The test part of the data: scored when a candidate is confirmed or exported, and stored as such.

In: complete trials with a checkpoint. Out: measurements of the split "test" in the store. The search sees none of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

from nas.errors import InputError
from nas.records import Job, Result
from nas.store import Store, StoredTrial
from nas.study.interrupts import Interrupts
from nas.study.loop import Executor
from nas.study.plan import Plan


def scoring_job(store: Store, plan: Plan, trial: StoredTrial) -> Job:
    """The job that scores a trial's last checkpoint on the test part, along the context."""
    return Job(
        kind="test",
        candidate=trial.candidate,
        task=plan.task_of(trial.candidate.architecture),
        seed=trial.seed,
        schedule=plan.schedule(trial.candidate.architecture),
        from_step=trial.step,
        to_step=trial.step,
        checkpoint=trial.checkpoints[-1],
        files=store.files,
        trainer=plan.trainer,
        contexts=plan.contexts(trial.candidate.architecture),
    )


def score_test_part(
    store: Store,
    plan: Plan,
    trials: Sequence[StoredTrial],
    *,
    executor: Executor,
    interrupts: Interrupts,
    deadline: float | None,
    say: Callable[[str], None],
) -> None:
    """Scores each trial where jobs run; one that cannot be scored is told of and left for another time.

    Args:
        store: that the scores are written to.
        plan: whose schedule is that of the trials.
        trials: complete, with a checkpoint that exists.
        executor: where jobs run.
        interrupts: whether the user asked to stop.
        deadline: of time.monotonic(), after which none is begun.
        say: told of each trial.

    Raises:
        InputError: a checkpoint is damaged, or data changed.
    """
    left, active = list(trials), dict[Future[Result], StoredTrial]()
    while left or active:
        interrupts.check()
        while left and len(active) < executor.slots and (deadline is None or time.monotonic() < deadline):
            trial = left.pop(0)
            with interrupts.let_through():
                # In this process, the job is done here.
                future = executor.submit(scoring_job(store, plan, trial))
            active[future] = trial
        if not active:
            return
        with interrupts.let_through():
            done, _ = wait(active, timeout=1.0, return_when=FIRST_COMPLETED)
        for future in done:
            say(_kept(store, active.pop(future), future))


def _kept(store: Store, trial: StoredTrial, future: Future[Result]) -> str:
    """Stores what came of a job, and says what that was."""
    error = future.exception()
    if isinstance(error, InputError):
        raise error
    failure = None if error is not None else future.result().failure
    if error is not None or failure is not None:
        return f"trial {trial.number}: the test part failed: {error if failure is None else failure.reason}"
    store.add_measurements(trial, future.result().measurements)
    return f"trial {trial.number}: the test part is complete"
