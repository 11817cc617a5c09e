"""Tests of reading the kernel's tables of sockets: real sockets, recorded lines, and hostile names."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.sockets import (
    Socket,
    descriptors_sockets,
    is_listening,
    parse_internet,
    parse_packet,
    parse_unix,
    read_sockets,
    socket_owners,
)
from tests.support.apart import become_nobody, run_apart

HEADER = b"Num       RefCount Protocol Flags    Type St Inode Path\n"


def _inode(of: socket.socket) -> int:
    return os.fstat(of.fileno()).st_ino


def _found(of: socket.socket) -> Socket:
    return next(found for found in read_sockets() if found.inode == _inode(of))


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1", "ipv4"), (socket.AF_INET6, "::1", "ipv6")])
def listener(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, str, str]]:
    family, address, name = request.param
    with socket.socket(family, socket.SOCK_STREAM) as made:
        made.bind((address, 0))
        made.listen(1)
        yield made, address, name


def test_a_listener_and_both_ends_of_a_connection_are_told_apart(
    listener: tuple[socket.socket, str, str],
) -> None:
    made, address, family = listener
    port = made.getsockname()[1]
    with socket.create_connection((address, port)) as client, made.accept()[0] as server:
        near = client.getsockname()[1]
        waiting, calling, called = map(_found, (made, client, server))
    unspecified = {"ipv4": "0.0.0.0", "ipv6": "::"}[family]  # noqa: S104  (compared, not bound)
    assert waiting[:7] == (family, "tcp", address, port, unspecified, 0, "listen")
    assert calling[:7] == (family, "tcp", address, near, address, port, "established")
    assert called[:7] == (family, "tcp", address, port, address, near, "established")
    assert [is_listening(one) for one in (waiting, calling, called)] == [True, False, False]
    assert waiting.uid == os.geteuid()


def test_an_ipv4_peer_of_an_ipv6_socket_is_of_ipv4() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as made:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(("::", 0))
        made.listen(1)
        port = made.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, made.accept()[0] as server:
            called, waiting = _found(server), _found(made)
            assert called[:6] == ("ipv4", "tcp", "127.0.0.1", port, "127.0.0.1", client.getsockname()[1])
    assert waiting[:4] == ("ipv6", "tcp", "::", port)


def test_a_udp_socket_listens_until_it_is_connected() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        bound, connected = _found(server), _found(client)
    assert (bound.protocol, bound.state, is_listening(bound)) == ("udp", "unconnected", True)
    assert (connected.protocol, connected.state, is_listening(connected)) == ("udp", "established", False)


def test_unix_sockets_are_told_by_name_type_and_state(tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dgram,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as abstract,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as nameless,
    ):
        stream.bind(str(tmp_path / "stream"))
        stream.listen(1)
        dgram.bind(str(tmp_path / "dgram"))
        abstract.bind(f"\0{tmp_path.name}")
        found = [_found(one) for one in (stream, dgram, abstract, nameless)]
    assert [(one.protocol, one.state, one.path, is_listening(one)) for one in found] == [
        ("stream", "listen", os.fsencode(tmp_path / "stream"), True),
        ("dgram", "unconnected", os.fsencode(tmp_path / "dgram"), True),
        ("seqpacket", "unconnected", b"@" + os.fsencode(tmp_path.name), False),
        ("stream", "unconnected", None, False),
    ]
    assert {(one.family, one.uid, one.local_address) for one in found} == {("unix", None, "")}


def test_a_line_end_in_the_name_of_a_unix_socket_makes_no_other_socket(tmp_path: Path) -> None:
    names = [b"a\nb", b"\n", b"\xff\x1b[31m\r\nx y", b"0: 1 2\n\n"]
    sockets = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in names]
    base = os.fsencode(tmp_path)
    try:
        for made, name in zip(sockets, names, strict=True):
            made.bind(base + b"/" + name)
        found = [_found(made).path for made in sockets]
    finally:
        for made in sockets:
            made.close()
    assert found == [base + b"/" + name for name in names]


@pytest.mark.skipif(os.geteuid() != 0, reason="packet sockets take root")
def test_raw_and_packet_sockets_are_seen() -> None:
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as hears_all,
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw,
    ):
        hears_all.bind(("lo", 3))
        packet, icmp = _found(hears_all), _found(raw)
    assert packet[:7] == ("packet", "raw", "", 3, "", socket.if_nametoindex("lo"), "unconnected")
    assert icmp[:4] == ("ipv4", "raw", "0.0.0.0", socket.IPPROTO_ICMP)  # noqa: S104  (compared, not bound)
    assert not is_listening(packet)
    assert not is_listening(icmp)


def test_owners_are_all_who_hold_a_socket(tmp_path: Path) -> None:
    with socket.socket() as mine:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        try:
            owners = socket_owners([os.getpid(), child])
        finally:
            os.close(write)
            os.close(read)
            os.waitpid(child, 0)
        assert owners[_inode(mine)] == [os.getpid(), child]
        assert socket_owners([child]) == {}


def test_a_file_that_is_called_as_a_socket_is_none(tmp_path: Path) -> None:
    directory = tmp_path / "7" / "fd"
    directory.mkdir(parents=True)
    (directory / "0").symlink_to("/tmp/socket:[1]")
    (directory / "1").symlink_to("socket:[22]")
    (directory / "2").symlink_to("socket:[22]")
    (directory / "3").symlink_to("pipe:[3]")
    assert descriptors_sockets(str(directory)) == [22]
    assert socket_owners([7, 8], str(tmp_path)) == {22: [7]}


def test_a_file_whose_path_is_too_long_to_tell_hides_no_socket(tmp_path: Path) -> None:
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=at)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    try:
        with pytest.raises(OSError, match="too long"):
            Path(f"/proc/self/fd/{at}").readlink()
        with socket.socket() as made:
            assert socket_owners([os.getpid()])[_inode(made)] == [os.getpid()]
    finally:
        os.close(at)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming somebody else takes root")
def test_a_process_that_may_not_be_looked_at_is_told() -> None:
    told: list[int] = []
    assert run_apart(lambda: (socket_owners([1], on_denied=told.append), told), become_nobody) == [{}, [1]]


def test_the_table_of_another_namespace_is_read_where_its_process_has_it() -> None:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen(1)
        inodes = [found.inode for found in read_sockets(f"/proc/{os.getpid()}/net")]
        assert inodes.count(_inode(made)) == 1
    with pytest.raises(FileNotFoundError, match="No such file"):
        list(read_sockets("/proc/4194305/net"))


def test_a_kernel_without_a_table_has_no_sockets_of_it(tmp_path: Path) -> None:
    (tmp_path / "unix").write_bytes(HEADER + b"0000000000000000: 00000002 00000000 00010000 0001 01 9 /x\n")
    (tmp_path / "tcp").write_bytes(b"")
    assert [(found.inode, found.path) for found in read_sockets(str(tmp_path))] == [(9, b"/x")]


TCP_LINE = (
    b"   0: 0100007F:1F90 0200000A:C350 06 00000000:00000000 03:00000D7C 00000000     0        0 0 3 0000\n"
)


def test_a_connection_whose_time_is_not_over_has_no_user() -> None:
    assert parse_internet(TCP_LINE, "tcp") == Socket(
        "ipv4", "tcp", "127.0.0.1", 8080, "10.0.0.2", 50000, "time-wait", 0, None
    )


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        TCP_LINE[:60],
        TCP_LINE.replace(b"0100007F:1F90", b"0100007F1F90"),
        TCP_LINE.replace(b"0100007F", b"0100007"),
        TCP_LINE.replace(b"0100007F", b"0100\xff\xff7F"),
        TCP_LINE.replace(b"0100007F", b"zz00007F"),
        TCP_LINE.replace(b" 06 ", b" zz "),
    ],
)
def test_what_is_no_line_of_a_table_is_nothing(line: bytes) -> None:
    assert parse_internet(line, "tcp") is None


def test_a_state_that_came_later_is_told_by_number() -> None:
    found = parse_internet(TCP_LINE.replace(b" 06 ", b" 1F "), "tcp")
    assert found is not None
    assert found.state == "state-31"


@given(st.binary())
def test_any_bytes_as_a_line_give_a_socket_or_nothing(line: bytes) -> None:
    for parsed in (parse_internet(line, "tcp"), parse_packet(line), *parse_unix([line])):
        assert parsed is None or isinstance(parsed, Socket)


@given(st.lists(st.sampled_from([*TCP_LINE.split(), b"-1", b"\xb2", b"0" * 32, b"F" * 32]), max_size=12))
def test_fields_in_any_order_give_a_socket_or_nothing(fields: list[bytes]) -> None:
    for parsed in (parse_internet(b" ".join(fields), "udp"), parse_packet(b" ".join(fields))):
        assert parsed is None or isinstance(parsed, Socket)


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_names_stay_short_however_many_lines_they_seem_to_have(lines: list[bytes]) -> None:
    first = b"0000000000000000: 00000002 00000000 00010000 0001 01 9 /x\n"
    for found in parse_unix([first, *lines]):
        assert found.path is None or len(found.path) <= 108
