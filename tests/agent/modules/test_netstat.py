"""Tests of module netstat: real sockets of real processes, here and in network namespaces of the tests."""

import base64
import ctypes
import json
import os
import queue
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agent.execute import run_operation
from agent.module import Context, Limits
from agent.modules import netstat
from agent.platform.net_namespaces import in_namespace, own_namespace
from agent.platform.sockets import descriptors_sockets
from protocol.result import OperationResult
from tests.support.apart import become_nobody, bind, leave_mounts, run_apart
from tests.support.containers import IMAGE, engine
from tests.support.network import Host, enter, namespace, two_hosts

_PR_SET_NAME = 15  # prctl(2)
_CLONE_FILES = 0x400  # clone(2)
CONTAINER = "0123456789abcdef" * 4


def ask(**parameters: Any) -> OperationResult:
    """Ask, as an action would; it must be answered."""
    result = run_operation("netstat", parameters, Context(limits=Limits(output_bytes=1 << 30)))
    assert result.status == "ok", result
    return result


def records(**parameters: Any) -> list[dict[str, Any]]:
    return list(ask(**parameters).records)


def records_in(name: str, **parameters: Any) -> list[dict[str, Any]]:
    """Ask from within a namespace."""
    found: list[dict[str, Any]] = run_apart(lambda: records(**parameters), enter(name))
    return found


def inode(of: socket.socket) -> int:
    return os.fstat(of.fileno()).st_ino


@contextmanager
def serving(
    act: Callable[[], Any], *, prepare: Callable[[], None] = lambda: None
) -> Iterator[tuple[int, Any]]:
    """Run a process that makes a socket and holds it; yield its number and the socket's own address."""
    told, tell = os.pipe()
    wait, release = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(release)
        try:
            prepare()
            made = act()
            os.write(tell, json.dumps(made.getsockname()).encode() + b"\n")
            os.close(tell)
            os.read(wait, 1)
        finally:
            os._exit(0)
    os.close(tell)
    os.close(wait)
    try:
        with os.fdopen(told, "rb") as stream:
            yield child, json.loads(stream.readline())
    finally:
        os.close(release)
        os.waitpid(child, 0)


def listen(address: str = "127.0.0.1") -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    made.bind((address, 0))
    made.listen(4)
    return made


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket, socket.socket]]:
    """A listener, and both ends of a connection to it."""
    with listen() as made, socket.create_connection(made.getsockname()) as client, made.accept()[0] as server:
        yield made, client, server


Pair = tuple[socket.socket, socket.socket, socket.socket]


def test_a_listener_is_found_by_its_port_with_its_process_and_user(pair: Pair) -> None:
    made, _, _ = pair
    port = made.getsockname()[1]
    (found,) = records(listeningports=[str(port)])
    assert {
        name: found[name] for name in ("search", "family", "protocol", "local_address", "local_port", "state")
    } == {
        "search": "listeningports",
        "family": "ipv4",
        "protocol": "tcp",
        "local_address": "127.0.0.1",
        "local_port": port,
        "state": "listen",
    }
    assert (found["pid"], found["inode"], found["uid"]) == (os.getpid(), inode(made), os.geteuid())
    assert found["executable"] == str(Path(sys.executable).resolve())
    assert {"container", "namespace", "pids", "deleted", "path"}.isdisjoint(found)


def test_a_port_that_a_connection_merely_uses_is_not_listened_on(pair: Pair) -> None:
    _, client, _ = pair
    assert records(listeningports=[str(client.getsockname()[1])]) == []


def test_ports_are_asked_for_in_ranges_and_with_exceptions(pair: Pair) -> None:
    port = pair[0].getsockname()[1]
    assert [one["local_port"] for one in records(listeningports=[f"{port}-{port}"], pids=[os.getpid()])] == [
        port
    ]
    assert records(listeningports=["1-65535", f"!{port}"], pids=[os.getpid()]) == []


def test_a_udp_socket_listens_until_it_is_connected() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        port = str(made.getsockname()[1])
        assert [one["protocol"] for one in records(listeningports=[port], protocols=["udp"])] == ["udp"]
        made.connect(("127.0.0.1", 9))
        assert records(listeningports=[port], protocols=["udp"]) == []
        assert [one["remote_port"] for one in records(connectedips=["127.0.0.1"], localports=[port])] == [9]


