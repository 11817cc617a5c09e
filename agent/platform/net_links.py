"""The interfaces of a network namespace and their addresses, as rtnetlink tells them.

Names of interfaces and aliases are text that whoever made them chose: up to 15 and 255 bytes. Whatever a
message lacks is None, or empty; a message too short for its fixed part is nothing.

Sources: rtnetlink(7); include/uapi/linux/{if_link,if_addr,if,if_arp}.h.
"""

import socket
import struct
from typing import Iterator, NamedTuple, Optional, Tuple

from agent.platform.rtnetlink import (
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RouteNetlink,
    address_of,
    mac_of,
    number_of,
    parse_attributes,
    text_of,
)

_LINK = struct.Struct("=BBHiII")  # struct ifinfomsg: family, pad, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_STATS64 = struct.Struct("=8Q")  # the first of struct rtnl_link_stats64
_BE16 = struct.Struct(">H")

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_OPERSTATE, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_STATS64 = 16, 18, 20, 23
_IFLA_PROMISCUITY, _IFLA_LINK_NETNSID, _IFLA_XDP, _IFLA_PERM_ADDRESS = 30, 37, 43, 54
_INFO_KIND, _INFO_DATA = 1, 2
_VLAN_ID, _VLAN_PROTOCOL = 1, 5
_XDP_ATTACHED = 2
_IFA_ADDRESS, _IFA_LOCAL, _IFA_LABEL, _IFA_FLAGS = 1, 2, 3, 8

IFF_PROMISC = 0x100
# include/uapi/linux/if.h
_FLAGS = (
    (0x1, "up"), (0x2, "broadcast"), (0x8, "loopback"), (0x10, "point-to-point"), (0x40, "running"),
    (0x80, "noarp"), (IFF_PROMISC, "promisc"), (0x200, "allmulti"), (0x400, "master"), (0x800, "slave"),
    (0x1000, "multicast"), (0x10000, "lower-up"), (0x20000, "dormant"),
)  # fmt: skip
_OPERSTATES = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")  # RFC 2863
# include/uapi/linux/if_arp.h; the kinds that name themselves in IFLA_INFO_KIND need no number.
_HARDWARE = {1: "ethernet", 32: "infiniband", 512: "ppp", 772: "loopback", 801: "wifi", 802: "wifi",
             803: "wifi", 65534: "none"}  # fmt: skip
_IFA_FLAGS_SAID = (
    (0x01, "temporary"),
    (0x08, "dad-failed"),
    (0x20, "deprecated"),
    (0x40, "tentative"),
    (0x80, "permanent"),
)
_SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}


