r"""The filter language of packets: a small subset of pcap-filter(7), parsed to a tree.

    tcp  udp  icmp  icmp6  ip  ip6  arp      also as `proto tcp`
    [src|dst] host ADDRESS                   [ip|ip6] may stand before host and net
    [src|dst] net ADDRESS/BITS
    [tcp|udp] [src|dst] port NUMBER
    [tcp|udp] [src|dst] portrange NUMBER-NUMBER
    not X   X and Y   X or Y   ( X )         also ! && ||

Every expression of the subset means what it means to tcpdump(8): `not` binds closest, `and` and `or` bind
alike, from left to right, and an address is looked for in ARP too. Names of hosts, networks and ports are
refused: nothing is resolved here. So is a value without its word (`port 80 or 443`), which pcap would take.
"""

import ipaddress
import re
from typing import List, NamedTuple, Optional, Union

MAX_CHARACTERS = 4096
# More terms than anybody writes; each takes up to 30 of the 4,096 instructions that the kernel takes.
MAX_TERMS = 128
_MAX_DEPTH = 64
_TOKEN = re.compile(r"\s*(?:(\(|\)|!|&&|\|\|)|([A-Za-z0-9_.:/\\-]+))")
_WORDS = {"&&": "and", "||": "or", "!": "not"}
_PROTOCOLS = ("tcp", "udp", "icmp", "icmp6", "ip", "ip6", "arp")
_DIRECTIONS = ("src", "dst")
_MOST_PORT = 65535

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


class FilterError(ValueError):
    """An expression that is none of the subset, with what is wrong."""


class Kind(NamedTuple):
    """Packets of a protocol."""

    protocol: str


class Place(NamedTuple):
    """Packets from or to a network; a host is one of a single address. `direction` is src, dst or empty."""

    network: Network
    direction: str = ""
    # Only within IP, not within ARP.
    is_ip_only: bool = False


class Ports(NamedTuple):
    """Packets from or to ports; `protocol` is tcp, udp or empty (those, and SCTP)."""

    low: int
    high: int
    protocol: str = ""
    direction: str = ""


class Not(NamedTuple):
    """What another expression does not hold for."""

    inner: "Expression"


class Both(NamedTuple):
    """What two expressions hold for."""

    left: "Expression"
    right: "Expression"


class Either(NamedTuple):
    """What one of two expressions holds for."""

    left: "Expression"
    right: "Expression"


Expression = Union[Kind, Place, Ports, Not, Both, Either]


def parse_filter(text: str) -> Optional[Expression]:
    """Return the tree of an expression; None for an empty one, which holds for every packet.

    Raises:
        FilterError: it is none of the subset, or too long.

    """
    if len(text) > MAX_CHARACTERS:
        raise FilterError(f"a filter of more than {MAX_CHARACTERS} characters")
    tokens = _tokens(text)
    if not tokens:
        return None
    parser = _Parser(tokens)
    tree = parser.expression(0)
    parser.require_end()
    return tree


def _tokens(text: str) -> List[str]:
    tokens: List[str] = []
    at = 0
    while text[at:].strip():
        matched = _TOKEN.match(text, at)
        if matched is None:
            raise FilterError(f"{text[at:].strip()[:20]!r} is not understood")
        mark, word = matched.groups()
        tokens.append(_WORDS.get(mark, mark) if mark else word.lower())
        at = matched.end()
    return tokens


class _Parser:
    def __init__(self, tokens: List[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._terms = 0

    def expression(self, depth: int) -> Expression:
        """Parse `X and Y or Z`, from left to right."""
        tree = self._factor(depth)
        while self._peek() in ("and", "or"):
            joined = Both if self._next() == "and" else Either
            tree = joined(tree, self._factor(depth))
        return tree

    def require_end(self) -> None:
        if self._at < len(self._tokens):
            raise FilterError(f"{self._tokens[self._at]!r} follows what is complete: and, or?")

    def _factor(self, depth: int) -> Expression:
        if depth > _MAX_DEPTH:
            raise FilterError("nested too deeply")
        if self._peek() == "not":
            self._next()
            return Not(self._factor(depth + 1))
        if self._peek() == "(":
            self._next()
            inner = self.expression(depth + 1)
            if self._next() != ")":
                raise FilterError("a ( is not closed")
            return inner
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise FilterError(f"more than {MAX_TERMS} terms")
        return self._term()

    def _term(self) -> Expression:
        word = self._next()
        if word == "proto":
            word = self._next().lstrip("\\")
            if word not in _PROTOCOLS:
                raise FilterError(f"proto {word}: known are {', '.join(_PROTOCOLS)}")
            return Kind(word)
        protocol = direction = ""
        if word in _PROTOCOLS:
            protocol = word
            if self._peek() not in (*_DIRECTIONS, "host", "net", "port", "portrange"):
                return Kind(protocol)
            word = self._next()
        if word in _DIRECTIONS:
            direction, word = word, self._next()
        if word in ("host", "net"):
            return self._place(word, protocol, direction)
        if word in ("port", "portrange"):
            return self._ports(word, protocol, direction)
        raise FilterError(f"{word!r} is not understood: host, net, port, portrange or a protocol?")

    def _place(self, word: str, protocol: str, direction: str) -> Place:
        value = self._next()
        try:
            network = ipaddress.ip_network(value)
        except ValueError:
            raise FilterError(f"{word} {value}: no address, or one with bits behind its prefix") from None
        if word == "host" and network.prefixlen != network.max_prefixlen:
            raise FilterError(f"host {value}: that is a net")
        if protocol not in ("", "ip", "ip6"):
            raise FilterError(f"{protocol} {word}: only ip and ip6 may stand before {word}")
        if protocol and (protocol == "ip6") != (network.version == 6):  # noqa: PLR2004  (of IPv6)
            raise FilterError(f"{protocol} {word} {value}: that is of the other family")
        return Place(network, direction, bool(protocol))

    def _ports(self, word: str, protocol: str, direction: str) -> Ports:
        value = self._next()
        first, dash, last = value.partition("-")
        if (word == "portrange") != bool(dash) or not (_is_port(first) and _is_port(last or first)):
            raise FilterError(f"{word} {value}: no {'range of ports' if word == 'portrange' else 'port'}")
        if protocol not in ("", "tcp", "udp"):
            raise FilterError(f"{protocol} {word}: only tcp and udp have ports here")
        low, high = int(first), int(last or first)
        if low > high:
            raise FilterError(f"{word} {value}: the lower port comes first")
        return Ports(low, high, protocol, direction)

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        if self._at >= len(self._tokens):
            raise FilterError("it ends too early")
        self._at += 1
        return self._tokens[self._at - 1]


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= _MOST_PORT  # noqa: PLR2004
