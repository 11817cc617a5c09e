"""Tests of single tries to reach an address: what counts as an answer, and what does not."""

import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.net_ping import (
    ANSWERED,
    LOST,
    REFUSED,
    UNREACHABLE,
    Attempt,
    Destination,
    Echo,
    Unresolved,
    checksum,
    echo_request,
    is_answer,
    is_error_for,
    pause,
    resolve,
    try_tcp,
    try_udp,
    without_header,
)
from tests.support.apart import become_nobody, run_apart
from tests.support.network import Host, enter, namespace, two_hosts

TOKEN = b"0123456789abcdef"
HERE = Destination(socket.AF_INET, ("127.0.0.1", 0))
HERE6 = Destination(socket.AF_INET6, ("::1", 0, 0, 0))


def never() -> None:
    """Be what `check` is where nobody ends the wait."""


class Ended(Exception):
    """The wait was ended."""


def check_that_ends(after: int) -> Callable[[], None]:
    left = iter(range(after))

    def check() -> None:
        if next(left, None) is None:
            raise Ended

    return check


@pytest.mark.parametrize("name", ["127.0.0.1", "::1"])
def test_an_address_resolves_to_itself(name: str) -> None:
    (found,) = resolve(name, socket.AF_UNSPEC, never)
    assert found.address == name
    assert found.at(80)[:2] == (name, 80)


@pytest.mark.parametrize(
    ("name", "family"),
    [("::1", socket.AF_INET), ("127.0.0.1", socket.AF_INET6), ("a" * 64, 0), ("..", 0), ("x.invalid", 0)],
)
def test_what_has_no_address_of_the_family_is_told_with_the_reason(name: str, family: int) -> None:
    with pytest.raises(Unresolved, match=r"\w"):
        resolve(name, family, never)


@pytest.mark.slow
def test_waits_end_when_they_are_told_to() -> None:
    with pytest.raises(Ended):
        pause(3600, check_that_ends(2))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(Ended):
            try_udp(HERE, silent.getsockname()[1], 3600, check_that_ends(2))


@pytest.mark.parametrize(("family", "where"), [(socket.AF_INET, HERE), (socket.AF_INET6, HERE6)])
def test_a_connection_is_an_answer_and_a_refusal_is_none(family: int, where: Destination) -> None:
    with socket.socket(family) as listener:
        listener.bind(where.at(0))
        port = listener.getsockname()[1]
        assert try_tcp(where, port, 5, never) == Attempt(REFUSED)
        listener.listen(1)
        made = try_tcp(where, port, 5, never)
        with listener.accept()[0] as server:
            assert server.recv(1) == b""
    assert made.outcome == ANSWERED
    assert made.latency_s is not None
    assert made.latency_s > 0


def test_a_datagram_is_an_answer_silence_is_lost_and_nobody_a_refusal() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert try_udp(HERE, port, 0.01, never) == Attempt(LOST)
        question, client = server.recvfrom(100)
        assert question == bytes(8)

        def answer() -> None:
            server.settimeout(0)
            try:
                _, asker = server.recvfrom(100)
            except BlockingIOError:
                return
            server.sendto(b"yes", asker)

        assert try_udp(HERE, port, 5, answer).outcome == ANSWERED
        assert client[0] == "127.0.0.1"
    assert try_udp(HERE, port, 5, never) == Attempt(REFUSED)


@pytest.mark.system
@pytest.mark.parametrize("address", ["ipv4", "ipv6"])
def test_an_echo_is_an_answer_and_silence_is_lost(address: str) -> None:
    with two_hosts() as (near, far):
        _know_nobody(near)
        where = Destination(*_family_of(getattr(far, address)))
        nobody = Destination(*_family_of({"ipv4": "10.77.0.9", "ipv6": "fd77::9"}[address]))

        def act() -> list[str]:
            outcomes = []
            for one, timeout_s in ((where, 5), (nobody, 0.05)):
                with Echo(one) as echo:
                    outcomes += [echo.attempt(timeout_s, never).outcome for _ in range(2)]
            return outcomes

        assert run_apart(act, enter(near.name)) == [ANSWERED, ANSWERED, LOST, LOST]


def _know_nobody(near: Host) -> None:
    """Have packets to .9 go out to a host that is not there, so that nothing says so."""
    for address in ("10.77.0.9", "fd77::9"):
        near.ip("neighbour", "add", address, "lladdr", "02:00:00:00:77:09", "dev", "wire")


def _family_of(address: str) -> tuple[int, tuple[object, ...]]:
    if ":" in address:
        return socket.AF_INET6, (address, 0, 0, 0)
    return socket.AF_INET, (address, 0)


