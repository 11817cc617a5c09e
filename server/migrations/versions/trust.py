"""Trust bundles, and which one each agent says that it holds."""

import sqlalchemy as sa
from alembic import op

revision = "trust"
down_revision = "enrolment"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the table of bundles and the agents' column."""
    op.create_table(
        "trust_bundles",
        sa.Column("version", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("expires", _TIME, nullable=False),
        sa.Column("publisher", sa.String(40), nullable=False),
        sa.Column("published", _TIME, nullable=False),
        sa.Column("envelope", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_trust_bundles"),
    )
    op.add_column("agents", sa.Column("trust_version", sa.Integer))
