"""Properties that hold in every space, over spaces that hypothesis writes."""

from __future__ import annotations

import copy
import pickle
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from nas.errors import SpaceError
from nas.space.architecture import Architecture
from nas.space.invert import assignments
from nas.space.space import Space

QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
MOST = 400


def some(values: list[Any], most: int = 2) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=most, unique=True)


def word(values: list[Any], most: int = 2) -> st.SearchStrategy[Any]:
    return some(values, most).map(lambda chosen: chosen[0] if len(chosen) == 1 else {"choice": chosen})


@st.composite
def scoped(draw: st.DrawFn, values: list[Any], conditions: list[dict[str, Any]]) -> Any:
    """A key of a layer: its values, how often it is drawn, and perhaps what it hangs on."""
    found: dict[str, Any] = {"choice": draw(some(values, 3))}
    found |= draw(st.sampled_from([{}, {"per": "layer"}, {"period": 2}]))
    if conditions and draw(st.booleans()):
        found["when"] = draw(st.sampled_from(conditions))
    return found


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    """The keys of layers."""
    mixers = draw(some(["full", "sliding_window"]))
    layers: dict[str, Any] = {"mixer": {"choice": mixers} | draw(st.sampled_from([{}, {"per": "layer"}]))}
    conditions: list[dict[str, Any]] = [{"mixer": mixer} for mixer in mixers]
    if "sliding_window" in mixers:
        layers["window"] = draw(scoped([1, 3, 8, 100], [{"mixer": "sliding_window"}]))
    if draw(st.booleans()):
        layers["mlp"] = draw(scoped(["swiglu", "none"], conditions))
    if draw(st.booleans()):
        layers["mlp_ratio"] = draw(scoped([0.01, 0.67, 1, 2.5], conditions))
        conditions = [*conditions, {"mlp_ratio": layers["mlp_ratio"]["choice"][0]}]
    elif draw(st.booleans()):
        layers["mlp_hidden"] = draw(scoped([1, 7, 16], conditions))
    if draw(st.booleans()):
        layers["heads"] = draw(scoped([1, 2, 3, 4, 6], conditions))
        conditions = [*conditions, {"heads": layers["heads"]["choice"][0]}]
    if draw(st.booleans()):
        layers["kv_heads"] = draw(scoped([1, 2, 3, 4], conditions))
    if draw(st.booleans()):
        layers["short_conv"] = draw(scoped([0, 3], conditions))
    return layers


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    mapping: dict[str, Any] = {
        "name": "any",
        "family": "decoder",
        "width": draw(word([6, 8, 12, 16, 24])),
        "max_context": draw(word([4, 8, 16])),
        "positions": draw(word(["rope", "none"])),
        "rope_theta": draw(word([1000, 10_000.0])),
        "tied_embeddings": draw(word([True, False])),
    }
    if draw(st.booleans()):
        mapping |= {"depth": draw(st.sampled_from([1, 2, {"range": [1, 2]}])), "layers": draw(entries())}
    else:
        repeat = st.sampled_from([{}, {"repeat": 2}, {"repeat": {"range": [1, 2]}}])
        mapping["layers"] = [draw(entries()) | draw(repeat) for _ in range(draw(st.integers(1, 2)))]
    try:
        return Space.from_mapping(mapping)
    except SpaceError as error:
        # Random words often break a rule; that is for the tests of errors.
        event(f"refused: {str(error).split(':')[-1][:40]}")
        assume(False)
        raise


@given(spaces(), st.integers(0, 2**32))
@QUICK
def test_every_assignment_decodes_to_a_valid_architecture_or_names_the_rule(space: Space, seed: int) -> None:
    drawn = space.decode(space.draw(random.Random(seed)))
    if drawn.architecture is None:
        assert drawn.excluded
    else:
        assert drawn.excluded == ""
        assert Architecture.from_mapping(drawn.architecture.to_mapping()) == drawn.architecture


