"""Hearing packets on a Linux endpoint: packet sockets with a filter in the kernel, for a bounded time.

Rules:

* The filter is there before the first packet: a socket is made for no protocol, gets its filter, and is
  bound.
* Packets come from the network header on (SOCK_DGRAM), whatever the interface is.
* On the loopback interface a packet goes out and comes in: it is heard once, as it comes in.
* What the kernel had no room for is counted (PACKET_STATISTICS), and told.
* Hearing what is not for this endpoint (promiscuous) lasts as long as the socket does: the kernel ends it.

Source: packet(7); include/uapi/linux/if_packet.h, asm-generic/socket.h of Linux.
"""

import ctypes
import os
import select
import socket
import struct
from typing import Iterator, List, Sequence, Tuple

from agent.platform.packet_filter_code import Instruction, pack_program
from agent.platform.packets import Heard

ETH_P_ALL = 3
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP, _PACKET_STATISTICS = 1, 6
_PACKET_MR_PROMISC = 1
_PACKET_OUTGOING = 4
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_ADDRESS = struct.Struct("=HHiHBB8s")  # struct sockaddr_ll
_MEMBERSHIP = struct.Struct("=iHH8s")  # struct packet_mreq
_STATISTICS = struct.Struct("=II")  # struct tpacket_stats: packets (with those dropped), drops
_ROOM_BYTES = 16 << 20
_ARPHRD_LOOPBACK = 772
# So many packets of one socket are taken before others, and the clock, are looked at.
_BURST = 256


class Ear:
    """Packet sockets on interfaces; with none named, one on all of them.

    Args:
        interfaces: their names.
        program: the filter.
        buffer_bytes: as much is kept of each packet.
        is_promiscuous: whether to hear what is for others.

    Raises:
        OSError: there is no such interface, or it may not be heard.

    """

    def __init__(
        self,
        interfaces: Sequence[str],
        program: List[Instruction],
        buffer_bytes: int,
        *,
        is_promiscuous: bool = False,
    ) -> None:
        self.buffer = bytearray(buffer_bytes)
        self._sockets: List[socket.socket] = []
        self._poll = select.poll()
        self._counts = [0, 0]
        try:
            for name in interfaces or ("",):
                self._open(name, program, is_promiscuous=is_promiscuous)
        except BaseException:
            self.close()
            raise

    def _open(self, interface: str, program: List[Instruction], *, is_promiscuous: bool) -> None:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
        self._sockets.append(made)
        made.settimeout(0)
        attach_filter(made, program)
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM_BYTES)
        _bind(made, socket.if_nametoindex(interface) if interface else 0)
        if is_promiscuous and interface:
            request = _MEMBERSHIP.pack(socket.if_nametoindex(interface), _PACKET_MR_PROMISC, 0, b"")
            made.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, request)
        self._poll.register(made, select.POLLIN)

    def __enter__(self) -> "Ear":  # noqa: PYI034  (Self is not in 3.9)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hear no more."""
        for made in self._sockets:
            made.close()

    def listen(self, seconds: float) -> Iterator[Heard]:
        """Yield packets, each in `buffer` until the next is taken; wait at most so long for the first.

        Raises:
            OSError: an interface is gone, or went down.

        """
        by_number = {made.fileno(): made for made in self._sockets}
        for number, _ in self._poll.poll(max(0.0, seconds) * 1000):
            for _ in range(_BURST):
                try:
                    # With MSG_TRUNC the whole length is told, however little of it fits.
                    size, source = by_number[number].recvfrom_into(self.buffer, 0, socket.MSG_TRUNC)
                except BlockingIOError:
                    break
                interface, ether, kind, hardware = source[:4]
                if kind == _PACKET_OUTGOING and hardware == _ARPHRD_LOOPBACK:
                    continue
                yield Heard(interface, ether, size, min(size, len(self.buffer)))

    def statistics(self) -> Tuple[int, int]:
        """Return how many packets passed the filter so far, and for how many of them there was no room."""
        for made in self._sockets:
            told = made.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
            # They begin anew each time that they are told.
            for at, count in enumerate(_STATISTICS.unpack(told)):
                self._counts[at] += count
        return self._counts[0], self._counts[1]


def _bind(made: socket.socket, ifindex: int) -> None:
    """Bind a packet socket to one interface or, by 0, to all; Python's own bind knows no such name."""
    address = _ADDRESS.pack(socket.AF_PACKET, socket.htons(ETH_P_ALL), ifindex, 0, 0, 0, b"")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.bind(made.fileno(), address, len(address)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def attach_filter(to: socket.socket, program: List[Instruction]) -> None:
    """Have the kernel drop what a program rejects, before it comes to a socket.

    Raises:
        OSError: it is no program.

    """
    packed = pack_program(program)
    held = ctypes.create_string_buffer(packed, len(packed))
    # struct sock_fprog: the number of instructions, and where they are.
    to.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(held))
    )
