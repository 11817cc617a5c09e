"""When people logged in, from whichever records a system keeps: last ones, failed ones, those now.

* wtmp, btmp, utmp (utmp(5)): rows of 384 bytes, or of 400 where the kernel's words have 64 bits and are not
  kept short for old programs (aarch64 and others);
* lastlog: rows of 292 or 296 bytes, by uid;
* lastlog2 and wtmpdb, SQLite, which come in their place where times must not end in 2038;
* the sessions that systemd-logind has open (sd-login(3)).

Sources: utmp(5), lastlog(8); the tables that lastlog2(8) and wtmpdb(8) make.
"""

import os
import sqlite3
import struct
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from agent.platform.rooted import Rooted
from agent.scan.roots import join

WTMP = (b"/var/log/wtmp", b"/var/log/wtmp.1")
BTMP = (b"/var/log/btmp", b"/var/log/btmp.1")
UTMP = (b"/run/utmp", b"/var/run/utmp")
LASTLOG = b"/var/log/lastlog"
LASTLOG2 = b"/var/lib/lastlog/lastlog2.db"
WTMPDB = (b"/var/lib/wtmpdb/wtmp.db", b"/var/log/wtmp.db")
SESSIONS = b"/run/systemd/sessions"
_LOGIN, _USER = 6, 7
# type, pid, line, id, user, host, exit, session, time in seconds; little-endian, as all that we run on.
_SHORT = struct.Struct("<hxxi32s4s32s256s4xii4x36x")
_LONG = struct.Struct("<hxxi32s4s32s256s4xqq8x36x4x")
_LAST_SHORT, _LAST_LONG = struct.Struct("<I32s256s"), struct.Struct("<Q32s256s")
_MOST_BYTES = 64 << 20
_ROWS_PER_CHECK = 4096
_STEPS_PER_CHECK = 100_000
_MICROSECONDS = 1_000_000


class Login(NamedTuple):
    """A login: whose, when (seconds since 1970), on which terminal, from which host."""

    user: bytes
    time_s: int
    terminal: bytes = b""
    host: bytes = b""
    pid: int = 0


