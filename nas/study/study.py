"""A study: the door to everything, from Python and from the command line.

In: a study file, the name of a stored study, or a user's own evaluator. Out: a front in SQL, and
from it reports and checkpoints.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from nas import catalog
from nas.config import (
    CHANGEABLE,
    ConfirmWords,
    StudyConfig,
    changed_keys,
    config_from_resolved,
    load_study_config,
    parse_confirm,
    parse_memory_limit,
)
from nas.errors import InputError, StoreError, StudyError, did_you_mean
from nas.files import Files
from nas.limits import Stop, parse_stop, parse_time
from nas.objectives import Objective
from nas.space.space import Space
from nas.store import Store, StoredObjective, StoredStudy, StoredTrial
from nas.units import parse_bytes, parse_size

if TYPE_CHECKING:
    import pandas as pd

    from nas.measure.function import EvaluationFunction
    from nas.search.mirror import Mirror
    from nas.study.ending import Ending
    from nas.study.interrupts import Interrupts
    from nas.study.loop import Executor
    from nas.study.plan import Plan
    from nas.study.progress import Progress

DEFAULT_STORE = "sqlite:///nas.db"
# What a resolved study holds beside the words of its file: what was found when it was made, and when it was run last.
# Why the last run ended; left out while one is going on, or after a kill. And the seconds of all runs together.
ENDED, SPENT = "ended", "run_seconds"
FOUND_KEYS = ("data_version", "device_memory_bytes", ENDED, SPENT)


class Study:
    """A search, in a store that remembers it.

    Args:
        name: in the store.
        space: to draw architectures from.
        evaluate: any importable function of an architecture that returns the measured objectives
            by name; one with a parameter `seed` is given the seed of the training too.
        objectives: two or more; those with `known` are computed before anything is evaluated.
        sampler: a name of catalog.SAMPLERS.
        store: URL of the database; made when the study is first run.
        seed: of everything that is drawn.
        files: folder or fsspec URL for checkpoints; beside the database by default.
        memory_limit: what evaluating one architecture may take of its device beyond what the process
            holds already: "2 GiB" or bytes. One that takes more is infeasible.
        time_limit: what evaluating one architecture may take: "10m" or seconds. One that takes longer is infeasible;
            only in worker processes is it stopped.
        stop: what ends the study besides its trials: {"time": "2h", "hypervolume": {"patience": 20, "growth": 0.01}}.
        confirm: with how many further seeds the front is confirmed when the search is over; `evaluate` must take one.

    Raises:
        InputError: a rule is broken; nothing is written.
    """

    def __init__(
        self,
        *,
        name: str,
        space: Space,
        evaluate: EvaluationFunction,
        objectives: Sequence[Objective],
        sampler: str = "frontier",
        store: str = DEFAULT_STORE,
        seed: int = 0,
        files: str | None = None,
        memory_limit: float | str | None = None,
        time_limit: float | str | None = None,
        stop: Mapping[str, Any] | None = None,
        confirm: int | Mapping[str, Any] | None = None,
    ) -> None:
        from nas.study.plan import plan_from_function

        catalog.load("sampler", sampler)
        self.name = name
        self._config: StudyConfig | None = None
        self._plan: Plan | None = plan_from_function(
            name=name,
            space=space,
            evaluate=evaluate,
            objectives=objectives,
            sampler=sampler,
            seed=seed,
            memory_limit=None if memory_limit is None else parse_memory_limit(memory_limit),
            time_limit=None if time_limit is None else parse_time(time_limit),
            stop=parse_stop(stop),
            confirm=parse_confirm(confirm),
        )
        if self._plan.confirm is not None:
            _refuse_unconfirmable(self._plan, self._plan.confirm)
        self._url, self._files = store, files
        self._store: Store | None = None

    @classmethod
    def load(
        cls,
        study: str | Path,
        *,
        store: str = DEFAULT_STORE,
        files: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> Study:
        """The study of a file, or one that the store holds under that name.

        Args:
            study: path of a study file, name of a shipped study, or name in the store.
            store: URL of the database; not made before `run`.
            files: folder or fsspec URL for checkpoints; beside the database by default.
            settings: dotted keys and YAML values that take the place of the file's.

        Raises:
            InputError: no such study, or its file breaks a rule; nothing is written.
        """
        made = cls.__new__(cls)
        made._url, made._files, made._plan, made._store = store, files, None, None
        stored = None if Path(study).is_file() else made._stored_names()
        if stored is not None and str(study) in stored:
            if settings:
                raise StudyError(f"'{study}' is a stored study: name its file to change {', '.join(settings)}")
            made.name = str(study)
            resolved = made._opened().study(made.name).resolved
            made._config = config_from_resolved(_words(resolved)) if "task" in resolved else None
            return made
        try:
            made._config = load_study_config(study, settings)
        except StudyError as error:
            if not Path(study).suffix and str(error).startswith("no file"):
                # It was no file's name; then the store must hold it, or say why it cannot be asked.
                made._opened().study(str(study))
                raise StudyError(f"no study '{study}' in the store: {did_you_mean(study, stored or ())}") from None
            raise
        made.name = made._config.name
        return made

    @property
    def store(self) -> Store:
        """The open store.

        Raises:
            StoreError: it does not exist yet, or is not one of ours.
        """
        return self._opened()

    @property
    def is_stored(self) -> bool:
        """Whether a run of the study has begun before."""
        return self.name in (self._stored_names() or ())

    def run(
        self,
        *,
        trials: int | None = None,
        seconds: float | None = None,
        tokens: float | None = None,
        flops: float | None = None,
        workers: int = 0,
        dask: str | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> pd.DataFrame:
        """Runs the study, or goes on with it, until its candidates are trained and, if asked, its front is confirmed.

        Args:
            trials: distinct candidates to train, in total over all runs; as the study says by default.
            seconds: after which nothing new is begun; what runs is finished up to its next rung.
            tokens: of training, of all trials over all runs, after which nothing new is begun; in place of the
                study's `stop.tokens`.
            flops: of training, likewise.
            workers: processes of this machine; 0 trains in this one.
            dask: address of a Dask scheduler, whose workers train instead.
            progress: called at every event.

        Returns:
            The front, as `front` gives it.

        Raises:
            InputError: a rule is broken, or the study in the store differs; nothing is written.
        """
        from nas.study.confirm import Confirmation
        from nas.study.ending import Ending, check_stop
        from nas.study.loop import Loop
        from nas.study.mirror import adapter_of
        from nas.study.plan import axes

        if trials is not None and trials < 1:
            raise StudyError(f"trials must be at least 1, not {trials}")
        _refuse_workers(workers, dask)
        earlier = self._refuse_changes()
        plan = self._made_plan(earlier)
        if self._config is not None:
            from nas.study.device import on_device

            plan = on_device(plan, self._config, workers)
        stop = plan.stop.with_limits(tokens=tokens, flops=flops)
        target = trials or plan.trials or (None if stop.is_set else _stored_trials(earlier))
        if target is None and seconds is None and not stop.is_set:
            raise StudyError("how many candidates? give trials=, or what ends the study: stop=, tokens= or flops=")
        # Whatever can be wrong with the input is found before anything is written.
        adapter_of(plan)
        if self._files is not None:
            Files(self._files)
        objectives = self._scaled(plan, earlier)
        check_stop(plan, stop, has_scale=axes(objectives if earlier is None else earlier.objectives) is not None)
        if plan.confirm is not None:
            _refuse_unconfirmable(plan, plan.confirm)
            if target is None and stop.is_of_time_alone:
                raise StudyError(
                    "confirm begins when the search is over, and nothing but stop.time ends it: give trials, or "
                    "stop.tokens, flops or hypervolume"
                )
        executor = _executor(plan, workers, dask)
        try:
            resolved = _resolved(plan, earlier, target, stop)
            row = earlier or self._added(resolved, objectives)
            with self._driving(plan, row, resolved) as (stored, mirror, interrupts):
                ending = Ending.of(self.store, stored, stop, seconds)
                loop = Loop(plan, self.store, stored, mirror, executor, progress or _ignore, interrupts, ending)
                with self._ended(stored, ending) as why:
                    why.append(loop.run(target))
                    loop.say(f"the run ends: {why[-1]}")
                    if plan.confirm is not None and loop.finished:
                        searched = why[-1]
                        why.append(f"{searched}; the confirmation of the front was stopped")
                        is_confirmed = Confirmation(
                            plan,
                            self.store,
                            stored,
                            plan.confirm,
                            mirror,
                            executor,
                            progress or _ignore,
                            interrupts,
                            ending.of_time(),
                        ).run()
                        if is_confirmed:
                            why.append(f"{searched}; the front is confirmed")
        finally:
            executor.close()
        return self.front()

    def confirm(
        self,
        *,
        seeds: int = 3,
        budget: float | str = 1.0,
        dominated: int | None = None,
        seconds: float | None = None,
        workers: int = 0,
        dask: str | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> pd.DataFrame:
        """Trains the members of the front with further seeds, or goes on with it, and scores their test part.

        Nothing is trained twice: seeds that a member has already are counted.

        Args:
            seeds: of each member, beside the search's own: the study's seed + 1, + 2, ….
            budget: of each training, in multiples of the study's: 1.0, 8.0 or "8x".
            dominated: candidates off the front that are trained too, where the budget is above 1; 8 by default.
            seconds: after which nothing new is begun.
            workers: processes of this machine; 0 trains in this one.
            dask: address of a Dask scheduler, whose workers train instead.
            progress: called at every event.

        Returns:
            The front, as `front` gives it.

        Raises:
            InputError: a rule is broken, or the study has no front yet.
        """
        from nas.study.confirm import Confirmation
        from nas.study.ending import Ending

        given = {"seeds": seeds, "budget": budget if isinstance(budget, str) else f"{budget!r}x"}
        words = parse_confirm(given if dominated is None else {**given, "dominated": dominated})
        assert words is not None
        _refuse_workers(workers, dask)
        earlier = self._refuse_changes()
        if earlier is None or not len(self.store.front(earlier)):
            raise StudyError(f"study '{self.name}' has no front to confirm yet: run it first")
        plan = self._made_plan(earlier)
        _refuse_unconfirmable(plan, words)
        ending = Ending(seconds=seconds)
        executor = _executor(plan, workers, dask)
        try:
            with self._driving(plan, earlier, earlier.resolved) as (stored, mirror, interrupts):
                Confirmation(
                    plan, self.store, stored, words, mirror, executor, progress or _ignore, interrupts, ending
                ).run()
        finally:
            executor.close()
        return self.front()

    def front(self) -> pd.DataFrame:
        """The last recorded front: trial, fingerprint and one column for each objective, the values of that trial.

        Where a member has replicates also, for each measured objective, `<name>_mean` and `<name>_sd` (standard
        deviation) over all its seeds, and `seeds`, how many those are. The front is then that of the means.

        Raises:
            StoreError: the study was never run.
        """
        from nas.report.spread import front_with_spread

        return front_with_spread(self.store, self.store.study(self.name))

    def trial(self, number: int) -> StoredTrial:
        """One trial.

        Raises:
            StoreError: there is none of that number.
        """
        return self.store.trial(self.store.study(self.name), number)

    def best(self, metric: str, under: Mapping[str, float] | None = None) -> StoredTrial:
        """The complete trial that is best in one objective, within limits on others.

        Where a trial has replicates, its mean over seeds counts.

        Args:
            metric: an objective.
            under: objective → the largest value allowed (the smallest, for one to maximise).

        Raises:
            StudyError: an unknown objective, or no complete trial within the limits.
        """
        from nas.report.spread import means

        study = self.store.study(self.name)
        directions = {found.name: found.direction for found in study.objectives}
        for name in (metric, *(under or {})):
            if name not in directions:
                raise StudyError(f"'{name}' is no objective of study '{self.name}': {did_you_mean(name, directions)}")
        complete = self.store.trials(study, states=["complete"])
        signs = {name: 1.0 if direction == "minimize" else -1.0 for name, direction in directions.items()}
        over_seeds = means(self.store, study)
        values = {trial.number: {**trial.values, **over_seeds.get(trial.number, {})} for trial in complete}
        within = [
            trial
            for trial in complete
            if all(
                signs[name] * values[trial.number][name] <= signs[name] * limit for name, limit in (under or {}).items()
            )
        ]
        if not within:
            nearest = [
                f"{name}={_exact(signs[name] * min(signs[name] * found[name] for found in values.values()))}"
                for name in (under or {})
                if complete
            ]
            hint = f"the nearest limit that has one: {', '.join(nearest)}" if nearest else "none is complete yet"
            raise StudyError(f"study '{self.name}' has no complete trial within the limits; {hint}")
        return min(within, key=lambda trial: (signs[metric] * values[trial.number][metric], trial.number))

    def export(self, trial: StoredTrial, folder: str | Path, *, format_name: str = "bundle") -> Path:
        """Writes a trained candidate as a checkpoint that runs elsewhere, scored on the test part now.

        Args:
            trial: a complete one.
            folder: new or empty.
            format_name: of catalog.EXPORT_FORMATS.

        Raises:
            InputError: an unknown format, a trial that is not complete, a damaged checkpoint, or a
                folder that is not empty; nothing is written.
        """
        from nas.study.export import export_trial

        if self._config is None:
            raise StudyError(f"study '{self.name}' has an evaluator of its own: nas keeps no checkpoint to export")
        plan = self._made_plan(self.store.study(self.name))
        return export_trial(self.store, plan, trial, Path(folder), format_name=format_name)

    def close(self) -> None:
        """Lets go of the database."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def __enter__(self) -> Study:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self, *, create: bool = False) -> Store:
        if self._store is None:
            self._store = Store.open(self._url, create=create, files=self._files)
        return self._store

    def _stored_names(self) -> list[str] | None:
        """Names of the studies in the store, or None if there is no store to open."""
        try:
            return [study.name for study in self._opened().studies()]
        except StoreError:
            return None

    @contextmanager
    def _driving(
        self, plan: Plan, row: StoredStudy, resolved: Mapping[str, Any]
    ) -> Iterator[tuple[StoredStudy, Mirror, Interrupts]]:
        """The study's lease, its row as this run has it, its mirror, and whoever notes that the user wants to stop.

        A study that another process runs is refused before anything of it is changed.
        """
        from nas.measure.environment import current_environment
        from nas.study.device import with_memory
        from nas.study.interrupts import noted
        from nas.study.mirror import open_mirror

        with noted() as interrupts, interrupts.held(), self.store.driving(row):
            stored = row if row.resolved == resolved else self.store.update_resolved(row, resolved)
            self.store.add_environment(stored, with_memory(current_environment(), resolved))
            mirror = open_mirror(plan, self.store, stored)
            try:
                yield stored, mirror, interrupts
            finally:
                mirror.close()

    def _refuse_changes(self) -> StoredStudy | None:
        """The study's row, if it was run before; refuses to go on with a study that was edited."""
        names = self._stored_names()
        if names is None or self.name not in names:
            return None
        earlier = self.store.study(self.name)
        resolved = self._config.resolved if self._config is not None else None
        if resolved is None and self._plan is not None:
            resolved = self._plan.resolved
        if resolved is None:
            raise StudyError(f"study '{self.name}' has an evaluator of its own: run it from the Python that made it")
        changed = changed_keys(_words(earlier.resolved), resolved)
        if changed:
            raise StudyError(
                f"study '{self.name}' was made with other values of {', '.join(changed)}; "
                f"only {', '.join(CHANGEABLE)}, time and workers may change. Restore them, or take another --name NEW"
            )
        return earlier

    def _made_plan(self, earlier: StoredStudy | None) -> Plan:
        if self._plan is None:
            from nas.study.plan import plan_from_config

            assert self._config is not None
            version = "" if earlier is None else str(earlier.resolved.get("data_version", ""))
            self._plan = plan_from_config(self._config, version)
        return self._plan

    def _scaled(self, plan: Plan, earlier: StoredStudy | None) -> tuple[StoredObjective, ...]:
        """The objectives of a new study with their scales; fails where next to nothing is feasible."""
        from nas.study.plan import stored_objectives, surveyed

        has_device = self._config is not None and self._config.device is not None
        if earlier is not None and not has_device:
            # Nothing that decides what is feasible can have changed.
            return ()
        survey = surveyed(plan)
        survey.refuse_infeasible()
        return stored_objectives(plan, survey.feasible) if earlier is None else ()

    def _added(self, resolved: Mapping[str, Any], objectives: Sequence[StoredObjective]) -> StoredStudy:
        """The row of a study that is run for the first time."""
        return self._opened(create=True).add_study(self.name, resolved=resolved, objectives=objectives)

    @contextmanager
    def _ended(self, stored: StoredStudy, ending: Ending) -> Iterator[list[str]]:
        """Keeps why a run ended, and how long it took; the reason is what was put into the list last."""
        why = ["it was stopped"]
        try:
            yield why
        except Exception as error:
            why.append(f"an error: {(str(error) or type(error).__name__).splitlines()[0]}")
            raise
        finally:
            now = self.store.study(self.name).resolved
            self.store.update_resolved(stored, {**now, ENDED: why[-1], SPENT: ending.spent + ending.elapsed})


