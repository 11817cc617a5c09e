r"""The sockets of a network namespace, as the kernel lists them in /proc/net, and which processes hold them.

Rules:

* Only reading: no request is sent to the kernel that could make it load a module (`sock_diag` may).
* An address of IPv4 that an IPv6 socket holds (`::ffff:192.0.2.1`) is given as what it is, of family `ipv4`.
* A table that the kernel does not have (no IPv6, no packet sockets) holds no sockets.
* The tables are no snapshot: a socket made or closed meanwhile may be missing.
* The name of a unix socket is its owner's text and stands unquoted in the table, line ends too. A line that
  looks like no entry belongs to the name before it. One that was forged to look like an entry cannot be told
  from one: it can invent a unix socket, and nothing else.

Sources: proc_net(5), proc_pid_fd(5); net/ipv4/tcp_ipv4.c (get_tcp4_sock), net/ipv4/udp.c, net/ipv4/raw.c,
net/ipv6/datagram.c, net/unix/af_unix.c (unix_seq_show), net/packet/af_packet.c (packet_seq_show) of Linux.
"""

import os
import re
import socket
import struct
import sys
from contextlib import suppress
from functools import lru_cache
from typing import BinaryIO, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

IPV4, IPV6, UNIX, PACKET = "ipv4", "ipv6", "unix", "packet"
TCP, UDP, UDPLITE, RAW, PING = "tcp", "udp", "udplite", "raw", "ping"
STREAM, DGRAM, SEQPACKET = "stream", "dgram", "seqpacket"
LISTEN, ESTABLISHED, UNCONNECTED = "listen", "established", "unconnected"

# include/net/tcp_states.h
TCP_STATES = {
    1: ESTABLISHED,
    2: "syn-sent",
    3: "syn-recv",
    4: "fin-wait-1",
    5: "fin-wait-2",
    6: "time-wait",
    7: "closed",
    8: "close-wait",
    9: "last-ack",
    10: LISTEN,
    11: "closing",
    12: "syn-recv",  # a request in the listener's queue (TCP_NEW_SYN_RECV)
    13: "bound-inactive",
}
_CLOSED, _TIME_WAIT = 7, 6
# include/uapi/linux/net.h: socket_state; of unix sockets, none of the others has one.
_UNIX_STATES = {1: UNCONNECTED, 2: "connecting", 3: ESTABLISHED, 4: "disconnecting"}
_UNIX_ACCEPTS = 1 << 16  # __SO_ACCEPTCON
SOCKET_TYPES = {1: STREAM, 2: DGRAM, 3: RAW, 5: SEQPACKET, 10: PACKET}

# Which tables there are, and what they hold.
_INTERNET_TABLES = {
    "tcp": TCP,
    "tcp6": TCP,
    "udp": UDP,
    "udp6": UDP,
    "udplite": UDPLITE,
    "udplite6": UDPLITE,
    "raw": RAW,
    "raw6": RAW,
    "icmp": PING,
    "icmp6": PING,
}
_INTERNET_FIELDS = 10
_PACKET_FIELDS = 9
_IPV4_DIGITS, _IPV6_DIGITS = 8, 32
_MAPPED = bytes(10) + b"\xff\xff"
# The kernel's address (or zeros), references, protocol, flags, type, state, inode, name.
_UNIX_LINE = re.compile(
    rb"[0-9a-f(][0-9a-f_pointervalu)]{7,15}: [0-9A-F]{8} [0-9A-F]{8} ([0-9A-F]{8}) ([0-9A-F]{4})"
    rb" ([0-9A-F]{2}) +([0-9]+)(?: ([^\n]*))?\n?\Z"
)
_MAX_UNIX_NAME = 108  # sun_path, unix(7); what is longer was put together of lines that nobody wrote
_SOCKET_LINK = b"socket:["


class Socket(NamedTuple):
    """One socket.

    `family` is ipv4, ipv6, unix or packet. `protocol` is tcp, udp, udplite, raw or ping; of a unix socket
    its type (stream, dgram, seqpacket), of a packet socket raw or dgram. Addresses are text, empty where
    there are none (unix, packet). The local port of a raw socket is the number of its IP protocol, that of a
    packet socket the Ethernet protocol that it hears (3 is all), its remote port the number of the interface
    (0 is all). `path` is the name of a unix socket, an abstract one with a leading `@`; None for one without.
    `uid` is None where the table does not tell: of unix sockets, and of connections that only wait for their
    time to be over. `inode` is 0 where no process holds the socket, or none does yet.
    """

    family: str
    protocol: str
    local_address: str
    local_port: int
    remote_address: str
    remote_port: int
    state: str
    inode: int
    uid: Optional[int]
    path: Optional[bytes] = None


