"""What psutil can tell of an endpoint's network where we do not ask the kernel ourselves: macOS and Windows.

Rules:

* The same types as `net_look`; one place, the system's own. Neighbours psutil does not know.
* On macOS only root sees the sockets of others; what may not be seen is told to `on_denied`.
* A state is given by the name that Linux has for it.

Source: psutil's documentation of net_connections and net_if_addrs.
"""

import os
import socket
import sys
from typing import Any, Callable, Dict, Iterator, List, Optional

from agent.platform.net_cards import prefix_length
from agent.platform.net_look import Denied, Local, Owner, Place
from agent.platform.net_ranges import parse_address
from agent.platform.sockets import (
    DGRAM,
    ESTABLISHED,
    IPV4,
    IPV6,
    SEQPACKET,
    STREAM,
    TCP,
    UDP,
    UNCONNECTED,
    UNIX,
    Socket,
)

_STATES = {
    "ESTABLISHED": ESTABLISHED,
    "SYN_SENT": "syn-sent",
    "SYN_RECV": "syn-recv",
    "FIN_WAIT1": "fin-wait-1",
    "FIN_WAIT2": "fin-wait-2",
    "TIME_WAIT": "time-wait",
    "CLOSE": "closed",
    "CLOSE_WAIT": "close-wait",
    "LAST_ACK": "last-ack",
    "LISTEN": "listen",
    "CLOSING": "closing",
    "IDLE": "bound-inactive",
    "BOUND": "bound-inactive",
    "DELETE_TCB": "closed",
}
_UNIX_TYPES: Dict[int, str] = {1: STREAM, 2: DGRAM, 5: SEQPACKET}


class PortableLook:
    """One look at an endpoint through psutil.

    Args:
        check: called in every loop; ends the look by raising.
        on_denied: told what could not be looked at.

    """

    def __init__(self, *, check: Callable[[], None], on_denied: Denied) -> None:
        import psutil  # noqa: PLC0415  (this file must import where it is not needed)

        self._psutil = psutil
        self._check = check
        self._denied = on_denied
        self._holders: Dict[int, List[int]] = {}
        self._owners: Dict[int, Optional[Owner]] = {}
        self.processes_seen = 0

    def interfaces(self, place: Place) -> Iterator[Local]:  # noqa: ARG002  (there is one)
        """Yield the addresses of the interfaces, and the interfaces without any."""
        for name, entries in sorted(self._psutil.net_if_addrs().items()):
            self._check()
            macs = [entry.address for entry in entries if entry.family == self._psutil.AF_LINK]
            mac = macs[0].lower().replace("-", ":") if macs and macs[0] else None
            addresses = [
                entry
                for entry in entries
                if entry.family in (socket.AF_INET, socket.AF_INET6) and entry.address
            ]
            for entry in addresses:
                family = IPV4 if entry.family == socket.AF_INET else IPV6
                address = entry.address.partition("%")[0]
                yield Local(name, mac, family, address, prefix_length(entry.netmask))
            if not addresses:
                yield Local(name, mac)

    def sockets(self, place: Place) -> Iterator[Socket]:  # noqa: ARG002  (there is one)
        """Yield the sockets; `inode` is a number of our own, for `holders`."""
        connections: List[Any]
        try:
            connections = self._psutil.net_connections("inet" if sys.platform == "win32" else "all")
        except (self._psutil.AccessDenied, PermissionError):
            self._denied("sockets", "of other users")
            connections = [*self._psutil.Process(os.getpid()).net_connections("inet")]
        for number, connection in enumerate(connections, 1):
            self._check()
            found = parse_connection(connection, number)
            if found is not None:
                # Of one's own process psutil does not repeat the number.
                pid = getattr(connection, "pid", os.getpid())
                if pid:
                    self._holders[number] = [pid]
                yield found

    def holders(self, inode: int) -> List[Owner]:
        """Return the processes that hold a socket, those that are there still."""
        owners = (self._owner(pid) for pid in self._holders.get(inode, ()))
        return [owner for owner in owners if owner is not None]

    def _owner(self, pid: int) -> Optional[Owner]:
        if pid not in self._owners:
            self._owners[pid] = self._read_owner(pid)
            self.processes_seen += 1
        return self._owners[pid]

    def _read_owner(self, pid: int) -> Optional[Owner]:
        try:
            process = self._psutil.Process(pid)
            name = os.fsencode(process.name())
            uid = process.uids().effective if hasattr(process, "uids") else None
        except self._psutil.NoSuchProcess:
            return None
        except self._psutil.AccessDenied:
            self._denied("processes", f"process {pid}")
            return None
        try:
            executable = os.fsencode(process.exe())
        except (self._psutil.NoSuchProcess, self._psutil.AccessDenied):
            executable = b""
        return Owner(pid, name, uid, executable or None)


def parse_connection(connection: Any, number: int) -> Optional[Socket]:
    """Return the socket that psutil tells of; None for what is neither of the internet nor a unix socket."""
    if connection.family == getattr(socket, "AF_UNIX", None):
        kind = _UNIX_TYPES.get(connection.type, str(int(connection.type)))
        path = os.fsencode(connection.laddr) if connection.laddr else None
        return Socket(UNIX, kind, "", 0, "", 0, UNCONNECTED, number, None, path)
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    protocol = TCP if connection.type == socket.SOCK_STREAM else UDP
    unspecified = "0.0.0.0" if connection.family == socket.AF_INET else "::"  # noqa: S104  (told, not bound)
    local = connection.laddr or (unspecified, 0)
    remote = connection.raddr or (unspecified, 0)
    state = _STATES.get(connection.status, str(connection.status).lower())
    if protocol == UDP:
        state = ESTABLISHED if connection.raddr else UNCONNECTED
    here, there = (_plain(address[0]) for address in (local, remote))
    is_ipv4 = connection.family == socket.AF_INET or ":" not in there + here
    return Socket(IPV4 if is_ipv4 else IPV6, protocol, here, local[1], there, remote[1], state, number, None)


def _plain(text: str) -> str:
    address = parse_address(text)
    return text if address is None else str(address)
