"""List the network interfaces of an endpoint, its routes and its DNS servers.

Without a parameter all of them are told, each with what it is in `about`. `names`, `macs`, `addresses`,
`kinds` and `promiscuous` ask for interfaces, which must satisfy all of these that are given; `gateways` asks
for routes, `dnsservers` for DNS servers. Where one of the three is asked for, the others are not told.
`found` means that there is a record.

An interface is promiscuous when it takes every packet, whoever asked it to: a sniffer's socket, a bridge that
it is a port of, or its flag. Routes are those of every table but that of local addresses (`localroutes` adds
it). DNS servers are those that the resolver's files name, each with the file; `stub` is systemd-resolved
itself, which asks others.

It cannot see programs with servers of their own (browsers with DNS over HTTPS), interfaces of other network
namespaces unless `namespaces` is given, and, on macOS and Windows, routes, kinds and bridges.

Statistics: `interfaces_seen`, `routes_seen`, `servers_seen`, `namespaces_seen`; `skipped` and `errors` count
what could not be looked at.
"""

import os
import sys
from typing import Annotated, Any, Dict, Iterator, List, Optional, Tuple

from msgspec import Meta

from agent.module import Context, ModuleParams, ModuleRecord
from agent.platform.dns_servers import DnsServer, read_dns_servers
from agent.platform.net_cards import SYS, Card, read_cards, read_portable_cards
from agent.platform.net_look import LinuxLook, Place
from agent.platform.net_namespaces import namespace_of, namespace_text
from agent.platform.net_ranges import AddressRanges
from agent.platform.net_routes import Route, read_routes
from agent.scan.counts import Counts
from agent.scan.net_question import require_engine_for, require_expressions, require_ranges
from agent.scan.socket_filter import Alternatives

PATHS = ()
PLATFORMS = ("linux", "darwin", "win32")
EXAMPLES = (
    "mig netcard --promiscuous --kind '!veth'   which interfaces take every packet: is there a sniffer?",
    "mig netcard --dnsserver '!10.0.0.0/8' --dnsserver '!127.0.0.0/8'   who asks foreign DNS servers",
    "mig netcard --gateway 10.0.0.254   who sends its packets there",
    "mig netcard --kind bridge --kind wireguard   endpoints with bridges or tunnels",
)
_LOCAL_TABLE = 255
_MAIN_TABLES = {253: "default", 254: "main", _LOCAL_TABLE: "local"}
_INTERFACE_FILTERS = ("names", "macs", "addresses", "kinds", "promiscuous")
_EXPRESSIONS = ("names", "macs")
_RANGES = ("addresses", "gateways", "dnsservers")

Regex = Annotated[str, Meta(min_length=1, max_length=16_384)]
Range = Annotated[str, Meta(min_length=1, max_length=64)]
Kind = Annotated[str, Meta(pattern=r"^!?[A-Za-z0-9_.-]{1,32}\Z")]


class Params(ModuleParams, frozen=True, kw_only=True):
    """Which interfaces, routes and DNS servers to tell; values of one parameter are alternatives."""

    names: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="interfaces whose name matches a regular expression (RE2); a leading ! leaves out",
            max_length=1000,
        ),
    ] = ()
    macs: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="interfaces whose hardware address, that of now or that of the hardware, matches a"
            " regular expression (RE2), in any case; a leading ! leaves out",
            max_length=1000,
        ),
    ] = ()
    addresses: Annotated[
        Tuple[Range, ...],
        Meta(
            description="interfaces with one of these addresses, or in these ranges; a leading ! leaves out",
            max_length=10_000,
        ),
    ] = ()
    kinds: Annotated[
        Tuple[Kind, ...],
        Meta(
            description="interfaces of these kinds: ethernet bridge vlan veth bond tun wireguard ...;"
            " a leading ! leaves out",
            max_length=100,
        ),
    ] = ()
    promiscuous: Annotated[bool, Meta(description="only interfaces that take every packet")] = False
    gateways: Annotated[
        Tuple[Range, ...],
        Meta(description="routes by these gateways, or ranges; a leading ! leaves out", max_length=10_000),
    ] = ()
    dnsservers: Annotated[
        Tuple[Range, ...],
        Meta(
            description="DNS servers at these addresses, or ranges; a leading ! leaves out", max_length=10_000
        ),
    ] = ()
    localroutes: Annotated[
        bool, Meta(description="tell the routes of the endpoint's own addresses and of broadcasts too")
    ] = False
    namespaces: Annotated[
        bool, Meta(description="look at every network namespace of the endpoint, not only the agent's own")
    ] = False

    def __post_init__(self) -> None:
        """Refuse what could never be looked for; msgspec turns the ValueError into its own error."""
        require_expressions(self, _EXPRESSIONS)
        require_ranges(self, _RANGES, AddressRanges)


