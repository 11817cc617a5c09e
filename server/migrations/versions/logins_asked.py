"""How often the broker has asked about each login, and since when: one that keeps permissions asks twice."""

import sqlalchemy as sa
from alembic import op

revision = "logins_asked"
down_revision = "alerts"


def upgrade() -> None:
    """Make the columns."""
    op.add_column("logins", sa.Column("asked", sa.SmallInteger, nullable=False, server_default="1"))
    op.add_column("logins", sa.Column("since", sa.DateTime(timezone=True)))
