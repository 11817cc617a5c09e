"""How many there are of what: for monitoring, without reading a row more than needed."""

from datetime import datetime, timedelta

import sqlalchemy as sa

from protocol.command import OPEN_STATES
from protocol.documents import AgentStatus
from server import schema
from server.rows import OFFLINE_S, ONLINE_S
from server.store_base import StorePart

_agents = schema.agents
_commands = schema.commands


class CountStore(StorePart):
    """The part of the store that counts."""

    def count_agents(self, now: datetime) -> dict[str, int]:
        """Return the number of agents by status, with every status in it (`AgentRow.status`)."""
        heard = _agents.c.heartbeattime
        status = sa.case(
            (_agents.c.enrolment != "enrolled", _agents.c.enrolment),
            (heard > now - timedelta(seconds=ONLINE_S), AgentStatus.ONLINE.value),
            (heard > now - timedelta(seconds=OFFLINE_S), AgentStatus.IDLE.value),
            else_=AgentStatus.OFFLINE.value,
        )
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(status, sa.func.count()).group_by(status)).all()
        return {**dict.fromkeys(map(str, AgentStatus), 0), **{row[0]: row[1] for row in rows}}

    def count_open_commands(self) -> dict[str, int]:
        """Return the number of commands that have not ended, by state."""
        open_states = sorted(state.value for state in OPEN_STATES)
        state = _commands.c.state
        with self._database.reading() as connection:
            query = sa.select(state, sa.func.count()).where(state.in_(open_states)).group_by(state)
            rows = connection.execute(query).all()
        return {**dict.fromkeys(open_states, 0), **{row[0]: row[1] for row in rows}}