class Record(ModuleRecord, frozen=True, kw_only=True):
    """An interface, a route or a DNS server."""

    about: Annotated[str, Meta(description="what this is: interface, route or dns")]
    interface: Annotated[
        Optional[str], Meta(description="name of the interface, or that a route goes by")
    ] = None
    kind: Annotated[
        Optional[str],
        Meta(description="kind of interface, such as ethernet or bridge, or of route, such as unicast"),
    ] = None
    mac: Annotated[Optional[str], Meta(description="hardware address")] = None
    permanent_mac: Annotated[
        Optional[str], Meta(description="hardware address that the hardware came with, where it differs")
    ] = None
    addresses: Annotated[
        Optional[Tuple[str, ...]], Meta(description="its addresses, each with its prefix length")
    ] = None
    mtu: Annotated[Optional[int], Meta(description="largest packet that it takes, in bytes")] = None
    speed_mbits: Annotated[Optional[int], Meta(description="its speed in megabits per second")] = None
    duplex: Annotated[Optional[str], Meta(description="full or half")] = None
    driver: Annotated[Optional[str], Meta(description="name of its driver")] = None
    state: Annotated[Optional[str], Meta(description="up, down, dormant, unknown ... (RFC 2863)")] = None
    flags: Annotated[Optional[Tuple[str, ...]], Meta(description="its flags, such as up and multicast")] = (
        None
    )
    promiscuous: Annotated[Optional[bool], Meta(description="whether it takes every packet")] = None
    promiscuity: Annotated[
        Optional[int], Meta(description="how many asked for that; a bridge that it is a port of is one")
    ] = None
    xdp: Annotated[
        Optional[bool], Meta(description="true where a program sees its packets before the system (XDP)")
    ] = None
    master: Annotated[Optional[str], Meta(description="the bridge or bond that it is a port of")] = None
    bridge_ports: Annotated[
        Optional[Tuple[str, ...]], Meta(description="the ports of the bridge or bond")
    ] = None
    lower: Annotated[Optional[str], Meta(description="the interface that it lies on")] = None
    vlan: Annotated[Optional[int], Meta(description="number of the VLAN")] = None
    alias: Annotated[Optional[str], Meta(description="what somebody wrote on it")] = None
    rx_bytes: Annotated[Optional[int], Meta(description="bytes received since it was made")] = None
    tx_bytes: Annotated[Optional[int], Meta(description="bytes sent since it was made")] = None
    rx_packets: Annotated[Optional[int], Meta(description="packets received")] = None
    tx_packets: Annotated[Optional[int], Meta(description="packets sent")] = None
    rx_errors: Annotated[Optional[int], Meta(description="packets received with errors")] = None
    tx_errors: Annotated[Optional[int], Meta(description="packets that could not be sent")] = None
    rx_dropped: Annotated[Optional[int], Meta(description="packets received and dropped")] = None
    tx_dropped: Annotated[Optional[int], Meta(description="packets dropped instead of sent")] = None
    family: Annotated[Optional[str], Meta(description="ipv4 or ipv6, of a route")] = None
    destination: Annotated[
        Optional[str], Meta(description="where the route leads, with its prefix length")
    ] = None
    gateway: Annotated[Optional[str], Meta(description="address that the route goes by")] = None
    is_default: Annotated[
        Optional[bool], Meta(description="true for where all goes that no other route takes")
    ] = None
    metric: Annotated[Optional[int], Meta(description="of several routes the lowest is taken")] = None
    table: Annotated[Optional[str], Meta(description="table of the route: main, local, or its number")] = None
    origin: Annotated[
        Optional[str], Meta(description="who made the route: kernel, boot, static, dhcp ...")
    ] = None
    source: Annotated[Optional[str], Meta(description="address that packets by it are sent from")] = None
    address: Annotated[Optional[str], Meta(description="address of the DNS server")] = None
    port: Annotated[Optional[int], Meta(description="port of the DNS server, where the file names one")] = (
        None
    )
    path: Annotated[Optional[str], Meta(description="the file that names the DNS server")] = None
    domains: Annotated[
        Optional[Tuple[str, ...]], Meta(description="domains that names are looked for in, as the file says")
    ] = None
    stub: Annotated[Optional[bool], Meta(description="true where it is systemd-resolved itself")] = None
    fallback: Annotated[
        Optional[bool], Meta(description="true where it is asked only when no other is known")
    ] = None
    namespace: Annotated[
        Optional[str], Meta(description="network namespace, where more than the agent's own were looked at")
    ] = None


