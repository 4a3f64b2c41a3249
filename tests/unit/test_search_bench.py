"""The benchmark of searches: what a replay costs, what it tells a search, and how runs are judged."""

from __future__ import annotations

import json
import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import _search_live
import pytest
from _search_checks import (
    Target,
    behind,
    best_peer,
    live_pairs,
    share_at,
    spent_to,
    spread,
    stepped,
    stops,
    targets,
)
from _search_false_stops import exact_false_stops
from _search_live import SEARCHES, STUDY, live_words, ranked, ratio_of
from _search_live_page import live_lines
from _search_methods import Asked, Encoding
from _search_plan import Chosen, refuse_other_runs, tasks_of
from _search_record import Record, Task
from _search_replay import Replay, common_seeds, digest
from _search_run import FIRST, TRAININGS, entry_of, run_missing, words_of
from _search_simulate import Method, Outcome, simulate
from _search_synthetic import synthetic_table
from _search_ways import REPORTED, TUNING, VARIANTS, WAYS, make_method
from _table_read import Table, TableCandidate

from nas.config import load_study_config
from nas.pareto import Axis
from nas.space import Space

RUNG_TOKENS = (10, 20, 40)
SPACE = {
    "name": "hand_made",
    "family": "decoder",
    "vocabulary": 16,
    "width": {"choice": [8, 16, 24, 32]},
    "depth": 1,
    "max_context": 16,
    "layers": {"mixer": "full", "heads": 1},
    "training": {"learning_rate": {"choice": [0.001, 0.002]}},
}
Curves = Mapping[int, tuple[float, ...]]


def hand_made(curves: Mapping[tuple[int, float], Curves], *, failure: Mapping[tuple[int, float], int] = {}) -> Table:
    """A table of widths and rates whose memory is the width; a rung takes as many seconds as the width.

    Args:
        curves: (width, learning rate) → training seed → losses, 0 ideal and 1 the reference.
        failure: (width, learning rate) → the training seed that came to nothing.
    """
    space = Space.from_mapping(SPACE)
    rows = []
    for (width, rate), by_seed in curves.items():
        params: dict[str, Any] = {"width": width, "training.learning_rate": rate}
        drawn = space.decode(params)
        rows.append(
            TableCandidate(
                key=f"{width}-{rate}",
                params=params,
                memory=float(width),
                architecture=space.bind(drawn, None),
                curves=by_seed,
                seconds={seed: tuple(float(width * (place + 1)) for place in range(3)) for seed in by_seed},
                failure={failure[width, rate]: "diverged"} if (width, rate) in failure else {},
            )
        )
    return Table(
        name="hand_made",
        space=space,
        axes=(
            Axis(direction="minimize", ideal=0.0, reference=1.0),
            Axis(direction="minimize", ideal=0.0, reference=40.0),
        ),
        rung_tokens=RUNG_TOKENS,
        candidates=tuple(rows),
        seeds=(0, 1),
        header={},
    )


def flat(*finals: float) -> Curves:
    """Curves that fall to a final loss, one for each training seed."""
    return {seed: (0.9, (0.9 + final) / 2, final) for seed, final in enumerate(finals)}


FOUR = {
    (8, 0.001): flat(0.6, 0.6),
    (16, 0.001): flat(0.5, 0.5),
    (24, 0.001): flat(0.4, 0.4),
    (32, 0.001): flat(0.3, 0.3),
}


class Scripted(Method):
    """Takes rows in turn, and stops some after their first rung."""

    def __init__(self, rows: list[int], *, stops: set[int] = frozenset(), rungs: int = 3) -> None:  # type: ignore[assignment]
        self._rows, self._stops, self._rungs, self._going = deque(rows), stops, rungs, deque[int]()
        self.paused: set[int] = set()
        self.heard: list[tuple[int, int, float]] = []

    def next(self) -> int | None:
        if self._going:
            return self._going.popleft()
        return self._rows.popleft() if self._rows else None

    def reached(self, row: int, rung: int, score: float) -> None:
        self.heard.append((row, rung, score))
        if row in self._stops:
            self.paused.add(row)
        elif rung < self._rungs - 1:
            self._going.append(row)

    def failed(self, row: int) -> None:
        self.heard.append((row, -1, math.nan))


@lru_cache(maxsize=2)
def small(depth: int = 2) -> Table:
    return synthetic_table(3, depth=depth)


def searched(name: str, seed: int, *, trainings: int = 30, depth: int = 2) -> tuple[Replay, Method, Outcome]:
    replay = Replay.of(small(depth), seed)
    method = make_method(name, replay, seed, syne=None)
    return replay, method, simulate(replay, method, tokens=trainings * replay.whole)


