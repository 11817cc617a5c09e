"""The machine's own log: what was asked of it, by whom, and how it ended. For its owner: `mig-agent log`.

Rules:
1. A hash chain (`protocol.audit`), one entry per line, beside the journal. The journal decides what may run
   and forgets; this decides nothing and remembers. An entry names fingerprints, digests, modules, the
   action's name and target: no parameters and no answers.
2. What investigators signed is kept beside it, for each action that was let in, under the SHA-256 of its
   bytes in `asked/`: at most `MAX_ASKED` and `MAX_ASKED_BYTES`, the oldest go first. With it the owner can
   check the signatures anew.
3. It holds nothing up. What cannot be written is counted, and the next entry that can says how many are
   missing before it. What a heartbeat has told of its head is on the disk.
4. It is bounded: beyond `MAX_BYTES` the older half goes, behind a checkpoint. A log that does not check at
   the start is put aside, and a new one begins.
5. Whoever floods this agent does not fill it: what nobody trusted signed is counted once per heartbeat,
   notices likewise, and of refusals so many per minute are told.

Standard library only: the resident agent imports this module.
"""

import hashlib
import logging
import os
from collections import OrderedDict
from datetime import datetime
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from agent.runtime.journal import JournalEntry, Tombstone, format_time
from agent.runtime.state import sync_directory
from protocol.audit import (
    CHECKPOINT,
    MAX_ENTRY_BYTES,
    NO_HEAD,
    Chain,
    Entry,
    Head,
    Landmarks,
    checkpoint,
    decode_entry,
    encode_entry,
    remember_head,
)
from protocol.envelope import ACTION, decode_envelope
from protocol.errors import InvalidInput
from protocol.strictjson import decode_json

AUDIT_FILE = "audit.log"
ASKED_DIRECTORY = "asked"
MAX_BYTES = 8 << 20
MAX_ASKED = 2000
MAX_ASKED_BYTES = 32 << 20
_REFUSALS_PER_MINUTE = 10
_MAX_TARGET = 1000
_LOG = logging.getLogger("mig.agent.audit")


class _Notice(NamedTuple):
    """What a server said of its log."""

    head: Head
    server: str
    key_id: str
    time: str


class Asked(NamedTuple):
    """What the log tells of an action beside its ids."""

    name: str
    target: str


def describe_action(body: bytes) -> Asked:
    """Return name and target of an action, as far as it has them; the caller knows whether it is trusted."""
    try:
        members = decode_json(decode_envelope(body, ACTION).payload)
    except InvalidInput:
        return Asked("", "")
    told = members if isinstance(members, dict) else {}
    return Asked(str(told.get("name", ""))[:200], str(told.get("target", ""))[:_MAX_TARGET])


