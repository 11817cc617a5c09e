"""Enrolment in the store: how agents come to take part, tokens, decisions, and shutting out.

Rules:
1. What was decided is not undone by an agent: a token enrols who is new or waits, never who was revoked.
2. A use of a token is counted in the transaction that enrols, so none enrols more agents than it may.
3. A signed decision counts for an agent only if it is newer than the last decision on that agent: an old
   approval that is posted again does not bring a revoked agent back.
4. At most `MAX_PENDING` agents wait: whoever reaches the broker may ask, and must not fill the database.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa

from protocol.command import OPEN_STATES, CommandState
from protocol.documents import MAX_AGENT_NAME
from protocol.enrolment import token_id
from protocol.errors import InvalidInput
from server import schema
from server.rows import AgentRow, AuditEvent, Enrolment, EnrolmentPolicy, Said, TokenRow
from server.store_base import StorePart, chunks, require_storable, storable

MAX_PENDING = 1000
_OPEN = sorted(OPEN_STATES)
_agents = schema.agents
_tokens = schema.enrolment_tokens
_NOTHING_SAID = Said()
# Made once: to build them takes longer than to run them, and a fleet has them run all the time.
_SELECT_KEYS = sa.select(_agents.c.id, _agents.c.public_key).where(
    _agents.c.id.in_(sa.bindparam("ids", expanding=True)),
    _agents.c.enrolment.in_(sa.bindparam("standings", expanding=True)),
)
_SELECT_AGENTS = sa.select(_agents).where(_agents.c.id.in_(sa.bindparam("ids", expanding=True)))
_OPERATOR = ("operator",)


class EnrolmentStore(StorePart):
    """The enrolment's part of the store."""

    def get_agent(self, agent_id: str) -> AgentRow | None:
        """Return an agent, or None."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(_agents).where(_agents.c.id == agent_id)).first()
        return None if row is None else agent_row(row)

    def get_agents(self, agent_ids: Collection[str]) -> dict[str, AgentRow]:
        """Return those of some agents that are known, by their ids."""
        with self._database.reading() as connection:
            return {
                row.id: agent_row(row)
                for ids in chunks(sorted(set(agent_ids)))
                for row in connection.execute(_SELECT_AGENTS, {"ids": ids})
            }

    def enrolled_keys(self, agent_ids: Collection[str]) -> dict[str, bytes]:
        """Return the public keys of those of some agents that are enrolled, or have just removed themselves.

        What such an agent sent before it left may come behind its last heartbeat; it can send no more.
        """
        return self._keys(agent_ids, ("enrolled", "removed"))

    def enrolled_among(self, agent_ids: Collection[str]) -> frozenset[str]:
        """Return those of some agents that are enrolled now."""
        return frozenset(self._keys(agent_ids, ("enrolled",)))

    def _keys(self, agent_ids: Collection[str], standings: tuple[Enrolment, ...]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        with self._database.reading() as connection:
            for ids in chunks(sorted(agent_ids)):
                rows = connection.execute(_SELECT_KEYS, {"ids": ids, "standings": standings})
                found.update({row.id: row.public_key for row in rows})
        return found

    def enrol_agent(
        self,
        agent_id: str,
        public_key: bytes,
        enrolment: EnrolmentPolicy,
        now: datetime,
        said: Said = _NOTHING_SAID,
    ) -> AgentRow:
        """Insert an agent unless it is known, and return it as it stands: what is known is not changed.

        Args:
            agent_id: the caller has checked that the key is its, and that the agent holds it.
            public_key: raw Ed25519, 32 bytes.
            enrolment: the configured policy: `open` lets the agent take part, else it is left pending.
            now: the server's time.
            said: what it says of itself.

        Raises:
            InvalidInput: `rate-limited` where as many wait as may.

        """
        with self._database.writing() as connection:
            is_open = enrolment == "open"
            if not is_open and self._find(connection, agent_id) is None:
                waiting = (
                    sa.select(sa.func.count()).select_from(_agents).where(_agents.c.enrolment == "pending")
                )
                if connection.execute(waiting).scalar_one() >= MAX_PENDING:
                    raise InvalidInput("rate-limited", f"{MAX_PENDING} agents wait for approval already")
            state: Enrolment = "enrolled" if is_open else "pending"
            if self._insert_agent(connection, agent_id, public_key, state, now, said=said):
                self._append_audit(connection, now, _enrolment_event(("server",), agent_id, state))
            return self._require(connection, agent_id)

    def enrol_by_token(
        self, agent_id: str, public_key: bytes, token: str, now: datetime, said: Said = _NOTHING_SAID
    ) -> AgentRow:
        """Enrol an agent that is new or waits, at the cost of one use of a token whose proof was verified.

        Raises:
            InvalidInput: `bad-token` where the token counts no more; `forbidden` for a revoked agent.

        """
        with self._database.writing() as connection:
            self._insert_agent(connection, agent_id, public_key, "pending", now, said=said)
            row = self._require(connection, agent_id)
            if row.enrolment == "enrolled":
                return row  # another login of it was quicker
            if row.enrolment == "revoked":
                raise InvalidInput("forbidden", "the agent is revoked")
            used = connection.execute(
                sa.update(_tokens)
                .where(
                    _tokens.c.id == token,
                    _tokens.c.revoked.is_(False),
                    _tokens.c.expires > now,
                    sa.or_(_tokens.c.uses.is_(None), _tokens.c.used < _tokens.c.uses),
                )
                .values(used=_tokens.c.used + 1)
            )
            if used.rowcount == 0:  # the transaction ends here, and leaves no agent
                raise InvalidInput(
                    "bad-token", f"enrolment token {token} {self._why_not(connection, token, now)}"
                )
            self._decide(connection, agent_id, "enrolled", f"token {token}", now)
            event = _enrolment_event(("server",), agent_id, "enrolled", token=token)
            self._append_audit(connection, now, event)
            return self._require(connection, agent_id)

    def note_peer(self, agent_id: str, address: str) -> None:
        """Keep where the broker saw an agent that waits."""
        with self._database.writing() as connection:
            connection.execute(
                sa.update(_agents).where(_agents.c.id == agent_id).values(peer=storable(address))
            )

    def approve_agent(
        self, agent_id: str, now: datetime, by: Sequence[str] = _OPERATOR, signed: datetime | None = None
    ) -> AgentRow:
        """Let an agent take part, also one that was revoked.

        `by` are the fingerprints of who signed, and `signed` is the time in the signed decision; without them
        the operator decides, now.

        Raises:
            InvalidInput: `not-found`; `replayed` where a later decision stands.

        """
        return self._set_enrolment(agent_id, "enrolled", by, signed, now)

    def revoke_agent(
        self, agent_id: str, now: datetime, by: Sequence[str] = _OPERATOR, signed: datetime | None = None
    ) -> AgentRow:
        """Shut an agent out; its commands that wait are cancelled.

        Raises:
            InvalidInput: `not-found`; `replayed` where a later decision stands.

        """
        return self._set_enrolment(agent_id, "revoked", by, signed, now)

    def _set_enrolment(
        self, agent_id: str, enrolment: Enrolment, by: Sequence[str], signed: datetime | None, now: datetime
    ) -> AgentRow:
        with self._database.writing() as connection:
            self._lock_commands(connection)
            row = self._find(connection, agent_id)
            if row is None:
                raise InvalidInput("not-found", f"no agent {agent_id}")
            if signed is not None and row.decided is not None and signed <= row.decided:
                if row.enrolment == enrolment and signed == row.decided:
                    return row  # the same decision again
                raise InvalidInput("replayed", f"a later decision on {agent_id} stands")
            self._decide(connection, agent_id, enrolment, ",".join(by), signed or now)
            if enrolment == "enrolled":  # who decides this has looked at what its log says
                connection.execute(
                    sa.update(schema.witnesses)
                    .where(schema.witnesses.c.agent_id == agent_id)
                    .values(earlier=None, earlier_received=None, contradicted=None, contradicting=None)
                )
            else:
                self._move_commands(
                    connection,
                    [schema.commands.c.agent_id == agent_id, schema.commands.c.state.in_(_OPEN)],
                    CommandState.CANCELLED,
                    now,
                )
            self._append_audit(connection, now, _enrolment_event(by, agent_id, enrolment))
            return self._require(connection, agent_id)

    def _decide(
        self, connection: sa.Connection, agent_id: str, enrolment: Enrolment, by: str, time: datetime
    ) -> None:
        connection.execute(
            sa.update(_agents)
            .where(_agents.c.id == agent_id)
            .values(enrolment=enrolment, enrolled_by=by, decided=time)
        )

    def _insert_agent(
        self,
        connection: sa.Connection,
        agent_id: str,
        public_key: bytes,
        enrolment: Enrolment,
        now: datetime,
        *,
        said: Said,
    ) -> bool:
        addresses = {"addresses": storable(said.addresses)} if said.addresses else {}
        return self._insert_if_absent(
            connection,
            _agents,
            id=agent_id,
            public_key=public_key,
            enrolment=enrolment,
            enrolled=now,
            enrolled_by="open" if enrolment == "enrolled" else "",
            name=storable(said.name)[:MAX_AGENT_NAME],
            tags={},
            environment=addresses,
            modules=[],
            instances=[],
        )

    def _find(self, connection: sa.Connection, agent_id: str) -> AgentRow | None:
        row = connection.execute(sa.select(_agents).where(_agents.c.id == agent_id)).first()
        return None if row is None else agent_row(row)

    def _require(self, connection: sa.Connection, agent_id: str) -> AgentRow:
        return agent_row(connection.execute(sa.select(_agents).where(_agents.c.id == agent_id)).one())

    # -- tokens

    def add_token(
        self, public_key: bytes, *, label: str, expires: datetime, uses: int | None, now: datetime
    ) -> TokenRow:
        """Keep a token that was just made, by its public key.

        Raises:
            InvalidInput: `usage` for a label that cannot be stored.

        """
        require_storable(label, "usage", "label")
        row = TokenRow(
            id=token_id(public_key),
            public_key=public_key,
            label=label,
            created=now,
            expires=expires,
            uses=uses,
            used=0,
            revoked=False,
        )
        with self._database.writing() as connection:
            self._insert_if_absent(connection, _tokens, **msgspec.structs.asdict(row))
        return row

    def get_token(self, token: str) -> TokenRow | None:
        """Return a token by its id, or None."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(_tokens).where(_tokens.c.id == token)).first()
        return None if row is None else msgspec.convert(row._mapping, TokenRow)  # noqa: SLF001  (public)

    def list_tokens(self) -> list[TokenRow]:
        """Return all tokens, the newest first."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(_tokens).order_by(_tokens.c.created.desc(), _tokens.c.id))
            return [msgspec.convert(row._mapping, TokenRow) for row in rows]  # noqa: SLF001  (public)

    def revoke_token(self, token: str) -> None:
        """Let a token count no more; agents that it enrolled stay.

        Raises:
            InvalidInput: `not-found`.

        """
        with self._database.writing() as connection:
            done = connection.execute(sa.update(_tokens).where(_tokens.c.id == token).values(revoked=True))
            if done.rowcount == 0:
                raise InvalidInput("not-found", f"no enrolment token {token}")

    def _why_not(self, connection: sa.Connection, token: str, now: datetime) -> str:
        row = connection.execute(sa.select(_tokens).where(_tokens.c.id == token)).first()
        return "is unknown" if row is None else "is " + msgspec.convert(row._mapping, TokenRow).state(now)  # noqa: SLF001


def _enrolment_event(who: Sequence[str], agent_id: str, enrolment: Enrolment, **more: str) -> AuditEvent:
    return AuditEvent(
        kind="enrolment", who=tuple(who), what={"agent": agent_id, "enrolment": enrolment, **more}
    )


def agent_row(row: sa.Row[tuple[object, ...]]) -> AgentRow:
    """Return an agent as the database has it."""
    return msgspec.convert(row._mapping, AgentRow)  # noqa: SLF001  (SQLAlchemy's public name for it)
