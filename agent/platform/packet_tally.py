"""What a number of packets says, as counts: flows, names that were asked for, byte strings that were found.

Rules:

* Nothing of a packet is kept but its headers' addresses and numbers, names, and counts. The beginning of a
  TLS connection is held until its name is known (`tls_hello`, bounded).
* Every table has a bound; what found no room is counted in `untold`, by table.
* A flow goes from where its first packet was seen to come from; what comes back is counted apart.
* A byte string is looked for in what each packet carries by itself: one that is cut in two is not found.
"""

from typing import (
    Callable,
    Dict,
    Generic,
    Hashable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
)

from agent.platform.dns_questions import DNS_PORTS, parse_questions
from agent.platform.packets import TCP, UDP, Buffer, Heard, Packet, parse_packet
from agent.platform.tls_hello import Hellos

MOST_FLOWS = 20_000
MOST_NAMES = 10_000
MOST_FOUND = 10_000

V = TypeVar("V")


class Seen:
    """How often and when something was seen; times in seconds since 1970."""

    __slots__ = ("count", "first_s", "last_s")

    def __init__(self, now_s: float) -> None:
        self.count = 0
        self.first_s = self.last_s = now_s

    def add(self, now_s: float) -> None:
        """Count once more."""
        self.count += 1
        self.last_s = now_s


class Flow(Seen):
    """One flow: packets and bytes in both directions, the first of which named it."""

    __slots__ = ("back", "interface", "packet", "size_back_bytes", "size_bytes")

    def __init__(self, packet: Packet, interface: str, now_s: float) -> None:
        super().__init__(now_s)
        self.packet = packet
        self.interface = interface
        self.size_bytes = self.back = self.size_back_bytes = 0


class Name(NamedTuple):
    """A name that was asked for: by DNS, with the type of record, or by TLS, with the port of the server."""

    protocol: str
    name: str
    kind: str
    target: bytes
    target_port: int


class Found(NamedTuple):
    """A byte string, by its place among those that are looked for, in a flow."""

    pattern: int
    family: int
    protocol: int
    source: bytes
    target: bytes
    source_port: int
    target_port: int


class Table(Generic[V]):
    """Things by what tells them apart, up to a bound."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: Dict[Hashable, V] = {}
        self.untold = 0

    def get(self, key: Hashable) -> Optional[V]:
        """Return what is held."""
        return self._held.get(key)

    def add(self, key: Hashable, make: Callable[[], V]) -> Optional[V]:
        """Return what is held, made where it was not; None where there is no room, which is counted."""
        held = self._held.get(key)
        if held is None:
            if len(self._held) >= self._most:
                self.untold += 1
                return None
            held = self._held[key] = make()
        return held

    def values(self) -> Iterator[V]:
        """Yield everything, in the order in which it was seen first."""
        yield from self._held.values()

    def items(self) -> Iterator[Tuple[Hashable, V]]:
        """Yield everything with what tells it apart, in that order."""
        yield from self._held.items()

    def __len__(self) -> int:
        return len(self._held)


class PacketTally:
    """Counts packets.

    Args:
        patterns: byte strings to look for in what packets carry.
        has_names: whether names of DNS and TLS are looked for.
        has_flows: whether flows are counted.

    """

    def __init__(
        self, *, patterns: Sequence[bytes] = (), has_names: bool = True, has_flows: bool = True
    ) -> None:
        self._patterns = tuple(patterns)
        self._has_names = has_names
        self._has_flows = has_flows
        self._hellos = Hellos()
        self.flows: Table[Flow] = Table(MOST_FLOWS)
        self.names: Table[Seen] = Table(MOST_NAMES)
        self.found: Table[Seen] = Table(MOST_FOUND)
        self.packets = 0
        self.size_bytes = 0

    def add(self, heard: Heard, buffer: Buffer, now_s: float) -> None:
        """Count a packet that was heard and stands in a buffer."""
        packet = parse_packet(heard.ether, buffer, heard.captured)
        self.packets += 1
        self.size_bytes += heard.size
        if self._has_flows:
            self._add_flow(packet, heard.size, heard.interface, now_s)
        begin, end = packet.payload
        if begin == end:
            return
        if self._patterns:
            self._add_found(packet, bytes(buffer[begin:end]), now_s)
        if self._has_names:
            self._add_names(packet, buffer, now_s)

    def _add_flow(self, packet: Packet, size: int, interface: str, now_s: float) -> None:
        # Of a connection there is one flow, whichever side is seen first.
        here = (packet.source, packet.source_port)
        there = (packet.target, packet.target_port)
        flow = self.flows.get((packet.family, packet.protocol, there, here)) if here != there else None
        if flow is not None:
            flow.back += 1
            flow.size_back_bytes += size
            flow.last_s = now_s
            return
        key = (packet.family, packet.protocol, here, there)
        flow = self.flows.add(key, lambda: Flow(packet, interface, now_s))
        if flow is not None:
            flow.add(now_s)
            flow.size_bytes += size

    def _add_found(self, packet: Packet, payload: bytes, now_s: float) -> None:
        for number, pattern in enumerate(self._patterns):
            if pattern in payload:
                key = Found(number, *packet[:6])
                seen = self.found.add(key, lambda: Seen(now_s))
                if seen is not None:
                    seen.add(now_s)

    def _add_names(self, packet: Packet, buffer: Buffer, now_s: float) -> None:
        begin, end = packet.payload
        is_dns = packet.target_port in DNS_PORTS
        names: List[Name] = []
        if is_dns and packet.protocol in (TCP, UDP):
            questions = parse_questions(bytes(buffer[begin:end]), is_stream=packet.protocol == TCP)
            names = [Name("dns", one.name, one.kind, packet.target, packet.target_port) for one in questions]
        elif packet.protocol == TCP:
            connection = (packet.source, packet.target, packet.source_port, packet.target_port)
            server = self._hellos.name_in(connection, packet.sequence, bytes(buffer[begin:end]))
            if server is not None:
                names = [Name("tls", server, "", packet.target, packet.target_port)]
        for name in names:
            seen = self.names.add(name, lambda: Seen(now_s))
            if seen is not None:
                seen.add(now_s)

    def untold(self) -> Dict[str, int]:
        """Return how many packets found no room in which table."""
        tables = {"flows": self.flows.untold, "names": self.names.untold, "bytes": self.found.untold}
        return {name: count for name, count in tables.items() if count}
