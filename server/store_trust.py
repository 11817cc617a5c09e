"""Trust bundles in the store: the newest for everyone to fetch, and which agents hold an older one."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from protocol.errors import InvalidInput
from protocol.trust import TrustBundle
from server import schema
from server.rows import AuditEvent, PublishedRow, TrustRow
from server.store_base import StorePart, chunks

_bundles = schema.trust_bundles
_agents = schema.agents
# A version that is published can never be followed by a lower one, so a mistyped one is stopped here: nobody
# publishes a thousand bundles between two that this server sees.
MAX_STEP = 1000
# Without a bundle the greatest version is null, and nobody is behind it.
_BEHIND: sa.Select[Any] = sa.select(_agents.c.id).where(
    _agents.c.enrolment == "enrolled",
    sa.func.coalesce(_agents.c.trust_version, -1)
    < sa.select(sa.func.max(_bundles.c.version)).scalar_subquery(),
)
_NEWEST = sa.select(_bundles).order_by(_bundles.c.version.desc()).limit(1)


class TrustStore(StorePart):
    """The trust bundles' part of the store. What was published is sent until it is followed or withdrawn."""

    def publish_trust(
        self,
        bundle: TrustBundle,
        envelope: bytes,
        digest: str,
        publisher: str,
        now: datetime,
        *,
        is_forced: bool = False,
    ) -> bool:
        """Keep a bundle that is newer than all before; return False for the newest one again.

        The newest one again, with more or other signatures, takes their place: agents judge them. One that is
        more than `MAX_STEP` versions newer must be forced.

        Raises:
            InvalidInput: `stale-trust`; `trust-gap`.

        """
        with self._database.writing() as connection:
            self._lock_commands(connection)  # of two that publish at once, the second sees the first
            newest = connection.execute(_NEWEST).first()
            said = {"version": bundle.version, "sha256": digest}
            if newest is not None and (newest.version, newest.digest) == (bundle.version, digest):
                if newest.envelope == envelope:
                    return False
                connection.execute(
                    sa.update(_bundles)
                    .where(_bundles.c.version == bundle.version)
                    .values(envelope=envelope, publisher=publisher, published=now)
                )
            elif newest is not None and newest.version >= bundle.version:
                raise InvalidInput("stale-trust", f"version {bundle.version}; {newest.version} is published")
            elif not is_forced and bundle.version > (0 if newest is None else newest.version) + MAX_STEP:
                before = "none" if newest is None else newest.version
                raise InvalidInput(
                    "trust-gap",
                    f"version {bundle.version}; {before} is published, and at most {MAX_STEP} are left out: "
                    "mig-server trust publish --force",
                )
            else:
                connection.execute(
                    sa.insert(_bundles).values(
                        version=bundle.version,
                        digest=digest,
                        expires=bundle.expires,
                        publisher=publisher,
                        published=now,
                        envelope=envelope,
                    )
                )
            self._append_audit(connection, now, AuditEvent(kind="trust", who=(publisher,), what=said))
            return True

    def newest_trust(self) -> TrustRow | None:
        """Return the newest bundle, or None."""
        with self._database.reading() as connection:
            row = connection.execute(_NEWEST).first()
        return None if row is None else msgspec.convert(row._mapping, TrustRow)  # noqa: SLF001

    def list_trust(self, limit: int) -> list[PublishedRow]:
        """Return the bundles that were published, the newest first."""
        columns = [_bundles.c[name] for name in PublishedRow.__struct_fields__]
        statement = sa.select(*columns).order_by(_bundles.c.version.desc()).limit(limit)
        with self._database.reading() as connection:
            rows = connection.execute(statement).all()
        return [msgspec.convert(row._mapping, PublishedRow) for row in rows]  # noqa: SLF001  (public name)

    def withdraw_trust(self, version: int, now: datetime) -> None:
        """Forget a published bundle.

        Raises:
            InvalidInput: `not-found`.

        """
        with self._database.writing() as connection:
            self._lock_commands(connection)
            gone = sa.delete(_bundles).where(_bundles.c.version == version).returning(_bundles.c.digest)
            digest = connection.execute(gone).scalar_one_or_none()
            if digest is None:
                raise InvalidInput("not-found", f"bundle {version} is not published")
            said = {"version": version, "sha256": digest}
            event = AuditEvent(kind="trust-withdrawn", who=("operator",), what=said)
            self._append_audit(connection, now, event)

    def count_trust(self) -> dict[int, int]:
        """Return how many enrolled agents say that they hold each version."""
        statement = (
            sa.select(_agents.c.trust_version, sa.func.count().label("agents"))
            .where(_agents.c.enrolment == "enrolled", _agents.c.trust_version.is_not(None))
            .group_by(_agents.c.trust_version)
        )
        with self._database.reading() as connection:
            return {row.trust_version: row.agents for row in connection.execute(statement)}

    def agents_behind(self, among: Collection[str]) -> list[str]:
        """Return those of some enrolled agents that do not hold the newest bundle, by what they last said."""
        with self._database.reading() as connection:
            found: list[str] = []
            for ids in chunks(sorted(among)):
                found += connection.execute(_BEHIND.where(_agents.c.id.in_(ids))).scalars()
            return found

    def next_behind(self, after: str, limit: int) -> list[str]:
        """Return one page of all enrolled agents that do not hold the newest bundle, by id."""
        with self._database.reading() as connection:
            page = _BEHIND.where(_agents.c.id > after).order_by(_agents.c.id).limit(limit)
            return list(connection.execute(page).scalars())
