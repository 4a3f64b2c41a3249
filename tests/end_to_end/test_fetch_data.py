"""Packages become data sets, whole or not at all, and their studies run."""

from __future__ import annotations

import gzip
import io
import json
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nas import Study
from nas.specs.tasks.data import Field
from nas.tasks.data import open_dataset

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, ModuleType]]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import _fetch_sets
    import _fetch_store

    yield _fetch_sets, _fetch_store
    for name in ("_fetch_sets", "_fetch_store"):
        sys.modules.pop(name, None)


def fetch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / "fetch_data"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_librarys_sources_are_fetched_once_and_their_study_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fetch("stdlib", "--to", str(tmp_path / "data"))
    assert first.returncode == 0 and first.stdout.startswith("stdlib: ")
    assert "there already" in fetch("stdlib", "--to", str(tmp_path / "data")).stdout
    part = tmp_path / "data" / "stdlib" / "test.jsonl.gz"
    whole = part.read_bytes()
    part.write_bytes(whole[:-10])
    again = fetch("stdlib", "--to", str(tmp_path / "data"))
    assert "there already" not in again.stdout and part.read_bytes() == whole
    packages: dict[str, set[str]] = {}
    for name in ("train", "validation", "test"):
        with gzip.open(tmp_path / "data" / "stdlib" / f"{name}.jsonl.gz", "rt") as file:
            packages[name] = {json.loads(line)["package"] for line in file}
    assert not packages["train"] & (packages["validation"] | packages["test"])
    monkeypatch.setenv("NAS_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    settings = {"budget.tokens": "20_000", "budget.rungs": "1"}
    study = Study.load("stdlib", store="sqlite:///s.db", settings=settings)
    study.run(trials=1)
    assert len(study.front()) == 1


def test_an_unknown_set_names_those_there_are() -> None:
    found = fetch("spam_asassin")
    assert found.returncode == 2 and "there is no set 'spam_asassin': spam_assassin, " in found.stderr


def test_mails_are_split_by_their_folder(tmp_path: Path, modules: tuple[ModuleType, ModuleType]) -> None:
    sets, store = modules
    path = tmp_path / "mails.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for folder in ("easy-ham-1", "easy-ham-2", "hard-ham-1", "spam-1", "spam-2"):
            for number in range(30):
                raw = f"{folder} {number}".encode()
                entry = tarfile.TarInfo(f"package/data/{folder}/{number}.txt")
                entry.size = len(raw)
                archive.addfile(entry, io.BytesIO(raw))
    rows = store.distinct(sets.spam_assassin([path]))
    assert len(rows["test"]) == 60 and all(row["text"].split()[0].endswith("-2") for row in rows["test"])
    assert len(rows["train"]) + len(rows["validation"]) == 90 and rows["validation"]
    every = [row for part in rows.values() for row in part]
    assert all(("spam" in row["text"]) == (row["label"] == "spam") for row in every)


def test_equal_records_are_kept_once(modules: tuple[ModuleType, ModuleType]) -> None:
    _, store = modules
    rows = {
        "train": [{"text": "a  b"}, {"text": "c"}],
        "validation": [{"text": "d"}],
        "test": [{"text": "a b"}, {"text": "e"}],
    }
    assert store.distinct(rows) == {
        "train": [{"text": "a  b"}, {"text": "c"}],
        "validation": [{"text": "d"}],
        "test": [{"text": "e"}],
    }
    with pytest.raises(store.FetchError, match="the test part has no records"):
        store.distinct({**rows, "test": [{"text": "c"}]})


def module_of(folder: Path, entries: dict[str, list[str]]) -> Path:
    """A text of the SWORD project: one block for each testament."""
    place = folder / "usr" / "texts"
    place.mkdir(parents=True)
    for testament, texts in entries.items():
        block = b"".join(text.encode() for text in texts)
        packed, at, index = zlib.compress(block), 0, b""
        for text in texts:
            index += struct.pack("<IIH", 0, at, len(text.encode()))
            at += len(text.encode())
        (place / f"{testament}.bzv").write_bytes(index)
        (place / f"{testament}.bzs").write_bytes(struct.pack("<III", 0, len(packed), len(block)))
        (place / f"{testament}.bzz").write_bytes(packed)
    return folder


def test_verses_are_paired_by_their_places_and_held_out_by_books(
    tmp_path: Path, modules: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    sets, _ = modules
    held_out = [book for books in sets.HELD_OUT_BOOKS.values() for book in books]

    def texts(language: str) -> list[str]:
        found = ["", ""]
        for book in ["Gen", *held_out]:
            found.append(f'<div osisID="{book}" sID="1" type="book"/>')
            found.append(f'<chapter osisID="{book}.1" sID="2"/>')
            found.append(f'{language} <w lemma="x">{book}</w> one <note type="n">not this</note> é')
            absent = language == "es" and book == "Gen"
            found.append("" if absent else f'{language} {book} two<div eID="1" type="book"/>')
        return found

    folders = [module_of(tmp_path / name, {"ot": texts(name), "nt": [""]}) for name in ("en", "es")]
    monkeypatch.setattr(sets, "unpacked_debian", lambda path: path)
    rows: dict[str, list[dict[str, Any]]] = sets.bible(folders)
    assert rows["train"] == [{"source": "en Gen one é", "target": "es Gen one é", "book": "Gen"}]
    assert {row["book"] for row in rows["test"]} == set(sets.HELD_OUT_BOOKS["test"])
    assert {"source": "en Luke two", "target": "es Luke two", "book": "Luke"} in rows["test"]


def test_a_written_set_is_found_by_its_name(
    tmp_path: Path, modules: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, store = modules
    rows = {
        part: [{"text": f"{part} {number}", "label": "ab"[number % 2]} for number in range(9)] for part in store.PARTS
    }
    found = store.Prepared("classification", "none", (), lambda files: rows, "as it is")
    for folder in ("one", "other"):
        store.write_set(tmp_path / folder / "fine_foods", "fine_foods", found, tmp_path / "packages")
    one, other = (tmp_path / folder / "fine_foods" / "train.jsonl.gz" for folder in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()
    monkeypatch.setenv("NAS_DATA", str(tmp_path / "one"))
    data = open_dataset({"data": "fine_foods"}, (Field("text", "text"), Field("label", "label")))
    assert {record["text"].split()[0] == part for part, record in data.records()} == {True}