def run(params: Params, context: Context) -> Iterator[Record]:
    """Yield one record for each interface, route and DNS server that is asked for.

    Raises:
        InvalidInput: `unsupported` for regular expressions where there is no engine for them.

    """
    require_engine_for(params, _EXPRESSIONS)
    yield from _Answer(params, context).records()


class _Answer:
    """One run: what is asked for, what was seen."""

    def __init__(self, params: Params, context: Context) -> None:
        self._params = params
        self._context = context
        self._names = Alternatives(params.names)
        self._macs = Alternatives(params.macs, any_case=True)
        self._addresses = AddressRanges(params.addresses)
        self._gateways = AddressRanges(params.gateways)
        self._kinds = {kind for kind in params.kinds if not kind.startswith("!")}
        self._other_kinds = {kind[1:] for kind in params.kinds if kind.startswith("!")}
        self._counts = Counts(context, "interfaces_seen", "routes_seen", "servers_seen", "namespaces_seen")

    def records(self) -> Iterator[Record]:
        """Yield the interfaces and routes of each namespace, then the DNS servers."""
        params = self._params
        asks = {
            "interfaces": any(getattr(params, name) for name in _INTERFACE_FILTERS),
            "routes": bool(params.gateways),
            "servers": bool(params.dnsservers),
        }
        is_open = not any(asks.values())
        if sys.platform == "linux":
            yield from self._of_linux(is_open or asks["interfaces"], is_open or asks["routes"])
        else:
            yield from self._of_others(is_open or asks["interfaces"], is_open or asks["routes"])
        if is_open or asks["servers"]:
            yield from self._servers()
        self._counts.finish()

    def _of_linux(self, interfaces: bool, routes: bool) -> Iterator[Record]:  # noqa: FBT001
        look = LinuxLook(check=self._context.check, on_denied=self._denied)
        own = namespace_text(namespace_of(os.getpid()) or 0)
        for place in look.places() if self._params.namespaces else [Place()]:
            self._context.check()
            netlink = look.netlink(place)
            if netlink is None or not (interfaces or routes):
                continue
            with netlink:
                self._counts.add("namespaces_seen")
                cards = read_cards(netlink, SYS if place.name in (None, own) else None)
                if interfaces:
                    yield from self._cards(cards, place.name)
                if routes:
                    names = {card.link.ifindex: card.link.name for card in cards}
                    yield from self._routes(read_routes(netlink), names, place.name)
                if netlink.was_interrupted:
                    self._context.note(
                        "interfaces or routes changed while they were read: some may be missing"
                    )

    def _of_others(self, interfaces: bool, routes: bool) -> Iterator[Record]:  # noqa: FBT001
        self._counts.add("namespaces_seen")
        if interfaces:
            yield from self._cards(list(read_portable_cards()), None)
        if routes:
            self._context.note("routes are known on Linux only")

    def _cards(self, cards: List[Card], namespace: Optional[str]) -> Iterator[Record]:
        for card in cards:
            self._context.check()
            self._counts.add("interfaces_seen")
            if self._is_wanted(card):
                yield _card_record(card, namespace)

    def _is_wanted(self, card: Card) -> bool:
        link, params = card.link, self._params
        macs = [mac.encode() for mac in (link.mac, link.permanent_mac) if mac]
        if params.promiscuous and not link.is_promiscuous:
            return False
        if link.kind in self._other_kinds or (self._kinds and link.kind not in self._kinds):
            return False
        if params.names and not self._names.hold(link.name.encode()):
            return False
        if params.macs and not (macs and self._macs.hold(*macs)):
            return False
        return not params.addresses or any(self._addresses.holds(one.address) for one in card.addresses)

    def _routes(
        self, routes: Iterator[Route], names: Dict[int, str], namespace: Optional[str]
    ) -> Iterator[Record]:
        for route in routes:
            self._context.check()
            self._counts.add("routes_seen")
            if route.table == _LOCAL_TABLE and not self._params.localroutes:
                continue
            if self._params.gateways and not (route.gateway and self._gateways.holds(route.gateway)):
                continue
            yield _route_record(route, names, namespace)

    def _servers(self) -> Iterator[Record]:
        asked = AddressRanges(self._params.dnsservers)
        if sys.platform == "win32":
            self._context.note("DNS servers are not known on Windows")
            return
        for server in read_dns_servers(on_unreadable=self._unreadable):
            self._context.check()
            self._counts.add("servers_seen")
            if not self._params.dnsservers or asked.holds(server.address):
                yield _server_record(server)

    def _denied(self, what: str, whose: str) -> None:
        self._counts.skip(what, f"{what}: may not be looked at: {whose}")

    def _unreadable(self, path: str, why: str) -> None:
        self._counts.skip("files", f"{path}: {why}")


