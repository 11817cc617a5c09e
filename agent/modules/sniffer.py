"""Listen to an endpoint's network for a short time: which flows, which names, which byte strings.

Without a question the flows are told, the names that were asked for by DNS, and the servers that TLS clients
named (SNI). `dnsnames`, `tlsnames` and `bytes` ask for what matches them, and then only that is told, and
the flows too with `flows`. `filter` has the kernel drop everything else before it is seen: a subset of
pcap-filter (host, net, port, portrange, src, dst, tcp, udp, icmp, icmp6, ip, ip6, arp, and, or, not,
parentheses), with the meaning that tcpdump gives it. `found` means that there is a record. What packets
carry is never told.

It listens for `duration_s`, or until `maxpackets` were seen. With no `interfaces` it listens on all, to what
this endpoint sends and receives; `promiscuous` takes what is for others too, on interfaces that are named.

It cannot see what packets that were lost hold: `packets_dropped` counts those for which the kernel had no
room, and a note says so. Names within QUIC, in encrypted DNS or behind ECH are not seen, nor byte strings
that are cut in two by packets, nor other network namespaces. Names and byte strings are looked for in the
first fragment of a packet alone.

Packets can hold what stands in any file: where the ACL limits paths, this is refused. Two signers are needed
by default.

Statistics: `packets_seen` and `size_bytes` passed the filter; `packets_dropped`; `flows_seen`, `names_seen`;
`skipped` counts packets that found no room in a table of flows, names or bytes.
"""

import time
from typing import Annotated, Any, Dict, Iterator, Optional, Tuple

from msgspec import Meta

from agent.module import Cancelled, Context, DeadlineReached, ModuleParams, ModuleRecord
from agent.platform.packet_filter import MAX_CHARACTERS, parse_filter
from agent.platform.packet_filter_code import compile_filter
from agent.platform.packet_tally import Flow, Found, Name, PacketTally, Seen
from agent.platform.packets import Packet, address_text, family_text, protocol_text
from agent.scan.net_question import require_engine_for, require_expressions
from agent.scan.socket_filter import Alternatives
from agent.scan.texts import time_text
from protocol.errors import InvalidInput

PATHS = ()
PLATFORMS = ("linux",)
MINIMUM_WEIGHT = 2
EXAMPLES = (
    "mig sniffer --filter 'net 203.0.113.0/24' --duration-s 30   who talks to this network, now",
    "mig sniffer --dnsname '(^|[.])evil[.]example$'   who asks for these names",
    "mig sniffer --tlsname '!([.]|^)corp[.]example$' --filter 'dst port 443'   other servers than ours",
    "mig sniffer --byte 4d5a9000 --filter 'tcp src port 80'   whether programs come over the wire",
)
# The kernel trims nothing, so that it tells how long a packet is; what is kept of it is up to the buffer.
_ACCEPT_BYTES = 1 << 18
_HEADERS_BYTES = 256
# A ClientHello or a question is within the first of a packet, as long as cards put them together.
_NAMES_BYTES = 1 << 15
_ALL_BYTES = 1 << 16
_WAIT_S = 0.1
_EXPRESSIONS = ("dnsnames", "tlsnames")

Regex = Annotated[str, Meta(min_length=1, max_length=16_384)]
# IFNAMSIZ; what the kernel does not take in a name of an interface.
Interface = Annotated[str, Meta(pattern=r"^[^\s/:\x00]{1,15}\Z")]
HexBytes = Annotated[str, Meta(pattern=r"^([0-9a-f]{2}){1,1024}\Z")]