class AuditLog:
    """The log of one agent, open for writing; no method raises for want of room or of a readable file.

    Args:
        directory: the state directory.
        clock: now, aware UTC.
        max_bytes: how long the log may grow.

    """

    def __init__(self, directory: Path, *, clock: Callable[[], datetime], max_bytes: int = MAX_BYTES) -> None:
        self._path = directory / AUDIT_FILE
        self._clock = clock
        self._max_bytes = max_bytes
        self._kept = _Kept(directory / ASKED_DIRECTORY)
        self._fd = -1
        self._size = 0
        self._lost = 0
        self._ignored = 0
        self._notice: Optional[_Notice] = None
        self._refusals: Tuple[str, int, int] = ("", 0, 0)  # the minute, and how many were told and left out
        self.head = NO_HEAD
        self._landmarks = Landmarks()
        self.server_heads: List[Head] = []
        self._open()

    @property
    def heads(self) -> List[Head]:
        """What is repeated of this log beside its head, and the head last; empty while it has none."""
        return self._landmarks.heads()

    # -- what is told -------------------------------------------------------------------------------------

    def started(self, version: str, build: str) -> None:
        """The agent has started."""
        self._append("started", (), {"version": version, "build": build})

    def asked(self, entry: JournalEntry, body: bytes) -> None:
        """An action was let in, and runs now."""
        asked = describe_action(body)
        self._append(
            "asked",
            entry.signers,
            {
                "action": entry.action_id,
                "sha256": entry.digest,
                "occurrence": entry.occurrence,
                "command": entry.command_id,
                "name": asked.name,
                "modules": list(entry.modules),
                "target": asked.target,
                "envelope": self._kept.keep(body),
            },
        )

    def answered(self, entry: JournalEntry, status: str, problem: str, payload: bytes) -> None:
        """An action that was let in has ended, and this is the answer."""
        told = {"action": entry.action_id, "command": entry.command_id, "status": status}
        digest = hashlib.sha256(payload).hexdigest()
        self._append("answered", (), {**told, "problem": problem, "result": digest})

    def refused(self, body: bytes, digest: str, action_id: str, step: int, code: str) -> None:
        """An action that somebody trusted had signed was refused."""
        now = format_time(self._clock())
        minute, told, left_out = self._refusals
        if minute != now[:16]:
            minute, told = now[:16], 0
        if told >= _REFUSALS_PER_MINUTE:
            self._refusals = (minute, told, left_out + 1)
            return
        what: Dict[str, Any] = {"action": action_id, "sha256": digest, "name": describe_action(body).name}
        if left_out:
            what["left_out"] = left_out
        self._refusals = (minute, told + 1, 0)
        self._append("refused", (), {**what, "step": step, "code": code})

    def cancelled(self, stone: Tombstone) -> None:
        """Investigators have taken an action back."""
        self._append("cancelled", stone.signers, {"action": stone.action_id, "sha256": stone.digest})

    def trusted(self, version: int, digest: str) -> None:
        """Another trust bundle is in force."""
        self._append("trust", (), {"version": version, "sha256": digest})

    def trust_expired(self, version: int) -> None:
        """What says whom to obey has expired: nobody is obeyed until something newer comes."""
        self._append("trust-expired", (), {"version": version})

    def watcher_ended(self, module: str, code: str, reason: str) -> None:
        """A persistent module has ended, and is started again later."""
        self._append("watcher-ended", (), {"module": module, "code": code, "reason": reason})

    def removing(self, command: str) -> None:
        """The agent removes itself, as it was ordered."""
        self._append("removing", (), {"command": command})

    def noticed(self, head: Head, *, server: str, key_id: str, time: str) -> None:
        """A server has told, signed, the head of its log; the newest is chained at the next heartbeat."""
        self._notice = _Notice(head, server, key_id, time)

    def settle(self, ignored: int) -> None:
        """Chain what is told once per heartbeat, and bring everything to the disk.

        `ignored` is how many deliveries were refused so far that nobody trusted had signed.
        """
        if ignored > self._ignored:
            self._append("ignored", (), {"deliveries": ignored - self._ignored})
        self._ignored = ignored
        notice, self._notice = self._notice, None
        if notice is not None and notice.head not in self.server_heads:
            what = {"server": notice.server, "time": notice.time, **notice.head._asdict()}
            if self._append("notice", (notice.key_id,), what):
                self.server_heads = remember_head(self.server_heads, notice.head)
        try:
            if self._fd >= 0:
                os.fsync(self._fd)
        except OSError as error:
            _LOG.warning("the log cannot be synced: %s", error.strerror)

    # -- the file -----------------------------------------------------------------------------------------

    def _append(self, kind: str, who: Tuple[str, ...], what: Dict[str, Any]) -> bool:
        if self._size > self._max_bytes:
            self._cut()
        told = {**what, "lost_before": self._lost} if self._lost else what
        if not self._write(kind, who, told):
            self._lost += 1
            return False
        self._lost = 0
        return True

    def _write(self, kind: str, who: Tuple[str, ...], what: Dict[str, Any]) -> bool:
        try:
            if self._fd < 0:
                self._open()
            time = format_time(self._clock())
            line, head = encode_entry(self.head, time=time, kind=kind, who=who, what=what)
            _write_all(self._fd, line + b"\n")
        except OSError as error:
            _LOG.error("the log cannot be written: %s", error.strerror)
            self._take_back()
            return False
        except InvalidInput as error:
            _LOG.error("an entry cannot be written: %s", error)
            return False
        self.head = head
        self._landmarks.add(head)
        self._size += len(line) + 1
        return True

    def _take_back(self) -> None:
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self._close()  # opened anew, and checked, at the next entry

    def _open(self) -> None:
        """Read the log, cut off what a crash left half-written, and put aside one that does not check."""
        try:
            chain = self._replay()
        except InvalidInput as error:
            _LOG.error("the log does not check and is put aside: %s", error.detail)
            self._put_aside()
            chain, self._landmarks = Chain(), Landmarks()
        except OSError as error:
            _LOG.error("the log cannot be read: %s", error.strerror)
            return
        self.head = chain.head
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._path, flags, 0o600)
            os.ftruncate(self._fd, self._size)
        except OSError as error:
            _LOG.error("the log cannot be opened: %s", error.strerror)
            self._close()

    def _replay(self) -> Chain:
        chain, self._landmarks = Chain(), Landmarks()
        self._size = 0
        for line in read_lines(self._path):
            if not line.endswith(b"\n"):
                break
            entry = chain.add(line[:-1])
            self._size += len(line)
            self._landmarks.add(chain.head)
            if entry.kind == "notice":
                head = _head_of(entry)
                self.server_heads = remember_head(self.server_heads, head) if head else self.server_heads
        chain.require_complete()
        return chain

    def _put_aside(self) -> None:
        self._size = 0
        try:
            self._path.replace(self._path.with_name(f"{AUDIT_FILE}.broken"))
        except OSError as error:
            _LOG.error("the log cannot be put aside: %s", error.strerror)

    def _cut(self) -> None:
        """Drop the older half, behind a checkpoint that says where the log now begins."""
        dropped = 0
        lines = read_lines(self._path)
        first: Optional[Entry] = None
        try:
            for line in lines:
                if self._size - dropped <= self._max_bytes // 2:
                    first = decode_entry(line[:-1])
                    break
                dropped += len(line)
            if first is None or not self._write(CHECKPOINT, (), checkpoint(first)):
                return
            self._copy_behind(dropped)
        except OSError as error:
            _LOG.error("the log cannot be cut: %s", error.strerror)

    def _copy_behind(self, dropped: int) -> None:
        temporary = self._path.with_name(f".{AUDIT_FILE}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600)
        try:
            with self._path.open("rb") as source:
                source.seek(dropped)
                while chunk := source.read(1 << 16):
                    _write_all(fd, chunk)
            os.fsync(fd)
            temporary.replace(self._path)
        except OSError:
            os.close(fd)
            temporary.unlink(missing_ok=True)
            raise
        os.close(self._fd)
        self._fd, self._size = fd, self._size - dropped
        sync_directory(self._path.parent)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def close(self) -> None:
        """Give up the file."""
        self.settle(self._ignored)
        self._close()


class _Kept:
    """What investigators signed, under the SHA-256 of its bytes; the oldest go first."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._bytes = 0
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            found = sorted((entry.stat().st_mtime_ns, entry.name) for entry in os.scandir(directory))
            for _, name in found:
                self._add(name, (directory / name).stat().st_size)
        except OSError as error:
            _LOG.warning("what was signed cannot be kept: %s", error.strerror)

    def _add(self, name: str, size: int) -> None:
        self._sizes[name] = size
        self._bytes += size

    def keep(self, body: bytes) -> str:
        """Keep an envelope; return its name, or nothing where it could not be kept."""
        name = hashlib.sha256(body).hexdigest()
        if name in self._sizes:
            return name
        path = self._directory / name
        try:
            path.write_bytes(body)
            path.chmod(0o600)
            self._add(name, len(body))
            while len(self._sizes) > MAX_ASKED or self._bytes > MAX_ASKED_BYTES:
                oldest, size = self._sizes.popitem(last=False)
                self._bytes -= size
                (self._directory / oldest).unlink()
        except OSError as error:
            _LOG.warning("what was signed cannot be kept: %s", error.strerror)
            return name if name in self._sizes else ""
        return name


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the log's lines, each with its line end, beside an agent that may be writing it."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return
    with stream:
        while line := stream.readline(MAX_ENTRY_BYTES + 2):
            yield line


def _head_of(entry: Entry) -> Optional[Head]:
    seq, sha256 = entry.what.get("seq"), entry.what.get("sha256")
    return Head(seq, sha256) if isinstance(seq, int) and isinstance(sha256, str) else None


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