def _card_record(card: Card, namespace: Optional[str]) -> Record:
    link = card.link
    return Record(
        about="interface",
        interface=link.name,
        kind=link.kind,
        mac=link.mac,
        permanent_mac=link.permanent_mac if link.permanent_mac != link.mac else None,
        addresses=tuple(f"{one.address}/{one.prefix_length}" for one in card.addresses) or None,
        mtu=link.mtu,
        speed_mbits=card.speed_mbits,
        duplex=card.duplex,
        driver=card.driver,
        state=link.state,
        flags=link.flag_names,
        promiscuous=link.is_promiscuous,
        promiscuity=link.promiscuity or None,
        xdp=True if link.has_xdp else None,
        master=card.master,
        bridge_ports=card.ports or None,
        lower=card.lower,
        vlan=link.vlan,
        alias=link.alias or None,
        **(link.counters._asdict() if link.counters is not None else {}),
        namespace=namespace,
    )


def _route_record(route: Route, names: Dict[int, str], namespace: Optional[str]) -> Record:
    return Record(
        about="route",
        interface=names.get(route.ifindex) if route.ifindex is not None else None,
        kind=route.kind,
        family=route.family,
        destination=route.destination,
        gateway=route.gateway,
        is_default=True if route.is_default else None,
        metric=route.metric,
        table=_MAIN_TABLES.get(route.table, str(route.table)),
        origin=route.origin,
        source=route.source,
        namespace=namespace,
    )


def _server_record(server: DnsServer) -> Record:
    return Record(
        about="dns",
        interface=server.interface or (f"#{server.ifindex}" if server.ifindex is not None else None),
        address=server.address,
        port=server.port,
        path=server.path,
        domains=server.domains or None,
        stub=True if server.is_stub else None,
        fallback=True if server.is_fallback else None,
    )


def upgrade(parameters: Any) -> Any:
    """Make a list of a lone value."""
    if not isinstance(parameters, dict):
        return parameters
    return {
        name: [value] if isinstance(value, str) and name in Params.__struct_fields__ else value
        for name, value in parameters.items()
    }
