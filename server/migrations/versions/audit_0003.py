"""The audit log, and what agents have seen of it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables of the log and of its witnesses."""
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("entry", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit"),
    )
    op.create_table(
        "witnesses",
        sa.Column("agent_id", sa.String(32), nullable=False),
        sa.Column("received", sa.DateTime(timezone=True), nullable=False),
        sa.Column("envelope", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name="fk_witnesses_agent_id"),
        sa.PrimaryKeyConstraint("agent_id", name="pk_witnesses"),
    )
