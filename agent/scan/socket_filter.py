"""Which sockets are asked for, and of which processes.

Rules:

* Values of one filter are alternatives; one with a leading `!` leaves out, and wins. Filters must all hold.
* `connectedips`, `listeningports` and `unixpaths` are questions of their own, each answered by itself.
* A filter on processes holds where one of those that hold the socket satisfies all of them.
"""

from typing import Callable, List, Optional, Sequence, Set, Tuple

from agent.platform.net_look import Owner
from agent.platform.net_ranges import AddressRanges, PortRanges
from agent.platform.sockets import IPV4, IPV6, Socket, is_listening
from agent.scan.accounts import Accounts
from agent.scan.patterns import TextPattern, split_inverse

SOCKETS = "sockets"
_ANY_CONTAINER = "*"
# What `docker ps` shows of an id; fewer digits could be a name.
_SHORT_ID = 12


class Alternatives:
    """Regular expressions of which one must match, and none of those with a leading `!`."""

    def __init__(self, expressions: Sequence[str], *, any_case: bool = False) -> None:
        self._wanted: List[TextPattern] = []
        self._unwanted: List[TextPattern] = []
        for expression in expressions:
            plain, is_inverse = split_inverse(expression)
            chosen = self._unwanted if is_inverse else self._wanted
            chosen.append(TextPattern(f"(?i){plain}" if any_case else plain))

    def hold(self, *names: bytes) -> bool:
        """Tell whether one of the names of a thing matches; what is left out is so by any of its names."""
        if any(pattern.is_in(name) for pattern in self._unwanted for name in names):
            return False
        return not self._wanted or any(pattern.is_in(name) for pattern in self._wanted for name in names)


class SocketFilter:
    """What can be told of a socket by itself; see the module netstat for what each value may be."""

    def __init__(
        self,
        *,
        families: Sequence[str] = (),
        protocols: Sequence[str] = (),
        states: Sequence[str] = (),
        localports: Sequence[str] = (),
        remoteports: Sequence[str] = (),
        connectedips: Sequence[str] = (),
        listeningports: Sequence[str] = (),
        unixpaths: Sequence[str] = (),
    ) -> None:
        self._families = frozenset(families)
        self._protocols = frozenset(protocols)
        self._states = frozenset(states)
        self._local = PortRanges(localports) if localports else None
        self._remote = PortRanges(remoteports) if remoteports else None
        self._connected = AddressRanges(connectedips) if connectedips else None
        self._listening = PortRanges(listeningports) if listeningports else None
        self._paths = Alternatives(unixpaths) if unixpaths else None

    def searches(self, found: Socket) -> List[str]:
        """Return the questions that a socket answers; where none was asked, `sockets`."""
        if not self._is_wanted(found):
            return []
        if self._connected is None and self._listening is None and self._paths is None:
            return [SOCKETS]
        answered: List[str] = []
        if (
            self._connected is not None
            and is_connected(found)
            and self._connected.holds(found.remote_address)
        ):
            answered.append("connectedips")
        if (
            self._listening is not None
            and _is_listening_on_port(found)
            and self._listening.holds(found.local_port)
        ):
            answered.append("listeningports")
        if self._paths is not None and found.path and self._paths.hold(found.path):
            answered.append("unixpaths")
        return answered

    def _is_wanted(self, found: Socket) -> bool:
        if self._families and found.family not in self._families:
            return False
        if self._protocols and found.protocol not in self._protocols:
            return False
        if self._states and found.state not in self._states:
            return False
        has_ports = found.family in (IPV4, IPV6)
        if self._local is not None and not (has_ports and self._local.holds(found.local_port)):
            return False
        return self._remote is None or (
            has_ports and is_connected(found) and self._remote.holds(found.remote_port)
        )


def is_connected(found: Socket) -> bool:
    """Tell whether a socket of the internet has a remote end."""
    if found.family not in (IPV4, IPV6):
        return False
    return bool(found.remote_port) or found.remote_address not in ("0.0.0.0", "::")  # noqa: S104  (compared)


def _is_listening_on_port(found: Socket) -> bool:
    return found.family in (IPV4, IPV6) and is_listening(found)


class OwnerFilter:
    """What is asked of the processes that hold a socket.

    Args:
        processes: expressions on their own name or the name of their program's file.
        executables: expressions on the path of their program.
        pids: their numbers.
        users: numbers of users that are asked for, and of those left out; None where nothing is asked.
        containers: ids or names of the containers that they run in.

    """

    def __init__(
        self,
        *,
        processes: Sequence[str] = (),
        executables: Sequence[str] = (),
        pids: Sequence[int] = (),
        users: Optional[Tuple[Set[int], Set[int]]] = None,
        containers: Sequence[str] = (),
    ) -> None:
        self._processes = Alternatives(processes) if processes else None
        self._executables = Alternatives(executables) if executables else None
        self._pids = frozenset(pids)
        self._users = users
        self._containers = tuple(containers)

    def needs_owner(self, found: Socket) -> bool:
        """Tell whether a socket that no process is known to hold is not asked for."""
        if self._processes or self._executables or self._pids or self._containers:
            return True
        return self._users is not None and not (found.uid is not None and self._is_user(found.uid))

    def choose(
        self, found: Socket, holders: Sequence[Owner], within: Optional[Set[int]] = None
    ) -> Optional[Owner]:
        """Return the first of the processes that hold a socket that is asked for; None where none is.

        `within` are the processes that alone are asked for. Process 1 comes last: it holds what it has made
        for others.
        """
        for owner in sorted(holders, key=lambda one: (one.pid == 1, one.pid)):
            if (within is None or owner.pid in within) and self._is_wanted(owner, found):
                return owner
        return None

    def _is_wanted(self, owner: Owner, found: Socket) -> bool:
        if self._pids and owner.pid not in self._pids:
            return False
        program = owner.executable or b""
        if self._processes is not None and not self._processes.hold(
            owner.process, program.rsplit(b"/", 1)[-1]
        ):
            return False
        if self._executables is not None and not self._executables.hold(program):
            return False
        if self._containers and not (
            owner.container and container_matches(owner.container, self._containers)
        ):
            return False
        uid = owner.uid if found.uid is None else found.uid
        return self._users is None or (uid is not None and self._is_user(uid))

    def _is_user(self, uid: int) -> bool:
        if self._users is None:
            return True
        wanted, unwanted = self._users
        return uid not in unwanted and (not wanted or uid in wanted)


def container_matches(container: str, asked: Sequence[str]) -> bool:
    """Tell whether a container is one of those that are asked for, by id, the beginning of it, or name."""
    return any(
        one in (_ANY_CONTAINER, container) or (len(one) >= _SHORT_ID and container.startswith(one))
        for one in asked
    )


def user_numbers(
    users: Sequence[str], accounts: Accounts, note: Callable[[str], None]
) -> Optional[Tuple[Set[int], Set[int]]]:
    """Return the numbers of users that are asked for, and of those left out; None where nothing is asked.

    Who is not known here can own nothing: that is noted. A number that no account has stands in for them, so
    that asking for none but strangers finds nothing.
    """
    if not users:
        return None
    wanted: Set[int] = set()
    unwanted: Set[int] = set()
    for user in users:
        name, is_inverse = split_inverse(user)
        number = accounts.number("owner", name)
        if number is None:
            note(f"user {name!r} is not known here ({accounts.source('owner')})")
            number = -1
        (unwanted if is_inverse else wanted).add(number)
    return wanted, unwanted
