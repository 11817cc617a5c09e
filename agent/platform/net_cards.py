"""The interfaces of an endpoint with all that is known of each: addresses, ports of bridges, speed, driver.

The kernel tells the most by rtnetlink; speed, duplex and driver stand in /sys/class/net, which shows the
namespace in which it was mounted: they are read for that one only. Elsewhere psutil tells what it can.

Sources: https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-net
"""

import os
import socket
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

from agent.platform.net_links import Counters, InterfaceAddress, Link, read_addresses, read_links
from agent.platform.net_ranges import parse_address
from agent.platform.rtnetlink import RouteNetlink

SYS = "/sys/class/net"
_MAX_BYTES = 4096
_UP, _RUNNING = 0x1, 0x40
_LOOPBACK = 0x8


class Card(NamedTuple):
    """One interface: `speed_mbits` in megabits per second, `master`, `lower` and `ports` by name."""

    link: Link
    addresses: Tuple[InterfaceAddress, ...] = ()
    master: Optional[str] = None
    lower: Optional[str] = None
    ports: Tuple[str, ...] = ()
    speed_mbits: Optional[int] = None
    duplex: Optional[str] = None
    driver: Optional[str] = None


def read_cards(netlink: RouteNetlink, sys_net: Optional[str] = SYS) -> List[Card]:
    """Return the interfaces of a network namespace.

    Args:
        netlink: made in that namespace.
        sys_net: where its interfaces lie in sysfs; None where that shows another namespace.

    Raises:
        OSError: the kernel refused.

    """
    links = list(read_links(netlink))
    addresses: Dict[int, List[InterfaceAddress]] = {}
    for address in read_addresses(netlink):
        addresses.setdefault(address.ifindex, []).append(address)
    names = {link.ifindex: link.name for link in links}
    ports: Dict[int, List[str]] = {}
    for link in links:
        if link.master is not None:
            ports.setdefault(link.master, []).append(link.name)
    cards = []
    for link in links:
        # The number of an end in another namespace is none of ours.
        lower = names.get(link.lower) if link.lower is not None and not link.is_lower_elsewhere else None
        card = Card(
            link,
            tuple(addresses.get(link.ifindex, ())),
            master=names.get(link.master) if link.master is not None else None,
            lower=lower,
            ports=tuple(ports.get(link.ifindex, ())),
        )
        cards.append(card if sys_net is None else _with_hardware(card, sys_net))
    return cards


def _with_hardware(card: Card, sys_net: str) -> Card:
    base = f"{sys_net}/{card.link.name}"
    if _read(f"{base}/ifindex") != str(card.link.ifindex):
        # Of another namespace after all, or gone.
        return card
    speed, duplex = _read(f"{base}/speed"), _read(f"{base}/duplex")
    try:
        driver: Optional[str] = os.path.basename(os.readlink(f"{base}/device/driver"))  # noqa: PTH115, PTH119
    except OSError:
        # Not made of hardware.
        driver = None
    return card._replace(
        # -1 is unknown, as for a cable that is not plugged in.
        speed_mbits=int(speed) if speed.isdigit() and int(speed) else None,
        duplex=duplex if duplex in ("full", "half") else None,
        driver=driver,
    )


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read(_MAX_BYTES).strip().decode("utf-8", "replace")
    except OSError:
        # EINVAL where the interface is down or has no such thing.
        return ""


def read_portable_cards() -> Iterator[Card]:
    """Yield the interfaces as psutil tells them: without kinds, ports, drivers, and who hears everything."""
    import psutil  # noqa: PLC0415  (this file must import where it is not needed)

    stats, counters = psutil.net_if_stats(), psutil.net_io_counters(pernic=True)
    for number, (name, entries) in enumerate(sorted(psutil.net_if_addrs().items()), 1):
        macs = [
            entry.address.lower().replace("-", ":") for entry in entries if entry.family == psutil.AF_LINK
        ]
        addresses = [
            _portable_address(number, entry.family, entry.address, entry.netmask)
            for entry in entries
            if entry.family in (socket.AF_INET, socket.AF_INET6)
        ]
        status = stats.get(name)
        passed = counters.get(name)
        flags = ((_UP | _RUNNING) if status is not None and status.isup else 0) | _flags(status)
        link = Link(
            ifindex=number,
            name=name,
            kind="loopback" if flags & _LOOPBACK else "interface",
            flags=flags,
            mac=macs[0] if macs and macs[0] else None,
            mtu=status.mtu if status is not None else None,
            state="up" if flags & _UP else "down",
            counters=passed
            and Counters(
                passed.packets_recv, passed.packets_sent, passed.bytes_recv, passed.bytes_sent,
                passed.errin, passed.errout, passed.dropin, passed.dropout,
            ),
        )  # fmt: skip
        speed = status.speed if status is not None else 0
        yield Card(link, tuple(one for one in addresses if one is not None), speed_mbits=speed or None)


def _flags(status: object) -> int:
    """Return the flags that psutil tells by name; on Windows it tells none."""
    told = getattr(status, "flags", "") or ""
    known = {"broadcast": 0x2, "loopback": _LOOPBACK, "pointopoint": 0x10, "noarp": 0x80, "promisc": 0x100,
             "allmulti": 0x200, "multicast": 0x1000}  # fmt: skip
    return sum(bit for name, bit in known.items() if name in told.split(","))


def _portable_address(
    number: int, family: int, text: str, netmask: Optional[str]
) -> Optional[InterfaceAddress]:
    address = parse_address(text)
    if address is None:
        return None
    return InterfaceAddress(
        ifindex=number,
        family="ipv4" if family == socket.AF_INET else "ipv6",
        address=str(address),
        prefix_length=prefix_length(netmask),
        scope="link" if address.is_link_local else "host" if address.is_loopback else "global",
    )


def prefix_length(netmask: Optional[str]) -> int:
    """Return how many bits of a netmask are set, which may be written in the way of either family."""
    if not netmask:
        return 0
    plain = netmask.partition("/")[0]
    try:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in plain else socket.AF_INET, plain)
    except OSError:
        return 0
    return sum(bin(byte).count("1") for byte in packed)
