"""Answer whether this endpoint's clock is wrong, by asking NTP servers.

`found` means that the clock is off by more than `drift_s` from at least one server that answered: there is a
record for each such server. With `every` each server that answered is told. Asked are the `servers` that are
given, or else those that the endpoint is configured for (chrony, systemd-timesyncd, ntpd, NTPsec, OpenNTPD);
`path` says which file names one. Where there is none of either, nothing is asked, a note says so, and nothing
is found: that is no error, and no alarm. No other server is ever asked.

The offset is corrected by the round trip and can be wrong by half of that; a clock counts as off only where
it is so for certain. `agreeing` tells how many other servers say the same: one that is alone may be wrong
itself. A server that does not answer, says that it has no time, or answers nonsense is noted and counted in
`skipped`.

Statistics: `servers_seen` were asked, `answered` gave a time, `beyond` of these are off.
"""

import socket
from typing import Annotated, Any, Iterator, List, Literal, NamedTuple, Optional, Tuple

from msgspec import Meta

from agent.module import Context, ModuleParams, ModuleRecord
from agent.platform.net_ping import Destination, Unresolved, pause, resolve
from agent.platform.ntp_servers import NtpServer, read_ntp_servers
from agent.platform.sntp import NTP_PORT, Measurement, NoTime, ask, best
from agent.scan.counts import Counts
from agent.scan.texts import time_text

PATHS = ()
PLATFORMS = ("linux", "darwin", "win32")
EXAMPLES = (
    "mig timedrift   which endpoints are off by more than a second from the servers that they ask",
    "mig timedrift --server ntp.example --drift-s 0.2   measured against this server",
    "mig timedrift --every   which servers endpoints are configured for, and how far off each is",
)
_FAMILIES = {"any": socket.AF_UNSPEC, "ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
# Two servers of the same time differ by their own uncertainty too.
_AGREEMENT_S = 0.1
# As often as a public server may be asked (RFC 4330, 10, has more; bursts of chrony and ntpd are of 2 s).
_INTERVAL_S = 2.0
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "\u00b5s": 1e-6, "ns": 1e-9}

Host = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:%-]{1,253}\Z")]


class Params(ModuleParams, frozen=True, kw_only=True):
    """Whom to ask, and what is too much."""

    servers: Annotated[
        Tuple[Host, ...],
        Meta(description="servers to ask, by name or address, instead of those configured", max_length=16),
    ] = ()
    drift_s: Annotated[
        float, Meta(description="how far off the clock may be, in seconds, before it counts", ge=0, le=1e10)
    ] = 1.0
    every: Annotated[
        bool, Meta(description="tell each server that answered, also where the clock is right")
    ] = False
    count: Annotated[
        int,
        Meta(
            description="how often to ask each server, two seconds apart; the shortest round trip counts",
            ge=1,
            le=8,
        ),
    ] = 1
    timeout_s: Annotated[float, Meta(description="seconds to wait for each answer", ge=0.01, le=60)] = 5.0
    port: Annotated[
        int, Meta(description="port to ask, where the configuration names no other", ge=1, le=65535)
    ] = NTP_PORT
    family: Annotated[
        Literal["any", "ipv4", "ipv6"], Meta(description="of the addresses of a name ask the first of these")
    ] = "any"
    maxservers: Annotated[
        int, Meta(description="ask at most so many of the servers that are configured", ge=1, le=64)
    ] = 8


class Record(ModuleRecord, frozen=True, kw_only=True):
    """How far this clock is from one server's."""

    server: Annotated[str, Meta(description="name or address of the server, as given or configured")]
    address: Annotated[str, Meta(description="address that was asked")]
    path: Annotated[Optional[str], Meta(description="the file that names the server")] = None
    offset_s: Annotated[
        float,
        Meta(description="what to add to this clock to have the server's, in seconds; below 0: it is fast"),
    ]
    latency_s: Annotated[
        float, Meta(description="round trip in seconds; the offset can be wrong by half of it")
    ]
    beyond: Annotated[bool, Meta(description="whether the clock is off by more than drift_s for certain")]
    agreeing: Annotated[int, Meta(description="how many other servers have the same time")]
    stratum: Annotated[int, Meta(description="how far the server is from a clock; 1 has one itself")]
    reference: Annotated[str, Meta(description="the server's own source: a kind of clock, or an address")]
    uncertainty_s: Annotated[float, Meta(description="what the server says of its own clock, in seconds")]
    server_time: Annotated[str, Meta(description="the server's time when it answered")]
    local_time: Annotated[str, Meta(description="this clock's time then")]