class Counters(NamedTuple):
    """What went through an interface since it was made, in packets and bytes."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int


class Link(NamedTuple):
    """One interface.

    `kind` is what the kernel calls it (bridge, vlan, veth, bond, tun, wireguard), or of what hardware it is.
    `master` is the number of the bridge or bond that it is a port of, `lower` that of the interface that it
    lies on or, with `is_lower_elsewhere`, of its other end in another namespace. `promiscuity` counts who
    asked for all packets: sockets, bridges, or whoever set the flag.
    """

    ifindex: int
    name: str
    kind: str
    flags: int
    mac: Optional[str] = None
    permanent_mac: Optional[str] = None
    mtu: Optional[int] = None
    state: str = "unknown"
    master: Optional[int] = None
    lower: Optional[int] = None
    is_lower_elsewhere: bool = False
    promiscuity: int = 0
    vlan: Optional[int] = None
    vlan_protocol: Optional[int] = None
    has_xdp: bool = False
    alias: str = ""
    counters: Optional[Counters] = None

    @property
    def is_promiscuous(self) -> bool:
        """Whether it takes every packet, not only those for it."""
        return self.promiscuity > 0 or bool(self.flags & IFF_PROMISC)

    @property
    def flag_names(self) -> Tuple[str, ...]:
        """The flags, by name."""
        return tuple(name for bit, name in _FLAGS if self.flags & bit)


class InterfaceAddress(NamedTuple):
    """One address of an interface: `family` is ipv4 or ipv6; `peer` is the other end, if there is one.

    `ifindex` is the number of the interface, `label` the name of IPv4 for it, such as `eth0:1`.
    """

    ifindex: int
    family: str
    address: str
    prefix_length: int
    scope: str
    flags: Tuple[str, ...] = ()
    peer: Optional[str] = None
    label: str = ""


def read_links(netlink: RouteNetlink) -> Iterator[Link]:
    """Yield the interfaces.

    Raises:
        OSError: the kernel refused.

    """
    for body in netlink.dump(RTM_GETLINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0), RTM_NEWLINK):
        link = parse_link(body)
        if link is not None:
            yield link


def read_addresses(netlink: RouteNetlink) -> Iterator[InterfaceAddress]:
    """Yield the addresses of all interfaces.

    Raises:
        OSError: the kernel refused.

    """
    for body in netlink.dump(RTM_GETADDR, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0), RTM_NEWADDR):
        address = parse_address(body)
        if address is not None:
            yield address


def parse_link(body: bytes) -> Optional[Link]:
    """Return the interface that a message of type RTM_NEWLINK tells of."""
    if len(body) < _LINK.size:
        return None
    _family, _pad, hardware, index, flags, _change = _LINK.unpack_from(body)
    held = parse_attributes(body[_LINK.size :])
    info = parse_attributes(held.get(_IFLA_LINKINFO, b""))
    kind = text_of(info.get(_INFO_KIND))
    vlan = parse_attributes(info.get(_INFO_DATA, b"")) if kind == "vlan" else {}
    state = number_of(held.get(_IFLA_OPERSTATE)) or 0
    lower = number_of(held.get(_IFLA_LINK))
    counters = held.get(_IFLA_STATS64, b"")
    return Link(
        ifindex=index,
        name=text_of(held.get(_IFLA_IFNAME)),
        kind=kind or _HARDWARE.get(hardware, f"hardware-{hardware}"),
        flags=flags,
        mac=mac_of(held.get(_IFLA_ADDRESS)),
        permanent_mac=mac_of(held.get(_IFLA_PERM_ADDRESS)),
        mtu=number_of(held.get(_IFLA_MTU)),
        state=_OPERSTATES[state] if state < len(_OPERSTATES) else "unknown",
        master=number_of(held.get(_IFLA_MASTER)) or None,
        lower=lower if lower not in (0, index) else None,
        is_lower_elsewhere=_IFLA_LINK_NETNSID in held,
        promiscuity=number_of(held.get(_IFLA_PROMISCUITY)) or 0,
        vlan=number_of(vlan.get(_VLAN_ID)),
        vlan_protocol=_big_endian(vlan.get(_VLAN_PROTOCOL)),
        has_xdp=bool(number_of(parse_attributes(held.get(_IFLA_XDP, b"")).get(_XDP_ATTACHED))),
        alias=text_of(held.get(_IFLA_IFALIAS)),
        counters=Counters(*_STATS64.unpack_from(counters)) if len(counters) >= _STATS64.size else None,
    )


def _big_endian(value: Optional[bytes]) -> Optional[int]:
    return int(_BE16.unpack(value)[0]) if value is not None and len(value) == _BE16.size else None


def parse_address(body: bytes) -> Optional[InterfaceAddress]:
    """Return the address that a message of type RTM_NEWADDR tells of."""
    if len(body) < _ADDRESS.size:
        return None
    family, prefix_length, short_flags, scope, index = _ADDRESS.unpack_from(body)
    held = parse_attributes(body[_ADDRESS.size :])
    # On a point-to-point link IFA_ADDRESS is the other end; IFA_LOCAL is ours where it is there.
    other = address_of(family, held.get(_IFA_ADDRESS))
    address = address_of(family, held.get(_IFA_LOCAL)) or other
    if address is None:
        return None
    flags = number_of(held.get(_IFA_FLAGS))
    said = short_flags if flags is None else flags
    is_ipv4 = family == socket.AF_INET
    return InterfaceAddress(
        ifindex=index,
        family="ipv4" if is_ipv4 else "ipv6",
        address=address,
        prefix_length=prefix_length,
        scope=_SCOPES.get(scope, str(scope)),
        flags=tuple(
            # The same bit means something else in IPv4: one of several addresses of a network.
            "secondary" if is_ipv4 and name == "temporary" else name
            for bit, name in _IFA_FLAGS_SAID
            if said & bit
        ),
        peer=other if other != address else None,
        label=text_of(held.get(_IFA_LABEL)),
    )
