"""Until when the trust bundle that each agent holds is good, and whether it obeys anybody."""

import sqlalchemy as sa
from alembic import op

revision = "trust_state"
down_revision = "schedules"


def upgrade() -> None:
    """Make the agents' columns."""
    op.add_column("agents", sa.Column("trust_expires", sa.DateTime(timezone=True)))
    op.add_column("agents", sa.Column("trust_state", sa.String(16)))
