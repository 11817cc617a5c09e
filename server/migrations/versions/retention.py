"""What was deleted because of its age, so that it is said to be gone and not to be unknown."""

import sqlalchemy as sa
from alembic import op

revision = "retention"
down_revision = "campaigns"


def upgrade() -> None:
    """Make the table, the actions' column, and the index by which old answers are found."""
    op.create_table(
        "deleted_actions",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("deleted", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_deleted_actions"),
    )
    op.add_column("actions", sa.Column("deleted_answers", sa.Integer, nullable=False, server_default="0"))
    op.create_index("ix_results_received", "results", ["received"])
