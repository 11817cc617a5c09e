"""Tests of what sockets and processes satisfy; how it is asked is tested with the module."""

from pathlib import Path

import pytest

from agent.platform.net_look import Owner
from agent.platform.sockets import Socket
from agent.scan.accounts import Accounts
from agent.scan.socket_filter import (
    Alternatives,
    OwnerFilter,
    SocketFilter,
    container_matches,
    is_connected,
    user_numbers,
)

LISTENER = Socket("ipv4", "tcp", "0.0.0.0", 22, "0.0.0.0", 0, "listen", 1, 0)  # noqa: S104  (told, not bound)
CONNECTION = LISTENER._replace(remote_address="192.0.2.1", remote_port=5000, state="established", inode=2)
WAITING = CONNECTION._replace(state="time-wait", inode=0, uid=None)
NAMED = Socket("unix", "stream", "", 0, "", 0, "listen", 3, None, b"/run/x")
HEARS = Socket("packet", "raw", "", 3, "", 2, "unconnected", 4, 0)
INIT = Owner(1, b"systemd", 0, b"/sbin/init")
DAEMON = Owner(70, b"nginx", 33, b"/usr/sbin/nginx", container="c" * 64)
WORKER = Owner(71, b"worker", 33, b"/usr/sbin/nginx")


def test_what_is_left_out_is_so_by_any_of_its_names() -> None:
    assert Alternatives(["nginx"]).hold(b"worker", b"nginx")
    assert not Alternatives(["!nginx"]).hold(b"worker", b"nginx")
    assert Alternatives(["!y", "n"]).hold(b"nginx")
    assert not Alternatives(["^AB"]).hold(b"ab")
    assert Alternatives(["^AB|CD"], any_case=True).hold(b"xcdx")


@pytest.mark.parametrize(
    ("found", "expected"),
    [(LISTENER, False), (CONNECTION, True), (WAITING, True), (NAMED, False), (HEARS, False)],
)
def test_connected_is_what_has_a_remote_end(found: Socket, expected: bool) -> None:  # noqa: FBT001
    assert is_connected(found) is expected


def test_filters_must_all_hold_and_ports_are_those_of_the_internet() -> None:
    everything = SocketFilter()
    assert all(everything.searches(one) == ["sockets"] for one in (LISTENER, CONNECTION, NAMED, HEARS))
    assert SocketFilter(localports=["0-65535"]).searches(NAMED) == []
    assert SocketFilter(localports=["3"]).searches(HEARS) == []
    assert SocketFilter(localports=["22"], states=["listen"]).searches(LISTENER) == ["sockets"]
    assert SocketFilter(localports=["22"], states=["listen"]).searches(CONNECTION) == []
    assert SocketFilter(remoteports=["!22"]).searches(LISTENER) == []
    assert SocketFilter(remoteports=["!22"]).searches(CONNECTION) == ["sockets"]
    assert SocketFilter(listeningports=["!80"]).searches(NAMED) == []
    assert SocketFilter(connectedips=["192.0.2.0/24"], unixpaths=["x"]).searches(NAMED) == ["unixpaths"]


def test_the_process_of_a_socket_is_the_first_that_is_asked_for_and_init_comes_last() -> None:
    holders = [INIT, DAEMON, WORKER]
    assert OwnerFilter().choose(LISTENER, holders) == DAEMON
    assert OwnerFilter().choose(LISTENER, [INIT]) == INIT
    assert OwnerFilter(processes=["^worker$"]).choose(LISTENER, holders) == WORKER
    assert OwnerFilter(executables=["^/sbin/"]).choose(LISTENER, holders) == INIT
    assert OwnerFilter(processes=["nginx"], pids=[71]).choose(LISTENER, holders) == WORKER
    assert OwnerFilter().choose(LISTENER, holders, {71}) == WORKER
    assert OwnerFilter(containers=["c" * 12]).choose(LISTENER, holders) == DAEMON
    assert OwnerFilter(containers=["*"]).choose(LISTENER, [INIT, WORKER]) is None


def test_the_user_of_a_socket_is_who_made_it_and_of_a_unix_socket_its_process() -> None:
    only_root = OwnerFilter(users=({0}, set()))
    assert only_root.choose(LISTENER, [DAEMON]) == DAEMON
    assert only_root.choose(NAMED, [DAEMON]) is None
    assert OwnerFilter(users=(set(), {0})).choose(NAMED, [INIT, DAEMON]) == DAEMON


def test_a_socket_without_a_process_is_asked_for_unless_something_of_a_process_is() -> None:
    assert not OwnerFilter().needs_owner(WAITING)
    assert not OwnerFilter(users=({0}, set())).needs_owner(LISTENER)
    assert OwnerFilter(users=({33}, set())).needs_owner(LISTENER)
    assert OwnerFilter(users=(set(), {33})).needs_owner(WAITING)
    assert OwnerFilter(pids=[1]).needs_owner(LISTENER)
    assert OwnerFilter(containers=["*"]).needs_owner(LISTENER)


def test_a_container_is_named_by_its_id_a_long_beginning_of_it_or_its_name() -> None:
    assert container_matches("c" * 64, ["c" * 12])
    assert not container_matches("c" * 64, ["c" * 11])
    assert container_matches("web1", ["db1", "web1"])
    assert not container_matches("web12", ["web1"])


def test_users_that_nobody_knows_are_noted_and_match_nobody(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("root:x:0:0::/:/bin/sh\nada:x:1000:1000::/:/bin/sh\n")
    accounts = Accounts(str(tmp_path / "passwd"))
    notes: list[str] = []
    assert user_numbers((), accounts, notes.append) is None
    assert user_numbers(["ada", "!root", "4711"], accounts, notes.append) == ({1000, 4711}, {0})
    assert notes == []
    assert user_numbers(["eve"], accounts, notes.append) == ({-1}, set())
    assert notes == [f"user 'eve' is not known here ({tmp_path}/passwd)"]
