from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import pytest

from nas.errors import MissingExtraError, StoreError
from nas.store import Store, StoredObjective, engine, normalize_url
from nas.store.engine import make_engine


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("nas.db", "sqlite:///nas.db"),
        ("folder/nas.db", "sqlite:///folder/nas.db"),
        ("/abs/nas.db", "sqlite:////abs/nas.db"),
        ("sqlite:///nas.db", "sqlite:///nas.db"),
        ("sqlite+pysqlite:////abs/nas.db", "sqlite+pysqlite:////abs/nas.db"),
    ],
)
def test_paths_and_urls_name_the_same_store(written: str, url: str) -> None:
    assert normalize_url(written).render_as_string() == url


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("sqlit:///nas.db", r"unknown database 'sqlit' .*did you mean 'sqlite'\?"),
        ("postgres://u@h/d", r"unknown database 'postgres' .*did you mean 'postgresql'\?"),
        ("mysql://u@h/d", "unknown database 'mysql' .*valid: postgresql, sqlite"),
        ("postgresql+psycopg2://u@h/d", r"unsupported driver 'psycopg2' .*did you mean 'psycopg'\?"),
        ("sqlite://nas.db", "too few slashes: write 'sqlite:///nas.db'"),
        ("sqlite:nas.db", "write 'sqlite:///nas.db'"),
        ("sqlite:///nas.db?mode=ro", "takes no options"),
        ("postgresql://u@h:port/d", "is no URL"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        (":memory:", "in memory"),
        ("", "in memory"),
    ],
)
def test_what_is_no_store_is_refused_with_what_to_write(written: str, said: str) -> None:
    with pytest.raises(StoreError, match=said) as caught:
        normalize_url(written)
    assert "\n" not in str(caught.value)


def test_a_password_is_kept_out_of_messages() -> None:
    with pytest.raises(StoreError) as caught:
        normalize_url("mysql://user:secret@host/d")
    assert "secret" not in str(caught.value)


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"context-nas\[postgres\]"):
        normalize_url("postgresql://user@host/d")


def test_a_missing_file_is_named_with_its_nearest_and_not_made(tmp_path: Path) -> None:
    (tmp_path / "nas.db").write_bytes(b"")
    with pytest.raises(StoreError, match=r"there is no store '.*nsa\.db': did you mean 'nas\.db'\?"):
        Store.open(str(tmp_path / "nsa.db"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["nas.db"]


def test_a_missing_file_in_an_empty_folder_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no \*\.db file lies there"):
        Store.open(str(tmp_path / "nas.db"))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no folder '.*nowhere' for the store 'nas\.db'"):
        Store.open(str(tmp_path / "nowhere" / "nas.db"), create=True)


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder"):
        Store.open(str(tmp_path), create=True)


@pytest.mark.parametrize("create", [False, True])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path, create: bool) -> None:
    path = tmp_path / "notes.db"
    path.write_bytes(b"Shopping: milk, bread\n" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a database"):
        Store.open(str(path), create=create)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.db"]


def test_the_write_ahead_log_is_on_and_foreign_keys_hold(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'nas.db'}"
    Store.open(url, create=True).close()
    with make_engine(normalize_url(url)).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000


def test_files_lie_beside_the_database_unless_said_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "mine.db"
    with Store.open(str(path), create=True) as store:
        assert store.files == str(tmp_path / "mine_files")
        assert store.url == f"sqlite:///{path}"
        assert not (tmp_path / "mine_files").exists()
    with Store.open(str(path), files="s3://bucket/folder") as store:
        assert store.files == "s3://bucket/folder"


def test_readers_read_while_another_writes(tmp_path: Path) -> None:
    path = tmp_path / "nas.db"
    with Store.open(str(path), create=True) as store:
        store.add_study("s", resolved={}, objectives=[StoredObjective(name="x", direction="minimize")])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE nas_studies SET duplicates = 5")
        assert store.study("s").duplicates == 0
        other.execute("COMMIT")
        other.close()
        assert store.study("s").duplicates == 5


def test_a_store_that_another_keeps_locked_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_SECONDS", 0)
    path = tmp_path / "nas.db"
    with Store.open(str(path), create=True) as store:
        study = store.add_study("s", resolved={}, objectives=[StoredObjective(name="x", direction="minimize")])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"nas\.db': database is locked: another process writes to it") as caught:
            store.count_duplicate(study)
        other.close()
    assert "\n" not in str(caught.value)


def test_a_damaged_database_says_so_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "nas.db"
    Store.open(str(path), create=True).close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"malformed|not a database") as caught:
        Store.open(str(path)).studies()
    assert "\n" not in str(caught.value)


def test_a_full_disk_says_so_and_keeps_what_was_stored(tmp_path: Path) -> None:
    path = tmp_path / "nas.db"
    with Store.open(str(path), create=True) as store:
        study = store.add_study("s", resolved={}, objectives=[StoredObjective(name="x", direction="minimize")])

        # SQLite's own limit on the size of a database is reported as a full disk is.
        def limit(connection: sqlite3.Connection, _: object) -> None:
            connection.execute("PRAGMA max_page_count = 1").close()

        engine.event.listen(store._engine, "connect", limit)
        with pytest.raises(StoreError, match="disk is full: free some space"):
            store.update_resolved(study, {"text": "x" * 1_000_000})
        assert store.study("s") == study


@pytest.mark.parametrize("number", [-1, 2**31, 10**20])
def test_a_trial_number_that_no_column_holds_is_unknown_like_any_other(tmp_path: Path, number: int) -> None:
    with Store.open(str(tmp_path / "nas.db"), create=True) as store:
        objectives = [StoredObjective(name="x", direction="minimize")]
        study = store.add_study("s", resolved={}, objectives=objectives)
        for ask in (store.trial, store.measurements):
            with pytest.raises(StoreError, match=f"'s' has no trial {number}: it has none yet"):
                ask(study, number)
