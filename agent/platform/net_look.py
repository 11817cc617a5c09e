"""What an endpoint's network looks like: interfaces, neighbours, sockets and the processes that hold those.

`LinuxLook` asks the kernel (rtnetlink, /proc) and can look into every network namespace; `net_portable` has
the same for other systems.

Rules:

* A place is a network namespace. Its own the agent sees without any right; another one through a process in
  it, or the file that holds it.
* What vanishes while one looks is no error: it was on its way.
* What may not be looked at is told to `on_denied`: what, and of whom; the caller counts it and says so.
"""

import os
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple, TypeVar

from agent.platform.containers import container_of
from agent.platform.net_links import Link, read_addresses, read_links
from agent.platform.net_namespaces import (
    NAMED_DIRECTORIES,
    in_namespace,
    named_namespaces,
    namespace_of,
    namespace_text,
    namespaces_of,
)
from agent.platform.net_routes import Neighbour, read_neighbours
from agent.platform.process_memory import ProcessGone
from agent.platform.processes import ProcessDirectory, boot_time_s, list_pids
from agent.platform.rtnetlink import RouteNetlink
from agent.platform.sockets import Socket, SocketTables, socket_owners
from agent.platform.thread_sockets import thread_socket_owners

PROC = "/proc"

Denied = Callable[[str, str], None]
Opened = TypeVar("Opened")


class Place(NamedTuple):
    """A network namespace: who is in it, which file holds it; `name` is None for the agent's own."""

    name: Optional[str] = None
    pids: Tuple[int, ...] = ()
    path: Optional[str] = None


class Local(NamedTuple):
    """An address of an interface, or, with an empty one, an interface that has none."""

    interface: str
    mac: Optional[str]
    family: str = ""
    address: str = ""
    prefix_length: int = 0


class Near(NamedTuple):
    """A neighbour, and the interface behind which it is."""

    interface: str
    neighbour: Neighbour


class Owner(NamedTuple):
    """A process that holds a socket: `process` is what it calls itself, `executable` its program's path."""

    pid: int
    process: bytes
    uid: Optional[int]
    executable: Optional[bytes] = None
    is_deleted: bool = False
    container: Optional[str] = None


