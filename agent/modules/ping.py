"""Answer whether this endpoint can reach an address, by ICMP, TCP or UDP, and how long that takes.

`found` means that at least one destination answered; there is a record for each that did, with latencies.
Of those that did not a note says what came instead: `refused` (the host is there, nobody listens on the
port), `unreachable` (a router or this host's kernel says so), `lost` (nothing came in time), `failed`.

By ICMP an answer is the echo of what was sent. By TCP it is a connection, which is closed at once; nothing is
sent. By UDP it is any datagram: port 53 is sent a DNS query and port 123 a question for the time, other ports
eight zeros, which many services do not answer: there, silence says nothing.

Names are resolved by the endpoint when it runs the action, never before: an endpoint may well know another
address. The first address of a name, of the family that is asked for, is tried.

Statistics: `destinations_seen` were tried, with each of the ports; `sent`, `answered`, `lost`, `refused`,
`unreachable` and `failed` count tries; `skipped` counts names without an address, and what may not be sent.
"""

import socket
import statistics
from typing import Annotated, Any, Callable, Dict, Iterator, List, Literal, Optional, Tuple

from msgspec import Meta

from agent.module import Context, ModuleParams, ModuleRecord
from agent.platform.net_ping import (
    ANSWERED,
    FAILED,
    LOST,
    REFUSED,
    UNREACHABLE,
    Attempt,
    Destination,
    Echo,
    Unresolved,
    pause,
    resolve,
    try_tcp,
    try_udp,
)
from agent.scan.counts import Counts

PATHS = ()
PLATFORMS = ("linux", "darwin", "win32")
EXAMPLES = (
    "mig ping --destination 192.0.2.1   which endpoints get an echo from there",
    "mig ping --destination db.example --protocol tcp --port 5432   who can connect to the database",
    "mig ping --destination 8.8.8.8 --protocol udp --port 53 --count 1   who can ask a foreign DNS server",
)
_OUTCOMES = (ANSWERED, LOST, REFUSED, UNREACHABLE, FAILED)
_FAMILIES = {"any": socket.AF_UNSPEC, "ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
# So that one action cannot have endpoints search a network, or flood one.
_MOST_TRIES = 1000
_MOST_DESTINATIONS = 16

# A name, or an address with or without an interface; others than ASCII are to be given as they are asked for.
Host = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:%-]{1,253}\Z")]
Port = Annotated[int, Meta(ge=1, le=65535)]


class Params(ModuleParams, frozen=True, kw_only=True):
    """What to reach, and how patiently."""

    destinations: Annotated[
        Tuple[Host, ...],
        Meta(
            description="names or addresses to reach; names are resolved on the endpoint",
            min_length=1,
            max_length=_MOST_DESTINATIONS,
        ),
    ]
    protocol: Annotated[Literal["icmp", "tcp", "udp"], Meta(description="icmp, tcp or udp")] = "icmp"
    ports: Annotated[
        Tuple[Port, ...], Meta(description="ports to reach, for tcp and udp", max_length=_MOST_DESTINATIONS)
    ] = ()
    family: Annotated[
        Literal["any", "ipv4", "ipv6"], Meta(description="of the addresses of a name use the first of these")
    ] = "any"
    count: Annotated[int, Meta(description="how often to try each destination and port", ge=1, le=100)] = 3
    timeout_s: Annotated[
        float, Meta(description="seconds to wait for the answer of each try", ge=0.01, le=60)
    ] = 5.0
    interval_s: Annotated[float, Meta(description="seconds between two tries", ge=0.01, le=60)] = 0.1

    def __post_init__(self) -> None:
        """Refuse what cannot be meant; msgspec turns the ValueError into its own error."""
        if (self.protocol == "icmp") == bool(self.ports):
            raise ValueError("icmp has no ports" if self.ports else f"{self.protocol} needs ports")
        tries = len(self.destinations) * max(1, len(self.ports)) * self.count
        if tries > _MOST_TRIES:
            raise ValueError(f"{tries} tries in all, at most {_MOST_TRIES}")


class Record(ModuleRecord, frozen=True, kw_only=True):
    """A destination that answered."""

    destination: Annotated[str, Meta(description="name or address, as it was asked for")]
    address: Annotated[str, Meta(description="address that it has on this endpoint")]
    family: Annotated[str, Meta(description="ipv4 or ipv6")]
    protocol: Annotated[str, Meta(description="icmp, tcp or udp")]
    port: Annotated[Optional[int], Meta(description="port, for tcp and udp")] = None
    sent: Annotated[int, Meta(description="number of tries")]
    answered: Annotated[int, Meta(description="number of tries that were answered")]
    lost: Annotated[int, Meta(description="number of tries without any answer in time")]
    refused: Annotated[int, Meta(description="number of tries that were refused")]
    unreachable: Annotated[int, Meta(description="number of tries that a router or the kernel turned away")]
    failed: Annotated[int, Meta(description="number of tries that failed otherwise")]
    latency_min_s: Annotated[float, Meta(description="shortest time until an answer, in seconds")]
    latency_median_s: Annotated[float, Meta(description="median time until an answer, in seconds")]
    latency_max_s: Annotated[float, Meta(description="longest time until an answer, in seconds")]


