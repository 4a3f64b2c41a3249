"""The exception tree and the hints of its messages."""

from __future__ import annotations

import inspect
import pickle

import pytest

from nas import errors
from nas.errors import InputError, MissingExtraError, NasError, WorkError, did_you_mean

TREE = [found for _, found in inspect.getmembers(errors, inspect.isclass) if issubclass(found, NasError)]


def test_the_users_input_exits_with_2_and_failed_work_with_1() -> None:
    assert len(TREE) == 14
    for error in TREE:
        assert error.exit_status == (2 if issubclass(error, InputError) else 1)
        assert error is NasError or issubclass(error, InputError) != issubclass(error, WorkError)


def test_the_tree_is_drawn_in_the_docstring() -> None:
    assert errors.__doc__ is not None
    for error in TREE:
        assert error.__name__ in errors.__doc__


@pytest.mark.parametrize("error", [error for error in TREE if error is not MissingExtraError])
def test_errors_travel_between_processes(error: type[NasError]) -> None:
    again = pickle.loads(pickle.dumps(error("width must be even")))
    assert type(again) is error
    assert str(again) == "width must be even"


def test_a_missing_extra_names_the_pip_command_and_travels_between_processes() -> None:
    error = MissingExtraError("the dashboard", "dashboard")
    assert str(error) == "the dashboard needs an optional package: pip install 'context-nas[dashboard]'"
    assert isinstance(error, ImportError)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is MissingExtraError
    assert str(again) == str(error)


@pytest.mark.parametrize(
    ("word", "valid", "hint"),
    [
        ("widht", ["width", "depth"], "did you mean 'width'?"),
        ("mib", ["MiB", "MB", "B"], "did you mean 'MiB'?"),
        ("zzz", ["width", "depth"], "valid: depth, width"),
        (4, [4, 8], "did you mean '4'?"),
        ("x", [], "nothing is valid here"),
    ],
)
def test_a_hint_is_the_nearest_word_or_all_of_them(word: object, valid: list[object], hint: str) -> None:
    assert did_you_mean(word, valid) == hint
