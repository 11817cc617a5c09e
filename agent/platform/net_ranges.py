"""Which addresses and ports are asked for: values and ranges of them, and what is left out.

Rules:

* Values are alternatives; one with a leading `!` leaves out, and wins. With nothing but those, all else is
  asked for.
* An IPv4 address within IPv6 (`::ffff:192.0.2.1`), or a range of them, is one of IPv4: that is how addresses
  of sockets are told. `::/0` is therefore IPv6 alone.
* A range may be written from any address in it: `10.1.2.3/8` is `10.0.0.0/8`.

Source: RFC 4291, 2.5.5.2.
"""

import ipaddress
from functools import lru_cache
from typing import Iterable, List, Optional, Tuple, Union

MOST_PORT = 0xFFFF
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


def parse_range(text: str) -> Network:
    """Return the range that an address, or an address with a prefix length, stands for.

    Raises:
        ValueError: it is neither.

    """
    if "%" in text:
        raise ValueError(f"{text!r}: an interface (%) is no part of an address here")
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is neither an address nor a range such as 192.0.2.0/24") from None
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        base = int(network.network_address) & 0xFFFFFFFF
        return ipaddress.IPv4Network((base, network.prefixlen - _MAPPED.prefixlen))
    return network


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Optional[Address]:
    """Return an address that the system tells, without its interface; None for what is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


class AddressRanges:
    """Addresses that are asked for.

    Raises:
        ValueError: a value is no address and no range.

    """

    def __init__(self, values: Iterable[str]) -> None:
        self._wanted: List[Network] = []
        self._unwanted: List[Network] = []
        for value in values:
            if value.startswith("!"):
                self._unwanted.append(parse_range(value[1:]))
            else:
                self._wanted.append(parse_range(value))

    def holds(self, text: str) -> bool:
        """Tell whether an address is asked for; what is no address never is."""
        address = parse_address(text)
        if address is None or any(address in network for network in self._unwanted):
            return False
        return not self._wanted or any(address in network for network in self._wanted)


def parse_ports(text: str) -> Tuple[int, int]:
    """Return the first and the last port of a value such as `443` or `8000-8100`.

    Raises:
        ValueError: it is neither.

    """
    first, dash, last = text.partition("-")
    if not (_is_number(first) and (_is_number(last) if dash else True)):
        raise ValueError(f"{text!r} is neither a port nor a range such as 8000-8100")
    low, high = int(first), int(last or first)
    if not low <= high <= MOST_PORT:
        raise ValueError(f"{text!r}: ports are from 0 to {MOST_PORT}, the lower one first")
    return low, high


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


class PortRanges:
    """Ports that are asked for.

    Raises:
        ValueError: a value is no port and no range.

    """

    def __init__(self, values: Iterable[str]) -> None:
        self._wanted: List[Tuple[int, int]] = []
        self._unwanted: List[Tuple[int, int]] = []
        for value in values:
            if value.startswith("!"):
                self._unwanted.append(parse_ports(value[1:]))
            else:
                self._wanted.append(parse_ports(value))

    def holds(self, port: int) -> bool:
        """Tell whether a port is asked for."""
        if any(low <= port <= high for low, high in self._unwanted):
            return False
        return not self._wanted or any(low <= port <= high for low, high in self._wanted)