def test_tokens_spent_are_those_of_every_rung_also_of_who_was_stopped() -> None:
    replay = Replay.of(hand_made(FOUR), 0)
    outcome = simulate(replay, Scripted([0, 1, 2, 3], stops={1, 3}), tokens=10_000)
    assert outcome.reached == {0: 3, 1: 1, 2: 3, 3: 1}
    assert outcome.events[-1].tokens == 40 + 10 + 40 + 10
    assert [row for row, _ in outcome.finished] == [0, 2]


@pytest.mark.parametrize("name", ["random", "nsga2+stops", "tpe", "random+stops"])
def test_a_search_pays_for_its_rungs_and_trains_nothing_twice(name: str) -> None:
    replay, method, outcome = searched(name, 1)
    jobs = Counter((event.row, event.rung) for event in outcome.events)
    assert max(jobs.values()) == 1
    assert all((row, rung - 1) in jobs for row, rung in jobs if rung)
    assert outcome.events[-1].tokens == sum(replay.tokens(rung) for _, rung in jobs)
    assert all(0 < outcome.reached[row] < replay.rungs for row in method.paused)
    # Nothing is begun once the budget is given out, and four workers may hold a rung each by then.
    assert 30 * replay.whole <= outcome.events[-1].tokens <= 30 * replay.whole + 4 * replay.tokens(replay.rungs - 1)


def test_workers_train_at_once_and_a_slow_training_holds_nobody_up() -> None:
    replay = Replay.of(hand_made(FOUR), 0)
    outcome = simulate(replay, Scripted([3, 0, 1]), tokens=10_000, workers=2)
    # The one of 32 s a rung takes 96 s; beside it, those of 8 s and 16 s take 24 s and 48 s.
    ends = {row: max(event.seconds for event in outcome.events if event.row == row) for row in (0, 1, 3)}
    assert ends == {3: 96.0, 0: 24.0, 1: 72.0}
    assert [event.seconds for event in outcome.events] == sorted(event.seconds for event in outcome.events)


def test_a_training_that_comes_to_nothing_costs_its_tokens_and_ends() -> None:
    curves = {**FOUR, (16, 0.001): {0: (0.9,), 1: (0.9, 0.7, 0.5)}}
    replay = Replay.of(hand_made(curves, failure={(16, 0.001): 0}), 0)
    method = Scripted([0, 1, 2])
    outcome = simulate(replay, method, tokens=10_000)
    assert outcome.failed == {1} and (1, -1) in [(row, rung) for row, rung, _ in method.heard]
    assert outcome.events[-1].tokens == 40 + 20 + 40
    assert replay.scored[1] == 0.5 and Replay.of(replay.table, 1).scored[1] is None


@pytest.mark.parametrize("name", ["random+stops", "nsga2", "ours"])
def test_a_run_is_a_function_of_its_seed(name: str) -> None:
    runs = [searched(name, seed, trainings=10, depth=1)[2].events for seed in (4, 4, 6)]
    assert runs[0] == runs[1] != runs[2]


def test_what_was_trained_is_scored_on_the_other_seeds_and_the_front_is_picked_by_the_one_seen() -> None:
    table = hand_made({(8, 0.001): flat(0.2, 0.8), (8, 0.002): flat(0.5, 0.5), (16, 0.001): flat(0.1, 0.4)})
    replay = Replay.of(table, 0)
    assert sorted(replay.found([0, 1, 2])) == [0, 2] and sorted(replay.true_front) == [1, 2]
    # By hand: widths 8 and 16 of 40 scaled to .2 and .4; the lucky one scores .8 and is chosen all the same.
    best = (0.4 - 0.2) * (1 - 0.5) + (1 - 0.4) * (1 - 0.4)
    assert replay.best == pytest.approx(best)
    assert replay.share([0, 1, 2]) == pytest.approx(1.0)
    assert replay.share([0, 2]) == pytest.approx(((0.4 - 0.2) * (1 - 0.8) + (1 - 0.4) * (1 - 0.4)) / best)
    assert replay.picked([0, 1, 2]) == replay.share([0, 2])
    assert replay.ceiling == replay.picked([2, 1, 0]) < 1.0
    assert sorted(Replay.of(table, 1).found([0, 1, 2])) == [1, 2]


def test_more_seeds_of_the_front_alone_score_it_and_are_not_seen() -> None:
    curves = {**FOUR, (32, 0.001): {**flat(0.3, 0.2), 2: (0.9, 0.6, 0.4)}}
    table = replace(hand_made(curves), seeds=(0, 1, 2))
    assert common_seeds(table) == (0, 1)
    assert Replay.of(table, 0).scored[3] == pytest.approx(0.3)


