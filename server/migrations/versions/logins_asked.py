"""How often the broker has asked about each login: one that keeps permissions asks twice."""

import sqlalchemy as sa
from alembic import op

revision = "logins_asked"
down_revision = "alerts"


def upgrade() -> None:
    """Make the column."""
    op.add_column("logins", sa.Column("asked", sa.SmallInteger, nullable=False, server_default="1"))
