"""The first tables.

Revision ID: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_studies()
    _create_candidates()
    _create_trials()
    _create_measurements()
    _create_fronts()


def downgrade() -> None:
    for table in (
        "nas_decisions",
        "nas_environments",
        "nas_front_members",
        "nas_fronts",
        "nas_checkpoints",
        "nas_memory",
        "nas_measurements",
        "nas_values",
        "nas_trials",
        "nas_candidates",
        "nas_architectures",
        "nas_studies",
    ):
        op.drop_table(table)


def _create_studies() -> None:
    op.create_table(
        "nas_studies",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("resolved", sa.JSON, nullable=False),
        sa.Column("objectives", sa.JSON, nullable=False),
        sa.Column("duplicates", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_nas_studies"),
        sa.UniqueConstraint("name", name="uq_nas_studies_name"),
    )
    op.create_table(
        "nas_environments",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("versions", sa.JSON, nullable=False),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("git_commit", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_nas_environments"),
        sa.ForeignKeyConstraint(["study_id"], ["nas_studies.id"], name="fk_nas_environments_study_id"),
    )
    op.create_index("ix_nas_environments_study_id", "nas_environments", ["study_id"])


def _create_candidates() -> None:
    op.create_table(
        "nas_architectures",
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("json", sa.Text, nullable=False),
        sa.Column("family", sa.Text, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("depth", sa.Integer, nullable=False),
        sa.Column("max_context", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_nas_architectures"),
    )
    op.create_table(
        "nas_candidates",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("training", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_nas_candidates"),
        sa.ForeignKeyConstraint(
            ["fingerprint"], ["nas_architectures.fingerprint"], name="fk_nas_candidates_fingerprint"
        ),
    )
    op.create_index("ix_nas_candidates_fingerprint", "nas_candidates", ["fingerprint"])


def _create_trials() -> None:
    op.create_table(
        "nas_trials",
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
        sa.UniqueConstraint("study_id", "candidate_key", "seed", name="uq_nas_trials_study_id_candidate_key_seed"),
        sa.CheckConstraint(
            "state IN ('running', 'paused', 'complete', 'failed', 'infeasible')",
            name=op.f("ck_nas_trials_state"),
        ),
    )
    op.create_index("ix_nas_trials_candidate_key", "nas_trials", ["candidate_key"])
    op.create_table(
        "nas_values",
        sa.Column("trial_id", sa.Integer, nullable=False),
        sa.Column("objective", sa.Text, nullable=False),
        sa.Column("value", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("trial_id", "objective", name="pk_nas_values"),
        sa.ForeignKeyConstraint(["trial_id"], ["nas_trials.id"], name="fk_nas_values_trial_id"),
    )
    op.create_table(
        "nas_checkpoints",
        sa.Column("trial_id", sa.Integer, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("trial_id", "step", name="pk_nas_checkpoints"),
        sa.ForeignKeyConstraint(["trial_id"], ["nas_trials.id"], name="fk_nas_checkpoints_trial_id"),
    )


def _create_measurements() -> None:
    op.create_table(
        "nas_measurements",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("trial_id", sa.Integer, nullable=False),
        sa.Column("metric", sa.Text, nullable=False),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("context", sa.Integer),
        sa.Column("split", sa.Text, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_nas_measurements"),
        sa.ForeignKeyConstraint(["trial_id"], ["nas_trials.id"], name="fk_nas_measurements_trial_id"),
    )
    op.create_index("ix_nas_measurements_trial_id", "nas_measurements", ["trial_id"])
    op.create_table(
        "nas_memory",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("trial_id", sa.Integer, nullable=False),
        sa.Column("figure", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("batch", sa.Integer, nullable=False),
        sa.Column("context", sa.Integer),
        sa.Column("dtype", sa.Text, nullable=False),
        sa.Column("device", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_nas_memory"),
        sa.ForeignKeyConstraint(["trial_id"], ["nas_trials.id"], name="fk_nas_memory_trial_id"),
    )
    op.create_index("ix_nas_memory_trial_id", "nas_memory", ["trial_id"])
    op.create_table(
        "nas_decisions",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("trial_id", sa.Integer, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_nas_decisions"),
        sa.ForeignKeyConstraint(["trial_id"], ["nas_trials.id"], name="fk_nas_decisions_trial_id"),
    )
    op.create_index("ix_nas_decisions_trial_id", "nas_decisions", ["trial_id"])


def _create_fronts() -> None:
    op.create_table(
        "nas_fronts",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("trials_done", sa.Integer, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("hypervolume", sa.Double, nullable=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_nas_fronts"),
        sa.ForeignKeyConstraint(["study_id"], ["nas_studies.id"], name="fk_nas_fronts_study_id"),
        sa.UniqueConstraint("study_id", "sequence", name="uq_nas_fronts_study_id_sequence"),
    )
    op.create_table(
        "nas_front_members",
        sa.Column("front_id", sa.Integer, nullable=False),
        sa.Column("trial_id", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("front_id", "trial_id", name="pk_nas_front_members"),
        sa.ForeignKeyConstraint(["front_id"], ["nas_fronts.id"], name="fk_nas_front_members_front_id"),
        sa.ForeignKeyConstraint(["trial_id"], ["nas_trials.id"], name="fk_nas_front_members_trial_id"),
    )
