"""A user's own function as an evaluator: any function of an architecture, with one rung.

In: a function `Architecture -> {"metric": value}`, which may take a `seed` too. Out: the same `Result` as a training
gives.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nas.errors import DivergedError, WorkerError, did_you_mean
from nas.measure.limit import MemoryLimit
from nas.measure.peak import release_memory
from nas.measure.train import classify
from nas.measure.trainer import device_of
from nas.records import Failure, Job, Measurement, Result

# Of an architecture, and of `seed=` where it has such a parameter.
EvaluationFunction = Callable[..., Mapping[str, float]]


@dataclass(frozen=True)
class FunctionEvaluator:
    """Calls the function and checks what it returns.

    Attributes:
        function: the user's own, of an architecture; where it has a parameter `seed`, it is given that too.
        names: the measured objectives that it must return.
    """

    function: EvaluationFunction
    names: tuple[str, ...]

    @property
    def takes_seed(self) -> bool:
        """Whether the function has a parameter of that name, and so may give other values with another seed."""
        try:
            parameter = inspect.signature(self.function).parameters.get("seed")
        except (TypeError, ValueError):
            # Some functions of C say nothing of their parameters.
            return False
        return parameter is not None and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)

    def evaluate(self, job: Job) -> Result:
        """Does the job; whatever the function raises or returns wrongly is a failure of the trial.

        Raises:
            KeyboardInterrupt: the user stopped it.
        """
        start = time.perf_counter()
        values = self._values(job)
        if job.time_limit is not None and time.perf_counter() - start > job.time_limit:
            # Nobody can stop a function from outside; whether a worker was killed for it or not, the rule is one.
            values = Failure(kind="timed_out", reason="the evaluator returned too late")
        if isinstance(values, Failure):
            release_memory()
            return Result(failure=values, seconds=time.perf_counter() - start)
        measurements = tuple(
            Measurement(
                metric=name, value=value, unit="", step=job.to_step, context=None, split="validation", seed=job.seed
            )
            for name, value in values.items()
        )
        return Result(measurements=measurements, seconds=time.perf_counter() - start)

    def _values(self, job: Job) -> dict[str, float] | Failure:
        try:
            with MemoryLimit(job.memory_limit, device_of({})).held():
                given = {"seed": job.seed} if self.takes_seed else {}
                return self._checked(self.function(job.candidate.architecture, **given))
        except (Exception, SystemExit) as error:
            # An exit of the function's own is not to end the study.
            return classify(error)

    def _checked(self, values: object) -> dict[str, float]:
        if not isinstance(values, Mapping):
            raise WorkerError(f"the evaluator must return a mapping of {', '.join(self.names)}, not {values!r}")
        for name in self.names:
            if name not in values:
                raise WorkerError(f"the evaluator returned no '{name}': {did_you_mean(name, values)}")
            if not math.isfinite(_number(name, values[name])):
                raise DivergedError(f"the evaluator returned {values[name]!r} for '{name}': it must be a finite number")
        numbers = {str(name): _number(name, value) for name, value in values.items()}
        return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _number(name: object, value: Any) -> float:
    """
    Raises:
        WorkerError: it is none.
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        raise WorkerError(f"the evaluator returned {value!r} for '{name}': it must be a number") from None
