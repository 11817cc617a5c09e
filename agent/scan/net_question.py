"""What can be asked of an endpoint's network: the declaration of the parameters of module netstat.

What can be known to be wrong without looking at anything is refused while decoding: by the investigator's
client before signing, and by the endpoint's gate again.
"""

from typing import Annotated, Callable, Literal, Sequence, Tuple

from msgspec import Meta

from agent.module import ModuleParams
from agent.platform.net_ranges import AddressRanges, PortRanges
from agent.scan.patterns import require_engine, require_pattern, split_inverse

_MAX_PID = 1 << 22  # PID_MAX_LIMIT, include/linux/threads.h

State = Literal[
    "established", "syn-sent", "syn-recv", "fin-wait-1", "fin-wait-2", "time-wait", "closed", "close-wait",
    "last-ack", "listen", "closing", "bound-inactive", "unconnected", "connecting", "disconnecting",
]  # fmt: skip
Family = Literal["ipv4", "ipv6", "unix", "packet"]
Protocol = Literal["tcp", "udp", "udplite", "raw", "ping", "stream", "dgram", "seqpacket"]
Regex = Annotated[str, Meta(min_length=1, max_length=16_384)]
Range = Annotated[str, Meta(min_length=1, max_length=64)]
Ports = Annotated[str, Meta(pattern=r"^!?[0-9]{1,5}(-[0-9]{1,5})?\Z")]
Account = Annotated[str, Meta(pattern=r"^!?[^\s:,!][^\s:,]{0,254}\Z")]
Pid = Annotated[int, Meta(ge=1, le=_MAX_PID)]
Container = Annotated[str, Meta(pattern=r"^(\*|[A-Za-z0-9][A-Za-z0-9_.-]{0,127})\Z")]

EXPRESSIONS = ("localmacs", "neighbormacs", "unixpaths", "processes", "executables")
ADDRESSES = ("localips", "neighborips", "connectedips")
PORTS = ("listeningports", "localports", "remoteports")


class NetworkQuestion(ModuleParams, frozen=True, kw_only=True):
    """What to look for; values of one parameter are alternatives."""

    localmacs: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions (RE2) on hardware addresses of this endpoint, such as ^02:42:,"
            " in any case; a leading ! leaves out",
            max_length=1000,
        ),
    ] = ()
    localips: Annotated[
        Tuple[Range, ...],
        Meta(description="addresses of this endpoint, or ranges; a leading ! leaves out", max_length=10_000),
    ] = ()
    neighbormacs: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions (RE2) on hardware addresses of neighbours, as localmacs",
            max_length=1000,
        ),
    ] = ()
    neighborips: Annotated[
        Tuple[Range, ...],
        Meta(description="addresses of neighbours, or ranges; a leading ! leaves out", max_length=10_000),
    ] = ()
    connectedips: Annotated[
        Tuple[Range, ...],
        Meta(
            description="addresses that sockets are connected to, or ranges such as 203.0.113.0/24; a"
            " leading ! leaves out",
            max_length=10_000,
        ),
    ] = ()
    listeningports: Annotated[
        Tuple[Ports, ...],
        Meta(
            description="ports that sockets listen on, such as 22 or 8000-8100; a leading ! leaves out",
            max_length=1000,
        ),
    ] = ()
    unixpaths: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions (RE2) on names of unix sockets, an abstract one beginning with"
            " @; a leading ! leaves out",
            max_length=1000,
        ),
    ] = ()
    families: Annotated[
        Tuple[Family, ...], Meta(description="only sockets of these: ipv4 ipv6 unix packet")
    ] = ()
    protocols: Annotated[
        Tuple[Protocol, ...],
        Meta(
            description="only sockets of these: tcp udp udplite raw ping, of unix ones stream dgram seqpacket"
        ),
    ] = ()
    states: Annotated[
        Tuple[State, ...],
        Meta(description="only sockets in these states: listen established time-wait unconnected ..."),
    ] = ()
    localports: Annotated[
        Tuple[Ports, ...],
        Meta(description="only sockets with these ports here; a leading ! leaves out", max_length=1000),
    ] = ()
    remoteports: Annotated[
        Tuple[Ports, ...],
        Meta(
            description="only sockets with these ports at their remote end; a leading ! leaves out",
            max_length=1000,
        ),
    ] = ()
    processes: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="only sockets of processes whose own name (of 15 bytes), or the name of whose"
            " program's file, matches a regular expression (RE2); a leading ! leaves out",
            max_length=1000,
        ),
    ] = ()
    executables: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="only sockets of processes whose program's path matches a regular expression (RE2); a"
            " leading ! leaves out",
            max_length=1000,
        ),
    ] = ()
    pids: Annotated[
        Tuple[Pid, ...], Meta(description="only sockets of these processes", max_length=1000)
    ] = ()
    users: Annotated[
        Tuple[Account, ...],
        Meta(
            description="only sockets of these users, by name or number; a leading ! leaves out",
            max_length=1000,
        ),
    ] = ()
    containers: Annotated[
        Tuple[Container, ...],
        Meta(
            description="only sockets of processes in these containers, by id (12 digits are enough) or name,"
            " * for any; their network namespaces are looked at",
            max_length=1000,
        ),
    ] = ()
    namespaces: Annotated[
        bool, Meta(description="look at every network namespace of the endpoint, not only the agent's own")
    ] = False

    def __post_init__(self) -> None:
        """Refuse what could never be looked for; msgspec turns the ValueError into its own error."""
        require_expressions(self, EXPRESSIONS)
        require_ranges(self, ADDRESSES, AddressRanges)
        require_ranges(self, PORTS, PortRanges)


def require_expressions(params: ModuleParams, names: Sequence[str]) -> None:
    """Refuse parameters of which one that holds regular expressions has something else.

    Raises:
        ValueError: with the parameter and the expression.

    """
    for name in names:
        for expression in getattr(params, name):
            require_pattern(split_inverse(expression)[0], name)


def require_ranges(
    params: ModuleParams, names: Sequence[str], make: Callable[[Sequence[str]], object]
) -> None:
    """Refuse parameters of which one that holds ranges has something else.

    Raises:
        ValueError: with the parameter and the value.

    """
    for name in names:
        try:
            make(getattr(params, name))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def require_engine_for(params: ModuleParams, names: Sequence[str]) -> None:
    """Refuse to run where one of the parameters needs regular expressions and there is no engine for them.

    Raises:
        InvalidInput: `unsupported`.

    """
    for name in names:
        if getattr(params, name):
            require_engine(name)
