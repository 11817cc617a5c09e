"""Schedules of recurring actions, and cancels."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "schedules"
down_revision = "sealed"

_TIME = sa.DateTime(timezone=True)
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Make the two tables."""
    op.create_table(
        "schedules",
        sa.Column("action_id", sa.String(36), nullable=False),
        sa.Column("next_start", _TIME),
        sa.Column("occurrence", sa.String(64), nullable=False),
        sa.Column("due_until", _TIME),
        sa.ForeignKeyConstraint(["action_id"], ["actions.id"], name="fk_schedules_action_id"),
        sa.PrimaryKeyConstraint("action_id", name="pk_schedules"),
    )
    op.create_index("ix_schedules_next_start", "schedules", ["next_start"])
    op.create_index("ix_schedules_due_until", "schedules", ["due_until"])
    op.create_table(
        "cancels",
        sa.Column("action_id", sa.String(36), nullable=False),
        sa.Column("cancelled", _TIME, nullable=False),
        sa.Column("signers", _JSON, nullable=False),
        sa.Column("envelope", sa.LargeBinary, nullable=False),
        sa.Column("unsent", _JSON, nullable=False),
        sa.Column("is_sent", sa.Boolean, nullable=False),
        sa.ForeignKeyConstraint(["action_id"], ["actions.id"], name="fk_cancels_action_id"),
        sa.PrimaryKeyConstraint("action_id", name="pk_cancels"),
    )
    op.create_index("ix_cancels_is_sent", "cancels", ["is_sent"])
