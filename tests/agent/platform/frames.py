"""Strategies that make packets and filters about the same few addresses and ports."""

import ipaddress
import struct

from hypothesis import strategies as st

HOSTS4 = ("10.0.0.1", "10.0.0.2", "10.1.0.1", "192.0.2.1")
HOSTS6 = ("fd00::1", "fd00::2", "2001:db8::1")
PORTS = (22, 53, 80, 443, 8050)
PROTOCOLS = (1, 6, 17, 58, 132, 47)
ETHERS = {"ip": 0x0800, "ip6": 0x86DD, "arp": 0x0806, "rarp": 0x8035, "other": 0x88CC}


def frame(ether: int, body: bytes) -> bytes:
    """Return a frame of Ethernet, long enough that no field is behind its end."""
    return bytes(12) + struct.pack(">H", ether) + body + bytes(80)


def ip4(
    source: str, target: str, protocol: int, body: bytes, *, fragment: int = 0, options: bytes = b""
) -> bytes:
    """Return an IPv4 packet."""
    length = 20 + len(options) + len(body)
    header = struct.pack(
        ">BBHHHBBH4s4s", 0x40 | (20 + len(options)) // 4, 0, length, 1, fragment, 64, protocol, 0,
        ipaddress.ip_address(source).packed, ipaddress.ip_address(target).packed,
    )  # fmt: skip
    return header + options + body


def ip6(source: str, target: str, following: int, body: bytes) -> bytes:
    """Return an IPv6 packet."""
    packed = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    return struct.pack(">IHBB", 6 << 28, len(body), following, 64) + packed + body


def udp(source: int, target: int, payload: bytes = b"") -> bytes:
    """Return a UDP datagram."""
    return struct.pack(">HHHH", source, target, 8 + len(payload), 0) + payload


def tcp(source: int, target: int, payload: bytes = b"", sequence: int = 1, options: bytes = b"") -> bytes:
    """Return a TCP segment."""
    offset = (20 + len(options)) // 4 << 4
    return struct.pack(">HHIIBBHHH", source, target, sequence, 0, offset, 0x10, 0, 0, 0) + options + payload


def arp(source: str, target: str) -> bytes:
    """Return an ARP request."""
    packed = (ipaddress.ip_address(source).packed, ipaddress.ip_address(target).packed)
    return struct.pack(">HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, b"", packed[0], b"", packed[1])


_port = st.sampled_from(PORTS)
_transport = st.builds(lambda source, target: tcp(source, target, bytes(24)), _port, _port)
_host4, _host6 = st.sampled_from(HOSTS4), st.sampled_from(HOSTS6)
_fragments = st.sampled_from([0, 0, 0, 0x2000, 0x2001, 5, 0x4000])


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Make a frame."""
    kind = draw(st.sampled_from(list(ETHERS)))
    if kind == "ip":
        options = draw(st.sampled_from([b"", b"\1" * 4, b"\1" * 40]))
        body = ip4(
            draw(_host4), draw(_host4), draw(st.sampled_from(PROTOCOLS)), draw(_transport),
            fragment=draw(_fragments), options=options,
        )  # fmt: skip
    elif kind == "ip6":
        following = draw(st.sampled_from((*PROTOCOLS, 44, 0)))
        body = draw(_transport)
        if following == 44:
            body = struct.pack(">BBHI", draw(st.sampled_from(PROTOCOLS)), 0, draw(_fragments), 0) + body
        body = ip6(draw(_host6), draw(_host6), following, body)
    elif kind in ("arp", "rarp"):
        body = arp(draw(_host4), draw(_host4))
    else:
        body = draw(st.binary(max_size=20))
    return frame(ETHERS[kind], body)


_direction = st.sampled_from(["", "", "src ", "dst "])
_families = st.sampled_from([("", HOSTS4), ("ip ", HOSTS4), ("", HOSTS6), ("ip6 ", HOSTS6)])
_nets = st.sampled_from(
    ["10.0.0.0/8", "10.0.0.0/24", "10.0.0.0/31", "fd00::/8", "2001:db8::/33", "fd00::/127"]
)


@st.composite
def terms(draw: st.DrawFn) -> str:
    """Make a term of a filter."""
    kind = draw(st.sampled_from(["kind", "host", "net", "port", "portrange"]))
    if kind == "kind":
        return draw(st.sampled_from(["tcp", "udp", "icmp", "icmp6", "ip", "ip6", "arp"]))
    if kind == "host":
        family, hosts = draw(_families)
        return f"{family}{draw(_direction)}host {draw(st.sampled_from(hosts))}"
    if kind == "net":
        return f"{draw(_direction)}net {draw(_nets)}"
    protocol = draw(st.sampled_from(["", "tcp ", "udp "]))
    if kind == "port":
        return f"{protocol}{draw(_direction)}port {draw(_port)}"
    low, high = sorted((draw(_port), draw(_port)))
    return f"{protocol}{draw(_direction)}portrange {low}-{high}"


filters = st.recursive(
    terms(),
    lambda inner: st.one_of(
        st.builds("not ({})".format, inner),
        st.builds("{} and {}".format, inner, inner),
        st.builds("{} or {}".format, inner, inner),
        st.builds("({}) and ({})".format, inner, inner),
        st.builds("({}) or ({})".format, inner, inner),
    ),
    max_leaves=6,
)
