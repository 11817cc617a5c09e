"""Logins of agents to the broker in the store: what makes each password good for one login only.

A broker that keeps permissions asks twice about each login (`server.brokerauth`), so a login is good for two
questions there: who repeats one that has happened has none left, and who gets one of the two has no login.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from server import schema
from server.brokerfiles import HANDSHAKE_MS
from server.store_base import StorePart, chunks

# A wrong clock must be seen, not shut out; a login further off than this is refused (design 11).
LOGIN_TOLERANCE = timedelta(hours=24)
# So long a broker takes for one login at the most: a second question that comes later belongs to another one.
LOGIN_TAKES = timedelta(milliseconds=HANDSHAKE_MS)
_logins = schema.logins
# Made once, as a fleet that returns runs them all the time.
_NOTE_SKEW = (
    sa.update(schema.agents)
    .where(schema.agents.c.id == sa.bindparam("agent_id"))
    .values(clock_skew_s=sa.bindparam("skew_s"))
)


class NewLogin(NamedTuple):
    """A login whose signature was verified; `time` is by the agent's clock.

    `questions` is how often its broker asks about each login.
    """

    agent_id: str
    nonce: bytes
    time: datetime
    questions: int = 1


class LoginStore(StorePart):
    """The logins' part of the store."""

    def record_logins(self, logins: Sequence[NewLogin], now: datetime) -> list[int]:
        """Keep logins and the agents' clock skew; return which question about it each is, 0 for one too many.

        The caller refuses a `time` further than `LOGIN_TOLERANCE` from `now`. So a login has to be remembered
        only until its time is that old: the rule is exact, lets an agent's clock be set back,
        holds over restarts and for several servers, and the table stays as small as two days of logins.
        """
        first: dict[str, int] = {}
        for place, login in enumerate(logins):
            first.setdefault(_key(login), place)
        kept: dict[str, int] = {}
        with self._database.writing() as connection:
            connection.execute(sa.delete(_logins).where(_logins.c.time < now - LOGIN_TOLERANCE))
            for questions in sorted({login.questions for login in logins}):
                statement = self._keep(questions, now)
                for keys in chunks(sorted(key for key in first if logins[first[key]].questions == questions)):
                    rows = [
                        {"login": key, "time": logins[first[key]].time, "asked": 1, "since": now}
                        for key in keys
                    ]
                    kept.update({row.login: row.asked for row in connection.execute(statement, rows)})
            # In the order of ids, as whoever changes several agents: so nobody waits in a circle.
            good = [logins[first[key]] for key in sorted(kept)]
            if good:
                skews = [
                    {"agent_id": one.agent_id, "skew_s": (one.time - now).total_seconds()} for one in good
                ]
                connection.execute(_NOTE_SKEW, skews)
        return [kept.get(key, 0) if first[key] == place else 0 for place, key in enumerate(map(_key, logins))]

    def _keep(self, questions: int, now: datetime) -> sa.Executable:
        """Return what keeps logins that are asked about so often, each once more; what is used up stays."""
        insert = postgresql.insert if self._database.dialect == "postgresql" else sqlite.insert
        return (
            insert(_logins)
            .on_conflict_do_update(
                index_elements=[_logins.c.login],
                set_={"asked": _logins.c.asked + 1},
                where=sa.and_(_logins.c.asked < questions, _logins.c.since > now - LOGIN_TAKES),
            )
            .returning(_logins.c.login, _logins.c.asked)
        )


def _key(login: NewLogin) -> str:
    return login.agent_id + login.nonce.hex()
