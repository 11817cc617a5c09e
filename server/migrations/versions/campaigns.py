"""Paced actions: which wave each command goes out with, and how each action stands."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "campaigns"
down_revision = "agent_logs"

_TIME = sa.DateTime(timezone=True)
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Make the table, the commands' column, and the outbox's index."""
    op.create_table(
        "campaigns",
        sa.Column("action_id", sa.String(36), nullable=False),
        sa.Column("pacing", _JSON, nullable=False),
        sa.Column("wave", sa.Integer, nullable=False),
        sa.Column("next_release", _TIME, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["action_id"], ["actions.id"], name="fk_campaigns_action_id"),
        sa.PrimaryKeyConstraint("action_id", name="pk_campaigns"),
    )
    op.create_index("ix_campaigns_state", "campaigns", ["state"])
    op.add_column("commands", sa.Column("wave", sa.Integer, nullable=False, server_default="1"))
    op.drop_index("ix_commands_state_expireafter", "commands")
    op.create_index("ix_commands_state_expireafter_wave", "commands", ["state", "expireafter", "wave"])
