"""The one study loop: suggest, check, train in rungs, record, tell.

In: a `Plan`, a store, an executor. Out: rows in the store. The loop alone writes to the store;
jobs talk to nobody. Wherever it is stopped, the next run takes up what was running from its last
checkpoint, and trains nothing twice.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Protocol

from nas.errors import InputError, StudyError
from nas.files import Files
from nas.objectives import known_values
from nas.pareto import hypervolume
from nas.records import Candidate, Decision, Failure, Job, Result
from nas.report.spread import means
from nas.search.mirror import Mirror, Suggestion
from nas.specs.base import Value
from nas.store import MemoryFigure, Store, StoredStudy, StoredTrial
from nas.study.ending import Ending
from nas.study.faults import Faults, ended_in_words, failure_of, lesson
from nas.study.interrupts import Interrupts
from nas.study.memory import TrainingMemory
from nas.study.plan import Plan, axes, violations
from nas.study.progress import Progress, describe
from nas.study.replicates import Replicates
from nas.study.standing import front_members, placeholder
from nas.study.stopping import Stopping
from nas.units import format_bytes

# Draws in a row that bring nothing new before unseen candidates are taken straight from the space.
FRUITLESS_DRAWS = 200
UNSEEN_TRIES = 20_000
# Seconds beyond its time limit after which a job that did not end of itself is stopped: data is read first, and a
# step or a checkpoint is finished.
GRACE_SECONDS = 60.0
STARTED = ("running", "paused", "complete", "failed")


class Executor(Protocol):
    """Where jobs run."""

    slots: int

    def submit(self, job: Job) -> Future[Result]:
        """The future of a job; a slot must be free."""
        ...

    def stop_overdue(self, future: Future[Result], seconds: float) -> None:
        """Ends a job that has run for longer, if the executor can; it then fails with TimedOutError."""
        ...

    def close(self) -> None:
        """Lets go of every process at once."""
        ...


@dataclass
class Loop:
    """One run of a study.

    Attributes:
        plan: what to do.
        store: that everything is written to.
        study: its row.
        mirror: of samplers and dashboard.
        executor: where jobs run.
        report: called at every event.
        interrupts: whether the user asked to stop.
        ending: when no further job is submitted, and why.
        replicates: what is trained in place of new candidates, or None in a search.
        finished: whether the run came to its end, and not to the end of its time.
    """

    plan: Plan
    store: Store
    study: StoredStudy
    mirror: Mirror
    executor: Executor
    report: Callable[[Progress], None]
    interrupts: Interrupts
    ending: Ending = field(default_factory=Ending)
    replicates: Replicates | None = None
    _trials: dict[int, StoredTrial] = field(default_factory=dict)
    _active: dict[Future[Result], tuple[StoredTrial, Job]] = field(default_factory=dict)
    _duplicates: int = 0
    _target: int | None = None
    _begun: float = field(default_factory=time.monotonic)
    _waiting: list[StoredTrial] = field(default_factory=list)
    _finished_here: int = 0
    _paused_here: int = 0
    _hypervolume: float | None = None
    _memory: TrainingMemory = field(init=False)
    _stopping: Stopping = field(init=False)
    _faults: Faults = field(init=False)
    _means: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    exhausted: bool = False
    finished: bool = False

    def run(self, target: int | None) -> str:
        """Trains until `target` candidates were started in total and all of them have ended or are paused.

        Returns:
            Why it ended.

        Raises:
            InputError: a job could not be done as asked; everything finished is kept.
        """
        self._memory = TrainingMemory(self.plan, self.store)
        self._stopping = Stopping(self.plan, self.store, self.study)
        self._trials = {trial.number: trial for trial in self._own()}
        self._means = means(self.store, self.study)
        has_scored = self.replicates is not None or any(trial.step for trial in self._trials.values())
        self._faults = Faults(self._memory, self.plan.time_limit, has_scored)
        self._duplicates = self.study.duplicates
        self._target = target
        self._mend_front()
        self._waiting = [trial for trial in self._trials.values() if trial.state == "running"]
        while True:
            self.interrupts.check()
            has_ended = self._fill_slots()
            if not self._active:
                self.finished = has_ended or not self.ending.is_late
                if self.finished:
                    self._tell_paused()
                if not has_ended:
                    return self.ending.reason(self._trials.values())
                if self.exhausted:
                    return "space exhausted: every feasible candidate was tried"
                return f"all {target} candidates that were asked for have ended"
            with self.interrupts.let_through():
                done, _ = wait(self._active, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in done:
                self._handle(future)
            self._stop_overdue()
            self.say("")

    def _fill_slots(self) -> bool:
        """Gives each slot work: what was left over, what was paused too early, what is new; True if all is done."""
        while self._has_slot and not self._is_late:
            if self._waiting:
                self._take_up(self._waiting.pop(0))
            elif (paused := self._stopping.next_resumed(self._trials.values())) is not None:
                self._resume(*paused)
            elif not self._has_all and not self.exhausted:
                self.exhausted = not self._start_one()
            else:
                return True
        return False

    def _own(self) -> list[StoredTrial]:
        """The trials that this run goes on with."""
        if self.replicates is None:
            return self.store.trials(self.study)
        made = self.store.trials(self.study, role="confirm")
        return [trial for trial in made if trial.budget == self.replicates.budget]

    @property
    def _has_slot(self) -> bool:
        return len(self._active) < self.executor.slots

    @property
    def _is_late(self) -> bool:
        return bool(self.ending.reason(self._trials.values()))

    @property
    def _has_all(self) -> bool:
        return self._target is not None and self._count(*STARTED) >= self._target

    def _count(self, *states: str) -> int:
        return sum(trial.state in states for trial in self._trials.values())

    # Suggesting

    def _start_one(self) -> bool:
        """Starts a new candidate; False when the space holds no other."""
        if self.replicates is not None:
            return self._start_replicate(self.replicates)
        for _ in range(FRUITLESS_DRAWS):
            if self._consider(self.mirror.ask()):
                return True
            if self.mirror.found_nothing:
                break
        return any(self._consider(self.mirror.ask(values)) for values in self._unseen())

    def _start_replicate(self, replicates: Replicates) -> bool:
        """Starts the next replicate; False when there is no other."""
        if not replicates.wanted:
            return False
        confirmed, seed = replicates.wanted.pop(0)
        trial = self.store.add_replicate(
            self.study,
            confirmed.candidate,
            seed=seed,
            budget=replicates.budget,
            known=known_values(self.plan.objectives, confirmed.candidate.architecture),
            reason=f"confirms trial {confirmed.number}",
        )
        self.store.add_memory(trial, self._memory.predicted(confirmed.candidate))
        self._submit(trial, event=f"started, trial {confirmed.number} with seed {seed}")
        return True

    def _consider(self, suggestion: Suggestion) -> bool:
        """Starts the suggested candidate if it is new and within the limits; else says why not."""
        drawn = self.plan.space.decode(suggestion.values)
        if drawn.architecture is None:
            self.mirror.tell_infeasible(suggestion.number, {drawn.excluded: 1.0}, self._placeholder({}))
            return False
        architecture = self.plan.bind(drawn)
        candidate = Candidate(architecture, drawn.training)
        known = known_values(self.plan.objectives, architecture)
        earlier = self.store.find(self.study, candidate.key, self.plan.seed)
        if earlier is not None:
            self._tell_duplicate(suggestion, earlier)
            return False
        broken = violations(self.plan, architecture, known)
        try:
            self.plan.schedule(architecture)
        except StudyError as error:
            # A budget of FLOPs may hold too few steps of a large candidate.
            broken[str(error)] = 1.0
        too_large = {} if broken else self._memory.excess(candidate)
        if broken or too_large:
            figures = self._memory.predicted(candidate) if too_large else []
            self._record_infeasible(suggestion, candidate, known, broken or too_large, figures)
            return False
        trial = self.store.add_trial(
            self.study,
            candidate,
            seed=self.plan.seed,
            optuna_number=suggestion.number,
            known=known,
            reason=f"suggested by {self.plan.sampler.name}",
        )
        self.mirror.name_trial(suggestion.number, trial.number)
        self.store.add_memory(trial, self._memory.predicted(candidate))
        self._submit(trial, event="started")
        return True

    def _record_infeasible(
        self,
        suggestion: Suggestion,
        candidate: Candidate,
        known: Mapping[str, float],
        broken: Mapping[str, float],
        figures: Sequence[MemoryFigure],
    ) -> None:
        reason = "; ".join(broken)
        trial = self.store.add_infeasible(
            self.study,
            candidate,
            seed=self.plan.seed,
            optuna_number=suggestion.number,
            known=known,
            reason=reason,
        )
        self.store.add_memory(trial, figures)
        self._note(trial)
        self.mirror.name_trial(suggestion.number, trial.number)
        self.mirror.tell_infeasible(suggestion.number, broken, self._placeholder(known))
        self.say(f"trial {trial.number} infeasible: {reason}")

    def _tell_duplicate(self, suggestion: Suggestion, earlier: StoredTrial) -> None:
        """A repeated draw costs nothing; the sampler learns what is known of it."""
        self._duplicates = self.store.count_duplicate(self.study)
        values = [earlier.values.get(objective.name) for objective in self.plan.objectives]
        if earlier.state == "complete" and None not in values:
            self.mirror.tell_complete(suggestion.number, [float(value) for value in values if value is not None])
        elif learnt := lesson(earlier):
            self.mirror.tell_infeasible(suggestion.number, learnt, self._placeholder(earlier.values))
        else:
            self.mirror.tell_failed(suggestion.number)

    def _placeholder(self, known: Mapping[str, float]) -> list[float]:
        return placeholder(known, self.study, list(self._trials.values()))

    def _unseen(self) -> Iterator[Mapping[str, Value]]:
        """Feasible assignments whose candidates were never tried."""
        space, rng = self.plan.space, random.Random(f"{self.plan.seed}/{len(self._trials)}")
        if space.is_finite and space.size <= UNSEEN_TRIES:
            assignments = list(space.enumerate())
            rng.shuffle(assignments)
        else:
            assignments = [space.draw(rng) for _ in range(UNSEEN_TRIES)]
        for values in assignments:
            drawn = space.decode(values)
            if drawn.architecture is None:
                continue
            candidate = Candidate(self.plan.bind(drawn), drawn.training)
            known = known_values(self.plan.objectives, candidate.architecture)
            is_new = self.store.find(self.study, candidate.key, self.plan.seed) is None
            if is_new and not violations(self.plan, candidate.architecture, known):
                yield values

    # Training

    def _take_up(self, trial: StoredTrial) -> None:
        """Goes on with a trial that an earlier run left behind."""
        self.store.add_memory(trial, self._memory.predicted(trial.candidate))
        if trial.step < self.plan.schedule(trial.candidate.architecture).total_steps:
            if trial.step == 0 or self._goes_on(trial):
                self._submit(trial, event="goes on")
            return
        # It was killed between its last result and its end: all that is needed is on record.
        found = self.store.measurements(self.study, trial.number)
        rows = found[(found["step"] == trial.step) & (found["split"] == "validation")]
        own = rows[rows["context"].isna() | (rows["context"] == trial.candidate.architecture.max_context)]
        self._complete(trial, dict(zip(own["metric"], own["value"], strict=True)))

    def _note(self, trial: StoredTrial) -> None:
        """What a trial is now."""
        self._trials[trial.number] = trial
        self._stopping.moved(trial)

    def _goes_on(self, trial: StoredTrial) -> bool:
        """Decides at a rung whether a trial goes on; pauses it otherwise."""
        decision = self._stopping.decide(trial)
        if decision.action != "pause":
            return True
        self._note(self.store.pause(trial, decision.reason))
        self._paused_here += 1
        self.say(f"trial {trial.number} paused: {decision.reason}")
        return False

    def _resume(self, trial: StoredTrial, decision: Decision) -> None:
        """Lets a paused trial go on from its checkpoint."""
        self._stopping.store(trial, decision)
        self.say(f"trial {trial.number} resumed: {decision.reason}")
        self._submit(self.store.resume(trial, decision.reason), event="goes on")

    def _tell_paused(self) -> None:
        """The study is over: samplers and dashboard hear who stays paused."""
        for trial in self._trials.values():
            if trial.state == "paused" and trial.optuna_number is not None:
                self.mirror.tell_paused(trial.optuna_number)

    def _submit(self, trial: StoredTrial, event: str) -> None:
        if trial.optuna_number is not None:
            # One that was paused when the study ended once has an end in Optuna's tables.
            number = self.mirror.running_twin(trial.optuna_number)
            trial = trial if number == trial.optuna_number else self.store.set_optuna_number(trial, number)
        self._note(trial)
        job = self._next_job(trial)
        self.say(f"trial {trial.number} {event}: {describe(trial.candidate)}")
        with self.interrupts.let_through():
            # In this process, the job is done here.
            future = self.executor.submit(job)
        self._active[future] = (trial, job)

    def _stop_overdue(self) -> None:
        """Stops jobs that hang: those within reach end of themselves, between two steps."""
        for future, (_, job) in self._active.items():
            if job.time_limit is not None:
                self.executor.stop_overdue(future, job.time_limit + GRACE_SECONDS)

    def _next_job(self, trial: StoredTrial) -> Job:
        schedule = self.plan.schedule(trial.candidate.architecture)
        files = Files(self.store.files)
        # A checkpoint that was deleted is made again from the one before it.
        kept = [found for found in trial.checkpoints if found.step <= trial.step and files.exists(found.path)]
        start = max(kept, key=lambda found: found.step) if kept and self.plan.shape is not None else None
        from_step = start.step if start is not None else 0
        to_step = next(step for step in schedule.rung_steps if step > min(from_step, schedule.total_steps - 1))
        has_curve = self.plan.scores_curve or to_step == schedule.total_steps
        return Job(
            kind="train",
            candidate=trial.candidate,
            task=self.plan.task_of(trial.candidate.architecture),
            seed=trial.seed,
            schedule=schedule,
            from_step=from_step,
            to_step=to_step,
            checkpoint=start,
            files=self.store.files,
            folder=f"{_folder(self.plan.name, self.store.label)}/{_training(trial)}",
            trainer=self.plan.trainer,
            contexts=self.plan.contexts(trial.candidate.architecture) if has_curve else (),
            memory_limit=self.plan.memory_limit,
            time_limit=None if self.plan.time_limit is None else max(self.plan.time_limit - trial.seconds, 0.0),
        )

    def _handle(self, future: Future[Result]) -> None:
        trial, job = self._active.pop(future)
        error = future.exception()
        if error is not None or future.result().failure is not None:
            # A failure that an interrupt caused is no failure of the candidate.
            self.interrupts.check()
        if isinstance(error, InputError):
            raise error
        if error is not None:
            self._fail(trial, failure_of(error), None)
            return
        result = future.result()
        if result.failure is not None:
            self._fail(trial, result.failure, result)
            return
        trial = self.store.record_result(trial, result, step=job.to_step)
        self._memory.took(trial, result)
        self._faults.scored(trial)
        contexts = (None, trial.candidate.architecture.max_context)
        measured = {found.metric: found.value for found in result.measurements if found.context in contexts}
        self._stopping.scored(trial, job.schedule.rung_steps.index(job.to_step), measured)
        rungs = self._stopping.rungs(trial)
        if rungs and trial.optuna_number is not None:
            self.mirror.tell_rungs(trial.optuna_number, rungs)
        if job.to_step < job.schedule.total_steps:
            self._note(trial)
            if self._is_late:
                # The next run decides, or this one, if the front grows after all.
                self._waiting.append(trial)
            elif self._goes_on(trial):
                self._submit(trial, event=f"at step {job.to_step} of {job.schedule.total_steps}")
            return
        self._complete(trial, measured)
        self._memory.completed(result)

    def _fail(self, trial: StoredTrial, failure: Failure, result: Result | None) -> None:
        """A job came to nothing: it is run again, or its trial ends with what the sampler can learn of it."""
        verdict = self._faults.judge(trial, failure, result)
        if verdict.action == "again":
            if self._is_late:
                self._waiting.append(trial)
            else:
                self._submit(trial, event=f"starts again ({failure.reason})")
            return
        if result is not None:
            self._memory.took(trial, result)
        is_infeasible, reason = verdict.action == "infeasible", verdict.failure.reason
        trial = (self.store.exclude if is_infeasible else self.store.fail)(trial, verdict.failure)
        self.store.add_decision(trial, Decision("infeasible" if is_infeasible else "fail", reason))
        self._note(trial)
        if trial.optuna_number is not None and verdict.violation:
            worst = self._placeholder(trial.values)
            self.mirror.tell_infeasible(trial.optuna_number, {reason: verdict.violation}, worst)
        elif trial.optuna_number is not None:
            self.mirror.tell_failed(trial.optuna_number)
        self.say(f"trial {trial.number} {ended_in_words(verdict.failure) if is_infeasible else f'failed: {reason}'}")
        self._faults.refuse_hopeless()

    def _complete(self, trial: StoredTrial, measured: Mapping[str, float]) -> None:
        values = {
            objective.name: trial.values.get(objective.name, measured.get(objective.name, float("nan")))
            for objective in self.plan.objectives
        }
        trial = self.store.complete(trial, values, reason="trained to the end of its budget")
        self._note(trial)
        self._finished_here += 1
        if trial.optuna_number is not None:
            self.mirror.tell_complete(trial.optuna_number, [values[found.name] for found in self.plan.objectives])
        self.record_front()
        shown = ", ".join(
            f"{found.name} {format_bytes(values[found.name]) if found.is_bytes else f'{values[found.name]:.5g}'}"
            for found in self.plan.objectives
        )
        self.say(f"trial {trial.number} complete: {shown}")

    # Recording

    def _mend_front(self) -> None:
        """Records the front if a kill came between the end of a trial and its front."""
        if self.replicates is not None:
            return
        members = self._members()
        self._hypervolume = self._volume()
        recorded = [int(number) for number in self.store.front(self.study)["trial"]]
        if sorted(trial.number for trial in members) != sorted(recorded):
            self.record_front()

    def record_front(self) -> None:
        """Writes the front of this moment and its hypervolume, if a candidate is complete."""
        members = self._members()
        if not members or self.replicates is not None:
            return
        self._hypervolume, started = self._volume(), self._count(*STARTED)
        self.ending.recorded(started, self._hypervolume)
        self.store.add_front(
            self.study,
            members=[trial.number for trial in members],
            hypervolume=self._hypervolume,
            trials_done=started,
            tokens=sum(trial.tokens for trial in self._trials.values()),
        )

    def _members(self) -> list[StoredTrial]:
        if self.replicates is not None:
            return self.replicates.front
        return front_members(list(self._trials.values()), self.study, self._means)

    def _volume(self) -> float | None:
        """The hypervolume of all complete trials, or None where there is none or an objective has no scale."""
        scale = axes(self.study.objectives)
        complete = [trial for trial in self._trials.values() if trial.state == "complete"]
        if scale is None or not complete:
            return None
        return hypervolume([[trial.values[found.name] for found in self.study.objectives] for trial in complete], scale)

    def say(self, event: str) -> None:
        """Tells whoever listens how far the run is."""
        elapsed = time.monotonic() - self._begun
        members = self._members()
        ended, ended_here = self._count("complete", "failed", "paused"), self._finished_here + self._paused_here
        left = None
        if ended_here and self._target is not None:
            left = max(self._target - ended, 0) * elapsed / ended_here
        self.report(
            Progress(
                event=event,
                target=self._target,
                complete=self._count("complete"),
                running=self._count("running"),
                failed=self._count("failed"),
                paused=self._count("paused"),
                infeasible=self._count("infeasible"),
                duplicates=self._duplicates,
                seconds=elapsed,
                seconds_left=left,
                hypervolume=self._hypervolume,
                front=tuple((trial.number, trial.values) for trial in members),
            )
        )


def _training(trial: StoredTrial) -> str:
    """A folder of its own for a training: its candidate, seed and budget."""
    budget = "" if trial.budget == 1 else f"-{trial.budget!r}x"
    return f"{trial.candidate.key}-{trial.seed}{budget}"


def _folder(name: str, store: str) -> str:
    """A folder of its own for a study: its name without what file systems dislike, and a hash of name and store."""
    plain = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)[:80]
    return f"{plain}-{hashlib.sha256(f'{store}/{name}'.encode()).hexdigest()[:8]}"
