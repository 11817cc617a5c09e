"""Paced actions in the store: what is held back, what is let out, what is stopped (`server.pacing`).

All of a campaign's state is here, and one transaction decides and does: servers that look at once cannot let
out the same place twice, and one that dies in between has done nothing or all of it.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from protocol.command import OPEN_STATES, CommandState
from protocol.documents import Campaign, Pacing
from server import schema
from server.pacing import Decision, Standing, decide
from server.rows import ONLINE_S, Advanced, AuditEvent, Change
from server.store_base import StorePart, chunks

_campaigns = schema.campaigns
_commands = schema.commands
_agents = schema.agents

_FAILED = (CommandState.FAILED.value, CommandState.TIMED_OUT.value, CommandState.REFUSED.value)
_ANSWERED = (CommandState.DONE.value, *_FAILED)
_OPEN = sorted(state.value for state in OPEN_STATES)
_PENDING, _SENT = CommandState.PENDING.value, CommandState.SENT.value
STOPPED = "stopped"


class CampaignStore(StorePart):
    """The paced actions' part of the store."""

    def running_campaigns(self) -> list[str]:
        """Return the actions of which something may be held back."""
        with self._database.reading() as connection:
            return list(
                connection.execute(
                    sa.select(_campaigns.c.action_id)
                    .where(_campaigns.c.state == "running")
                    .order_by(_campaigns.c.action_id)
                ).scalars()
            )

    def get_campaign(self, action_id: str) -> Campaign | None:
        """Return how a paced action stands; None for one that is not paced."""
        with self._database.reading() as connection:
            return find_campaigns(connection, [action_id]).get(action_id)

    def advance_campaign(self, action_id: str, now: datetime) -> Advanced:
        """Let out what may go out now, or cancel all that was not sent; say when to look again."""
        with self._database.writing() as connection:
            self._lock_commands(connection)
            row = connection.execute(
                sa.select(_campaigns).where(
                    _campaigns.c.action_id == action_id, _campaigns.c.state == "running"
                )
            ).first()
            if row is None:
                return Advanced()
            pacing = msgspec.convert(row.pacing, Pacing)
            standing = _stand(connection, action_id, row.wave, row.next_release, pacing, now)
            if not standing.held:
                _update(connection, action_id, state="ended")
                return Advanced()
            decision = decide(pacing, standing, now)
            if decision.stop_reason is not None:
                return Advanced(changes=self._stop(connection, action_id, standing, decision, now))
            if decision.release:
                _release(connection, action_id, decision, now)
            if (decision.wave, decision.next_release) != (row.wave, row.next_release):
                _update(connection, action_id, wave=decision.wave, next_release=decision.next_release)
            if decision.release == standing.held:
                _update(connection, action_id, state="ended")
        return Advanced(released=decision.release, look_again=decision.look_again)

    def _stop(
        self,
        connection: sa.Connection,
        action_id: str,
        standing: Standing,
        decision: Decision,
        now: datetime,
    ) -> list[Change]:
        """Cancel what was not sent, held back or not, and say why."""
        reason = str(decision.stop_reason)
        unsent = [_commands.c.action_id == action_id, _commands.c.state == _PENDING]
        changes = self._move_commands(connection, unsent, CommandState.CANCELLED, now)
        problem = {"code": STOPPED, "step": 0, "detail": reason}
        for ids in chunks([change.command_id for change in changes]):
            connection.execute(sa.update(_commands).where(_commands.c.id.in_(ids)).values(problem=problem))
        _update(connection, action_id, state="stopped", reason=reason)
        counts = {"answered": standing.answered, "failed": standing.failed, "cancelled": len(changes)}
        what = {"action": action_id, "wave": standing.wave, **counts}
        self._append_audit(connection, now, AuditEvent(kind="stopped", who=("server",), what=what))
        return changes


def insert_campaign(connection: sa.Connection, action_id: str, pacing: Pacing, now: datetime) -> None:
    """Keep how a new action is to be paced; its commands are inserted with the wave 0."""
    kept = msgspec.to_builtins(pacing)
    values = {"pacing": kept, "wave": 1, "next_release": now, "state": "running", "reason": ""}
    connection.execute(sa.insert(_campaigns).values(action_id=action_id, **values))


