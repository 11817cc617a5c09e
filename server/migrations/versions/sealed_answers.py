"""Sealed answers: what the platform cannot read of an answer is unknown to it."""

import sqlalchemy as sa
from alembic import op

revision = "sealed"
down_revision = "trust"


def upgrade() -> None:
    """Let an answer be kept without what was found, and when it ran."""
    with op.batch_alter_table("results", table_kwargs={"sqlite_autoincrement": True}) as results:
        results.alter_column("found", existing_type=sa.Boolean, nullable=True)
        for name in ("started", "finished"):
            results.alter_column(name, existing_type=sa.DateTime(timezone=True), nullable=True)