def test_connected_are_both_ends_of_a_connection_and_never_a_listener(pair: Pair) -> None:
    made, client, server = pair
    everything = records(connectedips=["0.0.0.0/0", "::/0"], pids=[os.getpid()])
    assert {one["inode"] for one in everything} == {inode(client), inode(server)}
    only = records(connectedips=["127.0.0.1"], remoteports=[str(made.getsockname()[1])])
    assert [one["inode"] for one in only] == [inode(client)]


def test_an_exclusion_alone_is_everything_else(pair: Pair) -> None:
    assert records(connectedips=["!127.0.0.0/8"], pids=[os.getpid()]) == []
    others = records(connectedips=["!10.0.0.0/8"], pids=[os.getpid()])
    assert {one["inode"] for one in others} == {inode(pair[1]), inode(pair[2])}


def test_ipv4_within_ipv6_is_found_as_ipv4() -> None:
    with socket.socket(socket.AF_INET6) as made:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(("::", 0))
        made.listen(1)
        with (
            socket.create_connection(("127.0.0.1", made.getsockname()[1])) as client,
            made.accept()[0] as server,
        ):
            for asked in ("127.0.0.0/8", "::ffff:127.0.0.1", "::ffff:127.0.0.0/104"):
                found = records(connectedips=[asked], pids=[os.getpid()])
                assert {one["inode"] for one in found} == {inode(client), inode(server)}
                assert {one["family"] for one in found} == {"ipv4"}
            assert records(connectedips=["::/0"], pids=[os.getpid()]) == []


def test_each_question_is_answered_by_itself_and_filters_narrow_all_of_them(pair: Pair) -> None:
    made, client, server = pair
    asked = {
        "listeningports": [str(made.getsockname()[1])],
        "connectedips": ["127.0.0.1"],
        "pids": [os.getpid()],
    }
    found = records(**asked)
    assert {(one["search"], one["inode"]) for one in found} == {
        ("listeningports", inode(made)),
        ("connectedips", inode(client)),
        ("connectedips", inode(server)),
    }
    assert [one["search"] for one in records(**asked, states=["listen"])] == ["listeningports"]
    assert records(**asked, families=["ipv6"]) == []