class LinuxLook:
    """One look at a Linux endpoint.

    Args:
        check: called in every loop; ends the look by raising.
        on_denied: told what could not be looked at.
        proc: where proc(5) is mounted.
        named: directories of files that hold namespaces.

    """

    def __init__(
        self,
        *,
        check: Callable[[], None],
        on_denied: Denied,
        proc: str = PROC,
        named: Iterable[str] = NAMED_DIRECTORIES,
    ) -> None:
        self._check = check
        self._denied = on_denied
        self._proc = proc
        self._named = tuple(named)
        self._holders: Optional[Dict[int, List[int]]] = None
        self._owners: Dict[int, Optional[Owner]] = {}
        self._has_threads = False
        self._boot_s: Optional[float] = None
        self.processes_seen = 0

    def places(self) -> List[Place]:
        """Return every network namespace: those of processes, and those that files hold."""
        found = namespaces_of(self._pids(), self._proc, on_denied=self._is_denied("namespaces"))
        places = [Place(namespace_text(inode), tuple(pids)) for inode, pids in sorted(found.items())]
        try:
            named = named_namespaces(self._named)
        except PermissionError as error:
            self._denied("namespaces", str(error.filename))
            named = []
        seen = set(found)
        for one in named:
            if one.inode not in seen:
                seen.add(one.inode)
                places.append(Place(namespace_text(one.inode), path=one.path))
        return places

    def places_of(self, is_wanted: Callable[[str], bool]) -> List[Tuple[Place, Set[int]]]:
        """Return the namespaces that processes of certain containers are in, and these processes."""
        chosen: Set[int] = set()
        for pid in self._pids():
            container = container_of(pid, self._proc)
            if container is not None and is_wanted(container):
                chosen.add(pid)
        within = [(place, chosen.intersection(place.pids)) for place in self.places()]
        return [(place, pids) for place, pids in within if pids]

    def netlink(self, place: Place, what: str = "interfaces") -> Optional[RouteNetlink]:
        """Return a socket to the kernel for a place; None where it is gone, or what is denied was told."""
        return self._open(place, RouteNetlink, what)

    def interfaces(self, place: Place) -> Iterator[Local]:
        """Yield the addresses of the interfaces, and the interfaces without any."""
        netlink = self.netlink(place)
        if netlink is None:
            return
        with netlink:
            links = {link.ifindex: link for link in read_links(netlink)}
            addresses = list(read_addresses(netlink))
        for address in addresses:
            link = links.get(address.ifindex)
            # Made between the two questions, it has no name yet.
            if link is not None:
                yield Local(link.name, link.mac, address.family, address.address, address.prefix_length)
        for index in links.keys() - {address.ifindex for address in addresses}:
            yield Local(links[index].name, links[index].mac)

    def neighbours(self, place: Place) -> Iterator[Near]:
        """Yield the neighbours."""
        netlink = self.netlink(place, "neighbours")
        if netlink is None:
            return
        with netlink:
            links: Dict[int, Link] = {link.ifindex: link for link in read_links(netlink)}
            for neighbour in read_neighbours(netlink):
                link = links.get(neighbour.ifindex)
                yield Near(link.name if link is not None else f"#{neighbour.ifindex}", neighbour)

    def interface_names(self, place: Place) -> Dict[int, str]:
        """Return the names of the interfaces, by their numbers."""
        netlink = self.netlink(place)
        if netlink is None:
            return {}
        with netlink:
            return {link.ifindex: link.name for link in read_links(netlink)}

    def sockets(self, place: Place) -> Iterator[Socket]:
        """Yield the sockets."""
        for pid in place.pids:
            tables = self._tables_through(pid, place)
            if tables is not None:
                with tables:
                    yield from tables
                return
        if place.name is not None and place.path is None:
            # All who were in it have ended: so has the namespace, or nobody sees it any more.
            return
        thread = f"{self._proc}/thread-self/net"
        own = self._open(place, lambda: SocketTables(thread), "sockets")
        if own is not None:
            with own:
                yield from own

    def holders(self, inode: int) -> List[Owner]:
        """Return the processes that hold a socket, those that are there still."""
        if self._holders is None:
            self._holders = socket_owners(
                self._pids(),
                self._proc,
                on_denied=self._is_denied("descriptors"),
            )
        if inode not in self._holders and not self._has_threads:
            # Of a socket that seems to be nobody's, a thread may hold it for itself.
            self._has_threads = True
            for found, pids in thread_socket_owners(self._pids(), self._proc).items():
                self._holders.setdefault(found, pids)
        owners = (self._owner(pid) for pid in self._holders.get(inode, ()))
        return [owner for owner in owners if owner is not None]

    def _owner(self, pid: int) -> Optional[Owner]:
        if pid not in self._owners:
            self._owners[pid] = self._read_owner(pid)
        return self._owners[pid]

    def _read_owner(self, pid: int) -> Optional[Owner]:
        if self._boot_s is None:
            self._boot_s = boot_time_s(self._proc)
        try:
            with ProcessDirectory(pid, self._proc) as directory:
                facts = directory.facts(self._boot_s)
                try:
                    executable, is_deleted = directory.executable()
                except PermissionError:
                    self._denied("program", f"process {pid}")
                    executable, is_deleted = None, False
        except ProcessGone:
            return None
        container = container_of(pid, self._proc)
        return Owner(pid, facts.process, facts.uid, executable, is_deleted, container)

    def _is_denied(self, what: str) -> Callable[[int], None]:
        return lambda pid: self._denied(what, f"process {pid}")

    def _pids(self) -> Iterator[int]:
        pids = list_pids(self._proc)
        self.processes_seen = max(self.processes_seen, len(pids))
        for pid in pids:
            self._check()
            yield pid

    def _tables_through(self, pid: int, place: Place) -> Optional[SocketTables]:
        """Return the tables of a process's namespace; None where it ended, went elsewhere or is denied."""
        self._check()
        try:
            tables = SocketTables(f"{self._proc}/{pid}/net")
        except PermissionError:
            self._denied("sockets", f"process {pid}")
            return None
        except OSError:
            # It has ended; there is no other reason for which these cannot be opened.
            return None
        try:
            inode = namespace_of(pid, self._proc)
        except PermissionError:
            inode = None
        if inode is not None and namespace_text(inode) == place.name:
            return tables
        # Another process has its number by now, or it moved.
        tables.close()
        return None

    def _open(self, place: Place, make: Callable[[], Opened], what: str) -> Optional[Opened]:
        if place.name is None:
            return make()
        paths = [f"{self._proc}/{pid}/ns/net" for pid in place.pids]
        for path in [*paths, *([place.path] if place.path is not None else [])]:
            self._check()
            try:
                return in_namespace(path, make)
            except (FileNotFoundError, ProcessLookupError):
                continue
            except OSError as error:
                self._denied(what, f"{place.name}: {os.strerror(error.errno or 0)}")
                return None
        return None
