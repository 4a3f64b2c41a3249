"""The longest context within a limit, found from the formulas."""

from __future__ import annotations

from typing import Any

import pytest

from nas.catalog import MIXERS
from nas.cost import estimate
from nas.cost.contexts import FARTHEST, Reach, check_context, figures_of, longest_context
from nas.errors import SpaceError
from nas.space.architecture import Architecture


def network(mixer: str = "full", *, family: str = "decoder", positions: str = "rope") -> Architecture:
    layer: dict[str, Any] = {"mixer": mixer, **({"window": 16} if mixer == "sliding_window" else {})}
    values = {"family": family, "width": 64, "max_context": 128, "positions": positions, "layers": [layer, layer]}
    return Architecture.from_mapping(values)


def reach_of(architecture: Architecture, figure: str, limit: float, batch: int = 1) -> Reach:
    return longest_context(
        architecture, figure, limit, lambda tokens: estimate(architecture, context=tokens, batch=batch)
    )


def bytes_at(architecture: Architecture, figure: str, context: int, batch: int = 1) -> int:
    return int(getattr(estimate(architecture, context=context, batch=batch), figure))


@pytest.mark.parametrize("mixer", sorted(MIXERS))
@pytest.mark.parametrize("figure", ["serve_bytes", "prefill_peak_bytes", "train_peak_bytes"])
def test_one_token_more_would_be_over_the_limit(mixer: str, figure: str) -> None:
    architecture = network(mixer)
    limit = bytes_at(architecture, figure, 1000, batch=2) + 3
    reach = reach_of(architecture, figure, limit, batch=2)
    assert reach.tokens >= 1000
    assert bytes_at(architecture, figure, reach.tokens, batch=2) == reach.bytes <= limit
    if not reach.is_endless:
        assert bytes_at(architecture, figure, reach.tokens + 1, batch=2) > limit


def test_a_state_that_does_not_grow_has_no_longest_context() -> None:
    architecture = network("gated_delta")
    reach = reach_of(architecture, "serve_bytes", bytes_at(architecture, "serve_bytes", 1))
    assert reach.is_endless and reach.tokens == FARTHEST


def test_learned_positions_end_at_max_context() -> None:
    reach = reach_of(network(positions="learned"), "serve_bytes", 2**40)
    assert (reach.tokens, reach.is_table_end, reach.is_endless) == (128, True, False)


def test_a_limit_below_the_weights_holds_no_token() -> None:
    architecture = network()
    reach = reach_of(architecture, "serve_bytes", estimate(architecture).param_bytes)
    assert (reach.tokens, reach.bytes) == (0, bytes_at(architecture, "serve_bytes", 1))


def test_what_does_not_decode_is_not_served() -> None:
    assert figures_of(network(family="encoder")) == ("prefill_peak_bytes", "train_peak_bytes")
    assert figures_of(network()) == ("serve_bytes", "prefill_peak_bytes", "train_peak_bytes")


def test_a_context_beyond_learned_positions_is_refused() -> None:
    check_context(network(), 10_000)
    check_context(network(positions="learned"), 128)
    check_context(network(positions="learned"), None)
    with pytest.raises(SpaceError, match="learned positions end at 128 tokens: a context must be at most 128, not 129"):
        check_context(network(positions="learned"), 129)
