"""When each agent was cut off for flooding."""

import sqlalchemy as sa
from alembic import op

revision = "floods"
down_revision = "campaign_counts"


def upgrade() -> None:
    """Make the agents' column."""
    op.add_column("agents", sa.Column("flooded", sa.DateTime(timezone=True)))