class Params(ModuleParams, frozen=True, kw_only=True):
    """What to listen to, for how long, and what to look for."""

    filter: Annotated[
        str,
        Meta(
            description="which packets to look at, such as 'tcp port 443 and not net 10.0.0.0/8'; else all",
            max_length=MAX_CHARACTERS,
        ),
    ] = ""
    interfaces: Annotated[
        Tuple[Interface, ...], Meta(description="names of interfaces; all without one", max_length=16)
    ] = ()
    duration_s: Annotated[float, Meta(description="seconds to listen for", ge=0.1, le=600)] = 10.0
    maxpackets: Annotated[
        int, Meta(description="stop when so many packets were seen", ge=1, le=100_000_000)
    ] = 1_000_000
    dnsnames: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions (RE2) on names that are asked for by DNS, in lower case; a"
            " leading ! leaves out",
            max_length=1000,
        ),
    ] = ()
    tlsnames: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions (RE2) on servers that TLS clients name, in lower case; a"
            " leading ! leaves out",
            max_length=1000,
        ),
    ] = ()
    bytes: Annotated[
        Tuple[HexBytes, ...],
        Meta(description="bytes in hexadecimal to look for in what TCP and UDP carry", max_length=100),
    ] = ()
    flows: Annotated[bool, Meta(description="tell the flows too, where something else is asked for")] = False
    promiscuous: Annotated[
        bool, Meta(description="take what is for others too, on the interfaces that are named")
    ] = False

    def __post_init__(self) -> None:
        """Refuse what could never be listened to; msgspec turns the ValueError into its own error."""
        compile_filter(parse_filter(self.filter), _ACCEPT_BYTES)
        require_expressions(self, _EXPRESSIONS)
        if self.promiscuous and not self.interfaces:
            raise ValueError("promiscuous: name the interfaces")

    @property
    def has_question(self) -> bool:
        """Whether something is asked for beside what is told without a question."""
        return bool(self.dnsnames or self.tlsnames or self.bytes)


class Record(ModuleRecord, frozen=True, kw_only=True):
    """A flow, a name that was asked for, or a byte string that was found in a flow."""

    about: Annotated[str, Meta(description="what this is: flow, dns, tls or bytes")]
    interface: Annotated[Optional[str], Meta(description="where the flow was heard first")] = None
    family: Annotated[Optional[str], Meta(description="ipv4, ipv6 or other")] = None
    protocol: Annotated[Optional[str], Meta(description="tcp, udp, icmp, arp ..., or its number")] = None
    source_address: Annotated[Optional[str], Meta(description="where its first packet came from")] = None
    source_port: Annotated[Optional[int], Meta(description="port of that")] = None
    destination_address: Annotated[
        Optional[str],
        Meta(description="where its first packet went to; of a name, the server that was asked"),
    ] = None
    destination_port: Annotated[Optional[int], Meta(description="port of that")] = None
    name: Annotated[Optional[str], Meta(description="the name that was asked for, in lower case")] = None
    type: Annotated[Optional[str], Meta(description="type of record that was asked for by DNS")] = None
    pattern: Annotated[Optional[str], Meta(description="the bytes that were found, in hexadecimal")] = None
    count: Annotated[int, Meta(description="number of packets; of a flow, in the direction of its first")]
    size_bytes: Annotated[Optional[int], Meta(description="bytes of these packets, from IP's header on")] = (
        None
    )
    count_back: Annotated[Optional[int], Meta(description="number of packets in the other direction")] = None
    size_back_bytes: Annotated[Optional[int], Meta(description="bytes of these packets")] = None
    first: Annotated[str, Meta(description="when it was seen first")]
    last: Annotated[str, Meta(description="when it was seen last")]


def run(params: Params, context: Context) -> Iterator[Record]:
    """Listen, then yield one record for each flow, name and byte string that is asked for.

    Raises:
        InvalidInput: `acl-refused` where path rules forbid it; `unsupported` for regular expressions where
            there is no engine for them, and where this endpoint may not be listened to.

    """
    if not context.paths.is_open:
        raise InvalidInput("acl-refused", "packets can hold what stands in any file, and paths are limited")
    require_engine_for(params, _EXPRESSIONS)
    tally = PacketTally(
        patterns=[bytes.fromhex(pattern) for pattern in params.bytes],
        has_names=not params.has_question or bool(params.dnsnames or params.tlsnames),
        has_flows=params.flows or not params.has_question,
    )
    ended: Optional[Exception] = None
    try:
        _listen(params, context, tally)
    except (Cancelled, DeadlineReached) as error:
        ended = error
    # What was heard until then is worth as much; it is bounded, and told at once.
    yield from _records(params, tally)
    if ended is not None:
        raise ended


