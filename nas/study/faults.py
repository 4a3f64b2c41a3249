"""Whose fault a failure is, and what follows from it.

In: a job that gave no measurements. Out: a `Verdict`. A failure is information where it is the candidate's own: the
loss was no number, the device or the time was too small for it, its evaluation raises the same exception again. Then
the sampler is told of it as of a broken limit. A fault of the machine (a worker died, a disk or a connection failed)
says nothing of the candidate: the job is run again, a stated number of times, and then set aside; the study goes on.
Where nothing but failures comes, the study ends with their reason rather than burn its budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from nas.errors import KilledForMemoryError, NasError, StudyError, TimedOutError, WorkerError
from nas.records import Failure, Result
from nas.store import StoredTrial
from nas.study.memory import TrainingMemory
from nas.units import format_seconds

# A job that a fault of the machine ended is run again so often.
RETRIES = 2
# An exception of the same class so often is the candidate's own.
REPEATS = 2
# So many candidates that fail in the same way one after the other say that the limit is wrong, not they.
MOST_IN_A_ROW = 20
# Before anything was ever scored, so many with the same exception say that the evaluator is wrong.
MOST_AT_FIRST = 5
# What a candidate breaks that breaks no limit with a size; to a sampler, as far as one beyond a limit by all of it.
VIOLATION = 1.0

_ADVICE: Mapping[str, str] = {
    "out_of_memory": "give a larger memory_limit or device, or limit train_peak_bytes in the space's constraints",
    "diverged": "lower training.learning_rate in the space, or its gradient_clip",
    "timed_out": "give a larger time_limit, a smaller budget, or limit flops_per_token in the space's constraints",
    "crashed": "mend the cause, then give the study another --name, or more trials",
    "machine": "mend the cause, then give the study another --name, or more trials",
}
_WORDS: Mapping[str, str] = {
    "out_of_memory": "ran out of memory",
    "diverged": "diverged",
    "timed_out": "took too long",
    "crashed": "failed with the same exception",
    "machine": "failed for the same fault of the machine",
}


@dataclass(frozen=True)
class Verdict:
    """What follows from a failure.

    Attributes:
        action: the job is run again, or the trial ends: infeasible where it broke a limit, else failed.
        failure: with the reason to store.
        violation: how far a limit is broken, for the sampler; 0 where it has nothing to learn.
    """

    action: Literal["again", "infeasible", "failed"]
    failure: Failure
    violation: float = 0.0


@dataclass
class Faults:
    """The failures of one run.

    Attributes:
        memory: says more of a candidate that ran out of it.
        time_limit: seconds that a candidate may take, or None.
        has_scored: whether anything of the study was ever scored.
    """

    memory: TrainingMemory
    time_limit: float | None
    has_scored: bool
    _attempts: dict[int, list[Failure]] = field(default_factory=dict)
    _alike: list[tuple[StoredTrial, Failure]] = field(default_factory=list)

    def scored(self, trial: StoredTrial) -> None:
        """A job brought measurements; what befell it before does not count against the trial's next one."""
        self.has_scored = True
        self._attempts.pop(trial.number, None)
        self._alike = []

    def judge(self, trial: StoredTrial, failure: Failure, result: Result | None) -> Verdict:
        """What follows from a failure of a trial's job.

        Args:
            trial: whose job it was.
            failure: of the job, see `failure_of` for an exception.
            result: that said so, if the evaluator lived to say it.
        """
        attempts = self._attempts.setdefault(trial.number, [])
        attempts.append(failure)
        verdict = self._verdict(trial, attempts, result)
        if verdict.action != "again":
            if self._alike and _likeness(self._alike[-1][1]) != _likeness(verdict.failure):
                self._alike = []
            self._alike.append((trial, verdict.failure))
        return verdict

    def refuse_hopeless(self) -> None:
        """Ends a study in which one candidate after the other fails in the same way.

        Raises:
            WorkError: evaluations raise, or the machine fails.
            StudyError: a limit is too small, or training diverges.
        """
        if not self._alike:
            return
        (trial, last), count = self._alike[-1], len(self._alike)
        is_fault = last.kind in ("crashed", "machine")
        if count < (MOST_AT_FIRST if is_fault and not self.has_scored else MOST_IN_A_ROW):
            return
        which = "first" if is_fault and not self.has_scored else "last"
        error: type[NasError] = WorkerError if is_fault else StudyError
        raise error(
            f"the {which} {count} candidates all {_WORDS[last.kind]}, the last (trial {trial.number}) for: "
            f"{last.reason}; {_ADVICE[last.kind]}"
        )

    def _verdict(self, trial: StoredTrial, attempts: list[Failure], result: Result | None) -> Verdict:
        failure = attempts[-1]
        if failure.kind == "out_of_memory":
            return self._ran_out(trial, failure, result)
        if failure.kind == "diverged":
            return Verdict("infeasible", replace(failure, reason=f"diverged: {failure.reason}"), VIOLATION)
        if failure.kind == "timed_out":
            limit = "its time" if self.time_limit is None else f"time_limit {format_seconds(self.time_limit)}"
            reason = f"took longer than {limit}: {failure.reason}"
            return Verdict("infeasible", replace(failure, reason=reason), VIOLATION)
        times = sum(one.kind == "crashed" and one.error == failure.error for one in attempts)
        if failure.kind == "crashed" and times >= REPEATS:
            return Verdict("failed", replace(failure, reason=f"{failure.reason} ({times} times)"), VIOLATION)
        if len(attempts) <= RETRIES:
            return Verdict("again", failure)
        reasons = list(dict.fromkeys(one.reason for one in attempts))
        failure = replace(failure, kind="machine", reason=f"{'; '.join(reasons)} ({len(attempts)} times)")
        # Once it may have been another process that took the memory.
        if all(one.error == KilledForMemoryError.__name__ for one in attempts):
            return self._ran_out(trial, replace(failure, kind="out_of_memory"), None)
        return Verdict("failed", failure)

    def _ran_out(self, trial: StoredTrial, failure: Failure, result: Result | None) -> Verdict:
        return Verdict("infeasible", *self.memory.ran_out(trial.candidate, failure, result))


def failure_of(error: BaseException) -> Failure:
    """The failure of a job that ended with an exception: its worker was stopped for its time, or is lost."""
    kind: Literal["timed_out", "machine"] = "timed_out" if isinstance(error, TimedOutError) else "machine"
    return Failure(kind=kind, reason=str(error) or type(error).__name__, error=type(error).__name__)


def ended_in_words(failure: Failure) -> str:
    """What became of an infeasible trial, to follow its number."""
    return f"ran {failure.reason}" if failure.kind == "out_of_memory" else failure.reason


def lesson(trial: StoredTrial) -> Mapping[str, float]:
    """What a sampler learns of a trial that came to nothing: the limit that it broke, and how far, above 0.

    Nothing of one that the machine's fault ended, or that did not end in this way.
    """
    is_own_fault = trial.state == "failed" and trial.failure is not None and trial.failure.blames_candidate
    return {trial.reason: VIOLATION} if trial.state == "infeasible" or is_own_fault else {}


def _likeness(failure: Failure) -> tuple[str, str]:
    return failure.kind, failure.error if failure.kind in ("crashed", "machine") else ""
