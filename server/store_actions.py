"""Actions in the store: what was asked, of whom, and how far it got."""

import hashlib
from collections.abc import Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa

from protocol.action import Action
from protocol.command import FINAL_STATES, CommandState
from protocol.documents import Campaign
from protocol.envelope import ACTION, MAX_SIGNATURES, Envelope, decode_envelope, encode_envelope
from protocol.errors import InvalidInput
from protocol.names import command_id
from server import schema
from server.rows import LIKE_ANY_OTHER, ActionRow, AuditEvent, CommandRow, CreatedAction, Manner, ResultRow
from server.store_base import StorePart, chunks, require_storable
from server.store_campaigns import find_campaigns, insert_campaign
from server.store_schedules import first_start

_actions = schema.actions
_commands = schema.commands
_agents = schema.agents
_results = schema.results

_SELECT_ACTIONS = (
    sa.select(
        _actions,
        schema.schedules.c.occurrence,
        schema.schedules.c.next_start,
        schema.cancels.c.cancelled,
    )
    .outerjoin(schema.schedules, schema.schedules.c.action_id == _actions.c.id)
    .outerjoin(schema.cancels, schema.cancels.c.action_id == _actions.c.id)
)
MAX_PAGE_BYTES = 8 << 20
_FETCH = 16  # rows; one answer may have more than a megabyte