@given(spaces(), st.integers(0, 2**32))
@QUICK
def test_json_gives_the_same_architecture_and_fingerprint_back(space: Space, seed: int) -> None:
    architecture = space.decode(space.draw(random.Random(seed))).architecture
    assume(architecture is not None)
    assert architecture is not None
    again = Architecture.from_json(architecture.to_json())
    assert again == architecture
    assert again.fingerprint == architecture.fingerprint


@given(spaces(), st.integers(0, 2**32))
@QUICK
def test_a_space_contains_what_is_drawn_from_it(space: Space, seed: int) -> None:
    architecture = space.decode(space.draw(random.Random(seed))).architecture
    assume(architecture is not None)
    assert architecture is not None
    assert space.contains(architecture)


@given(spaces(), st.integers(0, 2**32))
@QUICK
def test_an_inverted_architecture_decodes_to_itself_from_values_of_the_domains(space: Space, seed: int) -> None:
    architecture = space.decode(space.draw(random.Random(seed))).architecture
    assume(architecture is not None)
    assert architecture is not None
    values = next(assignments(space, architecture))
    assert set(values) == {parameter.name for parameter in space.parameters}
    assert all(parameter.domain.contains(values[parameter.name]) for parameter in space.parameters)
    assert space.decode(values).architecture == architecture


@given(spaces())
@QUICK
def test_the_size_of_a_finite_space_is_the_number_of_its_assignments(space: Space) -> None:
    assume(space.size <= 3000)
    listed = list(space.enumerate())
    assert len(listed) == space.size
    assert len({tuple(sorted(values.items(), key=lambda item: item[0])) for values in listed}) == len(listed)


@given(spaces(), st.integers(0, 2**32), st.data())
@QUICK
def test_a_space_contains_a_network_if_and_only_if_some_assignment_gives_it(
    space: Space, seed: int, data: st.DataObject
) -> None:
    assume(space.size <= MOST)
    inside = {space.decode(values).architecture for values in space.enumerate()} - {None}
    architecture = space.decode(space.draw(random.Random(seed))).architecture
    assume(architecture is not None)
    assert architecture is not None
    changed = copy.deepcopy(architecture.to_mapping())
    layer = data.draw(st.sampled_from(changed["layers"]))
    change: tuple[dict[str, Any], str, Any] = data.draw(
        st.sampled_from(
            [
                (changed, "width", 12),
                (changed, "max_context", 8),
                (changed, "tied_embeddings", False),
                (layer, "kv_heads", 1),
                (layer, "mlp_hidden", 16),
                (layer, "short_conv", 3),
                (layer, "mlp", "none"),
            ]
        )
    )
    change[0][change[1]] = change[2]
    try:
        neighbour = Architecture.from_mapping(changed)
    except SpaceError:
        assume(False)
        raise
    event(f"inside: {neighbour in inside}")
    assert space.contains(neighbour) == (neighbour in inside)


@given(spaces(), st.integers(0, 2**32))
@QUICK
def test_the_parameters_of_a_draw_are_always_the_same(space: Space, seed: int) -> None:
    names = [parameter.name for parameter in space.parameters]
    assert list(space.draw(random.Random(seed))) == names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["hybrid_decoder", "encoder_decoder", "prefix_lm"])
def test_what_a_space_remembers_of_earlier_draws_changes_no_network(name: str) -> None:
    used, rng = Space.load(name), random.Random(0)
    for values in [used.draw(rng) for _ in range(100)]:
        drawn, afresh = used.decode(values), replace(used).decode(values)
        assert drawn == afresh
        if drawn.architecture is not None:
            assert Architecture.from_mapping(drawn.architecture.to_mapping()) == drawn.architecture
            assert pickle.loads(pickle.dumps(drawn.architecture)).layers[0].mlp == drawn.architecture.layers[0].mlp


def test_a_space_that_has_drawn_travels_between_processes() -> None:
    space = Space.load("hybrid_decoder")
    before = space.sample(0)
    assert pickle.loads(pickle.dumps(space)).sample(0) == before