def is_listening(found: Socket) -> bool:
    """Tell whether a socket waits for whoever comes: not where its port merely is that of a connection.

    A UDP socket that is bound and not connected takes datagrams from anyone: a server, or a client that did
    not connect its socket. A unix socket listens when it accepts connections, or takes datagrams by a name.
    """
    if found.family == UNIX:
        return found.state == LISTEN or (found.protocol == DGRAM and found.path is not None)
    if found.protocol == TCP:
        return found.state == LISTEN
    return found.protocol in (UDP, UDPLITE) and found.state == UNCONNECTED and found.local_port != 0


def read_sockets(net: str = "/proc/net") -> Iterator[Socket]:
    """Yield the sockets of the network namespace whose tables lie in a directory, as `/proc/PID/net`.

    Raises:
        OSError: a table cannot be read, or the process whose directory it is has ended.

    """
    with SocketTables(net) as tables:
        yield from tables


class SocketTables:
    """The tables of sockets of one network namespace, held open: they stay its own, whoever ends meanwhile.

    Raises:
        OSError: a table cannot be read, or the process whose directory it is has ended.

    """

    def __init__(self, net: str) -> None:
        # Without it, no table were there either, and nothing would be said of it.
        os.stat(net)  # noqa: PTH116  (no Path in what is asked for each namespace)
        self._files: Dict[str, BinaryIO] = {}
        try:
            for name in (*_INTERNET_TABLES, "packet", "unix"):
                with suppress(FileNotFoundError):
                    self._files[name] = open(f"{net}/{name}", "rb", buffering=1 << 16)  # noqa: PTH123, SIM115
        except OSError:
            self.close()
            raise

    def __enter__(self) -> "SocketTables":  # noqa: PYI034  (Self is not in 3.9)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the tables."""
        for file in self._files.values():
            file.close()

    def __iter__(self) -> Iterator[Socket]:
        for name, protocol in _INTERNET_TABLES.items():
            for line in self._lines(name):
                found = parse_internet(line, protocol)
                if found is not None:
                    yield found
        for line in self._lines("packet"):
            found = parse_packet(line)
            if found is not None:
                yield found
        yield from parse_unix(self._lines("unix"))

    def _lines(self, name: str) -> Iterator[bytes]:
        file = self._files.get(name)
        # The first line names the columns.
        if file is not None and file.readline():
            yield from file


def parse_internet(line: bytes, protocol: str) -> Optional[Socket]:
    """Return the socket of one line of a table such as /proc/net/tcp6; None for anything else."""
    fields = line.split(None, _INTERNET_FIELDS)
    if len(fields) < _INTERNET_FIELDS:
        return None
    try:
        local, local_port = fields[1].split(b":")
        remote, remote_port = fields[2].split(b":")
        family, local_address, remote_address = _address_pair(local, remote)
        number = int(fields[3], 16)
        ports = int(local_port, 16), int(remote_port, 16)
        inode = int(fields[9])
        uid: Optional[int] = int(fields[7])
    except ValueError:
        return None
    if protocol == TCP:
        state = TCP_STATES.get(number, f"state-{number}")
        uid = None if number == _TIME_WAIT else uid
    else:
        state = UNCONNECTED if number == _CLOSED else ESTABLISHED
    return Socket(family, protocol, local_address, ports[0], remote_address, ports[1], state, inode, uid)


def _address_pair(local: bytes, remote: bytes) -> Tuple[str, str, str]:
    here, there = _packed(local), _packed(remote)
    if len(here) == len(there) == 4:  # noqa: PLR2004  (bytes of an IPv4 address)
        return IPV4, _text(here), _text(there)
    mapped = [one.startswith(_MAPPED) for one in (here, there)]
    # The other one may be unspecified still (`::`), and then is so of IPv4.
    if any(mapped) and all(is_mapped or not any(one) for is_mapped, one in zip(mapped, (here, there))):
        return IPV4, _text(here[12:]), _text(there[12:])
    return IPV6, _text(here), _text(there)