@pytest.mark.system
def test_what_the_kernel_or_a_router_turns_away_is_unreachable() -> None:
    with two_hosts() as (near, far):
        near.ip("route", "add", "unreachable", "192.0.2.0/25")
        near.ip("route", "add", "192.0.2.128/25", "via", far.ipv4)
        far.ip("route", "add", "unreachable", "192.0.2.128/25")
        run_apart(_forward, enter(far.name))

        def act() -> list[list[str]]:
            told = []
            for address in ("192.0.2.1", "192.0.2.200", "198.51.100.1"):
                where = Destination(socket.AF_INET, (address, 0))
                with Echo(where) as echo:
                    outcomes = [
                        echo.attempt(5, never),
                        try_tcp(where, 9, 5, never),
                        try_udp(where, 9, 5, never),
                    ]
                told.append([one.outcome for one in outcomes])
            return told

        assert run_apart(act, enter(near.name)) == [[UNREACHABLE] * 3] * 3


def _forward() -> None:
    for name, value in (("ip_forward", "1"), ("icmp_ratelimit", "0")):
        Path(f"/proc/sys/net/ipv4/{name}").write_text(value)


@pytest.mark.system
def test_without_rights_the_kernels_own_ping_socket_serves() -> None:
    with namespace() as name:

        def prepare() -> None:
            enter(name)()
            Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 2147483647")
            become_nobody()

        def act() -> list[object]:
            told: list[object] = []
            for where in (HERE, HERE6):
                with Echo(where) as echo:
                    told += [echo._is_raw, echo.attempt(5, never).outcome, echo.attempt(5, never).outcome]
            return told

        assert run_apart(act, prepare) == [False, ANSWERED, ANSWERED] * 2


@pytest.mark.system
def test_without_any_rights_it_is_refused() -> None:
    with namespace() as name:

        def prepare() -> None:
            enter(name)()
            become_nobody()

        with pytest.raises(AssertionError, match="PermissionError"):
            run_apart(lambda: Echo(HERE), prepare)


def _answer(kind: int, sequence: int, token: bytes, code: int = 0) -> bytes:
    return struct.pack(">BBHHH", kind, code, 0, 7, sequence) + token


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (_answer(0, 1, TOKEN), True),
        (_answer(0, 2, TOKEN), False),
        (_answer(0, 1, TOKEN[::-1]), False),
        (_answer(0, 1, TOKEN + b"x"), False),
        (_answer(8, 1, TOKEN), False),
        (_answer(129, 1, TOKEN), False),
        (_answer(0, 1, TOKEN, code=3), False),
        (b"", False),
    ],
)
def test_only_the_echo_of_what_was_sent_is_an_answer(message: bytes, expected: bool) -> None:  # noqa: FBT001
    assert is_answer(message, 1, TOKEN, is_ipv6=False) is expected


def _error(kind: int, target: str, identifier: int = 7, sequence: int = 1) -> bytes:
    inner = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, 1, 0, b"", socket.inet_aton(target))
    return struct.pack(">BBHI", kind, 1, 0, 0) + inner + struct.pack(">BBHHH", 8, 0, 0, identifier, sequence)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (_error(3, "127.0.0.1"), True),
        (_error(11, "127.0.0.1"), True),
        (_error(5, "127.0.0.1"), False),
        (_error(3, "127.0.0.2"), False),
        (_error(3, "127.0.0.1", identifier=8), False),
        (_error(3, "127.0.0.1", sequence=2), False),
        (_error(3, "127.0.0.1")[:-1], False),
        (b"\x03" + bytes(7), False),
        (b"\x03" + bytes(8), False),
    ],
)
def test_an_error_counts_only_where_it_holds_what_was_sent(message: bytes, expected: bool) -> None:  # noqa: FBT001
    assert is_error_for(message, 7, 1, HERE, is_ipv6=False) is expected


@given(st.binary(max_size=120), st.booleans())
def test_any_message_is_an_answer_an_error_or_nothing(data: bytes, is_ipv6: bool) -> None:  # noqa: FBT001
    message = without_header(data)
    assert not is_answer(message, 1, TOKEN, is_ipv6=is_ipv6) or TOKEN in message
    is_error_for(message, 7, 1, HERE6 if is_ipv6 else HERE, is_ipv6=is_ipv6)


@given(st.binary(max_size=64), st.integers(0, 65535), st.integers(0, 65535))
def test_the_check_sum_of_a_request_with_its_own_is_nothing(
    token: bytes, identifier: int, sequence: int
) -> None:
    assert checksum(echo_request(8, identifier, sequence, token)) in (0, 0xFFFF)
