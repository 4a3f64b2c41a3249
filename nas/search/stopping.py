"""The stopping rule with its memory: curves as they grow, and what is decided at each rung.

In: curves. Out: a `Decision` for a curve at a rung. Joins the rule of `rungs` with the audit of
`audit`, and keeps what was concluded from the curves until one of them changes. Free of a store, so
that a study and a replay of recorded curves decide by the same lines.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from nas.records import Decision
from nas.search.audit import FalseStops, Thirds, false_stops, is_exempt, thirds, unreliable
from nas.search.rungs import Curve, Margin, Verdict, judge, margin_at


class StoppingRule:
    """Decides who goes on at a rung.

    Args:
        curves: of the study so far.
        seed: of the study.
        audit: share of all candidates that are exempt.
        caution: what the margin is multiplied by.
    """

    def __init__(self, curves: Iterable[Curve] = (), *, seed: int, audit: float, caution: float = 1.0) -> None:
        self._seed, self._audit, self._caution = seed, audit, caution
        self._curves = {curve.number: curve for curve in curves}
        self._margins: dict[int, Margin] = {}
        self._audits: tuple[list[FalseStops], Thirds] | None = None

    @property
    def curves(self) -> list[Curve]:
        """All of them, in the order in which they came."""
        return list(self._curves.values())

    def get(self, number: int) -> Curve | None:
        """The curve of a trial, if it has one."""
        return self._curves.get(number)

    def put(self, curve: Curve) -> None:
        """A curve is new or has changed."""
        self._curves[curve.number] = curve
        self._forget()

    def drop(self, number: int) -> None:
        """A trial is no candidate any more."""
        self._curves.pop(number, None)
        self._forget()

    def decide(self, curve: Curve, rungs: int) -> Decision:
        """What becomes of a candidate at a rung before the last: "continue", "audit" or "pause", and why.

        Args:
            curve: one of `curves`, with a score or more.
            rungs: of a whole training.
        """
        verdict = self._judged(curve, rungs)
        if verdict.can_reach:
            return Decision("continue", verdict.reason)
        if is_exempt(self._seed, curve.key, self._audit):
            self._curves[curve.number] = replace(curve, audited=True)
            self._audits = None
            return Decision("audit", f"{verdict.reason}; goes on, as one of the {self._audit:.0%} that audit the rule")
        wrong = self._unreliable(curve)
        if wrong is None:
            return Decision("pause", verdict.reason)
        return Decision(
            "continue",
            f"{verdict.reason}; goes on, for {wrong.wrong} of {wrong.audited} audited stops were wrong ({wrong.group})",
        )

    def _judged(self, curve: Curve, rungs: int) -> Verdict:
        curves, rung = self.curves, len(curve.scores) - 1
        if rung not in self._margins:
            self._margins[rung] = margin_at(curves, rung, rungs=rungs, caution=self._caution)
        return judge(curve, curves, rungs=rungs, margin=self._margins[rung])

    def _unreliable(self, curve: Curve) -> FalseStops | None:
        if self._audits is None:
            self._audits = (false_stops(self.curves), thirds(self.curves))
        return unreliable(curve, *self._audits)

    def _forget(self) -> None:
        """What was concluded from the curves no longer holds."""
        self._margins = {}
        self._audits = None
