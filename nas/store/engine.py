"""From what the user calls a store to a database connection.

In: a path or a URL. Out: a checked SQLAlchemy URL and an engine whose connections enforce foreign
keys and wait a minute for a writer before they give up.

SQLite connections are opened for each use: nothing is left open behind a store that was never
closed. Python's own transaction handling is off, because it neither covers schema changes nor lets
a writer take its lock at the start: a transaction that reads first and then writes fails at once
when another wrote in between, however long the timeout.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from nas.errors import MissingExtraError, StoreError, did_you_mean

BUSY_TIMEOUT_SECONDS = 60

# One driver each: Optuna opens the same URL.
DRIVERS = {"sqlite": "pysqlite", "postgresql": "psycopg"}

EXAMPLE = "a store is a file such as nas.db, sqlite:///nas.db or postgresql://user@host/database"

# What SQLite and PostgreSQL say, and what to do about it.
ADVICE = {
    "database is locked": "another process writes to it; wait for it to end and run this again",
    "disk is full": "free some space and run this again: what was stored before is intact",
    "No space left": "free some space and run this again: what was stored before is intact",
    "malformed": "the file is damaged; take a copy of it or another store",
    "not a database": "the file is something else; choose another name for the store",
    "readonly database": "the file or its folder is read-only",
    "permission denied": "the database's owner must grant it",
}


def normalize_url(text: str) -> URL:
    """The URL of a store.

    Args:
        text: a path ("nas.db") or a URL ("sqlite:///nas.db", "postgresql://user@host/database").

    Raises:
        StoreError: no URL, no supported database, or a database in memory.
        MissingExtraError: the driver of PostgreSQL is not installed.
    """
    if "://" not in text:
        return _path_url(text)
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise StoreError(f"'{text}' is no URL: {EXAMPLE}") from None
    backend, plus, driver = url.drivername.partition("+")
    if backend not in DRIVERS:
        raise StoreError(f"unknown database '{backend}' in '{_label(url)}': {did_you_mean(backend, DRIVERS)}")
    if plus and driver != DRIVERS[backend]:
        valid = did_you_mean(driver, [DRIVERS[backend]])
        raise StoreError(f"unsupported driver '{driver}' of {backend} in '{_label(url)}': {valid}")
    if backend == "sqlite":
        return _check_sqlite(url)
    url = url.set(drivername="postgresql+psycopg")
    try:
        url.get_dialect().import_dbapi()
    except ImportError:
        raise MissingExtraError(f"a store in PostgreSQL ('{_label(url)}')", "postgres") from None
    return url


def engine_kwargs(url: URL) -> dict[str, Any]:
    """Arguments of `create_engine` that any other user of the database must take too."""
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": BUSY_TIMEOUT_SECONDS}}
    return {"pool_pre_ping": True}


def make_engine(url: URL) -> Engine:
    """An engine for a normalized URL; opens nothing yet."""
    options = engine_kwargs(url)
    if url.get_backend_name() != "sqlite":
        return create_engine(url, json_serializer=_to_json, **options)
    engine = create_engine(url, json_serializer=_to_json, poolclass=NullPool, **options)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def writing(engine: Engine) -> Engine:
    """The same engine, whose transactions take the lock for writing as they begin."""
    return engine.execution_options(nas_begin="BEGIN IMMEDIATE")


def use_write_ahead_log(engine: Engine) -> None:
    """Lets readers read while another writes; SQLite keeps the setting in the file."""
    if engine.dialect.name == "sqlite":
        with engine.execution_options(nas_begin="").connect() as connection:
            if connection.exec_driver_sql("PRAGMA journal_mode").scalar() != "wal":
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turns what a database complains of into one line.

    Raises:
        StoreError: locked, full, damaged, unreachable, …; broken constraints are left as they are.
    """
    try:
        yield
    except IntegrityError:
        raise
    except DBAPIError as error:
        said = (str(error.orig).splitlines() or [type(error.orig).__name__])[0]
        advice = next((text for sign, text in ADVICE.items() if sign in said), "")
        raise StoreError(f"store '{_label(engine.url)}': {said}{advice and f': {advice}'}") from error


def _path_url(text: str) -> URL:
    scheme, colon, rest = text.partition(":")
    if colon and scheme in {*DRIVERS, "file"}:
        raise StoreError(f"'{text}' is no URL: write 'sqlite:///{rest.lstrip('/')}'")
    return _check_sqlite(URL.create("sqlite", database=str(Path(text).expanduser()) if text else None))


def _check_sqlite(url: URL) -> URL:
    if url.host:
        raise StoreError(f"'{_label(url)}' has too few slashes: write 'sqlite:///{url.host}{_database(url)}'")
    if url.query:
        raise StoreError(f"a store takes no options after '?': write 'sqlite:///{url.database}'")
    if url.database in (None, "", ":memory:"):
        raise StoreError(f"a store in memory would be lost at the end of the process: {EXAMPLE}")
    return url


def _database(url: URL) -> str:
    return f"/{url.database}" if url.database else ""


def _label(url: URL) -> str:
    return url.render_as_string(hide_password=True)


def _to_json(value: object) -> str:
    return json.dumps(value, allow_nan=False)


def _configure_sqlite(connection: Any, entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    begin = connection.get_execution_options().get("nas_begin", "BEGIN")
    if begin:
        connection.exec_driver_sql(begin)
