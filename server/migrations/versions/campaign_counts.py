"""An index from which a paced action is counted without reading its commands."""

from alembic import op

revision = "campaign_counts"
down_revision = "retention"


def upgrade() -> None:
    """Add the wave to the index on actions and states."""
    op.drop_index("ix_commands_action_id_state", "commands")
    op.create_index("ix_commands_action_id_state_wave", "commands", ["action_id", "state", "wave"])
