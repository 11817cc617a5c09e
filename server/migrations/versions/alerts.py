"""What agents saw without being asked, and how far each webhook is with it."""

import sqlalchemy as sa
from alembic import op

revision = "alerts"
down_revision = "floods"


def upgrade() -> None:
    """Make both tables."""
    sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "alerts",
        sa.Column("seq", sequence, autoincrement=True, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("agent_id", sa.String(32), nullable=False),
        sa.Column("module", sa.String(64), nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("received", sa.DateTime(timezone=True), nullable=False),
        sa.Column("envelope", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_alerts"),
        sa.UniqueConstraint("digest", name="uq_alerts_digest"),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name="fk_alerts_agent_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_alerts_agent_id_seq", "alerts", ["agent_id", "seq"])
    op.create_index("ix_alerts_received", "alerts", ["received"])
    op.create_table(
        "webhooks",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_try", sa.DateTime(timezone=True)),
        sa.Column("lease", sa.String(32), nullable=False),
        sa.Column("leased_until", sa.DateTime(timezone=True)),
        sa.Column("skipped", sa.BigInteger, nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_webhooks"),
    )
