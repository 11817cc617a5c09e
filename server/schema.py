"""The database's tables, for SQLite and PostgreSQL alike.

The migrations make them; a test holds both to each other. Times are aware UTC; documents that somebody signed
are kept as the bytes that came, beside the few columns that are searched.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeDecorator


class UtcTime(TypeDecorator[datetime]):
    """Aware UTC times; SQLite keeps them as text of fixed width, so they compare as text.

    There `datetime` itself writes and reads them: SQLAlchemy's way to the same text takes ten times as long,
    and an answer has four.
    """

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[Any], Any] | None:
        """Return what turns an aware time into the driver's value."""
        return _write_time if dialect.name == "sqlite" else super().bind_processor(dialect)

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[Any], Any] | None:
        """Return what turns the driver's value into an aware time."""
        return _read_time if dialect.name == "sqlite" else super().result_processor(dialect, coltype)

    def process_bind_param(self, value: datetime | None, _dialect: sa.Dialect) -> datetime | None:
        """Turn an aware time into what PostgreSQL keeps."""
        return None if value is None else _require_aware(value).astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: sa.Dialect) -> datetime | None:
        """Turn what PostgreSQL keeps into an aware UTC time."""
        return None if value is None else value.astimezone(UTC)


def _write_time(value: datetime | None) -> str | None:
    if value is None:
        return None
    return _require_aware(value).astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def _read_time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)


