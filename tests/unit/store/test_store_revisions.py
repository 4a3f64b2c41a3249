from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import inspect
from sqlalchemy.exc import IntegrityError

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
    assert by_name(migrated) == by_name(inspect(other).get_check_constraints("nas_trials"))
    assert len(migrated) == 2


def by_name(constraints: Sequence[Any]) -> dict[str, str]:
    return {one["name"]: one["sqltext"] for one in constraints}


def test_a_store_from_before_replicates_keeps_its_rows_and_is_guarded_as_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "nas.db"
    engine = make_engine(normalize_url(str(path)))
    config = revisions._config()
    with writing(engine).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO nas_studies VALUES (1, 's', '{}', '[]', 0, '2026-01-01 00:00:00')",
            "INSERT INTO nas_architectures VALUES ('f', '{}', 'decoder', 8, 1, 16)",
            "INSERT INTO nas_candidates VALUES ('k', 'f', '{}')",
            "INSERT INTO nas_trials (id, study_id, number, candidate_key, seed, state, reason, step, tokens, flops, "
            "seconds, created_at) VALUES (7, 1, 0, 'k', 5, 'complete', 'why', 4, 40, 4.5, 1.5, '2026-01-01 00:00:00')",
            "INSERT INTO nas_values VALUES (7, 'loss', 0.5)",
        ):
            connection.exec_driver_sql(statement)
    Store.open(str(path)).close()
    with engine.connect() as connection:
        columns = "number, candidate_key, seed, state, reason, step, tokens, flops, seconds, role, budget"
        rows = connection.exec_driver_sql(f"SELECT {columns} FROM nas_trials").fetchall()
        assert [tuple(row) for row in rows] == [(0, "k", 5, "complete", "why", 4, 40, 4.5, 1.5, "search", 1.0)]
        assert connection.exec_driver_sql("SELECT trial_id, value FROM nas_values").fetchall() == [(7, 0.5)]
        with pytest.raises(IntegrityError, match="FOREIGN KEY"):
            connection.exec_driver_sql("DELETE FROM nas_trials")
    fresh = tmp_path / "fresh.db"
    Store.open(str(fresh), create=True).close()
    there, here = (inspect(make_engine(normalize_url(str(one)))) for one in (path, fresh))
    assert there.get_foreign_keys("nas_values") == here.get_foreign_keys("nas_values")
    for one in (there, here):
        unique = {tuple(found["column_names"]) for found in one.get_unique_constraints("nas_trials")}
        assert unique == {("study_id", "number"), ("study_id", "candidate_key", "seed", "budget")}


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
    with pytest.raises(StoreError, match=r"newer version of nas \(revision 9999\); this one knows up to 0002: upgrade"):
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
