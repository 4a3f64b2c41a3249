"""Units of bytes and of time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import InputError
from nas.units import (
    BYTES,
    exact_bytes,
    format_bytes,
    format_count,
    format_seconds,
    parse_bytes,
    parse_factor,
    parse_number,
    parse_seconds,
    parse_size,
    parse_speed,
)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("8 MiB", 8 * 1024**2),
        ("8 MB", 8_000_000),
        ("8MiB", 8 * 1024**2),
        (" 1.5 GiB ", 1.5 * 1024**3),
        ("24GB", 24e9),
        ("2e3 KB", 2e6),
        ("1_000", 1000),
        ("512 B", 512),
        (512, 512),
        (0.5, 0.5),
        (".5 KiB", 512),
        ("-3", -3),
    ],
)
def test_binary_and_decimal_units_are_not_confused(text: str | float, count: float) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30m", 1800), ("30 min", 1800), ("2h", 7200), ("90 s", 90), ("90", 90), (1.5, 1.5), ("1d", 86400)],
)
def test_a_time_is_in_seconds(text: str | float, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("8 mib", "unknown unit 'mib' in '8 mib': did you mean 'MiB'?"),
        ("8 MeB", "unknown unit 'MeB' in '8 MeB': did you mean 'MB'?"),
        ("8 parsec", "unknown unit 'parsec' in '8 parsec': valid: B, GB"),
        ("lots", "'lots' is no quantity of bytes: write a number and a unit, such as '8 MiB'"),
        ("", "'' is no quantity of bytes"),
        ("nan", "'nan' is no quantity of bytes"),
        ("8 MiB extra", "is no quantity of bytes"),
    ],
)
def test_what_is_no_quantity_of_bytes_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_bytes(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("30 minutes", "unknown unit 'minutes' in '30 minutes'"),
        ("soon", "'soon' is no quantity of time: write a number and a unit, such as '30 m'"),
        ("-5m", "a time must not be negative, not '-5m'"),
    ],
)
def test_what_is_no_time_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_seconds(text)
    assert words in str(caught.value)


def test_a_plain_number_takes_no_unit() -> None:
    assert parse_number("0.5") == 0.5
    assert parse_number(3) == 3
    with pytest.raises(InputError, match="'3 MiB' has a unit and must be a plain number, such as '3'"):
        parse_number("3 MiB")
    with pytest.raises(InputError, match=r"'three' is no number: write one, such as '0\.5'"):
        parse_number("three")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (262_144, "256 KiB"),
        (999.6 * 1024, "1000 KiB"),
        (1023 * 1024, "1023 KiB"),
        (8.5 * 2**20, "8.5 MiB"),
        (16_060_522_496, "15 GiB"),
        (3 * 2**40, "3 TiB"),
        (-2048, "-2 KiB"),
    ],
)
def test_bytes_are_written_in_the_binary_unit_that_fits(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (999.7, "1000"),
        (1000, "1k"),
        (2.4e12, "2.4T"),
        (999_700, "1000k"),
        (8_030_261_248, "8.03G"),
    ],
)
def test_counts_are_written_with_a_decimal_suffix(count: float, text: str) -> None:
    assert format_count(count) == text


@given(st.floats(1, 1e15))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_written_bytes_read_back_to_three_digits(count: float) -> None:
    text = format_bytes(count)
    assert "e" not in text
    assert parse_bytes(text) == pytest.approx(count, rel=0.006, abs=0.6)
    assert text.split()[1] in BYTES


@pytest.mark.parametrize("text", ["0", "0 MiB", "-8 MiB", -1, "1e999"])
def test_a_size_is_above_nothing(text: str | float) -> None:
    with pytest.raises(InputError, match="above 0 bytes"):
        parse_size(text)


@pytest.mark.parametrize("text", ["8 mb", "8 M", "8 m"])
def test_a_unit_that_could_be_decimal_or_binary_names_both(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_size(text)
    assert "did you mean 'MB' (1,000,000 bytes) or 'MiB' (1,048,576)?" in str(caught.value)


@pytest.mark.parametrize(("text", "speed"), [("2e11", 2e11), ("200 G", 2e11), ("0.2T", 2e11), (5, 5)])
def test_a_speed_is_in_operations_a_second(text: str | float, speed: float) -> None:
    assert parse_speed(text) == speed


@pytest.mark.parametrize(("text", "words"), [("0", "above 0"), ("-2G", "above 0"), ("2 X", "unknown unit 'X'")])
def test_what_is_no_speed_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_speed(text)


@pytest.mark.parametrize(
    ("count", "text"), [(300, "300 B"), (262144, "262144 B (256 KiB)"), (262145, "262145 B (256 KiB)")]
)
def test_exact_bytes_can_be_typed_in_again(count: float, text: str) -> None:
    assert exact_bytes(count) == text
    assert parse_size(exact_bytes(count).partition(" (")[0]) == count


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "0.5 s"), (90, "90 s"), (150, "2.5 min"), (9000, "2.5 h"), (259200, "3 d")]
)
def test_seconds_are_shown_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(("text", "factor"), [("8x", 8.0), ("1.5 x", 1.5), ("1x", 1.0), ("1e2x", 100.0)])
def test_a_multiple_has_an_x(text: str, factor: float) -> None:
    assert parse_factor(text) == factor


@pytest.mark.parametrize("text", ["8", "x", "8xx", "x8", "8x MiB", "0.5x", "-2x", "0x", "1e999x", "eightx"])
def test_what_is_no_multiple_of_one_or_more_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="multiple"):
        parse_factor(text)