def _listen(params: Params, context: Context, tally: PacketTally) -> None:
    from agent.platform.packet_socket import Ear  # noqa: PLC0415  (Linux only)

    program = compile_filter(parse_filter(params.filter), _ACCEPT_BYTES)
    room = (
        _ALL_BYTES if params.bytes else _NAMES_BYTES if params.dnsnames or params.tlsnames else _HEADERS_BYTES
    )
    if not params.has_question:
        room = _NAMES_BYTES
    try:
        ear = Ear(params.interfaces, program, room, is_promiscuous=params.promiscuous)
    except OSError as error:
        where = ", ".join(params.interfaces) or "all interfaces"
        raise InvalidInput("unsupported", f"listening on {where}: {error.strerror or error}") from None
    errors = 0
    until = time.monotonic() + params.duration_s
    with ear:
        try:
            while tally.packets < params.maxpackets:
                context.check()
                left = until - time.monotonic()
                if left <= 0:
                    break
                try:
                    for heard in ear.listen(min(left, _WAIT_S)):
                        tally.add(heard, ear.buffer, time.time())
                        if tally.packets >= params.maxpackets:
                            context.truncate(f"stopped after {params.maxpackets} packets")
                            break
                except OSError as error:
                    errors += 1
                    if errors == 1:
                        context.note(f"an interface could not be heard any more: {error.strerror}")
                _tell(context, tally, ear.statistics(), errors)
        finally:
            _tell(context, tally, ear.statistics(), errors)
    _say_missing(context, tally)


def _tell(context: Context, tally: PacketTally, counts: Tuple[int, int], errors: int) -> None:
    context.statistics.update(
        packets_seen=tally.packets,
        size_bytes=tally.size_bytes,
        packets_dropped=counts[1],
        flows_seen=len(tally.flows),
        names_seen=len(tally.names),
        errors=errors,
        skipped=tally.untold(),
    )
    context.progress()


def _say_missing(context: Context, tally: PacketTally) -> None:
    dropped = context.statistics["packets_dropped"]
    if dropped:
        context.note(f"the kernel had no room for {dropped} packets: what they say is missing")
    for table, count in tally.untold().items():
        context.truncate(f"there was no room for more {table}: {count} packets are not told in them")


def _records(params: Params, tally: PacketTally) -> Iterator[Record]:
    if params.flows or not params.has_question:
        for flow in tally.flows.values():
            yield _flow_record(flow)
    asked = {"dns": Alternatives(params.dnsnames), "tls": Alternatives(params.tlsnames)}
    is_asked = {"dns": bool(params.dnsnames), "tls": bool(params.tlsnames)}
    for name, seen in tally.names.items():
        if not isinstance(name, Name):
            continue
        if params.has_question and not is_asked[name.protocol]:
            continue
        if asked[name.protocol].hold(name.name.encode()):
            yield _name_record(name, seen)
    for found, seen in tally.found.items():
        if isinstance(found, Found):
            yield _found_record(found, seen, params.bytes[found.pattern])


def _flow_record(flow: Flow) -> Record:
    return Record(
        about="flow",
        interface=flow.interface,
        **_ends(flow.packet),
        size_bytes=flow.size_bytes,
        count_back=flow.back,
        size_back_bytes=flow.size_back_bytes,
        **_times(flow),
    )


def _ends(packet: Packet) -> Dict[str, Any]:
    has_ports = bool(packet.source_port or packet.target_port)
    return {
        "family": family_text(packet),
        "protocol": protocol_text(packet),
        "source_address": address_text(packet.source) or None,
        "source_port": packet.source_port if has_ports else None,
        "destination_address": address_text(packet.target) or None,
        "destination_port": packet.target_port if has_ports else None,
    }


def _name_record(name: Name, seen: Seen) -> Record:
    return Record(
        about=name.protocol,
        name=name.name,
        type=name.kind or None,
        destination_address=address_text(name.target),
        destination_port=name.target_port,
        **_times(seen),
    )


def _found_record(found: Found, seen: Seen, pattern: str) -> Record:
    return Record(about="bytes", pattern=pattern, **_ends(Packet(*found[1:])), **_times(seen))


def _times(seen: Seen) -> Dict[str, Any]:
    first, last = (time_text(int(moment * 1e9)) for moment in (seen.first_s, seen.last_s))
    return {"count": seen.count, "first": first, "last": last}


def upgrade(parameters: Any) -> Any:
    """Make a list of a lone value; bytes are told in lower case."""
    if not isinstance(parameters, dict):
        return parameters
    upgraded = {
        name: [value]
        if isinstance(value, str) and name in ("interfaces", "dnsnames", "tlsnames", "bytes")
        else value
        for name, value in parameters.items()
    }
    if isinstance(upgraded.get("bytes"), list):
        upgraded["bytes"] = [one.lower() if isinstance(one, str) else one for one in upgraded["bytes"]]
    return upgraded