def test_false_stops_are_counted_exactly() -> None:
    curves = {
        (8, 0.001): flat(0.6, 0.6),
        (8, 0.002): flat(0.7, 0.7),
        (16, 0.001): flat(0.5, 0.5),
        (24, 0.001): flat(0.55, 0.55),
        (32, 0.001): flat(0.3, 0.3),
    }
    replay = Replay.of(hand_made(curves), 0)
    # Row 1 would be dominated by row 0, row 3 by row 2; row 4 would be on the front.
    found = exact_false_stops(replay, [0, 2], {1, 3, 4})
    assert (found.audited, found.wrong) == (3, 1)
    assert exact_false_stops(replay, [0, 2], set()).rate is None


def test_the_audit_and_the_exact_rate_stand_in_the_entry_of_a_run() -> None:
    replay, method, outcome = searched("random+stops", 2, trainings=60)
    entry = entry_of(replay, method, outcome)
    assert isinstance(method, Asked)
    assert entry["stops"] == [
        len(method.paused),
        exact_false_stops(replay, [r for r, _ in outcome.finished], method.paused).wrong,
    ]
    assert len(method.paused) > 0 and entry["audit"] is not None
    assert entry["begun"] == len(outcome.reached) and entry["curve"][-1][1] <= 1.05  # type: ignore[index]


@pytest.mark.parametrize("name", ["choices", "ordered"])
def test_every_encoding_reaches_every_candidate(name: Any) -> None:
    table = small()
    replay, encoding = Replay.of(table, 0), Encoding.of(table.space, name)
    for row, candidate in enumerate(replay.rows):
        params = {
            key: encoding.values[key].index(value) if key in encoding.values else value
            for key, value in candidate.params.items()
        }
        assert all(
            encoding.distributions[key]._contains(encoding.distributions[key].to_internal_repr(value))
            for key, value in params.items()
        )
        assert replay.place(encoding.decode(params)) == row


@pytest.mark.parametrize("name", ["ours", "ours-known", "ours-stops", "ours-features"])
def test_ours_suggests_what_the_table_has_and_nothing_twice(name: str) -> None:
    _, method, outcome = searched(name, 0, trainings=10, depth=1)
    assert isinstance(method, Asked)
    assert len(outcome.reached) >= 10
    if name != "ours-features":
        # Without a space, the first ones are Optuna's own random draws.
        assert method.asked == len(outcome.reached)


def test_what_a_table_lacks_is_never_suggested_by_ours_and_costs_the_others_nothing() -> None:
    whole = small(1)
    table = replace(whole, candidates=whole.candidates[::2])
    for name in ("ours", "nsga2"):
        replay = Replay.of(table, 0)
        method = make_method(name, replay, 0, syne=None)
        outcome = simulate(replay, method, tokens=10 * replay.whole)
        assert set(outcome.reached) <= set(range(len(replay.rows)))
        assert isinstance(method, Asked)
        assert (method.asked == len(outcome.reached)) == (name == "ours")


def test_a_space_that_is_exhausted_ends_the_search() -> None:
    replay = Replay.of(hand_made(FOUR), 0)
    method = make_method("random", replay, 0, syne=None)
    outcome = simulate(replay, method, tokens=10_000_000)
    assert sorted(outcome.reached) == [0, 1, 2, 3] and outcome.hypervolumes(replay)[-1][1] == pytest.approx(1.0)


def test_figures_of_curves() -> None:
    curve = [(2.0, 0.5), (4.0, 0.7), (9.0, 0.96)]
    assert [share_at(curve, at) for at in (1, 2, 5, 100)] == [0.0, 0.5, 0.7, 0.96]
    assert spent_to(curve) == 9.0 and math.isinf(spent_to(curve[:2]))
    assert spread([1.0, math.inf, 2.0, 3.0, math.inf]) == (2.0, 3.0, math.inf)
    assert behind([[0.5, 0.6, 0.7]], [[0.4, 0.8, 0.7]]) == [(1, pytest.approx(0.2))]


def run_entry(curve: list[tuple[float, float]], *, wrong: int = 0) -> dict[str, Any]:
    return {
        "words": "w",
        "curve": curve,
        "picked": 0.9,
        "begun": 10,
        "finished": 8,
        "stops": [20, wrong],
        "audit": [2, 0],
        "ceiling": 0.99,
        "processor_seconds": 1.0,
    }


