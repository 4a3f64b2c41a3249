"""Constraints: what their texts mean, and which texts are refused."""

from __future__ import annotations

from typing import Any

import pytest

from nas.cost.estimate import estimate
from nas.errors import SpaceError
from nas.space.architecture import Architecture
from nas.space.constraints import Constraint, Count, Figure


def architecture(**changes: Any) -> Architecture:
    layers = [
        {"mixer": "full", "heads": 4, "kv_heads": 2, "mlp_ratio": 2},
        {"mixer": "sliding_window", "heads": 4, "kv_heads": 2, "window": 16, "mlp": "none"},
        {"mixer": "full", "heads": 4, "kv_heads": 2, "mlp_ratio": 4},
    ]
    return Architecture.from_mapping(
        {"family": "decoder", "width": 64, "max_context": 128, "layers": layers, **changes}
    )


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("serve_bytes <= 8 MiB", 8 * 2**20),
        ("serve_bytes <= 8 MB", 8_000_000),
        ("serve_bytes<=1.5KiB", 1536),
        ("param_bytes < 2e6", 2e6),
        ("parameters <= 1_000_000", 1_000_000),
        ("count(mixer=full) <= 1", 1),
    ],
)
def test_the_limit_is_in_plain_bytes_or_numbers(text: str, limit: float) -> None:
    assert Constraint.parse(text).limit == limit


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("depth <= 3", True),
        ("depth < 3", False),
        ("depth == 3", True),
        ("depth > 3", False),
        ("depth >= 3", True),
        ("width >= 65", False),
        ("max_context == 128", True),
        ("count(mixer=full) <= 1", False),
        ("count(mixer=full) == 2", True),
        ("count( mixer = sliding_window ) == 1", True),
        ("count(mlp_ratio=4) == 1", True),
        ("count(mlp_ratio=4.0) == 1", True),
        ("count(mlp=none) == 1", True),
        ("count(window=16) == 1", True),
        ("count(window=8) == 0", True),
        ("count(heads=4) == 3", True),
    ],
)
def test_a_rule_says_what_its_text_says(text: str, kept: bool) -> None:
    assert (Constraint.parse(text).violation(architecture()) <= 0) == kept


def test_a_figure_is_asked_at_its_settings() -> None:
    network = architecture()
    figure = Figure.parse("serve_bytes@context=64,batch=8,dtype=fp32")
    assert figure(network) == estimate(network, context=64, batch=8, dtype="fp32").serve_bytes
    assert figure(network) != Figure.parse("serve_bytes")(network)
    assert str(figure) == "serve_bytes@batch=8,context=64,dtype=fp32"
    assert Figure.parse(str(figure)) == figure


def test_the_violation_grows_with_the_excess_and_is_a_share_of_the_limit() -> None:
    network = architecture()
    size = estimate(network).serve_bytes
    assert Constraint.parse(f"serve_bytes <= {size // 2}").violation(network) == pytest.approx(1.0, rel=1e-3)
    assert Constraint.parse(f"serve_bytes <= {size * 2}").violation(network) == pytest.approx(-0.5)
    assert Constraint.parse(f"serve_bytes < {size}").violation(network) > 0
    assert Constraint.parse(f"serve_bytes <= {size}").violation(network) <= 0


def test_the_explanation_holds_the_rule_and_the_value() -> None:
    assert Constraint.parse("depth <= 2").explain(architecture()) == "depth <= 2 (it is 3)"


def test_a_function_of_the_users_own_takes_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "own_figures.py").write_text(
        "def square(architecture):\n    return architecture.width ** 2\n\nTEN = 10\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rule = Constraint.parse("own_figures:square <= 4 KiB")
    assert rule.limit == 4096
    assert rule.measure(architecture()) == 4096
    with pytest.raises(SpaceError, match="has no 'sqare', did you mean 'square'"):
        Constraint.parse("own_figures:sqare <= 1")
    with pytest.raises(SpaceError, match="must name a function"):
        Constraint.parse("own_figures:TEN <= 1")
    with pytest.raises(SpaceError, match="takes no settings after '@'"):
        Constraint.parse("own_figures:square@context=3 <= 1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("serve_bytes", "is no constraint: write 'name op number'"),
        ("serve_bytes = 3", "is no constraint"),
        ("serve_bytes != 3", "is no constraint"),
        ("serve_byts <= 3", "unknown name 'serve_byts': did you mean 'serve_bytes'?"),
        ("serve_bytes <= 3 MeB", "unknown unit 'MeB' in '3 MeB': did you mean 'MB'?"),
        ("serve_bytes <= 3 mib", "did you mean 'MiB'?"),
        ("serve_bytes <= many", "'many' is no quantity of bytes: write a number and a unit, such as '8 MiB'"),
        ("depth <= 3 MiB", "'3 MiB' has a unit and must be a plain number, such as '3'"),
        ("parameters <= 3 MB", "must be a plain number"),
        ("count(mixer=full) <= 1 KiB", "must be a plain number"),
        ("count(mixer) <= 1", "'count(mixer)' is no count: write 'count(key=value)'"),
        ("serve_bytes@contxt=3 <= 1", "unknown setting 'contxt=3': did you mean 'context'?"),
        ("serve_bytes@context <= 1", "unknown setting 'context'"),
        ("serve_bytes@context=0 <= 1", "context must be a whole number of at least 1, not '0'"),
        ("serve_bytes@context=3,context=4 <= 1", "gives a setting twice"),
        ("depth@context=3 <= 1", "'depth' takes no settings after '@'"),
        ("nowhere:f <= 1", "there is no module 'nowhere' to import"),
    ],
)
def test_a_text_that_is_no_rule_is_refused_with_the_nearest_word(text: str, words: str) -> None:
    with pytest.raises(SpaceError) as caught:
        Constraint.parse(text)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_count_tells_a_number_from_a_name() -> None:
    assert Count("heads", "4").means(4)
    assert Count("heads", "4").means(4.0)
    assert not Count("heads", "4").means(40)
    assert not Count("mixer", "full").means("sliding_window")
    assert Count("flag", "true").means(True)
    assert not Count("flag", "1").means(True)
