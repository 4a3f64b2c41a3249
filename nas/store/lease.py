"""One driver for each study: two would train the same candidates twice.

In: a database and a study's name. Out: a lease that the system takes back when its process dies,
however it dies: a lock on a file of this machine for SQLite, an advisory lock for PostgreSQL.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, text

from nas.errors import StoreError


@contextmanager
def lease(engine: Engine, study: str) -> Iterator[None]:
    """Holds the lease of a study.

    Raises:
        StoreError: another process holds it.
    """
    digest = hashlib.sha256(f"{_database(engine)}/{study}".encode()).digest()
    held = _file_lock(digest, study) if engine.dialect.name == "sqlite" else _advisory_lock(engine, digest, study)
    with held:
        yield


def _database(engine: Engine) -> str:
    name = engine.url.database or ""
    return str(Path(name).resolve()) if engine.dialect.name == "sqlite" else name


@contextmanager
def _file_lock(digest: bytes, study: str) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:
        # Windows has no flock; there it is on the user to run a study once.
        yield
        return
    path = Path(tempfile.gettempdir()) / f"nas-{os.getuid()}-{digest.hex()[:16]}.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise _taken(study, f"process {file.read().strip() or '?'}") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def _advisory_lock(engine: Engine, digest: bytes, study: str) -> Iterator[None]:
    key = int.from_bytes(digest[:8], "big", signed=True)
    with engine.connect() as connection:
        if not connection.scalar(text("select pg_try_advisory_lock(:key)"), {"key": key}):
            raise _taken(study, "another connection")
        try:
            yield
        finally:
            connection.execute(text("select pg_advisory_unlock(:key)"), {"key": key})


def _taken(study: str, whom: str) -> StoreError:
    return StoreError(
        f"study '{study}' is being run by {whom}: wait for it, or start another study with --name; "
        "more workers for one run: --workers"
    )
