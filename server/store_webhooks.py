"""How far webhooks are, in the store: the outbox is the table of alerts, and each hook has its place in it.

Rules:
1. One server at a time works on a hook: it holds a lease, and what it says of the hook counts only while the
   lease is its own. One that dies loses it with time.
2. A place moves forward only. A hook that is new begins at the newest alert.
"""

from datetime import datetime

import msgspec
import sqlalchemy as sa

from server import schema
from server.rows import HookRow
from server.store_base import StorePart, storable

_hooks = schema.webhooks
_alerts = schema.alerts
_MAX_PROBLEM = 500


class WebhookStore(StorePart):
    """The webhooks' part of the store."""

    def list_hooks(self) -> list[HookRow]:
        """Return how far each hook is that was ever configured."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(_hooks).order_by(_hooks.c.name))
            return [msgspec.convert(row._mapping, HookRow) for row in rows]  # noqa: SLF001  (public name)

    def lease_hook(self, name: str, lease: str, now: datetime, until: datetime) -> HookRow | None:
        """Take or renew the lease of a hook; None where another server has it, or it is not time to try."""
        with self._database.writing() as connection:
            newest: int = connection.execute(sa.select(sa.func.max(_alerts.c.seq))).scalar_one() or 0
            self._insert_if_absent(
                connection, _hooks, name=name, position=newest, attempts=0, lease="", skipped=0, problem=""
            )
            is_free = sa.or_(
                _hooks.c.lease == lease, _hooks.c.leased_until.is_(None), _hooks.c.leased_until <= now
            )
            is_due = sa.or_(_hooks.c.next_try.is_(None), _hooks.c.next_try <= now)
            row = connection.execute(
                sa.update(_hooks)
                .where(_hooks.c.name == name, is_free, is_due)
                .values(lease=lease, leased_until=until)
                .returning(*_hooks.c)
            ).first()
        return None if row is None else msgspec.convert(row._mapping, HookRow)  # noqa: SLF001  (public name)

    def advance_hook(self, name: str, lease: str, position: int, until: datetime, skipped: int) -> bool:
        """All alerts up to a number are dealt with; the lease is renewed. False where it is another's."""
        return self._change(
            name,
            lease,
            position=position,
            attempts=0,
            next_try=None,
            leased_until=until,
            skipped=skipped,
            problem="",
        )

    def postpone_hook(self, name: str, lease: str, next_try: datetime, problem: str) -> bool:
        """The next alert could not be delivered; the lease is given back."""
        return self._change(
            name,
            lease,
            attempts=_hooks.c.attempts + 1,
            next_try=next_try,
            leased_until=None,
            problem=storable(problem)[:_MAX_PROBLEM],
        )

    def release_hook(self, name: str, lease: str) -> bool:
        """There is nothing to do; the lease is given back."""
        return self._change(name, lease, leased_until=None)

    def _change(self, name: str, lease: str, **values: object) -> bool:
        with self._database.writing() as connection:
            done = connection.execute(
                sa.update(_hooks).where(_hooks.c.name == name, _hooks.c.lease == lease).values(**values)
            )
            return done.rowcount > 0
