"""Reading YAML: where each key stands, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nas.errors import SpaceError, StudyError
from nas.space.yaml_lines import Lines, load_yaml, parse_value, parse_yaml

TEXT = """\
# a comment
name: mine
layers:
  - mixer: full
    heads: {choice: [2,
                     4]}
  - {mixer: full}
"""


def refusal(text: str) -> str:
    with pytest.raises(SpaceError) as caught:
        parse_yaml(text, file="mine.yaml", error=SpaceError)
    return str(caught.value)


def test_every_key_and_item_has_its_line() -> None:
    _, lines = parse_yaml(TEXT, file="mine.yaml", error=SpaceError)
    assert lines.at(("name",)) == "mine.yaml:2"
    assert lines.at(("layers", 0, "heads")) == "mine.yaml:5"
    assert lines.at(("layers", 0, "heads", "choice", 1)) == "mine.yaml:6"
    assert lines.at(("layers", 1, "mixer")) == "mine.yaml:7"


def test_a_key_that_was_not_written_stands_where_the_nearest_enclosing_one_does() -> None:
    _, lines = parse_yaml(TEXT, file="mine.yaml", error=SpaceError)
    assert lines.at(("layers", 1, "heads", "choice")) == "mine.yaml:7"
    assert lines.at(("depth",)) == "mine.yaml"


def test_lines_below_a_key_are_those_of_a_file_of_its_own() -> None:
    _, lines = parse_yaml(TEXT, file="mine.yaml", error=SpaceError)
    assert lines.below("layers").at((1, "mixer")) == "mine.yaml:7"
    assert lines.below("layers").at(("name",)) == "mine.yaml:3"
    assert lines.below("layers").over(Lines("other.yaml")).at(("name",)) == "other.yaml"


def test_lines_over_others_win_where_they_say_something() -> None:
    above, below = (
        Lines("a.yaml", {("width",): "a.yaml:3"}),
        Lines("b.yaml", {("width",): "b.yaml:9", ("x",): "b.yaml:1"}),
    )
    assert above.over(below).at(("width",)) == "a.yaml:3"
    assert above.over(below).at(("x",)) == "b.yaml:1"
    assert above.over(below).at(("y",)) == "b.yaml"


def test_replaced_lines_forget_what_stood_below() -> None:
    _, lines = parse_yaml(TEXT, file="mine.yaml", error=SpaceError)
    assert lines.replaced(("layers",), "--set layers=3").at(("layers", 0, "heads")) == "--set layers=3"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E+3", 1000.0),
        ("-2.5e6", -2.5e6),
        (".5e-1", 0.05),
        ("200_000", 200_000),
        ("1e", "1e"),
        ("e3", "e3"),
        ("1-3", "1-3"),
        ("full", "full"),
        ("none", "none"),
        ("[1e-3, 2]", [1e-3, 2]),
    ],
)
def test_what_looks_like_a_number_is_one_and_nothing_else_is(text: str, value: object) -> None:
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_a_repeated_key_is_refused_at_its_second_line() -> None:
    assert refusal("width: 1\ndepth: 2\nwidth: 3") == "mine.yaml:3: key 'width' is given twice"
    assert refusal("a:\n  b: 1\n  b: 2") == "mine.yaml:3: key 'b' is given twice"


def test_equal_keys_of_different_mappings_are_no_repetition() -> None:
    values, _ = parse_yaml("a: {x: 1}\nb: {x: 1}", file="mine.yaml", error=SpaceError)
    assert values == {"a": {"x": 1}, "b": {"x": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\n\tb: 2", "mine.yaml:2: not YAML: a tab where only spaces may indent"),
        ("a: 1\n---\nb: 2", "mine.yaml:2: not YAML: a second document ('---'); a file holds one"),
        ("a: *x", "mine.yaml:1: not YAML: found undefined alias 'x'"),
        ("a: &x [*x]", "mine.yaml:1: an alias (*) stands inside the value that it repeats"),
        ("a: !thing 1", "mine.yaml:1: not YAML: could not determine a constructor for the tag '!thing'"),
        (
            "a: 1\nb: 2026-13-45",
            "mine.yaml:2: not YAML: '2026-13-45' cannot be read: month must be in 1..12",
        ),
        ("- a", "mine.yaml: the file must hold a mapping (key: value), not a list"),
        ("just text", "mine.yaml: the file must hold a mapping (key: value), not text"),
        ("\0", "mine.yaml: not YAML: unacceptable character #x0000: special characters are not allowed"),
    ],
)
def test_what_is_no_mapping_in_yaml_is_refused_in_one_line(text: str, message: str) -> None:
    assert refusal(text) == message


def test_a_second_colon_says_what_to_do() -> None:
    assert refusal("a: b: c").startswith("mine.yaml:1: not YAML: a second ':' in one line; quote")


def test_an_open_bracket_names_what_was_expected() -> None:
    assert refusal("a: 1\nb: [1, 2").startswith("mine.yaml:2: not YAML: expected ',' or ']'")


def test_an_empty_file_is_an_empty_mapping() -> None:
    assert parse_yaml("# nothing\n", file="mine.yaml", error=SpaceError)[0] == {}


def test_a_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text("a: 1")
    with pytest.raises(StudyError, match=r"no file '.*quikstart.yaml': did you mean '.*quickstart.yaml'\?"):
        load_yaml(tmp_path / "quikstart.yaml", StudyError)


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"name: caf\xe9")
    with pytest.raises(SpaceError, match=r"mine.yaml: not UTF-8 text \(byte 9\)"):
        load_yaml(path, SpaceError)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(path: Path, encoding: str) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "mine.yaml").write_text("a: 1")
    monkeypatch.setattr(Path, "read_text", deny)
    with pytest.raises(SpaceError, match=r"mine.yaml: cannot be read: Permission denied"):
        load_yaml(tmp_path / "mine.yaml", SpaceError)
    with pytest.raises(SpaceError, match="no file"):
        load_yaml(tmp_path / ("a" * 300), SpaceError)


@pytest.mark.parametrize("text", ["2026-13-45", "!!int x", "!!timestamp x"])
def test_a_text_that_only_looks_like_a_value_is_no_yaml(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match="cannot be read"):
        parse_value(text)