def test_without_a_question_every_socket_is_told(pair: Pair, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        result = ask()
        found = {one.get("inode"): one for one in result.records}
        assert {inode(one) for one in (*pair, unix)} <= set(found)
        assert found[inode(unix)]["path"] == str(tmp_path / "s")
    assert {one["search"] for one in result.records} == {"sockets"}
    assert result.statistics["sockets_seen"] == len(result.records)
    assert result.statistics["namespaces_seen"] == 1


def test_unix_sockets_are_found_by_their_name_whatever_it_holds(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\x1b[31m"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made, socket.socket(socket.AF_UNIX) as abstract:
        made.bind(name)
        abstract.bind(f"\0{tmp_path.name}")
        (found,) = records(unixpaths=[f"^{tmp_path}/"])
        assert (found["family"], found["protocol"], found["pid"]) == ("unix", "dgram", os.getpid())
        assert found["path"] == f"{tmp_path}/\\xff\x1b[31m"
        assert (found["path_b64"], found["uid"]) == (base64.b64encode(name).decode(), os.geteuid())
        assert "local_port" not in found
        (hidden,) = records(unixpaths=[f"^@{tmp_path.name}$"])
        assert hidden["inode"] == inode(abstract)
        assert records(unixpaths=[f"{tmp_path.name}", "!."]) == []


def call_itself(name: bytes) -> Callable[[], None]:
    """Return what gives a process a name; for `prepare`."""
    return lambda: ctypes.CDLL(None).prctl(_PR_SET_NAME, name) and None


def test_a_hostile_name_of_a_process_does_no_harm() -> None:
    with serving(listen, prepare=call_itself(b'\x1b[2J) \n\xff {"')) as (child, address):
        (found,) = records(listeningports=[str(address[1])])
    assert (found["pid"], found["process"]) == (child, '\x1b[2J) \n\\xff {"')
    assert json.loads(json.dumps(found)) == found


def test_sockets_are_found_by_process_program_and_user() -> None:
    with serving(listen, prepare=call_itself(b"evil-server")) as (child, address):
        port = [str(address[1])]
        assert [one["pid"] for one in records(processes=["^evil-server$"])] == [child]
        assert records(processes=["!^evil"], listeningports=port) == []
        assert [one["pid"] for one in records(processes=["python"], listeningports=port)] == [child]
        assert [one["pid"] for one in records(executables=["python[0-9.]*$"], listeningports=port)] == [child]
        assert records(executables=["!python"], listeningports=port) == []
        assert [one["pid"] for one in records(pids=[child])] == [child]


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming somebody else takes root")
def test_sockets_are_found_by_user_name_and_number() -> None:
    with serving(listen, prepare=become_nobody) as (child, address), listen() as mine:
        ports = [str(address[1]), str(mine.getsockname()[1])]
        for users, pid in (
            (["nobody"], child),
            (["65534"], child),
            (["!root"], child),
            (["!nobody"], os.getpid()),
        ):
            assert [one["pid"] for one in records(users=users, listeningports=ports)] == [pid]
        (found,) = records(users=["nobody"], listeningports=ports)
        assert (found["uid"], found["user"]) == (65534, "nobody")
        result = ask(users=["no-such-user-here"], listeningports=ports)
    assert result.records == ()
    assert "user 'no-such-user-here' is not known here (/etc/passwd)" in result.notes


def test_a_socket_that_several_hold_names_them_all_and_the_one_that_is_asked_for() -> None:
    with listen() as made, serving(lambda: made) as (child, address):
        port = [str(address[1])]
        (found,) = records(listeningports=port)
        both = sorted([os.getpid(), child])  # numbers of processes begin anew once they have run out
        assert (found["pid"], list(found["pids"])) == (both[0], both)
        (other,) = records(listeningports=port, pids=[child])
        assert (other["pid"], list(other["pids"])) == (child, both)


class _Address(NamedTuple):
    """What was told of a socket that this thread does not have."""

    port: int

    def getsockname(self) -> list[Any]:
        return ["127.0.0.1", self.port]


def hide_a_listener() -> _Address:
    """Have a thread hold a listener that its process does not have."""
    told: queue.Queue[int] = queue.Queue()

    def hold() -> None:
        assert ctypes.CDLL(None).unshare(_CLONE_FILES) == 0
        made = listen()
        told.put(made.getsockname()[1])
        threading.Event().wait()

    threading.Thread(target=hold, daemon=True).start()
    return _Address(told.get())


def test_a_socket_that_a_thread_keeps_for_itself_is_told_with_its_process() -> None:
    with serving(hide_a_listener) as (child, address):
        (found,) = records(listeningports=[str(address[1])])
        assert found["inode"] not in descriptors_sockets(f"/proc/{child}/fd")
    assert found["pid"] == child


def test_a_connection_without_a_process_is_told_unless_a_process_is_asked_for() -> None:
    with listen() as made:
        port = made.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            server = made.accept()[0]
            # Who closes first waits (RFC 9293, 3.6.1).
            server.close()
            assert client.recv(1) == b""
        result = ask(localports=[str(port)], states=["time-wait"])
        (found,) = result.records
        assert {"pid", "uid", "inode"}.isdisjoint(found)
        assert records(localports=[str(port)], states=["time-wait"], users=["!nobody"]) == []
        assert records(localports=[str(port)], states=["time-wait"], processes=["."]) == []


@pytest.mark.system
def test_addresses_of_this_endpoint_are_found() -> None:
    with two_hosts() as (near, _):
        (found,) = records_in(near.name, localips=["10.0.0.0/8"])
        assert found == {
            "search": "localips", "interface": "wire", "mac": near.mac, "family": "ipv4",
            "address": near.ipv4, "prefix_length": 24,
        }  # fmt: skip
        assert [one["address"] for one in records_in(near.name, localips=["fd77::/16"])] == [near.ipv6]
        assert {one["address"] for one in records_in(near.name, localips=["!10.0.0.0/8", "!fe80::/10"])} == {
            "127.0.0.1", "::1", near.ipv6,
        }  # fmt: skip
        assert [one["interface"] for one in records_in(near.name, localmacs=["^02:00:00:00:77"])] == ["wire"]
        assert [one["interface"] for one in records_in(near.name, localmacs=["77:0A$", "77:01$"])] == ["wire"]
        assert records_in(near.name, localmacs=["!77", "!^00:00"]) == []
        assert records_in(near.name, localips=["192.0.2.0/24"], localmacs=["^ff"]) == []


def meet(near: Host, far: Host) -> None:
    """Make two hosts know each other, in both families."""

    def act() -> None:
        for family, address in ((socket.AF_INET, far.ipv4), (socket.AF_INET6, far.ipv6)):
            with socket.socket(family) as client:
                client.connect_ex((address, 9))

    run_apart(act, enter(near.name))


@pytest.mark.system
def test_neighbours_of_both_families_are_found_when_they_have_answered() -> None:
    with two_hosts() as (near, far):
        meet(near, far)
        near.ip("neighbour", "add", "10.77.0.66", "dev", "wire", "nud", "failed")
        (found,) = records_in(near.name, neighborips=["10.77.0.0/24"])
        assert (found["interface"], found["mac"], found["address"]) == ("wire", far.mac, far.ipv4)
        assert [one["mac"] for one in records_in(near.name, neighborips=[far.ipv6])] == [far.mac]
        by_mac = records_in(near.name, neighbormacs=["^02:00:00:00:77:02$"])
        assert {far.ipv4, far.ipv6} <= {one["address"] for one in by_mac}
        assert {one["search"] for one in by_mac} == {"neighbormacs"}
        assert records_in(near.name, neighborips=["10.77.0.66"]) == []
        result = run_apart(lambda: dict(ask(neighborips=["::1"]).statistics), enter(near.name))
    assert result["neighbors_unresolved"] == 1
    assert result["neighbors_seen"] >= 3


@pytest.mark.system
def test_sockets_of_other_namespaces_are_found_only_when_asked_for() -> None:
    with namespace() as name, serving(listen, prepare=enter(name)) as (child, address):
        path = Path(f"/run/netns/{name}")
        asked = {"listeningports": [str(address[1])], "pids": [child]}
        assert records(**asked) == []
        (found,) = records(**asked, namespaces=True)
        assert found["pid"] == child
        assert found["namespace"] == f"net:[{path.stat().st_ino}]"


@pytest.mark.system
def test_a_namespace_that_no_process_is_in_is_looked_at_through_its_file() -> None:
    with namespace() as name, in_namespace(f"/run/netns/{name}", listen) as made:
        (found,) = records(listeningports=[str(made.getsockname()[1])], namespaces=True, pids=[os.getpid()])
        assert found["inode"] == inode(made)
        assert found["namespace"] == f"net:[{Path(f'/run/netns/{name}').stat().st_ino}]"
        assert found["namespace"] != f"net:[{own_namespace()}]"


@pytest.mark.system
def test_addresses_and_neighbours_of_every_namespace_are_told_with_its_name() -> None:
    with two_hosts() as (near, far):
        meet(near, far)
        found = records(localips=[near.ipv4, far.ipv4], neighborips=[far.ipv4], namespaces=True)
        names = {host.name: f"net:[{Path(host.path).stat().st_ino}]" for host in (near, far)}
    # Whatever else runs on this machine may have the same addresses, as another test does.
    ours = [one for one in found if one["namespace"] in names.values()]
    assert {(one["search"], one["address"], one["namespace"]) for one in ours} == {
        ("localips", near.ipv4, names[near.name]),
        ("localips", far.ipv4, names[far.name]),
        ("neighborips", far.ipv4, names[near.name]),
    }


def _in_container(child: int, tmp_path: Path) -> Callable[[], None]:
    """Have a process seem to be in a container, to whoever looks from a mount namespace of its own."""
    (tmp_path / "cgroup").write_text(f"0::/system.slice/docker-{CONTAINER}.scope\n")

    def act() -> None:
        leave_mounts()
        bind(tmp_path / "cgroup", Path(f"/proc/{child}/cgroup"))

    return act


@pytest.mark.system
def test_sockets_of_a_container_are_found_in_its_own_namespace(tmp_path: Path) -> None:
    with namespace() as name, serving(listen, prepare=enter(name)) as (child, address):
        prepare = _in_container(child, tmp_path)
        for containers in (["*"], [CONTAINER], [CONTAINER[:12]]):
            (found,) = run_apart(partial(records, containers=containers, protocols=["tcp"]), prepare)
            assert (found["pid"], found["local_port"], found["container"]) == (child, address[1], CONTAINER)
            assert found["namespace"].startswith("net:[")
        result = run_apart(lambda: list(ask(containers=[CONTAINER[:11], "web"]).notes), prepare)
    assert "no process runs in a container that is asked for" in result


@pytest.mark.system
def test_a_container_is_known_by_the_name_that_its_engine_has(tmp_path: Path) -> None:
    engine_knows = {
        "/containers/json?all=1": [{"Id": CONTAINER, "Names": ["/web1"]}],
        f"/containers/{CONTAINER}/json": {
            "Id": CONTAINER, "Name": "/web1", "State": {"Status": "running", "Pid": 0}, "Image": IMAGE,
            "HostConfig": {}, "Mounts": None, "Config": {"User": "", "Env": None, "Image": "nginx"},
        },
    }  # fmt: skip
    (tmp_path / "run").mkdir()
    with namespace() as name, serving(listen, prepare=enter(name)) as (child, _):

        def prepare() -> None:
            _in_container(child, tmp_path)()
            bind(tmp_path / "run", Path("/run"))

        def act() -> list[list[Any]]:
            with engine(Path("/run/docker.sock"), engine_knows):
                return [[one["pid"] for one in records(containers=[asked])] for asked in ("web1", "web2")]

        assert run_apart(act, prepare) == [[child], []]


@pytest.mark.system
def test_of_a_container_in_the_hosts_namespace_only_its_own_sockets_are_told(tmp_path: Path) -> None:
    with serving(listen) as (child, address), listen() as mine:
        prepare = _in_container(child, tmp_path)
        found = run_apart(lambda: records(containers=["*"], states=["listen"], families=["ipv4"]), prepare)
        assert address[1] in {one["local_port"] for one in found}
        assert mine.getsockname()[1] not in {one["local_port"] for one in found}


@pytest.mark.skipif(os.geteuid() != 0, reason="packet sockets take root")
def test_who_listens_to_the_wire_is_found_with_its_interface() -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as made:
        made.bind(("lo", 3))
        (found,) = records(families=["packet"], pids=[os.getpid()])
    assert (found["interface"], found["protocol"], found["local_port"]) == ("lo", "raw", 3)
    assert "remote_port" not in found


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming somebody else takes root")
def test_what_may_not_be_looked_at_is_counted_and_named() -> None:
    with serving(listen) as (_, address):
        asked = {"listeningports": [str(address[1])]}
        everywhere = run_apart(lambda: _told(ask(**asked, namespaces=True)), become_nobody)
        here = run_apart(lambda: _told(ask(**asked)), become_nobody)
    assert everywhere["statistics"]["skipped"]["namespaces"] > 0
    assert any(note.startswith("namespaces: may not be looked at: process") for note in everywhere["notes"])
    # The socket is there for all to see; whose it is only root may know.
    assert [one.get("pid", 0) for one in here["records"]] == [0]
    assert here["statistics"]["skipped"]["descriptors"] > 0
    assert here["statistics"]["errors"] == sum(here["statistics"]["skipped"].values())
    assert "1 sockets are held by no process that could be looked at" in here["notes"]


def _told(result: OperationResult) -> dict[str, Any]:
    return {
        "records": list(result.records),
        "notes": list(result.notes),
        "statistics": dict(result.statistics),
    }


def test_a_cancelled_run_keeps_what_it_found(pair: Pair) -> None:
    asked = iter([False] * 8 + [True] * 10_000)
    result = run_operation("netstat", {"families": ["ipv4"]}, Context(is_cancelled=lambda: next(asked)))
    assert result.status == "cancelled"
    assert result.statistics["sockets_seen"]


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"connectedips": ["10.0.0"]}, "connectedips: '10.0.0' is neither an address nor a range"),
        ({"localips": ["fe80::1%eth0"]}, "no part of an address"),
        ({"listeningports": ["70000"]}, "ports are from 0 to 65535"),
        ({"listeningports": ["90-80"]}, "the lower one first"),
        ({"remoteports": ["x"]}, "remoteports"),
        ({"neighbormacs": ["("]}, "neighbormacs: .* is not a regular expression"),
        ({"unixpaths": ["!("]}, "unixpaths: .* is not a regular expression"),
        ({"states": ["asleep"]}, "states"),
        ({"containers": ["../x"]}, "containers"),
        ({"localip": ["10.0.0.1"]}, "unknown field"),
    ],
)
def test_what_could_never_be_looked_for_is_refused(parameters: dict[str, Any], reason: str) -> None:
    result = run_operation("netstat", parameters, Context())
    assert result.status == "invalid-parameters"
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(result.notes[0])


def test_the_ancestors_parameters_are_rewritten() -> None:
    older = {
        "localmac": ["^8c:70"], "neighbormac": ["^8c"], "localip": ["10.0.0.0/8"], "neighborip": ["10.0.0.1"],
        "connectedip": "192.0.2.0/24", "listeningport": [8080, "22"], "namespaces": True,
    }  # fmt: skip
    assert netstat.upgrade(older) == {
        "localmacs": ["^8c:70"], "neighbormacs": ["^8c"], "localips": ["10.0.0.0/8"],
        "neighborips": ["10.0.0.1"], "connectedips": ["192.0.2.0/24"], "listeningports": ["8080", "22"],
        "namespaces": True,
    }  # fmt: skip
    assert netstat.upgrade([1]) == [1]
    assert netstat.upgrade({"listeningport": 22}) == {"listeningports": ["22"]}
    assert netstat.upgrade({}) == {}