def find_campaigns(connection: sa.Connection, action_ids: Sequence[str]) -> dict[str, Campaign]:
    """Return how those of some actions stand that are paced."""
    rows = connection.execute(sa.select(_campaigns).where(_campaigns.c.action_id.in_(action_ids))).all()
    held = {
        row.action_id: row.number
        for row in connection.execute(
            sa.select(_commands.c.action_id, sa.func.count().label("number"))
            .where(
                _commands.c.action_id.in_([row.action_id for row in rows if row.state == "running"]),
                _commands.c.state == _PENDING,
                _commands.c.wave == 0,
            )
            .group_by(_commands.c.action_id)
        )
    }
    return {
        row.action_id: Campaign(
            pacing=msgspec.convert(row.pacing, Pacing),
            state=row.state,
            wave=row.wave,
            held=held.get(row.action_id, 0),
            reason=row.reason,
        )
        for row in rows
    }


def _update(connection: sa.Connection, action_id: str, **values: object) -> None:
    connection.execute(sa.update(_campaigns).where(_campaigns.c.action_id == action_id).values(**values))


def _stand(  # noqa: PLR0917  (what the campaign's row says, and the time)
    connection: sa.Connection,
    action_id: str,
    wave: int,
    next_release: datetime,
    pacing: Pacing,
    now: datetime,
) -> Standing:
    of_action = _commands.c.action_id == action_id
    groups: Sequence[sa.Row[Any]] = connection.execute(
        sa.select(_commands.c.wave, _commands.c.state, sa.func.count().label("number"))
        .where(of_action)
        .group_by(_commands.c.wave, _commands.c.state)
    ).all()
    out = [group for group in groups if group.wave > 0]
    in_wave = [group for group in out if group.wave == wave]
    is_open = [of_action, _commands.c.state.in_(_OPEN), _commands.c.wave > 0]
    latest = sa.select(sa.func.max(_commands.c.updated)).where(*is_open, _commands.c.wave == wave)
    recent = sa.select(
        sa.func.count().label("number"), sa.func.min(_commands.c.updated).label("oldest")
    ).where(
        of_action,
        _commands.c.wave > 0,
        _commands.c.state == _SENT,
        _commands.c.updated > now - timedelta(seconds=pacing.wave_wait_s),
    )
    sent: sa.Row[Any] = connection.execute(recent).one()
    return Standing(
        wave=wave,
        next_release=next_release,
        held=_sum(group for group in groups if group.wave == 0 and group.state == _PENDING),
        in_wave=_sum(in_wave),
        unsent=_sum(group for group in in_wave if group.state == _PENDING),
        open_in_wave=_sum(group for group in in_wave if group.state in _OPEN),
        last_sent=connection.execute(latest).scalar_one(),
        under_way=sent.number
        + _sum(group for group in out if group.state in (_PENDING, CommandState.ACKNOWLEDGED.value)),
        oldest_sent=sent.oldest,
        answered=_sum(group for group in out if group.state in _ANSWERED),
        failed=_sum(group for group in out if group.state in _FAILED),
    )


def _sum(groups: Iterable[sa.Row[Any]]) -> int:
    return sum(group.number for group in groups)


def _release(connection: sa.Connection, action_id: str, decision: Decision, now: datetime) -> None:
    """Let out as many as was decided, agents that are online first.

    No order is asked for besides: they were inserted in the order of their ids, which are hashes, and to sort
    ten thousand of them at each look would cost more than all else.
    """
    is_online = _agents.c.heartbeattime > now - timedelta(seconds=ONLINE_S)
    held = (
        sa.select(_commands.c.id)
        .join(_agents, _agents.c.id == _commands.c.agent_id)
        .where(_commands.c.action_id == action_id, _commands.c.state == _PENDING, _commands.c.wave == 0)
    )
    chosen: list[str] = list(connection.execute(held.where(is_online).limit(decision.release)).scalars())
    if len(chosen) < decision.release:
        away = held.where(sa.or_(_agents.c.heartbeattime.is_(None), ~is_online))
        chosen += connection.execute(away.limit(decision.release - len(chosen))).scalars()
    for ids in chunks(chosen):
        connection.execute(
            sa.update(_commands).where(_commands.c.id.in_(ids)).values(wave=decision.wave, updated=now)
        )
