"""What agents have signed of logs, the server's and their own: kept as it was, compared as it comes.

Of each agent there is the newest heartbeat that names heads, an earlier one of up to `EARLIER`, and, once an
agent's own log did not go on as it had said, the two heartbeats that show it. Those stay until somebody
approves the agent again: that is how a person says that they have looked.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from protocol.audit import Head, compare_heads
from protocol.errors import InvalidInput
from protocol.heartbeat import Heartbeat
from protocol.witness import read_witness
from server import schema
from server.rows import AuditEvent, WitnessRow
from server.store_base import StorePart, chunks

EARLIER = timedelta(days=7)
_witnesses = schema.witnesses
_agents = schema.agents
_audit = schema.audit


class _Kept(NamedTuple):
    """What is kept of one agent."""

    received: datetime
    envelope: bytes
    earlier: bytes | None = None
    earlier_received: datetime | None = None
    contradicted: bytes | None = None
    contradicting: bytes | None = None


class WitnessStore(StorePart):
    """The witnesses' part of the store."""

    def save_witnesses(
        self, heartbeats: Sequence[tuple[Heartbeat, bytes]], now: datetime
    ) -> list[tuple[str, str]]:
        """Keep heartbeats that name heads; each with the signed envelope that it came in, both checked.

        Returns, as (agent, problem), whose own log did not go on as they had said; that is recorded, too.
        """
        newest = {heartbeat.agent: None for heartbeat, _ in heartbeats}
        problems: list[tuple[str, str]] = []
        with self._database.writing() as connection:
            rows = self._kept(connection, sorted(newest))
            for heartbeat, envelope in heartbeats:
                rows[heartbeat.agent], problem = _follow(rows.get(heartbeat.agent), heartbeat, envelope, now)
                if problem:
                    problems.append((heartbeat.agent, problem))
            # In one order, so that two servers that save at once cannot wait for each other.
            connection.execute(
                self._upsert(),
                [{"agent_id": agent_id, **rows[agent_id]._asdict()} for agent_id in sorted(newest)],
            )
            self._append_audit(
                connection,
                now,
                *(
                    AuditEvent(
                        kind="agent-log", who=("server",), what={"agent": agent_id, "problem": problem}
                    )
                    for agent_id, problem in problems
                ),
            )
        return problems

    def _kept(self, connection: sa.Connection, agent_ids: Sequence[str]) -> dict[str, _Kept]:
        return {
            row.agent_id: _Kept(*(getattr(row, name) for name in _Kept._fields))
            for ids in chunks(agent_ids)
            for row in connection.execute(
                sa.select(_witnesses)
                .where(_witnesses.c.agent_id.in_(ids))
                .order_by(_witnesses.c.agent_id)
                .with_for_update()
            )
        }

    def _upsert(self) -> sa.Executable:
        insert = postgresql.insert if self._database.dialect == "postgresql" else sqlite.insert
        statement = insert(_witnesses)
        return statement.on_conflict_do_update(
            index_elements=[_witnesses.c.agent_id],
            set_={name: statement.excluded[name] for name in _Kept._fields},
        )

    def list_witnesses(self, after: str, limit: int) -> list[WitnessRow]:
        """Return what agents have signed of logs, in the order of their ids, behind one of them."""
        statement = (
            sa.select(_witnesses, _agents.c.name.label("agent_name"), _agents.c.public_key)
            .join(_agents, _agents.c.id == _witnesses.c.agent_id)
            .where(_witnesses.c.agent_id > after)
            .order_by(_witnesses.c.agent_id)
            .limit(limit)
        )
        with self._database.reading() as connection:
            rows = connection.execute(statement).all()
        return [msgspec.convert(row._mapping, WitnessRow) for row in rows]  # noqa: SLF001  (public name)

    def find_contradicted(self, among: Collection[str]) -> set[str]:
        """Return those of some agents whose own log did not go on as they had said."""
        found: set[str] = set()
        with self._database.reading() as connection:
            for ids in chunks(sorted(among)):
                shown = sa.select(_witnesses.c.agent_id).where(
                    _witnesses.c.agent_id.in_(ids), _witnesses.c.contradicting.is_not(None)
                )
                found |= set(connection.execute(shown).scalars())
        return found

    def find_heads(self, numbers: Collection[int]) -> dict[int, Head]:
        """Return the heads of the audit log at some entries, by their numbers."""
        found: dict[int, Head] = {}
        with self._database.reading() as connection:
            for some in chunks(sorted(numbers)):
                for row in connection.execute(
                    sa.select(_audit.c.seq, _audit.c.sha256).where(_audit.c.seq.in_(some))
                ):
                    found[row.seq] = Head(row.seq, row.sha256)
        return found


def _follow(kept: _Kept | None, heartbeat: Heartbeat, envelope: bytes, now: datetime) -> tuple[_Kept, str]:
    """Return what is kept after a heartbeat, and how it contradicts what was kept before; empty if not."""
    if kept is None:
        return _Kept(now, envelope), ""
    newest = _read(kept.envelope)
    if newest is not None and _is_older(heartbeat, newest):
        return _note(kept, envelope, kept.envelope, compare_heads(heartbeat.own_heads, newest.own_heads))
    said = ""
    for before in (kept.envelope, kept.earlier):
        told = _read(before)
        if before is not None and told is not None:
            kept, problem = _note(kept, before, envelope, compare_heads(told.own_heads, heartbeat.own_heads))
            said = said or problem
    if kept.earlier is None or kept.earlier_received is None or now - kept.earlier_received >= EARLIER:
        kept = kept._replace(earlier=kept.envelope, earlier_received=kept.received)
    return kept._replace(envelope=envelope, received=now), said


def _note(kept: _Kept, before: bytes, after: bytes, said: str) -> tuple[_Kept, str]:
    """Keep the first two heartbeats that contradict each other; later ones are not told again."""
    if not said or kept.contradicting is not None:
        return kept, ""
    return kept._replace(contradicted=before, contradicting=after), said


def _is_older(heartbeat: Heartbeat, before: Heartbeat) -> bool:
    """Tell whether a heartbeat came late or twice: neither its clock nor its log says anything new."""
    ends, ended = (one.own_heads[-1:] for one in (heartbeat, before))
    return heartbeat.time <= before.time and [head.seq for head in ends] <= [head.seq for head in ended]


def _read(envelope: bytes | None) -> Heartbeat | None:
    """Return a kept heartbeat; None where there is none, or where another version kept it."""
    try:
        return None if envelope is None else read_witness(envelope)
    except InvalidInput:
        return None