class ActionStore(StorePart):
    """The actions' part of the store."""

    def create_action(  # noqa: PLR0917  (an action, who signed it, who brought it, whom it is for)
        self,
        action: Action,
        envelope_bytes: bytes,
        digest: str,
        signers: Sequence[str],
        submitter: str,
        agent_ids: Sequence[str],
        now: datetime,
        *,
        manner: Manner = LIKE_ANY_OTHER,
    ) -> CreatedAction:
        """Store an action with one pending command per agent, in one transaction.

        Of one with a schedule the commands are made when its occurrences are started.
        Agents that are not enrolled get none. The same payload again changes nothing, unless it brings a
        signature by somebody who had not signed: then commands that agents refused are pending again.

        Args:
            action: the decoded payload.
            envelope_bytes: the envelope with that payload; the caller has verified every signature in it.
            digest: SHA-256 of the payload.
            signers: primary fingerprints, each once.
            submitter: the fingerprint of the session that brought it.
            agent_ids: who is meant.
            now: the server's time.
            manner: how it is to be sent. Paced commands are held back, and pacing that comes with the same
                payload again changes nothing.

        Raises:
            InvalidInput: `conflict` where the id is there with another payload, `bad-action`.

        """
        require_storable(action.name, "bad-action", "name")
        require_storable(action.target, "bad-action", "target")
        with self._database.writing() as connection:
            self._lock_commands(connection)
            is_new = self._insert_if_absent(
                connection,
                _actions,
                id=action.id,
                name=action.name,
                target=action.target,
                validfrom=action.validfrom,
                expireafter=action.expireafter,
                created=now,
                digest=digest,
                signers=sorted(signers),
                submitter=submitter,
                envelope=envelope_bytes,
            )
            if not is_new:
                envelope = decode_envelope(envelope_bytes, ACTION)
                return self._add_signatures(connection, action.id, envelope, signers, submitter, now)
            enrolled = [] if action.schedule is not None else _enrolled(connection, agent_ids)
            if manner.pacing is not None:  # no neighbours by name, rack or subnet in one wave
                enrolled.sort(key=lambda agent_id: command_id(action.id, agent_id, ""))
            if action.schedule is not None:
                start = {"next_start": first_start(action, now), "occurrence": ""}
                connection.execute(sa.insert(schema.schedules).values(action_id=action.id, **start))
            if enrolled:
                connection.execute(
                    sa.insert(_commands),
                    [
                        {
                            "id": command_id(action.id, agent_id, ""),
                            "action_id": action.id,
                            "agent_id": agent_id,
                            "occurrence": "",
                            "state": CommandState.PENDING.value,
                            "updated": now,
                            "expireafter": action.expireafter,
                            "wave": 1 if manner.pacing is None else 0,
                        }
                        for agent_id in enrolled
                    ],
                )
            if manner.pacing is not None:
                insert_campaign(connection, action.id, manner.pacing, now)
            asked = {"action": action.id, "sha256": digest, "signers": sorted(signers)}
            whom = {"commands": len(enrolled), "agents_sha256": _digest_of_ids(enrolled)}
            how: dict[str, object] = {"all_agents": True} if manner.is_wide else {}
            if manner.pacing is not None:
                how["pacing"] = msgspec.to_builtins(manner.pacing)
            self._append_audit(
                connection, now, AuditEvent(kind="action", who=(submitter,), what={**asked, **whom, **how})
            )
        return CreatedAction(commands=len(enrolled), is_new=True)

    def _add_signatures(  # noqa: PLR0917  (an action, who signed it, who brought it)
        self,
        connection: sa.Connection,
        action_id: str,
        envelope: Envelope,
        signers: Sequence[str],
        submitter: str,
        now: datetime,
    ) -> CreatedAction:
        stored = connection.execute(sa.select(_actions).where(_actions.c.id == action_id)).one()
        if stored.digest != envelope.digest:
            raise InvalidInput("conflict", f"action {action_id} is there with another payload")
        if set(signers) <= set(stored.signers):
            return CreatedAction(commands=0, is_new=False)
        signatures = decode_envelope(stored.envelope, ACTION).signatures + tuple(
            signature for signature in envelope.signatures if signature.keyid not in stored.signers
        )
        if len(signatures) > MAX_SIGNATURES:
            raise InvalidInput(
                "bad-envelope", f"{len(signatures)} signatures, at most {MAX_SIGNATURES} allowed"
            )
        connection.execute(
            sa.update(_actions)
            .where(_actions.c.id == action_id)
            .values(
                envelope=encode_envelope(envelope._replace(signatures=signatures)),
                signers=sorted({*stored.signers, *signers}),
            )
        )
        refused = [_commands.c.action_id == action_id, _commands.c.state == CommandState.REFUSED.value]
        changes = self._move_commands(connection, refused, CommandState.PENDING, now)
        added = {"action": action_id, "sha256": stored.digest, "signers": sorted(signers)}
        again = {**added, "commands": len(changes)}
        self._append_audit(connection, now, AuditEvent(kind="signature", who=(submitter,), what=again))
        return CreatedAction(commands=len(changes), is_new=False)

    def list_actions(self, limit: int, offset: int) -> tuple[int, list[ActionRow]]:
        """Return how many actions there are and one page of them, the newest first."""
        with self._database.reading() as connection:
            total = connection.execute(sa.select(sa.func.count()).select_from(_actions)).scalar_one()
            rows = connection.execute(
                _SELECT_ACTIONS.order_by(_actions.c.created.desc(), _actions.c.id.desc())
                .limit(limit)
                .offset(offset)
            ).all()
            counts = _count_commands(connection, [row.id for row in rows])
            campaigns = find_campaigns(connection, [row.id for row in rows])
        return total, [_action_row(row, counts.get(row.id, {}), campaigns.get(row.id)) for row in rows]

    def get_action(self, action_id: str) -> ActionRow | None:
        """Return an action, or None."""
        with self._database.reading() as connection:
            row = connection.execute(_SELECT_ACTIONS.where(_actions.c.id == action_id)).first()
            if row is None:
                return None
            counts = _count_commands(connection, [action_id]).get(action_id, {})
            return _action_row(row, counts, find_campaigns(connection, [action_id]).get(action_id))

    def list_commands(self, action_id: str, occurrence: str | None = None) -> list[CommandRow]:
        """Return the roster of an action, or of one occurrence of it, ordered by the agents' names."""
        statement = (
            sa.select(_commands, _agents.c.name.label("agent_name"))
            .join(_agents, _agents.c.id == _commands.c.agent_id)
            .where(_commands.c.action_id == action_id)
            .order_by(_commands.c.occurrence, _agents.c.name, _agents.c.id)
        )
        if occurrence is not None:
            statement = statement.where(_commands.c.occurrence == occurrence)
        with self._database.reading() as connection:
            rows = connection.execute(statement).all()
        return [msgspec.convert(row._mapping, CommandRow) for row in rows]  # noqa: SLF001  (public name)

    def open_commands(self, action_id: str) -> set[str]:
        """Return the ids of the commands of an action that have not ended."""
        open_states = [state.value for state in CommandState if state not in FINAL_STATES]
        with self._database.reading() as connection:
            return set(
                connection.execute(
                    sa.select(_commands.c.id).where(
                        _commands.c.action_id == action_id, _commands.c.state.in_(open_states)
                    )
                ).scalars()
            )

    def count_commands(self, action_id: str) -> dict[str, int]:
        """Return how many commands of an action are in each state."""
        with self._database.reading() as connection:
            return _count_commands(connection, [action_id]).get(action_id, {})

    def list_results(
        self, action_id: str, after: int, limit: int, occurrence: str | None = None
    ) -> list[ResultRow]:
        """Return the answers to an action, or one occurrence, with a `seq` above `after`, in its order.

        At most `limit`, and no more once they have `MAX_PAGE_BYTES`; one at least, where there is one.
        """
        statement = (
            sa.select(
                _results, _agents.c.name.label("agent_name"), _agents.c.public_key, _commands.c.occurrence
            )
            .join(_agents, _agents.c.id == _results.c.agent_id)
            .join(_commands, _commands.c.id == _results.c.command_id)
            .where(_results.c.action_id == action_id, _results.c.seq > after)
            .order_by(_results.c.seq)
            .limit(limit)
        )
        if occurrence is not None:
            statement = statement.where(_commands.c.occurrence == occurrence)
        page: list[ResultRow] = []
        size = 0
        with (
            self._database.reading() as connection,
            connection.execution_options(yield_per=_FETCH).execute(statement) as rows,
        ):
            for row in rows:
                page.append(msgspec.convert(row._mapping, ResultRow))  # noqa: SLF001  (public name)
                size += len(page[-1].envelope)
                if size >= MAX_PAGE_BYTES:
                    break
        return page