class _Answer(NamedTuple):
    server: NtpServer
    destination: Destination
    measurement: Measurement

    def is_beyond(self, drift_s: float) -> bool:
        return abs(self.measurement.offset_s) - self.measurement.delay_s / 2 > drift_s

    def agrees(self, other: "_Answer") -> bool:
        here, there = self.measurement, other.measurement
        apart = abs(here.offset_s - there.offset_s)
        return apart <= (here.delay_s + there.delay_s) / 2 + _AGREEMENT_S


def run(params: Params, context: Context) -> Iterator[Record]:
    """Yield one record for each server that this clock is too far from, or that answered."""
    counts = Counts(context, "servers_seen", "answered", "beyond")
    answers: List[_Answer] = []
    for server in _servers(params, context):
        context.check()
        counts.add("servers_seen")
        try:
            answers.append(_ask(server, params, context))
        except Unresolved as error:
            counts.skip("unresolved", f"{server.name}: {error}")
        except NoTime as error:
            counts.skip("kiss" if error.is_kiss else "no-time", f"{server.name}: {error}")
        else:
            counts.add("answered")
        context.progress()
    for answer in answers:
        context.check()
        if answer.is_beyond(params.drift_s):
            counts.add("beyond")
        elif not params.every:
            continue
        yield _record(answer, answers, params)


def _servers(params: Params, context: Context) -> List[NtpServer]:
    if params.servers:
        return [NtpServer(name, "") for name in dict.fromkeys(params.servers)]
    configured = read_ntp_servers(on_unreadable=lambda path, why: context.note(f"{path}: {why}"))
    # Fallbacks are asked where nothing else is known, as timesyncd does.
    chosen = [server for server in configured if not server.is_fallback] or configured
    unique = list({(server.name, server.port): server for server in reversed(chosen)}.values())[::-1]
    if not unique:
        context.note("no NTP server is configured, and none was given: nothing was asked")
    if len(unique) > params.maxservers:
        context.note(f"{len(unique)} servers are configured; the first {params.maxservers} were asked")
    return unique[: params.maxservers]


def _ask(server: NtpServer, params: Params, context: Context) -> _Answer:
    """Ask a server as often as is asked for.

    Raises:
        Unresolved: it has no address.
        NoTime: it never gave a time.

    """
    destination = resolve(server.name, _FAMILIES[params.family], context.check)[0]
    measurements: List[Measurement] = []
    failure = NoTime("no answer")
    for number in range(params.count):
        if number:
            pause(_INTERVAL_S, context.check)
        try:
            measurements.append(ask(destination, server.port or params.port, params.timeout_s, context.check))
        except NoTime as error:
            failure = error
            if error.is_kiss:
                # It asked to be left alone (RFC 5905, 7.4).
                break
    measurement = best(measurements)
    if measurement is None:
        raise failure
    return _Answer(server, destination, measurement)


def _record(answer: _Answer, answers: List[_Answer], params: Params) -> Record:
    measured = answer.measurement
    return Record(
        server=answer.server.name,
        address=answer.destination.address,
        path=answer.server.path or None,
        offset_s=round(measured.offset_s, 6),
        latency_s=round(measured.delay_s, 6),
        beyond=answer.is_beyond(params.drift_s),
        agreeing=sum(answer.agrees(other) for other in answers) - 1,
        stratum=measured.stratum,
        reference=measured.reference,
        uncertainty_s=round(measured.root_distance_s, 6),
        server_time=_text(measured.server_time_s),
        local_time=_text(measured.server_time_s - measured.offset_s),
    )


def _text(seconds: float) -> str:
    return time_text(int(seconds * 1e9))


def upgrade(parameters: Any) -> Any:
    """Rewrite the ancestor's `drift`, a duration such as 1m30s; without one it told the time in any case."""
    if not isinstance(parameters, dict):
        return parameters
    upgraded = dict(parameters)
    if "drift" in upgraded:
        drift = upgraded.pop("drift")
        if drift == "":
            upgraded.setdefault("every", True)
        else:
            upgraded["drift_s"] = _duration_s(drift) if isinstance(drift, str) else drift
    if isinstance(upgraded.get("servers"), str):
        upgraded["servers"] = [upgraded["servers"]]
    return upgraded


def _duration_s(text: str) -> Any:
    """Return a duration as Go writes it in seconds; the text itself where it is none, to be refused."""
    total, rest = 0.0, text
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        unit = rest[digits:]
        unit = unit[: len(unit) - len(unit.lstrip("hmsun\u00b5"))]
        try:
            total += float(rest[:digits]) * _UNITS_S[unit]
        except (KeyError, ValueError):
            return text
        rest = rest[digits + len(unit) :]
    return total
