"""Who may use the platform, in the store: investigators and their sessions."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa

from protocol.documents import InvestigatorStatus, Right
from protocol.errors import InvalidInput
from protocol.names import is_fingerprint
from server import schema
from server.rows import RIGHTS, AuditEvent, InvestigatorRow, SessionRow
from server.store_base import StorePart, require_storable

_investigators = schema.investigators
_sessions = schema.sessions


class AccessStore(StorePart):
    """The part of the store for investigators and sessions."""

    def add_investigator(
        self, fingerprint: str, name: str, public_key: bytes, rights: Sequence[Right], now: datetime
    ) -> InvestigatorRow:
        """Add an investigator; one who is known gets this name, key and these rights, and is active again.

        Args:
            fingerprint: of the primary key, 40 upper-case hex digits.
            name: to be shown.
            public_key: the certificate, armoured or binary; the caller has parsed it.
            rights: of `read`, `submit`, `manage`.
            now: the server's time.

        Raises:
            InvalidInput: `bad-key` or `usage`.

        """
        if not is_fingerprint(fingerprint):
            raise InvalidInput("bad-key", "not a fingerprint of 40 upper-case hex digits")
        if not set(rights) <= set(RIGHTS):
            raise InvalidInput("usage", f"rights are {', '.join(RIGHTS)}")
        require_storable(name, "usage", "name")
        values = {
            "name": name,
            "public_key": public_key,
            "rights": [right for right in RIGHTS if right in rights],
            "status": "active",
        }
        with self._database.writing() as connection:
            if not self._insert_if_absent(
                connection, _investigators, fingerprint=fingerprint, created=now, **values
            ):
                connection.execute(
                    sa.update(_investigators)
                    .where(_investigators.c.fingerprint == fingerprint)
                    .values(**values)
                )
            key_sha256 = hashlib.sha256(public_key).hexdigest()
            said = {"rights": values["rights"], "status": "active", "key_sha256": key_sha256}
            self._append_audit(connection, now, _investigator_event(fingerprint, said))
            return _investigator_row(connection.execute(_select_investigator(fingerprint)).one())

    def list_investigators(self) -> list[InvestigatorRow]:
        """Return all investigators, ordered by name."""
        with self._database.reading() as connection:
            rows = connection.execute(
                sa.select(_investigators).order_by(_investigators.c.name, _investigators.c.fingerprint)
            ).all()
        return [_investigator_row(row) for row in rows]

    def get_investigator(self, fingerprint: str) -> InvestigatorRow | None:
        """Return an investigator, or None."""
        with self._database.reading() as connection:
            row = connection.execute(_select_investigator(fingerprint)).first()
        return None if row is None else _investigator_row(row)

    def set_investigator_status(
        self, fingerprint: str, status: InvestigatorStatus, now: datetime
    ) -> InvestigatorRow:
        """Let an investigator in or shut them out; who is shut out has no sessions left.

        Raises:
            InvalidInput: `not-found`.

        """
        with self._database.writing() as connection:
            updated = connection.execute(
                sa.update(_investigators)
                .where(_investigators.c.fingerprint == fingerprint)
                .values(status=status)
            )
            if updated.rowcount == 0:
                raise InvalidInput("not-found", f"no investigator {fingerprint}")
            if status != "active":
                connection.execute(sa.delete(_sessions).where(_sessions.c.fingerprint == fingerprint))
            self._append_audit(connection, now, _investigator_event(fingerprint, {"status": status}))
            return _investigator_row(connection.execute(_select_investigator(fingerprint)).one())

    def create_session(
        self, token_hash: str, fingerprint: str, expires: datetime, now: datetime, *, address: str = ""
    ) -> None:
        """Keep a session under the hash of its token; sessions that have expired are dropped.

        `address` is where the login came from, for the audit log.
        """
        with self._database.writing() as connection:
            connection.execute(sa.delete(_sessions).where(_sessions.c.expires <= now))
            connection.execute(
                sa.insert(_sessions).values(token_hash=token_hash, fingerprint=fingerprint, expires=expires)
            )
            event = AuditEvent(kind="login", who=(fingerprint,), what={"address": address})
            self._append_audit(connection, now, event)

    def get_session(self, token_hash: str, now: datetime) -> SessionRow | None:
        """Return a session that has not expired, of an investigator who is active, with today's rights."""
        with self._database.reading() as connection:
            row = connection.execute(
                sa.select(_sessions.c.fingerprint, _sessions.c.expires, _investigators.c.rights)
                .join(_investigators, _investigators.c.fingerprint == _sessions.c.fingerprint)
                .where(
                    _sessions.c.token_hash == token_hash,
                    _sessions.c.expires > now,
                    _investigators.c.status == "active",
                )
            ).first()
        return None if row is None else msgspec.convert(row._mapping, SessionRow)  # noqa: SLF001  (public name)


def _investigator_event(fingerprint: str, said: Mapping[str, object]) -> AuditEvent:
    return AuditEvent(kind="investigator", who=("operator",), what={"fingerprint": fingerprint, **said})


def _select_investigator(fingerprint: str) -> sa.Select[tuple[object, ...]]:
    return sa.select(_investigators).where(_investigators.c.fingerprint == fingerprint)


def _investigator_row(row: sa.Row[tuple[object, ...]]) -> InvestigatorRow:
    return msgspec.convert(row._mapping, InvestigatorRow)  # noqa: SLF001  (SQLAlchemy's public name for it)
