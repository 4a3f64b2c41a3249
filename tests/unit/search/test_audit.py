"""The audit: who is exempt, and where the rule stops nobody."""

from __future__ import annotations

from dataclasses import replace

from nas.search.audit import false_stops, groups, is_exempt, thirds, unreliable
from nas.search.rungs import Curve


def curve(number: int, *, loss: float, audited: bool = True, context: float = 64, rate: float = 1e-3) -> Curve:
    return Curve(
        number=number,
        key=str(number),
        known=(float(number),),
        scores=((9.0,), (loss,)),
        state="complete",
        audited=audited,
        mixers=("full", "gru") if number % 2 else ("full",),
        context=context,
        learning_rate=rate,
    )


def test_about_the_asked_share_is_exempt_and_the_same_ones_in_every_run() -> None:
    drawn = [is_exempt(0, str(key), 0.05) for key in range(4000)]
    assert 150 < sum(drawn) < 250
    assert drawn == [is_exempt(0, str(key), 0.05) for key in range(4000)]
    assert drawn != [is_exempt(1, str(key), 0.05) for key in range(4000)]
    assert not any(is_exempt(0, str(key), 0.0) for key in range(100))
    assert all(is_exempt(0, str(key), 1.0) for key in range(100))


def test_the_rate_is_the_share_of_would_be_stops_on_the_front() -> None:
    # Trial 0 dominates 2 and 3; 1 needs more and scores better.
    curves = [curve(0, loss=5.0, audited=False), curve(1, loss=4.0), curve(2, loss=6.0), curve(3, loss=7.0)]
    rates = {one.group: (one.wrong, one.audited) for one in false_stops(curves)}
    assert rates["overall"] == (1, 3)
    assert rates["mixer gru"] == (1, 2) and rates["mixer full"] == (1, 3)
    assert false_stops(curves)[0].rate == 1 / 3 and false_stops(curves)[0].is_too_high


def test_without_an_audit_there_is_no_rate_and_the_rule_holds() -> None:
    curves = [curve(0, loss=5.0, audited=False)]
    (overall,) = false_stops(curves)
    assert overall.rate is None and not overall.is_too_high
    assert unreliable(curves[0], false_stops(curves), thirds(curves)) is None


def test_the_rule_stops_nobody_of_a_group_in_which_it_is_wrong_too_often() -> None:
    # 1 of 41 stops is wrong: 2 % overall, but 1 of 2 where the context is long.
    curves = [curve(number, loss=5.0 + number, context=16 + number / 100) for number in range(40)]
    curves = [replace(found, audited=found.number > 0) for found in curves]
    curves += [curve(40, loss=1.0, context=4096), curve(42, loss=99.0, context=4096)]
    short, long = curves[1], replace(curves[-1], number=50, key="50", state="running", audited=False)
    ends = thirds(curves)
    assert "context low" in groups(short, ends) and "context high" in groups(long, ends)
    assert unreliable(short, false_stops(curves), thirds(curves)) is None
    found = unreliable(long, false_stops(curves), thirds(curves))
    assert found is not None and found.group == "context high" and found.wrong == 1


def test_a_space_without_learning_rates_has_no_groups_of_them() -> None:
    plain = replace(curve(0, loss=1.0), learning_rate=None)
    assert groups(plain, thirds([plain])) == ["mixer full", "context low"]