def record_of(path: Path, entries: Mapping[tuple[str, str, str, int], Mapping[str, Any]]) -> Record:
    record = Record(path)
    for (kind, on, method, seed), entry in entries.items():
        record.add(Task(kind, seed, on, method), entry)
    return record


def test_targets_are_computed_and_missed_ones_say_by_how_much(tmp_path: Path) -> None:
    slow = [(8.0, 0.8), (90.0, 0.96)]
    record = record_of(
        tmp_path / "r.json",
        {
            ("table", "synthetic", "random", 10): run_entry(slow),
            ("table", "synthetic", "tpe", 10): run_entry([(8.0, 0.8), (80.0, 0.96)]),
            ("table", "synthetic", "ours", 10): run_entry([(9.0, 0.7), (20.0, 0.97)], wrong=2),
            ("wide", "27", "random", 10): {"words": "w", "curve": [0.7] * 91, "processor_seconds": 1.0},
            ("wide", "27", "frontier", 10): {
                "words": "w",
                "curve": [0.75] * 15 + [0.93] * 76,
                "processor_seconds": 1.0,
            },
            ("speed", "100", "frontier", 0): {"words": "w", "seconds": 9.0, "processor_seconds": 1.0},
        },
    )
    found = {target.text: target for target in targets(record)}
    by_word = {
        word: next(one for text, one in found.items() if word in text) for word in ("best peer", "stops", "after 100")
    }
    assert by_word["best peer"].is_met and "4 times" in by_word["best peer"].reached
    assert not by_word["stops"].is_met and by_word["stops"].reached == "2 of 20"
    assert (
        not by_word["after 100"].is_met
        and found["27 parameters: 90% of the best known hypervolume after 25 evaluations"].is_met
    )
    never = [one for text, one in found.items() if "never behind" in text]
    assert [one.is_met for one in never] == [False, True]
    assert never[0].reached == "behind at 10 to 19; by 0.100 at most, at 10"
    assert Target("a suggestion behind 100 trials takes at most 1 s", "9.00 s", False) in found.values()
    peer = best_peer(record.of("table", "synthetic"))
    assert peer == ("tpe", 80.0)
    assert best_peer(record.of("table", "synthetic"), at=85) == ("tpe", 0.96)
    assert stops(record.of("table", "synthetic")["ours"], "stops") == (20, 2)
    assert len(stepped(record.of("table", "synthetic")["ours"])[0]) == TRAININGS - FIRST + 1


def test_the_page_says_what_was_met_and_what_was_missed(tmp_path: Path) -> None:
    from _search_page import write_page

    names = ["random", "ours", "ours-stops", "nsga2+stops"]
    record = record_of(
        tmp_path / "r.json",
        {
            ("table", "synthetic", name, 10): run_entry([(8.0, 0.8), (60.0 - 15 * place, 0.96)])
            for place, name in enumerate(names)
        },
    )
    write_page(record, tmp_path / "search.md")
    page = (tmp_path / "search.md").read_text(encoding="utf-8")
    assert "**missed**" in page and "| met |" in page and "stands in for a real table" in page
    assert f"| {WAYS['ours-stops'].label} |" in page and "| 20 | none" not in page
    assert (tmp_path / "images" / "search_synthetic.png").stat().st_size > 5_000


def test_an_entry_counts_for_the_same_words_alone_and_outlives_a_kill(tmp_path: Path) -> None:
    task = Task("table", 3, "synthetic", "random")
    record = record_of(tmp_path / "r.json", {("table", "synthetic", "random", 3): run_entry([])})
    again = Record(record.path)
    assert again.find(task, "w") is not None and again.find(task, "other") is None
    assert [found for found, _ in again] == [task]


def test_what_is_on_record_is_not_run_again(tmp_path: Path) -> None:
    task = Task("wide", 10, "27", "random")
    record = record_of(tmp_path / "r.json", {("wide", "27", "random", 10): {"words": words_of(task)}})
    said: list[str] = []
    run_missing([task], record, processes=1, syne=None, say=said.append)
    assert said == ["1 of 1 runs are on record"]


def test_a_table_that_has_changed_is_searched_again() -> None:
    table = hand_made(FOUR)
    other = hand_made({**FOUR, (8, 0.001): flat(0.6, 0.61)})
    assert digest(table) == digest(hand_made(FOUR)) != digest(other)


@pytest.mark.parametrize(
    ("tables", "seeds", "split"),
    [(["sotu"], [0], TUNING), (["recall"], [10], TUNING), (["sotu"], [9], REPORTED), (["other"], [10], REPORTED)],
)
def test_tuning_never_sees_what_is_reported(tables: list[str], seeds: list[int], split: Any) -> None:
    assert not set(TUNING.seeds) & set(REPORTED.seeds) and "sotu" not in TUNING.tables
    chosen = Chosen(tables=tables, methods=["random"], seeds=seeds, kinds=["table"])
    with pytest.raises(ValueError, match="settings are chosen with --tune"):
        refuse_other_runs(chosen, split)


