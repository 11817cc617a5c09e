"""Answer who talks to whom: sockets with their processes, addresses of this endpoint, and its neighbours.

Without a parameter every socket is told. `connectedips`, `listeningports` and `unixpaths` each ask for
sockets; `localmacs` and `localips` for interfaces and their addresses, `neighbormacs` and `neighborips` for
what the kernel knows of its neighbours (ARP and NDP). Each of these is a question of its own: a record says
in `search` which one it answers. All other parameters narrow down which sockets are told, and all of them
must hold. `found` means that there is a record.

Connected is what has a remote end: a listener never is, whatever range is asked for. Listening is what waits
for anybody: a TCP socket that accepts connections, not one that merely uses the port; a UDP socket that is
bound and not connected, which can also be a client. IPv4 within IPv6 is IPv4 here. A leading `!` leaves out:
`!10.0.0.0/8` alone is everything but that.

A socket's process is known where a process that the agent may look at, or a thread of it, holds it: not for
a connection that only waits for its time to be over (time-wait), nor for sockets of the kernel. `pids` is
there where several hold it, and `pid` is the first of them that is asked for. Only the agent's own network
namespace is looked at, unless `namespaces` or `containers` asks for more. A neighbour counts when it has
answered; those that have not are counted in `neighbors_unresolved`.

Statistics: `sockets_seen`, `interfaces_seen`, `neighbors_seen`, `namespaces_seen`, `processes_seen` are what
was looked at, `skipped` what could not be, by what it was; a note says of whom.
"""

import re
import sys
from typing import Annotated, Any, Dict, Iterator, List, Optional, Sequence, Set, Tuple, Union

from msgspec import Meta

from agent.module import Context, ModuleRecord
from agent.platform.net_look import LinuxLook, Local, Near, Owner, Place
from agent.platform.net_portable import PortableLook
from agent.platform.net_ranges import AddressRanges
from agent.platform.process_users import UserNames
from agent.platform.sockets import PACKET, UNIX, Socket
from agent.scan.accounts import Accounts
from agent.scan.counts import Counts
from agent.scan.net_question import EXPRESSIONS, PORTS, NetworkQuestion, require_engine_for
from agent.scan.socket_filter import Alternatives, OwnerFilter, SocketFilter, container_matches, user_numbers
from agent.scan.texts import path_base64, path_text

PATHS = ()
PLATFORMS = ("linux", "darwin", "win32")
EXAMPLES = (
    "mig netstat --connectedip 203.0.113.0/24   who talks to this network, and which process",
    "mig netstat --listeningport 8000-8100 --user '!root'   servers on these ports that are not root's",
    "mig netstat --connectedip '!10.0.0.0/8' --connectedip '!127.0.0.0/8' --state established   outside",
    "mig netstat --neighbormac '^00:16:3e'   which endpoints have a neighbour of this maker",
    "mig netstat --family packet   who listens to the wire itself",
    "mig netstat --container '*' --listeningport 1-65535   what listens within containers",
)
_IS_ID = re.compile(r"[0-9a-f]{12,64}\Z")
_SOCKET_SEARCHES = ("connectedips", "listeningports", "unixpaths")
_OTHER_SEARCHES = ("localmacs", "localips", "neighbormacs", "neighborips")
# The ancestor's names of its parameters.
_OLDER_NAMES = {
    "localmac": "localmacs",
    "neighbormac": "neighbormacs",
    "localip": "localips",
    "neighborip": "neighborips",
    "connectedip": "connectedips",
    "listeningport": "listeningports",
}
_COUNTS = (
    "namespaces_seen", "interfaces_seen", "neighbors_seen", "neighbors_unresolved", "sockets_seen",
    "processes_seen",
)  # fmt: skip


class Params(NetworkQuestion, frozen=True, kw_only=True):
    """What to look for; values of one parameter are alternatives."""


_LISTS = frozenset(Params.__struct_fields__) - {"namespaces"}


