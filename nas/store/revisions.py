"""Makes sure that a database holds a store of this version before anything is read from it.

In: an engine. Out: tables at the newest revision, or an error and an untouched database. The check
only reads, so that a file of a newer nas, or a file that is something else, is left as it is.

Our revisions are counted in a table of our own, for Optuna counts its own in Alembic's default one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, text

from nas.errors import StoreError, did_you_mean
from nas.store.engine import make_engine, translated, use_write_ahead_log, writing

VERSION_TABLE = "nas_alembic_version"

# Any number that nobody else is likely to lock with.
_UPGRADE_LOCK = 6_577_715


def open_engine(url: URL, *, create: bool) -> Engine:
    """An engine on a database that holds a store of this version.

    Args:
        url: normalized.
        create: whether to make the store where there is none.

    Raises:
        StoreError: there is no store, it is of a newer version, or the database says no.
    """
    if url.get_backend_name() == "sqlite":
        _check_file(Path(str(url.database)), create=create)
    engine = make_engine(url)
    try:
        with translated(engine):
            _prepare(engine, create=create)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _prepare(engine: Engine, *, create: bool) -> None:
    label = engine.url.render_as_string(hide_password=True)
    script = ScriptDirectory.from_config(_config())
    newest = script.get_current_head()
    with engine.connect() as connection:
        found = _revision(connection)
    if found is None and not create:
        raise StoreError(f"'{label}' holds no nas store: name another, or make one here with nas run --store")
    known = {revision.revision for revision in script.walk_revisions()}
    if found is not None and found not in known:
        raise StoreError(
            f"'{label}' was made by a newer version of nas (revision {found}); "
            f"this one knows up to {newest}: upgrade context-nas"
        )
    if create:
        use_write_ahead_log(engine)
    if found != newest:
        _upgrade(engine)


def _upgrade(engine: Engine) -> None:
    config = _config()
    is_sqlite = engine.dialect.name == "sqlite"
    with writing(engine).connect() as connection:
        if is_sqlite:
            # A revision may make a table anew that others refer to. Within a transaction the setting has no effect;
            # the pool closes the connection afterwards, and each new one has foreign keys on.
            driver: Any = connection.connection.driver_connection
            driver.execute("PRAGMA foreign_keys = OFF")
        with connection.begin():
            if not is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _UPGRADE_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            assert not is_sqlite or not connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()


def _revision(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "nas.store:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _check_file(path: Path, *, create: bool) -> None:
    if path.is_dir():
        raise StoreError(f"'{path}' is a folder; a store is a file such as '{path / 'nas.db'}'")
    if path.exists():
        return
    if not path.parent.is_dir():
        raise StoreError(f"there is no folder '{path.parent}' for the store '{path.name}': make it first")
    if not create:
        there = [entry.name for entry in path.parent.glob("*.db")]
        hint = did_you_mean(path.name, there) if there else "no *.db file lies there"
        raise StoreError(f"there is no store '{path}': {hint}")
