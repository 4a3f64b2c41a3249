"""Alembic's environment: runs the revisions on the connection that nas.store.revisions hands over.

Alembic executes this file; it is not to be imported. It leaves logging as it is.
"""

from __future__ import annotations

from alembic import context

from nas.store.revisions import VERSION_TABLE
from nas.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    # Alembic believes that SQLite cannot take back a schema change; with our transactions it can.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
