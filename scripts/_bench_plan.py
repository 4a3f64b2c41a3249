"""What the mixers' benchmark measures, one key for each measurement, and where it keeps the figures.

In: mixers, lengths and limits. Out: a JSON file of figures, written after every measurement, so
that a run that was stopped goes on where it was. A peer is timed alone at first; the fastest is then
compared with ours in turns. Peers that are far behind at one length are not tried at the next.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from _bench_cores import CORES, core_subjects
from _bench_measure import STEPS_PER_TURN, Figures, Limits, Subject, compare, difference, growth, memory, once
from _bench_modules import peers
from _bench_ours import GROWING, ours

HOPELESS = 3.0
"""A peer this many times slower than the fastest is not tried at greater lengths."""

SHORTEST_DECODE = 512
COMPARED, CLOSE = 512, 1e-3
"""Cores are compared at this length, within this share of the largest value."""


class Results:
    """Figures by key, in a file; figures of another machine or of other code are refused."""

    def __init__(self, path: Path, environment: dict[str, Any]) -> None:
        self.path = path
        self.environment = environment
        self.figures: dict[str, Figures] = {}
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            differing = [key for key, value in environment.items() if kept["environment"].get(key) != value]
            if differing:
                raise SystemExit(
                    f"{path} was measured with another {' and '.join(differing)}: give --fresh to begin anew, "
                    "or another file with --results"
                )
            self.figures = kept["figures"]

    def get(self, key: str, measure: Callable[[], Figures]) -> Figures:
        """The figures of a key, measured now if they are not there yet."""
        if key not in self.figures:
            found = {**measure(), "load": round(os.getloadavg()[0], 2)}
            self.figures[key] = found
            shown = ", ".join(f"{name} {_short(value)}" for name, value in found.items() if name != "load")
            print(f"{key}: {shown}", flush=True)
            self._write()
        return self.figures[key]

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".tmp")
        text = json.dumps({"environment": self.environment, "figures": self.figures}, indent=1)
        beside.write_text(text, encoding="utf-8")
        beside.replace(self.path)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure.

    Attributes:
        mixers: names of the catalog.
        lengths: tokens of a sequence in training, ascending.
        limits: of each measurement.
    """

    mixers: Sequence[str]
    lengths: Sequence[int]
    limits: Limits

    @property
    def growth_lengths(self) -> tuple[int, int]:
        """The longest and a quarter of it."""
        return self.lengths[-1] // 4, self.lengths[-1]

    @property
    def decode_lengths(self) -> list[int]:
        """Contexts that are decoded at."""
        return sorted({min(SHORTEST_DECODE, self.lengths[0]), *self.lengths})

    def run(self, results: Results) -> None:
        """Measures whatever is not in the file yet."""
        for mixer in self.mixers:
            mine, others = ours(mixer), peers(mixer)
            assert mine.train is not None and mine.decode is not None
            trained = [peer.train for peer in others if peer.train is not None]
            self._compare(results, "whole", mixer, mine.train, trained, self.lengths)
            if mixer in CORES:
                core, rivals = core_subjects(mixer)
                self._agree(results, mixer, core, rivals)
                self._compare(results, "core", mixer, core, rivals, self.lengths, all_rivals=mixer == "sliding_window")
            self._memory(results, mixer, mine.train, trained)
            decoded = [peer.decode for peer in others if peer.decode is not None]
            self._compare(results, "decode", mixer, mine.decode, decoded, self.decode_lengths)
            self._growth(results, mixer, mine.train, mine.decode)

    def _agree(self, results: Results, mixer: str, mine: Subject, rivals: list[Subject]) -> None:
        """Stops where a peer computes another function, unless its name says so."""
        for rival in rivals:
            if rival.read is not None:
                key = f"agree/{mixer}/{COMPARED}/{rival.name}"
                found = results.get(key, lambda rival=rival: difference(mine, rival, COMPARED, self.limits))
                if not found.get("difference", 0.0) < CLOSE:
                    raise SystemExit(f"{key}: this peer computes something else ({found})")

    def _compare(
        self,
        results: Results,
        kind: str,
        mixer: str,
        mine: Subject,
        rivals: list[Subject],
        lengths: Sequence[int],
        *,
        all_rivals: bool = False,
    ) -> None:
        runs = STEPS_PER_TURN if kind == "decode" else 1
        for index, length in enumerate(lengths):
            before = lengths[index - 1] if index else None
            alone = {rival.name: self._alone(results, kind, mixer, rival, length, before) for rival in rivals}
            for rival in rivals if all_rivals else fastest(rivals, alone):
                if "seconds" not in alone[rival.name]:
                    continue
                key = f"{kind}/{mixer}/{length}" + (f"/{rival.name}" if all_rivals else "")
                results.get(key, lambda rival=rival, length=length: self._versus(mine, rival, length, runs))

    def _versus(self, mine: Subject, rival: Subject, length: int, runs: int) -> Figures:
        limits = self._steps if runs > 1 else self.limits
        return {"peer": rival.name, **compare(mine, rival, length, limits, runs_per_turn=runs)}

    @property
    def _steps(self) -> Limits:
        """Steps are short: more of them, in less time."""
        return replace(self.limits, repeats=10 * self.limits.repeats, seconds=self.limits.seconds / 3)

    def _alone(
        self, results: Results, kind: str, mixer: str, rival: Subject, length: int, before: int | None
    ) -> Figures:
        prefix = f"alone/{kind}/{mixer}"
        runs = 2 * STEPS_PER_TURN if kind == "decode" else 1
        why = None if before is None else self._hopeless(results, prefix, rival, length, before)
        return results.get(
            f"{prefix}/{length}/{rival.name}",
            lambda: once(rival, length, self.limits, runs=runs) if why is None else {"skipped": why},
        )

    def _hopeless(self, results: Results, prefix: str, rival: Subject, length: int, before: int) -> str | None:
        earlier = {
            key.rsplit("/", 1)[1]: figures
            for key, figures in results.figures.items()
            if key.startswith(f"{prefix}/{before}/")
        }
        found = earlier[rival.name]
        if "seconds" not in found:
            return str(found["skipped"])
        expected = found["seconds"] * (length / before) ** rival.exponent
        if expected > self.limits.pass_seconds:
            return f"about {expected:.0f} s expected"
        best = min(figures["seconds"] for figures in earlier.values() if "seconds" in figures)
        slower = found["seconds"] / best
        return f"{slower:.1f} times slower than another at {before:,}" if slower > HOPELESS else None

    def _memory(self, results: Results, mixer: str, mine: Subject, rivals: list[Subject]) -> None:
        for length in sorted({*self.lengths, *self.growth_lengths}):
            results.get(f"memory/{mixer}/{length}/nas", lambda length=length: memory(mine, length, self.limits))
        for length in self.lengths:
            alone = {rival.name: results.figures[f"alone/whole/{mixer}/{length}/{rival.name}"] for rival in rivals}
            for rival in fastest(rivals, alone):
                results.get(
                    f"memory/{mixer}/{length}/peer",
                    lambda rival=rival, length=length: {"peer": rival.name, **memory(rival, length, self.limits)},
                )

    def _growth(self, results: Results, mixer: str, train: Subject, decode: Subject) -> None:
        if mixer in GROWING:
            return
        results.get(f"growth/{mixer}", lambda: growth(train, *self.growth_lengths, self.limits))
        first, last = self.decode_lengths[0], self.decode_lengths[-1]
        results.get(
            f"decode-growth/{mixer}",
            lambda: growth(decode, first, last, self._steps, runs_per_turn=STEPS_PER_TURN),
        )


def fastest(rivals: Sequence[Subject], alone: dict[str, Figures]) -> Iterator[Subject]:
    """The fastest of those that were timed, or nothing."""
    timed = [rival for rival in rivals if "seconds" in alone[rival.name]]
    if timed:
        yield min(timed, key=lambda rival: float(alone[rival.name]["seconds"]))
