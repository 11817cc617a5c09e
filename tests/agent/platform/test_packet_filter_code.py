"""Tests of compiled filters: by a machine of the tests' own, by the kernel, and against tcpdump's."""

import re
import socket
import subprocess
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.platform.packet_filter import FilterError, parse_filter
from agent.platform.packet_filter_code import (
    COOKED,
    ETHERNET,
    JA,
    MAX_INSTRUCTIONS,
    Instruction,
    compile_filter,
    pack_program,
)
from agent.platform.packet_socket import attach_filter
from tests.agent.platform.frames import ETHERS, arp, filters, frame, frames, ip4, ip6, tcp, udp
from tests.support.bpf import Code, run_bpf

ACCEPT = 0x40000


def made(text: str) -> list[Instruction]:
    return compile_filter(parse_filter(text), ACCEPT, ETHERNET)


def accepts(text: str, packet: bytes) -> bool:
    return bool(run_bpf(made(text), packet))


def verdicts(program: list[Code], packets: list[bytes]) -> list[bool]:
    return [bool(run_bpf(program, packet)) for packet in packets]


WEB = frame(ETHERS["ip"], ip4("10.0.0.1", "192.0.2.1", 6, tcp(5000, 80)))
QUESTION = frame(ETHERS["ip"], ip4("10.0.0.1", "10.0.0.2", 17, udp(5353, 53)))
WEB6 = frame(ETHERS["ip6"], ip6("fd00::1", "2001:db8::1", 6, tcp(5000, 80)))
LATER = frame(ETHERS["ip"], ip4("10.0.0.1", "192.0.2.1", 6, tcp(5000, 80), fragment=100))
WHO_HAS = frame(ETHERS["arp"], arp("10.0.0.1", "10.0.0.9"))


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("", [WEB, QUESTION, WEB6, LATER, WHO_HAS]),
        ("tcp", [WEB, WEB6, LATER]),
        ("udp", [QUESTION]),
        ("ip", [WEB, QUESTION, LATER]),
        ("host 10.0.0.1", [WEB, QUESTION, LATER, WHO_HAS]),
        ("ip host 10.0.0.1", [WEB, QUESTION, LATER]),
        ("dst host 192.0.2.1", [WEB, LATER]),
        ("src host 192.0.2.1", []),
        ("net 2001:db8::/32", [WEB6]),
        ("net 0.0.0.0/0", [WEB, QUESTION, LATER, WHO_HAS]),
        ("port 80", [WEB, WEB6]),
        ("src port 80", []),
        ("portrange 50-90", [WEB, QUESTION, WEB6]),
        ("tcp portrange 1-4999", [WEB, WEB6]),
        ("not port 80", [QUESTION, LATER, WHO_HAS]),
        ("tcp or udp and host 10.0.0.2", [QUESTION]),
        ("tcp or (udp and host 10.0.0.2)", [WEB, QUESTION, WEB6, LATER]),
    ],
)
def test_a_filter_accepts_what_it_says(text: str, accepted: list[bytes]) -> None:
    packets = [WEB, QUESTION, WEB6, LATER, WHO_HAS]
    assert [packet for packet in packets if accepts(text, packet)] == accepted


def test_options_of_ip_are_stepped_over_and_a_cut_packet_is_no_match() -> None:
    packet = ip4("10.0.0.1", "10.0.0.2", 6, tcp(5000, 80), options=b"\1" * 40)
    assert accepts("tcp dst port 80", frame(ETHERS["ip"], packet))
    assert not accepts("tcp dst port 80", frame(ETHERS["ip"], packet)[: 14 + 60])
    assert not accepts("not tcp dst port 80", frame(ETHERS["ip"], packet)[: 14 + 60])


@given(filters, frames())
def test_what_begins_with_the_network_header_is_judged_as_the_whole_frame_is(
    text: str, packet: bytes
) -> None:
    cooked = compile_filter(parse_filter(text), ACCEPT, COOKED)
    protocol = int.from_bytes(packet[12:14], "big")
    assert run_bpf(cooked, packet[14:], protocol) == run_bpf(made(text), packet)


@given(filters)
def test_programs_only_jump_forward_and_within_themselves(text: str) -> None:
    program = made(text)
    for at, step in enumerate(program):
        assert step.code == JA or max(step.jt, step.jf) <= 255
        assert (
            at + 1 + max(step.jt, step.jf, step.k if step.code == JA else 0) < len(program)
            or step.code & 7 != 5
        )
    assert [step.code for step in program[-2:]] == [6, 6]
    assert len(pack_program(program)) == 8 * len(program)


@pytest.mark.parametrize("join", [" or ", " and "])
def test_jumps_that_reach_too_far_are_made_in_two(join: str) -> None:
    ports = [*range(1000, 1060), 80]
    text = join.join(f"port {port}" if join == " or " else f"not port {port}" for port in ports)
    program = made(text)
    assert len(program) > 700
    assert any(step.code == JA for step in program)
    assert all(max(step.jt, step.jf) <= 255 for step in program)
    other = frame(ETHERS["ip"], ip4("10.0.0.1", "10.0.0.2", 17, udp(9, 10)))
    is_any = join == " or "
    assert verdicts(list(program), [WEB, WEB6, other]) == [is_any, is_any, not is_any]
    with _kernel(program) as (near, far):
        assert _passes(near, far, WEB) is is_any
        assert _passes(near, far, other) is not is_any


def test_a_program_that_the_kernel_would_not_take_is_refused() -> None:
    with pytest.raises(FilterError, match=f"instructions, at most {MAX_INSTRUCTIONS}"):
        made(" or ".join(["portrange 5-9"] * 128))


class _kernel:  # noqa: N801  (reads as a function where it is used)
    """A pair of sockets; the kernel runs the program on what is sent through it."""

    def __init__(self, program: list[Instruction]) -> None:
        self._pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        attach_filter(self._pair[1], program)

    def __enter__(self) -> tuple[socket.socket, socket.socket]:
        return self._pair

    def __exit__(self, *_: object) -> None:
        for one in self._pair:
            one.close()


def _passes(near: socket.socket, far: socket.socket, packet: bytes) -> bool:
    near.send(packet)
    try:
        return far.recv(1 << 16, socket.MSG_DONTWAIT) == packet
    except BlockingIOError:
        return False


@given(filters, st.lists(frames(), min_size=1, max_size=20))
def test_the_kernel_takes_every_program_and_judges_as_we_do(text: str, packets: list[bytes]) -> None:
    program = made(text)
    with _kernel(program) as (near, far):
        assert [_passes(near, far, packet) for packet in packets] == verdicts(list(program), packets)


@lru_cache(maxsize=512)
def _of_tcpdump(text: str) -> list[Code]:
    # Not optimised: of `dst net fd00::/127 and net fd00::/127` libpcap 1.10.3 makes an optimised program
    # that wants the source to be of that net too.
    command = ["tcpdump", "-O", "-ddd", "-y", "EN10MB", text]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    numbers = [int(number) for number in re.findall(r"\d+", done.stdout)][1:]
    return [
        (numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]) for at in range(0, len(numbers), 4)
    ]


@pytest.mark.system
@settings(max_examples=100)
@given(filters, st.lists(frames(), min_size=1, max_size=30))
def test_tcpdump_means_the_same(text: str, packets: list[bytes]) -> None:
    assert verdicts(list(made(text)), packets) == verdicts(_of_tcpdump(text), packets)