def run(params: Params, context: Context) -> Iterator[Record]:
    """Yield one record for each destination and port that answered."""
    counts = Counts(context, "destinations_seen", "sent", *_OUTCOMES)
    for name in params.destinations:
        context.check()
        try:
            destination = resolve(name, _FAMILIES[params.family], context.check)[0]
        except Unresolved as error:
            counts.skip("unresolved", f"{name}: {error}")
            continue
        counts.add("destinations_seen")
        for port in params.ports or (None,):
            try:
                attempts = _attempts(params, destination, port, context, counts)
            except OSError as error:
                counts.skip("not-allowed", f"{name}: {params.protocol}: {error.strerror}")
                continue
            record = _record(params, name, destination, port, attempts)
            if record is not None:
                yield record
            else:
                where = name if port is None else f"{name} port {port}"
                context.note(f"{where} ({destination.address}): {_summary(attempts)}")


def _attempts(
    params: Params, destination: Destination, port: Optional[int], context: Context, counts: Counts
) -> List[Attempt]:
    """Return what came of all tries.

    Raises:
        OSError: nothing could be sent at all: ICMP needs rights.

    """
    if port is None:
        with Echo(destination) as echo:
            return _repeat(params, context, counts, lambda: echo.attempt(params.timeout_s, context.check))
    reach = try_tcp if params.protocol == "tcp" else try_udp
    return _repeat(params, context, counts, lambda: reach(destination, port, params.timeout_s, context.check))


def _repeat(
    params: Params, context: Context, counts: Counts, attempt: Callable[[], Attempt]
) -> List[Attempt]:
    attempts: List[Attempt] = []
    for number in range(params.count):
        if number:
            pause(params.interval_s, context.check)
        attempts.append(attempt())
        counts.add("sent")
        counts.add(attempts[-1].outcome)
        context.progress()
    return attempts


def _record(
    params: Params, name: str, destination: Destination, port: Optional[int], attempts: List[Attempt]
) -> Optional[Record]:
    latencies = [attempt.latency_s for attempt in attempts if attempt.latency_s is not None]
    if not latencies:
        return None
    counts = _counts(attempts)
    return Record(
        destination=name,
        address=destination.address,
        family="ipv6" if destination.family == socket.AF_INET6 else "ipv4",
        protocol=params.protocol,
        port=port,
        sent=len(attempts),
        answered=counts[ANSWERED],
        lost=counts[LOST],
        refused=counts[REFUSED],
        unreachable=counts[UNREACHABLE],
        failed=counts[FAILED],
        latency_min_s=round(min(latencies), 6),
        latency_median_s=round(statistics.median(latencies), 6),
        latency_max_s=round(max(latencies), 6),
    )


def _counts(attempts: List[Attempt]) -> Dict[str, int]:
    return {outcome: sum(one.outcome == outcome for one in attempts) for outcome in _OUTCOMES}


def _summary(attempts: List[Attempt]) -> str:
    said = [f"{count} {outcome}" for outcome, count in _counts(attempts).items() if count]
    reasons = sorted({attempt.why for attempt in attempts if attempt.why})
    return ", ".join(said) + (f" ({'; '.join(reasons)})" if reasons else "")


def upgrade(parameters: Any) -> Any:
    """Rewrite the ancestor's parameters: one destination, its port, and the timeout in seconds."""
    if not isinstance(parameters, dict):
        return parameters
    upgraded = dict(parameters)
    if "destination" in upgraded:
        upgraded["destinations"] = [upgraded.pop("destination")]
    if isinstance(upgraded.get("destinations"), str):
        upgraded["destinations"] = [upgraded["destinations"]]
    if "timeout" in upgraded:
        upgraded["timeout_s"] = upgraded.pop("timeout")
    for name in ("timeout_s", "count"):
        # Left out, the ancestor has them be zero, and means its defaults.
        if name in upgraded and not upgraded[name]:
            del upgraded[name]
    if isinstance(upgraded.get("count"), float) and upgraded["count"].is_integer():
        upgraded["count"] = int(upgraded["count"])
    port = upgraded.pop("destinationport", None)
    if isinstance(port, (int, float)) and port > 0 and upgraded.get("protocol", "icmp") != "icmp":
        upgraded["ports"] = [int(port)]
    if upgraded.get("protocol") == "":
        del upgraded["protocol"]
    return upgraded
