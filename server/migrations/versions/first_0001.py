"""The first tables: agents, investigators, sessions, actions, commands, results."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

_TIME = sa.DateTime(timezone=True)
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Make the tables in the order of their references."""
    _make_agents()
    _make_investigators()
    _make_actions()
    _make_commands()
    _make_results()


def _make_agents() -> None:
    op.create_table(
        "agents",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("enrolment", sa.String(16), nullable=False),
        sa.Column("enrolled", _TIME, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("os", sa.Text, nullable=False),
        sa.Column("arch", sa.Text, nullable=False),
        sa.Column("ident", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("heartbeattime", _TIME),
        sa.Column("clock_skew_s", sa.Float),
        sa.Column("tags", _JSON, nullable=False),
        sa.Column("environment", _JSON, nullable=False),
        sa.Column("modules", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_agents"),
    )
    op.create_index("ix_agents_heartbeattime", "agents", ["heartbeattime"])
    op.create_index("ix_agents_name", "agents", ["name"])


def _make_investigators() -> None:
    op.create_table(
        "investigators",
        sa.Column("fingerprint", sa.String(40), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("rights", _JSON, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_investigators"),
    )
    op.create_table(
        "sessions",
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("fingerprint", sa.String(40), nullable=False),
        sa.Column("expires", _TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["fingerprint"], ["investigators.fingerprint"], name="fk_sessions_fingerprint"
        ),
        sa.PrimaryKeyConstraint("token_hash", name="pk_sessions"),
    )
    op.create_index("ix_sessions_expires", "sessions", ["expires"])
    op.create_index("ix_sessions_fingerprint", "sessions", ["fingerprint"])


def _make_actions() -> None:
    op.create_table(
        "actions",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("validfrom", _TIME, nullable=False),
        sa.Column("expireafter", _TIME, nullable=False),
        sa.Column("created", _TIME, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("signers", _JSON, nullable=False),
        sa.Column("submitter", sa.String(40), nullable=False),
        sa.Column("envelope", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_actions"),
    )
    op.create_index("ix_actions_created_id", "actions", ["created", "id"])


def _make_commands() -> None:
    op.create_table(
        "commands",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("action_id", sa.String(36), nullable=False),
        sa.Column("agent_id", sa.String(32), nullable=False),
        sa.Column("occurrence", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("updated", _TIME, nullable=False),
        sa.Column("expireafter", _TIME, nullable=False),
        sa.Column("problem", _JSON),
        sa.ForeignKeyConstraint(["action_id"], ["actions.id"], name="fk_commands_action_id"),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name="fk_commands_agent_id"),
        sa.PrimaryKeyConstraint("id", name="pk_commands"),
    )
    op.create_index("ix_commands_action_id_state", "commands", ["action_id", "state"])
    op.create_index("ix_commands_agent_id_state", "commands", ["agent_id", "state"])
    op.create_index("ix_commands_state_expireafter", "commands", ["state", "expireafter"])


def _make_results() -> None:
    op.create_table(
        "results",
        sa.Column(
            "seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("command_id", sa.String(32), nullable=False),
        sa.Column("action_id", sa.String(36), nullable=False),
        sa.Column("agent_id", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("found", sa.Boolean, nullable=False),
        sa.Column("started", _TIME, nullable=False),
        sa.Column("finished", _TIME, nullable=False),
        sa.Column("received", _TIME, nullable=False),
        sa.Column("envelope", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(["command_id"], ["commands.id"], name="fk_results_command_id"),
        sa.ForeignKeyConstraint(["action_id"], ["actions.id"], name="fk_results_action_id"),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name="fk_results_agent_id"),
        sa.PrimaryKeyConstraint("seq", name="pk_results"),
        sa.UniqueConstraint("command_id", name="uq_results_command_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_results_action_id_seq", "results", ["action_id", "seq"])