def test_what_cannot_run_is_left_out_with_the_command_that_brings_it() -> None:
    chosen = Chosen(tables=["synthetic"], methods=["random", "moasha"], seeds=[10], kinds=["table"])
    tasks, left_out = tasks_of(chosen, REPORTED, syne=None)
    assert tasks == [Task("table", 10, "synthetic", "random")]
    assert len(left_out) == 1 and "pip install syne-tune" in left_out[0]


def test_variants_are_for_tuning_and_ours_is_one_method() -> None:
    assert all(way.role == "variant" for way in VARIANTS.values())
    assert [name for name, way in WAYS.items() if way.role == "ours"] == ["ours"]


def live_entry(volume: float, **states: int) -> dict[str, Any]:
    return {"words": "w", "curve": [], "hypervolume": volume, "trainings": 24.0, "states": states}


def test_a_ratio_of_pairs_has_the_interval_of_students_t_on_its_logarithms() -> None:
    found = ratio_of([1.0, 2.0, 4.0], [1.0, 1.0, 1.0])
    assert found.middle == pytest.approx(2.0) and found.pairs == 3
    # log 2 · (1 ± 4.303 / √3), from a printed table of Student's t with two degrees of freedom.
    assert found.low == pytest.approx(2.0 ** (1.0 - 4.303 / math.sqrt(3.0)), rel=1e-3)
    assert found.high == pytest.approx(2.0 ** (1.0 + 4.303 / math.sqrt(3.0)), rel=1e-3)


def test_live_pairs_and_ranks_stand_on_the_page_with_their_targets(tmp_path: Path) -> None:
    ranks = {"words": "w", "tau": 0.5, "candidates": 12, "members": 4, "kept": 3}
    entries = {("live", "recall", "frontier", seed): live_entry(0.8 + seed / 100, complete=9) for seed in (10, 11)}
    entries |= {("live", "recall", "nsga2", seed): live_entry(0.4, complete=24) for seed in (10, 11, 12)}
    record = record_of(
        tmp_path / "r.json",
        {key: {**entry, "processor_seconds": 1.0} for key, entry in entries.items()}
        | {("ranks", "recall", "frontier", 10): {**ranks, "processor_seconds": 1.0}},
    )
    assert list(live_pairs(record)) == [10, 11]
    found = {target.text: target for target in targets(record)}
    assert found["live: the interval of the hypervolume ratio to NSGA-II, 2 pairs, lies above 1"].is_met
    tau = found["live: Kendall's tau between both budgets is at least 0.6"]
    assert not tau.is_met and tau.reached == "0.50 over 12 candidates"
    page = "\n".join(live_lines(record))
    assert "| 10 | 0.900 | 0.400 | 2.250 | 9 | 9 | 24 |" in page and "3 of 4 members" in page
    assert not list(live_lines(record_of(tmp_path / "none.json", {})))


def test_both_searches_of_a_pair_have_one_space_and_one_sum_of_tokens(tmp_path: Path) -> None:
    studies = []
    for method in SEARCHES:
        path = tmp_path / f"{method}.yaml"
        path.write_text(json.dumps(live_words(method, 3)), encoding="utf-8")
        studies.append(load_study_config(path))
    ours, other = studies
    assert ours.space == other.space and ours.stop == other.stop and ours.seed == other.seed == 3
    assert ours.early_stopping is not None and other.early_stopping is None


@pytest.mark.slow
def test_a_live_search_and_its_ranks_from_words_to_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = {"tokens": 4096, "rungs": 3, "tokens_per_step": 512}
    short = {**STUDY, "budget": budget, "task": {**STUDY["task"], "evaluation_examples": 32}}
    monkeypatch.setattr(_search_live, "STUDY", short)
    monkeypatch.setattr(_search_live, "TOKENS", 10)
    monkeypatch.setattr(_search_live, "BUDGET", "2x")
    monkeypatch.setattr(_search_live, "SEEDS", 1)
    monkeypatch.setattr(_search_live, "DOMINATED", 2)
    found = _search_live.searched("nsga2", 0)
    assert found["trainings"] >= 10 and found["states"]["complete"] >= 10
    assert found["curve"][-1][1] == found["hypervolume"]
    ranks = ranked(0)
    assert 0 < ranks["kept"] <= ranks["members"] <= ranks["candidates"]
