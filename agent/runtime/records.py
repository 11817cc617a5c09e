"""A file of records that are only ever appended, each checked and synced: what the journal stands on.

Rules:
1. One process writes it, under a lock. A record is on the disk when `append` returns.
2. Each record carries a checksum over itself and the one before, so that one which is changed or missing
   shows.
3. A record that a crash or a full disk cut off stands last and was never reported as written: opening removes
   it. Anything else that does not check fails closed.
4. A write that fails is taken back; where even that fails, the file takes no further record until it is
   reopened.
5. `rewrite` puts a shorter file in place of it: after a crash the old or the new one is there, never a
   mixture.

Each line is `CHECKSUM SPACE JSON`. The checksums protect against accidents, not against root.
Standard library only: the resident agent imports this module.
"""

import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Iterator, NamedTuple, Optional, Tuple

from agent.runtime.state import environment_failure, require_private, sync_directory
from protocol.envelope import MAX_ENVELOPE_BYTES
from protocol.errors import EnvironmentFailure, InvalidInput

Members = Dict[str, Any]
_CHECK_BYTES = 16
MAX_LINE_BYTES = 65536 + 4 * MAX_ENVELOPE_BYTES // 3
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class _Record(NamedTuple):
    """One checked record: its members, its checksum and the offset of the byte behind it."""

    members: Members
    checksum: bytes
    end: int


def _checksum(previous: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK_BYTES, key=previous).hexdigest().encode("ascii")


def _encode_record(members: Members, previous: bytes) -> Tuple[bytes, bytes]:
    """Return a record's line and its checksum."""
    body = json.dumps(members, separators=(",", ":")).encode("ascii")
    checksum = _checksum(previous, body)
    return checksum + b" " + body + b"\n", checksum


def _scan(stream: BinaryIO, path: Path) -> Iterator[_Record]:
    checksum, end = b"", 0
    while True:
        line = stream.readline(MAX_LINE_BYTES)
        if not line:
            return
        found, _, body = line[:-1].partition(b" ")
        checksum = _checksum(checksum, body)
        if found != checksum or not line.endswith(b"\n"):
            # A write that was cut off has no line end: with one, more than the last record may be in it.
            if line.endswith(b"\n") or stream.read(1):
                raise EnvironmentFailure("state-failed", f"{path} is damaged at byte {end}; nothing will run")
            return
        end += len(line)
        yield _Record(json.loads(body), checksum, end)


def read_records(path: Path) -> Iterator[Members]:
    """Yield the records of a file that another process may be writing; none where there is no file.

    Raises:
        EnvironmentFailure: `state-failed`.

    """
    try:
        with path.open("rb") as stream:
            for record in _scan(stream, path):
                yield record.members
    except FileNotFoundError:
        return
    except OSError as error:
        raise environment_failure(error, path) from None


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync(fd: int) -> None:
    # fsync(2) on macOS does not reach past the disk's own memory; this does.
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is None:
        os.fsync(fd)
    else:
        fcntl.fcntl(fd, full)


class RecordFile:
    """One such file, open for writing; made, 0600, where it is not there.

    Every method that touches the disk raises EnvironmentFailure: `state-in-use` where another process holds
    it, `disk-full` or `state-failed`; then nothing was written. Opening also raises InvalidInput
    `unsafe-file`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self._checksum = b""
        self._broken = ""
        try:
            self._fd = os.open(path, _NEW_FILE, 0o600)
        except OSError as error:
            raise environment_failure(error, path) from None
        try:
            require_private(path)
            self._lock(self._fd)
        except (EnvironmentFailure, InvalidInput):
            os.close(self._fd)
            raise

    def _lock(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise EnvironmentFailure("state-in-use", f"another mig-agent holds {self.path}") from None

    def replay(self) -> Iterator[Members]:
        """Yield every record and then cut off what a crash left half-written; to be called once, first."""
        try:
            with os.fdopen(os.dup(self._fd), "rb") as stream:
                for record in _scan(stream, self.path):
                    self._checksum, self.size_bytes = record.checksum, record.end
                    yield record.members
            os.ftruncate(self._fd, self.size_bytes)
            os.lseek(self._fd, 0, os.SEEK_END)
            # The file's name may be as new as its content.
            sync_directory(self.path.parent)
        except OSError as error:
            raise environment_failure(error, self.path) from None

    def append(self, members: Members) -> None:
        """Write one record; it is on the disk when this returns."""
        if self._broken:
            raise EnvironmentFailure("state-failed", f"{self.path}: {self._broken}")
        line, checksum = _encode_record(members, self._checksum)
        try:
            _write_all(self._fd, line)
            _sync(self._fd)
        except OSError as error:
            self._take_back()
            raise environment_failure(error, self.path) from None
        self._checksum = checksum
        self.size_bytes += len(line)

    def _take_back(self) -> None:
        try:
            os.ftruncate(self._fd, self.size_bytes)
            os.lseek(self._fd, 0, os.SEEK_END)
            _sync(self._fd)
        except OSError as error:
            self._broken = f"a failed write could not be taken back ({error.strerror}); start the agent again"

    def rewrite(self, first: Members, keep: Callable[[Members], Optional[Members]]) -> None:
        """Put a file in place that holds `first` and what `keep` makes of each record; None leaves it out.

        Record by record: the file may be larger than what a small process should hold.
        """
        temporary = self.path.with_name(f"{self.path.name}.new")
        temporary.unlink(missing_ok=True)
        try:
            fd = os.open(temporary, _NEW_FILE | os.O_EXCL, 0o600)
        except OSError as error:
            raise environment_failure(error, temporary) from None
        try:
            self._lock(fd)
            size, checksum = self._copy(fd, first, keep)
            _sync(fd)
            temporary.replace(self.path)
        except (OSError, EnvironmentFailure) as error:
            os.close(fd)
            temporary.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise environment_failure(error, self.path) from None
            raise
        os.close(self._fd)
        self._fd, self.size_bytes, self._checksum = fd, size, checksum
        self._sync_name()

    def _sync_name(self) -> None:
        try:
            sync_directory(self.path.parent)
        except OSError as error:
            # After a power cut the old file might stand there again, without what is appended from now on.
            self._broken = f"its directory could not be synced ({error.strerror}); start the agent again"
            raise environment_failure(error, self.path) from None

    def _copy(
        self, fd: int, first: Members, keep: Callable[[Members], Optional[Members]]
    ) -> Tuple[int, bytes]:
        line, checksum = _encode_record(first, b"")
        _write_all(fd, line)
        size = len(line)
        for members in read_records(self.path):
            kept = keep(members)
            if kept is not None:
                line, checksum = _encode_record(kept, checksum)
                _write_all(fd, line)
                size += len(line)
        return size, checksum

    def close(self) -> None:
        """Give up the file and its lock."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._broken = "closed"