class Record(ModuleRecord, frozen=True, kw_only=True):
    """A socket, an address of this endpoint, or a neighbour."""

    search: Annotated[
        str, Meta(description="the parameter whose question this answers, or sockets where none was asked")
    ]
    interface: Annotated[Optional[str], Meta(description="name of the interface")] = None
    mac: Annotated[
        Optional[str], Meta(description="hardware address of the interface or of the neighbour")
    ] = None
    address: Annotated[Optional[str], Meta(description="address of the interface or of the neighbour")] = None
    prefix_length: Annotated[
        Optional[int], Meta(description="bits of the address that are its network's")
    ] = None
    family: Annotated[Optional[str], Meta(description="ipv4, ipv6, unix or packet")] = None
    protocol: Annotated[
        Optional[str], Meta(description="tcp, udp, udplite, raw or ping; of a unix socket its type")
    ] = None
    local_address: Annotated[Optional[str], Meta(description="address of the socket's end here")] = None
    local_port: Annotated[
        Optional[int],
        Meta(description="port here; the IP protocol of a raw socket, the Ethernet type of a packet socket"),
    ] = None
    remote_address: Annotated[Optional[str], Meta(description="address of the socket's remote end")] = None
    remote_port: Annotated[Optional[int], Meta(description="port of the socket's remote end")] = None
    state: Annotated[
        Optional[str],
        Meta(description="state of the socket or of the neighbour, such as listen or reachable"),
    ] = None
    path: Annotated[
        Optional[str],
        Meta(
            description=r"name of the unix socket, an abstract one with @; escaped with \xff where not UTF-8"
        ),
    ] = None
    path_b64: Annotated[
        Optional[str], Meta(description="bytes of the name in base64, only where it is not UTF-8")
    ] = None
    inode: Annotated[Optional[int], Meta(description="number of the socket, as in /proc/PID/fd")] = None
    uid: Annotated[
        Optional[int], Meta(description="user who made the socket, or, of a unix socket, of its process")
    ] = None
    user: Annotated[Optional[str], Meta(description="name of that user")] = None
    pid: Annotated[Optional[int], Meta(description="number of the process that holds the socket")] = None
    pids: Annotated[Optional[Tuple[int, ...]], Meta(description="of all of them, where several do")] = None
    process: Annotated[Optional[str], Meta(description="what that process calls itself")] = None
    executable: Annotated[
        Optional[str], Meta(description="path of its program; of a container's process, as seen in there")
    ] = None
    deleted: Annotated[
        Optional[bool], Meta(description="true where the file of its program was deleted or replaced")
    ] = None
    container: Annotated[Optional[str], Meta(description="id or name of the container that it runs in")] = (
        None
    )
    namespace: Annotated[
        Optional[str], Meta(description="network namespace, where more than the agent's own were looked at")
    ] = None


def run(params: Params, context: Context) -> Iterator[Record]:
    """Yield one record for each socket, address and neighbour that is asked for.

    Raises:
        InvalidInput: `unsupported` for regular expressions where there is no engine for them.

    """
    require_engine_for(params, EXPRESSIONS)
    yield from _Answer(params, context).records()