def _require_aware(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise TypeError("a time without a time zone")  # a programming error
    return value


JSON_VALUE = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
# SQLite counts up only in a column that is exactly INTEGER PRIMARY KEY.
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

agents = sa.Table(
    "agents",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("public_key", sa.LargeBinary, nullable=False),
    sa.Column("enrolment", sa.String(16), nullable=False),  # enrolled, pending, revoked, removed
    sa.Column("enrolled", UtcTime, nullable=False),
    # From the latest heartbeat; heartbeattime is the server's clock, clock_skew_s the agent's minus ours.
    sa.Column("name", sa.Text, nullable=False, default=""),
    sa.Column("os", sa.Text, nullable=False, default=""),
    sa.Column("arch", sa.Text, nullable=False, default=""),
    sa.Column("ident", sa.Text, nullable=False, default=""),
    sa.Column("version", sa.Text, nullable=False, default=""),
    sa.Column("heartbeattime", UtcTime),
    sa.Column("clock_skew_s", sa.Float),
    sa.Column("tags", JSON_VALUE, nullable=False),
    sa.Column("environment", JSON_VALUE, nullable=False),
    sa.Column("modules", JSON_VALUE, nullable=False),
    sa.Column("trust_version", sa.Integer),  # of the bundle it holds, 0 is baked in; null: unknown, or lost
    sa.Column("trust_expires", UtcTime),  # by its own word, as what follows
    sa.Column("trust_state", sa.String(16)),  # in-force, expired, missing; null: unknown
    # How it came to take part, and when that was last decided: an older signed decision counts no more.
    sa.Column("enrolled_by", sa.Text, nullable=False, server_default=""),
    sa.Column("decided", UtcTime),
    sa.Column(
        "peer", sa.Text, nullable=False, server_default=""
    ),  # where the broker saw it wait, not its word
    # Processes that spoke under this id, the latest last; a second one that lives is seen by them.
    sa.Column("instances", JSON_VALUE, nullable=False, server_default="[]"),
    sa.Column("duplicated", UtcTime),
    sa.Column("flooded", UtcTime),  # when it was last cut off for sending too much
    sa.Index(None, "heartbeattime"),
    sa.Index(None, "name"),
)

investigators = sa.Table(
    "investigators",
    metadata,
    sa.Column("fingerprint", sa.String(40), primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("public_key", sa.LargeBinary, nullable=False),
    sa.Column("rights", JSON_VALUE, nullable=False),  # of: read, submit, manage
    sa.Column("status", sa.String(16), nullable=False),  # active, disabled
    sa.Column("created", UtcTime, nullable=False),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("token_hash", sa.String(64), primary_key=True),
    sa.Column("fingerprint", sa.ForeignKey("investigators.fingerprint"), nullable=False),
    sa.Column("expires", UtcTime, nullable=False),
    sa.Index(None, "expires"),
    sa.Index(None, "fingerprint"),
)

actions = sa.Table(
    "actions",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("validfrom", UtcTime, nullable=False),
    sa.Column("expireafter", UtcTime, nullable=False),
    sa.Column("created", UtcTime, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("signers", JSON_VALUE, nullable=False),
    sa.Column("submitter", sa.String(40), nullable=False),
    sa.Column("envelope", sa.LargeBinary, nullable=False),
    sa.Column("deleted_answers", sa.Integer, nullable=False, server_default="0"),  # because of their age
    sa.Index(None, "created", "id"),
)

commands = sa.Table(
    "commands",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("action_id", sa.ForeignKey("actions.id"), nullable=False),
    sa.Column("agent_id", sa.ForeignKey("agents.id"), nullable=False),
    sa.Column("occurrence", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # protocol.command.CommandState
    sa.Column("updated", UtcTime, nullable=False),
    sa.Column("expireafter", UtcTime, nullable=False),  # the action's, kept here for the index
    sa.Column("problem", JSON_VALUE),  # code, step, detail of a command that did not run
    # Of a paced action the wave that it went out with, from 1, and 0 while it is held back; else 1.
    sa.Column("wave", sa.Integer, nullable=False, server_default="1"),
    # With the wave, so that the outbox passes by what is held back without reading its rows.
    sa.Index(None, "state", "expireafter", "wave"),
    sa.Index(None, "action_id", "state", "wave"),
    sa.Index(None, "agent_id", "state"),
)

results = sa.Table(
    "results",
    metadata,
    # Rises with every commit (see StorePart.lock_commands), so a follower resumes behind the last one it saw.
    sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
    sa.Column("command_id", sa.ForeignKey("commands.id"), nullable=False),
    sa.Column("action_id", sa.ForeignKey("actions.id"), nullable=False),
    sa.Column("agent_id", sa.ForeignKey("agents.id"), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    # Unknown where the answer is sealed.
    sa.Column("found", sa.Boolean),
    sa.Column("started", UtcTime),
    sa.Column("finished", UtcTime),
    sa.Column("received", UtcTime, nullable=False),
    sa.Column("envelope", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("command_id"),
    sa.Index(None, "action_id", "seq"),
    sa.Index(None, "received"),
    sqlite_autoincrement=True,  # never gives a deleted row's number again
)

# The audit log, one hash chain for all servers (protocol.audit): exact bytes, only ever appended.
audit = sa.Table(
    "audit",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("entry", sa.LargeBinary, nullable=False),
)

# What each agent last signed of logs' heads: its heartbeat, as it came; an earlier one; and two of which the
# second contradicts the first about the agent's own log.
witnesses = sa.Table(
    "witnesses",
    metadata,
    sa.Column("agent_id", sa.ForeignKey("agents.id"), primary_key=True),
    sa.Column("received", UtcTime, nullable=False),
    sa.Column("envelope", sa.LargeBinary, nullable=False),
    sa.Column("earlier", sa.LargeBinary),
    sa.Column("earlier_received", UtcTime),
    sa.Column("contradicted", sa.LargeBinary),
    sa.Column("contradicting", sa.LargeBinary),
)

# Logins to the broker that could still be repeated: each is accepted once, in so many questions.
logins = sa.Table(
    "logins",
    metadata,
    sa.Column("login", sa.String(64), primary_key=True),  # the agent's id and the nonce, 32 hex digits each
    sa.Column("time", UtcTime, nullable=False),  # by the agent's clock; too old a login is refused by it
    sa.Column("asked", sa.SmallInteger, nullable=False, server_default="1"),
    sa.Column("since", UtcTime),  # the first question, by our clock; unknown of those of an earlier version
    sa.Index(None, "time"),
)

# Enrolment tokens: of each only the public key, so that who reads this table can enrol nobody.
enrolment_tokens = sa.Table(
    "enrolment_tokens",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("public_key", sa.LargeBinary, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("created", UtcTime, nullable=False),
    sa.Column("expires", UtcTime, nullable=False),
    sa.Column("uses", sa.Integer),  # NULL: any number
    sa.Column("used", sa.Integer, nullable=False),
    sa.Column("revoked", sa.Boolean, nullable=False),
)

# Kept as they came; agents get the newest.
trust_bundles = sa.Table(
    "trust_bundles",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("expires", UtcTime, nullable=False),
    sa.Column("publisher", sa.String(40), nullable=False),
    sa.Column("published", UtcTime, nullable=False),
    sa.Column("envelope", sa.LargeBinary, nullable=False),
)

# Of each action that recurs: when its next occurrence is to be started (null: never again), which one was
# started last, and until when that is due.
schedules = sa.Table(
    "schedules",
    metadata,
    sa.Column("action_id", sa.ForeignKey("actions.id"), primary_key=True),
    sa.Column("next_start", UtcTime),
    sa.Column("occurrence", sa.String(64), nullable=False),
    sa.Column("due_until", UtcTime),
    sa.Index(None, "next_start"),
    sa.Index(None, "due_until"),
)

# `unsent` are the agents whose queues have not taken the cancel yet.
cancels = sa.Table(
    "cancels",
    metadata,
    sa.Column("action_id", sa.ForeignKey("actions.id"), primary_key=True),
    sa.Column("cancelled", UtcTime, nullable=False),
    sa.Column("signers", JSON_VALUE, nullable=False),
    sa.Column("envelope", sa.LargeBinary, nullable=False),
    sa.Column("unsent", JSON_VALUE, nullable=False),
    sa.Column("is_sent", sa.Boolean, nullable=False),
    sa.Index(None, "is_sent"),
)

# Of each paced action: how it was to be paced, and how far it is (server.pacing).
campaigns = sa.Table(
    "campaigns",
    metadata,
    sa.Column("action_id", sa.ForeignKey("actions.id"), primary_key=True),
    sa.Column("pacing", JSON_VALUE, nullable=False),
    sa.Column("wave", sa.Integer, nullable=False),
    sa.Column("next_release", UtcTime, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # running, ended, stopped
    sa.Column("reason", sa.Text, nullable=False),
    sa.Index(None, "state"),
)

# Actions that were deleted because of their age.
deleted_actions = sa.Table(
    "deleted_actions",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("deleted", UtcTime, nullable=False),
)

# What agents saw without being asked, as they signed it; the columns beside it are what is searched.
alerts = sa.Table(
    "alerts",
    metadata,
    # Rises with every commit (server.store_alerts), so that a reader resumes behind the last one it saw.
    sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("agent_id", sa.ForeignKey("agents.id"), nullable=False),
    sa.Column("module", sa.String(64), nullable=False),
    sa.Column("severity", sa.String(16), nullable=False),
    sa.Column("received", UtcTime, nullable=False),
    sa.Column("envelope", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("digest"),
    sa.Index(None, "agent_id", "seq"),
    sa.Index(None, "received"),
    sqlite_autoincrement=True,  # never gives a deleted row's number again
)

# How far each webhook is: all alerts up to `position` are dealt with. One server at a time holds the lease.
webhooks = sa.Table(
    "webhooks",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),  # of the alert that is next
    sa.Column("next_try", UtcTime),
    sa.Column("lease", sa.String(32), nullable=False),
    sa.Column("leased_until", UtcTime),
    sa.Column("skipped", sa.BigInteger, nullable=False),  # passed over, and not told yet
    sa.Column("problem", sa.Text, nullable=False),
)
