"""Of each agent's own log: an older heartbeat that names its heads, and two that contradict each other."""

import sqlalchemy as sa
from alembic import op

revision = "agent_logs"
down_revision = "trust_state"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the witnesses' columns."""
    op.add_column("witnesses", sa.Column("earlier", sa.LargeBinary))
    op.add_column("witnesses", sa.Column("earlier_received", _TIME))
    op.add_column("witnesses", sa.Column("contradicted", sa.LargeBinary))
    op.add_column("witnesses", sa.Column("contradicting", sa.LargeBinary))