class _Answer:
    """One run: what was asked, what was seen."""

    def __init__(self, params: Params, context: Context) -> None:
        self._params = params
        self._context = context
        self._names = UserNames()
        self._unowned = 0
        self._interfaces: Dict[Place, Dict[int, str]] = {}
        self._counts = Counts(context, *_COUNTS)
        look = LinuxLook if sys.platform == "linux" else PortableLook
        self._look: Union[LinuxLook, PortableLook] = look(check=context.check, on_denied=self._denied)
        users = user_numbers(params.users, Accounts(), context.note)
        self._containers = _with_ids(params.containers, context)
        self._owners = OwnerFilter(
            processes=params.processes, executables=params.executables, pids=params.pids, users=users,
            containers=self._containers,
        )  # fmt: skip
        self._sockets = SocketFilter(
            families=params.families, protocols=params.protocols, states=params.states,
            localports=params.localports, remoteports=params.remoteports, connectedips=params.connectedips,
            listeningports=params.listeningports, unixpaths=params.unixpaths,
        )  # fmt: skip

    def records(self) -> Iterator[Record]:
        """Yield what is asked for, place by place."""
        try:
            for place, within in self._places():
                self._counts.add("namespaces_seen")
                if self._params.localmacs or self._params.localips:
                    yield from self._locals(place)
                if self._params.neighbormacs or self._params.neighborips:
                    yield from self._neighbours(place)
                if self._asks_for_sockets():
                    yield from self._socket_records(place, within)
                self._tell()
        finally:
            self._tell()
            self._counts.finish()
            if self._unowned:
                self._context.note(f"{self._unowned} sockets are held by no process that could be looked at")

    def _asks_for_sockets(self) -> bool:
        asked = {name for name in self._params.__struct_fields__ if getattr(self._params, name)}
        return bool(asked.intersection(_SOCKET_SEARCHES)) or not asked.intersection(_OTHER_SEARCHES)

    def _places(self) -> List[Tuple[Place, Optional[Set[int]]]]:
        """Return where to look, and whose sockets alone are asked for there."""
        params, look = self._params, self._look
        if not isinstance(look, LinuxLook):
            if params.namespaces or params.containers:
                self._context.note("network namespaces and containers are known on Linux only")
            return [] if params.containers else [(Place(), None)]
        if params.containers:
            places = look.places_of(lambda container: container_matches(container, self._containers))
            if not places:
                self._context.note("no process runs in a container that is asked for")
            return [(place, pids) for place, pids in places]
        if params.namespaces:
            return [(place, None) for place in look.places()]
        return [(Place(), None)]

    def _locals(self, place: Place) -> Iterator[Record]:
        macs = Alternatives(self._params.localmacs, any_case=True)
        addresses = AddressRanges(self._params.localips)
        told: Set[str] = set()
        seen: Set[str] = set()
        for local in self._look.interfaces(place):
            self._context.check()
            seen.add(local.interface)
            if (
                self._params.localmacs
                and local.mac
                and local.interface not in told
                and macs.hold(local.mac.encode())
            ):
                told.add(local.interface)
                yield Record(
                    search="localmacs", interface=local.interface, mac=local.mac, namespace=place.name
                )
            if self._params.localips and local.address and addresses.holds(local.address):
                yield _local_record(local, place)
        self._counts.add("interfaces_seen", len(seen))

    def _neighbours(self, place: Place) -> Iterator[Record]:
        if not isinstance(self._look, LinuxLook):
            self._context.note("neighbours are known on Linux only")
            return
        macs = Alternatives(self._params.neighbormacs, any_case=True)
        addresses = AddressRanges(self._params.neighborips)
        for near in self._look.neighbours(place):
            self._context.check()
            self._counts.add("neighbors_seen")
            mac = near.neighbour.mac
            if not near.neighbour.is_resolved or mac is None:
                self._counts.add("neighbors_unresolved")
                continue
            if self._params.neighbormacs and macs.hold(mac.encode()):
                yield _near_record("neighbormacs", near, place)
            if self._params.neighborips and addresses.holds(near.neighbour.address):
                yield _near_record("neighborips", near, place)

    def _socket_records(self, place: Place, within: Optional[Set[int]]) -> Iterator[Record]:
        for found in self._look.sockets(place):
            self._context.check()
            self._counts.add("sockets_seen")
            searches = self._sockets.searches(found)
            if not searches:
                continue
            self._tell()
            holders = self._look.holders(found.inode) if found.inode else []
            owner = self._owners.choose(found, holders, within)
            if owner is None and self._owners.needs_owner(found):
                continue
            if owner is None and found.inode:
                self._unowned += 1
            for search in searches:
                yield self._record(search, found, owner, [one.pid for one in holders], place)

    def _record(
        self, search: str, found: Socket, owner: Optional[Owner], pids: List[int], place: Place
    ) -> Record:
        uid = found.uid if found.uid is not None else owner.uid if owner is not None else None
        has_ends = found.family not in (UNIX, PACKET)
        program = owner.executable if owner is not None else None
        return Record(
            search=search,
            interface=self._interface_name(found, place),
            family=found.family,
            protocol=found.protocol,
            local_address=found.local_address if has_ends else None,
            local_port=found.local_port if has_ends or found.family == PACKET else None,
            remote_address=found.remote_address if has_ends else None,
            remote_port=found.remote_port if has_ends else None,
            state=found.state,
            path=path_text(found.path) if found.path else None,
            path_b64=path_base64(found.path or b""),
            inode=found.inode or None,
            uid=uid,
            user=self._names.name(uid) if uid is not None else None,
            pid=owner.pid if owner is not None else None,
            pids=tuple(pids) if len(pids) > 1 else None,
            process=path_text(owner.process) if owner is not None else None,
            executable=path_text(program) if program else None,
            deleted=True if owner is not None and owner.is_deleted else None,
            container=owner.container if owner is not None else None,
            namespace=place.name,
        )

    def _interface_name(self, found: Socket, place: Place) -> Optional[str]:
        """Return the interface of a packet socket; None for all of them, and for other sockets."""
        number = found.remote_port
        if found.family != PACKET or not number or not isinstance(self._look, LinuxLook):
            return None
        if place not in self._interfaces:
            self._interfaces[place] = self._look.interface_names(place)
        return self._interfaces[place].get(number, f"#{number}")

    def _denied(self, what: str, whose: str) -> None:
        self._counts.skip(what, f"{what}: may not be looked at: {whose}")

    def _tell(self) -> None:
        self._counts.set("processes_seen", self._look.processes_seen)
        self._context.progress()


def _with_ids(asked: Sequence[str], context: Context) -> Tuple[str, ...]:
    """Return ids and names of containers with the ids of those that a runtime knows by such a name."""
    names = {one for one in asked if one != "*" and not _IS_ID.match(one)}
    if not names or sys.platform != "linux":
        return tuple(asked)
    # Only here: it asks engines and reads their stores.
    from agent.platform.container_list import list_containers  # noqa: PLC0415

    known = [one.id for one in list_containers(context.note, check=context.check) if one.name in names]
    return (*asked, *known)


def _local_record(local: Local, place: Place) -> Record:
    return Record(
        search="localips",
        interface=local.interface,
        mac=local.mac,
        family=local.family,
        address=local.address,
        prefix_length=local.prefix_length,
        namespace=place.name,
    )


def _near_record(search: str, near: Near, place: Place) -> Record:
    return Record(
        search=search,
        interface=near.interface,
        mac=near.neighbour.mac,
        family=near.neighbour.family,
        address=near.neighbour.address,
        state=near.neighbour.state,
        namespace=place.name,
    )


def upgrade(parameters: Any) -> Any:
    """Rewrite the ancestor's names; a lone value becomes a list, a port that is a number text."""
    if not isinstance(parameters, dict):
        return parameters
    upgraded: Dict[str, Any] = {}
    for name, value in parameters.items():
        known = _OLDER_NAMES.get(name, name) if isinstance(name, str) else name
        is_lone = known in _LISTS and isinstance(value, (str, int))
        values = [value] if is_lone else value
        if known in PORTS and isinstance(values, list):
            values = [str(one) if isinstance(one, int) else one for one in values]
        upgraded[known] = values
    return upgraded
