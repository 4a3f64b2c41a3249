"""The page about a study."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nas.errors import InputError, MissingExtraError, StoreError, StudyError
from nas.records import Failure
from nas.report.html import write_report
from nas.store import Store, StoredStudy

VOID = {"meta", "wbr", "br", "link", "img"}


class Page(HTMLParser):
    """Text, attributes and balance of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_tells_the_whole_story(store: Store, study: StoredStudy, tmp_path: Path) -> None:
    index = write_report(store, "small", tmp_path / "page")
    page = read(index)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    for section in ("front", "progress", "searched", "trials", "memory", "environment", "next"):
        assert section in page.ids
    for words in (
        *("small", "256 KiB", "trivial baseline", "600G", "SW sliding_window"),
        *("choice: [64, 96, 128]", "log_range: [0.001, 0.01]", "serve_bytes <= 4 MiB", "200000", "nsga2"),
        *("the loss is <nan> at step 60", "behind the front at step 50", "serve_bytes <= 4 MiB (it is 8 MiB)"),
        *("CPU, 2 cores", "abc123+changes", "torch 2.13.0", "260 KiB"),
        f"nas show small 2 --store {store.label}",
    ):
        assert words in page.words, words
    assert page.tags.count("svg") == 3


def test_the_page_needs_nothing_from_elsewhere(store: Store, study: StoredStudy, tmp_path: Path) -> None:
    index = write_report(store, "small", tmp_path / "page")
    page = read(index)
    assert {link for link in page.links if not link.startswith("#")} == {"front.csv", "front.json"}
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    text = re.sub(r'xmlns(:\w+)?="[^"]*"', "", index.read_text(encoding="utf-8"))
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text


def test_pictures_and_the_front_lie_beside_the_page(store: Store, study: StoredStudy, tmp_path: Path) -> None:
    folder = write_report(store, "small", tmp_path / "deep" / "page").parent
    names = {path.name for path in folder.iterdir()}
    assert names == {"index.html", "front.png", "hypervolume.png", "learning_curves.png", "front.csv", "front.json"}
    assert [record["trial"] for record in json.loads((folder / "front.json").read_text())] == [2, 1, 0]


def test_what_users_wrote_is_escaped(store: Store, study: StoredStudy, tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>"
    made = store.add_study(
        evil, resolved={"name": evil, "task": {"name": "t", evil: evil}}, objectives=study.objectives
    )
    candidate = store.trial(study, 0).candidate
    trial = store.add_trial(made, candidate, seed=0, known={"serve_bytes": 1.0}, reason="r")
    store.fail(trial, Failure(kind="crashed", reason=evil))
    page = read(write_report(store, evil, tmp_path / "page"))
    assert "script" not in page.tags
    assert page.words.count(evil) >= 4


def test_commands_can_be_pasted_whatever_the_study_is_called(store: Store, study: StoredStudy, tmp_path: Path) -> None:
    store.add_study("it's; rm -rf", resolved={}, objectives=study.objectives)
    page = read(write_report(store, "it's; rm -rf", tmp_path / "page"))
    assert "nas run 'it'\"'\"'s; rm -rf' --store" in page.words


@pytest.mark.parametrize("resolved", [{}, {"trials": 3, "space": None, "limits": [1, None, True]}])
def test_a_study_without_a_complete_trial_has_a_page_that_says_so(
    store: Store, study: StoredStudy, tmp_path: Path, resolved: dict[str, object]
) -> None:
    store.add_study("new", resolved=resolved, objectives=study.objectives)
    page = read(write_report(store, "new", tmp_path / "page"))
    assert "No trial is complete yet" in page.words
    assert "svg" not in page.tags


def test_several_objectives_have_a_page(store: Store, wide_study: StoredStudy, tmp_path: Path) -> None:
    page = read(write_report(store, "wide", tmp_path / "page"))
    assert "token_accuracy (higher is better)" in page.words
    assert "0.1500" in page.words


def test_a_folder_that_holds_something_is_left_as_it_is(store: Store, study: StoredStudy, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    (tmp_path / "page-2").mkdir()
    with pytest.raises(InputError, match=r"new or empty.*page-3"):
        write_report(store, "small", folder)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_a_file_is_no_folder(store: Store, study: StoredStudy, tmp_path: Path) -> None:
    (tmp_path / "page").write_text("mine")
    with pytest.raises(InputError, match=r"new or empty.*page-2"):
        write_report(store, "small", tmp_path / "page")
    with pytest.raises(StudyError, match="cannot be written"):
        write_report(store, "small", tmp_path / "page" / "below")


def test_an_empty_folder_will_do(store: Store, study: StoredStudy, tmp_path: Path) -> None:
    assert write_report(store, "small", tmp_path / "empty").exists()


def test_an_unknown_study_writes_nothing(store: Store, study: StoredStudy, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="did you mean 'small'"):
        write_report(store, "smal", tmp_path / "page")
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize("package", ["jinja2", "matplotlib.figure"])
def test_a_missing_package_names_the_extra_and_writes_nothing(
    store: Store, study: StoredStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"context-nas\[report\]"):
        write_report(store, "small", tmp_path / "page")
    assert not (tmp_path / "page").exists()
