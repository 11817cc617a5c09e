"""The routes and neighbours (ARP and NDP) of a network namespace, as rtnetlink tells them.

Routes that the kernel keeps for one destination only (cached redirects) are left out, as are the neighbours
that are none: entries for multicast, loopback and links without address resolution (NUD_NOARP). A neighbour
that does not answer is yielded, with its state and without a hardware address.

Sources: rtnetlink(7), ip-route(8), ip-neighbour(8), arp(7); include/uapi/linux/{rtnetlink,neighbour}.h.
"""

import socket
import struct
from typing import Iterator, List, NamedTuple, Optional

from agent.platform.rtnetlink import (
    RTM_GETNEIGH,
    RTM_GETROUTE,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    RouteNetlink,
    address_of,
    mac_of,
    number_of,
    parse_attributes,
)

_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_NEIGHBOUR = struct.Struct("=BBHiHBB")  # struct ndmsg: family, pads, index, state, flags, type
_NEXT_HOP = struct.Struct("=HBBi")  # struct rtnexthop: length, flags, hops, index
_FAMILY = struct.Struct("=H")  # the family in struct rtvia
_FAMILIES = {socket.AF_INET: "ipv4", socket.AF_INET6: "ipv6"}

_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 4, 5, 6, 7
_RTA_MULTIPATH, _RTA_TABLE, _RTA_VIA = 9, 15, 18
_RTM_F_CLONED = 0x200
_TYPES = {1: "unicast", 2: "local", 3: "broadcast", 4: "anycast", 5: "multicast", 6: "blackhole",
          7: "unreachable", 8: "prohibit", 9: "throw", 10: "nat"}  # fmt: skip
_ORIGINS = {1: "redirect", 2: "kernel", 3: "boot", 4: "static", 8: "gated", 9: "ra", 10: "mrt", 11: "zebra",
            12: "bird", 13: "dnrouted", 14: "xorp", 15: "ntk", 16: "dhcp", 17: "mrouted", 18: "keepalived",
            42: "babel", 186: "bgp", 187: "isis", 188: "ospf", 189: "rip", 192: "eigrp"}  # fmt: skip
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_NOARP = 0x40
_STATES = {0: "none", 0x01: "incomplete", 0x02: "reachable", 0x04: "stale", 0x08: "delay", 0x10: "probe",
           0x20: "failed", 0x80: "permanent"}  # fmt: skip
_UNRESOLVED = ("none", "incomplete", "failed")
_NTF_ROUTER = 0x80


class Route(NamedTuple):
    """One way to a destination; a route with several next hops is as many of them.

    `family` is ipv4 or ipv6, `destination` an address with its prefix length (`0.0.0.0/0` is the default
    route), `ifindex` the number of the interface, `metric` the priority: the lowest is taken. `table` is 254
    for the main one, 255 for that of local addresses.
    """

    family: str
    destination: str
    kind: str
    origin: str
    table: int
    gateway: Optional[str] = None
    ifindex: Optional[int] = None
    metric: int = 0
    source: Optional[str] = None

    @property
    def is_default(self) -> bool:
        """Whether it is where packets go that no other route takes."""
        return self.destination in ("0.0.0.0/0", "::/0") and self.kind == "unicast"


class Neighbour(NamedTuple):
    """One neighbour on a link: `mac` is None where it did not answer, or answers by no hardware address."""

    family: str
    address: str
    ifindex: int
    state: str
    mac: Optional[str] = None
    is_router: bool = False

    @property
    def is_resolved(self) -> bool:
        """Whether it answered, so far as is known: what did not may not be there at all."""
        return self.mac is not None and self.state not in _UNRESOLVED


def read_routes(netlink: RouteNetlink) -> Iterator[Route]:
    """Yield the routes of all tables.

    Raises:
        OSError: the kernel refused.

    """
    request = _ROUTE.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0, 0)
    for body in netlink.dump(RTM_GETROUTE, request, RTM_NEWROUTE):
        yield from parse_route(body)


def read_neighbours(netlink: RouteNetlink) -> Iterator[Neighbour]:
    """Yield the neighbours of all interfaces.

    Raises:
        OSError: the kernel refused.

    """
    request = _NEIGHBOUR.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0, 0)
    for body in netlink.dump(RTM_GETNEIGH, request, RTM_NEWNEIGH):
        neighbour = parse_neighbour(body)
        if neighbour is not None:
            yield neighbour


def parse_route(body: bytes) -> List[Route]:
    """Return what a message of type RTM_NEWROUTE tells of: one route, or one for each of its next hops."""
    if len(body) < _ROUTE.size:
        return []
    family, length, _source, _tos, short_table, origin, _scope, kind, flags = _ROUTE.unpack_from(body)
    name = _FAMILIES.get(family)
    if name is None or flags & _RTM_F_CLONED:
        return []
    held = parse_attributes(body[_ROUTE.size :])
    destination = address_of(family, held.get(_RTA_DST)) or ("0.0.0.0" if name == "ipv4" else "::")  # noqa: S104
    table = number_of(held.get(_RTA_TABLE))
    route = Route(
        family=name,
        destination=f"{destination}/{length}",
        kind=_TYPES.get(kind, str(kind)),
        origin=_ORIGINS.get(origin, str(origin)),
        table=short_table if table is None else table,
        gateway=_gateway(family, held.get(_RTA_GATEWAY), held.get(_RTA_VIA)),
        ifindex=number_of(held.get(_RTA_OIF)),
        metric=number_of(held.get(_RTA_PRIORITY)) or 0,
        source=address_of(family, held.get(_RTA_PREFSRC)),
    )
    if _RTA_MULTIPATH in held:
        return list(_hops(route, family, held[_RTA_MULTIPATH]))
    return [route]


def _gateway(family: int, plain: Optional[bytes], via: Optional[bytes]) -> Optional[str]:
    """Return the gateway; `via` (struct rtvia) is one of the other family."""
    if plain is None and via is not None and len(via) > _FAMILY.size:
        return address_of(_FAMILY.unpack_from(via)[0], via[_FAMILY.size :])
    return address_of(family, plain)


def _hops(route: Route, family: int, data: bytes) -> Iterator[Route]:
    at = 0
    while at + _NEXT_HOP.size <= len(data):
        length, _flags, _hops_left, index = _NEXT_HOP.unpack_from(data, at)
        if length < _NEXT_HOP.size or at + length > len(data):
            return
        held = parse_attributes(data[at + _NEXT_HOP.size : at + length])
        gateway = _gateway(family, held.get(_RTA_GATEWAY), held.get(_RTA_VIA))
        yield route._replace(gateway=gateway, ifindex=index)
        at += (length + 3) & ~3


def parse_neighbour(body: bytes) -> Optional[Neighbour]:
    """Return the neighbour that a message of type RTM_NEWNEIGH tells of; None for what is none."""
    if len(body) < _NEIGHBOUR.size:
        return None
    family, _pad, _pad2, index, state, flags, _type = _NEIGHBOUR.unpack_from(body)
    held = parse_attributes(body[_NEIGHBOUR.size :])
    name = _FAMILIES.get(family)
    address = address_of(family, held.get(_NDA_DST))
    if name is None or address is None or state & _NUD_NOARP:
        return None
    return Neighbour(
        family=name,
        address=address,
        ifindex=index,
        state=_STATES.get(state, f"state-{state}"),
        mac=mac_of(held.get(_NDA_LLADDR)),
        is_router=bool(flags & _NTF_ROUTER),
    )
