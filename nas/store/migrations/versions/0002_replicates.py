"""Trials that confirm others: a role, and the budget as a multiple of the study's.

Revision ID: 0002

A candidate may now be trained with one seed at several budgets, so the constraint that holds trainings apart takes in
the budget. SQLite cannot change a constraint: there the table is made anew, by the procedure of its documentation
(https://www.sqlite.org/lang_altertable.html), which needs foreign keys to be off; `nas.store.revisions` sees to that.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BEFORE = "uq_nas_trials_study_id_candidate_key_seed"
AFTER = "uq_nas_trials_study_id_candidate_key_seed_budget"
# Whatever hangs on a trial.
BELOW = ("nas_values", "nas_measurements", "nas_memory", "nas_checkpoints", "nas_decisions", "nas_front_members")


def upgrade() -> None:
    with op.batch_alter_table("nas_trials", copy_from=_trials(), recreate="auto") as table:
        # The defaults serve a run of an older version that goes on while the store is upgraded.
        table.add_column(sa.Column("role", sa.Text, nullable=False, server_default="search"))
        table.add_column(sa.Column("budget", sa.Double, nullable=False, server_default="1"))
        table.drop_constraint(BEFORE, type_="unique")
        table.create_unique_constraint(AFTER, ["study_id", "candidate_key", "seed", "budget"])
        table.create_check_constraint(op.f("ck_nas_trials_role"), "role IN ('search', 'confirm')")


def downgrade() -> None:
    for name in BELOW:
        op.execute(f"DELETE FROM {name} WHERE trial_id IN (SELECT id FROM nas_trials WHERE role = 'confirm')")
    op.execute("DELETE FROM nas_trials WHERE role = 'confirm'")
    with op.batch_alter_table("nas_trials", copy_from=_trials(later=True), recreate="auto") as table:
        table.drop_constraint(op.f("ck_nas_trials_role"), type_="check")
        table.drop_constraint(AFTER, type_="unique")
        table.create_unique_constraint(BEFORE, ["study_id", "candidate_key", "seed"])
        table.drop_column("budget")
        table.drop_column("role")


def _trials(*, later: bool = False) -> sa.Table:
    """The table as it is before this revision, or behind it: SQLite does not tell the names of its constraints."""
    metadata = sa.MetaData()
    for name, key, kind in (("nas_studies", "id", sa.Integer), ("nas_candidates", "key", sa.Text)):
        sa.Table(name, metadata, sa.Column(key, kind, primary_key=True))
    added = [
        sa.Column("role", sa.Text, nullable=False, server_default="search"),
        sa.Column("budget", sa.Double, nullable=False, server_default="1"),
        sa.CheckConstraint("role IN ('search', 'confirm')", name=op.f("ck_nas_trials_role")),
        sa.UniqueConstraint("study_id", "candidate_key", "seed", "budget", name=AFTER),
    ]
    unique = [sa.UniqueConstraint("study_id", "candidate_key", "seed", name=BEFORE)]
    return sa.Table(
        "nas_trials",
        metadata,
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("candidate_key", sa.Text, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("failure_kind", sa.Text),
        sa.Column("traceback", sa.Text),
        sa.Column("optuna_number", sa.Integer),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("flops", sa.Double, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_nas_trials"),
        sa.ForeignKeyConstraint(["study_id"], ["nas_studies.id"], name="fk_nas_trials_study_id"),
        sa.ForeignKeyConstraint(["candidate_key"], ["nas_candidates.key"], name="fk_nas_trials_candidate_key"),
        sa.UniqueConstraint("study_id", "number", name="uq_nas_trials_study_id_number"),
        sa.CheckConstraint(
            "state IN ('running', 'paused', 'complete', 'failed', 'infeasible')", name=op.f("ck_nas_trials_state")
        ),
        sa.Index("ix_nas_trials_candidate_key", "candidate_key"),
        *(added if later else unique),
    )