@lru_cache(maxsize=4096)
def _packed(digits: bytes) -> bytes:
    """Return the bytes of an address that the kernel prints as numbers of 32 bits in its own byte order."""
    if len(digits) not in (_IPV4_DIGITS, _IPV6_DIGITS):
        raise ValueError("no address")
    plain = bytes.fromhex(digits.decode("ascii"))
    if sys.byteorder == "big":
        return plain
    words = struct.unpack(f">{len(plain) // 4}I", plain)
    return struct.pack(f"<{len(words)}I", *words)


@lru_cache(maxsize=4096)
def _text(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)  # noqa: PLR2004


def parse_packet(line: bytes) -> Optional[Socket]:
    """Return the socket of one line of /proc/net/packet; None for anything else."""
    fields = line.split()
    if len(fields) != _PACKET_FIELDS:
        return None
    try:
        kind, ether, interface = int(fields[2]), int(fields[3], 16), int(fields[4])
        uid, inode = int(fields[7]), int(fields[8])
    except ValueError:
        return None
    protocol = SOCKET_TYPES.get(kind, str(kind))
    return Socket(PACKET, protocol, "", ether, "", interface, UNCONNECTED, inode, uid)


def parse_unix(lines: Iterable[bytes]) -> Iterator[Socket]:
    """Yield the sockets of the lines of /proc/net/unix behind its first."""
    held: Optional[Socket] = None
    for line in lines:
        matched = _UNIX_LINE.match(line)
        if matched is None:
            if held is not None and held.path is not None:
                held = held._replace(path=(held.path + b"\n" + line.removesuffix(b"\n"))[:_MAX_UNIX_NAME])
            continue
        if held is not None:
            yield held
        held = _unix_socket(*matched.groups())
    if held is not None:
        yield held


def _unix_socket(flags: bytes, kind: bytes, state: bytes, inode: bytes, name: Optional[bytes]) -> Socket:
    accepts = int(flags, 16) & _UNIX_ACCEPTS
    return Socket(
        family=UNIX,
        protocol=SOCKET_TYPES.get(int(kind, 16), str(int(kind, 16))),
        local_address="",
        local_port=0,
        remote_address="",
        remote_port=0,
        state=LISTEN if accepts else _UNIX_STATES.get(int(state, 16), f"state-{int(state, 16)}"),
        inode=int(inode),
        uid=None,
        path=name[:_MAX_UNIX_NAME] if name else None,
    )


def socket_owners(
    pids: Iterable[int], proc: str = "/proc", *, on_denied: Optional[Callable[[int], None]] = None
) -> Dict[int, List[int]]:
    """Return the processes that hold each socket, by its inode; several may, by fork(2) or by passing it on.

    Args:
        pids: the processes to ask; those that have ended are passed over.
        proc: where proc(5) is mounted.
        on_denied: told of each process whose descriptors may not be looked at.

    """
    owners: Dict[int, List[int]] = {}
    for pid in pids:
        try:
            inodes = descriptors_sockets(f"{proc}/{pid}/fd")
        except PermissionError:
            if on_denied is not None:
                on_denied(pid)
            continue
        for inode in inodes:
            owners.setdefault(inode, []).append(pid)
    return owners


def descriptors_sockets(directory: str) -> List[int]:
    """Return the inodes of the sockets among the descriptors in a directory such as `/proc/1/fd`, each once.

    One that is gone holds none.

    Raises:
        PermissionError: it may not be looked at.

    """
    try:
        descriptors = os.listdir(os.fsencode(directory))  # noqa: PTH208  (many thousands)
    except (FileNotFoundError, ProcessLookupError):
        return []
    found: Dict[int, None] = {}
    for descriptor in descriptors:
        try:
            target = os.readlink(os.path.join(os.fsencode(directory), descriptor))  # noqa: PTH115, PTH118
        except PermissionError:
            raise
        except OSError:
            # Gone, or the path of a file, too long for the kernel to tell (ENAMETOOLONG).
            continue
        # A file can be called so too, but a link to one begins with a slash.
        if target.startswith(_SOCKET_LINK):
            found[int(target[len(_SOCKET_LINK) : -1])] = None
    return list(found)
