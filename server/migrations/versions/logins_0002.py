"""Logins to the broker, so that none is accepted twice."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table of logins."""
    op.create_table(
        "logins",
        sa.Column("login", sa.String(64), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("login", name="pk_logins"),
    )
    op.create_index("ix_logins_time", "logins", ["time"])
