"""Optuna's tables and ours lie in one database and leave each other alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from nas.errors import StoreError
from nas.store import Store, StoredObjective, normalize_url
from nas.store.engine import make_engine
from nas.store.revisions import VERSION_TABLE

OBJECTIVES = [StoredObjective(name="x", direction="minimize")]


@contextmanager
def mirror_at(url: str, engine_kwargs: Mapping[str, Any]) -> Iterator[optuna.Study]:
    storage = optuna.storages.RDBStorage(url, engine_kwargs=dict(engine_kwargs))
    yield optuna.create_study(storage=storage, study_name="s", directions=["minimize", "minimize"], load_if_exists=True)
    storage.remove_session()
    storage.engine.dispose()


@pytest.mark.parametrize("first", ["ours", "optuna"])
def test_they_share_a_database_in_both_orders_of_creation(tmp_path: Path, first: str) -> None:
    url = f"sqlite:///{tmp_path / 'nas.db'}"
    if first == "optuna":
        with mirror_at(url, {"connect_args": {"timeout": 60}}):
            pass
    with Store.open(url, create=True) as store, mirror_at(store.url, store.engine_kwargs) as mirror:
        ours = store.add_study("s", resolved={}, objectives=OBJECTIVES)
        for _ in range(3):
            trial = mirror.ask()
            store.count_duplicate(ours)
            mirror.tell(trial, [trial.suggest_float("a", 0, 1), 1.0])
    with Store.open(url) as store, mirror_at(store.url, store.engine_kwargs) as mirror:
        assert store.study("s").duplicates == 3
        assert len(mirror.trials) == 3
    revisions = revisions_of(url)
    assert revisions[VERSION_TABLE] == "0002"
    assert revisions["alembic_version"] not in (None, "0001")


def test_a_store_can_be_made_while_optuna_has_the_file_open(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'nas.db'}"
    with mirror_at(url, {}) as mirror:
        mirror.ask()
        with Store.open(url, create=True) as store:
            store.add_study("s", resolved={}, objectives=OBJECTIVES)
        mirror.ask()
        assert len(mirror.trials) == 2


def test_a_database_of_optuna_alone_is_no_store_of_ours(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'nas.db'}"
    with mirror_at(url, {}):
        pass
    before = (tmp_path / "nas.db").read_bytes()
    with pytest.raises(StoreError, match="holds no nas store"):
        Store.open(url)
    assert (tmp_path / "nas.db").read_bytes() == before
    tables = inspect(make_engine(normalize_url(url))).get_table_names()
    assert tables
    assert not any(name.startswith("nas_") for name in tables)


def revisions_of(url: str) -> dict[str, str | None]:
    found = {}
    with make_engine(normalize_url(url)).connect() as connection:
        for table in (VERSION_TABLE, "alembic_version"):
            context = MigrationContext.configure(connection, opts={"version_table": table})
            found[table] = context.get_current_revision()
    return found