def _enrolled(connection: sa.Connection, agent_ids: Sequence[str]) -> list[str]:
    distinct = list(dict.fromkeys(agent_ids))
    return [
        row.id
        for ids in chunks(distinct)
        for row in connection.execute(
            sa.select(_agents.c.id).where(_agents.c.id.in_(ids), _agents.c.enrolment == "enrolled")
        )
    ]


def _digest_of_ids(ids: Sequence[str]) -> str:
    """Return the SHA-256 over ids, sorted, each with a line end: whom an action was for."""
    return hashlib.sha256("".join(f"{ident}\n" for ident in sorted(ids)).encode("ascii")).hexdigest()


def _count_commands(connection: sa.Connection, action_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for row in connection.execute(
        sa.select(_commands.c.action_id, _commands.c.state, sa.func.count().label("number"))
        .where(_commands.c.action_id.in_(action_ids))
        .group_by(_commands.c.action_id, _commands.c.state)
    ):
        counts.setdefault(row.action_id, {})[row.state] = row.number
    return counts


def _action_row(
    row: sa.Row[tuple[object, ...]], counts: dict[str, int], campaign: Campaign | None
) -> ActionRow:
    columns = {str(key): value for key, value in row._mapping.items()}  # noqa: SLF001  (public name)
    return msgspec.convert({**columns, "counts": counts, "campaign": campaign}, ActionRow)
