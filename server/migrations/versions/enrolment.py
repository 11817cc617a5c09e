"""Enrolment tokens; how each agent came to take part, and what tells two processes under one id apart."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "enrolment"
down_revision = "0003"

_TIME = sa.DateTime(timezone=True)
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Make the table of tokens, and add columns to the agents."""
    op.create_table(
        "enrolment_tokens",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("created", _TIME, nullable=False),
        sa.Column("expires", _TIME, nullable=False),
        sa.Column("uses", sa.Integer),
        sa.Column("used", sa.Integer, nullable=False),
        sa.Column("revoked", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_enrolment_tokens"),
    )
    for column in (
        sa.Column("enrolled_by", sa.Text, nullable=False, server_default=""),
        sa.Column("decided", _TIME),
        sa.Column("peer", sa.Text, nullable=False, server_default=""),
        sa.Column("instances", _JSON, nullable=False, server_default="[]"),
        sa.Column("duplicated", _TIME),
    ):
        op.add_column("agents", column)