def _refuse_workers(workers: int, dask: str | None) -> None:
    if workers < 0:
        raise StudyError(f"workers must be 0 (this process) or more, not {workers}")
    if workers and dask is not None:
        raise StudyError("give workers or dask, not both: a Dask cluster has its own workers")


def _refuse_unconfirmable(plan: Plan, words: ConfirmWords) -> None:
    from nas.study.confirm import refuse_unconfirmable

    refuse_unconfirmable(plan, words)


def _words(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """The words of a resolved study that a study file has too."""
    return {key: value for key, value in resolved.items() if key not in FOUND_KEYS}


def _resolved(plan: Plan, earlier: StoredStudy | None, target: int | None, stop: Stop) -> dict[str, Any]:
    """The words that a run goes by, with what the study has spent before."""
    found = dict(plan.resolved)
    if target is not None:
        found["trials"] = target
    if stop.is_set:
        found["stop"] = stop.to_mapping()
    if earlier is not None and SPENT in earlier.resolved:
        found[SPENT] = earlier.resolved[SPENT]
    return found


def _stored_trials(earlier: StoredStudy | None) -> int | None:
    trials = None if earlier is None else earlier.resolved.get("trials")
    return None if trials is None else int(trials)


def _executor(plan: Plan, workers: int, dask: str | None) -> Executor:
    if dask is not None:
        from nas.executors.dask import DaskExecutor

        return DaskExecutor(plan.evaluator, dask)
    if workers == 0:
        from nas.executors.inline import InlineExecutor

        return InlineExecutor(plan.evaluator)
    from nas.executors.local import LocalExecutor

    try:
        pickle.dumps(plan.evaluator)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise StudyError(
            f"workers are other processes, so the evaluator must be an importable function: {error}"
        ) from None
    return LocalExecutor(plan.evaluator, workers)


def _exact(value: float) -> str:
    """A limit that the value itself meets when it is typed in again."""
    return str(int(value)) if value.is_integer() else repr(value)


def _ignore(progress: Progress) -> None:
    """No one is listening."""


def parse_limits(texts: Sequence[str]) -> dict[str, float]:
    """The limits of "serve_bytes=8MiB" texts.

    Raises:
        StudyError: a text of another form, or an unknown unit.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, equals, value = text.replace("<=", "=").replace(">=", "=").rpartition("=")
        if not equals or not name:
            raise StudyError(f"'{text}' is no limit: write objective=value, such as serve_bytes=8MiB")
        try:
            is_size = name.partition("@")[0].strip().endswith("_bytes")
            found[name.strip()] = parse_size(value) if is_size else parse_bytes(value)
        except InputError as error:
            raise StudyError(f"limit '{text}': {error}") from None
    return found
