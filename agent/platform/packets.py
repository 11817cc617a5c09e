"""What a packet's headers say: addresses, protocol, ports, and where what it carries begins.

A packet begins with its network header, as a packet socket of kind SOCK_DGRAM gives it. Every length in it
is its sender's word: nothing is read behind what was captured, headers that do not fit end the look, and
what was understood until then stands.

Sources: RFC 791, 8200, 9293, 768, 826, 4884; IANA's numbers of protocols.
"""

import socket
import struct
from typing import NamedTuple, Optional, Tuple, Union

ETH_IP, ETH_IP6, ETH_ARP = 0x0800, 0x86DD, 0x0806
_VLANS = (0x8100, 0x88A8)
ICMP, TCP, UDP, ICMP6, SCTP = 1, 6, 17, 58, 132
_NAMES = {1: "icmp", 2: "igmp", 4: "ipip", 6: "tcp", 17: "udp", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah",
          58: "icmp6", 89: "ospf", 103: "pim", 112: "vrrp", 132: "sctp"}  # fmt: skip
_WITH_PORTS = (TCP, UDP, SCTP)
_IP4 = struct.Struct(">BBHHHBBH4s4s")
_IP6 = struct.Struct(">IHBB16s16s")
_ARP = struct.Struct(">HHBBH6s4s6s4s")
_PORTS = struct.Struct(">HH")
_TCP = struct.Struct(">HHIIBB")
_UDP_BYTES = 8
# Headers of IPv6 that others follow: hop-by-hop, routing, destination; AH counts its length differently.
_EXTENSIONS = (0, 43, 60)
_FRAGMENT, _AUTHENTICATION = 44, 51
_MOST_EXTENSIONS = 8
_MORE_FRAGMENTS, _FRAGMENT_OFFSET = 0x2000, 0x1FFF


Buffer = Union[bytes, bytearray]


class Heard(NamedTuple):
    """A packet that was heard: its length, how many bytes of a buffer are its own, and where it was."""

    interface: str
    ether: int
    size: int
    captured: int


class Packet(NamedTuple):
    """The headers of one packet.

    `family` is AF_INET or AF_INET6, or 0 for what is no IP; `protocol` the number of the IP protocol, or of
    the Ethernet type where it is none. Addresses are bytes, empty where there are none. `sequence` is TCP's.
    `payload` is where what TCP or UDP carries begins and ends in the data, if anything.
    """

    family: int
    protocol: int
    source: bytes = b""
    target: bytes = b""
    source_port: int = 0
    target_port: int = 0
    sequence: int = 0
    payload: Tuple[int, int] = (0, 0)


def parse_packet(ether: int, data: Buffer, captured: Optional[int] = None) -> Packet:
    """Return what the headers of a packet say.

    Args:
        ether: the Ethernet type of what the data begin with.
        data: the packet, from its network header on; or a buffer that begins with it.
        captured: how many bytes of the data are the packet's; all by default.

    """
    end = len(data) if captured is None else captured
    at = 0
    for _ in range(2):
        if ether not in _VLANS or end < at + 4:
            break
        (ether,) = struct.unpack_from(">H", data, at + 2)
        at += 4
    if ether == ETH_IP and end >= at + _IP4.size:
        return _ip4(data, at, end)
    if ether == ETH_IP6 and end >= at + _IP6.size:
        return _ip6(data, at, end)
    if ether == ETH_ARP and end >= at + _ARP.size:
        hardware, protocol, _, length, _, _, source, _, target = _ARP.unpack_from(data, at)
        if (hardware, protocol, length) == (1, ETH_IP, 4):
            return Packet(0, ether, source, target)
    return Packet(0, ether)


def _ip4(data: Buffer, at: int, end: int) -> Packet:
    first, _, total, _, fragment, _, protocol, _, source, target = _IP4.unpack_from(data, at)
    header = (first & 15) * 4
    packet = Packet(socket.AF_INET, protocol, source, target)
    if first >> 4 != 4 or header < _IP4.size:  # noqa: PLR2004  (version 4)
        return Packet(0, ETH_IP)
    # A total length of 0 is that of a packet that the card will cut (segmentation offload).
    end = min(end, at + total) if total >= header else end
    if fragment & _FRAGMENT_OFFSET:
        return packet
    return _transport(packet, data, at + header, end)


def _ip6(data: Buffer, at: int, end: int) -> Packet:
    first, length, following, _, source, target = _IP6.unpack_from(data, at)
    if first >> 28 != 6:  # noqa: PLR2004  (version 6)
        return Packet(0, ETH_IP6)
    end = min(end, at + _IP6.size + length) if length else end
    at += _IP6.size
    for _ in range(_MOST_EXTENSIONS):
        packet = Packet(socket.AF_INET6, following, source, target)
        if following not in (*_EXTENSIONS, _FRAGMENT, _AUTHENTICATION) or end < at + 8:
            return _transport(packet, data, at, end)
        if following == _FRAGMENT and struct.unpack_from(">H", data, at + 2)[0] & 0xFFF8:
            # A later piece, whose beginning is elsewhere.
            return packet._replace(protocol=data[at])
        units = {_FRAGMENT: 8, _AUTHENTICATION: (data[at + 1] + 2) * 4}
        following, at = data[at], at + units.get(following, (data[at + 1] + 1) * 8)
    return packet


def _transport(packet: Packet, data: Buffer, at: int, end: int) -> Packet:
    if packet.protocol not in _WITH_PORTS or end < at + _PORTS.size:
        return packet
    source_port, target_port = _PORTS.unpack_from(data, at)
    sequence = 0
    begin = end
    if packet.protocol == TCP and end >= at + _TCP.size:
        _, _, sequence, _, offset, _ = _TCP.unpack_from(data, at)
        begin = at + (offset >> 4) * 4
        if offset >> 4 < 5:  # noqa: PLR2004  (a header of 20 bytes)
            begin = end
    elif packet.protocol == UDP:
        begin = at + _UDP_BYTES
    payload = (begin, end) if begin < end else (0, 0)
    return packet._replace(
        source_port=source_port, target_port=target_port, sequence=sequence, payload=payload
    )


def protocol_text(packet: Packet) -> str:
    """Return the name of a packet's protocol, or its number."""
    if packet.family:
        return _NAMES.get(packet.protocol, f"ip-{packet.protocol}")
    names = {ETH_ARP: "arp", 0x8035: "rarp", 0x88CC: "lldp", 0x888E: "eapol", 0x8847: "mpls", 0x8863: "pppoe",
             0x8864: "pppoe", ETH_IP: "ipv4-broken", ETH_IP6: "ipv6-broken"}  # fmt: skip
    return names.get(packet.protocol, f"ether-{packet.protocol:#06x}")


def family_text(packet: Packet) -> str:
    """Return the family of a packet: ipv4, ipv6 or other."""
    if packet.family == socket.AF_INET:
        return "ipv4"
    return "ipv6" if packet.family == socket.AF_INET6 else "other"


def address_text(packed: bytes) -> str:
    """Return an address as text; empty where there is none."""
    if len(packed) == 4:  # noqa: PLR2004  (bytes of an IPv4 address)
        return socket.inet_ntop(socket.AF_INET, packed)
    return socket.inet_ntop(socket.AF_INET6, packed) if packed else ""
