"""Logins of agents to the broker in the store: what makes each password good for one login only."""

from datetime import datetime, timedelta

import sqlalchemy as sa

from server import schema
from server.store_base import StorePart

# A wrong clock must be seen, not shut out; a login further off than this is refused (design 11).
LOGIN_TOLERANCE = timedelta(hours=24)


class LoginStore(StorePart):
    """The logins' part of the store."""

    def record_login(self, agent_id: str, nonce: bytes, time: datetime, now: datetime) -> bool:
        """Keep a login and the agent's clock skew; return False where this very login was kept before.

        The caller refuses a `time` further than `LOGIN_TOLERANCE` from `now`. So a login has to be remembered
        only until its time is that old: the rule is exact, lets an agent's clock be set back,
        holds over restarts and for several servers, and the table stays as small as two days of logins.
        """
        with self._database.writing() as connection:
            connection.execute(sa.delete(schema.logins).where(schema.logins.c.time < now - LOGIN_TOLERANCE))
            connection.execute(
                sa.update(schema.agents)
                .where(schema.agents.c.id == agent_id)
                .values(clock_skew_s=(time - now).total_seconds())
            )
            return self._insert_if_absent(connection, schema.logins, login=agent_id + nonce.hex(), time=time)
