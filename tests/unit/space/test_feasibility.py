"""What limits make of a space: shares, and the nearest limit where next to nothing is left."""

from __future__ import annotations

import re
from typing import Any

import pytest

from nas.errors import SpaceError
from nas.space.constraints import Constraint
from nas.space.feasibility import Limit, limits_of, survey
from nas.space.space import Space


def space(*constraints: str, **changed: Any) -> Space:
    words: dict[str, Any] = {
        "name": "test",
        "family": "decoder",
        "width": {"choice": [32, 64]},
        "depth": {"range": [1, 4]},
        "max_context": {"choice": [64, 128]},
        "layers": {"mixer": {"choice": ["full", "linear"], "per": "layer"}, "heads": 2},
        "constraints": list(constraints),
    }
    return Space.from_mapping(words | changed)


def test_each_limit_says_what_it_excludes_and_what_it_alone_excludes() -> None:
    found = space("width <= 32", "depth <= 2", "width <= 48")
    seen = survey(found, limits_of(found), draws=400)
    assert seen.draws == 400
    assert 0.4 < seen.excluded(0) < 0.6 and 0.4 < seen.excluded(1) < 0.6
    assert seen.excluded_alone(0) == 0, "the third limit excludes the same draws"
    deep = sum(network.width == 32 and network.depth > 2 for network in seen.networks)
    assert seen.excluded_alone(1) == deep / 400
    assert seen.share == sum(network.width == 32 and network.depth <= 2 for network in seen.networks) / 400
    assert all(network.width == 32 and network.depth <= 2 for network in seen.feasible)


def test_what_is_feasible_is_not_refused() -> None:
    found = space("width <= 32")
    survey(found, limits_of(found), draws=400).refuse_infeasible()


@pytest.mark.parametrize(
    ("limit", "end", "op"),
    [("serve_bytes <= 1 KiB", "smallest", "<="), ("serve_bytes < 1 KiB", "smallest", "<="),
     ("param_bytes >= 1 GiB", "largest", ">="), ("max_context > 128", "largest", ">=")],
)  # fmt: skip
def test_a_limit_that_excludes_all_names_the_nearest_that_does_not(limit: str, end: str, op: str) -> None:
    found = space(limit, "depth <= 3")
    seen = survey(found, limits_of(found))
    with pytest.raises(SpaceError) as caught:
        seen.refuse_infeasible()
    rule, hint = str(caught.value).splitlines()
    assert "space 'test': 0 of 4,096 draws are feasible" in rule and f"'{limit}' excludes most of them (100.0%)" in rule
    name = seen.limits[0].name
    values = [float(seen.limits[0].measure(one)) for one in seen.networks if one.depth <= 3]
    extreme = min(values) if end == "smallest" else max(values)
    assert f"The {end} {name} that was drawn is {seen.limits[0].shown(extreme)};" in hint
    nearest = re.search(rf"feasible: ({name} {op} \d+( B)?)", hint)
    assert nearest is not None
    mended = space(nearest[1], "depth <= 3")
    survey(mended, limits_of(mended)).refuse_infeasible()


def test_limits_that_exclude_each_other_say_so() -> None:
    found = space("width <= 32", "width > 48")
    with pytest.raises(SpaceError, match=r"feasible: width (<=|>=) (64|32)$"):
        survey(found, limits_of(found)).refuse_infeasible()


def test_next_to_nothing_is_as_little_as_nothing() -> None:
    rare = space("count(mixer=full) == 8", depth=8)
    survey(rare, limits_of(rare)).refuse_infeasible()
    rarer = space("count(mixer=full) == 13", depth=13)
    with pytest.raises(SpaceError, match="excludes most of them") as caught:
        survey(rarer, limits_of(rarer)).refuse_infeasible()
    assert "The nearest value that was drawn: count(mixer=full) == 1" in str(caught.value)


def test_a_limit_of_bytes_is_shown_so_that_it_can_be_typed() -> None:
    limit = Limit.of(Constraint.parse("serve_bytes@context=64 <= 8 MiB"))
    assert (limit.name, limit.limit, limit.is_bytes) == ("serve_bytes@context=64", 8 * 2**20, True)
    assert limit.shown(123456) == "123456 B (121 KiB)"
