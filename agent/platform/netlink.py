"""Netlink sockets that only listen: the kernel's audit records, and starts of processes.

Sources: netlink(7), linux/audit.h, linux/connector.h, linux/cn_proc.h. Nothing here changes what the kernel
does or for whom: of audit the read-only multicast group is joined, beside which auditd and its rules stay as
they are; the proc connector tells everybody who asks.
"""

import errno
import os
import select
import socket
import struct
from typing import Iterator, List, NamedTuple, Optional

from protocol.errors import InvalidInput

_NETLINK_AUDIT, _NETLINK_CONNECTOR = 9, 11
_READLOG_GROUP = 1  # AUDIT_NLGRP_READLOG
_CN_IDX_PROC, _CN_VAL_PROC = 1, 1
_LISTEN = 1  # PROC_CN_MCAST_LISTEN
_EVENT_NONE, _EVENT_EXEC = 0, 2
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_CONNECTOR = struct.Struct("=IIIIHH")  # struct cn_msg
_EVENT = struct.Struct("=IIQ")  # struct proc_event: what, cpu, timestamp
_PAIR = struct.Struct("=II")
_BUFFER_BYTES = 8 << 20
_READ_BYTES = 1 << 16
_MOST_AT_ONCE = 1000
_ACKNOWLEDGED_S = 2.0
_NLMSG_DONE = 3


class AuditRecord(NamedTuple):
    """One record of the kernel's audit: its type's number, and its text."""

    type: int
    text: bytes


class Exec(NamedTuple):
    """A program was started in a process (execve(2))."""

    pid: int


def split_messages(data: bytes) -> Iterator["tuple[int, bytes]"]:
    """Yield type and body of each netlink message in a datagram; what is cut off is left out.

    The kernel's audit writes a length without the header's own 16 bytes, or with them, by its version; one
    message stands in a datagram, so its end is the datagram's.
    """
    while len(data) >= _HEADER.size:
        length, kind, _, _, _ = _HEADER.unpack_from(data)
        if length < _HEADER.size:
            return
        yield kind, data[_HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def parse_audit(data: bytes) -> Optional[AuditRecord]:
    """Return the audit record of a datagram; None where there is none."""
    if len(data) < _HEADER.size:
        return None
    _, kind, _, _, _ = _HEADER.unpack_from(data)
    return AuditRecord(kind, data[_HEADER.size :].rstrip(b"\0\n"))


class ProcEvent(NamedTuple):
    """One event of the proc connector: what, and its first number: a process id, or an error."""

    what: int
    number: int


def parse_proc(data: bytes) -> Iterator[ProcEvent]:
    """Yield the events of a datagram of the proc connector."""
    for _, body in split_messages(data):
        if len(body) < _CONNECTOR.size + _EVENT.size + _PAIR.size:
            continue
        index, value, _, _, _, _ = _CONNECTOR.unpack_from(body)
        if (index, value) != (_CN_IDX_PROC, _CN_VAL_PROC):
            continue
        what, _, _ = _EVENT.unpack_from(body, _CONNECTOR.size)
        first, second = _PAIR.unpack_from(body, _CONNECTOR.size + _EVENT.size)
        # Of an exec: the thread, then the process.
        yield ProcEvent(what, second if what == _EVENT_EXEC else first)


class _Listener:
    """A socket that is read without waiting; `lost` counts how often its room was too small."""

    def __init__(self, protocol: int, group: int, what: str) -> None:
        self.lost = 0
        try:
            kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        except OSError as error:
            raise InvalidInput("unsupported", f"this kernel has no {what}: {error.strerror}") from None
        try:
            # Root may have more than the system's bound (SO_RCVBUFFORCE); for others it is what they get.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            self._socket.bind((0, group))
        except OSError as error:
            self._socket.close()
            raise InvalidInput("unsupported", f"{what} cannot be listened to: {error.strerror}") from None
        self.descriptor = self._socket.fileno()

    def _datagrams(self) -> Iterator[bytes]:
        for _ in range(_MOST_AT_ONCE):
            try:
                yield self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.lost += 1

    def close(self) -> None:
        """Give it up."""
        self._socket.close()


class AuditListener(_Listener):
    """The kernel's audit records, as everybody may read them who has CAP_AUDIT_READ.

    Raises:
        InvalidInput: `unsupported`, with why.

    """

    def __init__(self) -> None:
        super().__init__(_NETLINK_AUDIT, _READLOG_GROUP, "the kernel's audit")

    def read(self) -> List[AuditRecord]:
        """Return the records that have come."""
        return [record for record in map(parse_audit, self._datagrams()) if record is not None]


class ProcListener(_Listener):
    """Starts of processes, by the proc connector.

    Raises:
        InvalidInput: `unsupported`, with why: among others in a container, whose kernel tells nothing.

    """

    def __init__(self) -> None:
        super().__init__(_NETLINK_CONNECTOR, _CN_IDX_PROC, "the proc connector")
        try:
            self._socket.send(_listen_message())
            self._require_acknowledged()
        except OSError as error:
            self.close()
            raise InvalidInput(
                "unsupported", f"the proc connector cannot be listened to: {error.strerror}"
            ) from None
        except InvalidInput:
            self.close()
            raise

    def _require_acknowledged(self) -> None:
        while select.select([self.descriptor], [], [], _ACKNOWLEDGED_S)[0]:
            for event in self._events():
                if event.what == _EVENT_NONE and event.number:
                    reason = os.strerror(event.number)
                    raise InvalidInput("unsupported", f"the proc connector refuses: {reason}")
                if event.what == _EVENT_NONE:
                    return
        raise InvalidInput("unsupported", "the proc connector does not answer, as in a container")

    def _events(self) -> Iterator[ProcEvent]:
        for data in self._datagrams():
            yield from parse_proc(data)

    def read(self) -> List[Exec]:
        """Return the starts that have come."""
        return [Exec(event.number) for event in self._events() if event.what == _EVENT_EXEC]


def _listen_message() -> bytes:
    body = _CONNECTOR.pack(_CN_IDX_PROC, _CN_VAL_PROC, 0, 0, 4, 0) + struct.pack("=I", _LISTEN)
    return _HEADER.pack(_HEADER.size + len(body), _NLMSG_DONE, 0, 0, os.getpid()) + body
