from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from nas.errors import StoreError
from nas.store import Store, revisions
from nas.store.engine import make_engine, normalize_url, writing
from nas.store.revisions import VERSION_TABLE
from nas.store.tables import Base


def test_the_migrations_keep_the_check_on_states(tmp_path: Path) -> None:
    path = tmp_path / "nas.db"
    Store.open(str(path), create=True).close()
    migrated = inspect(make_engine(normalize_url(str(path)))).get_check_constraints("nas_trials")
    other = make_engine(normalize_url(str(tmp_path / "models.db")))
    Base.metadata.create_all(other)
    assert migrated == inspect(other).get_check_constraints("nas_trials")
    assert len(migrated) == 1


def test_there_is_one_newest_revision_and_it_goes_back_and_forth(tmp_path: Path) -> None:
    assert len(ScriptDirectory.from_config(revisions._config()).get_heads()) == 1
    engine = make_engine(normalize_url(str(tmp_path / "nas.db")))
    config = revisions._config()
    for move, target in ((command.upgrade, "head"), (command.downgrade, "base"), (command.upgrade, "head")):
        with writing(engine).begin() as connection:
            config.attributes["connection"] = connection
            move(config, target)
    assert set(Base.metadata.tables) < set(inspect(engine).get_table_names())


def test_all_tables_carry_the_prefix(tmp_path: Path) -> None:
    path = tmp_path / "nas.db"
    Store.open(str(path), create=True).close()
    names = inspect(make_engine(normalize_url(str(path)))).get_table_names()
    assert len(names) == 13
    assert all(name.startswith("nas_") for name in names)


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_store_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path, create: bool, journal: str) -> None:
    path = tmp_path / "nas.db"
    Store.open(str(path), create=True).close()
    connection = sqlite3.connect(path)
    connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    connection.commit()
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"newer version of nas \(revision 9999\); this one knows up to 0001: upgrade"):
        Store.open(str(path), create=create)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["nas.db"]


def test_an_upgrade_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "nas.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE nas_front_members (mine INTEGER)")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="nas_front_members already exists"):
        Store.open(str(path), create=True)
    assert inspect(make_engine(normalize_url(str(path)))).get_table_names() == ["nas_front_members"]


def test_opening_leaves_logging_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers), logging.getLogger("alembic").level)
    probe = logging.getLogger("nas_test_probe")
    Store.open(str(tmp_path / "nas.db"), create=True).close()
    assert (root.level, list(root.handlers), logging.getLogger("alembic").level) == before
    assert not probe.disabled
