"""Tests of hearing packets: real ones, in namespaces that the tests make. They need root."""

import socket
from collections.abc import Callable
from typing import Any

import pytest

from agent.platform.net_links import read_links
from agent.platform.packet_filter import parse_filter
from agent.platform.packet_filter_code import Instruction, compile_filter
from agent.platform.packet_socket import Ear, attach_filter
from agent.platform.packets import parse_packet, protocol_text
from agent.platform.rtnetlink import RouteNetlink
from tests.support.apart import become_nobody, run_apart
from tests.support.network import enter, namespace, two_hosts

pytestmark = pytest.mark.system


def program(text: str) -> list[Instruction]:
    return compile_filter(parse_filter(text), 1 << 18)


def say(text: bytes, port: int, address: str = "127.0.0.1") -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(text, (address, port))


def within(act: Callable[[], Any]) -> Any:
    """Run something in a new namespace, where nobody else says anything."""
    with namespace() as name:
        return run_apart(act, enter(name))


def test_a_packet_on_the_loopback_is_heard_once_and_from_ip_on() -> None:
    def act() -> list[Any]:
        with Ear(["lo"], program("udp port 999"), 256) as ear:
            say(b"unheard", 998)
            say(b"heard", 999)
            heard = [
                (one.interface, one.size, bytes(ear.buffer[: one.captured]).hex()) for one in ear.listen(5)
            ]
            return [heard, ear.statistics()]

    (((interface, size, data),), (passed, dropped)) = within(act)
    assert (interface, size) == ("lo", 20 + 8 + 5)
    assert bytes.fromhex(data).endswith(b"heard")
    # Going out and coming in.
    assert (passed, dropped) == (2, 0)


def test_more_than_the_buffer_holds_is_cut_and_the_length_is_still_told() -> None:
    def act() -> list[Any]:
        with Ear([], program(""), 64) as ear:
            say(bytes(1000), 999)
            return [[one.size, one.captured] for one in ear.listen(5)]

    assert [1028, 64] in within(act)


def test_what_found_no_room_is_counted() -> None:
    def act() -> tuple[int, int, int]:
        with Ear(["lo"], program("udp"), 256) as ear:
            # As the least that the kernel gives.
            ear._sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            for _ in range(200):
                say(bytes(1000), 999)
            passed, dropped = ear.statistics()
            again, _ = ear.statistics()
            return passed, dropped, again

    passed, dropped, again = within(act)
    assert passed == again == 400
    assert 0 < dropped < 400


def test_the_filter_is_there_before_the_first_packet() -> None:
    def act() -> list[int]:
        told = []
        for _ in range(50):
            say(b"x", 999)
            with Ear([], program("tcp"), 64) as ear:
                say(b"x", 999)
                told.append(sum(1 for _ in ear.listen(0)))
        return told

    assert within(act) == [0] * 50


def test_what_is_for_others_is_heard_only_when_asked_for_and_as_long() -> None:
    with two_hosts() as (near, far):

        def flags() -> bool:
            with RouteNetlink() as netlink:
                return any(link.is_promiscuous for link in read_links(netlink))

        def act() -> list[bool]:
            told = [flags()]
            for is_promiscuous in (False, True):
                with Ear(["wire"], program("udp"), 64, is_promiscuous=is_promiscuous):
                    told.append(flags())
            return [*told, flags()]

        assert run_apart(act, enter(near.name)) == [False, False, True, False]
        assert far.name != near.name


def test_packets_of_an_interface_with_a_link_header_begin_with_ip_too() -> None:
    with two_hosts() as (near, far):

        def act() -> list[str]:
            with Ear(["wire"], program("udp or arp"), 256) as ear:
                say(b"x", 999, far.ipv4)
                return [
                    protocol_text(parse_packet(one.ether, ear.buffer, one.captured)) for one in ear.listen(5)
                ]

        assert set(run_apart(act, enter(near.name))) <= {"arp", "udp"}


def test_an_interface_that_is_not_there_is_refused() -> None:
    with pytest.raises(OSError, match="no interface with this name"):
        Ear(["nothing0"], program(""), 64)
    with pytest.raises(AssertionError, match="PermissionError"):
        run_apart(lambda: Ear([], program(""), 64), become_nobody)


def test_what_is_no_program_is_refused_by_the_kernel() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        pytest.raises(OSError, match="Invalid argument"),
    ):
        attach_filter(sock, [Instruction(0x15, 200, 200, 0)])