class Logins:
    """The logins that one system has recorded.

    Args:
        files: of that system.
        check: called in long loops; may raise.

    """

    def __init__(self, files: Rooted, check: Callable[[], None]) -> None:
        self._files = files
        self._check = check
        self.sources: List[str] = []

    def last(self, numbers: Dict[int, bytes]) -> Dict[bytes, Login]:
        """Return the last login of each account, of all that any record tells; `numbers` are names by uid."""
        found: Dict[bytes, Login] = {}
        for login in self._all_last(numbers):
            known = found.get(login.user)
            if known is None or login.time_s > known.time_s:
                found[login.user] = login
        return found

    def _all_last(self, numbers: Dict[int, bytes]) -> Iterator[Login]:
        for path in WTMP:
            yield from self._rows(path, (_USER,))
        yield from self._lastlog(numbers)
        for user, when, terminal, host in self._query(
            LASTLOG2, "Lastlog2", "SELECT Name, Time, TTY, RemoteHost FROM Lastlog2"
        ):
            yield Login(user, when, terminal, host)
        for path in WTMPDB:
            for user, when, terminal, host in self._query(
                path, "wtmp", "SELECT User, Login, TTY, RemoteHost FROM wtmp WHERE Type = 3"
            ):
                yield Login(user, when // _MICROSECONDS, terminal, host)

    def failed(self) -> Optional[Dict[bytes, int]]:
        """Return how often a login failed, by the name that was given; None where nothing records that."""
        counts: Dict[bytes, int] = {}
        before = len(self.sources)
        for path in BTMP:
            for login in self._rows(path, (_LOGIN, _USER)):
                counts[login.user] = counts.get(login.user, 0) + 1
        return counts if len(self.sources) > before else None

    def now(self, is_alive: Callable[[int], bool]) -> Dict[bytes, List[Login]]:
        """Return who is logged in; rows whose process has ended are left out."""
        found: Dict[bytes, List[Login]] = {}
        seen = set()
        for path in UTMP[:1] if self._files.status(UTMP[0]) is not None else UTMP[1:]:
            for login in self._rows(path, (_USER,)):
                if is_alive(login.pid):
                    seen.add((login.user, login.terminal))
                    found.setdefault(login.user, []).append(login)
        for login in self._sessions():
            if (login.user, login.terminal) not in seen:
                found.setdefault(login.user, []).append(login)
        return found

    def _sessions(self) -> Iterator[Login]:
        entries = self._files.list(SESSIONS)
        if entries:
            self.sources.append(os.fsdecode(SESSIONS))
        for entry in entries:
            data = self._files.read(join(SESSIONS, entry.name), 1 << 16)
            if entry.is_directory or data is None:
                continue
            fields = _assignments(data)
            if fields.get(b"CLASS") == b"user" and fields.get(b"USER") and fields.get(b"STATE") != b"closing":
                when = fields.get(b"REALTIME", b"")
                time_s = int(when) // _MICROSECONDS if when.isdigit() and len(when) < 19 else 0  # noqa: PLR2004
                host = fields.get(b"REMOTE_HOST", b"")
                yield Login(fields[b"USER"], time_s, fields.get(b"TTY", b""), host)

    def _rows(self, path: bytes, kinds: Tuple[int, ...]) -> Iterator[Login]:
        data = self._files.read(path, _MOST_BYTES)
        if data is None:
            return
        self.sources.append(os.fsdecode(path))
        row = _form_of(data)
        for at in range(0, len(data) - row.size + 1, row.size):
            if not at // row.size % _ROWS_PER_CHECK:
                self._check()
            kind, pid, line, _id, user, host, _session, when = row.unpack_from(data, at)
            name = user.split(b"\0")[0]
            if kind in kinds and name:
                yield Login(name, when, line.split(b"\0")[0], host.split(b"\0")[0], pid)

    def _lastlog(self, numbers: Dict[int, bytes]) -> Iterator[Login]:
        descriptor = self._files.open(LASTLOG)
        if descriptor is None:
            return
        self.sources.append(os.fsdecode(LASTLOG))
        with os.fdopen(descriptor, "rb", buffering=0):
            size = os.fstat(descriptor).st_size
            row = _LAST_LONG if size % _LAST_SHORT.size and not size % _LAST_LONG.size else _LAST_SHORT
            for uid, name in numbers.items():
                # A row for each uid that there could be: mostly holes, and only asked for some.
                data = os.pread(descriptor, row.size, uid * row.size) if (uid + 1) * row.size <= size else b""
                if len(data) == row.size:
                    when, line, host = row.unpack(data)
                    if when:
                        yield Login(name, when, line.split(b"\0")[0], host.split(b"\0")[0])

    def _query(self, path: bytes, table: str, query: str) -> Iterator[Tuple[bytes, int, bytes, bytes]]:
        descriptor = self._files.open(path)
        if descriptor is None:
            return
        self.sources.append(os.fsdecode(path))
        try:
            connection = sqlite3.connect(f"file:/proc/self/fd/{descriptor}?immutable=1&mode=ro", uri=True)
            try:
                connection.execute("PRAGMA trusted_schema=OFF")
                connection.text_factory = bytes
                connection.set_progress_handler(self._is_over, _STEPS_PER_CHECK)
                kind = connection.execute(
                    "SELECT type FROM sqlite_master WHERE name = ?", (table,)
                ).fetchone()
                if kind is None or kind[0] != b"table":
                    self._files.lose(path, f"has no table {table}")
                    return
                for user, when, terminal, host in connection.execute(query):
                    if isinstance(user, bytes) and isinstance(when, int):
                        yield user, when, _bytes(terminal), _bytes(host)
            finally:
                connection.close()
        except sqlite3.Error as error:
            self._files.lose(path, f"not read to its end: {error}")
        finally:
            os.close(descriptor)

    def _is_over(self) -> int:
        try:
            self._check()
        except Exception:  # noqa: BLE001  (whatever ends a run is raised again by the next check)
            return 1
        return 0


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""


def _assignments(data: bytes) -> Dict[bytes, bytes]:
    pairs = (line.partition(b"=") for line in data.split(b"\n"))
    return {name: value for name, sign, value in pairs if sign}


def _form_of(data: bytes) -> struct.Struct:
    """Return which of the two rows a file has: by its length, and where both fit by the times in it."""
    if not data or len(data) % _LONG.size:
        return _SHORT
    if len(data) % _SHORT.size:
        return _LONG
    # A length of both: the second row of the right kind begins with a type that there is (0 to 9).
    kind = struct.unpack_from("<h", data, _SHORT.size)[0] if len(data) > _SHORT.size else 0
    return _SHORT if 0 <= kind <= 9 else _LONG  # noqa: PLR2004
