"""Tests of what psutil tells, held against what the kernel tells itself; psutil runs here as elsewhere."""

import os
import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from agent.platform.net_look import LinuxLook, Place
from agent.platform.net_portable import PortableLook, parse_connection
from agent.platform.sockets import Socket, is_listening
from tests.support.apart import become_nobody, run_apart


def look(denied: list[str] | None = None) -> PortableLook:
    told = [] if denied is None else denied
    return PortableLook(check=lambda: None, on_denied=lambda what, whose: told.append(f"{what} {whose}"))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        with socket.create_connection(listener.getsockname()) as client:
            yield listener, client


def test_sockets_are_those_that_the_kernel_tells_with_their_process(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    listener, client = pair
    port = listener.getsockname()[1]
    near = client.getsockname()[1]
    seen = look()
    found = {(one.local_port, one.remote_port): one for one in seen.sockets(Place()) if one.protocol == "tcp"}
    waiting, calling = found[port, 0], found[near, port]
    assert waiting[:7] == ("ipv4", "tcp", "127.0.0.1", port, "0.0.0.0", 0, "listen")  # noqa: S104
    assert calling[:7] == ("ipv4", "tcp", "127.0.0.1", near, "127.0.0.1", port, "established")
    assert (is_listening(waiting), is_listening(calling)) == (True, False)
    (owner,) = seen.holders(waiting.inode)
    kernel = LinuxLook(check=lambda: None, on_denied=lambda *_: None)
    (expected,) = kernel.holders(os.fstat(listener.fileno()).st_ino)
    assert (owner.pid, owner.uid, owner.executable) == (expected.pid, expected.uid, expected.executable)
    assert seen.processes_seen == 1


def test_a_unix_socket_is_told_by_name(tmp_path: os.PathLike[str]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(os.path.join(tmp_path, "s"))  # noqa: PTH118
        found = [one for one in look().sockets(Place()) if one.path == os.fsencode(made.getsockname())]
    assert [(one.family, one.protocol) for one in found] == [("unix", "dgram")]


def test_interfaces_are_those_that_the_kernel_tells() -> None:
    kernel = LinuxLook(check=lambda: None, on_denied=lambda *_: None)

    def plain(looked: LinuxLook | PortableLook) -> set[tuple[str, str, str, int]]:
        return {
            (one.interface, one.family, one.address, one.prefix_length) for one in looked.interfaces(Place())
        }

    assert plain(look()) == plain(kernel)
    macs = {one.interface: one.mac for one in kernel.interfaces(Place())}
    assert {one.interface: one.mac for one in look().interfaces(Place())} == macs


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming somebody else takes root")
def test_who_may_not_know_a_process_sees_its_sockets_without_it(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    port = pair[0].getsockname()[1]

    # psutil may lie where only root may read it.
    made = look()

    def ask() -> list[int]:
        return [one.local_port for one in made.sockets(Place()) if one.state == "listen"]

    assert port in run_apart(ask, become_nobody)


@pytest.mark.parametrize(
    ("family", "local", "remote", "status", "expected"),
    [
        (socket.AF_INET6, ("::ffff:10.0.0.1", 22), ("::ffff:10.0.0.2", 99), "CLOSE_WAIT",
         ("ipv4", "tcp", "10.0.0.1", 22, "10.0.0.2", 99, "close-wait")),
        (socket.AF_INET6, ("fe80::1%en0", 22), (), "LISTEN",
         ("ipv6", "tcp", "fe80::1", 22, "::", 0, "listen")),
        (socket.AF_INET6, ("::", 22), (), "NEW_ONE", ("ipv6", "tcp", "::", 22, "::", 0, "new_one")),
        (socket.AF_INET, (), (), "NONE", ("ipv4", "tcp", "0.0.0.0", 0, "0.0.0.0", 0, "none")),  # noqa: S104
    ],
)  # fmt: skip
def test_what_other_systems_tell_is_said_in_our_words(
    family: int, local: tuple[str, int], remote: tuple[str, int], status: str, expected: tuple[object, ...]
) -> None:
    told = SimpleNamespace(family=family, type=socket.SOCK_STREAM, laddr=local, raddr=remote, status=status)
    found = parse_connection(told, 1)
    assert isinstance(found, Socket)
    assert found[:7] == expected


def test_what_is_no_socket_that_we_know_is_nothing() -> None:
    told = SimpleNamespace(family=99, type=1, laddr=(), raddr=(), status="NONE")
    assert parse_connection(told, 1) is None
